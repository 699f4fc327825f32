//! The label that marks a connection as revoked.

/// The connection-tracking label that marks a connection as revoked.
///
/// It is the last of the 128, because other programs (Open vSwitch and OVN, Calico, `connlabel.conf`) number theirs from 0.
pub const REVOKED: u8 = 127;

/// Returns the label field with only [`REVOKED`] set, as the kernel stores it: an array of `unsigned long` in host order.
pub(crate) fn label_bytes() -> [u8; 16] {
    const WORD: usize = size_of::<usize>();
    let mut out = [0; 16];
    let bit = usize::from(REVOKED);
    let start = bit / (WORD * 8) * WORD;
    out[start..start + WORD].copy_from_slice(&(1usize << (bit % (WORD * 8))).to_ne_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_label_is_the_last_bit() {
        assert_eq!(label_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }
}

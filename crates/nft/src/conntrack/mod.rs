//! Connections that are under way: listing them, and cutting those that a change of policy now denies.

/// The connection-tracking label that marks a connection as revoked: the last of the 128, because those who number
/// theirs from 0 up (Open vSwitch and OVN, Calico, `connlabel.conf`) get there last.
pub const REVOKED: u8 = 127;

/// The label field with [`REVOKED`] alone set, as the kernel keeps it: an array of `unsigned long` in host order.
pub(crate) fn label_bytes() -> [u8; 16] {
    const WORD: usize = size_of::<usize>();
    let mut out = [0; 16];
    let bit = usize::from(REVOKED);
    let start = bit / (WORD * 8) * WORD;
    out[start..start + WORD].copy_from_slice(&(1usize << (bit % (WORD * 8))).to_ne_bytes());
    out
}

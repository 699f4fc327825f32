//! The UID by which the API server tells objects apart that have the same name one after the other.

/// The UID of an object, or none.
///
/// It has 128 bits, as those that the API server and the kubelet give. Nothing is decided by it: it only tells whether two sources speak of
/// the same object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid([u64; 2]);

impl Uid {
    /// No UID is known.
    pub const UNKNOWN: Self = Self([0; 2]);

    /// Reads 32 hexadecimal digits, with or without hyphens. Any other text is [`Uid::UNKNOWN`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut value, mut digits) = (0_u128, 0);
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            let Some(digit) = char::from(byte).to_digit(16) else { return Self::UNKNOWN };
            (value, digits) = (value << 4 | u128::from(digit), digits + 1);
        }
        match digits {
            32 => Self([(value >> 64) as u64, value as u64]),
            _ => Self::UNKNOWN,
        }
    }

    /// Whether both may be the UID of the same object: they are equal, or one of them is unknown.
    #[must_use]
    pub fn may_be(self, other: Self) -> bool {
        self == other || self == Self::UNKNOWN || other == Self::UNKNOWN
    }
}

/// With hyphens, as the API server writes it. Nothing if it is unknown.
impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [high, low] = self.0;
        if *self == Self::UNKNOWN {
            return Ok(());
        }
        write!(f, "{:08x}-{:04x}-{:04x}-", high >> 32, high >> 16 & 0xffff, high & 0xffff)?;
        write!(f, "{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
    }
}

impl std::fmt::Debug for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_of_the_api_server_and_of_static_pods_are_read_and_others_are_unknown() {
        let uid = Uid::parse("0e5f0d7c-5b43-4d3c-9f2c-0123456789ab");
        assert_eq!(uid, Uid::parse("0e5f0d7c5b434d3c9f2c0123456789AB"));
        assert_eq!(format!("{uid:?}"), "0e5f0d7c5b434d3c9f2c0123456789ab");
        assert_eq!(uid.to_string(), "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab");
        assert_eq!(Uid::UNKNOWN.to_string(), "");
        for text in
            ["", "u", "0e5f", "0e5f0d7c-5b43-4d3c-9f2c-0123456789abc", "0e5f0d7c-5b43-4d3c-9f2c-0123456789aé"]
        {
            assert_eq!(Uid::parse(text), Uid::UNKNOWN, "{text}");
        }
        let other = Uid::parse("1e5f0d7c-5b43-4d3c-9f2c-0123456789ab");
        assert!(
            uid.may_be(uid) && uid.may_be(Uid::UNKNOWN) && Uid::UNKNOWN.may_be(uid) && !uid.may_be(other)
        );
    }
}

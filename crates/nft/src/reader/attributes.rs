//! Reads netlink attributes from a buffer.

use crate::uapi::netlink::{NLA_ALIGNTO, NLA_HDRLEN, NLA_TYPE_MASK};

/// An iterator over attributes. Stops at the first that is incomplete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..NLA_HDRLEN)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let payload = self.0.get(NLA_HDRLEN..length)?;
        self.0 = self.0.get(length.next_multiple_of(NLA_ALIGNTO)..).unwrap_or_default();
        Some((kind, payload))
    }
}

impl<'a> Attributes<'a> {
    /// Returns the first attribute of a kind.
    pub(crate) fn get(self, attribute: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(kind, _)| *kind == attribute).map(|(_, payload)| payload)
    }

    /// Returns the attributes inside the first of a kind.
    pub(crate) fn nested(self, attribute: u16) -> Option<Self> {
        self.get(attribute).map(Attributes)
    }

    /// Returns the number in the first of a kind.
    pub(crate) fn number(self, attribute: u16) -> Option<u32> {
        be32(self.get(attribute)?)
    }

    /// Returns the text in the first of a kind.
    pub(crate) fn text(self, attribute: u16) -> Option<String> {
        self.get(attribute).map(text)
    }
}

/// Reads a 32-bit number in network byte order.
fn be32(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.get(..4)?.try_into().ok()?))
}

/// Reads text up to its terminating zero.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iteration_stops_at_a_truncated_attribute() {
        let whole = [[8u16.to_ne_bytes(), 0x8001u16.to_ne_bytes()].concat(), vec![0, 0, 1, 0]].concat();
        assert_eq!(Attributes(&whole).number(1), Some(256));
        for cut in 0..whole.len() {
            assert_eq!(Attributes(&whole[..cut]).count(), 0);
        }
        let too_short = [0u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        assert_eq!(Attributes(&too_short).count(), 0);
        assert_eq!(text(b"ab\0c"), "ab");
    }
}

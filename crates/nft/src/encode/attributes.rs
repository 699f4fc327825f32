//! Writes netlink attributes to a buffer.

use crate::uapi::netlink::{NLA_ALIGNTO, NLA_F_NESTED, NLA_HDRLEN};

/// A buffer to which attributes are appended.
#[derive(Debug, Default)]
pub(crate) struct AttributeWriter {
    bytes: Vec<u8>,
}

impl AttributeWriter {
    /// Appends one attribute.
    ///
    /// Attributes of more than 64 KiB don't occur: element lists are split (`ELEMENTS_PER_MESSAGE`), and everything else
    /// has a fixed size.
    pub(crate) fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((NLA_HDRLEN + payload.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Appends a number as nf_tables encodes it: 32 bits in network byte order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends zero-terminated text.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes.extend_from_slice(&((NLA_HDRLEN + value.len() + 1) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
        self
    }

    /// Appends a nested attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; NLA_HDRLEN]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }

    /// Appends bytes as they are, such as a message header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Returns the bytes written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(NLA_ALIGNTO);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut a = AttributeWriter::default();
        a.text(1, "ab").nest(2, |n| {
            n.number(3, 0x0102_0304);
        });
        let mut expected = Vec::new();
        expected.extend([7u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        expected.extend(*b"ab\0\0");
        expected.extend(
            [12u16.to_ne_bytes(), 0x8002u16.to_ne_bytes(), 8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat(),
        );
        expected.extend([1, 2, 3, 4]);
        assert_eq!(a.into_bytes(), expected);
    }
}

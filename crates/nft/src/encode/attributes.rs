//! Netlink attributes into a buffer.

/// Netlink pads attributes and messages to four bytes (`NLA_ALIGNTO`).
const ALIGN: usize = 4;

/// Set on an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;

/// A buffer to which attributes are appended.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    /// Appends one attribute. Panics never: attributes of more than 64 KiB can't arise, because element lists are
    /// split (`ELEMENTS_PER_MESSAGE`) and everything else is of fixed size.
    pub(crate) fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Appends a number as nf_tables has them: 32 bits, network order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends text with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
        self
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Appends bytes that are no attribute (a message header).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut a = Attributes::default();
        a.text(1, "ab").nest(2, |n| {
            n.number(3, 0x0102_0304);
        });
        let mut want = Vec::new();
        want.extend([7u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        want.extend(*b"ab\0\0");
        want.extend(
            [12u16.to_ne_bytes(), 0x8002u16.to_ne_bytes(), 8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat(),
        );
        want.extend([1, 2, 3, 4]);
        assert_eq!(a.into_bytes(), want);
    }
}

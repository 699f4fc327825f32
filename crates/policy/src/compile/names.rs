//! Names of policy tables and peer sets: hashes of their content.
//!
//! Tenants write what is hashed, and may craft both sides of a collision. So the hash is cryptographic and truncated to
//! 128 bits: a collision takes 2^64 evaluations, a second preimage 2^128. And a name alone is never trusted: if a name
//! is taken, the contents are compared, and different content gets another name (`definitions` for tables,
//! [`super::tables`] for peer sets).

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// The number of the attempt. Each gives another name for the same content.
pub(super) type Attempt = u32;

/// The kind of content. Different kinds never share a hash input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A table, by its definition.
    Table,
    /// A peer set of pods, by the peers of the only rule that distinguishes peers.
    PodsOfPeers,
    /// A peer set of pods, by table and row.
    PodsOfRow,
    /// A peer set of ranges, by the blocks of the only rule that distinguishes peers.
    RangesOfPeers,
    /// A peer set of ranges, by table and row.
    RangesOfRow,
}

/// Makes names. The default keeps all 128 bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Namer {
    /// For tests: how many bits (at most 8) may differ between first attempts, so that names collide.
    pub(super) bits: Option<u8>,
}

impl Namer {
    /// Returns a name for a value of a kind: the first 128 bits of a SHA-256.
    ///
    /// The input is unambiguous. Each write of the value's [`Hash`] is preceded by its length, so the sequence of writes
    /// can be recovered from the bytes. Derived implementations write the number of a variant and the length of a collection
    /// before the content, so the value can be recovered from the sequence.
    pub(super) fn name(self, kind: Kind, attempt: Attempt, value: &impl Hash) -> [u8; 16] {
        let mut sha = Framed(Sha256::new());
        (kind, attempt).hash(&mut sha);
        value.hash(&mut sha);
        let mut name = [0; 16];
        name.copy_from_slice(&sha.0.finalize()[..16]);
        match self.bits {
            Some(bits) if attempt == 0 => [name[0] & ((1u16 << bits) - 1) as u8; 16],
            _ => name,
        }
    }
}

struct Framed(Sha256);

impl Hasher for Framed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // The digest is taken from the inner hash.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_inputs_have_different_hashes() {
        let of = |value: &dyn Fn(&mut Framed)| {
            let mut sha = Framed(Sha256::new());
            value(&mut sha);
            sha.0.finalize().to_vec()
        };
        let split = of(&|s| {
            s.write(b"ab");
            s.write(b"c");
        });
        let otherwise = of(&|s| {
            s.write(b"a");
            s.write(b"bc");
        });
        assert_ne!(split, otherwise);
        let namer = Namer::default();
        assert_ne!(namer.name(Kind::Table, 0, &("a", "bc")), namer.name(Kind::Table, 0, &("ab", "c")));
        assert_ne!(namer.name(Kind::PodsOfRow, 0, &1u8), namer.name(Kind::RangesOfRow, 0, &1u8));
        assert_ne!(namer.name(Kind::Table, 0, &1u8), namer.name(Kind::Table, 1, &1u8));
    }
}

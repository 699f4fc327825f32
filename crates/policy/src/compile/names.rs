//! Names of tables and groups: hashes of what they say.
//!
//! A tenant writes what is hashed, and may write both sides of a collision. So the hash is a cryptographic one, of
//! which 128 bits are kept: a collision takes 2^64 evaluations, a second preimage 2^128. And a name is never trusted
//! alone: where a name is taken that something else has, the contents are compared, and the newcomer gets another name
//! (`definitions` for tables, [`super::tables`] for groups).

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// The first try; each further one gives another name for the same content.
pub(super) type Attempt = u32;

/// What a name is for. Names of different kinds never share an input, whatever is hashed under them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A table, by its definition.
    Table,
    /// A group of pods, by the peers of the one rule that tells them apart.
    PodsOfPeers,
    /// A group of pods, by table and row.
    PodsOfRow,
    /// A group of ranges, by the blocks of the one rule that tells them apart.
    RangesOfPeers,
    /// A group of ranges, by table and row.
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
    /// can be told from the bytes. Derived implementations write the number of a variant and the length of a collection
    /// before the content, so the value can be told from the sequence.
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
    fn the_bounds_of_what_is_hashed_count() {
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

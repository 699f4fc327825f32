//! The table as the kernel lists it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{
    attributes::Attributes,
    expressions::{Operation, Target, operations, target},
};
use crate::{Error, Kernel, ruleset::TABLE};

/// `NFT_MSG_*` and the reply kinds.
const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const GETSETELEM: u16 = 13;

/// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
const INET: u8 = 1;
const BRIDGE: u8 = 7;

/// A chain with its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Hook number, priority and policy of a base chain.
    pub base: Option<(u32, i32, u32)>,
    /// What was written beside it.
    pub comment: Option<String>,
    /// Its rules.
    pub rules: Vec<Vec<Operation>>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Its key.
    pub key: Vec<u8>,
    /// Whether it marks the end of an interval: the first key behind it.
    pub end: bool,
}

/// A set or verdict map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// nftables' number of the key's type.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_length: u32,
    /// Elements with the verdict that they lead to.
    pub elements: HashMap<Vec<u8>, Option<Target>>,
    /// The intervals of an interval set: first and last key, sorted.
    pub intervals: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Our table as the kernel holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// What was written beside the table.
    pub comment: Option<String>,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
    /// Its sets and maps.
    pub sets: BTreeMap<String, Set>,
}

impl Ruleset {
    /// Dumps the table; none if there is none. Reads again where the kernel's tables changed meanwhile.
    pub fn read(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, INET)
    }

    /// [`Ruleset::read`] of the table `bridge palisade`.
    pub fn read_bridge(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, BRIDGE)
    }

    fn read_of(kernel: &mut Kernel, family: u8) -> Result<Option<Self>, Error> {
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let before = kernel.kernel_generation()?;
            match Self::read_once(kernel, family) {
                // What a dump was about can vanish under it.
                Err(e) if e.os_error() != Some(nix::libc::ENOENT) => return Err(e),
                outcome => {
                    if kernel.kernel_generation()? == before {
                        return outcome;
                    }
                }
            }
        }
        Err(Error::NeverQuiet(ATTEMPTS))
    }

    /// All rules of the table, each with the name of its chain; none if there is no table. Not a picture of one moment:
    /// rules may change while they are listed.
    pub(crate) fn rules(kernel: &mut Kernel) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_of(kernel, TABLE)
    }

    /// [`Ruleset::rules`] of the table `bridge palisade`.
    pub(crate) fn rules_of_bridge(kernel: &mut Kernel) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_in(kernel, BRIDGE, TABLE)
    }

    /// [`Ruleset::rules`] of another table of family `inet`.
    pub(crate) fn rules_of(kernel: &mut Kernel, table: &str) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_in(kernel, INET, table)
    }

    fn rules_in(
        kernel: &mut Kernel,
        family: u8,
        table: &str,
    ) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        let replies = match kernel.dump_tables_of(family, GETRULE, &[(1, table)]) {
            Err(e) if e.os_error() == Some(nix::libc::ENOENT) => Vec::new(),
            other => other?,
        };
        let rule = |reply: &Vec<u8>| {
            let a = Attributes(reply);
            (a.text(1).as_deref() == Some(table)).then_some(())?;
            Some((a.text(2)?, a.nested(4).map(operations).unwrap_or_default()))
        };
        Ok(replies.iter().filter_map(rule).collect())
    }

    fn read_once(kernel: &mut Kernel, family: u8) -> Result<Option<Self>, Error> {
        let tables = kernel.dump_tables_of(family, GETTABLE, &[])?;
        let Some(table) = tables.iter().find(|t| Attributes(t).text(1).as_deref() == Some(TABLE)) else {
            return Ok(None);
        };
        let mut out =
            Self { comment: Attributes(table).get(6).and_then(|data| user_data(data, 0)), ..Self::default() };
        for reply in kernel.dump_tables_of(family, GETCHAIN, &[(1, TABLE)])? {
            out.chain(Attributes(&reply));
        }
        for reply in kernel.dump_tables_of(family, GETRULE, &[(1, TABLE)])? {
            out.rule(Attributes(&reply));
        }
        for reply in kernel.dump_tables_of(family, GETSET, &[(1, TABLE)])? {
            out.set(Attributes(&reply));
        }
        for (name, set) in &mut out.sets {
            let mut marks = Vec::new();
            for reply in kernel.dump_tables_of(family, GETSETELEM, &[(1, TABLE), (2, name)])? {
                let Some(list) = Attributes(&reply).nested(3) else { continue };
                for (_, element) in list {
                    set.element(Attributes(element), &mut marks);
                }
            }
            set.intervals = intervals(marks, set.key_length);
        }
        Ok(Some(out))
    }

    fn chain(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(1).as_deref(), a.text(3)) else { return };
        let chain = self.chains.entry(name).or_default();
        chain.base = a.nested(4).and_then(|hook| {
            Some((hook.number(1)?, hook.number(2)? as i32, a.number(5).unwrap_or_default()))
        });
        chain.comment = a.get(12).and_then(|data| user_data(data, 0));
    }

    fn rule(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(1).as_deref(), a.text(2)) else { return };
        let list = a.nested(4).map(operations).unwrap_or_default();
        self.chains.entry(name).or_default().rules.push(list);
    }

    fn set(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(1).as_deref(), a.text(2)) else { return };
        let set = self.sets.entry(name).or_default();
        set.flags = a.number(3).unwrap_or_default();
        set.key_type = a.number(4).unwrap_or_default();
        set.key_length = a.number(5).unwrap_or_default();
    }
}

impl Set {
    /// Whether its elements are intervals (`NFT_SET_INTERVAL`).
    #[must_use]
    pub fn has_intervals(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Whether it leads to verdicts (`NFT_SET_MAP`).
    #[must_use]
    pub fn is_map(&self) -> bool {
        self.flags & 8 != 0
    }

    fn element(&mut self, element: Attributes<'_>, marks: &mut Vec<Element>) {
        let Some(key) = element.nested(1).and_then(|k| k.get(1)) else { return };
        if self.has_intervals() {
            let end = element.number(3).unwrap_or_default() & 1 != 0;
            marks.push(Element { key: key.to_vec(), end });
        } else {
            let verdict = element.nested(2).and_then(|d| d.nested(2)).and_then(target);
            self.elements.insert(key.to_vec(), verdict);
        }
    }
}

/// Pairs starts with the end markers behind them. A start without one reaches to the last key.
fn intervals(mut marks: Vec<Element>, key_length: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    // Of two marks on one key, the end is that of the interval before.
    marks.sort_by(|a, b| (&a.key, !a.end).cmp(&(&b.key, !b.end)));
    let mut out = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for mark in marks {
        if mark.end {
            if let Some(first) = open.take() {
                out.push((first, before(mark.key)));
            }
        } else if let Some(first) = open.replace(mark.key.clone()) {
            out.push((first, before(mark.key)));
        }
    }
    out.extend(open.map(|first| (first, vec![0xff; key_length as usize])));
    out
}

/// The key that comes before.
fn before(mut key: Vec<u8>) -> Vec<u8> {
    for byte in key.iter_mut().rev() {
        let (value, borrow) = byte.overflowing_sub(1);
        *byte = value;
        if !borrow {
            break;
        }
    }
    key
}

/// The text of a kind in the bytes that the `nft` program keeps beside an object.
fn user_data(mut data: &[u8], wanted: u8) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == wanted {
            return Some(super::text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

/// An address from the bytes of a key.
pub(crate) fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => <[u8; 4]>::try_from(key).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(key).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_intervals() {
        let mark = |key: u16, end| Element { key: key.to_be_bytes().to_vec(), end };
        let marks = vec![
            mark(9, true),
            mark(5, false),
            mark(9, false),
            mark(256, true),
            mark(65535, false),
            mark(0, true),
        ];
        let got: Vec<_> = intervals(marks, 2)
            .into_iter()
            .map(|(a, b)| (u16::from_be_bytes([a[0], a[1]]), u16::from_be_bytes([b[0], b[1]])))
            .collect();
        assert_eq!(got, [(5, 8), (9, 255), (65535, 65535)]);
    }

    #[test]
    fn comments_are_found_behind_other_data() {
        assert_eq!(user_data(&[4, 1, 9, 0, 3, b'o', b'k', 0], 0).as_deref(), Some("ok"));
        assert_eq!(user_data(&[0, 9, b'o'], 0), None);
    }
}

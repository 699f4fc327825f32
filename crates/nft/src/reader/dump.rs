//! The table as the kernel lists it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    attributes::Attributes,
    expressions::{Operation, Target, operations, target},
    properties::{self, DORMANT, Properties, SET_DYNAMIC, user_data},
};
use crate::{Error, Kernel, base::TABLE_COMMENT, ruleset::TABLE};

/// `NFT_MSG_*` and the reply kinds.
const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const GETSETELEM: u16 = 13;
const GETOBJ: u16 = 19;
const GETFLOWTABLE: u16 = 23;

/// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
const INET: u8 = 1;
const BRIDGE: u8 = 7;

/// A chain with its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Hook number, priority and policy of a base chain.
    pub base: Option<(u32, i32, u32)>,
    /// `NFT_CHAIN_*` flags.
    pub flags: u32,
    /// What else is said of it.
    pub properties: Properties,
    /// Its rules.
    pub rules: Vec<Vec<Operation>>,
    /// What was written beside some of its rules, by their places.
    pub comments: BTreeMap<usize, String>,
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
    /// What is said of it, flags and all.
    pub properties: Properties,
    /// Elements with the verdict that they lead to. Empty for a set that rules fill: the kernel adds and removes these
    /// without a transaction.
    pub elements: HashMap<Vec<u8>, Option<Target>>,
    /// The element for every key that has no other, if there is one.
    pub catch_all: Option<Option<Target>>,
    /// Elements that carry a comment, a time-out, a statement or a reference to an object.
    pub laden: BTreeSet<Vec<u8>>,
    /// The intervals of an interval set: first and last key, sorted.
    pub intervals: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Our table as the kernel holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// What was written beside the table.
    pub comment: Option<String>,
    /// `NFT_TABLE_F_*` flags.
    pub flags: u32,
    /// The netlink port of the socket that owns it, which alone may change it.
    pub owner: Option<u32>,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
    /// Its sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Its counters, quotas, helpers and the like, by `NFT_OBJECT_*` type and name.
    pub objects: BTreeSet<(u32, String)>,
    /// Its flow tables.
    pub flow_tables: BTreeSet<String>,
}

impl Ruleset {
    /// Whether what stands beside the table says that it is ours, and of this format.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.comment.as_deref() == Some(TABLE_COMMENT)
    }

    /// Dumps the table; none if there is none. Reads again where it changed meanwhile; what others do to their tables
    /// doesn't matter.
    ///
    /// # Errors
    /// What the kernel refuses, and [`Error::NeverQuiet`] where the table changed during each of a few attempts.
    pub fn read(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, INET)
    }

    /// [`Ruleset::read`] of the table `bridge palisade`.
    ///
    /// # Errors
    /// As [`Ruleset::read`].
    pub fn read_bridge(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, BRIDGE)
    }

    fn read_of(kernel: &mut Kernel, family: u8) -> Result<Option<Self>, Error> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            kernel.witness.begin();
            let before = kernel.kernel_generation()?;
            let outcome = Self::read_once(kernel, family);
            let after = kernel.kernel_generation()?;
            let untouched = kernel.witness.end(before, after);
            match outcome {
                // What a dump was about can vanish under it.
                Err(e) if e.os_error() != Some(nix::libc::ENOENT) => return Err(e),
                outcome if untouched => return outcome,
                _ => {}
            }
        }
        Err(Error::NeverQuiet(ATTEMPTS))
    }

    /// Whether its rules are asked at all.
    #[must_use]
    pub fn is_dormant(&self) -> bool {
        self.flags & DORMANT != 0
    }

    /// The netlink port of the socket that owns the table of our name; none if there is no table, or nobody owns it.
    pub(crate) fn owner(kernel: &mut Kernel) -> Result<Option<u32>, Error> {
        let table = kernel.get(INET, GETTABLE, &[(1, TABLE)])?;
        Ok(table.and_then(|table| Attributes(&table).number(7)))
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
        let replies = match kernel.dump_of_table_in(family, GETRULE, &[(1, table)]) {
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
        let Some(table) = kernel.get(family, GETTABLE, &[(1, TABLE)])? else { return Ok(None) };
        let table = Attributes(&table);
        let mut out = Self {
            comment: table.get(6).and_then(|data| user_data(data, 0)),
            flags: table.number(2).unwrap_or_default(),
            owner: table.number(7),
            ..Self::default()
        };
        for reply in kernel.dump_of_family(family, GETCHAIN)? {
            out.chain(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, GETRULE, &[(1, TABLE)])? {
            out.rule(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, GETSET, &[(1, TABLE)])? {
            out.set(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, GETOBJ, &[(1, TABLE)])? {
            let a = Attributes(&reply);
            out.objects.extend(a.number(3).zip(a.text(2)));
        }
        // A kernel without flow tables has none.
        let flow_tables = match kernel.dump_of_table_in(family, GETFLOWTABLE, &[(1, TABLE)]) {
            Err(e) if e.os_error().is_some() => Vec::new(),
            other => other?,
        };
        out.flow_tables.extend(flow_tables.iter().filter_map(|f| Attributes(f).text(2)));
        for (name, set) in &mut out.sets {
            if set.is_dynamic() {
                continue;
            }
            let mut marks = Vec::new();
            for reply in kernel.dump_of_table_in(family, GETSETELEM, &[(1, TABLE), (2, name)])? {
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
        chain.flags = a.number(10).unwrap_or_default();
        chain.properties = properties::chain(a);
    }

    fn rule(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(1).as_deref(), a.text(2)) else { return };
        let list = a.nested(4).map(operations).unwrap_or_default();
        let chain = self.chains.entry(name).or_default();
        if let Some(comment) = a.get(7).and_then(|data| user_data(data, 0)) {
            chain.comments.insert(chain.rules.len(), comment);
        }
        chain.rules.push(list);
    }

    fn set(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(1).as_deref(), a.text(2)) else { return };
        let set = self.sets.entry(name).or_default();
        set.flags = a.number(3).unwrap_or_default();
        set.key_type = a.number(4).unwrap_or_default();
        set.key_length = a.number(5).unwrap_or_default();
        set.properties = properties::set(a);
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

    /// Whether rules fill it (`NFT_SET_EVAL`).
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.flags & SET_DYNAMIC != 0
    }

    fn element(&mut self, element: Attributes<'_>, marks: &mut Vec<Element>) {
        /// `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`.
        const END: u32 = 1;
        const CATCH_ALL: u32 = 2;
        /// `NFTA_SET_ELEM_TIMEOUT`, `EXPR`, `OBJREF`, `EXPRESSIONS`.
        const LOAD: [u16; 4] = [4, 7, 9, 11];
        let flags = element.number(3).unwrap_or_default();
        let verdict = || element.nested(2).and_then(|d| d.nested(2)).and_then(target);
        if flags & CATCH_ALL != 0 {
            self.catch_all = Some(verdict());
        }
        let Some(key) = element.nested(1).and_then(|k| k.get(1)) else { return };
        let is_commented = element.get(6).is_some_and(|data| user_data(data, 0).is_some());
        if is_commented || LOAD.iter().any(|kind| element.get(*kind).is_some()) {
            self.laden.insert(key.to_vec());
        }
        if self.has_intervals() {
            marks.push(Element { key: key.to_vec(), end: flags & END != 0 });
        } else {
            self.elements.insert(key.to_vec(), verdict());
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
}

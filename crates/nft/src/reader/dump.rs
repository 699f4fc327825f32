//! Reads the table from the kernel.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nix::libc::ENOENT;

use super::{
    Observation,
    attributes::Attributes,
    expressions::{Operation, Target, operations, target},
    properties::{self, Properties, user_data},
};
use crate::{
    Error, Kernel,
    ruleset::{TABLE, TABLE_COMMENT},
    uapi::{
        netfilter::{NFPROTO_BRIDGE, NFPROTO_INET},
        nf_tables::*,
        nftables::{NFTNL_UDATA_RULE_COMMENT, NFTNL_UDATA_SET_ELEM_COMMENT, NFTNL_UDATA_TABLE_COMMENT},
    },
};

/// A chain with its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Hook number, priority and policy of a base chain.
    pub base: Option<(u32, i32, u32)>,
    /// `NFT_CHAIN_*` flags.
    pub flags: u32,
    /// Its other properties.
    pub properties: Properties,
    /// Its rules.
    pub rules: Vec<Vec<Operation>>,
    /// The comments of rules, by their positions.
    pub comments: BTreeMap<usize, String>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Its key.
    pub key: Vec<u8>,
    /// Whether it marks the end of an interval, as the first key behind it.
    pub end: bool,
}

/// A set or verdict map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// The `nft` program's number of the key's type.
    pub key_type: u32,
    /// The length of a key in bytes.
    pub key_length: u32,
    /// Its properties, including flags.
    pub properties: Properties,
    /// The keys of its elements with their verdicts. Empty for a set that rules fill, which changes without transactions.
    pub elements: HashMap<Vec<u8>, Option<Target>>,
    /// The catch-all element, if any, with its verdict.
    pub catch_all: Option<Option<Target>>,
    /// The keys of elements with a comment, a timeout, a statement or a reference to an object.
    pub annotated: BTreeSet<Vec<u8>>,
    /// The intervals of an interval set, sorted: first and last key.
    pub intervals: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The agent's table as the kernel holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The comment of the table.
    pub comment: Option<String>,
    /// `NFT_TABLE_F_*` flags.
    pub flags: u32,
    /// The netlink port of the socket that owns the table and is the only one that can change it.
    pub owner: Option<u32>,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
    /// Its sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Its stateful objects, by `NFT_OBJECT_*` type and name.
    pub objects: BTreeSet<(u32, String)>,
    /// Its flow tables.
    pub flow_tables: BTreeSet<String>,
}

impl Ruleset {
    /// Returns whether the comment identifies the table as the agent's, in the current format.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.comment.as_deref() == Some(TABLE_COMMENT)
    }

    /// Reads the table, or `None` if it doesn't exist. Repeats if the table changes meanwhile; changes of other tables don't
    /// matter.
    ///
    /// # Errors
    /// What the kernel refuses, and [`Error::KeepsChanging`] if the table changed during each of a few attempts.
    pub fn read(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, NFPROTO_INET)
    }

    /// [`Ruleset::read`] of the table `bridge palisade`.
    ///
    /// # Errors
    /// As [`Ruleset::read`].
    pub fn read_bridge(kernel: &mut Kernel) -> Result<Option<Self>, Error> {
        Self::read_of(kernel, NFPROTO_BRIDGE)
    }

    fn read_of(kernel: &mut Kernel, family: u8) -> Result<Option<Self>, Error> {
        const ATTEMPTS: usize = 5;
        let mut unconfirmed = None;
        for _ in 0..ATTEMPTS {
            kernel.change_detector.begin();
            let before = kernel.kernel_generation()?;
            let outcome = Self::read_once(kernel, family);
            let after = kernel.kernel_generation()?;
            let observation = kernel.change_detector.end(before, after);
            match (outcome, observation) {
                // An object may be deleted before it is dumped.
                (Err(e), _) if e.os_error() != Some(ENOENT) => return Err(e),
                (outcome, Observation::Unchanged) => return outcome,
                // Commits of other programs may come faster than a process can receive their notifications, whose buffer is small if the
                // process is not privileged. What is read twice in a row is what the table holds.
                (Ok(read), Observation::Unknown) if unconfirmed.as_ref() == Some(&read) => return Ok(read),
                (outcome, Observation::Unknown) => unconfirmed = outcome.ok(),
                (_, Observation::Changed) => unconfirmed = None,
            }
        }
        Err(Error::KeepsChanging(ATTEMPTS))
    }

    /// Returns whether the kernel skips all of its rules.
    #[must_use]
    pub fn is_dormant(&self) -> bool {
        self.flags & NFT_TABLE_F_DORMANT != 0
    }

    /// Returns the netlink port of the socket that owns the table of this name, if it exists and is owned.
    pub(crate) fn owner(kernel: &mut Kernel, table: &str) -> Result<Option<u32>, Error> {
        let found = kernel.get(NFPROTO_INET, NFT_MSG_GETTABLE, &[(NFTA_TABLE_NAME, table)])?;
        Ok(found.and_then(|table| Attributes(&table).number(NFTA_TABLE_OWNER)))
    }

    /// Returns all rules of the table, each with the name of its chain. Empty if the table doesn't exist.
    ///
    /// This is not a consistent snapshot: rules may change while they are listed.
    pub(crate) fn rules(kernel: &mut Kernel) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_of_table(kernel, TABLE)
    }

    /// [`Ruleset::rules`] of the table `bridge palisade`.
    pub(crate) fn bridge_rules(kernel: &mut Kernel) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_in(kernel, NFPROTO_BRIDGE, TABLE)
    }

    /// [`Ruleset::rules`] of another table of family `inet`.
    pub(crate) fn rules_of_table(
        kernel: &mut Kernel,
        table: &str,
    ) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        Self::rules_in(kernel, NFPROTO_INET, table)
    }

    fn rules_in(
        kernel: &mut Kernel,
        family: u8,
        table: &str,
    ) -> Result<Vec<(String, Vec<Operation>)>, Error> {
        let replies = match kernel.dump_of_table_in(family, NFT_MSG_GETRULE, &[(NFTA_RULE_TABLE, table)]) {
            Err(e) if e.os_error() == Some(ENOENT) => Vec::new(),
            other => other?,
        };
        let rule = |reply: &Vec<u8>| {
            let a = Attributes(reply);
            (a.text(NFTA_RULE_TABLE).as_deref() == Some(table)).then_some(())?;
            let operations = a.nested(NFTA_RULE_EXPRESSIONS).map(operations).unwrap_or_default();
            Some((a.text(NFTA_RULE_CHAIN)?, operations))
        };
        Ok(replies.iter().filter_map(rule).collect())
    }

    fn read_once(kernel: &mut Kernel, family: u8) -> Result<Option<Self>, Error> {
        let table = kernel.get(family, NFT_MSG_GETTABLE, &[(NFTA_TABLE_NAME, TABLE)])?;
        let Some(table) = table else { return Ok(None) };
        let table = Attributes(&table);
        let comment = table.get(NFTA_TABLE_USERDATA);
        let mut out = Self {
            comment: comment.and_then(|data| user_data(data, NFTNL_UDATA_TABLE_COMMENT)),
            flags: table.number(NFTA_TABLE_FLAGS).unwrap_or_default(),
            owner: table.number(NFTA_TABLE_OWNER),
            ..Self::default()
        };
        for reply in kernel.dump_of_family(family, NFT_MSG_GETCHAIN)? {
            out.add_chain(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, NFT_MSG_GETRULE, &[(NFTA_RULE_TABLE, TABLE)])? {
            out.add_rule(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, NFT_MSG_GETSET, &[(NFTA_SET_TABLE, TABLE)])? {
            out.add_set(Attributes(&reply));
        }
        for reply in kernel.dump_of_table_in(family, NFT_MSG_GETOBJ, &[(NFTA_OBJ_TABLE, TABLE)])? {
            let a = Attributes(&reply);
            out.objects.extend(a.number(NFTA_OBJ_TYPE).zip(a.text(NFTA_OBJ_NAME)));
        }
        let filter = [(NFTA_FLOWTABLE_TABLE, TABLE)];
        let flow_tables = match kernel.dump_of_table_in(family, NFT_MSG_GETFLOWTABLE, &filter) {
            // The kernel may lack flow tables.
            Err(e) if e.os_error().is_some() => Vec::new(),
            other => other?,
        };
        out.flow_tables.extend(flow_tables.iter().filter_map(|f| Attributes(f).text(NFTA_FLOWTABLE_NAME)));
        for (name, set) in &mut out.sets {
            if set.is_dynamic() {
                continue;
            }
            let (mut marks, mut ranges) = (Vec::new(), Vec::new());
            let filter = [(NFTA_SET_ELEM_LIST_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
            for reply in kernel.dump_of_table_in(family, NFT_MSG_GETSETELEM, &filter)? {
                let Some(list) = Attributes(&reply).nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { continue };
                for (_, element) in list {
                    set.add_element(Attributes(element), &mut marks, &mut ranges);
                }
            }
            set.intervals = intervals(marks, set.key_length);
            set.intervals.append(&mut ranges);
            set.intervals.sort();
        }
        Ok(Some(out))
    }

    fn add_chain(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(NFTA_CHAIN_TABLE).as_deref(), a.text(NFTA_CHAIN_NAME)) else {
            return;
        };
        let chain = self.chains.entry(name).or_default();
        chain.base = a.nested(NFTA_CHAIN_HOOK).and_then(|hook| {
            let priority = hook.number(NFTA_HOOK_PRIORITY)? as i32;
            let policy = a.number(NFTA_CHAIN_POLICY).unwrap_or_default();
            Some((hook.number(NFTA_HOOK_HOOKNUM)?, priority, policy))
        });
        chain.flags = a.number(NFTA_CHAIN_FLAGS).unwrap_or_default();
        chain.properties = properties::chain(a);
    }

    fn add_rule(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(NFTA_RULE_TABLE).as_deref(), a.text(NFTA_RULE_CHAIN)) else {
            return;
        };
        let list = a.nested(NFTA_RULE_EXPRESSIONS).map(operations).unwrap_or_default();
        let chain = self.chains.entry(name).or_default();
        let comment = a.get(NFTA_RULE_USERDATA).and_then(|data| user_data(data, NFTNL_UDATA_RULE_COMMENT));
        if let Some(comment) = comment {
            chain.comments.insert(chain.rules.len(), comment);
        }
        chain.rules.push(list);
    }

    fn add_set(&mut self, a: Attributes<'_>) {
        let (Some(TABLE), Some(name)) = (a.text(NFTA_SET_TABLE).as_deref(), a.text(NFTA_SET_NAME)) else {
            return;
        };
        let set = self.sets.entry(name).or_default();
        set.flags = a.number(NFTA_SET_FLAGS).unwrap_or_default();
        set.key_type = a.number(NFTA_SET_KEY_TYPE).unwrap_or_default();
        set.key_length = a.number(NFTA_SET_KEY_LEN).unwrap_or_default();
        set.properties = properties::set(a);
    }
}

impl Set {
    /// Returns whether its elements are intervals.
    #[must_use]
    pub fn has_intervals(&self) -> bool {
        self.flags & NFT_SET_INTERVAL != 0
    }

    /// Returns whether it is a map.
    #[must_use]
    pub fn is_map(&self) -> bool {
        self.flags & NFT_SET_MAP != 0
    }

    /// Returns whether it changes without transactions: rules fill it, or its elements expire.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.flags & NFT_SET_EVAL != 0
    }

    /// `ranges` receives elements of keys with several parts, which have both ends.
    fn add_element(
        &mut self,
        element: Attributes<'_>,
        marks: &mut Vec<Element>,
        ranges: &mut Vec<(Vec<u8>, Vec<u8>)>,
    ) {
        /// Attributes of an element that the agent never sets.
        const ANNOTATIONS: [u16; 4] =
            [NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_OBJREF, NFTA_SET_ELEM_EXPRESSIONS];
        let flags = element.number(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
        let verdict =
            || element.nested(NFTA_SET_ELEM_DATA).and_then(|d| d.nested(NFTA_DATA_VERDICT)).and_then(target);
        if flags & NFT_SET_ELEM_CATCHALL != 0 {
            self.catch_all = Some(verdict());
        }
        let key = element.nested(NFTA_SET_ELEM_KEY).and_then(|k| k.get(NFTA_DATA_VALUE));
        let Some(key) = key else { return };
        let comment = element.get(NFTA_SET_ELEM_USERDATA);
        let comment = comment.and_then(|data| user_data(data, NFTNL_UDATA_SET_ELEM_COMMENT));
        if comment.is_some() || ANNOTATIONS.iter().any(|kind| element.get(*kind).is_some()) {
            self.annotated.insert(key.to_vec());
        }
        let end = element.nested(NFTA_SET_ELEM_KEY_END).and_then(|k| k.get(NFTA_DATA_VALUE));
        if let Some(end) = end {
            ranges.push((key.to_vec(), end.to_vec()));
        } else if self.has_intervals() {
            marks.push(Element { key: key.to_vec(), end: flags & NFT_SET_ELEM_INTERVAL_END != 0 });
        } else {
            self.elements.insert(key.to_vec(), verdict());
        }
    }
}

/// Pairs starts with the end markers behind them. A start without a marker extends to the last key.
fn intervals(mut marks: Vec<Element>, key_length: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    // Of two marks with the same key, the end belongs to the interval before.
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

/// Returns the preceding key.
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

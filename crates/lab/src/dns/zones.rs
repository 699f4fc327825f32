//! What the lab's DNS servers answer. A pure value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use palisade_policy::{DomainName, Family};

/// The most aliases that are followed within one answer, as many as agents follow.
const MAX_ALIASES: usize = 16;

/// What servers answer for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Its addresses. With `rotate`, each answer has the next one of them.
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// Whether an answer has one address of each family, in turn.
        rotate: bool,
    },
    /// It is another name for this one (CNAME).
    Alias(DomainName),
    /// Every name below it is another name for the same one below this (DNAME).
    Subtree(DomainName),
    /// It does not exist.
    Missing,
    /// Servers don't answer.
    Silence,
}

/// How an answer is forged that comes before the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forgery {
    /// It has another id than the query.
    WrongId,
    /// It answers another question.
    OtherQuestion,
    /// It comes from another port than the one that was asked.
    OtherSource,
}

impl Forgery {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WrongId, Self::OtherQuestion, Self::OtherSource];
}

/// A name of the zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneName {
    /// What is answered.
    pub records: Records,
    /// The time to live in seconds.
    pub ttl: u32,
    /// How long servers wait before they answer.
    pub delay: Duration,
    /// Whether answers over UDP are truncated, so that clients ask again over TCP.
    pub truncated: bool,
    /// Forged answers that come first, over UDP.
    pub forged: BTreeSet<Forgery>,
    /// The addresses in the forged answers.
    pub forged_addresses: Vec<IpAddr>,
}

impl ZoneName {
    /// Returns a name with these records and a time to live of one second.
    #[must_use]
    pub fn new(records: Records) -> Self {
        Self {
            records,
            ttl: 1,
            delay: Duration::ZERO,
            truncated: false,
            forged: BTreeSet::new(),
            forged_addresses: Vec::new(),
        }
    }
}

/// The records that answer a question, and how they end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Each name with the one that it is another name for, and the subtree if that has it.
    pub(super) aliases: Vec<(DomainName, DomainName, Option<DomainName>)>,
    /// The end of the chain, and its time to live.
    pub(super) end: Option<(DomainName, u32)>,
    /// The addresses of the end, all of them.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether an answer has one of them.
    pub(super) rotate: bool,
    /// Whether the end does not exist.
    pub(super) missing: bool,
    /// Whether there is no answer.
    pub(super) silent: bool,
}

impl Resolved {
    /// Whether there are too many aliases, so that agents refuse the answer.
    pub(super) fn is_loop(&self) -> bool {
        self.aliases.len() > MAX_ALIASES
    }
}

/// What the lab's DNS servers answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// The names, except those below subtrees.
    pub names: BTreeMap<DomainName, ZoneName>,
    /// Further names that pods ask for: below subtrees, behind aliases, or such that don't exist.
    pub asked: BTreeSet<DomainName>,
    /// Where the servers are outside the cluster. None: behind the cluster's DNS Service, or else at [`super::OUTSIDE`].
    pub servers: BTreeSet<IpAddr>,
}

impl Zones {
    /// Returns the names that pods ask for: not those that others are aliases for, unless [`Zones::asked`] has them.
    #[must_use]
    pub fn to_ask(&self) -> BTreeSet<DomainName> {
        let own = self.names.iter().filter(|(_, zone)| !matches!(zone.records, Records::Subtree(_)));
        let mut out: BTreeSet<DomainName> = own.map(|(name, _)| name).chain(&self.asked).cloned().collect();
        let aliases =
            out.iter().flat_map(|name| Family::BOTH.map(|family| self.resolve(name, family).aliases));
        let behind: BTreeSet<DomainName> = aliases.flatten().map(|(_, target, _)| target).collect();
        out.retain(|name| !behind.contains(name) || self.asked.contains(name));
        out
    }

    /// Returns every address in an answer, forged ones too.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let of_name = |zone: &ZoneName| match &zone.records {
            Records::Addresses { addresses, .. } => addresses.clone(),
            _ => Vec::new(),
        };
        self.names.values().flat_map(|zone| [of_name(zone), zone.forged_addresses.clone()].concat()).collect()
    }

    /// Returns the settings for questions about a name: its own, or those of the subtree that it is in.
    pub(super) fn zone_of(&self, name: &DomainName) -> Option<&ZoneName> {
        self.names.get(name).or_else(|| self.subtree(name).and_then(|(of, _)| self.names.get(of)))
    }

    /// Returns the closest subtree that a name is in, and the name that it is another name for.
    fn subtree(&self, name: &DomainName) -> Option<(&DomainName, DomainName)> {
        let text = name.as_str();
        let below = text.match_indices('.').filter_map(|(at, _)| {
            let (of, zone) = self.names.get_key_value(&DomainName::new(&text[at + 1..])?)?;
            let Records::Subtree(target) = &zone.records else { return None };
            Some((of, DomainName::new(&format!("{}.{target}", &text[..at]))?))
        });
        below.into_iter().next()
    }

    /// Follows a name to its addresses of a family. `O(aliases · log names)`.
    pub(super) fn resolve(&self, name: &DomainName, family: Family) -> Resolved {
        let mut out = Resolved::default();
        let mut at = name.clone();
        // A loop is answered as far as it goes, and ends without addresses.
        while out.aliases.len() <= MAX_ALIASES {
            let Some(zone) = self.names.get(&at) else {
                let Some((of, target)) = self.subtree(&at) else {
                    out.missing = true;
                    return out;
                };
                out.aliases.push((at, target.clone(), Some(of.clone())));
                at = target;
                continue;
            };
            match &zone.records {
                Records::Alias(target) => {
                    out.aliases.push((at, target.clone(), None));
                    at = target.clone();
                }
                Records::Addresses { addresses, rotate } => {
                    let is_of = |address: &&IpAddr| Family::of(**address) == family;
                    out.addresses = addresses.iter().filter(is_of).copied().collect();
                    (out.rotate, out.end) = (*rotate, Some((at, zone.ttl)));
                    return out;
                }
                // The name of a subtree itself has no records besides.
                Records::Subtree(_) => return out,
                Records::Missing => {
                    out.missing = true;
                    return out;
                }
                Records::Silence => {
                    out.silent = true;
                    return out;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::new(text).unwrap()
    }

    fn zones(entries: &[(&str, Records)]) -> Zones {
        let names = entries.iter().map(|(of, records)| (name(of), ZoneName::new(records.clone()))).collect();
        Zones { names, ..Zones::default() }
    }

    fn addresses(texts: &[&str]) -> Records {
        Records::Addresses { addresses: texts.iter().map(|t| t.parse().unwrap()).collect(), rotate: false }
    }

    #[test]
    fn aliases_and_subtrees_lead_to_addresses_of_the_family() {
        let zones = zones(&[
            ("a.io", Records::Alias(name("x.b.io"))),
            ("b.io", Records::Subtree(name("c.io"))),
            ("x.c.io", addresses(&["192.0.2.1", "2001:db8::1"])),
        ]);
        let resolved = zones.resolve(&name("a.io"), Family::V6);
        assert_eq!(resolved.addresses, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolved.end, Some((name("x.c.io"), 1)));
        assert_eq!(
            resolved.aliases,
            [(name("a.io"), name("x.b.io"), None), (name("x.b.io"), name("x.c.io"), Some(name("b.io")))]
        );
        assert_eq!(zones.to_ask(), [name("a.io")].into(), "not what is behind it");
    }

    #[test]
    fn loops_end_and_what_is_not_there_is_missing() {
        let zones = zones(&[("a.io", Records::Alias(name("b.io"))), ("b.io", Records::Alias(name("a.io")))]);
        let resolved = zones.resolve(&name("a.io"), Family::V4);
        assert!(resolved.addresses.is_empty() && !resolved.missing);
        assert_eq!(resolved.aliases.len(), MAX_ALIASES + 1);
        assert!(zones.resolve(&name("c.io"), Family::V4).missing);
    }
}

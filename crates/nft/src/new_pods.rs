//! A separate table that drops packets of connections which are older than the pods that have just started.
//!
//! Connection tracking may have entries with the address of a pod that starts: those of an earlier owner of the address, echoes that the kernel
//! has answered in the pod's place, and packets from before its policies were programmed. The agent's table accepts their packets as
//! established. Finding them takes a walk of the kernel's table of connections, for which a pod would have to wait:
//! [`conntrack::delete_older`](crate::conntrack::delete_older). So the pod starts at once, and until that is done, this table distinguishes
//! its connections:
//!
//! ```text
//!  packet from or to a new pod ──► table palisade: what policies deny is dropped
//!                                       │ accepted
//!                                       ▼ chain check
//!    it opens a connection  ──► ct id into the set `connections` ──► passes
//!    of a known connection  ──► ct id in that set? ──► passes, else is dropped
//! ```
//!
//! The chains come after those of the agent's table, so only what the policies allow is in the set. The kernel's id of a connection is the same
//! from its first packet to its end, and no other connection at that time has it.
//!
//! Every packet that the node forwards passes these chains, so the table exists only while pods start. If the agent ends before it has deleted the older
//! connections, its successor does that ([`NewPods::adopt`]); if there is none, the elements expire.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::libc::ENOENT;
use palisade_policy::{Direction, Family};

use crate::{
    Error, Kernel,
    conntrack::{ICMP, ICMPV6},
    encode::{Encoded, encode_in},
    phases::chunks,
    reader::{Attributes, Ruleset},
    reconcile::name_owner,
    ruleset::{
        Chain, Content, Element, Expression, Hook, Key, Message, NEW_POD_TIMEOUT, Outcome, Rule, Set,
        family_digit,
    },
    uapi::nf_tables::{
        NFT_MSG_GETSETELEM, NFTA_DATA_VALUE, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
        NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
    },
};

/// The name of the table, of the family `inet`.
pub const NEW_PODS_TABLE: &str = "palisade_new_pods";

/// For how long the kernel distinguishes the connections of a new pod if nothing ends that before.
pub const TIMEOUT: Duration = NEW_POD_TIMEOUT;

/// How long the table is kept without any pod: pods often start one soon after the other.
const KEPT_FOR: Duration = Duration::from_secs(5);

const CHECK_CHAIN: &str = "check";
const CONNECTIONS: &str = "connections";

/// What the table in the kernel holds.
#[derive(Debug, Default)]
pub struct NewPods {
    pods: BTreeSet<IpAddr>,
    /// Whether the table exists, as far as is known.
    exists: bool,
    /// Since when it has no pods.
    empty_since: Option<Instant>,
}

impl NewPods {
    /// Makes the value for a namespace in which an earlier run may have left the table, and returns the addresses that are in it. A table
    /// with other rules is removed.
    ///
    /// # Errors
    /// If the kernel can't be read, or refuses the removal.
    pub fn adopt(kernel: &mut Kernel) -> Result<(Self, BTreeSet<IpAddr>), Error> {
        let expected: usize = chains().iter().map(|chain| chain.rules.len()).sum();
        if Ruleset::rules_of_table(kernel, NEW_PODS_TABLE)?.len() != expected {
            remove(kernel)?;
            return Ok(Default::default());
        }
        let mut pods = BTreeSet::new();
        for family in Family::BOTH {
            let keys = elements(kernel, &pod_set(family).name)?;
            pods.extend(keys.iter().filter_map(|key| crate::octets::address(key)));
        }
        let empty_since = pods.is_empty().then(Instant::now);
        Ok((Self { pods: pods.clone(), exists: true, empty_since }, pods))
    }

    /// Drops the packets of all connections with these addresses but those that begin from now on, in one transaction. `O(addresses)`.
    ///
    /// # Errors
    /// What the kernel refuses. It then keeps what it had.
    pub fn add(&mut self, kernel: &mut Kernel, addresses: &[IpAddr]) -> Result<(), Error> {
        let all: BTreeSet<IpAddr> = self.pods.iter().chain(addresses).copied().collect();
        let added = if self.exists {
            send(kernel, changes(addresses, Message::AddElements))
        } else {
            send(kernel, replacement(&all))
        };
        match added {
            // Another program has removed the table.
            Err(error) if self.exists && error.os_error() == Some(ENOENT) => {
                send(kernel, replacement(&all))?;
            }
            other => other?,
        }
        (self.pods, self.exists, self.empty_since) = (all, true, None);
        Ok(())
    }

    /// Lets all connections with these addresses pass again, because older ones are deleted.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn release(&mut self, kernel: &mut Kernel, addresses: &[IpAddr]) -> Result<(), Error> {
        let held: Vec<IpAddr> = addresses.iter().copied().filter(|a| self.pods.contains(a)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let remove = |of: &[IpAddr]| changes(of, Message::RemoveElements);
        let left: BTreeSet<IpAddr> = self.pods.iter().copied().filter(|a| !held.contains(a)).collect();
        // One that has opened many connections leaves no room for those of the next pods.
        let forget = left.is_empty().then(|| Message::FlushSet(CONNECTIONS.into()));
        match send(kernel, remove(&held).into_iter().chain(forget).collect()) {
            // Some have expired, or another program has removed them.
            Err(error) if error.os_error() == Some(ENOENT) => {
                for address in &held {
                    match send(kernel, remove(&[*address])) {
                        Err(error) if error.os_error() != Some(ENOENT) => return Err(error),
                        _ => {}
                    }
                }
            }
            other => other?,
        }
        self.pods = left;
        if self.pods.is_empty() {
            self.empty_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Removes the table if no pod has needed it for a while. `O(1)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tidy(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        if self.empty_since.is_some_and(|since| since.elapsed() >= KEPT_FOR) {
            remove(kernel)?;
            *self = Self::default();
        }
        Ok(())
    }
}

/// Removes the table. Returns whether it existed.
///
/// # Errors
/// What the kernel refuses.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    match kernel.transaction(&[&encode_in(NEW_PODS_TABLE, Message::DeleteTable)]) {
        Ok(_) => Ok(true),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Returns the ids of the connections that have begun since the start of their pods, as connection tracking lists them. `O(connections)`.
pub(crate) fn connections(kernel: &mut Kernel) -> Result<BTreeSet<Vec<u8>>, Error> {
    elements(kernel, CONNECTIONS)
}

/// Returns the keys of a set. Empty without the table.
fn elements(kernel: &mut Kernel, set: &str) -> Result<BTreeSet<Vec<u8>>, Error> {
    let filter = [(NFTA_SET_ELEM_LIST_TABLE, NEW_PODS_TABLE), (NFTA_SET_ELEM_LIST_SET, set)];
    let replies = match kernel.dump_of_table(NFT_MSG_GETSETELEM, &filter) {
        Err(e) if e.os_error() == Some(ENOENT) => Vec::new(),
        other => other?,
    };
    let mut out = BTreeSet::new();
    for reply in &replies {
        let Some(list) = Attributes(reply).nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { continue };
        let keys = list.into_iter().filter_map(|(_, element)| {
            let key = Attributes(element).nested(NFTA_SET_ELEM_KEY)?;
            key.get(NFTA_DATA_VALUE).map(<[u8]>::to_vec)
        });
        out.extend(keys);
    }
    Ok(out)
}

fn send(kernel: &mut Kernel, messages: Vec<Message>) -> Result<(), Error> {
    let messages: Vec<Encoded> = messages.into_iter().map(|m| encode_in(NEW_PODS_TABLE, m)).collect();
    if !messages.is_empty() {
        kernel
            .transaction(&messages.iter().collect::<Vec<_>>())
            .map_err(|error| name_owner(kernel, NEW_PODS_TABLE, error))?;
    }
    Ok(())
}

/// Returns the messages that add the addresses to their sets, or remove them.
fn changes(addresses: &[IpAddr], message: fn(Arc<Set>, Vec<Element>) -> Message) -> Vec<Message> {
    let of_family = |family: Family| {
        let of = addresses.iter().copied().filter(move |a| Family::of(*a) == family).map(Element::Address);
        chunks(of).map(move |elements| message(pod_set(family), elements))
    };
    Family::BOTH.into_iter().flat_map(of_family).collect()
}

/// Returns the messages that replace the table, whether it exists or not.
fn replacement(pods: &BTreeSet<IpAddr>) -> Vec<Message> {
    let mut out = vec![Message::CreateTable, Message::DeleteTable, Message::CreateTable];
    let connections = Set::plain(CONNECTIONS, Key::Connection, Content::NewConnections);
    let sets = Family::BOTH.into_iter().map(pod_set).chain([Arc::new(connections)]);
    out.extend(sets.map(Message::CreateSet));
    out.extend(changes(&pods.iter().copied().collect::<Vec<_>>(), Message::AddElements));
    for chain in chains() {
        out.extend(Message::create_chain(&Arc::new(chain)));
    }
    out
}

fn pod_set(family: Family) -> Arc<Set> {
    let name = format!("pods{}", family_digit(family));
    Arc::new(Set::plain(name, Key::Address(family), Content::NewPods(family)))
}

/// Returns the chains, each after the one that its rules use.
fn chains() -> Vec<Chain> {
    let base = [Hook::Forwarded, Hook::Received, Hook::Sent].map(|hook| {
        // The peer of an ingress rule is the source, the peer of an egress rule the destination.
        let ends = match hook {
            Hook::Received => &[Direction::Ingress][..],
            Hook::Sent => &[Direction::Egress],
            _ => &[Direction::Ingress, Direction::Egress],
        };
        let rule = |family: Family, end: Direction| -> Rule {
            let is_family =
                if family == Family::V4 { Expression::IsIpv4 } else { Expression::Family(family) };
            let set = pod_set(family).name.clone();
            let check = Expression::Verdict(Outcome::Goto(CHECK_CHAIN.into()));
            vec![is_family, Expression::PeerIn(end, family, set), check]
        };
        let rules =
            Family::BOTH.into_iter().flat_map(|family| ends.iter().map(move |end| rule(family, *end)));
        Chain::base(hook, rules.collect())
    });
    [check_chain()].into_iter().chain(base).collect()
}

fn check_chain() -> Chain {
    let known = || [Expression::AddConnection(CONNECTIONS.into()), Expression::Verdict(Outcome::Return)];
    let mut opens = vec![Expression::New];
    opens.extend(known());
    // Not an error about a connection, so it opens one that a helper expects. The policies have allowed that.
    let mut is_expected = vec![Expression::Related, Expression::ProtocolNotIn(vec![ICMP, ICMPV6])];
    is_expected.extend(known());
    let older = vec![
        Expression::EstablishedOrRelated,
        Expression::ConnectionNotIn(CONNECTIONS.into()),
        Expression::Counter,
        Expression::Verdict(Outcome::Drop),
    ];
    let comment = "of pods that have just started: only connections since then pass";
    Chain::regular(CHECK_CHAIN, comment, vec![opens, is_expected, older])
}

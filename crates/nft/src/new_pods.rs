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
//!                                       ▼ chain check_…
//!    may open a connection  ──► the pod's address and ct id into the set `connections` ──► passes
//!    of a known connection  ──► both in that set? ──► passes, else is dropped
//! ```
//!
//! The chains come after those of the agent's table, so only what the policies allow is in the set. A connection that no one has answered yet may
//! be older: its packets are not established, so the policies decide about each of them. The kernel's id of a connection is the same from its first
//! packet to its end, and no other connection at that time has it. An error about a packet that has not passed, which another rule or the route
//! refuses, belongs to no connection that is tracked yet (`ct status confirmed`), and passes.
//!
//! Every packet of the node passes these chains, so the table exists only while pods start. If the agent ends before it has deleted the older
//! connections, its successor does that ([`NewPods::adopt`]); if there is none, the elements expire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::libc::ENOENT;
use palisade_policy::{Direction, Family};

use crate::{
    Error, Kernel,
    encode::AttributeWriter,
    octets::{address, octets},
    phases::chunks,
    reader::{Attributes, Ruleset},
    reconcile::name_owner,
    ruleset::{
        Chain, Content, Element, Expression, Hook, Key, Message, NEW_CONNECTION_TIMEOUT, NEW_POD_TIMEOUT,
        Outcome, Rule, Set, family_digit,
    },
    send::{remove_table, send_at_once},
    uapi::{
        netfilter::NFPROTO_INET,
        nf_tables::{
            NFT_MSG_GETSETELEM, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY,
            NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
        },
        nfnetlink::{NFNL_SUBSYS_NFTABLES, message_type},
    },
};

/// The name of the table, of the family `inet`.
pub const NEW_PODS_TABLE: &str = "palisade_new_pods";

/// For how long the kernel distinguishes the connections of a new pod if nothing ends that before.
pub const TIMEOUT: Duration = NEW_POD_TIMEOUT;

/// How long the table is kept without any pod: pods often start one soon after the other.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// What the table in the kernel holds.
#[derive(Debug, Default)]
pub struct NewPods {
    pods: BTreeSet<IpAddr>,
    /// The addresses of which connections may be known.
    known: BTreeMap<IpAddr, Owner>,
    /// Whether the table exists, as far as is known.
    exists: bool,
    /// Since when it has no pods.
    empty_since: Option<Instant>,
}

/// Whose connections are known.
#[derive(Debug)]
struct Owner {
    pod: String,
    /// Since when it isn't new any longer. The kernel forgets its connections a while later.
    released: Option<Instant>,
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
            pods.extend(addresses(kernel, family)?);
        }
        let owner = || Owner { pod: String::new(), released: None };
        let known = pods.iter().map(|address| (*address, owner())).collect();
        let empty_since = pods.is_empty().then(Instant::now);
        Ok((Self { pods: pods.clone(), known, exists: true, empty_since }, pods))
    }

    /// Drops the packets of all connections with these addresses but those that begin from now on, in one transaction. `O(addresses + addresses
    /// of the last two minutes)`.
    ///
    /// `pod` distinguishes the pod from others: the same one may be added again, and keeps its connections. Returns `false`, and changes nothing,
    /// if an address was that of another pod a moment ago, whose connections are still known.
    ///
    /// # Errors
    /// What the kernel refuses. It then keeps what it had.
    pub fn add(&mut self, kernel: &mut Kernel, pod: &str, addresses: &[IpAddr]) -> Result<bool, Error> {
        let is_known =
            |owner: &Owner| owner.released.is_none_or(|since| since.elapsed() < NEW_CONNECTION_TIMEOUT);
        self.known.retain(|_, owner| is_known(owner));
        if addresses.iter().any(|a| self.known.get(a).is_some_and(|owner| owner.pod != pod)) {
            return Ok(false);
        }
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
        let owner = || Owner { pod: pod.to_owned(), released: None };
        self.known.extend(addresses.iter().map(|address| (*address, owner())));
        Ok(true)
    }

    /// Lets all connections pass again of the addresses that are no new pod's any longer: older ones are deleted. Nothing is sent if all are new.
    ///
    /// # Errors
    /// What the kernel refuses. The next call tries again.
    pub fn retain(&mut self, kernel: &mut Kernel, is_new: impl Fn(&IpAddr) -> bool) -> Result<(), Error> {
        let gone: Vec<IpAddr> = self.pods.iter().copied().filter(|address| !is_new(address)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let left: BTreeSet<IpAddr> = self.pods.iter().copied().filter(&is_new).collect();
        // One pod that has opened many connections must leave room for those of the next ones.
        let forget = || Family::BOTH.map(|family| Message::FlushSet(connections(family).name.clone()));
        let forget_all = || left.is_empty().then(forget).into_iter().flatten();
        let removal = changes(&gone, Message::RemoveElements);
        match send(kernel, removal.into_iter().chain(forget_all()).collect()) {
            // Some have expired, or another program has removed them.
            Err(error) if error.os_error() == Some(ENOENT) => {
                let each = gone.iter().map(|address| changes(&[*address], Message::RemoveElements));
                for messages in each.chain([forget_all().collect()]) {
                    match send(kernel, messages) {
                        Err(error) if error.os_error() != Some(ENOENT) => return Err(error),
                        _ => {}
                    }
                }
            }
            other => other?,
        }
        let now = Instant::now();
        for address in &gone {
            if let Some(owner) = self.known.get_mut(address) {
                owner.released = Some(now);
            }
        }
        self.pods = left;
        if self.pods.is_empty() {
            self.known.clear();
            self.empty_since = Some(now);
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
    remove_table(kernel, NEW_PODS_TABLE)
}

/// Returns whether a connection with the address of a new pod, by its id as connection tracking lists it, has begun since the start of the pod.
///
/// Looks at this element alone: a listing of a set that packets fill meanwhile may lack some.
///
/// # Errors
/// If the kernel can't be read.
pub(crate) fn has_begun_since(kernel: &mut Kernel, address: IpAddr, id: &[u8]) -> Result<bool, Error> {
    let mut body = AttributeWriter::default();
    body.text(NFTA_SET_ELEM_LIST_TABLE, NEW_PODS_TABLE);
    body.text(NFTA_SET_ELEM_LIST_SET, &connections(Family::of(address)).name);
    body.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        list.nest(NFTA_LIST_ELEM, |element| {
            element.nest(NFTA_SET_ELEM_KEY, |key| {
                key.put(NFTA_DATA_VALUE, &[&octets(address), id].concat());
            });
        });
    });
    let kind = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM);
    let describe = || format!("lookup in table inet {NEW_PODS_TABLE}");
    match kernel.request(kind, 0, NFPROTO_INET, &body.into_bytes(), &describe) {
        Ok(()) => Ok(true),
        // Neither the element nor, maybe, the table.
        Err(error) if error.os_error() == Some(ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the addresses of new pods in the kernel. Empty without the table.
fn addresses(kernel: &mut Kernel, family: Family) -> Result<BTreeSet<IpAddr>, Error> {
    let set = pod_set(family);
    let filter = [(NFTA_SET_ELEM_LIST_TABLE, NEW_PODS_TABLE), (NFTA_SET_ELEM_LIST_SET, &*set.name)];
    let replies = match kernel.dump_of_table(NFT_MSG_GETSETELEM, &filter) {
        Err(e) if e.os_error() == Some(ENOENT) => Vec::new(),
        other => other?,
    };
    let mut out = BTreeSet::new();
    for reply in &replies {
        let Some(list) = Attributes(reply).nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { continue };
        out.extend(list.into_iter().filter_map(|(_, element)| {
            let key = Attributes(element).nested(NFTA_SET_ELEM_KEY)?;
            key.get(NFTA_DATA_VALUE).and_then(address)
        }));
    }
    Ok(out)
}

fn send(kernel: &mut Kernel, messages: Vec<Message>) -> Result<(), Error> {
    send_at_once(kernel, NEW_PODS_TABLE, messages).map_err(|error| name_owner(kernel, NEW_PODS_TABLE, error))
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
    let sets = Family::BOTH.into_iter().flat_map(|family| [pod_set(family), connections(family)]);
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

/// The set of the connections that have begun since the start of their pods.
fn connections(family: Family) -> Arc<Set> {
    let name = format!("connections{}", family_digit(family));
    Arc::new(Set::plain(name, Key::Connection(family), Content::NewConnections(family)))
}

/// The end of a packet that is a new pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

impl End {
    const BOTH: [Self; 2] = [Self::Source, Self::Destination];

    /// Of which direction it is the peer.
    fn peer_of(self) -> Direction {
        if self == Self::Source { Direction::Ingress } else { Direction::Egress }
    }

    fn check_chain(self, family: Family) -> String {
        let end = if self == Self::Source { "from" } else { "to" };
        format!("check_{end}{}", family_digit(family))
    }
}

/// Returns the chains, each after those that its rules use.
fn chains() -> Vec<Chain> {
    let each = || Family::BOTH.into_iter().flat_map(|family| End::BOTH.map(|end| (family, end)));
    let base = [Hook::Forwarded, Hook::Received, Hook::Sent].map(|hook| {
        let is_seen = |end: End| match hook {
            Hook::Received => end == End::Source,
            Hook::Sent => end == End::Destination,
            _ => true,
        };
        let rule = |(family, end): (Family, End)| -> Rule {
            let is_family =
                if family == Family::V4 { Expression::IsIpv4 } else { Expression::Family(family) };
            let is_new = Expression::PeerIn(end.peer_of(), family, pod_set(family).name.clone());
            // Both ends may be new.
            let check = Expression::Verdict(Outcome::Jump(end.check_chain(family).into()));
            vec![is_family, is_new, check]
        };
        Chain::base(hook, each().filter(|(_, end)| is_seen(*end)).map(rule).collect())
    });
    each().map(|(family, end)| check_chain(family, end)).chain(base).collect()
}

fn check_chain(family: Family, end: End) -> Chain {
    let (source, set) = (end == End::Source, connections(family).name.clone());
    let opens = vec![
        Expression::Family(family),
        Expression::New,
        Expression::AddConnection { family, source, set: set.clone() },
        Expression::Verdict(Outcome::Return),
    ];
    let older = vec![
        Expression::Family(family),
        Expression::EstablishedOrRelated,
        Expression::Confirmed,
        Expression::ConnectionNotIn { family, source, set },
        Expression::Counter,
        Expression::Verdict(Outcome::Drop),
    ];
    let comment = "a pod that has just started: only connections since then pass";
    Chain::regular(end.check_chain(family), comment, vec![opens, older])
}

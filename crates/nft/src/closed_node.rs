//! The rules of a node whose pods are not known yet: new connections of all its pods are denied.
//!
//! After a restart of the node its rules are gone, and its pods come back with addresses that the agent doesn't know yet. Until the
//! agent has the cluster's state, [`close_node`] denies new connections from and to the addresses that the node's pods may get. If these
//! are not known either, it denies all new connections that the node forwards.
//!
//! The rules are in a table of their own, which [`open_node`] removes after the plan is programmed, so there is no moment at which neither
//! applies. Unlike in the table of [`cut_off`](mod@crate::cut_off), replies pass, so that the node's own connections to pods (probes) work.

use std::sync::Arc;

use palisade_policy::{Direction, Family, IpRange};

use crate::{
    EnforcerOptions, Error, Kernel,
    base::error_about_a_connection,
    discovery,
    phases::chunks,
    ruleset::{
        Chain, Content, Element, Expression, Hook, Key, Message, NodeSet, Outcome, PacketType, Rule, Set,
        SourceRoute, family_digit,
    },
    send::remove_table,
    stand_in,
    survey::{OwnTable, Survey},
};

/// The name of the table, of the family `inet`.
pub const CLOSED_NODE_TABLE: &str = "palisade_closed_node";

/// The set of the loopback device, on which the node's packets to itself arrive.
const LOOPBACK_SET: &str = "loopback";
/// The index of the loopback device in every network namespace (`LOOPBACK_IFINDEX` of the kernel).
const LOOPBACK: u32 = 1;

/// The addresses that are closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosedPods {
    /// Those in these ranges.
    In(Vec<IpRange>),
    /// All that the node forwards from or to. What pods send to the node itself can't be told from what others send, and passes.
    Forwarded,
}

/// Denies new connections of the pods, in one transaction, unless the agent's table exists and is in force.
///
/// Returns whether they are closed now. The rules stay until [`open_node`] or [`remove`](crate::remove()) is called.
///
/// # Errors
/// What the kernel refuses. The kernel then keeps what it had.
pub fn close_node(kernel: &mut Kernel, options: &EnforcerOptions, pods: &ClosedPods) -> Result<bool, Error> {
    if Survey::read(kernel)?.own_table.is_some_and(|table| table != OwnTable::Dormant) {
        return Ok(false);
    }
    stand_in::replace_small(kernel, CLOSED_NODE_TABLE, content(options, pods))?;
    Ok(true)
}

/// Removes the rules of [`close_node`]. Returns whether they existed.
///
/// # Errors
/// What the kernel refuses.
pub fn open_node(kernel: &mut Kernel) -> Result<bool, Error> {
    remove_table(kernel, CLOSED_NODE_TABLE)
}

/// Returns the messages that create the table.
fn content(options: &EnforcerOptions, pods: &ClosedPods) -> Vec<Message> {
    let mut out = vec![Message::CreateTable];
    let mut hooks = &Hook::POLICY[..1];
    if let ClosedPods::In(ranges) = pods {
        if options.egress_to_own_node {
            hooks = &Hook::POLICY;
        }
        for family in Family::BOTH {
            let set = range_set(family);
            let elements = disjoint(ranges, family).into_iter().map(Element::Range);
            out.push(Message::CreateSet(set.clone()));
            out.extend(chunks(elements).map(|elements| Message::AddElements(set.clone(), elements)));
        }
        let loopback = Arc::new(Set::plain(LOOPBACK_SET, Key::Interface, Content::Node(NodeSet::Interfaces)));
        out.push(Message::CreateSet(loopback.clone()));
        out.push(Message::AddElements(loopback, vec![Element::Interface(LOOPBACK)]));
    }
    for hook in hooks {
        out.extend(Message::create_chain(&Arc::new(chain(*hook, pods))));
    }
    out
}

/// Returns the ranges of a family, sorted and without overlaps, which the kernel refuses.
fn disjoint(ranges: &[IpRange], family: Family) -> Vec<IpRange> {
    let mut sorted: Vec<IpRange> = ranges.iter().copied().filter(|r| Family::of(r.first) == family).collect();
    sorted.sort();
    let mut out: Vec<IpRange> = Vec::new();
    for range in sorted {
        match out.last_mut() {
            Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
            _ => out.push(range),
        }
    }
    out
}

fn range_set(family: Family) -> Arc<Set> {
    let name = format!("pods{}", family_digit(family));
    let content = Content::PeerSets(Vec::new(), family);
    Arc::new(Set { intervals: true, ..Set::plain(name, Key::Address(family), content) })
}

fn chain(hook: Hook, pods: &ClosedPods) -> Chain {
    let accept = || Expression::Verdict(Outcome::Accept);
    let dropped = |mut matches: Rule| {
        matches.extend([Expression::Counter, Expression::Verdict(Outcome::Drop)]);
        matches
    };
    // Where such a packet goes is decided behind this hook. It would pass as part of an established connection to the node.
    let mut rules: Vec<Rule> = [SourceRoute::Loose, SourceRoute::Strict]
        .map(|kind| dropped(vec![Expression::Family(Family::V4), Expression::SourceRoute(kind)]))
        .into();
    rules.push(dropped(vec![Expression::Family(Family::V6), Expression::RoutingHeader]));
    rules.push(vec![Expression::Established, accept()]);
    rules.extend(Family::BOTH.map(error_about_a_connection));
    if hook == Hook::Input {
        // The node's connections to its own addresses, some of which are in the ranges of its pods.
        let from_itself = Expression::InterfaceIn { set: LOOPBACK_SET.into(), inverted: false };
        rules.push(vec![from_itself, accept()]);
    }
    // Without neighbor discovery, IPv6 would fail for every host on the link.
    rules.extend(discovery::rules());
    if hook == Hook::Forward {
        // On a bridge, pods reach each other without using any pod address.
        let link_local = [true, false].map(|source| Expression::LinkLocal { source });
        rules.extend(link_local.map(|matches| dropped(vec![Expression::Family(Family::V6), matches])));
        let to_many = [PacketType::Broadcast, PacketType::Multicast].map(Expression::PacketType);
        rules.extend(to_many.map(|matches| dropped(vec![matches])));
    }
    match pods {
        ClosedPods::Forwarded => rules.push(dropped(Vec::new())),
        ClosedPods::In(_) => {
            // The peer of an ingress rule is the source, the peer of an egress rule the destination.
            let ends = if hook == Hook::Forward { &Direction::BOTH[..] } else { &[Direction::Ingress] };
            for family in Family::BOTH {
                for end in ends {
                    let matches = Expression::PeerIn(*end, family, range_set(family).name.clone());
                    rules.push(dropped(vec![Expression::Family(family), matches]));
                }
            }
        }
    }
    let comment = Some("pods of this node, until the agent knows them".to_owned());
    Chain { comment, ..Chain::base(hook, rules) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> IpRange {
        IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn what_a_helper_expects_is_not_accepted_and_a_chosen_route_is_dropped_first() {
        for hook in Hook::POLICY {
            let rules = chain(hook, &ClosedPods::Forwarded).rules;
            let accepts = |rule: &Rule| rule.contains(&Expression::Verdict(Outcome::Accept));
            let related: Vec<&Rule> =
                rules.iter().filter(|rule| rule.contains(&Expression::Related)).collect();
            let of_icmp = |rule: &&&Rule| rule.iter().any(|e| matches!(e, Expression::Protocol(1 | 58)));
            assert_eq!(related.iter().filter(of_icmp).count(), related.len());
            let first = rules.iter().position(accepts).unwrap();
            let chosen = |e: &Expression| matches!(e, Expression::SourceRoute(_) | Expression::RoutingHeader);
            assert_eq!(rules[..first].iter().flatten().filter(|e| chosen(e)).count(), 3);
        }
    }

    #[test]
    fn ranges_are_made_disjoint() {
        let ranges = [
            range("10.1.0.0", "10.1.0.255"),
            range("fd00::", "fd00::ff"),
            range("10.0.0.0", "10.0.255.255"),
            range("10.0.1.0", "10.0.1.255"),
        ];
        assert_eq!(
            disjoint(&ranges, Family::V4),
            [range("10.0.0.0", "10.0.255.255"), range("10.1.0.0", "10.1.0.255")]
        );
        assert_eq!(disjoint(&ranges, Family::V6), [range("fd00::", "fd00::ff")]);
    }
}

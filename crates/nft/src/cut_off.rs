//! The last resort: a separate table that drops all traffic of some pods by their addresses.
//!
//! A pod is *cut off* if it fails closed: its policies could not be programmed, so it denies a whole direction. The
//! agent uses this table if the kernel refuses even that in the agent's own table: the table belongs to another program,
//! connection tracking is missing, or memory is short.
//!
//! The table has two base chains that look up one set per direction and family and drop what matches. It needs no
//! connection tracking, no maps, no further chains, and nothing of the agent's table. So it is coarse: it also drops the
//! replies to connections that the pod opened itself, and the replies that the pod sends.
//!
//! The agent also closes pods with it that start before it knows their policies.
//!
//! Each call of [`cut_off`] replaces the whole table, [`add`] adds to it. It stays in the kernel until it is removed.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use palisade_policy::{Direction, Family};

use crate::{
    EnforcerOptions, Error, Kernel,
    base_sets::BaseSets,
    discovery,
    phases::chunks,
    reconcile::name_owner,
    ruleset::{
        Chain, Content, Element, Expression, Hook, JumpTarget, Key, Message, Outcome, PacketType, Rule, Set,
        family_digit,
    },
    send::{remove_table, send_at_once},
    stand_in,
};

/// The name of the table, of the family `inet`.
pub const CUT_OFF_TABLE: &str = "palisade_cut_off";

/// Distinguishes the transaction numbers of this table from those of the agent's table, which count up from 1.
const NUMBER_FLAG: u32 = 1 << 31;

/// Drops everything that these local addresses receive (ingress) or send (egress), in one transaction. A copy of the table decides while it
/// is replaced.
///
/// Addresses of an earlier call that are not among them are no longer cut off. Without any address the table is removed.
///
/// # Errors
/// What the kernel refuses. The kernel then keeps what it had.
pub fn cut_off(
    kernel: &mut Kernel,
    options: &EnforcerOptions,
    addresses: &BTreeSet<(Direction, IpAddr)>,
) -> Result<(), Error> {
    if addresses.is_empty() {
        return remove(kernel).map(drop);
    }
    // A number that identifies the transaction as the agent's to the drift watcher.
    let number = NUMBER_FLAG | kernel.next_sequence();
    kernel.own_transactions().record(number);
    stand_in::replace_small(kernel, CUT_OFF_TABLE, content(options, addresses, number))
        .map_err(|error| name_owner(kernel, CUT_OFF_TABLE, error))
}

/// Drops everything that these local addresses receive or send as well, whatever is cut off already.
///
/// For an agent that doesn't know what an earlier run has cut off. A table of another layout is replaced.
///
/// # Errors
/// What the kernel refuses. The kernel then keeps what it had.
pub fn add(
    kernel: &mut Kernel,
    options: &EnforcerOptions,
    addresses: &BTreeSet<(Direction, IpAddr)>,
) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let number = NUMBER_FLAG | kernel.next_sequence();
    kernel.own_transactions().record(number);
    let mut messages = vec![Message::AddElements(BaseSets::new().generation, vec![Element::Number(number)])];
    for direction in Direction::BOTH {
        for family in Family::BOTH {
            messages.extend(added(addresses, &set(direction, family), direction, family));
        }
    }
    match send_at_once(kernel, CUT_OFF_TABLE, messages) {
        Err(e) if e.os_error() == Some(nix::libc::ENOENT) => cut_off(kernel, options, addresses),
        done => done.map_err(|error| name_owner(kernel, CUT_OFF_TABLE, error)),
    }
}

/// Returns the messages that add the addresses of one direction and family to their set.
fn added(
    addresses: &BTreeSet<(Direction, IpAddr)>,
    set: &Arc<Set>,
    direction: Direction,
    family: Family,
) -> Vec<Message> {
    let of = addresses.iter().filter(|(d, a)| *d == direction && Family::of(*a) == family);
    let elements = of.map(|(_, address)| Element::Address(*address));
    chunks(elements).map(|elements| Message::AddElements(Arc::clone(set), elements)).collect()
}

/// Removes the table. Returns whether it existed.
///
/// # Errors
/// What the kernel refuses.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    remove_table(kernel, CUT_OFF_TABLE)
}

/// Returns the messages that create the table.
fn content(
    options: &EnforcerOptions,
    addresses: &BTreeSet<(Direction, IpAddr)>,
    number: u32,
) -> Vec<Message> {
    let mut out = vec![Message::CreateTable];
    let generation = BaseSets::new().generation;
    out.push(Message::CreateSet(generation.clone()));
    out.push(Message::AddElements(generation, vec![Element::Number(number)]));
    for direction in Direction::BOTH {
        for family in Family::BOTH {
            let set = set(direction, family);
            out.push(Message::CreateSet(set.clone()));
            out.extend(added(addresses, &set, direction, family));
        }
    }
    let hooks = if options.egress_to_own_node { &Hook::POLICY[..] } else { &Hook::POLICY[..1] };
    for hook in hooks {
        out.extend(Message::create_chain(&Arc::new(chain(*hook))));
    }
    out
}

fn set(direction: Direction, family: Family) -> Arc<Set> {
    let name = format!("{direction}{}", family_digit(family));
    let content = Content::Dispatch(JumpTarget::Table(direction), family);
    Arc::new(Set::plain(name, Key::Address(family), content))
}

fn chain(hook: Hook) -> Chain {
    let dropped = |mut matches: Rule| {
        matches.extend([Expression::Counter, Expression::Verdict(Outcome::Drop)]);
        matches
    };
    // Without neighbor discovery, IPv6 would fail for every host on the link.
    let mut rules: Vec<Rule> = discovery::rules().collect();
    if hook == Hook::Forward {
        // On a bridge, pods reach each other without using any pod address.
        let link_local = [true, false].map(|source| Expression::LinkLocal { source });
        rules.extend(link_local.map(|matches| dropped(vec![Expression::Family(Family::V6), matches])));
        let to_many = [PacketType::Broadcast, PacketType::Multicast].map(Expression::PacketType);
        rules.extend(to_many.map(|matches| dropped(vec![matches])));
    }
    for family in Family::BOTH {
        let is_in = |direction: Direction, set: Direction| {
            let matches = Expression::PeerIn(direction, family, self::set(set, family).name.clone());
            dropped(vec![Expression::Family(family), matches])
        };
        // The peer of an ingress rule is the source, the peer of an egress rule the destination.
        rules.push(is_in(Direction::Ingress, Direction::Egress));
        if hook == Hook::Forward {
            rules.push(is_in(Direction::Egress, Direction::Ingress));
        }
    }
    let comment = Some("pods whose policies could not be programmed".to_owned());
    Chain { comment, ..Chain::base(hook, rules) }
}

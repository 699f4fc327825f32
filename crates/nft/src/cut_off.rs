//! The last resort: pods whose traffic is dropped by their address alone, in a table of its own.
//!
//! When the kernel refuses to close pods in our table (the table belongs to another program, connection tracking is missing,
//! memory is short), the agent tries this: two base chains that look up two sets for each family and drop what they find.
//! It needs no connection tracking, no maps and no chains beside the two, and nothing of our table. So it is coarse: replies to
//! what a pod itself has opened are dropped like everything else that is sent to it, and what it sends in the same way.
//!
//! The table is replaced as a whole by each [`cut_off`] and stays in the kernel until it is removed.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use palisade_policy::{Direction, Family};

use crate::{
    Error, Kernel, Options,
    base::{BaseSets, digit},
    discovery,
    encode::{Encoded, encode_in},
    program::chunks,
    ruleset::{Chain, Content, Element, Expression, Flood, Hook, Key, Lead, Message, Outcome, Rule, Set},
};

/// The table, of the family `inet`.
pub const CUT_OFF_TABLE: &str = "palisade_cut_off";

/// Marks the numbers of this table's transactions: ours count up from 1.
const APART: u32 = 1 << 31;

/// Makes the kernel drop what these local addresses receive (ingress) and send (egress), in one transaction. Addresses of an
/// earlier call that are not among them are free again; where none is left the table is removed.
///
/// On an error the kernel keeps what it held.
///
/// # Errors
/// Whatever the kernel refuses.
pub fn cut_off(
    kernel: &mut Kernel,
    options: &Options,
    addresses: &BTreeSet<(Direction, IpAddr)>,
) -> Result<(), Error> {
    if addresses.is_empty() {
        return remove(kernel).map(drop);
    }
    // A number of its own in each, by which the listener knows that it is ours; none that our table ever has.
    let number = APART | kernel.next_sequence();
    kernel.written().note(number);
    let messages: Vec<Encoded> =
        replacement(options, addresses, number).into_iter().map(|m| encode_in(CUT_OFF_TABLE, m)).collect();
    kernel.transaction(&messages.iter().collect::<Vec<_>>()).map(drop)
}

/// Removes the table; says whether there was one.
///
/// # Errors
/// Whatever the kernel refuses.
pub fn remove(kernel: &mut Kernel) -> Result<bool, Error> {
    match kernel.transaction(&[&encode_in(CUT_OFF_TABLE, Message::DeleteTable)]) {
        Ok(_) => Ok(true),
        Err(e) if e.os_error() == Some(nix::libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The table anew, whether there is one or not: a table that exists can be created again, and one that doesn't can't be
/// deleted.
fn replacement(options: &Options, addresses: &BTreeSet<(Direction, IpAddr)>, number: u32) -> Vec<Message> {
    let mut out = vec![Message::CreateTable, Message::DeleteTable, Message::CreateTable];
    let numbers = BaseSets::new().generation;
    out.push(Message::CreateSet(numbers.clone()));
    out.push(Message::AddElements(numbers, vec![Element::Number(number)]));
    for direction in Direction::BOTH {
        for family in Family::BOTH {
            let set = set(direction, family);
            let of = addresses.iter().filter(|(d, a)| *d == direction && Family::of(*a) == family);
            let elements = of.map(|(_, address)| Element::Address(*address));
            out.push(Message::CreateSet(set.clone()));
            out.extend(chunks(elements).map(|elements| Message::AddElements(set.clone(), elements)));
        }
    }
    let hooks = if options.egress_to_own_node { &Hook::BOTH[..] } else { &Hook::BOTH[..1] };
    for hook in hooks {
        let chain = Arc::new(chain(*hook));
        out.push(Message::CreateChain(chain.clone()));
        out.extend((0..chain.rules.len()).map(|index| Message::AddRule(chain.clone(), index)));
    }
    out
}

fn set(direction: Direction, family: Family) -> Arc<Set> {
    Arc::new(Set {
        name: format!("{direction}{}", digit(family)).into(),
        key: Key::Address(family),
        intervals: false,
        verdicts: false,
        content: Content::Dispatch(Lead::Table(direction), family),
    })
}

fn chain(hook: Hook) -> Chain {
    let dropped = |mut matches: Rule| {
        matches.extend([Expression::Counter, Expression::Then(Outcome::Drop)]);
        matches
    };
    // Without neighbour discovery there is no IPv6 for anybody on the link.
    let mut rules: Vec<Rule> = discovery::rules().collect();
    if hook == Hook::Forward {
        // On a bridge pods reach each other without any pod's address.
        let link_local = [true, false].map(|source| Expression::LinkLocal { source });
        rules.extend(link_local.map(|matches| dropped(vec![Expression::Family(Family::V6), matches])));
        let flooded = [Flood::Broadcast, Flood::Multicast].map(Expression::Flooded);
        rules.extend(flooded.map(|matches| dropped(vec![matches])));
    }
    for family in Family::BOTH {
        let is_in = |direction: Direction, set: Direction| {
            let matches = Expression::PeerIn(direction, family, self::set(set, family).name.clone());
            dropped(vec![Expression::Family(family), matches])
        };
        // The source is what an ingress rule looks at, the destination what an egress rule does.
        rules.push(is_in(Direction::Ingress, Direction::Egress));
        if hook == Hook::Forward {
            rules.push(is_in(Direction::Egress, Direction::Ingress));
        }
    }
    Chain {
        name: hook.chain().into(),
        hook: Some(hook),
        comment: Some("pods whose policies the kernel refused".to_owned()),
        rules,
        chains: Vec::new(),
        sets: Vec::new(),
    }
}

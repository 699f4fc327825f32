//! Chains, rules, sets and elements, one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{Delta, NodePlan};

use super::{Difference, Verification};
use crate::{
    base::{TABLE_COMMENT, place},
    encode::rule_expressions,
    next::Next,
    program::Program,
    reader::{
        Attributes, CHAIN_BINDING, Chain as FoundChain, Operation, Properties, Ruleset, SET_ANONYMOUS,
        Set as FoundSet, Target, address, operations, table_flags,
    },
    restart::{chain_wanted, contents, is_of_kind, set_wanted},
    ruleset::{Chain, Content, Element, GENERATION_SET, Key, Set, TABLE},
    text,
};

pub(super) fn compare(found: &Ruleset, program: &Program, plan: &NodePlan, out: &mut Verification) {
    let base = program.base_chains();
    let chains = base.iter().chain(program.registry.chains());
    let sets = program.sets.all().chain(program.registry.sets());
    compare_objects(("inet", found), chains, sets, program, plan, out);
}

/// The table for bridges, where there is one and where there should be.
pub(crate) fn compare_bridge(
    found: Option<&Ruleset>,
    program: &Program,
    plan: &NodePlan,
    out: &mut Verification,
) {
    match (found, program.surroundings.has_pod_ports()) {
        (None, false) => {}
        (None, true) => out.differences.push(Difference::NoTable { family: "bridge" }),
        // Somebody else's that happens to have the name.
        (Some(found), false) if !found.is_ours() => {}
        (Some(_), false) => out.differences.push(Difference::ExtraTable { family: "bridge" }),
        (Some(found), true) => {
            let chains = program.bridge.chains(program.isolating());
            let found = ("bridge", found);
            compare_objects(found, chains.iter(), program.bridge.sets(), program, plan, out);
        }
    }
}

fn compare_objects<'a>(
    (family, found): (&str, &Ruleset),
    chains: impl Iterator<Item = &'a Arc<Chain>>,
    sets: impl Iterator<Item = &'a Arc<Set>>,
    program: &Program,
    plan: &NodePlan,
    out: &mut Verification,
) {
    if found.comment.as_deref() != Some(TABLE_COMMENT) {
        out.differences.push(Difference::OtherTable { comment: found.comment.clone() });
    }
    let table = format!("table {family} {TABLE}");
    if found.is_dormant() {
        out.differences.push(Difference::Dormant);
    }
    if let Some(port) = found.owner {
        out.differences.push(Difference::Owned { port });
    } else if let Some(flags) = table_flags(found.flags) {
        let flags = Properties::from([("flags", flags)]);
        compare_properties(&table, &Properties::new(), &flags, out);
    }
    objects(found, out);
    let wanted: BTreeMap<&str, &Arc<Chain>> = chains.map(|chain| (&*chain.name, chain)).collect();
    for (name, chain) in &wanted {
        out.chains += 1;
        match found.chains.get(*name) {
            Some(found) => compare_chain(chain, found, out),
            None => out.differences.push(Difference::MissingChain { chain: (*name).to_owned() }),
        }
    }
    // A chain or set that belongs to a rule is named with it.
    let extra = found
        .chains
        .iter()
        .filter(|(name, c)| !wanted.contains_key(name.as_str()) && c.flags & CHAIN_BINDING == 0);
    out.differences.extend(extra.map(|(chain, _)| Difference::ExtraChain { chain: chain.clone() }));
    let next = Next { plan, delta: &Delta::default() };
    let wanted: BTreeMap<&str, &Arc<Set>> = sets.map(|set| (&*set.name, set)).collect();
    for (name, set) in &wanted {
        out.sets += 1;
        match found.sets.get(*name) {
            Some(found) if is_of_kind(set, found) => {
                compare_properties(&format!("set {name}"), &set_wanted(set), &found.properties, out);
                compare_elements(set, contents(program, &next, set), found, out);
            }
            Some(_) => out.differences.push(Difference::OtherSet { set: (*name).to_owned() }),
            None => out.differences.push(Difference::MissingSet { set: (*name).to_owned() }),
        }
    }
    let extra = found
        .sets
        .iter()
        .filter(|(name, s)| !wanted.contains_key(name.as_str()) && s.flags & SET_ANONYMOUS == 0);
    out.differences.extend(extra.map(|(set, _)| Difference::ExtraSet { set: set.clone() }));
}

/// What others put into the table that we make none of.
fn objects(found: &Ruleset, out: &mut Verification) {
    let objects = found.objects.iter().map(|(kind, name)| {
        let kind = match kind {
            1 => "counter",
            2 => "quota",
            3 => "ct helper",
            4 => "limit",
            6 => "tunnel",
            7 => "ct timeout",
            8 => "secmark",
            9 => "ct expectation",
            10 => "synproxy",
            _ => "object",
        };
        format!("{kind} {name}")
    });
    let flow_tables = found.flow_tables.iter().map(|name| format!("flow table {name}"));
    let extra = objects.chain(flow_tables).map(|object| Difference::ExtraObject { object });
    out.differences.extend(extra);
}

/// What is said of an object beside its content.
fn compare_properties(object: &str, wanted: &Properties, found: &Properties, out: &mut Verification) {
    let names: BTreeSet<&'static str> = wanted.keys().chain(found.keys()).copied().collect();
    let differs = names.into_iter().filter(|name| wanted.get(name) != found.get(name));
    out.differences.extend(differs.map(|attribute| Difference::Attribute {
        object: object.to_owned(),
        attribute,
        wanted: wanted.get(attribute).cloned(),
        found: found.get(attribute).cloned(),
    }));
}

fn compare_chain(chain: &Arc<Chain>, found: &FoundChain, out: &mut Verification) {
    let wanted = chain.hook.map(place);
    if found.base != wanted {
        let chain = chain.name.to_string();
        out.differences.push(Difference::Hook { chain, wanted, found: found.base });
    }
    compare_properties(&format!("chain {}", chain.name), &chain_wanted(chain), &found.properties, out);
    let wanted: Vec<Vec<Operation>> =
        chain.rules.iter().map(|rule| operations(Attributes(&rule_expressions(rule)))).collect();
    let have: Vec<Vec<Operation>> = found.rules.iter().map(|rule| uncounted(rule)).collect();
    for (position, comment) in &found.comments {
        out.differences.push(Difference::Attribute {
            object: format!("rule {position} of chain {}", chain.name),
            attribute: "comment",
            wanted: None,
            found: Some(comment.clone()),
        });
    }
    out.rules += wanted.len();
    let same = wanted.iter().zip(&have).take_while(|(a, b)| a == b).count();
    let (wanted, have) = (&wanted[same..], &have[same..]);
    let tail = wanted.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
    let (wanted, have) = (&wanted[..wanted.len() - tail], &have[..have.len() - tail]);
    for index in 0..wanted.len().max(have.len()) {
        let rule = chain.rules.get(same + index).filter(|_| index < wanted.len());
        out.differences.push(Difference::Rule {
            chain: chain.name.to_string(),
            position: same + index,
            wanted: rule.map(text::rule),
            found: have.get(index).map(|rule| words(rule)),
        });
    }
}

/// A rule as it was written: counters count.
fn uncounted(rule: &[Operation]) -> Vec<Operation> {
    let zero = |operation: &Operation| match operation {
        Operation::Counter { .. } => Operation::Counter { packets: 0, bytes: 0 },
        other => other.clone(),
    };
    rule.iter().map(zero).collect()
}

fn words(rule: &[Operation]) -> String {
    rule.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An element as the reader has it: first and last key, and where it leads.
type Read = (Vec<u8>, Vec<u8>, Option<Target>);

fn compare_elements(set: &Set, wanted: Vec<Element>, found: &FoundSet, out: &mut Verification) {
    if set.content.expires() {
        // What rules put into it is no part of the plan.
        return;
    }
    if set.content == Content::Generation {
        if found.elements.len() != 1 {
            let extra = found.elements.keys().map(|key| key_words(key)).collect();
            let (set, about) = (GENERATION_SET.to_owned(), set.content.about());
            out.differences.push(Difference::Elements { set, about, missing: Vec::new(), extra });
        }
        return;
    }
    out.elements += wanted.len();
    let wanted: BTreeMap<Read, Element> = wanted.into_iter().filter_map(|e| Some((read(&e)?, e))).collect();
    let single = found.elements.iter().map(|(key, target)| (key.clone(), key.clone(), target.clone()));
    let spans = found.intervals.iter().map(|(first, last)| (first.clone(), last.clone(), None));
    let have: BTreeSet<Read> = if set.intervals { spans.collect() } else { single.collect() };
    let missing: Vec<String> =
        wanted.iter().filter(|(e, _)| !have.contains(e)).map(|(_, e)| text::element(e)).collect();
    let words = |e: &Read| read_words(set.key, e);
    let mut extra: Vec<String> = have.iter().filter(|e| !wanted.contains_key(e)).map(words).collect();
    if let Some(target) = &found.catch_all {
        let target = target.as_ref().map_or_else(String::new, |target| format!(" : {target}"));
        extra.push(format!("every other key{target}"));
    }
    let laden = have.iter().filter(|(first, ..)| found.laden.contains(first));
    extra.extend(laden.map(|e| format!("{} with a comment, a time-out or a statement", words(e))));
    if !missing.is_empty() || !extra.is_empty() {
        let (set, about) = (set.name.to_string(), set.content.about());
        out.differences.push(Difference::Elements { set, about, missing, extra });
    }
}

/// None for the transaction number, which is in host order and compared nowhere.
fn read(element: &Element) -> Option<Read> {
    let jump = |chain: &str| Some(Target::Jump(chain.to_owned()));
    let (first, last, target) = match element {
        Element::Address(a) => (octets(*a), octets(*a), None),
        Element::Itself(a) => (twice(*a), twice(*a), None),
        Element::Range(range) => (octets(range.first), octets(range.last), None),
        Element::Ports(first, last) => (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec(), None),
        Element::Jump(a, chain) => (octets(*a), octets(*a), jump(chain)),
        Element::JumpItself(a, chain) => (twice(*a), twice(*a), jump(chain)),
        Element::Port(port) => (port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), None),
        Element::Interface(index) => (index.to_ne_bytes().to_vec(), index.to_ne_bytes().to_vec(), None),
        Element::SameInterface(index) => (index.to_ne_bytes().repeat(2), index.to_ne_bytes().repeat(2), None),
        Element::Protocol(number) => (vec![*number], vec![*number], None),
        Element::Revoked(..) | Element::Number(_) => return None,
    };
    Some((first, last, target))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn twice(address: IpAddr) -> Vec<u8> {
    octets(address).repeat(2)
}

fn read_words(kind: Key, (first, last, target): &Read) -> String {
    let span = match (kind, &first[..]) {
        (Key::Interface, [a, b, c, d]) => u32::from_ne_bytes([*a, *b, *c, *d]).to_string(),
        (Key::InterfacePair, [a, b, c, d, w, x, y, z]) => {
            let of = |bytes| u32::from_ne_bytes(bytes);
            format!("{} . {}", of([*a, *b, *c, *d]), of([*w, *x, *y, *z]))
        }
        (Key::Protocol, [number]) => number.to_string(),
        _ if first == last => key_words(first),
        _ => format!("{}-{}", key_words(first), key_words(last)),
    };
    target.as_ref().map_or_else(|| span.clone(), |target| format!("{span} : {target}"))
}

/// A key in words, by its length: an address, a pair of addresses, or a port.
fn key_words(key: &[u8]) -> String {
    let (first, second) = key.split_at(key.len() / 2);
    match (address(key), address(first), address(second), key) {
        (Some(one), ..) => one.to_string(),
        (None, Some(one), Some(other), _) => format!("{one} . {other}"),
        (.., [high, low]) => u16::from_be_bytes([*high, *low]).to_string(),
        _ => key.iter().map(|b| format!("{b:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_words() {
        assert_eq!(key_words(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(key_words(&[10, 0, 0, 1, 10, 0, 0, 2]), "10.0.0.1 . 10.0.0.2");
        assert_eq!(key_words(&[0, 80]), "80");
        assert_eq!(key_words(&[0; 32]), ":: . ::");
        assert_eq!(key_words(&[1, 2, 3]), "010203");
        let to = (vec![10, 0, 0, 1], vec![10, 0, 0, 9], None);
        assert_eq!(read_words(Key::Address(palisade_policy::Family::V4), &to), "10.0.0.1-10.0.0.9");
    }
}

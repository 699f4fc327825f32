//! Compares chains, rules, sets and elements.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::{Delta, NodePlan};

use super::difference::{Difference, Verification};
use crate::{
    encode::{port_key, port_range_keys, rule_expressions},
    expected::{self, base_chain, has_type, properties_of_chain, properties_of_set},
    next_plan::NextPlan,
    octets::{address, octets},
    program::Program,
    reader::{
        Attributes, Chain as FoundChain, Operation, Properties, Ruleset, Set as FoundSet, Target, operations,
        table_flags,
    },
    ruleset::{Chain, Content, Element, GENERATION_SET, Key, Set, TABLE, TABLE_COMMENT},
    text,
    uapi::nf_tables::*,
};

pub(super) fn compare(found: &Ruleset, program: &Program, plan: &NodePlan, out: &mut Verification) {
    let base = program.base_chains();
    let chains = base.iter().chain(program.registry.chains());
    let sets = program.sets.all().chain(program.registry.sets());
    compare_objects(("inet", found), chains, sets, program, plan, out);
}

/// Compares the table `bridge palisade`, which may be missing or unexpected.
pub(crate) fn compare_bridge(
    found: Option<&Ruleset>,
    program: &Program,
    plan: &NodePlan,
    out: &mut Verification,
) {
    match (found, program.node_links.has_pod_ports()) {
        (None, false) => {}
        (None, true) => out.differences.push(Difference::NoTable { family: "bridge" }),
        // Another program's table of the same name.
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
    let expected: BTreeMap<&str, &Arc<Chain>> = chains.map(|chain| (&*chain.name, chain)).collect();
    for (name, chain) in &expected {
        out.chains += 1;
        match found.chains.get(*name) {
            Some(found) => compare_chain(chain, found, out),
            None => out.differences.push(Difference::MissingChain { chain: (*name).to_owned() }),
        }
    }
    // A chain or set that belongs to a rule is reported with the rule.
    let extra = found
        .chains
        .iter()
        .filter(|(name, c)| !expected.contains_key(name.as_str()) && c.flags & NFT_CHAIN_BINDING == 0);
    out.differences.extend(extra.map(|(chain, _)| Difference::ExtraChain { chain: chain.clone() }));
    let next = NextPlan { plan, delta: &Delta::default() };
    let expected: BTreeMap<&str, &Arc<Set>> = sets.map(|set| (&*set.name, set)).collect();
    for (name, set) in &expected {
        out.sets += 1;
        match found.sets.get(*name) {
            Some(found) if has_type(set, found) => {
                compare_properties(&format!("set {name}"), &properties_of_set(set), &found.properties, out);
                compare_elements(set, expected::elements(program, &next, set), found, out);
            }
            Some(_) => out.differences.push(Difference::OtherSet { set: (*name).to_owned() }),
            None => out.differences.push(Difference::MissingSet { set: (*name).to_owned() }),
        }
    }
    let extra = found
        .sets
        .iter()
        .filter(|(name, s)| !expected.contains_key(name.as_str()) && s.flags & NFT_SET_ANONYMOUS == 0);
    out.differences.extend(extra.map(|(set, _)| Difference::ExtraSet { set: set.clone() }));
}

/// Reports objects of kinds that the agent doesn't use.
fn objects(found: &Ruleset, out: &mut Verification) {
    let objects = found.objects.iter().map(|(kind, name)| {
        let kind = match *kind {
            NFT_OBJECT_COUNTER => "counter",
            NFT_OBJECT_QUOTA => "quota",
            NFT_OBJECT_CT_HELPER => "ct helper",
            NFT_OBJECT_LIMIT => "limit",
            NFT_OBJECT_TUNNEL => "tunnel",
            NFT_OBJECT_CT_TIMEOUT => "ct timeout",
            NFT_OBJECT_SECMARK => "secmark",
            NFT_OBJECT_CT_EXPECT => "ct expectation",
            NFT_OBJECT_SYNPROXY => "synproxy",
            _ => "object",
        };
        format!("{kind} {name}")
    });
    let flow_tables = found.flow_tables.iter().map(|name| format!("flow table {name}"));
    let extra = objects.chain(flow_tables).map(|object| Difference::ExtraObject { object });
    out.differences.extend(extra);
}

/// Compares the properties of an object besides its content.
fn compare_properties(object: &str, expected: &Properties, found: &Properties, out: &mut Verification) {
    let names: BTreeSet<&'static str> = expected.keys().chain(found.keys()).copied().collect();
    let differs = names.into_iter().filter(|name| expected.get(name) != found.get(name));
    out.differences.extend(differs.map(|attribute| Difference::Attribute {
        object: object.to_owned(),
        attribute,
        expected: expected.get(attribute).cloned(),
        found: found.get(attribute).cloned(),
    }));
}

fn compare_chain(chain: &Arc<Chain>, found: &FoundChain, out: &mut Verification) {
    let expected = chain.hook.map(base_chain);
    if found.base != expected {
        let chain = chain.name.to_string();
        out.differences.push(Difference::Hook { chain, expected, found: found.base });
    }
    compare_properties(&format!("chain {}", chain.name), &properties_of_chain(chain), &found.properties, out);
    let expected: Vec<Vec<Operation>> =
        chain.rules.iter().map(|rule| operations(Attributes(&rule_expressions(rule)))).collect();
    let have: Vec<Vec<Operation>> = found.rules.iter().map(|rule| uncounted(rule)).collect();
    for (position, comment) in &found.comments {
        out.differences.push(Difference::Attribute {
            object: format!("rule {position} of chain {}", chain.name),
            attribute: "comment",
            expected: None,
            found: Some(comment.clone()),
        });
    }
    out.rules += expected.len();
    let same = expected.iter().zip(&have).take_while(|(a, b)| a == b).count();
    let (expected, have) = (&expected[same..], &have[same..]);
    let tail = expected.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
    let (expected, have) = (&expected[..expected.len() - tail], &have[..have.len() - tail]);
    for index in 0..expected.len().max(have.len()) {
        let rule = chain.rules.get(same + index).filter(|_| index < expected.len());
        out.differences.push(Difference::Rule {
            chain: chain.name.to_string(),
            position: same + index,
            expected: rule.map(text::rule),
            found: have.get(index).map(|rule| describe(rule)),
        });
    }
}

/// Returns a rule as it was sent, with counters at zero.
fn uncounted(rule: &[Operation]) -> Vec<Operation> {
    let zero = |operation: &Operation| match operation {
        Operation::Counter { .. } => Operation::Counter { packets: 0, bytes: 0 },
        other => other.clone(),
    };
    rule.iter().map(zero).collect()
}

fn describe(rule: &[Operation]) -> String {
    rule.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An element as the reader reports it: first key, last key, verdict.
type FoundElement = (Vec<u8>, Vec<u8>, Option<Target>);

fn compare_elements(set: &Set, expected: Vec<Element>, found: &FoundSet, out: &mut Verification) {
    if set.content.expires() {
        // The elements expire, so the plan doesn't define them.
        return;
    }
    if set.content == Content::Generation {
        if found.elements.len() != 1 {
            let extra = found.elements.keys().map(|key| format_key(key)).collect();
            let (set, about) = (GENERATION_SET.to_owned(), set.content.describe());
            out.differences.push(Difference::Elements { set, about, missing: Vec::new(), extra });
        }
        return;
    }
    out.elements += expected.len();
    let expected: BTreeMap<FoundElement, Element> =
        expected.into_iter().filter_map(|e| Some((as_found(&e)?, e))).collect();
    let single = found.elements.iter().map(|(key, target)| (key.clone(), key.clone(), target.clone()));
    let spans = found.intervals.iter().map(|(first, last)| (first.clone(), last.clone(), None));
    let have: BTreeSet<FoundElement> = if set.intervals { spans.collect() } else { single.collect() };
    let missing: Vec<String> =
        expected.iter().filter(|(e, _)| !have.contains(e)).map(|(_, e)| text::element(e)).collect();
    let format = |e: &FoundElement| format_element(set.key, set.intervals, e);
    let mut extra: Vec<String> = have.iter().filter(|e| !expected.contains_key(e)).map(format).collect();
    if let Some(target) = &found.catch_all {
        let target = target.as_ref().map_or_else(String::new, |target| format!(" : {target}"));
        extra.push(format!("catch-all element{target}"));
    }
    let annotated = have.iter().filter(|(first, ..)| found.annotated.contains(first));
    extra.extend(annotated.map(|e| format!("{} with a comment, a timeout or a statement", format(e))));
    if !missing.is_empty() || !extra.is_empty() {
        let (set, about) = (set.name.to_string(), set.content.describe());
        out.differences.push(Difference::Elements { set, about, missing, extra });
    }
}

/// Returns an expected element as the reader reports it. `None` for those that are not compared.
fn as_found(element: &Element) -> Option<FoundElement> {
    let jump = |chain: &str| Some(Target::Jump(chain.to_owned()));
    let (first, last, target) = match element {
        Element::Address(a) => (octets(*a), octets(*a), None),
        Element::SelfPair(a) => (self_pair(*a), self_pair(*a), None),
        Element::Range(range) => (octets(range.first), octets(range.last), None),
        Element::Ports(first, last) => (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec(), None),
        Element::Jump(a, chain) => (octets(*a), octets(*a), jump(chain)),
        Element::SelfPairJump(a, chain) => (self_pair(*a), self_pair(*a), jump(chain)),
        Element::Port(port) => (port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), None),
        Element::Interface(index) => (index.to_ne_bytes().to_vec(), index.to_ne_bytes().to_vec(), None),
        Element::InterfacePair(index) => (index.to_ne_bytes().repeat(2), index.to_ne_bytes().repeat(2), None),
        Element::Protocol(number) => (vec![*number], vec![*number], None),
        Element::Hardware(mac) => (mac.to_vec(), mac.to_vec(), None),
        Element::Target(a) => (a.octets().to_vec(), a.octets().to_vec(), None),
        Element::InterfaceAddress(..)
        | Element::InterfaceHardware(..)
        | Element::InterfaceSender(..)
        | Element::InterfaceTarget(..) => (port_key(element), port_key(element), None),
        Element::LinkJump(_, _, chain) => (port_key(element), port_key(element), jump(chain)),
        Element::InterfaceRange(..) => {
            let [first, last] = port_range_keys(element);
            (first, last, None)
        }
        Element::Revoked(..) | Element::Number(_) => return None,
    };
    Some((first, last, target))
}

fn self_pair(address: IpAddr) -> Vec<u8> {
    octets(address).repeat(2)
}

fn format_element(kind: Key, intervals: bool, (first, last, target): &FoundElement) -> String {
    let span = match (kind, &first[..]) {
        (Key::Interface, [a, b, c, d]) => u32::from_ne_bytes([*a, *b, *c, *d]).to_string(),
        (Key::InterfacePair, [a, b, c, d, w, x, y, z]) => {
            let of = |bytes| u32::from_ne_bytes(bytes);
            format!("{} . {}", of([*a, *b, *c, *d]), of([*w, *x, *y, *z]))
        }
        (Key::Protocol, [number]) => number.to_string(),
        (Key::InterfaceAddress(_) | Key::InterfaceTarget, [a, b, c, d, rest @ ..]) => {
            let end = if first == last { String::new() } else { format!("-{}", format_key(&last[4..])) };
            // In ranges, the index is in network byte order.
            let read = if intervals { u32::from_be_bytes } else { u32::from_ne_bytes };
            format!("{} . {}{end}", read([*a, *b, *c, *d]), format_key(rest))
        }
        _ if first == last => format_key(first),
        _ => format!("{}-{}", format_key(first), format_key(last)),
    };
    target.as_ref().map_or_else(|| span.clone(), |target| format!("{span} : {target}"))
}

/// Formats a key by its length: an address, a pair of addresses, or a port.
fn format_key(key: &[u8]) -> String {
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
    fn keys_are_formatted_by_length() {
        assert_eq!(format_key(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(format_key(&[10, 0, 0, 1, 10, 0, 0, 2]), "10.0.0.1 . 10.0.0.2");
        assert_eq!(format_key(&[0, 80]), "80");
        assert_eq!(format_key(&[0; 32]), ":: . ::");
        assert_eq!(format_key(&[1, 2, 3]), "010203");
        let to = (vec![10, 0, 0, 1], vec![10, 0, 0, 9], None);
        assert_eq!(format_element(Key::Address(palisade_policy::Family::V4), true, &to), "10.0.0.1-10.0.0.9");
    }
}

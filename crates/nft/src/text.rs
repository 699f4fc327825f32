//! Formats a plan in the syntax of the `nft` program. Pure.
//!
//! The text is what [`crate::Enforcer::start`] would program in an empty namespace, to read, and to load with `nft -f`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use palisade_policy::{Delta, Direction, Family, IpRange, NodePlan};

use crate::{
    EnforcerOptions, Mac, NodeLinks, PlanError,
    conntrack::{FiveTuple, REVOKED},
    encode::shortened,
    next_plan::NextPlan,
    octets::octets,
    phases::{Phases, Step},
    program::Program,
    ruleset::{
        Answer, Chain, Element, Expression, HasPorts, Hook, Key, Message, Outcome, PacketType, Rule,
        SenderField, Set, SourceRoute, TABLE, TABLE_COMMENT,
    },
};

/// Returns the tables for `plan` as nftables text, which `nft -f` loads into an empty namespace.
///
/// The same plan always results in the same text. `O(plan)`.
///
/// # Errors
/// A plan that contradicts itself.
pub fn text(plan: &NodePlan, options: &EnforcerOptions, node_links: &NodeLinks) -> Result<String, PlanError> {
    let empty = NodePlan::default();
    let mut program = Program::new(options.clone(), node_links.clone());
    let (phases, _) = program.change(&empty, &empty.delta_to(plan))?;
    let mut objects = Objects::default();
    objects.gather(program.create_base());
    objects.gather(program.fill_node_sets());
    let Phases { create, join, hairpin, switch, leave: _, delete: _, .. } = phases;
    for steps in [create, join, hairpin, switch] {
        objects.gather(steps);
    }
    let first = vec![Message::AddElements(program.sets.generation.clone(), vec![Element::Number(1)])];
    objects.gather(vec![first]);
    let mut out = objects.text("inet");
    if node_links.has_pod_ports() {
        let next = NextPlan { plan, delta: &Delta::default() };
        let mut objects = Objects::default();
        objects.gather(vec![program.bridge.create(node_links, &next, program.isolating())]);
        out.push('\n');
        out.push_str(&objects.text("bridge"));
    }
    Ok(out)
}

/// The objects of a program, by name.
#[derive(Default)]
struct Objects {
    sets: BTreeMap<String, (Arc<Set>, Vec<Element>)>,
    chains: BTreeMap<String, Arc<Chain>>,
}

impl Objects {
    fn gather(&mut self, steps: Vec<Step>) {
        for message in steps.into_iter().flatten() {
            match if let Message::Bridged(message) = message { *message } else { message } {
                Message::CreateSet(set) => {
                    self.sets.insert(set.name.to_string(), (set, Vec::new()));
                }
                Message::AddElements(set, elements) => {
                    let entry =
                        self.sets.entry(set.name.to_string()).or_insert_with(|| (set.clone(), Vec::new()));
                    entry.1.extend(elements);
                }
                // A chain contains its rules. One that gets them later is created again with them.
                Message::CreateChain(chain) | Message::AddRule(chain, _) => {
                    self.chains.insert(chain.name.to_string(), chain);
                }
                // In an empty namespace there is nothing to remove.
                Message::Bridged(_)
                | Message::CreateTable
                | Message::WakeTable
                | Message::DeleteTable
                | Message::DeleteSet(_)
                | Message::RemoveElements(..)
                | Message::FlushSet(_)
                | Message::FlushChain(_)
                | Message::DeleteChain(_)
                | Message::DeleteObject(..)
                | Message::DeleteFlowTable(_) => {}
            }
        }
    }

    fn text(mut self, family: &str) -> String {
        let mut out = format!("table {family} {TABLE} {{\n\tcomment {TABLE_COMMENT:?}\n");
        for (name, (set, elements)) in &mut self.sets {
            elements.sort();
            out.push('\n');
            write_set(&mut out, name, set, elements);
        }
        for chain in self.chains.values() {
            out.push('\n');
            write_chain(&mut out, chain);
        }
        out.push_str("}\n");
        out
    }
}

fn write_set(out: &mut String, name: &str, set: &Set, elements: &[Element]) {
    let key = match set.key {
        Key::Address(family) => address_type(family).to_owned(),
        Key::Pair(family) => format!("{0} . {0}", address_type(family)),
        Key::ThreeTuple(family) => format!("{0} . {0} . inet_proto", address_type(family)),
        Key::FiveTuple(family) => {
            format!("{0} . {0} . inet_proto . inet_service . inet_service", address_type(family))
        }
        Key::Port => "inet_service".to_owned(),
        Key::Number => "mark".to_owned(),
        Key::Interface => "iface_index".to_owned(),
        Key::InterfacePair => "iface_index . iface_index".to_owned(),
        Key::Protocol => "inet_proto".to_owned(),
        Key::Hardware => "ether_addr".to_owned(),
        Key::Target => TARGET.to_owned(),
        Key::Connection(family) => format!("{} . ct id", end(family, true)),
        Key::InterfaceAddress(family) => format!("iface_index . {}", address_type(family)),
        Key::InterfaceSender(family) => format!("iface_index . {} . ether_addr", address_type(family)),
        Key::InterfaceHardware => "iface_index . ether_addr".to_owned(),
        Key::InterfaceTarget => format!("iif . {TARGET}"),
    };
    let by = if matches!(set.key, Key::Target | Key::Connection(_) | Key::InterfaceTarget) {
        "typeof"
    } else {
        "type"
    };
    let (kind, data) = if set.verdicts { ("map", " : verdict") } else { ("set", "") };
    _ = writeln!(out, "\t{kind} {name} {{\n\t\t{by} {key}{data}");
    if set.intervals {
        out.push_str("\t\tflags interval\n");
    }
    if let Some((timeout, size)) = set.content.expiry() {
        _ = writeln!(out, "\t\tsize {size}\n\t\tflags dynamic,timeout");
        _ = writeln!(out, "\t\ttimeout {}s\n\t\tgc-interval 60s", timeout.as_secs());
    }
    if let [first, rest @ ..] = elements {
        _ = write!(out, "\t\telements = {{ {}", element_of(set, first));
        for e in rest {
            _ = write!(out, ",\n\t\t\t     {}", element_of(set, e));
        }
        out.push_str(" }\n");
    }
    out.push_str("\t}\n");
}

fn address_type(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" }
}

/// Formats an element of a set as `nft` reads it.
fn element_of(set: &Set, one: &Element) -> String {
    match (set.key, one) {
        (
            Key::InterfaceTarget,
            Element::InterfaceRange(port, IpRange { first: IpAddr::V6(first), last: IpAddr::V6(last) }),
        ) => {
            format!("{port} . {}", span(&target(*first), &target(*last)))
        }
        _ => element(one),
    }
}

/// Formats an element, as `nft` reads it but for ranges of targets of neighbor discovery.
pub(crate) fn element(element: &Element) -> String {
    match element {
        Element::Address(a) => a.to_string(),
        Element::SelfPair(a) => format!("{a} . {a}"),
        Element::Range(range) => span(&range.first, &range.last),
        Element::Ports(first, last) => span(first, last),
        Element::Jump(a, chain) => format!("{a} : jump {chain}"),
        Element::SelfPairJump(a, chain) => format!("{a} . {a} : jump {chain}"),
        Element::LinkJump(port, mac, chain) => format!("{port} . {} : jump {chain}", hardware(*mac)),
        Element::Revoked(tuple, _) => {
            let FiveTuple { source, destination, protocol, source_port, port } = tuple;
            let ends = format!("{source} . {destination} . {}", protocol.number());
            if protocol.has_ports() { format!("{ends} . {source_port} . {port}") } else { ends }
        }
        Element::Number(n) => format!("0x{n:08x}"),
        Element::Port(port) => port.to_string(),
        Element::Interface(index) => index.to_string(),
        Element::InterfacePair(index) => format!("{index} . {index}"),
        Element::Protocol(number) => number.to_string(),
        Element::Hardware(mac) => hardware(*mac),
        Element::Target(a) => target(*a),
        Element::InterfaceAddress(port, a) => format!("{port} . {a}"),
        Element::InterfaceSender(port, a, mac) => format!("{port} . {a} . {}", hardware(*mac)),
        Element::InterfaceHardware(port, mac) => format!("{port} . {}", hardware(*mac)),
        Element::InterfaceTarget(port, a) => format!("{port} . {}", target(*a)),
        Element::InterfaceRange(port, range) => format!("{port} . {}", span(&range.first, &range.last)),
    }
}

/// The target of neighbor discovery. `nft` has a name for it since 1.0.8 only.
const TARGET: &str = "@th,64,128";

fn target(address: Ipv6Addr) -> String {
    format!("{:#034x}", u128::from(address))
}

fn hardware(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn span<T: PartialEq + std::fmt::Display>(first: &T, last: &T) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn write_chain(out: &mut String, chain: &Chain) {
    _ = writeln!(out, "\tchain {} {{", chain.name);
    if let Some(comment) = &chain.comment {
        _ = writeln!(out, "\t\tcomment {:?}", shortened(comment));
    }
    if let Some(hook) = chain.hook {
        let priority = if hook == Hook::Prerouting { "-450" } else { "filter" };
        _ = writeln!(out, "\t\ttype filter hook {} priority {priority}; policy accept;", name_of(hook));
    }
    for r in &chain.rules {
        _ = writeln!(out, "\t\t{}", rule(r));
    }
    out.push_str("\t}\n");
}

fn name_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Forward | Hook::Forwarded | Hook::BridgeForward => "forward",
        Hook::Input | Hook::Received => "input",
        Hook::Output | Hook::Sent | Hook::BridgeOutput => "output",
        Hook::Prerouting | Hook::Queries | Hook::BridgePrerouting => "prerouting",
        Hook::Answers => "postrouting",
    }
}

/// Formats a rule as `nft` reads it.
pub(crate) fn rule(rule: &Rule) -> String {
    rule.iter().map(expression).collect::<Vec<_>>().join(" ")
}

fn expression(expression: &Expression) -> String {
    match expression {
        Expression::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Expression::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Expression::Protocol(number) => format!("meta l4proto {number}"),
        Expression::ProtocolIn(set) => format!("meta l4proto @{set}"),
        Expression::InterfaceIn { set, inverted: false } => format!("iif @{set}"),
        Expression::InterfaceIn { set, inverted: true } => format!("iif != @{set}"),
        Expression::InterfaceIs(index) => format!("iif {index}"),
        Expression::OutInterfaceIn(set) => format!("oif @{set}"),
        Expression::InterfacePairIn { set, inverted: false } => format!("iif . oif @{set}"),
        Expression::InterfacePairIn { set, inverted: true } => format!("iif . oif != @{set}"),
        Expression::SenderIn { field, by_port, set, inverted, .. } => {
            let field = sender(*field);
            let (port, not) = (if *by_port { "iif . " } else { "" }, if *inverted { "!= " } else { "" });
            format!("{port}{field} {not}@{set}")
        }
        Expression::ReceiverIn { family, set, .. } => format!("oif . {} @{set}", end(*family, false)),
        Expression::ReceiverInNetwork(network) => {
            format!("{} {network}", end(Family::of(network.addr()), false))
        }
        Expression::PortSenderIn(family, set) => {
            format!(
                "iif . {} . {} @{set}",
                sender(SenderField::Source(*family)),
                sender(SenderField::Hardware)
            )
        }
        Expression::SenderInNetwork(SenderField::Target, network) => {
            format!("{TARGET} & {} == {}", number(network.netmask()), number(network.network()))
        }
        Expression::SenderInNetwork(field, network) => format!("{} {network}", sender(*field)),
        Expression::ArpSourceIs(source) => format!("arp saddr ip {source}"),
        Expression::LinkLocalTarget => "@th,64,16 & 0xffc0 == 0xfe80".to_owned(),
        Expression::Ethernet => "meta iiftype ether".to_owned(),
        Expression::ToReservedGroup => "@ll,0,40 0x0180c20000".to_owned(),
        Expression::IsIpv4 => "@nh,0,32 & 0xf0000000 == 0x40000000".to_owned(),
        Expression::PlainIpv4 => "@nh,0,8 0x45".to_owned(),
        Expression::HasIpv4Options => "ip hdrlength != 5".to_owned(),
        Expression::SourceRoute(SourceRoute::Loose) => "ip option lsrr exists".to_owned(),
        Expression::SourceRoute(SourceRoute::Strict) => "ip option ssrr exists".to_owned(),
        Expression::RoutingHeader => "exthdr rt exists".to_owned(),
        Expression::LinkDispatch(map) => format!("iif . ether saddr vmap @{map}"),
        Expression::EtherType(kind) => format!("ether type 0x{kind:04x}"),
        Expression::NoReverseRoute => "fib saddr . iif oif missing".to_owned(),
        Expression::HopLimit(hops) => format!("ip6 hoplimit {hops}"),
        Expression::ProtocolNotIn(numbers) => {
            numbers.iter().map(|n| format!("meta l4proto != {n}")).collect::<Vec<_>>().join(" ")
        }
        Expression::Port(first, last) => format!("th dport {}", span(first, last)),
        Expression::PortIn(set) => format!("th dport @{set}"),
        Expression::SourcePort(first, last) => format!("th sport {}", span(first, last)),
        Expression::SourcePortIn(set) => format!("th sport @{set}"),
        Expression::TcpNotSyn => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
        Expression::TupleIn(family, has_ports, set) => format!("{} @{set}", tuple(*family, *has_ports)),
        Expression::PeerIn(direction, family, set) => {
            format!("{} @{set}", end(*family, *direction == Direction::Ingress))
        }
        Expression::PairIn(family, set) => format!("{} @{set}", pair(*family)),
        Expression::PairDispatch(family, map) => format!("{} vmap @{map}", pair(*family)),
        Expression::Dispatch(direction, family, map) => {
            format!("{} vmap @{map}", end(*family, *direction == Direction::Egress))
        }
        Expression::SourceIs(source) => format!("{} {source}", end(Family::of(*source), true)),
        Expression::LinkLocal { source } => format!("{} fe80::/10", end(Family::V6, *source)),
        Expression::PacketType(PacketType::Broadcast) => "meta pkttype broadcast".to_owned(),
        Expression::PacketType(PacketType::Multicast) => "meta pkttype multicast".to_owned(),
        Expression::Icmpv6(first, last) => format!("icmpv6 type {}", span(first, last)),
        Expression::Established => "ct state established".to_owned(),
        Expression::Related => "ct state related".to_owned(),
        Expression::EstablishedOrRelated => "ct state established,related".to_owned(),
        Expression::New => "ct state new".to_owned(),
        Expression::InvalidOrNew => "ct state invalid,new".to_owned(),
        Expression::Confirmed => "ct status confirmed".to_owned(),
        Expression::ConnectionNotIn { family, source, set } => {
            format!("{} . ct id != @{set}", end(*family, *source))
        }
        Expression::AddConnection { family, source, set } => {
            format!("add @{set} {{ {} . ct id }}", end(*family, *source))
        }
        Expression::Revoked => format!("ct label {REVOKED}"),
        Expression::SetRevoked => format!("ct label set {REVOKED}"),
        Expression::Limit { rate, burst } => format!("limit rate {rate}/second burst {burst} packets"),
        Expression::LimitEach { family, source, set, rate, burst } => {
            let key = end(*family, *source);
            format!("update @{set} {{ {key} limit rate {rate}/second burst {burst} packets }}")
        }
        Expression::Reject(Answer::Reset) => "reject with tcp reset".to_owned(),
        Expression::Reject(Answer::Prohibited) => "reject with icmpx type admin-prohibited".to_owned(),
        Expression::Log(group, prefix) => format!("log prefix {prefix:?} group {group}"),
        Expression::Counter => "counter".to_owned(),
        Expression::Verdict(Outcome::Accept) => "accept".to_owned(),
        Expression::Verdict(Outcome::Drop) => "drop".to_owned(),
        Expression::Queue { number, bypass: false, .. } => format!("queue to {number}"),
        Expression::Queue { number, bypass: true, .. } => format!("queue flags bypass to {number}"),
        Expression::Verdict(Outcome::Return) => "return".to_owned(),
        Expression::Verdict(Outcome::Goto(chain)) => format!("goto {chain}"),
        Expression::Verdict(Outcome::Jump(chain)) => format!("jump {chain}"),
    }
}

/// Formats what a packet says of its sender.
fn sender(field: SenderField) -> String {
    match field {
        SenderField::Hardware => "ether saddr".to_owned(),
        SenderField::Source(family) => end(family, true),
        SenderField::ArpSource => "arp saddr ip".to_owned(),
        SenderField::Target => TARGET.to_owned(),
    }
}

/// Formats an address as the number that a raw field of the packet is compared with.
fn number(address: IpAddr) -> String {
    octets(address).iter().fold("0x".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}

/// Formats an address field of the IP header.
fn end(family: Family, source: bool) -> String {
    let header = if family == Family::V4 { "ip" } else { "ip6" };
    format!("{header} {}", if source { "saddr" } else { "daddr" })
}

fn pair(family: Family) -> String {
    format!("{} . {}", end(family, true), end(family, false))
}

fn tuple(family: Family, has_ports: HasPorts) -> String {
    let ends = format!("{} . meta l4proto", pair(family));
    if has_ports == HasPorts::Yes { format!("{ends} . th sport . th dport") } else { ends }
}

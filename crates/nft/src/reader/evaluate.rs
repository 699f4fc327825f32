//! Evaluates packets by the rules that were read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade_policy::{Protocol, Verdict};

use super::{
    dump::{Chain, Ruleset, Set},
    expressions::{Operation, Target},
};
use crate::{
    ruleset::Hook,
    uapi::{
        if_ether::{ARPHRD_ETHER, ETH_P_IP, ETH_P_IPV6},
        if_packet::{PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST},
        netfilter::{NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6},
        nf_conntrack::{
            NF_CT_STATE_ESTABLISHED_BIT, NF_CT_STATE_NEW_BIT, NF_CT_STATE_RELATED_BIT,
            NF_CT_STATE_UNTRACKED_BIT,
        },
        nf_tables::*,
    },
};

/// The connection-tracking state of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first packet of its connection.
    New,
    /// A packet of a connection with packets in both directions.
    Established,
    /// An ICMP error about another connection, or a packet of an expected connection.
    Related,
    /// Not tracked.
    Untracked,
}

impl State {
    /// Returns the bit of `ct state`.
    fn bit(self) -> u32 {
        match self {
            Self::Established => NF_CT_STATE_ESTABLISHED_BIT,
            Self::Related => NF_CT_STATE_RELATED_BIT,
            Self::New => NF_CT_STATE_NEW_BIT,
            Self::Untracked => NF_CT_STATE_UNTRACKED_BIT,
        }
    }
}

/// How a packet arrived at the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The index of the incoming interface, 0 for one that is in no set.
    pub in_interface: u32,
    /// The index of the outgoing interface, 0 for one that is in no set.
    pub out_interface: u32,
    /// Whether a route leads back to the source through the incoming interface.
    pub has_reverse_route: bool,
    /// The hop limit on arrival.
    pub hop_limit: u8,
    /// The hardware address of the sender.
    pub sender: [u8; 6],
    /// The target of neighbor discovery.
    pub target: Ipv6Addr,
}

impl Default for Arrival {
    /// Returns the arrival of a genuine packet that a router has forwarded.
    fn default() -> Self {
        Self {
            in_interface: 0,
            out_interface: 0,
            has_reverse_route: true,
            hop_limit: 63,
            sender: [0; 6],
            target: Ipv6Addr::UNSPECIFIED,
        }
    }
}

/// The parts of a packet that rules can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The hook at which it is evaluated.
    pub hook: Hook,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Destination port. For ICMP and ICMPv6 the type.
    pub port: u16,
    /// The connection-tracking state.
    pub state: State,
    /// The labels of its connection-tracking entry.
    pub labels: [u8; 16],
    /// How it arrived.
    pub arrival: Arrival,
}

impl Packet {
    /// Returns the first packet of a connection, at the forward hook, with the default [`Arrival`].
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self {
            hook: Hook::Forward,
            source,
            destination,
            protocol,
            port,
            state: State::New,
            labels: [0; 16],
            arrival: Arrival::default(),
        }
    }

    /// Returns whether it is valid neighbor, router or multicast listener discovery.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        let IpAddr::V6(source) = self.source else { return false };
        let may_be_listener = source.is_unspecified() || source.is_unicast_link_local();
        self.protocol == Protocol::Other(58)
            && match self.port {
                133..=137 => self.arrival.hop_limit == 255,
                130..=132 | 143 => self.arrival.hop_limit == 1 && may_be_listener,
                _ => false,
            }
    }

    /// Returns whether it is link-scoped: forwarded broadcast, multicast, or from or to a link-local address, and not
    /// discovery. Only bridges forward such packets.
    ///
    /// No table of the plan applies to it. It is denied while any local pod is isolated.
    #[must_use]
    pub fn is_link_scoped(&self) -> bool {
        let link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let shared = self.destination.is_multicast() || self.destination == Ipv4Addr::BROADCAST;
        self.hook == Hook::Forward
            && !self.is_discovery()
            && (shared || link_local(self.destination) || link_local(self.source))
    }
}

/// The result of an evaluation, and its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Whether the packet passes.
    pub verdict: Verdict,
    /// How many sets and maps were looked up.
    pub lookups: usize,
    /// How many rules were evaluated.
    pub rules: usize,
    /// The prefix of the last log statement.
    pub logged: Option<String>,
    /// Whether the sender of a denied packet gets an answer.
    pub refused: bool,
    /// Whether a rule accepted the packet that policies in audit mode would deny.
    pub audited: bool,
}

/// The source port of all packets, an ephemeral port.
const SOURCE_PORT: u16 = 0x8235;

/// The kernel's limit of nested chains (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// A reverse path lookup: by source address and incoming interface, and only for whether a route exists.
const REVERSE_PATH: u32 = NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT;

/// 20 words of 32 bits: the verdict, followed by the data registers.
struct Registers([u8; 80]);

impl Registers {
    /// As `nft_parse_register` does: registers 0 to 4 have 128 bits, from 8 on they are the same in words of 32 bits.
    fn at(&mut self, register: u32, length: usize) -> Result<&mut [u8], String> {
        let word = if register < NFT_REG32_00 { register * 4 } else { register - 4 };
        let start = word as usize * 4;
        self.0.get_mut(start..start + length).ok_or_else(|| format!("register {register} does not exist"))
    }

    fn store(&mut self, register: u32, value: &[u8]) -> Result<(), String> {
        // The kernel clears the rest of the last word.
        self.at(register, value.len().next_multiple_of(4))?.fill(0);
        self.at(register, value.len())?.copy_from_slice(value);
        Ok(())
    }
}

/// How a rule ended.
enum RuleEnd {
    NextRule,
    Verdict(Target),
}

struct Run<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    evaluation: Evaluation,
    registers: Registers,
}

impl Ruleset {
    /// Evaluates a packet by the rules. An error describes an invalid rule.
    pub fn evaluate(&self, packet: &Packet) -> Result<Evaluation, String> {
        let evaluation = Evaluation {
            verdict: Verdict::Allow,
            lookups: 0,
            rules: 0,
            logged: None,
            refused: false,
            audited: false,
        };
        let mut run = Run { ruleset: self, packet, evaluation, registers: Registers([0; 80]) };
        // A dormant table is attached to no hook.
        let Some(base) = self.chains.get(packet.hook.chain()).filter(|_| !self.is_dormant()) else {
            return Ok(run.evaluation);
        };
        run.walk(base)?;
        Ok(run.evaluation)
    }

    fn named(&self, name: &str) -> Result<&Chain, String> {
        self.chains.get(name).ok_or_else(|| format!("no chain {name}"))
    }
}

impl Run<'_> {
    fn walk(&mut self, base: &Chain) -> Result<(), String> {
        let mut stack: Vec<(&Chain, usize)> = Vec::new();
        let (mut chain, mut index) = (base, 0);
        for _ in 0..100_000 {
            let step = match chain.rules.get(index) {
                Some(rule) => self.rule(rule)?,
                None => RuleEnd::Verdict(Target::Return),
            };
            index += 1;
            match step {
                RuleEnd::NextRule => {}
                RuleEnd::Verdict(Target::Accept) => {
                    // No other rule that accepts has a counter.
                    let is_counter = |o: &Operation| matches!(o, Operation::Counter { .. });
                    self.evaluation.audited = chain.rules[index - 1].iter().any(is_counter);
                    return Ok(());
                }
                RuleEnd::Verdict(Target::Drop) => {
                    self.evaluation.verdict = Verdict::Deny;
                    return Ok(());
                }
                RuleEnd::Verdict(Target::Jump(name)) => {
                    if stack.len() == DEEPEST {
                        return Err("jumps are nested too deeply".to_owned());
                    }
                    stack.push((chain, index));
                    (chain, index) = (self.ruleset.named(&name)?, 0);
                }
                RuleEnd::Verdict(Target::Goto(name)) => (chain, index) = (self.ruleset.named(&name)?, 0),
                RuleEnd::Verdict(Target::Return) => match stack.pop() {
                    Some(back) => (chain, index) = back,
                    None => {
                        if base.base.is_some_and(|(_, _, policy)| policy == NF_DROP as u32) {
                            self.evaluation.verdict = Verdict::Deny;
                        }
                        return Ok(());
                    }
                },
                RuleEnd::Verdict(Target::Other(code)) => return Err(format!("verdict {code}")),
            }
        }
        Err("the chains form a loop".to_owned())
    }

    fn rule(&mut self, rule: &[Operation]) -> Result<RuleEnd, String> {
        self.evaluation.rules += 1;
        for operation in rule {
            match operation {
                // No limit applies to the first packet after an idle time.
                Operation::Reject { kind, code } => {
                    self.evaluation.refused = self.answers(*kind, *code)?;
                    return Ok(RuleEnd::Verdict(Target::Drop));
                }
                Operation::Verdict(target) => return Ok(RuleEnd::Verdict(target.clone())),
                Operation::Lookup { set, register, into, inverted } => {
                    let found = self.lookup(set, *register)?;
                    if found.is_some() == *inverted {
                        return Ok(RuleEnd::NextRule);
                    }
                    match (into, found.flatten()) {
                        (Some(NFT_REG_VERDICT), Some(target)) => return Ok(RuleEnd::Verdict(target)),
                        (None, _) => {}
                        _ => return Err(format!("set {set} has no verdict where the rule requires one")),
                    }
                }
                other => {
                    if !self.matches(other)? {
                        return Ok(RuleEnd::NextRule);
                    }
                }
            }
        }
        Ok(RuleEnd::NextRule)
    }

    /// Evaluates an operation that only matches or doesn't.
    fn matches(&mut self, operation: &Operation) -> Result<bool, String> {
        match operation {
            Operation::Meta { key: NFT_META_IIF, register } => {
                self.registers.store(*register, &self.packet.arrival.in_interface.to_ne_bytes())?;
            }
            Operation::Meta { key: NFT_META_OIF, register } => {
                self.registers.store(*register, &self.packet.arrival.out_interface.to_ne_bytes())?;
            }
            Operation::Meta { key: NFT_META_IIFTYPE, register } => {
                self.registers.store(*register, &ARPHRD_ETHER.to_ne_bytes())?;
            }
            Operation::Fib { result: NFT_FIB_RESULT_OIF, flags: REVERSE_PATH, register } => {
                self.registers.store(*register, &[u8::from(self.packet.arrival.has_reverse_route)])?;
            }
            Operation::Meta { key, register } => {
                let value = match key {
                    &NFT_META_NFPROTO if self.packet.source.is_ipv4() => NFPROTO_IPV4,
                    &NFT_META_NFPROTO => NFPROTO_IPV6,
                    &NFT_META_L4PROTO => self.packet.protocol.number(),
                    &NFT_META_PKTTYPE => self.packet_type(),
                    key => return Err(format!("meta key {key}")),
                };
                self.registers.store(*register, &[value])?;
            }
            Operation::Ct { key: NFT_CT_STATE, register } => {
                self.registers.store(*register, &self.packet.state.bit().to_ne_bytes())?;
            }
            Operation::Ct { key: NFT_CT_LABELS, register } => {
                self.registers.store(*register, &self.packet.labels)?;
            }
            // These packets have neither.
            Operation::HeaderExists { register, .. } => self.registers.store(*register, &[0])?,
            Operation::Payload { base, offset, length, register } => {
                let Some(bytes) = self.payload(*base, *offset as usize, *length as usize)? else {
                    return Ok(false);
                };
                self.registers.store(*register, &bytes)?;
            }
            Operation::Compare { register, operator, value } => {
                let have = &*self.registers.at(*register, value.len())?;
                return Ok(match operator {
                    &NFT_CMP_EQ => have == value,
                    &NFT_CMP_NEQ => have != value,
                    &NFT_CMP_LT => have < &value[..],
                    &NFT_CMP_LTE => have <= &value[..],
                    &NFT_CMP_GT => have > &value[..],
                    &NFT_CMP_GTE => have >= &value[..],
                    other => return Err(format!("comparison {other}")),
                });
            }
            Operation::ToNetworkOrder { source, register } => {
                let mut value = self.registers.at(*source, 4)?.to_vec();
                if cfg!(target_endian = "little") {
                    value.reverse();
                }
                self.registers.store(*register, &value)?;
            }
            Operation::Bitwise { source, register, mask, xor } => {
                let have = self.registers.at(*source, mask.len())?.to_vec();
                let value: Vec<u8> =
                    have.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| (byte & mask) ^ xor).collect();
                self.registers.store(*register, &value)?;
            }
            // No limit applies to the first packet after an idle time.
            Operation::Counter { .. } | Operation::Limit { inverted: false, .. } => {}
            Operation::SetUpdate { statements, .. } => {
                return statements
                    .iter()
                    .try_fold(true, |so_far, statement| Ok(self.matches(statement)? && so_far));
            }
            Operation::Log { prefix, .. } => self.evaluation.logged = Some(prefix.clone()),
            other => return Err(format!("unexpected {other:?}")),
        }
        Ok(true)
    }

    /// Returns whether the sender of a rejected packet gets an answer that suits its protocol.
    fn answers(&self, kind: u32, code: u8) -> Result<bool, String> {
        let is_tcp = self.packet.protocol == Protocol::Tcp;
        match (kind, code) {
            (NFT_REJECT_TCP_RST, _) => Ok(is_tcp),
            (NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED) => Ok(!is_tcp),
            other => Err(format!("reject {other:?}")),
        }
    }

    /// Returns the packet type that the destination address implies.
    fn packet_type(&self) -> u8 {
        match self.packet.destination {
            IpAddr::V4(Ipv4Addr::BROADCAST) => PACKET_BROADCAST,
            other if other.is_multicast() => PACKET_MULTICAST,
            _ => PACKET_HOST,
        }
    }

    /// Returns bytes of the packet, or `None` if it is too short.
    fn payload(&self, base: u32, offset: usize, length: usize) -> Result<Option<Vec<u8>>, String> {
        let header = match base {
            NFT_PAYLOAD_LL_HEADER => self.ethernet_header(),
            NFT_PAYLOAD_NETWORK_HEADER => self.network_header(),
            NFT_PAYLOAD_TRANSPORT_HEADER => self.transport_header(),
            base => return Err(format!("payload base {base}")),
        };
        Ok(header.get(offset..offset + length).map(<[u8]>::to_vec))
    }

    fn ethernet_header(&self) -> Vec<u8> {
        let kind = if self.packet.source.is_ipv4() { ETH_P_IP } else { ETH_P_IPV6 };
        [&[0; 6][..], &self.packet.arrival.sender, &kind.to_be_bytes()].concat()
    }

    fn network_header(&self) -> Vec<u8> {
        match (self.packet.source, self.packet.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => [&[0x45][..], &[0; 11], &s.octets(), &d.octets()].concat(),
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                [&[0x60][..], &[0; 6], &[self.packet.arrival.hop_limit], &s.octets(), &d.octets()].concat()
            }
            _ => Vec::new(),
        }
    }

    fn transport_header(&self) -> Vec<u8> {
        match self.packet.protocol {
            Protocol::Other(58) => {
                let target = self.packet.arrival.target.octets();
                [&[self.packet.port as u8, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()
            }
            Protocol::Other(1) => vec![self.packet.port as u8, 0, 0, 0],
            Protocol::Other(_) => vec![0xaa; 8],
            Protocol::Tcp => {
                const SYN: u8 = 2;
                const ACK: u8 = 16;
                let flags = if self.packet.state == State::Established { ACK } else { SYN };
                [&SOURCE_PORT.to_be_bytes()[..], &self.packet.port.to_be_bytes(), &[0; 9], &[flags], &[0; 6]]
                    .concat()
            }
            _ => [&SOURCE_PORT.to_be_bytes()[..], &self.packet.port.to_be_bytes(), &[0; 4]].concat(),
        }
    }

    /// Returns `None` if the key is not in the set, otherwise the element's verdict if it has one.
    fn lookup(&mut self, name: &str, register: u32) -> Result<Option<Option<Target>>, String> {
        self.evaluation.lookups += 1;
        let set = self.ruleset.sets.get(name).ok_or_else(|| format!("no set {name}"))?;
        let key = self.registers.at(register, set.key_length as usize)?.to_vec();
        Ok(set.find(&key))
    }
}

impl Set {
    fn find(&self, key: &[u8]) -> Option<Option<Target>> {
        if self.has_intervals() {
            let after = self.intervals.partition_point(|(first, _)| &first[..] <= key);
            let Some((_, last)) = after.checked_sub(1).and_then(|index| self.intervals.get(index)) else {
                return self.catch_all.clone();
            };
            return if key <= &last[..] { Some(None) } else { self.catch_all.clone() };
        }
        self.elements.get(key).or(self.catch_all.as_ref()).cloned()
    }
}

//! A packet's way through the rules as read back.

use std::net::{IpAddr, Ipv4Addr};

use palisade_policy::{Protocol, Verdict};

use super::{
    dump::{Chain, Ruleset, Set},
    expressions::{Operation, Target},
};
use crate::ruleset::Hook;

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first of its connection.
    New,
    /// Of a connection that has seen packets both ways.
    Established,
    /// An error message about, or an expected companion of, another connection.
    Related,
    /// Not tracked.
    Untracked,
}

impl State {
    /// The bit of `ct state`.
    fn bit(self) -> u32 {
        match self {
            Self::Established => 2,
            Self::Related => 4,
            Self::New => 8,
            Self::Untracked => 64,
        }
    }
}

/// How a packet came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The index of the interface; 0 for one that no set names.
    pub interface: u32,
    /// The index of the interface by which it leaves; 0 likewise.
    pub leaves_by: u32,
    /// Whether a route leads back to the source by the interface on which it came.
    pub way_back: bool,
    /// What is left of its hop limit.
    pub hop_limit: u8,
}

impl Default for Arrival {
    /// Of a packet that is what it says, and that a router has forwarded.
    fn default() -> Self {
        Self { interface: 0, leaves_by: 0, way_back: true, hop_limit: 63 }
    }
}

/// A packet, as far as our rules can look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The hook that it meets.
    pub hook: Hook,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Destination port; for ICMP and ICMPv6 the type.
    pub port: u16,
    /// What connection tracking says.
    pub state: State,
    /// The labels of its connection.
    pub labels: [u8; 16],
    /// How it came here.
    pub arrival: Arrival,
}

impl Packet {
    /// Whether it is neighbour or router discovery, or listeners telling their groups, as the standards call it valid.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        let IpAddr::V6(source) = self.source else { return false };
        let of_listeners = source.is_unspecified() || source.is_unicast_link_local();
        self.protocol == Protocol::Other(58)
            && match self.port {
                133..=137 => self.arrival.hop_limit == 255,
                130..=132 | 143 => self.arrival.hop_limit == 1 && of_listeners,
                _ => false,
            }
    }

    /// Whether it is a link's own: forwarded (which bridges alone do) to many, or from or to a link-local address, and no
    /// discovery. No table of the plan is asked for it: it is denied while any local pod is isolated.
    #[must_use]
    pub fn is_of_link(&self) -> bool {
        let link_local = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let shared = self.destination.is_multicast() || self.destination == Ipv4Addr::BROADCAST;
        self.hook == Hook::Forward
            && !self.is_discovery()
            && (shared || link_local(self.destination) || link_local(self.source))
    }
}

/// What happens to a packet, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it passes.
    pub verdict: Verdict,
    /// How many sets and maps were asked.
    pub lookups: usize,
    /// How many rules were begun.
    pub rules: usize,
    /// The prefix of the last log statement.
    pub logged: Option<String>,
}

/// The source port of all packets: an ephemeral one.
const SOURCE_PORT: u16 = 0x8235;

/// The kernel's limit on nested chains (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// 20 words of 32 bits: the verdict, then the data registers.
struct Registers([u8; 80]);

impl Registers {
    /// `nft_parse_register`: 0 to 4 are 128 bits each, from 8 on they are the same in words.
    fn at(&mut self, register: u32, length: usize) -> Result<&mut [u8], String> {
        let word = if register < 8 { register * 4 } else { register - 4 };
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
enum Step {
    NextRule,
    Go(Target),
}

struct Run<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    judgement: Judgement,
    registers: Registers,
}

impl Ruleset {
    /// What the rules say to a packet. An error says what in the rules makes no sense.
    pub fn evaluate(&self, packet: &Packet) -> Result<Judgement, String> {
        let judgement = Judgement { verdict: Verdict::Allow, lookups: 0, rules: 0, logged: None };
        let mut run = Run { ruleset: self, packet, judgement, registers: Registers([0; 80]) };
        // A dormant table hangs on no hook.
        let Some(base) = self.chains.get(packet.hook.chain()).filter(|_| !self.is_dormant()) else {
            return Ok(run.judgement);
        };
        run.walk(base)?;
        Ok(run.judgement)
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
                None => Step::Go(Target::Return),
            };
            index += 1;
            match step {
                Step::NextRule => {}
                Step::Go(Target::Accept) => return Ok(()),
                Step::Go(Target::Drop) => {
                    self.judgement.verdict = Verdict::Deny;
                    return Ok(());
                }
                Step::Go(Target::Jump(name)) => {
                    if stack.len() == DEEPEST {
                        return Err("jumps nest too deep".to_owned());
                    }
                    stack.push((chain, index));
                    (chain, index) = (self.ruleset.named(&name)?, 0);
                }
                Step::Go(Target::Goto(name)) => (chain, index) = (self.ruleset.named(&name)?, 0),
                Step::Go(Target::Return) => match stack.pop() {
                    Some(back) => (chain, index) = back,
                    None => {
                        if base.base.is_some_and(|(_, _, policy)| policy == 0) {
                            self.judgement.verdict = Verdict::Deny;
                        }
                        return Ok(());
                    }
                },
                Step::Go(Target::Other(code)) => return Err(format!("verdict {code}")),
            }
        }
        Err("the chains go round in a circle".to_owned())
    }

    fn rule(&mut self, rule: &[Operation]) -> Result<Step, String> {
        self.judgement.rules += 1;
        for operation in rule {
            match operation {
                Operation::Verdict(target) => return Ok(Step::Go(target.clone())),
                Operation::Lookup { set, register, into, inverted } => {
                    let found = self.lookup(set, *register)?;
                    if found.is_some() == *inverted {
                        return Ok(Step::NextRule);
                    }
                    match (into, found.flatten()) {
                        (Some(0), Some(target)) => return Ok(Step::Go(target)),
                        (None, _) => {}
                        _ => return Err(format!("set {set} has no verdict where one is asked for")),
                    }
                }
                other => {
                    if !self.matches(other)? {
                        return Ok(Step::NextRule);
                    }
                }
            }
        }
        Ok(Step::NextRule)
    }

    /// Performs an operation that can only match or not.
    fn matches(&mut self, operation: &Operation) -> Result<bool, String> {
        match operation {
            Operation::Meta { key: 4, register } => {
                self.registers.store(*register, &self.packet.arrival.interface.to_ne_bytes())?;
            }
            Operation::Meta { key: 5, register } => {
                self.registers.store(*register, &self.packet.arrival.leaves_by.to_ne_bytes())?;
            }
            // The route back to the source by the interface on which the packet came, and no more than whether there is one.
            Operation::Fib { result: 1, flags: 41, register } => {
                self.registers.store(*register, &[u8::from(self.packet.arrival.way_back)])?;
            }
            Operation::Meta { key, register } => {
                let value = match key {
                    15 => {
                        if self.packet.source.is_ipv4() {
                            2
                        } else {
                            10
                        }
                    }
                    16 => self.packet.protocol.number(),
                    19 => self.packet_type(),
                    key => return Err(format!("meta key {key}")),
                };
                self.registers.store(*register, &[value])?;
            }
            Operation::Ct { key: 0, register } => {
                self.registers.store(*register, &self.packet.state.bit().to_ne_bytes())?;
            }
            Operation::Ct { key: 13, register } => self.registers.store(*register, &self.packet.labels)?,
            Operation::Payload { base, offset, length, register } => {
                let Some(bytes) = self.payload(*base, *offset as usize, *length as usize)? else {
                    return Ok(false);
                };
                self.registers.store(*register, &bytes)?;
            }
            Operation::Compare { register, operator, value } => {
                let have = &*self.registers.at(*register, value.len())?;
                return Ok(match operator {
                    0 => have == value,
                    1 => have != value,
                    2 => have < &value[..],
                    3 => have <= &value[..],
                    4 => have > &value[..],
                    5 => have >= &value[..],
                    other => return Err(format!("comparison {other}")),
                });
            }
            Operation::Bitwise { source, register, mask, xor } => {
                let have = self.registers.at(*source, mask.len())?.to_vec();
                let value: Vec<u8> =
                    have.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| (byte & mask) ^ xor).collect();
                self.registers.store(*register, &value)?;
            }
            // The first packet after a rest passes any limit.
            Operation::Counter { .. } | Operation::Limit { inverted: false, .. } => {}
            Operation::Log { prefix, .. } => self.judgement.logged = Some(prefix.clone()),
            other => return Err(format!("unexpected {other:?}")),
        }
        Ok(true)
    }

    /// `PACKET_HOST`, `PACKET_BROADCAST` or `PACKET_MULTICAST`: what a frame to that address is, as far as the address alone
    /// says it.
    fn packet_type(&self) -> u8 {
        match self.packet.destination {
            IpAddr::V4(Ipv4Addr::BROADCAST) => 1,
            other => 2 * u8::from(other.is_multicast()),
        }
    }

    /// The packet's bytes, as far as rules may ask; none where the packet is too short.
    fn payload(&self, base: u32, offset: usize, length: usize) -> Result<Option<Vec<u8>>, String> {
        let header = match base {
            1 => self.network_header(),
            2 => self.transport_header(),
            base => return Err(format!("payload base {base}")),
        };
        Ok(header.get(offset..offset + length).map(<[u8]>::to_vec))
    }

    fn network_header(&self) -> Vec<u8> {
        match (self.packet.source, self.packet.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => [&[0; 12][..], &s.octets(), &d.octets()].concat(),
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                [&[0; 7][..], &[self.packet.arrival.hop_limit], &s.octets(), &d.octets()].concat()
            }
            _ => Vec::new(),
        }
    }

    fn transport_header(&self) -> Vec<u8> {
        match self.packet.protocol {
            Protocol::Other(1 | 58) => vec![self.packet.port as u8, 0, 0, 0],
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

    /// None: not in the set. Otherwise the verdict, if the set leads to one.
    fn lookup(&mut self, name: &str, register: u32) -> Result<Option<Option<Target>>, String> {
        self.judgement.lookups += 1;
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

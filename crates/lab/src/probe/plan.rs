//! What is probed, and what is expected of it.

use std::net::IpAddr;

use palisade_policy::{Decision, Endpoint, Family, Flow, ObjectKey, Protocol, Verdict, reference};
use serde::Serialize;

use super::client::{Outcome, Timeouts};
use crate::{
    layout::{Layout, Place},
    ports::Ports,
    services::{Backend, Frontend, frontends},
};

/// How to probe.
#[derive(Clone, Debug)]
pub struct Options {
    /// At most so many probes, chosen at random; the rest is listed as not probed. `None`: all.
    pub max_probes: Option<usize>,
    /// What the choice is drawn from.
    pub seed: u64,
    /// Whether to probe ICMP echo too.
    pub icmp: bool,
    /// The first pass.
    pub first: Timeouts,
    /// Further passes, over what didn't come to what was expected.
    pub again: Vec<Timeouts>,
}

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An endpoint at its own address.
    Direct(Endpoint),
    /// A service.
    Service {
        /// Which.
        key: ObjectKey,
        /// Which of its addresses.
        address: IpAddr,
    },
}

impl Target {
    /// The address that is called.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Direct(endpoint) => endpoint.address(),
            Self::Service { address, .. } => *address,
        }
    }
}

/// One connection to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who opens it.
    pub source: Endpoint,
    /// Who is called.
    pub target: Target,
    /// TCP, UDP, SCTP, or ICMP echo.
    pub protocol: Protocol,
    /// The port that is called; 0 for ICMP.
    pub port: u16,
    /// What it may become on the wire, with the verdict: one flow, or for a service one for each backend.
    pub flows: Vec<(Flow, Verdict)>,
}

/// What a probe should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It is answered.
    Allowed,
    /// It is dropped silently.
    Denied,
    /// A service with backends of both kinds: answered by one that is allowed, or dropped.
    Either,
    /// A service without backends: refused, or dropped.
    NoBackend,
}

impl Probe {
    /// What it should come to.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let allowed = self.flows.iter().filter(|(_, v)| v.is_allow()).count();
        match (allowed, self.flows.len()) {
            (_, 0) => Expected::NoBackend,
            (0, _) => Expected::Denied,
            (a, n) if a == n => Expected::Allowed,
            _ => Expected::Either,
        }
    }

    /// Whether this outcome is one that the policies want.
    #[must_use]
    pub fn agrees(&self, outcome: &Outcome) -> bool {
        match (self.expected(), outcome) {
            (Expected::Allowed | Expected::Either, Outcome::Connected { by, .. }) => {
                self.may_answer(by.as_ref())
            }
            (Expected::Denied | Expected::Either | Expected::NoBackend, Outcome::TimedOut)
            | (Expected::NoBackend, Outcome::Refused) => true,
            _ => false,
        }
    }

    /// Whether it is an allowed destination that answers. The kernel answers ICMP echo without saying who it is.
    fn may_answer(&self, by: Option<&Place>) -> bool {
        match by {
            None => !self.protocol.has_ports(),
            Some(by) => self.flows.iter().any(|(f, v)| v.is_allow() && endpoint_place(&f.destination) == *by),
        }
    }
}

/// The place at which an endpoint is.
#[must_use]
pub fn endpoint_place(endpoint: &Endpoint) -> Place {
    match endpoint {
        Endpoint::Pod { key, .. } => Place::Pod(key.clone()),
        Endpoint::Node { name, .. } => Place::Node(name.clone()),
        Endpoint::External(_) => Place::Outside,
    }
}

/// Something that is not probed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotProbed {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The probes, by source.
    pub probes: Vec<Probe>,
    /// What is left out.
    pub not_probed: Vec<NotProbed>,
}

/// A probe before anybody has asked what to expect of it.
struct Draft<'a> {
    source: &'a Endpoint,
    target: DraftTarget<'a>,
    protocol: Protocol,
    port: u16,
}

#[derive(Clone, Copy)]
enum DraftTarget<'a> {
    Direct(&'a Endpoint),
    Service(&'a ObjectKey, IpAddr, &'a [Backend<'a>]),
}

impl Plan {
    /// Every ordered pair of endpoints of which one is a pod, on every open port of the destination and by ICMP echo; and
    /// every service port from every pod and node. Asks the reference about each:
    /// `O(endpoints² · ports · policies)`, or for a sample its size times the policies.
    #[must_use]
    pub fn of(layout: &Layout, options: &Options) -> Self {
        let ports = Ports::of(layout);
        let endpoints = endpoints(layout);
        let open: Vec<Vec<(Protocol, u16)>> =
            endpoints.iter().map(|e| open_at(&ports, layout, e, options.icmp)).collect();
        let services = frontends(layout);
        let mut not_probed: Vec<NotProbed> = ports
            .note
            .iter()
            .chain(&layout.notes)
            .map(|note| NotProbed { what: note.clone(), why: "kept small".to_owned() })
            .collect();
        if !options.icmp {
            not_probed.push(NotProbed { what: "ICMP echo".to_owned(), why: "not asked for".to_owned() });
        }
        let mut total = 0;
        each_draft(&endpoints, &open, &services, |_| total += 1);
        let mut choice = Choice::of(options.max_probes.unwrap_or(total), total, options.seed);
        if choice.wanted < total {
            not_probed.push(NotProbed {
                what: format!("{} of {total} connections", total - choice.wanted),
                why: format!("a sample of {} was asked for, seed {}", choice.wanted, options.seed),
            });
        }
        let mut probes = Vec::with_capacity(choice.wanted);
        each_draft(&endpoints, &open, &services, |draft| {
            if choice.next() {
                probes.push(draft.decide(layout));
            }
        });
        Self { probes, not_probed }
    }

    /// How many probes there would be without a limit.
    #[must_use]
    pub fn size(layout: &Layout, options: &Options) -> usize {
        let ports = Ports::of(layout);
        let endpoints = endpoints(layout);
        let open: Vec<_> = endpoints.iter().map(|e| open_at(&ports, layout, e, options.icmp)).collect();
        let mut total = 0;
        each_draft(&endpoints, &open, &frontends(layout), |_| total += 1);
        total
    }
}

fn endpoints(layout: &Layout) -> Vec<Endpoint> {
    layout
        .places()
        .flat_map(|(place, addresses)| {
            let endpoint = move |address: &IpAddr| match &place {
                Place::Pod(key) => Endpoint::Pod { key: key.clone(), address: *address },
                Place::Node(name) => Endpoint::Node { name: name.clone(), address: *address },
                Place::Outside => Endpoint::External(*address),
            };
            addresses.iter().map(endpoint).collect::<Vec<_>>()
        })
        .collect()
}

fn open_at(ports: &Ports, layout: &Layout, endpoint: &Endpoint, icmp: bool) -> Vec<(Protocol, u16)> {
    // IP protocol numbers of ICMP and ICMPv6.
    let echo = Protocol::Other(if endpoint.address().is_ipv4() { 1 } else { 58 });
    ports.at(layout, &endpoint_place(endpoint)).into_iter().chain(icmp.then_some((echo, 0))).collect()
}

type Services<'a> = std::collections::BTreeMap<Frontend, (&'a palisade_policy::Service, Vec<Backend<'a>>)>;

fn each_draft<'a>(
    endpoints: &'a [Endpoint],
    open: &[Vec<(Protocol, u16)>],
    services: &'a Services<'_>,
    mut f: impl FnMut(Draft<'a>),
) {
    let is_pod = |e: &Endpoint| matches!(e, Endpoint::Pod { .. });
    for source in endpoints {
        let family = Family::of(source.address());
        for (destination, ports) in endpoints.iter().zip(open) {
            if Family::of(destination.address()) == family && (is_pod(source) || is_pod(destination)) {
                for &(protocol, port) in ports {
                    f(Draft { source, target: DraftTarget::Direct(destination), protocol, port });
                }
            }
        }
        if matches!(source, Endpoint::External(_)) {
            continue; // Cluster addresses of services exist on the nodes alone.
        }
        for (frontend, (service, backends)) in services {
            if Family::of(frontend.address) == family {
                let target = DraftTarget::Service(&service.key, frontend.address, backends);
                // Several backends are chosen from at random: enough tries to meet most of them.
                for _ in 0..backends.len().clamp(1, 3) {
                    f(Draft { source, target, protocol: frontend.protocol, port: frontend.port });
                }
            }
        }
    }
}

impl Draft<'_> {
    fn decide(self, layout: &Layout) -> Probe {
        let Self { source, target, protocol, port } = self;
        let decide = |destination: Endpoint, port, through_service| {
            let flow = Flow { source: source.clone(), destination, protocol, port, through_service };
            let verdict = reference::decide(&layout.cluster, &flow).verdict();
            (flow, verdict)
        };
        let (target, flows) = match target {
            DraftTarget::Direct(e) => (Target::Direct(e.clone()), vec![decide(e.clone(), port, false)]),
            DraftTarget::Service(key, address, backends) => {
                let flows =
                    backends.iter().map(|b| decide(backend_endpoint(layout, b), b.port, true)).collect();
                (Target::Service { key: key.clone(), address }, flows)
            }
        };
        Probe { source: source.clone(), target, protocol, port, flows }
    }
}

fn backend_endpoint(layout: &Layout, backend: &Backend<'_>) -> Endpoint {
    let pod = &layout.cluster.pods[backend.pod];
    match (&pod.node, pod.host_network) {
        (Some(node), true) => Endpoint::Node { name: node.clone(), address: backend.address },
        _ => Endpoint::Pod { key: pod.key.clone(), address: backend.address },
    }
}

/// Why the probe's flows are decided as they are: for reports on what went wrong.
#[must_use]
pub(super) fn decisions(layout: &Layout, probe: &Probe) -> Vec<Decision> {
    probe.flows.iter().map(|(flow, _)| reference::decide(&layout.cluster, flow)).collect()
}

/// Draws exactly `wanted` of `total` in one pass (Knuth's selection sampling, TAOCP 3.4.2 S).
struct Choice {
    wanted: usize,
    left: usize,
    total_left: usize,
    random: SplitMix,
}

impl Choice {
    fn of(limit: usize, total: usize, seed: u64) -> Self {
        let wanted = limit.min(total);
        Self { wanted, left: wanted, total_left: total, random: SplitMix(seed) }
    }

    fn next(&mut self) -> bool {
        let draw = self.left > 0 && self.random.below(self.total_left) < self.left;
        self.left -= usize::from(draw);
        self.total_left = self.total_left.saturating_sub(1);
        draw
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere for the same seed.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The bias of the remainder is below 2⁻³² for any bound that fits in memory.
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_exactly_its_size_and_depends_on_the_seed_alone() {
        let draw = |seed| {
            let mut choice = Choice::of(100, 1000, seed);
            (0..1000).filter(|_| choice.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1).len(), 100);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}

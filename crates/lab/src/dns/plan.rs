//! The lookups of a run, and what the engine expects of them and of the connections that follow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use palisade_agent::names::learnable;
use palisade_policy::{
    Cluster, DomainName, Endpoint, Family, Flow, LearnedName, Protocol, Verdict, reference,
};

use super::{NameServers, answers, client::LookupOutcome, zones::Zones};
use crate::{
    layout::{Layout, Place},
    options::OpenPort,
    ports::Ports,
    probe::{Expected, NotProbed, Probe, Target, refuses},
    services::{Frontend, frontends},
};

/// What the engine and the zones expect of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedLookup {
    /// Some of these addresses are answered.
    Addresses(BTreeSet<IpAddr>),
    /// The name has no address of the family.
    NoAddress,
    /// The name doesn't exist.
    NoSuchName,
    /// There is no answer: policies deny the question, or the servers are silent.
    NoAnswer,
    /// The aliases are a loop: there is no answer, or one without an address.
    Loop,
    /// Some of the servers can be asked and others can't.
    Either,
}

impl ExpectedLookup {
    /// Returns whether an outcome is expected.
    #[must_use]
    pub fn agrees(&self, outcome: &LookupOutcome) -> bool {
        use LookupOutcome as O;
        match (self, outcome) {
            (Self::Addresses(expected), O::Addresses(answered)) => {
                answered.iter().all(|address| expected.contains(address))
            }
            (Self::NoAddress, O::NoAddress)
            | (Self::NoSuchName, O::NoSuchName)
            | (Self::NoAnswer, O::NoAnswer)
            | (Self::Loop, O::NoAddress | O::NoAnswer) => true,
            (Self::Either, outcome) => !matches!(outcome, O::Failed(_)),
            _ => false,
        }
    }
}

/// One name that one pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The pod.
    pub source: Endpoint,
    /// The name.
    pub name: DomainName,
    /// Whose addresses are asked for.
    pub family: Family,
    /// The server, as the pod has it.
    pub server: SocketAddr,
    /// How often the pod asks, so that it meets each address that servers rotate.
    pub rounds: usize,
    /// What is expected.
    pub expected: ExpectedLookup,
    /// Forged addresses that servers answer besides.
    pub(super) forged: Vec<IpAddr>,
}

/// The lookups of a run.
#[derive(Clone, Debug)]
pub struct NamePlan {
    /// The lookups, by pod and name.
    pub lookups: Vec<Lookup>,
    /// What is not probed.
    pub not_probed: Vec<NotProbed>,
    /// The ports of each connection, besides those that are open at its destination alone.
    pub(super) ports: Ports,
    /// The servers' own sockets, which answer DNS alone.
    pub(super) taken: BTreeSet<SocketAddr>,
    /// What is learned if every name is asked for.
    all: Vec<LearnedName>,
}

impl NamePlan {
    /// Computes the lookups: every pod asks for every name in every family.
    #[must_use]
    pub fn of(layout: &Layout, zones: &Zones, servers: &NameServers) -> Self {
        let mut plan = Self {
            lookups: Vec::new(),
            not_probed: Vec::new(),
            ports: Ports::of(layout),
            taken: servers.at.iter().map(|(_, at)| *at).collect(),
            all: Vec::new(),
        };
        let names = zones.to_ask();
        plan.all = names.iter().map(|name| learned_of(layout, zones, name)).collect();
        for (key, place) in &layout.pods {
            for address in &place.addresses {
                let source = Endpoint::Pod { key: key.clone(), address: *address };
                let Some(server) = servers.of_family(Family::of(*address)) else {
                    plan.not_probed.push(NotProbed {
                        what: format!("names from {source}"),
                        why: "no DNS server has an address of its family".to_owned(),
                    });
                    continue;
                };
                let questions = Questions::of(layout, &source, server);
                plan.lookups.extend(names.iter().map(|name| questions.lookup(zones, name)));
            }
        }
        plan
    }

    /// Returns the ports of every connection.
    pub fn ports(&self) -> impl Iterator<Item = OpenPort> + '_ {
        self.ports.everywhere.iter().copied()
    }

    /// Returns the cluster as the engine has it once these addresses were learned for a name, and no others.
    pub(super) fn learned_by(
        &self,
        layout: &Layout,
        name: &DomainName,
        addresses: &BTreeSet<IpAddr>,
    ) -> Cluster {
        with_learned(layout, [learned_name(&layout.cluster, name, addresses.iter().copied())])
    }

    /// Returns the connections after an answer: to each address that the pod has now, on each port, and to forged addresses. `learned` are all
    /// addresses that the pod was answered for the name.
    #[must_use]
    pub fn connections(&self, layout: &Layout, lookup: &Lookup, learned: &BTreeSet<IpAddr>) -> Vec<Probe> {
        let own = self.learned_by(layout, &lookup.name, learned);
        let all = with_learned(layout, self.all.iter().cloned());
        let forged = lookup.forged.iter().filter(|a| Family::of(**a) == lookup.family);
        let addresses: BTreeSet<IpAddr> = learned.iter().chain(forged).copied().collect();
        let mut probes = Vec::new();
        for address in addresses {
            let destination = layout.cluster.endpoint(address);
            let place = Place::of(&destination);
            if place == Place::Outside && !layout.outside.contains(&address) {
                continue;
            }
            let is_free = |(_, port): &OpenPort| !self.taken.contains(&SocketAddr::new(address, *port));
            for (protocol, port) in self.ports.at(layout, &place).into_iter().filter(is_free) {
                let flow = Flow {
                    source: lookup.source.clone(),
                    destination: destination.clone(),
                    protocol,
                    port,
                    through_service: false,
                };
                probes.push(probe(&own, &all, &flow));
            }
        }
        probes
    }
}

/// Returns the lookup of a name by one pod or node, once. `None`: no DNS server has an address of its family.
pub(super) fn lookup_of(
    layout: &Layout,
    zones: &Zones,
    servers: &NameServers,
    source: &Endpoint,
    name: &DomainName,
) -> Option<Lookup> {
    let server = servers.of_family(Family::of(source.address()))?;
    Some(Lookup { rounds: 1, ..Questions::of(layout, source, server).lookup(zones, name) })
}

/// Returns the cluster as the engine has it once all names of the zones were asked for.
pub(super) fn learned_by_all(layout: &Layout, zones: &Zones) -> Cluster {
    with_learned(layout, zones.to_ask().iter().map(|name| learned_of(layout, zones, name)))
}

/// Returns the cluster as the engine has it once these addresses were answered for a name, and nothing else.
pub(super) fn learned_from(layout: &Layout, name: &DomainName, addresses: &[IpAddr]) -> Cluster {
    with_learned(layout, [learned_name(&layout.cluster, name, addresses.iter().copied())])
}

fn with_learned(layout: &Layout, learned: impl IntoIterator<Item = LearnedName>) -> Cluster {
    let learned = learned.into_iter().map(|learned| (learned.name.clone(), learned)).collect();
    Cluster { learned, ..layout.cluster.clone() }
}

/// Returns what agents learn of a name if it is asked for.
fn learned_of(layout: &Layout, zones: &Zones, name: &DomainName) -> LearnedName {
    let families = layout.options.families.all().iter();
    let addresses = families.flat_map(|family| zones.resolve(name, *family).addresses);
    learned_name(&layout.cluster, name, addresses)
}

/// Returns the probe of a flow: as the engine decides with what the pod has learned, and also with what all others may have, if that
/// differs. Names may share an address, which is allowed once it is learned for any of them.
fn probe(own: &Cluster, all: &Cluster, flow: &Flow) -> Probe {
    let verdict = |cluster: &Cluster| -> Verdict { reference::decide(cluster, flow).verdict() };
    let (mine, others) = (verdict(own), verdict(all));
    let mut flows = vec![(flow.clone(), mine)];
    if others != mine {
        flows.push((flow.clone(), others));
    }
    let refuses = refuses(own, &flows);
    Probe {
        source: flow.source.clone(),
        target: Target::Direct(flow.destination.clone()),
        protocol: flow.protocol,
        port: flow.port,
        flows,
        refuses,
    }
}

/// Returns what agents learn of a name with these addresses: not those of the cluster, nor private ones.
fn learned_name(
    cluster: &Cluster,
    name: &DomainName,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> LearnedName {
    let learnable = learnable(cluster, Vec::new());
    let addresses = addresses.into_iter().filter(|address| learnable.check(*address).is_ok());
    LearnedName { name: name.clone(), addresses: addresses.collect() }
}

/// What a pod may ask a server.
struct Questions<'a> {
    source: &'a Endpoint,
    server: SocketAddr,
    udp: Expected,
    tcp: Expected,
}

impl<'a> Questions<'a> {
    fn of(layout: &Layout, source: &'a Endpoint, server: SocketAddr) -> Self {
        let by = |protocol| question(layout, source, server, protocol).expected();
        Self { source, server, udp: by(Protocol::Udp), tcp: by(Protocol::Tcp) }
    }

    fn lookup(&self, zones: &Zones, name: &DomainName) -> Lookup {
        let family = Family::of(self.source.address());
        let resolved = zones.resolve(name, family);
        let ways =
            if answers::is_truncated(zones, name, family) { [self.udp, self.tcp] } else { [self.udp; 2] };
        let is_closed = |way: &Expected| matches!(way, Expected::Denied | Expected::NoBackend);
        let expected = if resolved.silent || ways.iter().any(is_closed) {
            ExpectedLookup::NoAnswer
        } else if ways.contains(&Expected::Either) {
            ExpectedLookup::Either
        } else if resolved.missing {
            ExpectedLookup::NoSuchName
        } else if !resolved.addresses.is_empty() {
            ExpectedLookup::Addresses(resolved.addresses.iter().copied().collect())
        } else if resolved.is_loop() {
            ExpectedLookup::Loop
        } else {
            ExpectedLookup::NoAddress
        };
        let rounds = if resolved.rotate { resolved.addresses.len().max(1) } else { 1 };
        let forged = zones.zone_of(name).map_or_else(Vec::new, |zone| zone.forged_addresses.clone());
        Lookup {
            source: self.source.clone(),
            name: name.clone(),
            family,
            server: self.server,
            rounds,
            expected,
            forged,
        }
    }
}

/// Returns the probe that a question is.
fn question(layout: &Layout, source: &Endpoint, server: SocketAddr, protocol: Protocol) -> Probe {
    let services = frontends(layout);
    let frontend = Frontend { address: server.ip(), protocol, port: server.port() };
    let flow = |destination: Endpoint, port, through_service| {
        let flow = Flow { source: source.clone(), destination, protocol, port, through_service };
        let verdict = reference::decide(&layout.cluster, &flow).verdict();
        (flow, verdict)
    };
    let flows: Vec<(Flow, Verdict)> = match services.get(&frontend) {
        Some((_, backends)) => {
            backends.iter().map(|b| flow(layout.cluster.endpoint(b.address), b.port, true)).collect()
        }
        None => vec![flow(layout.cluster.endpoint(server.ip()), server.port(), false)],
    };
    let target = Target::Direct(layout.cluster.endpoint(server.ip()));
    let refuses = refuses(&layout.cluster, &flows);
    Probe { source: source.clone(), target, protocol, port: server.port(), flows, refuses }
}

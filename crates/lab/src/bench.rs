//! The cost of enforcement: new connections and round trips per second through real veth pairs.
//!
//! Every scenario has its own lab with the same two pods on two nodes. All labs exist at once and are measured in turn, so
//! that other load on the machine affects all alike.

#[cfg(feature = "records")]
mod flood;
mod measure;

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use palisade_nft::{EnforcerOptions, SourceCheck};
use palisade_policy::{
    Action, Change, Cluster, IpBlock, Labels, Name, Namespace, NamespaceMatch, ObjectKey, Peer, PeerEntry,
    Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, Protocol, Rule, Selector, Service, ServicePort,
    TargetPort, Tier,
};
use palisade_testkit::running_pod;
use serde::{Serialize, Serializer};

use crate::{
    agent,
    enforce::{Enforce, MakeEnforcer, NoEnforcement},
    error::LabError,
    lab::Lab,
    layout::{Layout, Place},
    options::{Families, LayoutOptions},
    sandbox::Sandbox,
};

#[cfg(feature = "records")]
pub use flood::{FloodOptions, Flooded, Latency, flood};

/// The duration of the measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// How often each scenario is measured.
    pub rounds: usize,
    /// The duration of one measurement of connections, and of one of round trips.
    pub slice: Duration,
}

impl Default for BenchOptions {
    fn default() -> Self {
        // Many short measurements: other load on the machine then affects all scenarios of a round alike.
        Self { rounds: 50, slice: Duration::from_millis(100) }
    }
}

/// The rules that a connection passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// No policy and no agent: a node as Kubernetes sets it up. It translates a service, so it tracks connections.
    NoRules,
    /// No rules at all: the kernel forwards and tracks no connection. Connection tracking is not a cost of policies, but a
    /// cluster without services would not pay it.
    Forwarding,
    /// This many policies select the server, and one of them accepts the client. The cluster has no others.
    OnThePod(usize),
    /// This many policies are in the cluster, and ten of them select the server.
    InTheCluster(usize),
    /// One policy selects the server. When it was applied, it revoked this many established connections of the client.
    #[serde(rename = "cut")]
    Revoked(usize),
    /// One policy selects the server, and source addresses are checked so. In the others they are as by default.
    SourceCheck(#[serde(serialize_with = "by_name")] SourceCheck),
    /// As [`Scenario::NoRules`], with the pods of each node on a bridge.
    Bridged,
    /// As [`Scenario::SourceCheck`], with the pods of each node on a bridge.
    BridgedSourceCheck(#[serde(serialize_with = "by_name")] SourceCheck),
}

impl Scenario {
    /// The scenario without rules that this one is compared with: its network is the same.
    #[must_use]
    pub fn baseline(self) -> Self {
        if self.is_bridged() { Self::Bridged } else { Self::NoRules }
    }

    fn is_bridged(self) -> bool {
        matches!(self, Self::Bridged | Self::BridgedSourceCheck(_))
    }

    /// Whether there is no agent.
    fn has_no_rules(self) -> bool {
        matches!(self, Self::NoRules | Self::Forwarding | Self::Bridged)
    }
}

/// As the agent's setting has it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn by_name<S: Serializer>(check: &SourceCheck, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match check {
        SourceCheck::Off => "off",
        SourceCheck::Enforce => "enforce",
        SourceCheck::Strict => "strict",
    })
}

fn name_of(check: SourceCheck) -> &'static str {
    match check {
        SourceCheck::Off => "no source check",
        SourceCheck::Enforce => "source check",
        SourceCheck::Strict => "strict source check",
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRules => f.write_str("no rules"),
            Self::Forwarding => f.write_str("no rules, no connection tracking"),
            Self::OnThePod(1) => f.write_str("1 policy"),
            Self::OnThePod(n) => write!(f, "{n} policies on the pod"),
            Self::InTheCluster(n) => write!(f, "{n} policies in the cluster"),
            Self::Revoked(n) => write!(f, "1 policy, {n} connections revoked"),
            Self::SourceCheck(check) => write!(f, "1 policy, {}", name_of(*check)),
            Self::Bridged => f.write_str("bridge, no rules"),
            Self::BridgedSourceCheck(check) => write!(f, "bridge, 1 policy, {}", name_of(*check)),
        }
    }
}

/// The measured scenarios. Each is compared with its [`Scenario::baseline`].
pub const SCENARIOS: [Scenario; 13] = [
    Scenario::NoRules,
    Scenario::Forwarding,
    Scenario::OnThePod(1),
    Scenario::OnThePod(1_000),
    Scenario::InTheCluster(10),
    Scenario::InTheCluster(10_000),
    Scenario::Revoked(10_000),
    Scenario::SourceCheck(SourceCheck::Off),
    Scenario::SourceCheck(SourceCheck::Strict),
    Scenario::Bridged,
    Scenario::BridgedSourceCheck(SourceCheck::Off),
    Scenario::BridgedSourceCheck(SourceCheck::Enforce),
    Scenario::BridgedSourceCheck(SourceCheck::Strict),
];

/// A rate, absolute and relative to the scenario without rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// The median of all rounds, per second.
    pub per_second: f64,
    /// The median of all rounds of the ratio to [`Scenario::baseline`] in the same round.
    pub ratio: f64,
}

/// The result of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The scenario.
    pub scenario: Scenario,
    /// New TCP connections.
    pub connections: Rate,
    /// Requests of one byte with replies of one byte, sequentially on one TCP connection.
    pub round_trips: Rate,
}

/// Measures all scenarios in turn. `progress` receives the number of finished measurements and of all measurements.
///
/// # Errors
/// Fails if a lab can't be built, or if an allowed connection can't be made.
pub fn run(
    sandbox: &Sandbox,
    options: &BenchOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Measured>, LabError> {
    let labs: Vec<Lab> = SCENARIOS.iter().map(|s| build(sandbox, *s)).collect::<Result<_, _>>()?;
    let pairs: Vec<measure::ClientAndServer> =
        labs.iter().map(client_and_server).collect::<Result<_, _>>()?;
    let total = options.rounds * pairs.len();
    let mut connections = vec![Vec::new(); pairs.len()];
    let mut round_trips = vec![Vec::new(); pairs.len()];
    for round in 0..options.rounds {
        for turn in 0..pairs.len() {
            // Each round starts with another scenario, so that none always follows the same one.
            let i = (turn + round) % pairs.len();
            let failed = |source| LabError::Namespace { place: SCENARIOS[i].to_string(), source };
            connections[i].push(pairs[i].connections_per_second(options.slice).map_err(failed)?);
            round_trips[i].push(pairs[i].round_trips_per_second(options.slice).map_err(failed)?);
            progress(round * pairs.len() + turn + 1, total);
        }
    }
    let measured = SCENARIOS.iter().enumerate().map(|(i, scenario)| {
        let base = SCENARIOS.iter().position(|other| *other == scenario.baseline()).unwrap_or_default();
        Measured {
            scenario: *scenario,
            connections: rate(&connections[i], &connections[base]),
            round_trips: rate(&round_trips[i], &round_trips[base]),
        }
    });
    Ok(measured.collect())
}

fn rate(own: &[f64], base: &[f64]) -> Rate {
    let ratios = own.iter().zip(base).map(|(a, b)| a / b).collect();
    Rate { per_second: median(own.to_vec()), ratio: median(ratios) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn build(sandbox: &Sandbox, scenario: Scenario) -> Result<Lab, LabError> {
    let bridged = scenario.is_bridged();
    let options = LayoutOptions { families: Families::V4, bridged, ..LayoutOptions::default() };
    let layout = Layout::of(&cluster(scenario), &options)?;
    let make: MakeEnforcer = match scenario {
        _ if scenario.has_no_rules() => Arc::new(|_| Box::new(NoEnforcement) as Box<dyn Enforce>),
        Scenario::SourceCheck(source_check) | Scenario::BridgedSourceCheck(source_check) => {
            agent::palisade_with(EnforcerOptions { source_check, ..EnforcerOptions::default() })
        }
        _ => agent::palisade(),
    };
    let mut lab = Lab::build(sandbox, layout, make)?;
    if let Scenario::Revoked(connections) = scenario {
        open_connections(&lab, connections)?;
        lab.update(&cluster(Scenario::OnThePod(1)))?;
    }
    Ok(lab)
}

/// Opens this many connections from the client to the server: datagrams from one port to many, which have no answer.
fn open_connections(lab: &Lab, connections: usize) -> Result<(), LabError> {
    let failed = |source| LabError::Namespace { place: "the benchmark".to_owned(), source };
    let address = server_address(lab);
    let place = Place::Pod(ObjectKey::new(NAMESPACE, CLIENT));
    let send = || -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for port in (1..=u16::MAX).rev().take(connections) {
            socket.send_to(b"x", (address, port))?;
        }
        Ok(())
    };
    lab.run_in(&place, send)?.map_err(failed)
}

fn server_address(lab: &Lab) -> IpAddr {
    lab.layout().pods[&ObjectKey::new(NAMESPACE, SERVER)].addresses[0]
}

fn client_and_server(lab: &Lab) -> Result<measure::ClientAndServer, LabError> {
    let place = |name| Place::Pod(ObjectKey::new(NAMESPACE, name));
    let failed = |source| LabError::Namespace { place: "the benchmark".to_owned(), source };
    let namespace = |name| {
        let place = place(name);
        lab.namespace(&place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))
    };
    measure::ClientAndServer::open(namespace(CLIENT)?, namespace(SERVER)?, server_address(lab), PORT)
        .map_err(failed)
}

const NAMESPACE: &str = "bench";
const CLIENT: &str = "client";
const SERVER: &str = "server";
/// The server's port: the second of three ports that the policies allow. The servers of the lab listen on both ends of every
/// range, but not in the middle.
const PORT: u16 = 12_345;
/// The distance between the first ports of two policies. With it no end of one range is in the middle of another.
const STEP: usize = 4;

fn cluster(scenario: Scenario) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply(Change::SetNamespace(Namespace::new(NAMESPACE, &Labels::default())));
    for (name, node) in [(CLIENT, "n1"), (SERVER, "n2")] {
        cluster.apply(Change::SetPod(pod(name, node)));
    }
    if scenario != Scenario::Forwarding {
        cluster.apply(Change::SetService(service()));
    }
    let (on_the_pod, elsewhere) = match scenario {
        Scenario::NoRules | Scenario::Forwarding | Scenario::Bridged => (0, 0),
        Scenario::SourceCheck(_) | Scenario::BridgedSourceCheck(_) => (1, 0),
        // The policy is applied later, to established connections.
        Scenario::Revoked(_) => (0, 0),
        Scenario::OnThePod(n) => (n, 0),
        Scenario::InTheCluster(n) => (n.min(10), n.saturating_sub(10)),
    };
    // Policies elsewhere select pods of the same two nodes.
    for i in 0..elsewhere.min(OTHERS) {
        cluster.apply(Change::SetPod(pod(&format!("other-{i}"), if i % 2 == 0 { "n1" } else { "n2" })));
    }
    let last = on_the_pod.saturating_sub(1);
    for i in 0..on_the_pod {
        // The policy that accepts the client is the last, which is the worst case for a linear search.
        let peer = if i == last { pods(CLIENT) } else { some_block(i) };
        let first = usize::from(PORT) - 1 - STEP * ((last - i) % 1000);
        let name = format!("server-{i:05}");
        cluster.apply(Change::SetPolicy(policy(&name, SERVER, peer, first as u16)));
    }
    for i in 0..elsewhere {
        let subject = format!("other-{}", i % OTHERS);
        cluster.apply(Change::SetPolicy(policy(&format!("other-{i:05}"), &subject, some_block(i), 80)));
    }
    cluster
}

/// The number of pods that the policies elsewhere select.
const OTHERS: usize = 20;

fn pod(name: &str, node: &str) -> Pod {
    Pod { node: Some(node.into()), ..running_pod(NAMESPACE, name) }
}

/// Returns the service `kubernetes`, which every cluster has.
fn service() -> Service {
    let target = TargetPort::Number(443);
    let port = ServicePort { name: None, protocol: Protocol::Tcp, port: 443, target, node_port: None };
    Service {
        selector: Some(Selector::of_labels([("app", SERVER)])),
        ports: vec![port],
        ..Service::new(ObjectKey::new(NAMESPACE, "kubernetes"))
    }
}

fn pods(app: &str) -> Peer {
    let namespaces = NamespaceMatch::Named(NAMESPACE.into());
    Peer::Pods(PodMatch { namespaces, pods: Selector::of_labels([("app", app)]) })
}

/// Returns the `i`th of many different CIDRs, none of which contains a pod.
fn some_block(i: usize) -> Peer {
    let [_, _, high, low] = (i as u32).to_be_bytes();
    let cidr = ipnet::Ipv4Net::new_assert([100, 64 + (high & 63), low, 0].into(), 24);
    Peer::Block(IpBlock { cidr: IpNet::V4(cidr), except: Arc::new([]) })
}

fn policy(name: &str, subject: &str, peer: Peer, first: u16) -> Arc<Policy> {
    let namespace: Name = NAMESPACE.into();
    let port = PortMatch::Numbers { protocol: Protocol::Tcp, first, last: first + 2 };
    let rule = Rule {
        name: None,
        action: Action::Accept,
        peers: Some(vec![PeerEntry { peer, origin: None }]),
        ports: Some(vec![PortEntry { port, origin: None }]),
        origin: None,
    };
    Arc::new(Policy {
        key: PolicyKey::network_policy(namespace.clone(), name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named(namespace),
            pods: Selector::of_labels([("app", subject)]),
        },
        ingress: Some(vec![rule]),
        egress: None,
        origin: None,
    })
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Endpoint, Flow, reference};

    use super::*;

    #[test]
    fn every_scenario_accepts_the_client_and_has_its_policies() {
        for scenario in SCENARIOS {
            let c = cluster(scenario);
            let expected = match scenario {
                _ if scenario.has_no_rules() => 0,
                Scenario::Revoked(_) => 0,
                Scenario::SourceCheck(_) | Scenario::BridgedSourceCheck(_) => 1,
                Scenario::OnThePod(n) | Scenario::InTheCluster(n) => n,
                _ => unreachable!("it has no rules"),
            };
            assert!(SCENARIOS.contains(&scenario.baseline()), "{scenario}");
            assert_eq!(c.policies.len(), expected);
            let layout =
                Layout::of(&c, &LayoutOptions { families: Families::V4, ..LayoutOptions::default() })
                    .unwrap();
            let endpoint = |name: &str| {
                let key = ObjectKey::new(NAMESPACE, name);
                Endpoint::Pod { address: layout.pods[&key].addresses[0], key }
            };
            let flow = |port| Flow {
                source: endpoint(CLIENT),
                destination: endpoint(SERVER),
                protocol: Protocol::Tcp,
                port,
                through_service: false,
            };
            assert!(reference::decide(&layout.cluster, &flow(PORT)).verdict().is_allow(), "{scenario}");
            let denied = !reference::decide(&layout.cluster, &flow(1)).verdict().is_allow();
            assert_eq!(denied, expected > 0, "{scenario}");
        }
    }

    #[test]
    fn rates_and_ratios_are_medians() {
        assert_eq!(rate(&[2.0, 8.0, 3.0], &[2.0, 4.0, 2.0]), Rate { per_second: 3.0, ratio: 1.5 });
    }
}

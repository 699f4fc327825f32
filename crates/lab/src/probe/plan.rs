//! The list of probes, and the expected outcome of each.

use std::net::IpAddr;

use palisade_policy::{
    Cluster, Decision, Deny, Endpoint, Family, Flow, ObjectKey, Protocol, Verdict, reference,
};
use serde::Serialize;

use super::{options::ProbeOptions, outcome::Outcome, sample::Sample};
use crate::{
    layout::{Layout, Place},
    ports::Ports,
    services::{Backend, Frontend, frontends},
};

/// The destination of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An endpoint at its own address.
    Direct(Endpoint),
    /// A service.
    Service {
        /// The service.
        key: ObjectKey,
        /// The address of the service.
        address: IpAddr,
    },
}

impl Target {
    /// Returns the destination address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Direct(endpoint) => endpoint.address(),
            Self::Service { address, .. } => *address,
        }
    }
}

/// One connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The client.
    pub source: Endpoint,
    /// The destination.
    pub target: Target,
    /// TCP, UDP, SCTP, or ICMP echo.
    pub protocol: Protocol,
    /// The destination port; 0 for ICMP.
    pub port: u16,
    /// The flows that the connection may become after service translation, with their verdicts: one, or one for each backend
    /// of a service.
    pub flows: Vec<(Flow, Verdict)>,
    /// Whether the sender may be answered that a flow is denied: see [`refuses`].
    pub refuses: bool,
}

/// The expected outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The connection is made.
    Allowed,
    /// The connection is dropped silently, or refused if [`Probe::refuses`].
    Denied,
    /// The service has allowed and denied backends: an allowed one answers, or the connection is dropped.
    Either,
    /// The service has no backends: the connection is refused or dropped.
    NoBackend,
}

impl Probe {
    /// Returns the expected outcome.
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

    /// Returns whether the client is one of the backends of the service.
    #[must_use]
    pub fn is_hairpin(&self) -> bool {
        self.flows.iter().any(|(flow, _)| flow.through_service && flow.source == flow.destination)
    }

    /// Returns whether `outcome` is an expected one.
    #[must_use]
    pub fn agrees(&self, outcome: &Outcome) -> bool {
        match (self.expected(), outcome) {
            (Expected::Allowed | Expected::Either, Outcome::Connected { by, .. }) => {
                self.may_answer(by.as_ref())
            }
            (Expected::Denied | Expected::Either | Expected::NoBackend, Outcome::TimedOut)
            | (Expected::NoBackend, Outcome::Refused) => true,
            // Beyond a limit they are dropped.
            (Expected::Denied | Expected::Either, outcome) => self.refuses && outcome.is_refusal(),
            _ => false,
        }
    }

    /// Returns whether an allowed destination answered. ICMP echo replies don't name their place.
    fn may_answer(&self, by: Option<&Place>) -> bool {
        match by {
            None => !self.protocol.has_ports(),
            Some(by) => self.flows.iter().any(|(f, v)| v.is_allow() && Place::of(&f.destination) == *by),
        }
    }
}

/// Returns whether one of the flows is denied by the policies of a pod whose namespace refuses what it denies: the source's, or if those allow
/// it, the destination's.
#[must_use]
pub fn refuses(cluster: &Cluster, flows: &[(Flow, Verdict)]) -> bool {
    let rejects = |end: &Endpoint| match end {
        Endpoint::Pod { key, .. } => cluster.deny_of(&key.namespace) == Deny::Reject,
        _ => false,
    };
    let denied = flows.iter().filter(|(_, verdict)| !verdict.is_allow()).map(|(flow, _)| flow);
    let mut of_refusing = denied.filter(|flow| rejects(&flow.source) || rejects(&flow.destination));
    of_refusing.any(|flow| match reference::decide(cluster, flow).egress.verdict {
        Verdict::Allow => rejects(&flow.destination),
        Verdict::Deny => rejects(&flow.source),
    })
}

/// Something that is not probed, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotProbed {
    /// What is not probed.
    pub what: String,
    /// The reason.
    pub why: String,
}

/// The probes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The probes, grouped by source.
    pub probes: Vec<Probe>,
    /// What is not probed.
    pub not_probed: Vec<NotProbed>,
}

/// A probe without its expected outcome.
struct Candidate<'a> {
    source: &'a Endpoint,
    target: CandidateTarget<'a>,
    protocol: Protocol,
    port: u16,
}

#[derive(Clone, Copy)]
enum CandidateTarget<'a> {
    Direct(&'a Endpoint),
    Service(&'a ObjectKey, IpAddr, &'a [Backend<'a>]),
}

impl Plan {
    /// Computes the probes of a layout.
    ///
    /// They are every ordered pair of endpoints of which at least one is a pod, on every open port of the destination and by
    /// ICMP echo, and every service port from every pod and node. The reference decides each:
    /// `O(endpoints² · ports · policies)`, or `O(sample · policies)` with a limit.
    #[must_use]
    pub fn of(layout: &Layout, options: &ProbeOptions) -> Self {
        let ports = Ports::of(layout);
        let endpoints = endpoints(layout);
        let open: Vec<Vec<(Protocol, u16)>> =
            endpoints.iter().map(|e| open_at(&ports, layout, e, options.icmp)).collect();
        let services = frontends(layout);
        let mut not_probed: Vec<NotProbed> = ports
            .note
            .iter()
            .chain(&layout.notes)
            .map(|note| NotProbed { what: note.clone(), why: "limit of the lab".to_owned() })
            .collect();
        if !options.icmp {
            not_probed.push(NotProbed { what: "ICMP echo".to_owned(), why: "not requested".to_owned() });
        }
        let (mut hairpins, mut others) = (0, 0);
        each_candidate(&endpoints, &open, &services, |candidate| {
            *(if candidate.is_hairpin() { &mut hairpins } else { &mut others }) += 1;
        });
        let total = hairpins + others;
        let sample_size = options.max_probes.unwrap_or(total).min(total);
        if sample_size < total {
            not_probed.push(NotProbed {
                what: format!("{} of {total} connections", total - sample_size),
                why: format!("a sample of {sample_size} was requested, seed {}", options.seed),
            });
        }
        let mut of_hairpins = Sample::of(sample_size, hairpins, options.seed);
        let mut of_others = Sample::of(sample_size - of_hairpins.size, others, options.seed);
        let mut probes = Vec::with_capacity(sample_size);
        each_candidate(&endpoints, &open, &services, |candidate| {
            let choice = if candidate.is_hairpin() { &mut of_hairpins } else { &mut of_others };
            if choice.next() {
                probes.push(candidate.decide(layout));
            }
        });
        Self { probes, not_probed }
    }

    /// Returns the number of probes without a limit.
    #[must_use]
    pub fn size(layout: &Layout, options: &ProbeOptions) -> usize {
        let ports = Ports::of(layout);
        let endpoints = endpoints(layout);
        let open: Vec<_> = endpoints.iter().map(|e| open_at(&ports, layout, e, options.icmp)).collect();
        let mut total = 0;
        each_candidate(&endpoints, &open, &frontends(layout), |_| total += 1);
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
    ports.at(layout, &Place::of(endpoint)).into_iter().chain(icmp.then_some((echo, 0))).collect()
}

type Services<'a> = std::collections::BTreeMap<Frontend, (&'a palisade_policy::Service, Vec<Backend<'a>>)>;

fn each_candidate<'a>(
    endpoints: &'a [Endpoint],
    open: &[Vec<(Protocol, u16)>],
    services: &'a Services<'_>,
    mut f: impl FnMut(Candidate<'a>),
) {
    let is_pod = |e: &Endpoint| matches!(e, Endpoint::Pod { .. });
    for source in endpoints {
        let family = Family::of(source.address());
        for (destination, ports) in endpoints.iter().zip(open) {
            if Family::of(destination.address()) == family && (is_pod(source) || is_pod(destination)) {
                // An address of a node is a service's on its node ports.
                let address = destination.address();
                let is_own = |(protocol, port): &&(Protocol, u16)| {
                    !services.contains_key(&Frontend { address, protocol: *protocol, port: *port })
                };
                for &(protocol, port) in ports.iter().filter(is_own) {
                    f(Candidate { source, target: CandidateTarget::Direct(destination), protocol, port });
                }
            }
        }
        if matches!(source, Endpoint::External(_)) {
            continue; // Cluster IPs exist on nodes only.
        }
        for (frontend, (service, backends)) in services {
            if Family::of(frontend.address) == family {
                let target = CandidateTarget::Service(&service.key, frontend.address, backends);
                // A backend is chosen at random for each connection. Three connections meet most backends.
                for _ in 0..backends.len().clamp(1, 3) {
                    f(Candidate { source, target, protocol: frontend.protocol, port: frontend.port });
                }
            }
        }
    }
}

impl Candidate<'_> {
    fn is_hairpin(&self) -> bool {
        match (self.source, self.target) {
            (Endpoint::Pod { key, .. }, CandidateTarget::Service(_, _, backends)) => {
                backends.iter().any(|b| b.pod == key)
            }
            _ => false,
        }
    }

    fn decide(self, layout: &Layout) -> Probe {
        let Self { source, target, protocol, port } = self;
        let decide = |destination: Endpoint, port, through_service| {
            let flow = Flow { source: source.clone(), destination, protocol, port, through_service };
            let verdict = reference::decide(&layout.cluster, &flow).verdict();
            (flow, verdict)
        };
        let (target, flows) = match target {
            CandidateTarget::Direct(e) => (Target::Direct(e.clone()), vec![decide(e.clone(), port, false)]),
            CandidateTarget::Service(key, address, backends) => {
                let flows =
                    backends.iter().map(|b| decide(backend_endpoint(layout, b), b.port, true)).collect();
                (Target::Service { key: key.clone(), address }, flows)
            }
        };
        let refuses = refuses(&layout.cluster, &flows);
        Probe { source: source.clone(), target, protocol, port, flows, refuses }
    }
}

fn backend_endpoint(layout: &Layout, backend: &Backend<'_>) -> Endpoint {
    let pod = &layout.cluster.pods[backend.pod];
    match (&pod.node, pod.host_network) {
        (Some(node), true) => Endpoint::Node { name: node.clone(), address: backend.address },
        _ => Endpoint::Pod { key: pod.key.clone(), address: backend.address },
    }
}

/// Returns the decisions about the probe's flows, for reports about mismatches.
#[must_use]
pub(super) fn decisions(layout: &Layout, probe: &Probe) -> Vec<Decision> {
    probe.flows.iter().map(|(flow, _)| reference::decide(&layout.cluster, flow)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use palisade_policy::{
        Action, Change, Cluster, ContainerPort, Labels, Namespace, NamespaceMatch, Node, Peer, PeerEntry,
        Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, Rule, Selector, Service, ServicePort,
        TargetPort, Tier,
    };

    use palisade_testkit::running_pod;

    use super::*;
    use crate::options::{Families, LayoutOptions};

    /// Returns a cluster with two pods on two nodes; the first is behind a service.
    fn cluster() -> Cluster {
        let mut c = Cluster::default();
        c.apply(Change::SetNamespace(Namespace::new("x", &Labels::default())));
        for (at, name) in ["n1", "n2"].into_iter().enumerate() {
            let address = IpAddr::from([192, 168, 0, at as u8 + 1]);
            c.apply(Change::SetNode(Node {
                name: name.into(),
                labels: Labels::from_iter([("role", name)]),
                addresses: vec![address],
                pod_cidrs: Vec::new(),
            }));
        }
        for (name, number) in [("a", 80), ("b", 81)] {
            c.apply(Change::SetPod(Pod {
                ports: [ContainerPort {
                    name: Some("web".into()),
                    protocol: Protocol::Tcp,
                    port: number,
                    host_port: None,
                }]
                .into(),
                ..running_pod("x", name)
            }));
        }
        c.apply(Change::SetService(Service {
            selector: Some(Selector::of_labels([("app", "a")])),
            ports: vec![ServicePort {
                name: None,
                protocol: Protocol::Tcp,
                port: 8000,
                target: TargetPort::Name("web".into()),
                node_port: None,
            }],
            ..Service::new(ObjectKey::new("x", "s"))
        }));
        c
    }

    /// Returns an Admin policy that selects every pod and has one deny rule.
    fn denying(direction: palisade_policy::Direction, peer: Peer, ports: Option<PortMatch>) -> Change {
        let rule = Rule {
            name: None,
            action: Action::Deny,
            peers: Some(vec![PeerEntry { peer, origin: None }]),
            ports: ports.map(|port| vec![PortEntry { port, origin: None }]),
            origin: None,
        };
        let ingress = direction == palisade_policy::Direction::Ingress;
        let rules = Some(vec![rule]);
        Change::SetPolicy(Arc::new(Policy {
            key: PolicyKey { kind: "AdminNetworkPolicy".into(), namespace: "".into(), name: "p".into() },
            tier: Tier::Admin,
            priority: 1,
            mode: None,
            subject: all_pods(),
            ingress: if ingress { rules.clone() } else { None },
            egress: if ingress { None } else { rules },
            origin: None,
        }))
    }

    fn all_pods() -> PodMatch {
        PodMatch {
            namespaces: NamespaceMatch::Selected(Selector::everything()),
            pods: Selector::everything(),
        }
    }

    fn plan(cluster: &Cluster, max_probes: Option<usize>) -> Plan {
        let options = LayoutOptions { families: Families::V4, ..LayoutOptions::default() };
        let layout = Layout::of(cluster, &options).unwrap();
        Plan::of(&layout, &ProbeOptions { max_probes, ..ProbeOptions::default() })
    }

    #[test]
    fn only_the_first_end_that_denies_may_refuse() {
        use palisade_policy::Direction::{Egress, Ingress};
        let everyone = || Peer::Pods(all_pods());
        for (direction, refusing, expected) in
            [(Egress, "x", true), (Egress, "y", false), (Ingress, "x", false), (Ingress, "y", true)]
        {
            let mut c = cluster();
            for name in ["x", "y"] {
                let deny = (name == refusing).then_some(Deny::Reject);
                c.apply(Change::SetNamespace(Namespace { deny, ..Namespace::new(name, &Labels::default()) }));
            }
            c.apply(Change::SetPod(running_pod("y", "c")));
            let from_x_to_y = |c: &Cluster| {
                let probes = plan(c, None).probes.into_iter();
                let is_it = |end: &Endpoint, name| matches!(end, Endpoint::Pod { key, .. } if &*key.namespace == name);
                let mut found = probes.filter(|p| {
                    is_it(&p.source, "x") && matches!(&p.target, Target::Direct(end) if is_it(end, "y"))
                });
                found.next().unwrap()
            };
            assert!(!from_x_to_y(&c).refuses, "what is allowed is not refused");
            c.apply(denying(direction, everyone(), None));
            let probe = from_x_to_y(&c);
            assert_eq!(probe.refuses, expected, "{direction}, {refusing}");
            assert_eq!(probe.agrees(&Outcome::Refused), expected);
            assert!(probe.agrees(&Outcome::TimedOut) && !probe.agrees(&Outcome::Failed("x".to_owned())));
        }
    }

    #[test]
    fn a_pod_reaches_itself_through_its_service_unless_a_cluster_wide_rule_denies() {
        use palisade_policy::Direction::Ingress;
        let mut c = cluster();
        let expected = |c: &Cluster, max| {
            let plan = plan(c, max);
            let hairpins: Vec<Expected> =
                plan.probes.iter().filter(|p| p.is_hairpin()).map(Probe::expected).collect();
            hairpins
        };
        assert_eq!(expected(&c, None), [Expected::Allowed]);
        c.apply(denying(Ingress, Peer::Pods(all_pods()), None));
        assert_eq!(expected(&c, None), [Expected::Denied]);
        assert_eq!(expected(&c, Some(1)), [Expected::Denied], "it is chosen first");
        assert_eq!(expected(&c, Some(0)), []);
        assert_eq!(plan(&c, Some(7)).probes.len(), 7);
    }

    #[test]
    fn ports_and_addresses_in_cluster_wide_rules_are_probed_on_nodes_pods_and_outside() {
        use palisade_policy::Direction::Egress;
        let probed = |change: Change| -> std::collections::BTreeSet<String> {
            let mut c = cluster();
            c.apply(change);
            let direct = |p: &Probe| matches!(p.target, Target::Direct(_)) && p.protocol == Protocol::Tcp;
            let probes = plan(&c, None).probes;
            probes
                .iter()
                .filter(|p| direct(p))
                .map(|p| format!("{}:{} {:?}", p.target.address(), p.port, p.expected()))
                .collect()
        };
        let kubelet = PortMatch::Numbers { protocol: Protocol::Tcp, first: 10250, last: 10250 };
        let nodes =
            probed(denying(Egress, Peer::Nodes(Selector::of_labels([("role", "n2")])), Some(kubelet)));
        for expected in
            ["192.168.0.2:10250 Denied", "192.168.0.1:10250 Allowed", "198.51.100.7:10250 Allowed"]
        {
            assert!(nodes.contains(expected), "{expected}: {nodes:?}");
        }
        // For a name without protocol, the numbers of all pods are open on both pods, on the nodes and outside.
        let name = PortMatch::Named { protocol: None, name: "web".into() };
        let block = palisade_policy::IpBlock { cidr: "203.0.113.0/24".parse().unwrap(), except: [].into() };
        let named = probed(denying(Egress, Peer::Pods(all_pods()), Some(name)));
        for expected in [
            "10.244.0.1:80 Denied",
            "10.244.0.1:81 Allowed",
            "10.244.1.1:81 Denied",
            "10.244.1.1:80 Allowed",
            "192.168.0.1:80 Allowed",
        ] {
            assert!(named.contains(expected), "{expected}: {named:?}");
        }
        let networks = probed(denying(Egress, Peer::Block(block), None));
        assert!(
            networks.iter().any(|p| p.starts_with("203.0.113.") && p.ends_with("Denied")),
            "{networks:?}"
        );
        assert!(networks.iter().any(|p| p.starts_with("203.0.112.255:") && p.ends_with("Allowed")));
    }
}

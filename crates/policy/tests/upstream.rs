//! The cases of the Kubernetes end-to-end suite for NetworkPolicy (SEMANTICS E.1), by their numbers there: namespaces
//! x, y, z with pods a, b, c, each listening on ports 80 and 81 of TCP, UDP and SCTP. After every change every pair of
//! pods is decided by the reference, by the plans and by the second opinion, in both families.

mod support;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use palisade_policy::{
    Action, Change, Cluster, Compiler, ContainerPort, Direction, Endpoint, Family, Flow, IpBlock, Labels,
    Name, Namespace, NamespaceMatch, NodePlan, ObjectKey, Peer, PeerEntry, Phase, Pod, PodMatch, Policy,
    PolicyKey, PortEntry, PortMatch, Protocol, Requirement, Rule, Selector, Test, Tier,
};
use support::{plans, unanimous};

use Direction::{Egress, Ingress};
use Protocol::{Sctp, Tcp, Udp};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 2] = ["n1", "n2"];

/// The suite's cluster, with a compiler for each node that gets all changes.
struct Suite {
    cluster: Cluster,
    compilers: Vec<Compiler>,
}

/// A pod, a namespace (`x/`) or everything (``), in the suite's notation.
fn covers(pattern: &str, pod: &ObjectKey) -> bool {
    pattern.is_empty() || pattern == format!("{}/", pod.namespace) || pattern == pod.to_string()
}

fn address(namespace: usize, pod: usize, family: Family) -> IpAddr {
    let (namespace, pod) = (namespace as u8 + 1, pod as u8 + 1);
    match family {
        Family::V4 => IpAddr::from([10, 244, namespace, pod]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, namespace.into(), pod.into()]),
    }
}

impl Suite {
    fn new() -> Self {
        let mut cluster = Cluster::default();
        let serve = |port, protocol: Protocol| ContainerPort {
            name: Some(format!("serve-{port}-{}", protocol.to_string().to_lowercase()).into()),
            protocol,
            port,
        };
        let ports: Arc<[ContainerPort]> =
            [80, 81].into_iter().flat_map(|port| Protocol::WITH_PORTS.map(|p| serve(port, p))).collect();
        for (n, namespace) in NAMESPACES.into_iter().enumerate() {
            let labels = Labels::from_iter([("ns", namespace)]);
            cluster.apply(Change::SetNamespace(Namespace::new(namespace, &labels)));
            for (p, pod) in PODS.into_iter().enumerate() {
                cluster.apply(Change::SetPod(Pod {
                    key: ObjectKey::new(namespace, pod),
                    labels: Labels::from_iter([("pod", pod)]),
                    addresses: Family::BOTH.map(|family| address(n, p, family)).to_vec(),
                    node: Some(NODES[(n + p) % 2].into()),
                    host_network: false,
                    phase: Phase::Running,
                    ports: ports.clone(),
                    created: 0,
                    workload: None,
                }));
            }
        }
        let compilers = NODES.map(|node| Compiler::from_cluster(node.into(), &cluster)).to_vec();
        Self { cluster, compilers }
    }

    fn with(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut suite = Self::new();
        policies.into_iter().for_each(|p| suite.set(p));
        suite
    }

    fn apply(&mut self, change: Change) {
        self.compilers.iter_mut().for_each(|c| drop(c.apply(change.clone())));
        self.cluster.apply(change);
    }

    fn set(&mut self, policy: Policy) {
        self.apply(Change::SetPolicy(policy.into()));
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        self.apply(Change::RemovePolicy(PolicyKey::network_policy(namespace, name)));
    }

    fn label_pod(&mut self, namespace: &str, pod: &str, labels: &[(&str, &str)]) {
        let mut changed = self.cluster.pods[&ObjectKey::new(namespace, pod)].clone();
        changed.labels = labels.iter().copied().collect();
        self.apply(Change::SetPod(changed));
    }

    fn label_namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels: Labels = labels.iter().copied().collect();
        self.apply(Change::SetNamespace(Namespace::new(name, &labels)));
    }

    /// Decides every pair. `expected` overrides "everything is allowed" by pair patterns, of which the last match
    /// counts. A pod can always reach itself.
    fn expect(&self, protocol: Protocol, port: u16, expected: &[(&str, &str, bool)]) {
        let plans = plans(&self.cluster);
        for compiler in &self.compilers {
            let scratch = plans.get(compiler.node()).cloned().unwrap_or_else(NodePlan::default);
            assert!(*compiler.plan() == scratch, "{}: the incremental plan differs", compiler.node());
        }
        for source in self.cluster.pods.values() {
            for destination in self.cluster.pods.values() {
                let last = expected
                    .iter()
                    .rev()
                    .find(|(s, d, _)| covers(s, &source.key) && covers(d, &destination.key));
                let wanted = source.key == destination.key || last.is_none_or(|(_, _, pass)| *pass);
                for family in Family::BOTH {
                    let end = |p: &Pod| Endpoint::Pod {
                        key: p.key.clone(),
                        address: p.address(family).expect("every pod has both families"),
                    };
                    // The suite probes the service of the destination.
                    let (source, destination) = (end(source), end(destination));
                    let flow = Flow { source, destination, protocol, port, through_service: true };
                    let (egress, ingress) =
                        unanimous(&self.cluster, &plans, &flow).unwrap_or_else(|wrong| panic!("{wrong}"));
                    assert_eq!(
                        egress && ingress,
                        wanted,
                        "{} -> {} {port}/{protocol}",
                        flow.source,
                        flow.destination
                    );
                }
            }
        }
    }
}

/// Builds a policy of namespace x for the pods with these labels.
fn policy(name: &str, pods: &[(&str, &str)]) -> Policy {
    policy_in("x", name, pods)
}

fn policy_in(namespace: &str, name: &str, pods: &[(&str, &str)]) -> Policy {
    Policy {
        key: PolicyKey::network_policy(namespace, name),
        tier: Tier::Developer,
        priority: 0,
        subject: PodMatch {
            namespaces: NamespaceMatch::Named(namespace.into()),
            pods: Selector::of_labels(pods.iter().copied()),
        },
        ingress: None,
        egress: None,
        origin: None,
    }
}

trait Rules {
    fn ingress(self, rules: impl IntoIterator<Item = Rule>) -> Self;
    fn egress(self, rules: impl IntoIterator<Item = Rule>) -> Self;
}

impl Rules for Policy {
    fn ingress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.ingress = Some(rules.into_iter().collect());
        self
    }

    fn egress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.egress = Some(rules.into_iter().collect());
        self
    }
}

/// A rule. No peers or no ports means any, as in the API.
fn rule<const P: usize, const Q: usize>(peers: [Peer; P], ports: [PortMatch; Q]) -> Rule {
    let peers = peers.map(|peer| PeerEntry { peer, origin: None });
    let ports = ports.map(|port| PortEntry { port, origin: None });
    Rule {
        name: None,
        action: Action::Accept,
        peers: (P > 0).then(|| peers.into()),
        ports: (Q > 0).then(|| ports.into()),
        origin: None,
    }
}

fn own(pods: Selector) -> Peer {
    Peer::Pods(PodMatch { namespaces: NamespaceMatch::Named("x".into()), pods })
}

fn both(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods(PodMatch { namespaces: NamespaceMatch::Selected(namespaces), pods })
}

fn all_of(namespaces: Selector) -> Peer {
    both(namespaces, Selector::everything())
}

fn block(cidr: IpNet, except: &[IpNet]) -> Peer {
    Peer::Block(IpBlock { cidr, except: except.into() })
}

fn one(key: &str, value: &str) -> Selector {
    Selector::of_labels([(key, value)])
}

fn values(values: &[&str]) -> std::collections::BTreeSet<Name> {
    values.iter().map(|v| Name::from(*v)).collect()
}

fn any_of(key: &str, list: &[&str]) -> Selector {
    Selector::new([Requirement { key: key.into(), test: Test::In(values(list)) }])
}

fn none_of(key: &str, list: &[&str]) -> Selector {
    Selector::new([Requirement { key: key.into(), test: Test::NotIn(values(list)) }])
}

fn number(protocol: Protocol, port: u16) -> PortMatch {
    PortMatch::Numbers { protocol, first: port, last: port }
}

/// A named port with the protocol omitted, which means TCP (A5).
fn named(name: &str) -> PortMatch {
    PortMatch::Named { protocol: Some(Tcp), name: name.into() }
}

/// A protocol with the port omitted.
fn any_port(protocol: Protocol) -> PortMatch {
    PortMatch::Numbers { protocol, first: 0, last: u16::MAX }
}

fn deny(name: &str, pods: &[(&str, &str)], directions: &[Direction]) -> Policy {
    let mut policy = policy(name, pods);
    policy.ingress = directions.contains(&Ingress).then(Vec::new);
    policy.egress = directions.contains(&Egress).then(Vec::new);
    policy
}

const A: &[(&str, &str)] = &[("pod", "a")];
const EVERY: &[(&str, &str)] = &[];

#[test]
fn e01_default_deny_ingress() {
    Suite::with([deny("deny", EVERY, &[Ingress])]).expect(Tcp, 80, &[("", "x/", false)]);
}

#[test]
fn e02_default_deny_all() {
    Suite::with([deny("deny", EVERY, &[Ingress, Egress])]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("x/", "", false)],
    );
}

#[test]
fn e03_from_pods_of_the_own_namespace_by_label() {
    let policy = policy("allow-b", A).ingress([rule([own(one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e04_deny_all_and_allow_all_for_one_target() {
    let allow = policy("allow", A).ingress([rule([], [])]);
    Suite::with([deny("deny", EVERY, &[Ingress]), allow]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("", "x/a", true)],
    );
}

#[test]
fn e05_from_pods_in_all_namespaces() {
    let policy = policy("allow", A).ingress([rule([all_of(Selector::everything())], [])]);
    Suite::with([deny("deny", EVERY, &[Ingress]), policy]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("", "x/a", true)],
    );
}

#[test]
fn e06_only_from_another_namespace() {
    let policy = policy("allow-y", A).ingress([rule([all_of(one("ns", "y"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e07_pod_selector_by_expressions() {
    let policy = policy("allow-b", A).ingress([rule([own(any_of("pod", &["b"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e08_namespace_selector_by_expressions() {
    let policy = policy("allow-y", A).ingress([rule([all_of(any_of("ns", &["y"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e09_pod_selector_or_namespace_selector() {
    let policy = policy("or", A).ingress([rule([all_of(none_of("ns", &["x"])), own(one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/c", "x/a", false)]);
}

#[test]
fn e10_pod_selector_and_namespace_selector() {
    let policy = policy("and", A).ingress([rule([both(none_of("ns", &["x"]), one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("y/b", "x/a", true), ("z/b", "x/a", true)]);
}

#[test]
fn e11_several_expressions_in_both_selectors() {
    let policy =
        policy("and", A).ingress([rule([both(none_of("ns", &["x"]), any_of("pod", &["b", "c"]))], [])]);
    Suite::with([policy]).expect(
        Tcp,
        80,
        &[("x/", "x/a", false), ("y/a", "x/a", false), ("z/a", "x/a", false)],
    );
}

#[test]
fn e12_any_of_several_pod_selectors() {
    let policy = policy("or", A).ingress([rule([own(one("pod", "b")), own(one("pod", "c"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true), ("x/c", "x/a", true)]);
}

#[test]
fn e13_one_pod_of_another_namespace() {
    let policy = policy("allow-ya", A).ingress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("y/a", "x/a", true)]);
}

fn from_y_on(name: &str, port: PortMatch) -> Policy {
    policy(name, A).ingress([rule([all_of(one("ns", "y"))], [port])])
}

#[test]
fn e14_restricted_to_a_port() {
    let suite = Suite::with([from_y_on("allow-81", number(Tcp, 81))]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e15_stacked_policies_with_overlapping_subjects() {
    let mut suite = Suite::with([from_y_on("allow-81", number(Tcp, 81))]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.set(from_y_on("allow-80", number(Tcp, 80)));
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
}

#[test]
fn e16_allow_all() {
    let suite = Suite::with([policy("allow-all", EVERY).ingress([rule([], [])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
}

#[test]
fn e17_ingress_on_one_named_port() {
    let suite = Suite::with([policy("named", A).ingress([rule([], [named("serve-81-tcp")])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[]);
    suite.expect(Udp, 81, &[("", "x/a", false)]);
}

#[test]
fn e18_ingress_from_a_namespace_on_one_named_port() {
    let suite = Suite::with([from_y_on("named", named("serve-80-tcp"))]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
}

#[test]
fn e19_egress_on_one_named_port() {
    let suite = Suite::with([policy("named", A).egress([rule([], [named("serve-80-tcp")])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[("x/a", "", false)]);
}

#[test]
fn e20_an_updated_policy() {
    let mut suite = Suite::with([policy("p", EVERY).ingress([rule([], [])])]);
    suite.expect(Tcp, 81, &[]);
    suite.set(deny("p", EVERY, &[Ingress]));
    suite.expect(Tcp, 81, &[("", "x/", false)]);
}

#[test]
fn e21_an_updated_namespace() {
    let policy = policy("updated", A).ingress([rule([all_of(one("ns2", "updated"))], [])]);
    let mut suite = Suite::with([policy]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_namespace("y", &[("ns", "y"), ("ns2", "updated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.label_namespace("y", &[("ns", "y")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e22_an_updated_peer_pod() {
    let mut suite = Suite::with([policy("updated", A).ingress([rule([own(one("pod2", "updated"))], [])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_pod("x", "b", &[("pod", "b"), ("pod2", "updated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.label_pod("x", "b", &[("pod", "b")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e23_every_pod_of_the_own_namespace_only() {
    let policy = policy("own", A).ingress([rule([own(Selector::everything())], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("y/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e24_a_pod_becomes_subject_by_its_label() {
    let mut suite = Suite::with([deny("deny", &[("target", "isolated")], &[Ingress])]);
    suite.expect(Tcp, 80, &[]);
    suite.label_pod("x", "a", &[("pod", "a"), ("target", "isolated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_pod("x", "a", &[("pod", "a")]);
    suite.expect(Tcp, 80, &[]);
}

#[test]
fn e25_egress_denied_by_pod_selector() {
    Suite::with([deny("deny", A, &[Egress])]).expect(Tcp, 80, &[("x/a", "", false)]);
}

#[test]
fn e26_egress_denied_for_a_namespace() {
    Suite::with([deny("deny", EVERY, &[Egress])]).expect(Tcp, 80, &[("x/", "", false)]);
}

#[test]
fn e27_ingress_and_egress_in_one_policy() {
    let policy =
        policy("both", A).ingress([rule([own(one("pod", "b"))], [])]).egress([rule([], [number(Tcp, 80)])]);
    let suite = Suite::with([policy]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("x/a", "", false), ("x/b", "x/a", true)]);
}

#[test]
fn e28_egress_denied_though_the_server_allows_it() {
    let client = policy("client", A).egress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    let server = policy_in("y", "server", &[]).ingress([rule([all_of(one("ns", "x"))], [])]);
    Suite::with([client, server]).expect(
        Tcp,
        80,
        &[("", "y/", false), ("x/", "y/", true), ("x/a", "", false), ("x/a", "y/a", true)],
    );
}

#[test]
fn e29_egress_to_a_server_in_another_namespace() {
    let policy = policy("to-ya", A).egress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/a", true)]);
}

#[test]
fn e30_any_port_of_one_protocol() {
    let suite = Suite::with([policy("tcp", A).ingress([rule([], [any_port(Tcp)])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
    suite.expect(Udp, 80, &[("", "x/a", false)]);
}

#[test]
fn e31_of_several_ingress_policies_allow_all_wins() {
    let mut suite = Suite::with([policy("b", A).ingress([rule([own(one("pod", "b"))], [])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.set(policy("all", A).ingress([rule([], [])]));
    suite.expect(Tcp, 80, &[]);
}

#[test]
fn e32_of_several_egress_policies_allow_all_wins() {
    let mut suite = Suite::with([policy("80", A).egress([rule([], [number(Tcp, 80)])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[("x/a", "", false)]);
    suite.set(policy("all", A).egress([rule([], [])]));
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
}

#[test]
fn e33_deleted_policies_are_not_enforced() {
    let mut suite = Suite::with([deny("deny", EVERY, &[Ingress, Egress])]);
    suite.expect(Tcp, 80, &[("", "x/", false), ("x/", "", false)]);
    suite.remove("x", "deny");
    suite.expect(Tcp, 80, &[]);
    let without_policies = |plan: &NodePlan| NodePlan {
        local: plan.local.clone(),
        nodes: plan.nodes.clone(),
        ..NodePlan::default()
    };
    let plans = suite.compilers.iter().map(|c| c.plan());
    assert!(plans.clone().all(|plan| *plan == without_policies(plan)), "nothing is left in the plans");
}

/// The single address of pod y/b, for each family.
fn of_yb() -> [IpNet; 2] {
    Family::BOTH.map(|family| IpNet::from(address(1, 1, family)))
}

/// The range around all pods of namespace y, for each family.
fn round_y() -> [IpNet; 2] {
    ["10.244.2.0/24", "fd00:10::2:0/112"].map(|cidr| cidr.parse().expect("a CIDR"))
}

#[test]
fn e34_egress_to_a_cidr_that_is_a_pod() {
    let policy = policy("cidr", A).egress([rule(of_yb().map(|net| block(net, &[])), [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/b", true)]);
}

fn egress_round_yb(name: &str) -> Policy {
    let blocks = [0, 1].map(|family| block(round_y()[family], &[of_yb()[family]]));
    policy(name, A).egress([rule(blocks, [])])
}

#[test]
fn e35_egress_to_a_cidr_with_a_pod_excepted() {
    let suite = Suite::with([egress_round_yb("except")]);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true), ("x/a", "y/b", false)]);
}

#[test]
fn e36_an_excepted_address_allowed_again() {
    let mut suite = Suite::with([egress_round_yb("except")]);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true), ("x/a", "y/b", false)]);
    let mut overlapping = egress_round_yb("except");
    overlapping.egress.as_mut().unwrap()[0]
        .peers
        .as_mut()
        .unwrap()
        .extend(of_yb().map(|net| PeerEntry { peer: block(net, &[]), origin: None }));
    suite.set(overlapping);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true)]);
}

#[test]
fn e37_ingress_and_egress_are_controlled_independently() {
    let mut suite = Suite::with([deny("in", A, &[Ingress]), deny("out", A, &[Egress])]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/a", "", false)]);
    suite.set(policy("in", A).ingress([rule([], [])]));
    suite.expect(Tcp, 80, &[("x/a", "", false)]);
    suite.remove("x", "in");
    suite.expect(Tcp, 80, &[("x/a", "", false)]);
    suite.set(deny("in", A, &[Ingress]));
    suite.remove("x", "out");
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e38_sctp_on_a_port_does_not_let_tcp_through() {
    let suite = Suite::with([policy("sctp", A).ingress([rule([], [number(Sctp, 80)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
    suite.expect(Sctp, 80, &[]);
}

#[test]
fn e39_a_policy_about_sctp_isolates_for_tcp() {
    let suite = Suite::with([policy("sctp", A).ingress([rule([own(one("pod", "b"))], [any_port(Sctp)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Sctp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e40_udp_does_not_let_tcp_through() {
    let suite = Suite::with([policy("udp", A).ingress([rule([], [number(Udp, 80)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Udp, 80, &[]);
}

const BY_NAME: &str = palisade_policy::NAMESPACE_NAME_LABEL;

#[test]
fn e41_namespaces_by_the_automatic_name_label() {
    let policy = policy("allow-y", EVERY).ingress([rule([all_of(one(BY_NAME, "y"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/", false), ("z/", "x/", false)]);
}

#[test]
fn e42_all_namespaces_but_one_by_the_automatic_name_label() {
    let policy = policy("not-y", EVERY).egress([rule([all_of(none_of(BY_NAME, &["y"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "y/", false)]);
}

fn deny_ingress_for(protocol: Protocol) {
    Suite::with([deny("deny", EVERY, &[Ingress])]).expect(protocol, 80, &[("", "x/", false)]);
}

fn restricted_to_a_port_of(protocol: Protocol) {
    let suite = Suite::with([from_y_on("allow-81", number(protocol, 81))]);
    suite.expect(protocol, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(protocol, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
}

fn one_pod_of_another_namespace_on(protocol: Protocol) {
    let policy = policy("allow-ya", A)
        .ingress([rule([both(one("ns", "y"), one("pod", "a"))], [number(protocol, 80)])]);
    let suite = Suite::with([policy]);
    suite.expect(protocol, 80, &[("", "x/a", false), ("y/a", "x/a", true)]);
    suite.expect(protocol, 81, &[("", "x/a", false)]);
}

#[test]
fn e43_udp_deny_ingress() {
    deny_ingress_for(Udp);
}

#[test]
fn e44_udp_restricted_to_a_port() {
    restricted_to_a_port_of(Udp);
}

#[test]
fn e45_udp_one_pod_of_another_namespace() {
    one_pod_of_another_namespace_on(Udp);
}

#[test]
fn e46_sctp_deny_ingress() {
    deny_ingress_for(Sctp);
}

#[test]
fn e47_sctp_restricted_to_a_port() {
    restricted_to_a_port_of(Sctp);
}

#[test]
fn e48_sctp_one_pod_of_another_namespace() {
    one_pod_of_another_namespace_on(Sctp);
}

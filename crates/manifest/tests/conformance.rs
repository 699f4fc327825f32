//! The cases of the network-policy-api project's conformance tests (SEMANTICS E.2) and of its tests of the definitions
//! (E.3): the same pods, ports, rules and changes, decided by the reference and by a compiler that applies all changes.

#![expect(clippy::unwrap_used, reason = "a helper that fails should fail its test")]

use std::net::IpAddr;

use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::{Compiler, Direction, Family, Flow, ObjectKey, Protocol, reference};

/// The namespace and name of each pod group; each has two pods, `NAME-0` and `NAME-1`.
const HOUSES: [(&str, &str); 4] = [
    ("gryffindor", "harry-potter"),
    ("slytherin", "draco-malfoy"),
    ("hufflepuff", "cedric-diggory"),
    ("ravenclaw", "luna-lovegood"),
];

/// The two ports of each protocol.
const PORTS: [(&str, Protocol, [u16; 2]); 3] = [
    ("tcp", Protocol::Tcp, [80, 8080]),
    ("udp", Protocol::Udp, [53, 5353]),
    ("sctp", Protocol::Sctp, [9003, 9005]),
];

/// The cluster of the suite. The pods of gryffindor are the subjects. Tests change a label of `slytherin`.
fn cluster(slytherin: &str) -> String {
    let mut text = String::new();
    for (n, (house, student)) in HOUSES.into_iter().enumerate() {
        let label = if house == "slytherin" { slytherin } else { house };
        text += &format!(
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {house}, labels: {{house: {label}}}}}}}\n"
        );
        for pod in 0..2 {
            text += &format!(
                "---
apiVersion: v1
kind: Pod
metadata: {{name: {student}-{pod}, namespace: {house}, labels: {{student: {student}, statefulset.kubernetes.io/pod-name: {student}-{pod}}}}}
spec:
  nodeName: n1
  containers:
  - name: c
    ports:
    - {{name: web, containerPort: 80}}
    - {{name: dns, containerPort: 53, protocol: UDP}}
status: {{phase: Running, podIP: 10.244.{n}.1{pod}, podIPs: [{{ip: 10.244.{n}.1{pod}}}, {{ip: 'fd00:10::{n}:1{pod}'}}]}}
"
            );
        }
    }
    text + "---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/os: linux}}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: 'fd00:168::1'}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {kubernetes.io/os: linux}}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}, {type: InternalIP, address: 'fd00:168::2'}]}
"
}

/// A cluster that changes.
struct Suite {
    compiler: Compiler,
    slytherin: &'static str,
}

impl Suite {
    fn new() -> Self {
        Self { compiler: Compiler::new("n1".into()), slytherin: "slytherin" }
    }

    /// Replaces all policies.
    fn apply(&mut self, policies: &[String]) {
        let text =
            cluster(self.slytherin) + &policies.iter().map(|p| format!("---\n{p}")).collect::<String>();
        let loaded = load(&[Input::Text { name: "p.yaml".into(), text }], &LoadOptions::default());
        assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
        assert_eq!(loaded.cluster.policies.len(), policies.len());
        let changes = self.compiler.cluster().changes_to(&loaded.cluster);
        self.compiler.apply_all(changes);
        assert_eq!(self.compiler.plan(), Compiler::from_cluster("n1".into(), &loaded.cluster).plan());
    }

    fn address(&self, end: &str, family: Family) -> IpAddr {
        let of = |list: &[IpAddr]| *list.iter().find(|a| Family::of(**a) == family).unwrap();
        let cluster = self.compiler.cluster();
        if let Some(node) = cluster.nodes.get(end) {
            return of(&node.addresses);
        }
        let student = HOUSES.iter().find(|(house, _)| *house == end).unwrap().1;
        of(&cluster.pods[&ObjectKey::new(end, format!("{student}-0"))].addresses)
    }

    /// Returns whether a connection passes, alike in both families. Asserts that the reference and the plan agree.
    fn passes(&self, source: &str, destination: &str, protocol: Protocol, port: u16) -> bool {
        let verdicts = [Family::V4, Family::V6].map(|family| {
            let (from, to) = (self.address(source, family), self.address(destination, family));
            let cluster = self.compiler.cluster();
            let (source, destination) = (cluster.endpoint(from), cluster.endpoint(to));
            let flow = Flow { source, destination, protocol, port, through_service: false };
            let reference = reference::decide(cluster, &flow).verdict().is_allow();
            let plan = Direction::BOTH
                .iter()
                .all(|d| self.compiler.plan().decide(*d, from, to, protocol, port).is_allow());
            assert_eq!(reference, plan, "{flow:?}");
            reference
        });
        assert_eq!(verdicts[0], verdicts[1], "{source} to {destination}");
        verdicts[0]
    }

    /// Asserts what gryffindor may send to `house` (egress) or receive from it (ingress) on the first port and the
    /// second.
    fn expect(
        &self,
        direction: Direction,
        house: &str,
        protocol: Protocol,
        ports: [u16; 2],
        expected: [bool; 2],
    ) {
        for (port, expected) in ports.into_iter().zip(expected) {
            let passes = match direction {
                Direction::Egress => self.passes("gryffindor", house, protocol, port),
                Direction::Ingress => self.passes(house, "gryffindor", protocol, port),
            };
            assert_eq!(passes, expected, "{direction} {house} {protocol} {port}");
        }
    }
}

/// The two generations of the API, which spell tiers, rules and ports differently.
#[derive(Clone, Copy)]
enum Api {
    New,
    Old,
}

impl Api {
    fn policy(self, tier: &str, priority: u32, direction: Direction, rules: &[String]) -> String {
        let subject = "{namespaces: {matchLabels: {house: gryffindor}}}";
        let rules = format!("{direction}: [{}]", rules.join(", "));
        match (self, tier) {
            (Self::New, _) => format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: p{priority}}}, spec: {{tier: {tier}, priority: {priority}, subject: {subject}, {rules}}}}}\n"
            ),
            (Self::Old, "Admin") => format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {{name: p{priority}}}, spec: {{priority: {priority}, subject: {subject}, {rules}}}}}\n"
            ),
            (Self::Old, _) => format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {{name: default}}, spec: {{subject: {subject}, {rules}}}}}\n"
            ),
        }
    }

    /// A rule for a house, for all protocols or for the given ports.
    fn rule(self, action: &str, direction: Direction, house: &str, ports: &[(&str, u16)]) -> String {
        let peers = if direction == Direction::Ingress { "from" } else { "to" };
        let action = if matches!(self, Self::Old) && action == "Accept" { "Allow" } else { action };
        let ports: Vec<String> = ports
            .iter()
            .map(|(protocol, port)| match self {
                Self::New => format!("{{{protocol}: {{destinationPort: {{number: {port}}}}}}}"),
                Self::Old => {
                    format!("{{portNumber: {{protocol: {}, port: {port}}}}}", protocol.to_uppercase())
                }
            })
            .collect();
        let field = if matches!(self, Self::New) { "protocols" } else { "ports" };
        let ports =
            if ports.is_empty() { String::new() } else { format!(", {field}: [{}]", ports.join(", ")) };
        format!("{{action: {action}, {peers}: [{{namespaces: {{matchLabels: {{house: {house}}}}}}}]{ports}}}")
    }
}

/// The six rules of the recurring cases, for one protocol: everything from ravenclaw, one port of hufflepuff and one
/// port of slytherin, each followed by its opposite.
fn six_rules(api: Api, direction: Direction, protocols: &[usize]) -> Vec<String> {
    let first: Vec<(&str, u16)> = protocols.iter().map(|&p| (PORTS[p].0, PORTS[p].2[0])).collect();
    let rule = |action, house, ports: &[(&str, u16)]| api.rule(action, direction, house, ports);
    vec![
        rule("Accept", "ravenclaw", &[]),
        rule("Deny", "ravenclaw", &[]),
        rule("Pass", "ravenclaw", &[]),
        rule("Deny", "slytherin", &first),
        rule("Pass", "slytherin", &first),
        rule("Accept", "hufflepuff", &first),
        rule("Deny", "hufflepuff", &[]),
    ]
}

fn six_pack(api: Api, direction: Direction, protocols: &[usize]) {
    let mut suite = Suite::new();
    let mut rules = six_rules(api, direction, protocols);
    let mut check = |rules: &[String], expected: &[(&str, [bool; 2])]| {
        suite.apply(&[api.policy("Admin", 10, direction, rules)]);
        for &p in protocols {
            for (house, expected) in expected {
                suite.expect(direction, house, PORTS[p].1, PORTS[p].2, *expected);
            }
        }
    };
    let rest = [("hufflepuff", [true, false]), ("slytherin", [false, true])];
    check(&rules, &[("ravenclaw", [true, true]), rest[0], rest[1]]);
    rules.swap(0, 1);
    check(&rules, &[("ravenclaw", [false, false]), rest[0], rest[1]]);
    rules.swap(0, 2);
    check(&rules, &[("ravenclaw", [true, true]), rest[0], rest[1]]);
    rules.swap(3, 4);
    check(&rules, &[("slytherin", [true, true])]);
}

#[test]
fn rules_of_the_admin_tier_in_order_for_every_protocol_and_direction() {
    for api in [Api::New, Api::Old] {
        for direction in Direction::BOTH {
            for protocol in 0..PORTS.len() {
                six_pack(api, direction, &[protocol]);
            }
            six_pack(api, direction, &[0, 1, 2]);
        }
    }
}

#[test]
fn rules_of_the_baseline_tier_in_order() {
    for api in [Api::New, Api::Old] {
        for direction in Direction::BOTH {
            for (name, protocol, ports) in PORTS {
                let rule = |action, house, ports: &[(&str, u16)]| api.rule(action, direction, house, ports);
                let first = [(name, ports[0])];
                let mut rules = vec![
                    rule("Accept", "ravenclaw", &[]),
                    rule("Deny", "ravenclaw", &[]),
                    rule("Deny", "slytherin", &first),
                    rule("Accept", "hufflepuff", &first),
                    rule("Deny", "hufflepuff", &[]),
                ];
                let mut suite = Suite::new();
                for open in [true, false] {
                    suite.apply(&[api.policy("Baseline", 5, direction, &rules)]);
                    suite.expect(direction, "ravenclaw", protocol, ports, [open, open]);
                    suite.expect(direction, "slytherin", protocol, ports, [false, true]);
                    suite.expect(direction, "hufflepuff", protocol, ports, [true, false]);
                    rules.swap(0, 1);
                }
            }
        }
    }
}

#[test]
fn pass_continues_in_the_next_tier() {
    let network_policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np, namespace: gryffindor}, spec: {podSelector: , policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {house: slytherin}}}]}], egress: [{to: [{namespaceSelector: {matchLabels: {house: slytherin}}}]}]}}\n";
    for api in [Api::New, Api::Old] {
        for direction in Direction::BOTH {
            let rule = |action| [api.rule(action, direction, "slytherin", &[])];
            let baseline = api.policy("Baseline", 5, direction, &rule("Deny"));
            let mut suite = Suite::new();
            let mut check = |policies: &[String], open: bool| {
                suite.apply(policies);
                suite.expect(direction, "slytherin", Protocol::Tcp, [80, 8080], [open, open]);
            };
            let admin = |action| api.policy("Admin", 10, direction, &rule(action));
            check(&[admin("Deny"), network_policy.into(), baseline.clone()], false);
            check(&[admin("Pass"), network_policy.into(), baseline.clone()], true);
            check(&[admin("Pass"), baseline.clone()], false);
            check(&[admin("Pass")], true);
        }
    }
}

#[test]
fn priorities_can_change_and_policies_of_equal_priority_all_act() {
    let direction = Direction::Ingress;
    for api in [Api::New, Api::Old] {
        let rule = |action, house| [api.rule(action, direction, house, &[])];
        let baseline = api.policy("Baseline", 5, direction, &rule("Accept", "slytherin"));
        let mut suite = Suite::new();
        let mut check = |deny: u32, pass: u32, open: bool| {
            suite.apply(&[
                api.policy("Admin", deny, direction, &rule("Deny", "slytherin")),
                api.policy("Admin", pass, direction, &rule("Pass", "slytherin")),
                baseline.clone(),
            ]);
            suite.expect(direction, "slytherin", Protocol::Udp, [53, 5353], [open, open]);
        };
        check(50, 60, false);
        check(50, 40, true);
        for tier in ["Admin", "Baseline"] {
            if matches!(api, Api::Old) && tier == "Baseline" {
                continue; // There is only one.
            }
            let other = api.policy(tier, 7, direction, &rule("Deny", "ravenclaw")).replace("p7", "other");
            suite.apply(&[api.policy(tier, 7, direction, &rule("Deny", "slytherin")), other]);
            for (house, open) in [("slytherin", false), ("ravenclaw", false), ("hufflepuff", true)] {
                suite.expect(direction, house, Protocol::Tcp, [80, 8080], [open, open]);
            }
            suite.expect(Direction::Egress, "slytherin", Protocol::Tcp, [80, 8080], [true, true]);
        }
    }
}

#[test]
fn named_ports_use_the_protocol_of_the_pod() {
    for (api, named) in
        [(Api::New, "protocols: [{destinationNamedPort: NAME}]"), (Api::Old, "ports: [{namedPort: NAME}]")]
    {
        for tier in ["Admin", "Baseline"] {
            for direction in Direction::BOTH {
                for (name, protocol, ports) in
                    [("web", Protocol::Tcp, [80, 8080]), ("dns", Protocol::Udp, [53, 5353])]
                {
                    let accept = api.rule("Accept", direction, "slytherin", &[]);
                    let accept =
                        format!("{}, {}}}", &accept[..accept.len() - 1], named.replace("NAME", name));
                    let deny = api.rule("Deny", direction, "slytherin", &[]);
                    let mut suite = Suite::new();
                    suite.apply(&[api.policy(tier, 10, direction, &[accept, deny])]);
                    suite.expect(direction, "slytherin", protocol, ports, [true, false]);
                }
            }
        }
    }
}

#[test]
fn networks_match_pods_and_namespace_labels_can_change() {
    for api in [Api::New, Api::Old] {
        for tier in ["Admin", "Baseline"] {
            let direction = Direction::Egress;
            let deny = "{action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}".to_owned();
            let mut rules = vec![api.rule("Accept", direction, "slytherin", &[]), deny];
            let mut suite = Suite::new();
            let mut check = |rules: &[String], label: &'static str, expected: [bool; 3]| {
                suite.slytherin = label;
                suite.apply(&[api.policy(tier, 10, direction, rules)]);
                for (house, open) in ["slytherin", "hufflepuff", "ravenclaw"].into_iter().zip(expected) {
                    for (_, protocol, ports) in PORTS {
                        suite.expect(direction, house, protocol, ports, [open, open]);
                    }
                }
            };
            check(&rules, "slytherin", [true, false, false]);
            check(&rules, "muggles", [false, false, false]);
            check(&rules, "slytherin", [true, false, false]);
            let accept = if matches!(api, Api::Old) { "Allow" } else { "Accept" };
            rules.insert(0, format!("{{action: {accept}, to: [{{networks: [10.244.2.10/32, 'fd00:10::2:10/128', 10.244.3.10/32, 'fd00:10::3:10/128']}}]}}"));
            check(&rules, "muggles", [false, true, true]);
        }
    }
}

#[test]
fn nodes_are_peers_of_egress() {
    let direction = Direction::Egress;
    let node = "{nodes: {matchLabels: {kubernetes.io/os: linux}}}";
    let everything = format!("[{{namespaces: {{}}}}, {node}, {{networks: [0.0.0.0/0, '::/0']}}]");
    for (api, tcp, udp, all) in [
        (
            Api::New,
            "protocols: [{tcp: {destinationPort: {number: 36363}}}]",
            "protocols: [{udp: {destinationPort: {range: {start: 34345, end: 34347}}}}]",
            "protocols: [{tcp: {destinationPort: {range: {start: 1, end: 65535}}}}, {udp: {destinationPort: {range: {start: 1, end: 65535}}}}]",
        ),
        (
            Api::Old,
            "ports: [{portNumber: {port: 36363}}]",
            "ports: [{portRange: {protocol: UDP, start: 34345, end: 34347}}]",
            "ports: [{portRange: {start: 1, end: 65535}}, {portRange: {protocol: UDP, start: 1, end: 65535}}]",
        ),
    ] {
        let accept = if matches!(api, Api::Old) { "Allow" } else { "Accept" };
        let rules = [
            format!("{{action: {accept}, to: [{node}], {tcp}}}"),
            format!("{{action: Pass, to: [{node}], {udp}}}"),
            format!("{{action: Deny, to: {everything}, {all}}}"),
        ];
        let mut suite = Suite::new();
        suite.apply(&[api.policy("Admin", 10, direction, &rules)]);
        for node in ["n1", "n2"] {
            suite.expect(direction, node, Protocol::Tcp, [36363, 36364], [true, false]);
            suite.expect(direction, node, Protocol::Udp, [34345, 34347], [true, true]);
            suite.expect(direction, node, Protocol::Udp, [34344, 34348], [false, false]);
            suite.expect(direction, node, Protocol::Sctp, [9003, 9005], [true, true]);
        }
        suite.expect(direction, "slytherin", Protocol::Tcp, [36363, 80], [false, false]);
    }
}

#[test]
fn a_pod_selector_without_namespace_selector_matches_in_every_namespace() {
    let spec = "{tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {student: harry-potter}}}}, ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: draco-malfoy-0}}}}]}]}";
    let mut suite = Suite::new();
    suite.apply(&[format!(
        "{{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {spec}}}\n"
    )]);
    suite.expect(Direction::Ingress, "slytherin", Protocol::Tcp, [80, 8080], [false, false]);
    suite.expect(Direction::Ingress, "ravenclaw", Protocol::Tcp, [80, 8080], [true, true]);
}

#[test]
fn the_cases_of_the_definitions() {
    let admitted = |spec: &str| {
        let text = format!(
            "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {spec}}}"
        );
        !load(&[Input::Text { name: "p".into(), text }], &LoadOptions::default()).has_errors()
    };
    let spec = |rule: &str| {
        format!("{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, ingress: [{rule}]}}")
    };
    let two_selectors = "{pods: {namespaceSelector: {matchLabels: {}}, podSelector: {matchLabels: {}}}}";
    assert!(admitted(&spec(&format!("{{action: Deny, from: [{two_selectors}]}}"))));
    let ports = "[{tcp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 8080, end: 9090}}}}]";
    assert!(admitted(&spec(&format!("{{action: Deny, from: [{{namespaces: {{}}}}], protocols: {ports}}}"))));
    let nested = "{namespaces: {namespaceSelector: {}}}";
    assert!(
        admitted(&spec(&format!("{{action: Deny, from: [{nested}]}}"))),
        "an unknown field alone is dropped"
    );
    assert!(!admitted(&spec(&format!("{{action: Invalid, from: [{nested}]}}"))));
}

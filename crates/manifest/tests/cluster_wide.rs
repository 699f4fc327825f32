//! Cluster-wide policies: their normal form, and what fails closed.

mod support;

use palisade_manifest::{Admission, Channel, Code, Loaded, Severity};
use palisade_policy::{Action, Direction, NamespaceMatch, Peer, PortMatch, Protocol, Rule, Tier};
use support::{ANP, BANP, CNP, checked, egress, findings, load_as, object, only};

fn raw(text: &str) -> Loaded {
    load_as(text, Channel::Experimental, Admission::Passed)
}

#[test]
fn positions_and_normal_form() {
    let text = "apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Baseline
  priority: 7
  subject: {pods: {podSelector: {matchLabels: {app: web}}}}
  egress:
  - name: first
    action: Pass
    to:
    - networks: [10.0.0.0/8, 'fd00::/8']
    - nodes: {matchLabels: {role: cp}}
    - pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {}}
    protocols:
    - tcp: {destinationPort: {number: 443}}
    - sctp: {destinationPort: {range: {start: 1, end: 65535}}}
  - action: Accept
    to: [{namespaces: {}}]
    protocols: [{destinationNamedPort: web}]
";
    let loaded = checked(text);
    let policy = only(&loaded);
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    assert_eq!(policy.key.to_string(), "ClusterNetworkPolicy guard");
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 7));
    assert_eq!(policy.subject.namespaces.to_string(), "every namespace");
    assert_eq!(policy.subject.pods.to_string(), "app=web");
    assert!(policy.ingress.is_none(), "without rules, the policy does not apply to the direction");
    let line = |source: &Option<palisade_policy::Origin>| source.as_ref().map(|s| (s.line, s.column));
    assert_eq!(line(&policy.origin), Some((1, 1)));
    let rules = policy.rules(Direction::Egress).unwrap();
    assert_eq!(rules.iter().map(|r| r.action).collect::<Vec<_>>(), [Action::Pass, Action::Accept]);
    assert_eq!(rules.iter().map(|r| line(&r.origin)).collect::<Vec<_>>(), [Some((9, 5)), Some((18, 5))]);
    let peers: Vec<_> = rules[0]
        .peers
        .as_ref()
        .unwrap()
        .iter()
        .map(|p| (palisade_names::describe_peer(&p.peer), line(&p.origin)))
        .collect();
    assert_eq!(
        peers,
        [
            ("10.0.0.0/8".to_owned(), Some((12, 18))),
            ("fd00::/8".to_owned(), Some((12, 30))),
            ("nodes role=cp".to_owned(), Some((13, 7))),
            ("every pod of namespaces team=red".to_owned(), Some((14, 7))),
        ]
    );
    let ports: Vec<_> =
        rules[0].ports.as_ref().unwrap().iter().map(|p| (p.port.clone(), line(&p.origin))).collect();
    assert_eq!(
        ports,
        [
            (PortMatch::Numbers { protocol: Protocol::Tcp, first: 443, last: 443 }, Some((16, 7))),
            (PortMatch::Numbers { protocol: Protocol::Sctp, first: 1, last: 65535 }, Some((17, 7))),
        ]
    );
    assert_eq!(
        rules[1].ports.as_ref().unwrap()[0].port,
        PortMatch::Named { protocol: None, name: "web".into() }
    );
}

#[test]
fn the_older_kinds_have_their_tiers_and_defaults() {
    let ports = "[{portNumber: {port: 80}}, {portNumber: {protocol: null, port: 1}}, {portRange: {protocol: UDP, start: 7, end: 7}}, {namedPort: web}]";
    let spec = format!(
        "{{priority: 3, subject: {{namespaces: {{}}}}, ingress: [{{action: Allow, from: [{{namespaces: {{}}}}], ports: {ports}}}], egress: []}}"
    );
    let loaded = checked(&object(ANP, "a", &spec));
    let policy = only(&loaded);
    assert_eq!((policy.tier, policy.priority), (Tier::Admin, 3));
    assert_eq!(policy.key.to_string(), "AdminNetworkPolicy a");
    assert!(policy.egress.is_none());
    let rule = &policy.rules(Direction::Ingress).unwrap()[0];
    assert_eq!(rule.action, Action::Accept);
    let one = |protocol, n| PortMatch::Numbers { protocol, first: n, last: n };
    assert_eq!(
        rule.ports.as_ref().unwrap().iter().map(|p| p.port.clone()).collect::<Vec<_>>(),
        [
            one(Protocol::Tcp, 80),
            one(Protocol::Tcp, 1),
            one(Protocol::Udp, 7),
            PortMatch::Named { protocol: None, name: "web".into() },
        ]
    );
    let loaded = checked(&object(BANP, "default", "{subject: {namespaces: {}}}"));
    let policy = only(&loaded);
    assert_eq!(
        (policy.tier, policy.priority),
        (Tier::Baseline, i32::MAX),
        "after every ClusterNetworkPolicy"
    );
}

/// What replaces an unusable rule.
fn is_closed(rule: &Rule, action: Action) -> bool {
    let nothing = rule.peers.as_ref().is_some_and(Vec::is_empty);
    match action {
        Action::Accept => rule.action == Action::Accept && nothing,
        _ => rule.action == Action::Deny && rule.peers.is_none() && rule.ports.is_none(),
    }
}

#[test]
fn admitted_but_unusable_rules_fail_closed() {
    let from = |peer: &str| format!("from: [{{namespaces: {{}}}}, {peer}]");
    let ports = |port: &str| format!("from: [{{namespaces: {{}}}}], ports: [{port}]");
    let cases: Vec<(String, &str)> = vec![
        (
            from("{namespaces: {matchExpressions: [{key: team, operator: notIn, values: [red]}]}}"),
            "from[1].namespaces.matchExpressions[0].operator: \"notIn\" is none of the operators In, NotIn, Exists and DoesNotExist",
        ),
        (
            from("{namespaces: {matchExpressions: [{key: team, operator: In}]}}"),
            "from[1].namespaces.matchExpressions[0]: operator In needs values",
        ),
        (
            from("{namespaces: {matchExpressions: [{key: team, operator: Exists, values: [a]}]}}"),
            "from[1].namespaces.matchExpressions[0]: operator Exists takes no values",
        ),
        (
            from("{pods: {namespaceSelector: {}, podSelector: {matchLabels: {'/': x}}}}"),
            "from[1].pods.podSelector.matchLabels[/]: \"/\": prefix part must be non-empty",
        ),
        (
            from("{namespaces: {matchLabels: {a: -b}}}"),
            "from[1].namespaces.matchLabels.a: \"-b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')",
        ),
        (
            ports("{portNumber: {protocol: ICMP, port: 9}}"),
            "ports[0].portNumber.protocol: \"ICMP\" is none of the protocols TCP, UDP and SCTP",
        ),
        (
            ports("{portNumber: {protocol: '', port: 9}}"),
            "ports[0].portNumber.protocol: \"\" is none of the protocols TCP, UDP and SCTP",
        ),
        (
            ports("{portRange: {start: 9, end: 3}}"),
            "ports[0].portRange: the range ends at 3, before its start 9",
        ),
        (ports("{namedPort: ''}"), "ports[0].namedPort: an empty port name"),
    ];
    for (rule, expected) in &cases {
        for (action, read, consequence) in [
            ("Allow", Action::Accept, "the rule is unusable and matches nothing"),
            ("Deny", Action::Deny, "the rule is unusable and denies all ingress of its subjects"),
            ("Pass", Action::Pass, "the rule is unusable and denies all ingress of its subjects"),
        ] {
            let last = "{action: Deny, from: [{namespaces: {}}]}";
            let spec = format!(
                "{{priority: 0, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, {rule}}}, {last}]}}"
            );
            let loaded = checked(&object(ANP, "p", &spec));
            let rules = only(&loaded).rules(Direction::Ingress).unwrap();
            assert_eq!(rules.len(), 2, "rules keep their index");
            assert!(is_closed(&rules[0], read), "{spec}: {rules:#?}");
            assert!(!is_closed(&rules[1], Action::Deny) && rules[0].origin.is_some());
            let found: Vec<_> =
                loaded.diagnostics.iter().map(|d| (d.code, d.severity, d.headline())).collect();
            let headline = format!("AdminNetworkPolicy p: spec.ingress[0].{expected}; {consequence}");
            // `/` has an empty prefix and an empty name.
            let (first, rest) = found.split_first().expect("a warning");
            assert_eq!(first, &(Code::Unusable, Severity::Warning, headline));
            assert!(rest.iter().all(|(code, ..)| *code == Code::Unusable), "{rest:?}");
        }
    }
}

#[test]
fn domain_names_are_peers_of_rules_that_accept() {
    let rules = ["Accept", "Deny", "Pass"].map(|a| {
        format!("{{action: {a}, to: [{{domainNames: ['*.K8S.io.', a.io]}}, {{networks: [10.0.0.0/8]}}]}}")
    });
    let loaded = checked(&object(CNP, "p", &egress(&rules.join(", "))));
    let read = only(&loaded).rules(Direction::Egress).unwrap();
    let peers: Vec<String> =
        read[0].peers.iter().flatten().map(|e| palisade_names::describe_peer(&e.peer)).collect();
    assert_eq!(peers, ["domain name *.k8s.io", "domain name a.io", "10.0.0.0/8"]);
    assert!(is_closed(&read[1], Action::Deny) && is_closed(&read[2], Action::Pass));
    assert_eq!(
        loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(),
        [Code::NotEnforced, Code::Unusable, Code::Unusable]
    );
    let headlines: Vec<String> = loaded.diagnostics.iter().map(|d| d.headline()).collect();
    assert_eq!(
        headlines[..2],
        [
            "ClusterNetworkPolicy p: spec.egress[0].to[0].domainNames: domainNames are enforced only by agents that \
             learn addresses (--domain-names=on); none are known here, so these names match nothing",
            "ClusterNetworkPolicy p: spec.egress[1].to[0].domainNames: domainNames are for rules with action Accept only; \
             the rule is unusable and denies all egress of its subjects"
        ]
    );
}

/// The API admits them, and an agent can't learn an address of them, whatever its settings are.
#[test]
fn domain_names_that_dns_can_not_have_are_named() {
    let (label, other) = ("a".repeat(64), "b".repeat(63));
    let long = [&*other, &other, &other, &other, "io"].join(".");
    let rule = format!("{{action: Accept, to: [{{domainNames: [a.io, {label}.io, '*.{long}']}}]}}");
    let loaded = checked(&object(CNP, "p", &egress(&rule)));
    let found: Vec<_> = loaded.diagnostics.iter().map(|d| (d.code, d.path.as_deref())).collect();
    let path =
        |index| Some(["spec.egress[0].to[0].domainNames[1]", "spec.egress[0].to[0].domainNames[2]"][index]);
    assert_eq!(
        found,
        [
            (Code::NotEnforced, Some("spec.egress[0].to[0].domainNames")),
            (Code::Unusable, path(0)),
            (Code::Unusable, path(1))
        ]
    );
    let read = only(&loaded).rules(Direction::Egress).unwrap();
    assert_eq!(read[0].peers.iter().flatten().count(), 3, "the other names of the rule count");
}

#[test]
fn an_unusable_subject_selects_nothing() {
    let bad = "{namespaces: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}";
    let spec = format!(
        "{{tier: Admin, priority: 0, subject: {bad}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]}}"
    );
    let loaded = checked(&object(CNP, "p", &spec));
    let policy = only(&loaded);
    let NamespaceMatch::Selected(selector) = &policy.subject.namespaces else { panic!("{policy:?}") };
    let labels = palisade_policy::Labels::from_iter([("kubernetes.io/metadata.name", ""), ("a", "1")]);
    assert!(!selector.matches(&labels) && !selector.matches(&palisade_policy::Labels::default()));
    assert_eq!(policy.rules(Direction::Ingress).unwrap().len(), 1, "its rules are kept");
    assert_eq!(
        findings(&loaded),
        [
            "89: warning: spec.subject.namespaces.matchExpressions[0].operator: \"Gt\" is none of the operators In, NotIn, Exists and DoesNotExist; the subject is unusable and the policy selects nothing"
        ]
    );
}

#[test]
fn without_validation_unknown_fields_fail_closed() {
    let peers = |p: &str| format!("{{action: ACTION, from: [{{namespaces: {{}}}}, {p}]}}");
    let ports = |p: &str| format!("{{action: ACTION, from: [{{namespaces: {{}}}}], protocols: [{p}]}}");
    let rules = [
        peers("{}"),
        peers("null"),
        peers("{sameLabels: [a]}"),
        peers("{namespaces: {}, withService: x}"),
        peers("{namespaces: {}, pods: {podSelector: {}}}"),
        peers("{pods: {}}"),
        peers("{namespaces: {matchFields: []}}"),
        peers("{networks: [10.0.0.0/8]}"),
        ports("{}"),
        ports("{tcp: {}}"),
        ports("{tcp: {destinationPort: {}}}"),
        ports("{tcp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}"),
        ports("{tcp: {destinationPort: {number: 70000}}}"),
        ports("{tcp: {destinationPort: {range: {start: 9, end: 3}}}}"),
        ports("{tcp: {destinationPort: {number: 1}, flags: SYN}}"),
        ports("{icmp: {}}"),
        ports(""),
        "{action: ACTION}".to_owned(),
        "{action: ACTION, from: []}".to_owned(),
        "{action: ACTION, from: [{namespaces: {}}], schedule: night}".to_owned(),
    ];
    for rule in &rules {
        for (action, read) in [("Accept", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass)] {
            let spec = format!(
                "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, ingress: [{}]}}",
                rule.replace("ACTION", action)
            );
            let text = object(CNP, "p", &spec);
            let loaded = raw(&text);
            assert!(is_closed(&only(&loaded).rules(Direction::Ingress).unwrap()[0], read), "{spec}");
            assert!(loaded.diagnostics.iter().all(|d| d.code == Code::Unusable), "{:#?}", loaded.diagnostics);
            assert!(!loaded.diagnostics.is_empty());
        }
    }
    for rule in [
        "{from: [{namespaces: {}}]}",
        "{action: Log, from: [{namespaces: {}}]}",
        "{action: Allow, from: [{namespaces: {}}]}",
        "null",
    ] {
        let spec = format!("{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, ingress: [{rule}]}}");
        let loaded = raw(&object(CNP, "p", &spec));
        assert!(is_closed(&only(&loaded).rules(Direction::Ingress).unwrap()[0], Action::Deny), "{spec}");
    }
}

#[test]
fn without_validation_a_policy_without_tier_or_priority_is_an_error() {
    for spec in [
        "null",
        "{tier: Admin, subject: {namespaces: {}}}",
        "{priority: 1, subject: {namespaces: {}}}",
        "{tier: Emergency, priority: 1, subject: {namespaces: {}}}",
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: 5}",
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: 5}]}]}",
    ] {
        let loaded = raw(&object(CNP, "p", spec));
        assert!(loaded.has_errors() && loaded.refused.len() == loaded.cluster.policies.len(), "{spec}");
    }
    let loaded = raw(&object(CNP, "p", "{tier: Admin, priority: 1, subject: {}, enforce: never}"));
    assert_eq!(
        findings(&loaded),
        [
            "37: warning: spec.subject: no known kind of subject; the subject is unusable and the policy selects nothing",
            "41: warning: spec.enforce: unknown field \"enforce\"",
        ]
    );
}

#[test]
fn legacy_cidrs_are_masked_with_a_warning() {
    let loaded = checked(&object(
        CNP,
        "p",
        &egress("{action: Deny, to: [{networks: [10.0.0.5/8, '2001:DB8::/32']}]}"),
    ));
    let peers = only(&loaded).rules(Direction::Egress).unwrap()[0].peers.clone().unwrap();
    let blocks: Vec<String> = peers
        .iter()
        .map(|p| match &p.peer {
            Peer::Block(block) => block.cidr.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(blocks, ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::Ambiguous; 2]);
}

#[test]
fn undefined_order_is_a_warning() {
    let cnp = |name: &str, tier: &str, priority: u32| {
        object(CNP, name, &format!("{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}}}"))
    };
    let anp = |name: &str, priority: u32| {
        object(ANP, name, &format!("{{priority: {priority}, subject: {{namespaces: {{}}}}}}"))
    };
    let text = |parts: &[String]| parts.join("---\n");
    let apart = [cnp("a", "Admin", 1), cnp("b", "Admin", 2), cnp("c", "Baseline", 1)];
    assert!(checked(&text(&apart)).diagnostics.is_empty());
    let alone = [anp("a", 1), object(BANP, "default", "{subject: {namespaces: {}}}")];
    assert!(checked(&text(&alone)).diagnostics.is_empty());

    let loaded =
        checked(&text(&[anp("c", 1), cnp("b", "Admin", 1), cnp("a", "Admin", 1), cnp("d", "Baseline", 5)]));
    assert_eq!(loaded.cluster.policies.len(), 4);
    assert_eq!(
        loaded.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "p.yaml:4:1: warning: ClusterNetworkPolicy b: spec.priority: 3 policies of tier Admin have priority 1; if \
             several match, the API doesn't define which one decides. They are evaluated in this order: \
             ClusterNetworkPolicy a, ClusterNetworkPolicy b, AdminNetworkPolicy c",
            "p.yaml:1:1: warning: AdminNetworkPolicy c: is used together with ClusterNetworkPolicies, and the API doesn't \
             define their order: AdminNetworkPolicies are evaluated with the policies of tier Admin by priority, \
             BaselineAdminNetworkPolicy after all policies of tier Baseline",
        ]
    );
    let many: Vec<String> = (0..9).map(|n| cnp(&format!("p{n}"), "Admin", 3)).collect();
    let loaded = checked(&text(&many));
    assert_eq!(loaded.diagnostics.len(), 1);
    assert!(loaded.diagnostics[0].message.ends_with("ClusterNetworkPolicy p4 and 4 more"));
}

//! Cluster-wide policies that the API server would reject, and its messages.

mod support;

use palisade_manifest::{Admission, Channel, Code, Input, LoadOptions, Severity, load};
use palisade_policy::Direction;
use support::{ANP, BANP, CNP, checked, egress, findings, load_as, object, only};

const BETA: &str = "policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy";

#[test]
fn every_check_of_the_definitions_has_the_api_servers_message() {
    let rule = |rule: &str| egress(rule);
    let to = |peer: &str| egress(&format!("{{action: Deny, to: [{peer}]}}"));
    let port =
        |port: &str| egress(&format!("{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{port}]}}"));
    let cases: Vec<(&str, String, &str)> = vec![
        (CNP, "null".into(), "spec: Required value"),
        (CNP, "{priority: 0, subject: {namespaces: {}}}".into(), "spec.tier: Required value"),
        (CNP, "{tier: Admin, priority: null, subject: {namespaces: {}}}".into(), "spec.priority: Required value"),
        (CNP, "{tier: Admin, priority: 0}".into(), "spec.subject: Required value"),
        (
            CNP,
            "{tier: admin, priority: 0, subject: {namespaces: {}}}".into(),
            "spec.tier: Unsupported value: \"admin\": supported values: \"Admin\", \"Baseline\"",
        ),
        (
            CNP,
            "{tier: Admin, priority: 1001, subject: {namespaces: {}}}".into(),
            "spec.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000",
        ),
        (
            ANP,
            "{priority: -1, subject: {namespaces: {}}}".into(),
            "spec.priority: Invalid value: -1: spec.priority in body should be greater than or equal to 0",
        ),
        (
            CNP,
            "{tier: Admin, priority: high, subject: {namespaces: {}}}".into(),
            "spec.priority: cannot unmarshal string into a field of type int32",
        ),
        (
            CNP,
            "{tier: Admin, priority: 0, subject: {}}".into(),
            "spec.subject: Invalid value: 0: spec.subject in body should have at least 1 properties",
        ),
        (
            CNP,
            "{tier: Admin, priority: 0, subject: {namespaces: {}, pods: {podSelector: {}}}}".into(),
            "spec.subject: Too many: 2: must have at most 1 items",
        ),
        (
            CNP,
            "{tier: Admin, priority: 0, subject: {pods: {namespaceSelector: {}}}}".into(),
            "spec.subject.pods.podSelector: Required value",
        ),
        (
            ANP,
            "{priority: 0, subject: {pods: {podSelector: {}}}}".into(),
            "spec.subject.pods.namespaceSelector: Required value",
        ),
        (
            CNP,
            "{tier: Admin, priority: 0, subject: {namespaces: {matchExpressions: [{key: a}]}}}".into(),
            "spec.subject.namespaces.matchExpressions[0].operator: Required value",
        ),
        (CNP, rule("{to: [{namespaces: {}}]}"), "spec.egress[0].action: Required value"),
        (CNP, rule("{action: Deny}"), "spec.egress[0].to: Required value"),
        (
            CNP,
            rule("{action: Deny, to: []}"),
            "spec.egress[0].to: Invalid value: 0: spec.egress[0].to in body should have at least 1 items",
        ),
        (
            CNP,
            rule("null"),
            "spec.egress[0]: Invalid value: \"null\": spec.egress[0] in body must be of type object: \"null\"",
        ),
        (
            CNP,
            to(&["{namespaces: {}}"; 26].join(",")),
            "spec.egress[0].to: Too many: 26: must have at most 25 items",
        ),
        (
            CNP,
            port("{tcp: {}}"),
            "spec.egress[0].protocols[0].tcp: Invalid value: 0: spec.egress[0].protocols[0].tcp in body should have at least 1 properties",
        ),
        (
            CNP,
            port("{tcp: {destinationPort: {number: 0}}}"),
            "spec.egress[0].protocols[0].tcp.destinationPort.number: Invalid value: 0: spec.egress[0].protocols[0].tcp.destinationPort.number in body should be greater than or equal to 1",
        ),
        (
            CNP,
            port("{udp: {destinationPort: {range: {start: 5, end: 5}}}}"),
            "spec.egress[0].protocols[0].udp.destinationPort.range: Invalid value: \"object\": Start port must be less than End port",
        ),
        (
            CNP,
            port("{sctp: {destinationPort: {range: {start: 5}}}}"),
            "spec.egress[0].protocols[0].sctp.destinationPort.range.end: Required value",
        ),
        (
            CNP,
            to("{networks: [10.0.0.0/8, 10.0.0.0/8]}"),
            "spec.egress[0].to[0].networks[1]: Duplicate value: \"10.0.0.0/8\"",
        ),
        (
            CNP,
            to("{networks: ['fe80::1%eth0/64']}"),
            "spec.egress[0].to[0].networks[0]: Invalid value: \"fe80::1%eth0/64\": Invalid CIDR format provided",
        ),
        (
            CNP,
            to("{networks: ['::ffff:10.0.0.0/104']}"),
            "spec.egress[0].to[0].networks[0]: Invalid value: \"::ffff:10.0.0.0/104\": Invalid CIDR format provided",
        ),
        (
            BETA,
            to("{networks: [10.0.0.5/8]}"),
            "spec.egress[0].to[0].networks[0]: Invalid value: \"10.0.0.5/8\": Invalid CIDR format provided",
        ),
        (
            BETA,
            to("{domainNames: [_a.io]}"),
            "spec.egress[0].to[0].domainNames[0]: Invalid value: \"_a.io\": spec.egress[0].to[0].domainNames[0] in body should match '^(\\*\\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.?$'",
        ),
        (
            CNP,
            rule("{action: Deny, to: [{nodes: {}}], protocols: [{destinationNamedPort: web}]}"),
            "spec.egress[0]: Invalid value: \"object\": networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames",
        ),
        (
            BANP,
            "{subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {}}], ports: [{namedPort: web}]}]}".into(),
            "spec.egress[0]: Invalid value: \"object\": networks/nodes peer cannot be set with namedPorts since there are no namedPorts for networks/nodes",
        ),
    ];
    for (kind, spec, expected) in &cases {
        let loaded = checked(&object(kind, "default", spec));
        let errors: Vec<String> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .map(|d| format!("{}: {}", d.path.as_deref().unwrap_or_default(), d.message))
            .collect();
        assert_eq!(errors, [*expected], "{spec}");
        assert_eq!((loaded.cluster.policies.len(), loaded.refused.len()), (1, 1), "it stays, refused");
        assert_eq!(loaded.counts.rejected.values().sum::<usize>(), 1);
    }
    let misnamed = checked(&object(BANP, "other", "{subject: {namespaces: {}}}"));
    assert_eq!(
        misnamed.diagnostics[0].to_string(),
        "p.yaml:1:100: error: BaselineAdminNetworkPolicy other: metadata.name: Invalid value: \"object\": Only one \
         baseline admin network policy with metadata.name=\"default\" can be created in the cluster"
    );
}

#[test]
fn all_errors_of_an_object_are_reported() {
    let spec = "{tier: a, priority: 1.5, subject: {pod: {}}, ingress: [{from: [{}, null], protocols: []}], egress: 5}";
    let loaded = checked(&object(CNP, "p", spec));
    assert_eq!(
        findings(&loaded),
        [
            "8: error: spec.tier: Unsupported value: \"a\": supported values: \"Admin\", \"Baseline\"",
            "21: error: spec.priority: cannot unmarshal number 1.5 into a field of type int32",
            "35: error: spec.subject: Invalid value: 0: spec.subject in body should have at least 1 properties",
            "36: warning: spec.subject.pod: unknown field \"pod\"",
            "56: error: spec.ingress[0].action: Required value",
            "64: error: spec.ingress[0].from[0]: Invalid value: 0: spec.ingress[0].from[0] in body should have at least 1 properties",
            "68: error: spec.ingress[0].from[1]: Invalid value: \"null\": spec.ingress[0].from[1] in body must be of type object: \"null\"",
            "86: error: spec.ingress[0].protocols: Invalid value: 0: spec.ingress[0].protocols in body should have at least 1 items",
            "100: error: spec.egress: cannot unmarshal number into a field of type array",
        ]
    );
    let subject = &loaded.diagnostics[2];
    assert_eq!(
        subject.help.as_deref(),
        Some("set one of namespaces, pods; the API server drops unknown fields before it counts")
    );
    assert_eq!(loaded.diagnostics[3].help.as_deref(), Some("did you mean `pods`?"));
}

#[test]
fn the_standard_channel_drops_unknown_fields() {
    let standard = |text: &str| load_as(text, Channel::Standard, Admission::Check);
    // An unknown field leaves the peer empty, and an empty peer is rejected. A peer with a known field keeps that
    // field.
    let loaded = standard(&object(CNP, "p", &egress("{action: Deny, to: [{nodes: {}}]}")));
    assert!(loaded.has_errors());
    for diagnostic in &loaded.diagnostics {
        let help = diagnostic.help.as_deref().unwrap();
        assert!(help.starts_with("`nodes` is only in the experimental channel"), "{diagnostic}: {help}");
    }
    let both = object(CNP, "p", &egress("{action: Deny, to: [{networks: [10.0.0.0/8], nodes: {}}]}"));
    let loaded = standard(&both);
    assert_eq!(findings(&loaded), ["109: warning: spec.egress[0].to[0].nodes: unknown field \"nodes\""]);
    assert_eq!(only(&loaded).rules(Direction::Egress).unwrap()[0].peers.as_ref().unwrap().len(), 1);
    assert!(checked(&both).has_errors(), "two kinds in the experimental channel");
    let named = "{priority: 0, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {port: 1}, namedPort: web}]}]}";
    let loaded = standard(&object(ANP, "p", named));
    assert_eq!(only(&loaded).rules(Direction::Ingress).unwrap()[0].ports.as_ref().unwrap().len(), 1);
    let loaded = standard(&object(
        BETA,
        "p",
        &egress("{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]}"),
    ));
    assert!(loaded.has_errors(), "experimental in v1beta1");
    let help = loaded.diagnostics.iter().find_map(|d| d.help.as_deref()).unwrap();
    assert!(help.starts_with("`destinationNamedPort` is only in the experimental channel"), "{help}");
    // G-15: usable, but easily misunderstood.
    let loaded = standard(&object(
        CNP,
        "p",
        &egress("{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]}"),
    ));
    only(&loaded);
    assert_eq!(loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::Ambiguous]);
}

#[test]
fn null_fields_are_absent() {
    let spec = "{tier: Admin, priority: 0, subject: {pods: {namespaceSelector: null, podSelector: {matchLabels: {a: null, b: c}, matchExpressions: null}}, namespaces: null}, ingress: null, extra: null}";
    let loaded = checked(&object(CNP, "p", spec));
    assert_eq!(only(&loaded).subject.pods.to_string(), "b=c");
    assert_eq!(only(&loaded).subject.namespaces.to_string(), "every namespace");
}

#[test]
fn strict_reading_rejects_unknown_fields() {
    let text = object(CNP, "p", "{tier: Admin, priority: 0, subject: {namespaces: {}}, prioritie: 5}");
    assert!(!checked(&text).has_errors());
    let input = Input::Text { name: "p.yaml".to_owned(), text };
    assert!(load(&[input], &LoadOptions { strict: true, ..LoadOptions::default() }).has_errors());
}

//! Records that differ from the engine's decision are found.

use std::sync::Arc;

use palisade_policy::{
    Action, Change, Labels, Namespace, NamespaceMatch, ObjectKey, Origin, Peer, PeerEntry, Pod, PodMatch,
    Policy, Protocol, Rule, Selector, Tier,
};
use palisade_testkit::running_pod;

use super::*;
use crate::{
    options::{Families, LayoutOptions},
    probe::{Plan, ProbeOptions},
};

/// Two pods on two nodes: `a` may receive from `c` alone, which does not exist.
fn layout(mode: Mode) -> Layout {
    let mut cluster = Cluster::default();
    cluster.apply(Change::SetNamespace(Namespace::new("x", &Labels::default())));
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        cluster.apply(Change::SetPod(Pod { node: Some(node.into()), ..running_pod("x", name) }));
    }
    let origin = |line| Some(Origin { file: "policy.yaml".into(), line, column: 1 });
    let pods = |app| PodMatch {
        namespaces: NamespaceMatch::Named("x".into()),
        pods: Selector::of_labels([("app", app)]),
    };
    let rule = Rule {
        name: None,
        action: Action::Accept,
        peers: Some(vec![PeerEntry { peer: Peer::Pods(pods("c")), origin: origin(8) }]),
        ports: None,
        origin: origin(7),
    };
    cluster.apply(Change::SetPolicy(Arc::new(Policy {
        key: PolicyKey::network_policy("x", "a-from-c"),
        tier: Tier::Developer,
        priority: 0,
        subject: pods("a"),
        ingress: Some(vec![rule]),
        egress: None,
        mode: Some(mode),
        origin: origin(1),
    })));
    let options = LayoutOptions { families: Families::V4, ..LayoutOptions::default() };
    Layout::of(&cluster, &options).unwrap()
}

fn probe(layout: &Layout) -> Probe {
    let of = |end: &Endpoint, name: &str| Place::of(end) == Place::Pod(ObjectKey::new("x", name));
    let plan = Plan::of(layout, &ProbeOptions::default());
    let mut probes = plan.probes.into_iter();
    let found = probes.find(|probe| {
        let (flow, _) = &probe.flows[0];
        of(&flow.source, "b") && of(&flow.destination, "a") && flow.protocol == Protocol::Tcp
    });
    found.unwrap()
}

fn record(probe: &Probe, verdict: flow::Verdict) -> Record {
    let pod = |name: &str| Object {
        kind: "Pod".to_owned(),
        namespace: Some("x".to_owned()),
        name: name.to_owned(),
    };
    let end = |address, name: &str| flow::End {
        address,
        pod: Some(pod(name)),
        workload: None,
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        node: None,
        names: Vec::new(),
    };
    let policy = Object { kind: "NetworkPolicy".to_owned(), ..pod("a-from-c") };
    Record {
        id: 1,
        time: jiff::Timestamp::UNIX_EPOCH,
        node: "n1".to_owned(),
        verdict,
        direction: flow::Direction::Ingress,
        source: end(probe.source.address(), "b"),
        destination: end(probe.target.address(), "a"),
        opened_to: None,
        protocol: "TCP".to_owned(),
        port: Some(probe.port),
        policies: vec![policy.clone()],
        rule: Some(flow::Rule {
            policy,
            field: "ingress[0]".to_owned(),
            name: None,
            at: Some("policy.yaml:7".to_owned()),
            decided: false,
        }),
        reason: vec!["words".to_owned()],
        generation: 1,
        count: 1,
        ended: None,
    }
}

fn wording() -> Wording {
    Arc::new(|_, _| vec!["words".to_owned()])
}

#[test]
fn a_dropped_probe_must_have_a_record_of_the_side_that_denies() {
    let (layout, wording) = (layout(Mode::Enforce), wording());
    let expectations = Expectations::of(&layout, &wording);
    let probe = probe(&layout);
    let key = FlowKey::of(&record(&probe, flow::Verdict::Dropped)).unwrap();
    assert_eq!(expectations.of_probe(&probe, &Outcome::TimedOut), [BTreeSet::from([key])]);
    let answered = Outcome::Connected { by: None, seen_from: None };
    assert!(expectations.of_probe(&probe, &answered).is_empty());
}

#[test]
fn a_probe_that_a_policy_in_audit_mode_would_drop_must_have_a_record_if_it_passed() {
    let (layout, wording) = (layout(Mode::Audit), wording());
    let expectations = Expectations::of(&layout, &wording);
    let probe = probe(&layout);
    let audited = Record {
        reason: vec!["NetworkPolicy x/a-from-c is in audit mode".to_owned(), "words".to_owned()],
        ..record(&probe, flow::Verdict::Audited)
    };
    let answered = Outcome::Connected { by: Some(Place::of(&probe.flows[0].0.destination)), seen_from: None };
    let wanted = expectations.of_probe(&probe, &answered);
    assert_eq!(wanted, [BTreeSet::from([FlowKey::of(&audited).unwrap()])]);
    let probes = [probe];
    assert_eq!(expectations.differences(&audited, &probes), []);
    let dropped = Record { verdict: flow::Verdict::Dropped, ..audited };
    assert_eq!(expectations.differences(&dropped, &probes)[0].field, "verdict");
}

#[test]
fn a_record_with_another_field_than_the_engine_has_is_found() {
    let (layout, wording) = (layout(Mode::Enforce), wording());
    let expectations = Expectations::of(&layout, &wording);
    let probes = [probe(&layout)];
    let right = record(&probes[0], flow::Verdict::Dropped);
    assert_eq!(expectations.differences(&right, &probes), []);
    let rule = || right.rule.clone().unwrap();
    let in_rule = |rule| Record { rule: Some(rule), ..right.clone() };
    let wrong = [
        ("verdict", Record { verdict: flow::Verdict::Audited, ..right.clone() }),
        ("verdict", Record { direction: flow::Direction::Egress, ..right.clone() }),
        ("verdict", Record { node: "n2".to_owned(), ..right.clone() }),
        ("connection", Record { port: Some(1), ..right.clone() }),
        ("connection", Record { protocol: "UDP".to_owned(), port: Some(1), ..right.clone() }),
        ("policies", Record { policies: Vec::new(), ..right.clone() }),
        ("rule", Record { rule: None, ..right.clone() }),
        ("rule", in_rule(flow::Rule { at: Some("policy.yaml:8".to_owned()), ..rule() })),
        ("rule", in_rule(flow::Rule { field: "ingress[1]".to_owned(), ..rule() })),
        ("rule", in_rule(flow::Rule { decided: true, ..rule() })),
        ("reason", Record { reason: vec!["other words".to_owned()], ..right.clone() }),
        ("source", Record { source: flow::End { pod: None, ..right.source.clone() }, ..right.clone() }),
        (
            "labels",
            Record {
                destination: flow::End { labels: BTreeMap::new(), ..right.destination.clone() },
                ..right.clone()
            },
        ),
    ];
    for (field, record) in wrong {
        let found = expectations.differences(&record, &probes);
        let fields: Vec<&str> = found.iter().map(|difference| difference.field).collect();
        assert_eq!(fields, [field], "{record:?}");
    }
}

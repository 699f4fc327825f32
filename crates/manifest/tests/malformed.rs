//! No input makes the loader panic, hang or accept half of an object: arbitrary bytes, and valid manifests with errors.

use palisade_manifest::{
    Admission, Channel, Code, Input, LoadOptions, Loaded, Style, load, render,
    tree::{At, Documents, Limits, Value},
};
use palisade_policy::{Action, Tier};
use proptest::prelude::*;

const FIXTURE: &str = include_str!("fixture.yaml");

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x, labels: {a: 'b'}}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: k, operator: NotIn, values: [v, w]}]}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
      namespaceSelector: {matchLabels: {team: red}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}
    ports: [{protocol: UDP, port: 53}, {port: http}, {port: 1000, endPort: 2000}]
  egress: [{}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  template:
    metadata: {labels: &l {app: db}}
    spec: {initContainers: [{restartPolicy: Always, ports: [{containerPort: 9}]}], nodeSelector: *l}
";

const CLUSTER_WIDE: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: web}}, namespaceSelector: {}}}
  ingress:
  - {name: one, action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]}
  egress:
  - action: Pass
    to:
    - networks: [10.0.0.0/8, 'fd00::/8']
    - nodes: {matchExpressions: [{key: role, operator: In, values: [cp]}]}
    protocols: [{tcp: {destinationPort: {number: 443}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: old}
spec:
  priority: 9
  subject: {namespaces: {}}
  ingress:
  - action: Allow
    from: [{pods: {namespaceSelector: {}, podSelector: {}}}]
    ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 1, end: 9}}, {namedPort: web}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: ['::/0']}]}]}
";

/// Fragments with a meaning in YAML or in manifests.
const SCRAPS: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "- ",
    ": ",
    "---\n",
    "...\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!int ",
    "!x ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "%",
    "@",
    "`",
    "?",
    "null",
    "~",
    "no",
    "0777",
    "-1",
    "4294967296",
    "1e400",
    ".nan",
    "é",
    "\u{feff}",
    "\u{0}",
    "\u{7f}",
    "\u{2028}",
    "{{ .Values.x }}",
    "name: ",
    "items:\n",
    "kind: List\n",
    "replicas: -3",
    "::/0",
    "10.0.0.0/33",
    "action: Deny",
    "domainNames: [a.io]",
    "from: []",
    "tcp: {}",
    "notIn",
];

const POLICIES: [&str; 4] =
    ["NetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/// Loads a text with all options, renders every finding, and checks invariants.
fn load_and_check(text: &str) -> Loaded {
    for (channel, admission) in
        [(Channel::Standard, Admission::Check), (Channel::Experimental, Admission::Passed)]
    {
        load_with(text, &LoadOptions { channel, admission, ..LoadOptions::default() });
    }
    load_with(text, &LoadOptions::default())
}

fn load_with(text: &str, options: &LoadOptions) -> Loaded {
    let options = LoadOptions { max_made_pods: 1000, ..options.clone() };
    let loaded = load(&[Input::Text { name: "t".to_owned(), text: text.to_owned() }], &options);
    for diagnostic in &loaded.diagnostics {
        let drawn = render(diagnostic, Style::default());
        assert!(!drawn.is_empty());
        if let Some(span) = &diagnostic.span {
            assert!(text.get(span.start as usize..span.end as usize).is_some(), "{diagnostic:?}");
        }
    }
    let accepted: usize = POLICIES.iter().filter_map(|kind| loaded.counts.objects.get(*kind)).sum();
    assert!(loaded.cluster.policies.len() <= accepted + loaded.refused.len());
    for refused in &loaded.refused {
        assert!(loaded.has_errors(), "{refused}");
        let policy = &loaded.cluster.policies[&refused.key];
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        let opens = |r: &palisade_policy::Rule| {
            r.action != Action::Deny && r.peers.as_ref().is_none_or(|p| !p.is_empty())
        };
        assert!(!rules.clone().any(opens), "{refused}: {policy:?}");
        assert!(
            policy.tier != Tier::Developer
                || (rules.count() == 0 && (policy.ingress.is_some() || policy.egress.is_some()))
        );
    }
    for policy in loaded.cluster.policies.values() {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        assert!(rules.clone().all(|rule| rule.origin.is_some()));
        if policy.tier != Tier::Developer {
            // Except for unusable ones, a cluster-wide rule has peers.
            assert!(
                rules.clone().all(|r| r.peers.is_some() || (r.action == Action::Deny && r.ports.is_none()))
            );
        }
    }
    for pod in loaded.cluster.pods.values() {
        assert!(loaded.cluster.namespaces.contains_key(&pod.key.namespace));
        assert!(pod.workload.is_some());
    }
    loaded
}

fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0usize..20, prop::sample::select(SCRAPS));
    let text = prop_oneof![Just(POLICY), Just(CLUSTER_WIDE), Just(FIXTURE)];
    (text, prop::collection::vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, removed, scrap) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, scrap.chars());
        }
        text.into_iter().collect()
    })
}

/// Checks that the span of every scalar contains its text: read alone, it has the same value.
fn check_spans(text: &str, at: &At<'_>, parent: std::ops::Range<u32>) {
    let span = at.span();
    assert!(parent.start <= span.start && span.end <= parent.end, "{at:?} is outside {parent:?}");
    let own = &text[span.start as usize..span.end as usize];
    match at.value() {
        Value::Mapping(_) => {
            for (_, key, value) in at.entries() {
                check_spans(text, &key, span.clone());
                check_spans(text, &value, span.clone());
            }
        }
        Value::Sequence(_) => at.items().for_each(|item| check_spans(text, &item, span.clone())),
        Value::Scalar(scalar) => {
            let Some(Ok(alone)) = Documents::new(own, Limits::default()).next() else {
                assert!(own.is_empty(), "{own:?}");
                return;
            };
            let Value::Scalar(again) = alone.root().value() else { panic!("{own:?} is a scalar") };
            assert_eq!(format!("{again:?}"), format!("{scalar:?}"), "{own:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        load_and_check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn fragments(scraps in prop::collection::vec(prop::sample::select(SCRAPS), 0..60)) {
        load_and_check(&scraps.concat());
    }

    #[test]
    fn broken_manifests(text in mutated()) {
        load_and_check(&text);
    }

    #[test]
    fn a_truncated_manifest(at in any::<prop::sample::Index>()) {
        for text in [POLICY, CLUSTER_WIDE] {
            load_and_check(&text[..at.index(text.len() + 1)]);
        }
    }
}

#[test]
fn binary_files_are_rejected_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.yaml");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    runner
        .run(&bytes, |bytes| {
            std::fs::write(&path, &bytes).unwrap();
            let loaded = load(&[Input::Path(path.clone())], &LoadOptions::default());
            prop_assert_eq!(loaded.cluster.policies.len(), loaded.refused.len());
            Ok(())
        })
        .unwrap();
}

#[test]
fn spans_contain_the_scalars() {
    for text in [FIXTURE, &POLICY.replace("*l", "{}"), CLUSTER_WIDE] {
        let mut documents = 0;
        for document in Documents::new(text, Limits::default()) {
            let tree = document.unwrap();
            check_spans(text, &tree.root(), 0..text.len() as u32);
            documents += 1;
        }
        assert!(documents >= 2);
    }
}

#[test]
fn documents_without_a_word_are_passed_over_unless_an_escape_may_be_it() {
    let text =
        "kind: Pod\n---\nkind: Policy\n---\nkind: [\n---\nkind: \"Pol\\u0069cy\"\n---\nkind: [Policy\n";
    let all = Documents::new(text, Limits::default());
    assert_eq!(all.map(|document| document.is_ok()).collect::<Vec<_>>(), [true, true, false, true, false]);
    let found = Documents::new(text, Limits::default()).containing("Policy");
    assert_eq!(found.map(|document| document.is_ok()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn the_unmodified_manifests_are_valid() {
    for text in [FIXTURE, POLICY] {
        let loaded = load_and_check(text);
        assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    }
    let loaded = load_and_check(CLUSTER_WIDE);
    assert_eq!(loaded.cluster.policies.len(), 3);
    assert_eq!(loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::MixedApis]);
}

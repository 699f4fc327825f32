//! The patches of `explain`, as text, are true: a random cluster is written as manifests, a patch is applied to the files
//! with `git apply`, and every connection is decided before and after.
//!
//! What the edits of a plan do is tested in the analysis crate. This is about what lies between a plan and a user's files:
//! how edits are rendered, where they are inserted, and how the effects are written as JSON.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;
#[path = "patches/writer.rs"]
mod writer;

use std::{fs, net::IpAddr, path::Path};

use ipnet::IpNet;
use palisade_manifest::{Input, LoadOptions, Loaded, Severity};
use palisade_policy::{Cluster, Endpoint, Family, Flow, Protocol, reference::decide};
use palisade_testkit::{Rng, Shape, cluster, endpoints, flows, seeds, traffic};
use serde_json::Value;
use support::{apply, palisade, run};
use tempfile::TempDir;

/// The most addresses outside the cluster that are compared for each patch.
const EXTERNALS: usize = 12;

/// Runs the program in a directory.
fn here(dir: &Path, words: &str) -> (i32, String) {
    let (code, out, err) = run(palisade(words).current_dir(dir));
    assert!(code == 0 || code == 1, "{words}: exit code {code}\n{out}{err}");
    (code, out)
}

fn read(dir: &Path) -> Loaded {
    let loaded = palisade_manifest::load(&[Input::Path(dir.to_owned())], &LoadOptions::default());
    let errors = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    assert_eq!(errors.map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    loaded
}

fn each_file(dir: &Path, change: impl Fn(String) -> String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(text)).unwrap();
    }
}

fn copy(dir: &Path) -> TempDir {
    let out = TempDir::new().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, out.path().join(path.file_name().unwrap())).unwrap();
    }
    out
}

/// An end as a user names it. A pod means all of its addresses.
fn word(end: &Endpoint) -> String {
    match end {
        Endpoint::Pod { key, .. } => format!("{}/pod/{}", key.namespace, key.name),
        Endpoint::Node { address, .. } | Endpoint::External(address) => address.to_string(),
    }
}

/// The question about a flow, as words. An IPv6 address with a port is in brackets.
fn pair(flow: &Flow) -> String {
    let destination = word(&flow.destination);
    let destination = if destination.contains(':') { format!("[{destination}]") } else { destination };
    format!("{} {destination}:{}/{}", word(&flow.source), flow.port, flow.protocol)
}

fn is_pod(end: &Endpoint) -> bool {
    matches!(end, Endpoint::Pod { .. })
}

/// Whether two ends are the same to the question: a pod is asked about with all of its addresses.
fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    match (a, b) {
        (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) => a == b,
        _ => a == b,
    }
}

fn is_asked(question: &Flow, flow: &Flow) -> bool {
    is_same(&question.source, &flow.source)
        && is_same(&question.destination, &flow.destination)
        && (question.protocol, question.port) == (flow.protocol, flow.port)
}

/// Whether an end in an answer contains an endpoint.
fn holds(end: &Value, cluster: &Cluster, at: &Endpoint) -> bool {
    let objects = end["objects"].as_array().unwrap();
    let has = |kind: &str, namespace: Option<&str>, name: &str| {
        objects.iter().any(|o| {
            o["kind"] == *kind
                && o["name"] == *name
                && o.get("namespace").and_then(Value::as_str) == namespace
        })
    };
    match at {
        Endpoint::Pod { key, .. } => {
            let namespace = Some(&*key.namespace);
            let workload = cluster.pods.get(key).and_then(|pod| pod.workload.clone());
            has("Pod", namespace, &key.name)
                || has("Namespace", None, &key.namespace)
                || workload.is_some_and(|w| has(&w.kind, namespace, &w.name))
        }
        Endpoint::Node { name, .. } => has("Node", None, name),
        Endpoint::External(address) => {
            let cidrs = end["cidrs"].as_array().unwrap();
            cidrs.iter().any(|c| c.as_str().unwrap().parse::<IpNet>().unwrap().contains(address))
        }
    }
}

fn has_traffic(traffic: &Value, protocol: Protocol, port: u16) -> bool {
    if !protocol.has_ports() {
        return traffic["other_protocols"] == true;
    }
    let range = |r: &Value| {
        let at = |key: &str| r[key].as_u64().unwrap();
        r["protocol"] == protocol.to_string() && (at("first")..=at("last")).contains(&port.into())
    };
    traffic["all"] == true || traffic["ports"].as_array().unwrap().iter().any(range)
}

fn is_in(changes: &Value, cluster: &Cluster, flow: &Flow) -> bool {
    let family = Family::of(flow.source.address()).to_string();
    changes.as_array().unwrap().iter().any(|change| {
        change["families"].as_array().unwrap().contains(&family.clone().into())
            && has_traffic(&change["traffic"], flow.protocol, flow.port)
            && holds(&change["from"], cluster, &flow.source)
            && holds(&change["to"], cluster, &flow.destination)
    })
}

/// The endpoints of a cluster with some of the addresses outside.
fn sample(rng: &mut Rng, cluster: &Cluster, asked: &Flow) -> Vec<Endpoint> {
    let (mut outside, mut ends): (Vec<_>, Vec<_>) =
        endpoints(cluster).into_iter().partition(|e| matches!(e, Endpoint::External(_)));
    rng.shuffle(&mut outside);
    ends.extend(outside.into_iter().take(EXTERNALS));
    for end in [&asked.source, &asked.destination] {
        if !ends.contains(end) {
            ends.push(end.clone());
        }
    }
    ends
}

/// Compares connections before and after a suggestion with what it says.
fn is_true(rng: &mut Rng, [before, after]: [&Cluster; 2], asked: &Flow, suggestion: &Value, wanted: bool) {
    let mut ports = traffic(before);
    ports.extend(traffic(after));
    ports.push((asked.protocol, asked.port));
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|(protocol, port)| *port > 0 || !protocol.has_ports());
    let ends = sample(rng, before, asked);
    for source in &ends {
        for destination in ends.iter().filter(|d| is_pod(d) || is_pod(source)) {
            // A node reaches its own pods whatever policies say (SEMANTICS A39), so answers have it apart.
            let own = matches!((source, destination), (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. })
                if before.pods.get(key).is_some_and(|pod| pod.node.as_ref() == Some(name)));
            let addresses: [IpAddr; 2] = [source.address(), destination.address()];
            let itself = is_pod(source) && is_same(source, destination);
            if itself || own || Family::of(addresses[0]) != Family::of(addresses[1]) {
                continue;
            }
            for &(protocol, port) in &ports {
                let (source, destination) = (source.clone(), destination.clone());
                let flow = Flow { source, destination, protocol, port, through_service: false };
                let [was, is] = [before, after].map(|c| decide(c, &flow).verdict().is_allow());
                if is_asked(asked, &flow) {
                    assert_eq!(is, wanted, "{flow:?} was asked: {suggestion:#}");
                    continue;
                }
                let said = ["opens", "closes"].map(|list| is_in(&suggestion[list], before, &flow));
                assert_eq!(
                    said,
                    [!was && is, was && !is],
                    "{asked:?}\n{flow:?}: {was}, then {is}: {suggestion:#}"
                );
            }
        }
    }
}

/// What was tested.
#[derive(Debug, Default)]
struct Tally {
    asked: usize,
    /// Questions with a suggestion.
    solved: usize,
    allowed: usize,
    denied: usize,
    /// Suggestions that a patch cannot express.
    by_hand: usize,
}

/// Asks about a flow, and follows the first suggestion and one of the others.
fn follow(rng: &mut Rng, dir: &Path, before: &Cluster, flow: &Flow, tally: &mut Tally) {
    let pair = pair(flow);
    let (code, _) = here(dir, &format!("can {pair} -f ."));
    let (wanted, option) = if code == 0 { (false, " --to-deny") } else { (true, "") };
    let (_, out) = here(dir, &format!("explain {pair}{option} -f . -o json"));
    let answer: Value = serde_json::from_str(&out).unwrap();
    let suggestions = answer["suggestions"].as_array().unwrap();
    tally.asked += 1;
    tally.solved += usize::from(!suggestions.is_empty());
    let other = (suggestions.len() > 1).then(|| rng.usize(1..suggestions.len()));
    for suggestion in [Some(0), other].into_iter().flatten().filter_map(|i| suggestions.get(i)) {
        if suggestion["by_hand"] != serde_json::json!([]) {
            tally.by_hand += 1;
            continue;
        }
        let edited = copy(dir);
        apply(edited.path(), suggestion["patch"].as_str().unwrap());
        each_file(edited.path(), |text| {
            let returns = text.matches("\r\n").count();
            assert!(returns == 0 || returns == text.matches('\n').count(), "mixed line ends: {text:?}");
            text
        });
        let (code, out) = here(edited.path(), &format!("can {pair} -f ."));
        assert_eq!(code, i32::from(!wanted), "{pair}: {out}{suggestion:#}");
        is_true(rng, [before, &read(edited.path()).cluster], flow, suggestion, wanted);
        *(if wanted { &mut tally.allowed } else { &mut tally.denied }) += 1;
    }
}

/// Returns a denied and an allowed flow that a user can ask about.
fn questions(rng: &mut Rng, cluster: &Cluster) -> Vec<Flow> {
    let mut found: [Option<Flow>; 2] = [None, None];
    for flow in flows(rng, cluster, 60) {
        let flow = Flow { through_service: false, ..flow };
        let asked = is_pod(&flow.source) || is_pod(&flow.destination);
        if asked && !is_same(&flow.source, &flow.destination) && flow.port > 0 {
            let allowed = decide(cluster, &flow).verdict().is_allow();
            found[usize::from(allowed)].get_or_insert(flow);
        }
    }
    found.into_iter().flatten().collect()
}

#[test]
fn patches_do_what_they_say() {
    let mut tally = Tally::default();
    for seed in seeds(0..cases()) {
        let rng = &mut Rng::with_seed(seed);
        let shape = if rng.bool() { Shape::small_tiered() } else { Shape::tiered() };
        let world = cluster(rng, &shape);
        let dir = TempDir::new().unwrap();
        writer::write(&world, rng, dir.path());
        let from_windows = seed % 3 == 1;
        if from_windows {
            each_file(dir.path(), |text| format!("\u{feff}{}", text.replace('\n', "\r\n")));
        }
        let before = read(dir.path()).cluster;
        assert_eq!(before.policies.len(), world.policies.len(), "every policy was written and read");
        for flow in questions(rng, &before) {
            follow(rng, dir.path(), &before, &flow, &mut tally);
        }
    }
    let Tally { asked, solved, allowed, denied, by_hand } = tally;
    assert!(solved * 10 > asked * 8 && by_hand * 10 < allowed + denied, "{asked}, {solved}, {by_hand}");
    assert!(allowed > 8 && denied > 8, "{allowed}, {denied}");
}

/// Git skips what is not a patch, so a whole answer can be applied.
#[test]
fn an_answer_about_files_from_windows_can_be_applied() {
    let dir = TempDir::new().unwrap();
    for name in ["workloads.yaml", "backend-from-frontend.yaml"] {
        fs::copy(support::root().join("examples/shop").join(name), dir.path().join(name)).unwrap();
    }
    each_file(dir.path(), |text| format!("\u{feff}{}", text.replace('\n', "\r\n")));
    let read = || fs::read_to_string(dir.path().join("backend-from-frontend.yaml")).unwrap();
    let before = read();
    let question = "staging/frontend shop/backend:80 -f .";
    let (code, answer) = here(dir.path(), &format!("explain {question}"));
    assert!(code == 1 && answer.contains("\n+++ backend-from-frontend.yaml\n"), "{answer}");
    apply(dir.path(), &answer);
    let after = read();
    assert!(after.starts_with(&before) && after.len() > before.len(), "{after:?}");
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after:?}");
    assert_eq!(here(dir.path(), &format!("can {question}")).0, 0);
}

/// The baseline policy comes after every priority, so the last one that the API admits precedes it.
#[test]
fn a_policy_before_the_baseline_has_a_valid_priority() {
    let dir = TempDir::new().unwrap();
    let pods = ["a", "b"].map(|name| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{app: {name}}}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    });
    let baseline = "---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\n\
                    metadata: {name: default}\nspec:\n  subject: {namespaces: {}}\n  ingress:\n  \
                    - {action: Deny, from: [{namespaces: {}}]}\n";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n";
    fs::write(dir.path().join("all.yaml"), format!("{namespace}{}{baseline}", pods.concat())).unwrap();
    let (_, out) = here(dir.path(), "explain x/a x/b:80 -f . -o json");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let is_earlier = |s: &&Value| s["edits"][0]["object"]["kind"] == "ClusterNetworkPolicy";
    let earlier = answer["suggestions"].as_array().unwrap().iter().find(is_earlier).unwrap();
    let patch = earlier["patch"].as_str().unwrap();
    assert!(patch.contains("priority: 1000\n"), "{patch}");
    apply(dir.path(), patch);
    assert_eq!(here(dir.path(), "can x/a x/b:80 -f .").0, 0);
}

/// The number of random clusters: `PALISADE_CASES`, or a few.
fn cases() -> u64 {
    std::env::var("PALISADE_CASES").map_or(14, |text| text.parse().unwrap())
}

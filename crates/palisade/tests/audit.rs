//! Policies in audit mode in the answers of the verbs: verdicts are the enforced ones, and what audit would deny is said.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;

const CLUSTER: &str = "\
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c, image: i}]}, status: {phase: Running, podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}, status: {phase: Running, podIP: 10.0.0.2}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop, annotations: {palisade.dev/mode: MODE}}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}}
";

/// Runs a verb on the cluster with a policy of this mode. Returns the exit code and both outputs.
fn run(mode: &str, words: &str) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), CLUSTER.replace("MODE", mode)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE");
    let output = command.args(words.split(' ')).arg("-f").arg(dir.path()).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

const WOULD: &str = "would be denied by NetworkPolicy shop/closed, which is in audit mode";

#[test]
fn overviews_say_which_policies_are_not_enforced() {
    let text = run("audit", "overview").1;
    assert!(text.contains("1 policy (1 in audit mode: not enforced)"), "{text}");
    let json: Value = serde_json::from_str(&run("audit", "overview -o json").1).unwrap();
    assert_eq!(json["policies_in_audit_mode"], 1);
    let text = run("audit", "describe ns/shop").1;
    assert!(text.contains("0 policies apply, 1 in audit mode"), "{text}");
    assert!(text.contains("shop/closed (in audit mode: not enforced)"), "{text}");
    let json: Value = serde_json::from_str(&run("audit", "describe ns/shop -o json").1).unwrap();
    assert_eq!(json["policies"][0]["mode"], "audit");
    for words in ["overview", "describe ns/shop"] {
        assert!(!run("enforce", words).1.contains("audit"), "{words}");
    }
}

#[test]
fn can_answers_by_what_is_enforced_and_says_what_audit_would_deny() {
    let (code, text) = run("audit", "can shop/web shop/db:5432");
    assert_eq!(code, 0, "{text}");
    assert!(text.replace('\n', " ").contains(WOULD), "{text}");
    let (code, text) = run("audit", "can shop/web shop/db:5432 -o json");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &answer["verdict"], &answer["notes"][0]["code"]),
        (0, &"allowed".into(), &"audit".into())
    );
    let policy = &answer["audited"]["policies"][0];
    assert_eq!((&policy["name"], &policy["namespace"]), (&"closed".into(), &"shop".into()));
    assert_eq!((&policy["kind"], &policy["mode"]), (&"NetworkPolicy".into(), &"audit".into()));
    // What the policy allows is not audited; enforced, it denies.
    let (code, text) = run("audit", "can shop/web shop/db:80");
    assert!(code == 0 && !text.contains("audit"), "{text}");
    let (code, text) = run("enforce", "can shop/web shop/db:5432");
    assert!(code == 1 && !text.contains("audit"), "{text}");
    let (code, text) = run("Audit", "can shop/web shop/db:5432");
    assert!(
        code == 1 && text.contains("neither \"enforce\" nor \"audit\"; the policy is enforced"),
        "{text}"
    );
}

#[test]
fn explain_says_of_which_ports_audit_would_deny_connections() {
    let (code, text) = run("audit", "explain shop/web shop/db");
    assert!(
        code == 0 && text.contains(&format!("audit: TCP 1-79,81-65535; UDP; SCTP; other protocols {WOULD}")),
        "{text}"
    );
    let (code, text) = run("audit", "explain shop/web shop/db -o json");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["verdict"]), (0, &"allowed".into()));
    assert_eq!(answer["audited"]["policies"][0]["name"], "closed");
    let (code, text) = run("enforce", "explain shop/web shop/db:80 -o json");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, answer.get("audited")), (0, None));
}

#[test]
fn other_verbs_answer_by_what_is_enforced() {
    for (mode, denied) in [("audit", false), ("enforce", true)] {
        let (_, text) = run(mode, "connections --only-denied");
        assert_eq!(text.contains("shop/pod/db"), denied, "{mode}: {text}");
    }
}

/// Also what it says of pods that don't exist yet, in each direction.
#[test]
fn exposure_is_that_of_the_enforced_policies() {
    for (mode, open_directions) in [("audit", 2), ("enforce", 1)] {
        let (code, text) = run(mode, "describe shop/db");
        let count = text.matches("any pod, regardless of labels  all").count();
        assert_eq!((code, count), (0, open_directions), "{mode}: {text}");
    }
}

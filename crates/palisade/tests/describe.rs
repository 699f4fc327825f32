//! `palisade describe` as users run it. `PALISADE_BLESS=1 cargo test` updates the snapshots.

mod support;

use std::fs;

use serde_json::Value;
use support::{answer, palisade, recorded, refused, root, run};

/// Small inputs that once gave a wrong answer.
const CASES: &str = "crates/palisade/tests/cases";

#[test]
fn the_answers_are_as_recorded() {
    for (name, words) in [
        ("shop-backend", "shop/backend -f examples/shop"),
        ("shop-frontend", "shop/deploy/frontend -f examples/shop"),
        ("restrict-external-admin", "web/admin -f examples/restrict-external"),
        ("isolate-database", "bank/ledger-api -f examples/isolate-database"),
        ("policy-shop", "shop/netpol/backend-egress -f examples/shop"),
        ("policy-tiers", "cnp/guardrails -f examples/tiers"),
        ("policy-idle", "shop/netpol/web -f crates/palisade/tests/cases/describe/idle.yaml"),
        ("namespace-shop", "ns/shop -f examples/shop"),
        ("namespace-tiers", "ns/shop -f examples/tiers"),
    ] {
        for form in ["text", "json"] {
            let (code, out, err) = run(&mut palisade(&format!("describe {words} -o {form}")));
            assert_eq!((code, &*err), (0, ""), "{words}");
            let extension = if form == "json" { "json" } else { "txt" };
            recorded(&format!("describe/{name}.{extension}"), &out);
        }
    }
}

#[test]
fn policies_peers_and_exposure_are_shown() {
    let text = answer(0, "describe backend -n shop -f examples/shop");
    for part in [
        "shop/deployment/backend  examples/shop/workloads.yaml:52",
        "egress: isolated",
        "NetworkPolicy shop/backend-egress (examples/shop/backend-egress.yaml:3): isolates",
        "allows TCP 80 to 192.168.1.0/24",
        "allows all from shop/deployment/frontend",
        "pods app=frontend in namespace shop  all",
        "every pod at addresses in 192.168.1.0/24 (none exists yet)  TCP 80 (depends on pod addresses)",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let free = answer(0, "describe shop/frontend -f examples/shop");
    assert!(
        free.contains("no policy applies") && free.contains("public internet                all"),
        "{free}"
    );
    let json: Value =
        serde_json::from_str(&answer(0, "describe shop/backend -f examples/shop -o json")).unwrap();
    assert_eq!(json["schema"], "palisade.describe/v2");
    let ingress = &json["parts"][0]["ingress"];
    assert_eq!(ingress["isolated"], true);
    assert_eq!(ingress["policies"][0]["line"], 3);
    assert_eq!(ingress["policies"][0]["effects"][0]["alone"]["all"], true);
    assert_eq!(ingress["peers"][0]["end"]["id"], "shop/deployment/frontend");
    assert_eq!(ingress["exposure"]["rows"][0]["exists"], true);
    assert_eq!(ingress["exposure"]["rows"][0]["pods"]["pod_selector"], "app=frontend");
    let internet = &json["parts"][0]["egress"]["exposure"]["internet"];
    assert_eq!(internet[0]["some"]["ports"], serde_json::json!([]));
}

/// `describe` and `connections` agree on peers.
#[test]
fn describe_and_connections_agree() {
    for (example, workload) in [("shop", "shop/deployment/backend"), ("segment", "orders/deployment/api")] {
        let parse = |words: &str| -> Value { serde_json::from_str(&answer(0, words)).unwrap() };
        let description = parse(&format!("describe {workload} -f examples/{example} -o json"));
        let words = format!("connections -f examples/{example} --nodes --no-fold -o json");
        let all = parse(&words);
        for (side, own, other) in [("egress", "from", "to"), ("ingress", "to", "from")] {
            let edges = all["connections"].as_array().unwrap();
            let edges: Vec<_> =
                edges.iter().filter(|c| c[own] == workload).map(|c| (&c[other], &c["ports"])).collect();
            let peers = description["parts"][0][side]["peers"].as_array().unwrap();
            let peers: Vec<_> = peers.iter().map(|p| (&p["end"]["id"], &p["traffic"]["ports"])).collect();
            assert_eq!(edges, peers, "{example} {side}");
        }
    }
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("describe shop/backend", "-f PATH");
    refused("describe shop/bakend -f examples/shop", "did you mean");
    refused("describe shop/backend:80 -f examples/shop", "omit the port");
    refused("describe 192.0.2.1 -f examples/shop", "it is not a pod");
    refused("describe internet -f examples/shop", "internet");
    refused("describe a/b/c/d -f examples/shop", "too many slashes");
}

/// Returns the lines of the exposure in one direction, without indentation.
fn exposure(words: &str, direction: &str) -> Vec<String> {
    let text = answer(0, words);
    let side = text.split_once(&format!("\n{direction}:")).expect("the direction").1;
    let rows = side.split_once("exposure:\n").expect("its exposure").1.lines();
    let rows = rows.take_while(|line| line.starts_with("    "));
    rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn exposure_is_what_all_pods_of_a_set_get() {
    let of = |case: &str| exposure(&format!("describe shop/web -f {CASES}/exposure/{case}.yaml"), "ingress");
    let closed = ["public internet nothing", "any pod, regardless of labels nothing"];
    assert_eq!(
        of("any-pod"),
        [closed[0], closed[1], "pods without quarantine of namespaces env!=dev (none exists yet) all"]
    );
    assert_eq!(
        of("first-namespace-invents"),
        [
            closed[0],
            closed[1],
            "every pod of namespaces role=ingress (none exists yet) TCP 8080 for all of them; also TCP 9102 \
             where the namespace has team=sre and the pod has app=prometheus",
            "pods app=prometheus of namespaces team=sre TCP 9102 for all of them; also TCP 8080 where the \
             namespace has role=ingress",
        ]
    );
    assert_eq!(
        of("first-namespace-omits"),
        [closed[0], closed[1], "every pod of namespaces quarantine!=yes, team=sre (none exists yet) all"]
    );
    assert_eq!(
        of("several-rules"),
        [
            closed[0],
            closed[1],
            "pods app=x in namespace shop TCP 8080",
            "pods with app other than x in namespace shop (none exists yet) TCP 8080,9090",
            "pods without app in namespace shop (none exists yet) TCP 9090",
        ]
    );
}

/// The names of namespaces and policies don't matter where no rule mentions them.
#[test]
fn exposure_does_not_depend_on_names() {
    for case in ["any-pod", "first-namespace-invents", "first-namespace-omits", "several-rules"] {
        let path = root().join(format!("{CASES}/exposure/{case}.yaml"));
        let text = fs::read_to_string(path).unwrap();
        let renamed = text.replace("name: aaa", "name: zzz").replace("name: p,", "name: zz,");
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("renamed.yaml");
        fs::write(&file, renamed).unwrap();
        let words = |file: &str| format!("describe shop/web -f {file}");
        let original = exposure(&words(&format!("{CASES}/exposure/{case}.yaml")), "ingress");
        assert_eq!(original, exposure(&words(file.to_str().unwrap()), "ingress"), "{case}");
    }
}

#[test]
fn the_internet_is_said_by_family() {
    let rows = exposure(&format!("describe shop/web -f {CASES}/exposure/one-family.yaml"), "egress");
    assert_eq!(rows[0], "public internet IPv4: nothing; IPv6: all");
}

/// Every part of a policy that does nothing is named with its line, its cause and, where there is one, its cure.
#[test]
fn parts_of_policies_that_do_nothing_are_named() {
    let text = answer(0, &format!("describe shop/netpol/web -f {CASES}/describe/idle.yaml"));
    let idle = text.split_once("does nothing:").expect("the list").1;
    for (line, part) in [
        (57, "no running pod in namespace shop has labels app=gatewey; did you mean app=gateway?"),
        (58, "there is no such namespace; did you mean kubernetes.io/metadata.name=monitoring?"),
        (59, "monitoring/agent has these labels, but uses the host network"),
        (61, "no pod that the policy selects has port \"htp\"/TCP: they have \"http\""),
        (62, "everything it matches is already matched by rule 1 of NetworkPolicy shop/all-from-gateway"),
        (66, "10.96.0.7/32 is the address of Service shop/web"),
        (69, "pods app=gateway in namespace shop is already matched by rule 2"),
        (64, "10.0.0.7/32 is the address of pod shop/gateway now"),
    ] {
        let place = format!("idle.yaml:{line}: ");
        let found = idle.lines().any(|l| l.contains(&place) && l.contains(part));
        assert!(found, "no {part:?} at line {line} in:\n{text}");
    }
    let nothing = answer(0, &format!("describe shop/netpol/nothing -f {CASES}/describe/idle.yaml"));
    assert!(nothing.contains("selects no running pod: pods app=worker in namespace shop"), "{nothing}");
    assert!(nothing.contains("nothing would change"), "{nothing}");
}

/// "Any pod" has less than the pods at most addresses.
#[test]
fn what_depends_on_addresses_of_pods_is_said_too() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    let text = "\
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: ing, namespace: a}, spec: {podSelector: {matchLabels: {app: p}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, labels: {app: p}}, spec: {containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: b, labels: {app: q}}, spec: {containers: [{name: c}]}}
";
    fs::write(&file, text).unwrap();
    let text = answer(0, &format!("describe netpol/ing -n a -f {} --pod-cidr 10.0.0.0/8", file.display()));
    let line = "opened: every pod at IPv4 addresses except 203.0.113.0/24 or any IPv6 address → pods app=p in namespace a  all (depends on pod addresses)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn policies_are_said_in_one_sentence() {
    let text = answer(0, "describe NetworkPolicy/shop/backend-from-frontend -f examples/shop");
    let sentence = "Lets pods app=backend in namespace shop be reached on every port by pods app=frontend in \
                    namespace shop; isolates them for ingress.\n";
    assert!(text.contains(sentence), "{text}");
    let other = answer(0, "describe netpol/backend-from-frontend -n shop -f examples/shop");
    assert_eq!(text, other);
}

#[test]
fn unknown_policies_and_namespaces_are_refused_with_similar_ones() {
    refused("describe netpol/backend-egress -f examples/shop", "did you mean shop/netpol/backend-egress?");
    refused(
        "describe shop/netpol/backend-egres -f examples/shop",
        "did you mean shop/netpol/backend-egress?",
    );
    refused("describe ns/shopp -f examples/shop", "did you mean ns/shop?");
    refused("describe cnp/guard-rails -f examples/tiers", "did you mean cnp/guardrails?");
}

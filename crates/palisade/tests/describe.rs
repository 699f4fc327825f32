//! `palisade describe` as users run it. `PALISADE_BLESS=1 cargo test` updates the snapshots.

mod support;

use serde_json::Value;
use support::{answer, palisade, recorded, refused, run};

#[test]
fn the_answers_are_as_recorded() {
    for (name, words) in [
        ("shop-backend", "shop/backend -f examples/shop"),
        ("shop-frontend", "shop/deploy/frontend -f examples/shop"),
        ("restrict-external-admin", "web/admin -f examples/restrict-external"),
        ("isolate-database", "bank/ledger-api -f examples/isolate-database"),
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
    assert_eq!(json["schema"], "palisade.describe/v1");
    let ingress = &json["parts"][0]["ingress"];
    assert_eq!(ingress["isolated"], true);
    assert_eq!(ingress["policies"][0]["line"], 3);
    assert_eq!(ingress["policies"][0]["effects"][0]["alone"]["all"], true);
    assert_eq!(ingress["peers"][0]["end"]["id"], "shop/deployment/frontend");
    assert_eq!(ingress["exposure"]["selected_pods"][0]["exist"], true);
    assert_eq!(json["parts"][0]["egress"]["exposure"]["internet"]["ports"], serde_json::json!([]));
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

//! `palisade explain` as users run it. Its patches are applied, and the verdict is checked again.
//! `PALISADE_BLESS=1 cargo test` updates the snapshots.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use support::{answer, apply, palisade, recorded, refused, root, run};
use tempfile::TempDir;

#[test]
fn the_answers_are_as_recorded() {
    for (name, code, words) in [
        ("shop-all", 0, "shop/frontend shop/backend -f examples/shop"),
        ("shop-denied", 1, "staging/frontend shop/backend:8080 -f examples/shop"),
        ("shop-parts", 1, "shop/backend 192.168.1.20 -f examples/shop"),
        ("shop-to-deny", 0, "shop/frontend shop/backend:8080 --to-deny -f examples/shop"),
        ("shop-internet", 1, "shop/backend internet:443 -f examples/shop"),
        ("shop-service", 0, "shop/frontend shop/svc/backend -f examples/shop"),
    ] {
        for form in ["text", "json"] {
            let extension = if form == "json" { "json" } else { "txt" };
            let out = answer(code, &format!("explain {words} -o {form}"));
            recorded(&format!("explain/{name}.{extension}"), &out);
        }
    }
}

const NODE: &str = "\
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/24]}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 'fd01::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: b, labels: {app: d}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.244.0.5}, {ip: 'fd00::5'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: b, labels: {app: q}}, spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080, name: http}]}]}, status: {phase: Running, podIP: 10.244.0.6}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h, namespace: b, labels: {app: h}}, spec: {nodeName: n1, hostNetwork: true, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 192.168.0.1}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: eg, namespace: b}, spec: {podSelector: {matchLabels: {app: d}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}}
";

/// A correction that opens the cluster and closes what works is not the first choice.
#[test]
fn the_edit_that_changes_least_is_first() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    fs::write(&file, NODE).unwrap();
    let suggestions = |to: &str| {
        let words = format!("explain b/d {to} -f {} -o json", file.display());
        let json: Value = serde_json::from_str(&answer(1, &words)).unwrap();
        let changes = |s: &Value| ["opens", "closes"].map(|list| s[list].as_array().unwrap().len());
        json["suggestions"].as_array().unwrap().iter().map(changes).collect::<Vec<_>>()
    };
    // The node has a public address, which the internet doesn't leave out.
    let all = suggestions("internet:443");
    assert_eq!(all[0], [1, 0], "{all:?}");
    assert!(all.iter().any(|[_, closes]| *closes > 0), "the correction is offered: {all:?}");
    assert!(all.is_sorted_by_key(|[opens, closes]| opens + closes), "{all:?}");
    // The address of its own node is what was asked about.
    let all = suggestions("b/h:22");
    assert_eq!(all[0], [0, 0], "{all:?}");
}

/// What would open another policy too can't be a patch of the file, and the text says so.
#[test]
fn edits_of_lines_that_policies_share_are_to_be_done_by_hand() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    let pod = |name: &str| {
        format!(
            "- {{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: a, labels: {{app: {name}}}}}, spec: {{containers: [{{name: c, ports: [{{containerPort: 80}}]}}]}}}}\n"
        )
    };
    let policy = |name: &str, app: &str, rules: &str| {
        format!(
            "- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {{name: {name}, namespace: a}}\n  spec:\n    podSelector: {{matchLabels: {{app: {app}}}}}\n    ingress: {rules}\n"
        )
    };
    let shared = "&rules\n    - from: [{podSelector: {matchLabels: {app: r}}}]\n      ports: [{port: 443}]";
    let pods = ["p", "q", "r"].map(pod).concat();
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{pods}{}{}",
        policy("n1", "p", shared),
        policy("n2", "q", "*rules")
    );
    fs::write(&file, text).unwrap();
    let (code, out, _) = run(&mut palisade(&format!("explain a/r a/p:80 -f {}", file.display())));
    assert_eq!(code, 1, "{out}");
    let (first, others) = out.split_once("\nOr: ").unwrap();
    assert!(!first.contains("by hand") && others.contains("note: to do by hand"), "{out}");
}

#[test]
fn every_port_is_split_by_decision() {
    let json: Value =
        serde_json::from_str(&answer(1, "explain shop/backend 192.168.1.20 -f examples/shop -o json"))
            .unwrap();
    assert_eq!((&json["schema"], &json["verdict"]), (&"palisade.explain/v2".into(), &"denied".into()));
    let parts = json["answers"][0]["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2);
    let allowed = parts.iter().find(|p| p["verdict"] == "allowed").unwrap();
    assert_eq!(
        allowed["traffic"]["ports"],
        serde_json::json!([{"protocol": "TCP", "first": 80, "last": 80}])
    );
    assert_eq!(allowed["egress"]["reason"], "rule");
    assert_eq!(json["answers"][0]["egress"]["policies"][0]["rules"][0]["line"], 14);
    let text = answer(1, "explain shop/backend 192.168.1.20 -f examples/shop");
    assert!(text.contains("✓ peer 192.168.1.0/24 (examples/shop/backend-egress.yaml:15)"), "{text}");
    assert!(text.contains("Give a port"), "{text}");
}

/// A directory with copies of an example's manifests.
fn copy(example: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir(root().join("examples").join(example)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn here(dir: &Path, words: &str) -> (i32, String) {
    let (code, out, err) = run(palisade(words).current_dir(dir));
    assert_eq!(err, "", "{words}");
    (code, out)
}

/// Applies the first suggestion for a pair. Returns whether there was any.
fn follow(dir: &Path, pair: &str, options: &str) -> bool {
    let (_, out) = here(dir, &format!("explain {pair}{options} -f . -o json"));
    let json: Value = serde_json::from_str(&out).unwrap();
    let Some(suggestion) = json["suggestions"].get(0) else { return false };
    assert_eq!(suggestion["by_hand"], serde_json::json!([]), "{pair}: {out}");
    apply(dir, suggestion["patch"].as_str().unwrap());
    true
}

/// Applying the suggestions gives the requested verdict, in both directions, for every pair of the examples.
#[test]
fn suggestions_have_the_requested_effect() {
    let (mut opened, mut closed) = (0, 0);
    for example in ["shop", "segment", "isolate-database", "control-egress", "restrict-external"] {
        let (_, out) = here(copy(example).path(), "connections -f . -o json");
        let json: Value = serde_json::from_str(&out).unwrap();
        let all = json["ends"].as_array().unwrap().iter().filter(|e| e["kind"] == "workload");
        let ids: Vec<&str> = all.map(|e| e["id"].as_str().unwrap()).collect();
        for from in &ids {
            for to in ids.iter().filter(|to| *to != from) {
                let dir = copy(example);
                let pair = format!("{from} {to}:5432");
                let (code, _) = here(dir.path(), &format!("can {pair} -f ."));
                let options = if code == 0 { " --to-deny" } else { "" };
                assert!(
                    follow(dir.path(), &pair, options),
                    "{example}: nothing is suggested for {pair}{options}"
                );
                let (now, out) = here(dir.path(), &format!("can {pair} -f ."));
                assert_eq!(now, 1 - code, "{example}: {pair}: {out}");
                *(if code == 0 { &mut closed } else { &mut opened }) += 1;
            }
        }
    }
    assert!(opened > 10 && closed > 10, "{opened} {closed}");
}

/// The internet is every address except those that are private, in each family.
#[test]
fn the_internet_is_not_one_address() {
    let dir = copy("shop");
    let (_, text) = here(dir.path(), "explain shop/backend internet:443 -f .");
    for line in [
        "+          cidr: 0.0.0.0/0",
        "+          - 10.0.0.0/8",
        "+          - 172.16.0.0/12",
        "+          - 192.168.0.0/16",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("cidr: \"::/0\"") && text.contains("- 8000::/1"), "{text}");
    assert!(text.contains("Nothing else opens or closes"), "{text}");
    assert!(follow(dir.path(), "shop/backend internet:443", ""));
    assert_eq!(here(dir.path(), "can shop/backend internet:443 -f .").0, 0);
}

/// A later edit of a policy that the suggestion adds is a part of the added policy.
#[test]
fn a_new_policy_has_all_that_its_suggestion_adds_to_it() {
    let dir = TempDir::new().unwrap();
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
        )
    };
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\n\
                  spec: {podSelector: {}, policyTypes: [Egress]}\n";
    fs::write(dir.path().join("m.yaml"), pod("web") + &pod("api") + &pod("db") + policy).unwrap();
    let question = "shop/web shop/*:9999";
    assert!(follow(dir.path(), question, ""));
    assert_eq!(here(dir.path(), &format!("can {question} -f .")).0, 0);
    assert_eq!(here(dir.path(), "can shop/api shop/db:9999 -f .").0, 1);
}

#[test]
fn a_range_is_opened_as_it_was_asked_for() {
    let dir = copy("shop");
    let question = "shop/backend 203.0.113.0/24:443";
    let (_, text) = here(dir.path(), &format!("explain {question} -f ."));
    assert!(text.contains("cidr: 203.0.113.0/24") && !text.contains("0.0.0.0/0"), "{text}");
    assert!(follow(dir.path(), question, ""));
    assert_eq!(here(dir.path(), &format!("can {question} -f .")).0, 0);
    assert_eq!(here(dir.path(), "can shop/backend internet:443 -f .").0, 1);
}

#[test]
fn without_a_port_there_is_nothing_to_suggest() {
    let udp = answer(1, "explain staging/frontend shop/backend/UDP -f examples/shop");
    assert!(udp.contains("denied   UDP  egress") && udp.contains("Give a port"), "{udp}");
}

/// Lists in brackets, and JSON, are edited in place.
#[test]
fn brackets_are_edited_in_place() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: \
                  {matchLabels: {app: backend}}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: \
                  1}]}]}}\n";
    let json = "{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"p\", \
                \"namespace\": \"shop\"}, \"spec\": {\"podSelector\": {\"matchLabels\": {\"app\": \"backend\"}},\n\"ingress\": [\n  \
                {\"from\": [{\"podSelector\": {\"matchLabels\": {\"app\": \"frontend\"}}}], \"ports\": [{\"port\": 1}]}\n]}}\n";
    for (file, text) in [("backend-from-frontend.yaml", policy), ("backend-from-frontend.json", json)] {
        let dir = copy("shop");
        fs::remove_file(dir.path().join("backend-from-frontend.yaml")).unwrap();
        fs::write(dir.path().join(file), text).unwrap();
        let pair = "shop/frontend shop/backend:8080";
        let (code, out) = here(dir.path(), &format!("explain {pair} -f ."));
        assert!(code == 1 && out.contains("8080") && out.contains("@@"), "{out}");
        assert!(follow(dir.path(), pair, ""));
        assert_eq!(here(dir.path(), &format!("can {pair} -f .")).0, 0);
        assert!(follow(dir.path(), pair, " --to-deny"));
        assert_eq!(here(dir.path(), &format!("can {pair} -f .")).0, 1);
    }
}

/// Rules are inserted and removed in policies with no, one or several rules, with comments between them.
#[test]
fn patches_fit_the_shape_of_the_file() {
    let head = "# a\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n  \
                podSelector:\n    matchLabels:\n      app: backend\n";
    let frontend = "  - from:\n    - podSelector:\n        matchLabels:\n          app: frontend\n";
    for tail in [
        "  policyTypes: [Ingress]\n".to_owned(),
        "  ingress: []\n  policyTypes:\n  - Ingress\n".to_owned(),
        "  ingress:\n  # one\n  - from:\n    - podSelector: {}\n    # two\n    ports:\n    - port: 1 # three\n\n  # four\n  - \
         ports:\n    - port: 2\n---\n# the end\n"
            .to_owned(),
        format!("  ingress:\n{frontend}    ports:\n    - port: 1\n  policyTypes:\n  - Ingress\n"),
    ] {
        let dir = copy("shop");
        let file = dir.path().join("backend-from-frontend.yaml");
        fs::write(&file, format!("{head}{tail}")).unwrap();
        let pair = "shop/frontend shop/backend:8080";
        assert_eq!(here(dir.path(), &format!("can {pair} -f .")).0, 1, "{tail}");
        let (_, out) = here(dir.path(), &format!("explain {pair} -f ."));
        assert!(out.contains("@@"), "{tail}\n{out}");
        assert!(follow(dir.path(), pair, ""), "{tail}");
        assert_eq!(here(dir.path(), &format!("can {pair} -f .")).0, 0, "{tail}");
        let patched = fs::read_to_string(&file).unwrap();
        for comment in tail.lines().filter(|l| l.contains('#')) {
            assert!(patched.contains(comment), "{patched}");
        }
    }
}

const GUARD: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject:
    namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}
  ingress:
  - action: Pass
    from:
    - namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}
  - action: Deny
    from:
    - namespaces: {}
    protocols:
    - tcp: {destinationPort: {number: 8080}}
";

/// Without egress rules, and without Egress in `policyTypes`, a policy doesn't isolate: then everything would be open.
#[test]
fn the_last_rule_is_removed_without_an_end_of_the_isolation() {
    let head =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\n";
    let selector = "podSelector: {matchLabels: {app: frontend}}";
    let rules = "  egress:\n  - to:\n    - podSelector: {}\n  - ports:\n    - port: 8080\n";
    let pair = "shop/frontend shop/backend:8080";
    for spec in [
        format!("spec:\n  {selector}\n{rules}"),
        format!("spec:\n{rules}  policyTypes: []\n  {selector}\n"),
        format!("spec: {{{selector}, egress: [{{}}, {{to: [{{podSelector: {{}}}}]}}]}}\n"),
        format!("spec: {{policyTypes: [], egress: [{{}}, {{}}], {selector}}}\n"),
    ] {
        let dir = copy("shop");
        fs::write(dir.path().join("p.yaml"), format!("{head}{spec}")).unwrap();
        let (_, out) = here(dir.path(), &format!("explain {pair} --to-deny -f . -o json"));
        let answer: Value = serde_json::from_str(&out).unwrap();
        let suggestions = answer["suggestions"].as_array().unwrap();
        let texts: Vec<&str> = suggestions.iter().map(|s| s["text"].as_str().unwrap()).collect();
        let removed = "remove egress[0] and egress[1] from NetworkPolicy shop/p";
        assert!(texts.iter().any(|text| text.starts_with(removed)), "{texts:#?}");
        for suggestion in suggestions {
            assert_eq!(suggestion["by_hand"], serde_json::json!([]), "{spec}{suggestion:#}");
            let edited = copy("shop");
            fs::write(edited.path().join("p.yaml"), format!("{head}{spec}")).unwrap();
            apply(edited.path(), suggestion["patch"].as_str().unwrap());
            assert_eq!(here(edited.path(), &format!("can {pair} -f .")).0, 1, "{spec}{suggestion:#}");
        }
    }
}

/// `patch` ends a name with spaces at the first one, unless a tab follows it; `git apply` takes both.
#[test]
fn names_of_files_with_spaces_are_patched() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("my shop");
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(copy("shop").path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let ask = |verb: &[&str]| {
        let mut command = support::program(verb.iter().copied());
        let (code, out, _) = run(command.args(["-f", "my shop"]).current_dir(dir.path()));
        (code, out)
    };
    let pair = ["staging/frontend", "shop/backend:8080"];
    let (_, out) = ask(&["explain", pair[0], pair[1], "-o", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let suggestions = answer["suggestions"].as_array().unwrap();
    let heads: Vec<&str> =
        suggestions.iter().flat_map(|s| s["patch"].as_str().unwrap().lines().take(2)).collect();
    assert!(heads.contains(&"--- /dev/null"), "{heads:#?}");
    assert!(heads.contains(&"--- my shop/backend-from-frontend.yaml\t"), "{heads:#?}");
    assert!(heads.contains(&"+++ my shop/allow-frontend-to-backend.yaml\t"), "{heads:#?}");
    apply(dir.path(), suggestions[1]["patch"].as_str().unwrap());
    assert_eq!(ask(&["can", pair[0], pair[1]]).0, 0);
}

/// A patch can't remove what an anchor gives twice, but it is said.
#[test]
fn what_no_patch_can_remove_is_said() {
    let dir = copy("shop");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  podSelector: \
                  {matchLabels: {app: frontend}}\n  ingress: &all\n  - {}\n  egress: *all\n";
    fs::write(dir.path().join("p.yaml"), policy).unwrap();
    let (_, out) = here(dir.path(), "explain shop/frontend shop/backend:8080 --to-deny -f . -o json");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let by_hand: Vec<&str> = answer["suggestions"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|s| s["by_hand"].as_array().unwrap())
        .filter_map(Value::as_str)
        .collect();
    assert!(by_hand.iter().any(|text| text.starts_with("# remove egress[0] from")), "{by_hand:#?}{out}");
}

/// Tiers are evaluated in order. A policy of the asked pods that is evaluated earlier comes before an edit that others would feel.
#[test]
fn cluster_wide_policies_are_evaluated_and_patched() {
    let dir = copy("shop");
    fs::write(dir.path().join("guard.yaml"), GUARD).unwrap();
    let (code, out) = here(dir.path(), "explain shop/frontend shop/backend -f .");
    assert_eq!(code, 0, "{out}");
    let lines =
        ["admin tier, priority 10: ClusterNetworkPolicy guard", "ingress[0] (./guard.yaml:10) passes all"];
    let places: Vec<_> = lines.iter().map(|line| out.find(line)).collect();
    assert!(places[0].is_some() && places[0] < places[1], "{out}");
    assert!(out.contains("denies TCP 8080, already decided by an earlier rule"), "{out}");
    // From another namespace, the admin tier denies, and NetworkPolicies are not evaluated.
    let pair = "staging/frontend shop/backend:8080";
    let (code, out) = here(dir.path(), &format!("explain {pair} -f ."));
    assert!(code == 1 && out.contains("+  priority: 9") && out.contains("Nothing else opens"), "{out}");
    let wider = "Or: add an ingress rule to ClusterNetworkPolicy guard (./guard.yaml:1).\n  also opens: \
                 staging/deployment/frontend → shop/deployment/frontend  TCP 8080\n";
    assert!(out.contains(wider), "{out}");
    assert!(follow(dir.path(), pair, ""));
    assert_eq!(here(dir.path(), &format!("can {pair} -f .")).0, 0);
}

/// A directory with a copy of one of the cases, which must be all that `-f` names.
fn case(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let from = root().join("crates/palisade/tests/cases/explain").join(name);
    fs::copy(from, dir.path().join(name)).unwrap();
    dir
}

/// Applies the first suggestion of a case, after which the answer must be allowed. Returns the suggestion and the text.
fn solved(name: &str, pair: &str) -> (Value, String) {
    let dir = case(name);
    let (code, text) = here(dir.path(), &format!("explain {pair} -f {name}"));
    assert_eq!(code, 1, "{text}");
    let (_, out) = here(dir.path(), &format!("explain {pair} -f {name} -o json"));
    let json: Value = serde_json::from_str(&out).unwrap();
    let first = json["suggestions"][0].clone();
    assert_eq!(
        (&first["by_hand"], first["patches"].as_array().unwrap().len()),
        (&serde_json::json!([]), 1),
        "{out}"
    );
    apply(dir.path(), first["patch"].as_str().unwrap());
    let (code, out) = here(dir.path(), &format!("can {pair} -f {name}"));
    assert_eq!(code, 0, "{out}");
    (first, text)
}

fn opens_nothing_else(suggestion: &Value) {
    assert_eq!(
        (&suggestion["opens"], &suggestion["closes"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
}

/// A default deny stays as it is: a new policy allows the connection, with the selectors of the workloads.
#[test]
fn a_default_deny_is_not_edited() {
    let (first, text) = solved("default-deny.yaml", "shop/web shop/db:5432");
    opens_nothing_else(&first);
    assert_eq!(first["edits"][0]["object"]["name"], "allow-web-to-db");
    assert!(text.contains("+          app: web\n") && !text.contains("+          helm.sh/chart"), "{text}");
    let dir = case("default-deny.yaml");
    apply(dir.path(), first["patch"].as_str().unwrap());
    assert_eq!(here(dir.path(), "can shop/web shop/secrets-db:5432 -f default-deny.yaml").0, 1);
}

#[test]
fn a_policy_of_exactly_these_pods_gets_the_rule() {
    let (first, _) = solved("exact-policy-exists.yaml", "monitoring/prometheus shop/web:8080");
    opens_nothing_else(&first);
    assert_eq!(first["edits"][0]["object"]["name"], "zz-web-in");
}

/// The cause is the first line, and the patch corrects the word.
#[test]
fn wrong_words_are_corrected() {
    let (first, text) = solved("service-port.yaml", "shop/web shop/svc/api");
    assert!(text.starts_with("cause: 80 is the port of Service shop/api; its pods listen on 8080 (\"http\") (service-port.yaml:34)\n"), "{text}");
    assert!(text.contains("-        - port: 80\n+        - port: 8080\n"), "{text}");
    assert_eq!(first["opens"], serde_json::json!([]));
    let (first, text) = solved("labels-on-the-wrong-object.yaml", "shop/backup shop/db:5432");
    assert!(
        text.starts_with("cause: CronJob shop/backup has app=backup, but its pod template has no labels"),
        "{text}"
    );
    assert_eq!((&first["edits"][0]["object"]["kind"], &first["mends"]), (&"CronJob".into(), &true.into()));
    opens_nothing_else(&first);
}

/// One patch for both directions.
#[test]
fn both_directions_are_one_suggestion() {
    let (first, _) = solved("both-directions.yaml", "shop/web shop/db:5432");
    opens_nothing_else(&first);
    let directions: Vec<_> =
        first["edits"].as_array().unwrap().iter().map(|e| e["direction"].clone()).collect();
    assert_eq!(directions, ["egress", "ingress"]);
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("explain shop/frontend shop/backend", "-f PATH");
    refused("explain shop/frontent shop/backend -f examples/shop", "did you mean");
    refused("explain internet internet -f examples/shop", "neither end is in the cluster");
    refused("explain shop/frontend:80 shop/backend -f examples/shop", "source");
    refused("explain shop/frontend shop/backend:0 -f examples/shop", "1 to 65535");
}

/// Cluster-wide policies have no exceptions, so what a question about the internet leaves out must not be in their networks.
#[test]
fn a_cluster_wide_policy_for_the_internet_concerns_no_private_addresses() {
    let dir = copy("shop");
    let words = format!("explain shop/frontend internet:443 --to-deny -f {}", dir.path().display());
    let text = answer(0, &words);
    let (_, after) = text.split_once("kind: ClusterNetworkPolicy").expect("a cluster-wide policy");
    assert!(!after.contains("0.0.0.0/0"), "{text}");
    let added = text.lines().filter_map(|line| line.strip_prefix('+')).filter(|line| !line.starts_with("++"));
    let policy: String = added.map(|line| format!("{line}\n")).collect();
    assert!(policy.contains("kind: ClusterNetworkPolicy"), "{text}");
    fs::write(dir.path().join("added.yaml"), policy).unwrap();
    for (address, code) in
        [("1.1.1.1", 1), ("[2a00::1]", 1), ("10.9.9.9", 0), ("192.168.7.7", 0), ("[fd99::1]", 0)]
    {
        answer(code, &format!("can shop/frontend {address}:443 -f {}", dir.path().display()));
    }
}

/// Nor can a network of such a policy be narrowed by an exception.
#[test]
fn the_networks_of_a_cluster_wide_policy_get_no_exception() {
    let dir = copy("shop");
    let policy = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: wide}, spec: {tier: Admin, \
        priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{networks: [198.51.100.0/24]}]}]}}\n";
    fs::write(dir.path().join("wide.yaml"), policy).unwrap();
    let words = format!("shop/backend 198.51.100.7:443 -f {}", dir.path().display());
    let text = answer(0, &format!("explain {words} --to-deny"));
    assert!(!text.contains("except") && !text.contains("narrow"), "{text}");
}

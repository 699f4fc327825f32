//! `/api/v1/try`: what an edited policy would open and close, while nothing is applied.

use std::{fmt::Write as _, fs};

use serde_json::{Value, json};

use crate::{client::Server, support};

const DENY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {podSelector: {}}\n";

fn tried(server: &Server, body: &Value) -> Value {
    let answer = server.post("/api/v1/try", &body.to_string());
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    let json = answer.json();
    assert_eq!(json["schema"], "palisade.ui.try/v1");
    json
}

#[test]
fn consequences_are_those_of_diff_and_nothing_is_applied() {
    let server = Server::start(&["-f", "examples/shop"]);
    let before = server.get("/api/v1/report").body;
    let answer = tried(&server, &json!({"page": "a", "text": DENY}));
    assert_eq!((&answer["errors"], &answer["world"]), (&json!([]), &json!(1)));
    // The same as files.
    let dir = tempfile::TempDir::new().unwrap();
    for file in fs::read_dir(support::root().join("examples/shop")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    fs::write(dir.path().join("deny.yaml"), DENY).unwrap();
    let words = format!("diff examples/shop {} -o json", dir.path().display());
    let (_, printed, _) = support::run(&mut support::palisade(&words));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let consequences = &answer["consequences"];
    assert_eq!(consequences["summary"], printed["summary"]);
    assert!(printed["summary"]["closed"]["total"].as_u64() > Some(0), "{printed:#}");
    let row = &consequences["groups"][0]["rows"][0];
    assert_eq!(consequences["groups"][0]["because"], "because NetworkPolicy shop/deny added (the editor:1)");
    assert_eq!((&row["opened"], &consequences["all_ends"]), (&json!(false), &json!(true)));
    // The names are those of the report's ends.
    let report: Value = serde_json::from_str(&before).unwrap();
    let known = |name: &Value| report["ends"].as_array().unwrap().iter().any(|end| end["id"] == *name);
    assert!(
        row["ends"].as_array().unwrap().iter().all(|side| side.as_array().unwrap().iter().all(known)),
        "{row:#}"
    );
    assert_eq!(server.get("/api/v1/report").body, before);
    assert_eq!(server.state()["world"], 1);
}

#[test]
fn a_policy_is_edited_renamed_and_removed() {
    let server = Server::start(&["-f", "examples/shop"]);
    let name = "NetworkPolicy shop/backend-from-frontend";
    let policy = server.get("/api/v1/policy?name=NetworkPolicy%20shop%2Fbackend-from-frontend").json();
    let file = policy["file"].as_str().unwrap();
    let text = policy["text"].as_str().unwrap();
    assert!(fs::read_to_string(support::root().join(file)).unwrap().contains(text), "{policy:#}");

    let same = tried(&server, &json!({"page": "a", "text": text, "replaces": name}));
    assert_eq!(same["consequences"]["summary"]["text"], "no connection changes");
    assert_eq!(same["patch"], Value::Null);

    let renamed = text.replace("backend-from-frontend", "other");
    let renamed = tried(&server, &json!({"page": "a", "text": renamed, "replaces": name}));
    assert_eq!(renamed["consequences"]["summary"]["policies_renamed"], 1, "{renamed:#}");
    let patch = renamed["patch"]["text"].as_str().unwrap();
    assert!(
        patch.starts_with(&format!("--- {file}\n+++ {file}\n")) && patch.contains("\n+  name: other\n"),
        "{patch}"
    );

    let removed = tried(&server, &json!({"page": "a", "text": "# nothing\n", "replaces": name}));
    assert!(removed["consequences"]["summary"]["opened"]["total"].as_u64() > Some(0), "{removed:#}");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let server = Server::start(&["-f", "examples/shop"]);
    for (text, line, reason) in [
        ("kind: [\n", json!(1), ""),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  podSelector: 1\n",
            json!(5),
            "spec.podSelector",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
            Value::Null,
            "only policies can be tried, and this has: Namespace",
        ),
        ("", Value::Null, "there is no policy in the text"),
    ] {
        let answer = tried(&server, &json!({"page": "a", "text": text}));
        let error = &answer["errors"][0];
        assert_eq!((&error["line"], &answer["consequences"]), (&line, &Value::Null), "{text}: {answer:#}");
        assert!(error["text"].as_str().unwrap().contains(reason), "{answer:#}");
    }
    let text = DENY.replace("{}", "{matchLabels: {app: nothing}}").replace("deny,", "deny, labels: {a: b},");
    let answer = tried(&server, &json!({"page": "a", "text": text}));
    let found = answer["findings"].as_array().unwrap();
    let at = |rule: &str| found.iter().find(|found| found["rule"] == rule).map(|found| found["line"].clone());
    assert_eq!(at("selects-nothing"), Some(json!(1)), "{answer:#}");
    assert_eq!(at("missing-policy-types"), Some(json!(4)), "{answer:#}");
    assert!(found.iter().all(|found| found["file"] == "the editor"), "{answer:#}");
    let answer = tried(&server, &json!({"page": "a", "text": DENY.replace("shop}", "nowhere}")}));
    assert!(answer["warnings"].to_string().contains("there is no namespace `nowhere`"), "{answer:#}");
}

#[test]
fn what_can_be_completed_is_listed() {
    let server = Server::start(&["-f", "examples/shop"]);
    let labels = server.get("/api/v1/labels").json();
    assert!(labels["namespaces"].as_array().unwrap().contains(&json!("shop")), "{labels:#}");
    assert!(labels["pod_labels"]["app"].as_array().unwrap().contains(&json!("backend")), "{labels:#}");
}

#[test]
fn only_own_pages_may_try_and_only_so_much() {
    let server = Server::start(&["-f", "examples/shop"]);
    let host = server.address.to_string();
    let (bearer, body) = (server.bearer(), json!({"page": "a", "text": DENY}).to_string());
    let usual = [("Host", &*host), ("Authorization", &*bearer), ("Content-Type", "application/json")];
    let post = |headers: &[(&str, &str)], body: &str| {
        let mut head = String::new();
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        server
            .send(&format!("POST /api/v1/try HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    assert_eq!(post(&usual, &body).status, 200);
    assert_eq!(post(&usual[..2], &body).status, 415);
    assert_eq!(post(&[usual[0], usual[2]], &body).status, 401);
    assert_eq!(post(&[("Host", "evil.example"), usual[1], usual[2]], &body).status, 421);
    for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(post(&[&usual[..], &[(name, value)]].concat(), &body).status, 403, "{name}");
    }
    let answer = server.get("/api/v1/try");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let large = json!({"page": "a", "text": "#".repeat(300_000)}).to_string();
    for (wrong, status) in [
        (&*large, 413),
        ("", 400),
        ("{}", 400),
        (r#"{"page": "", "text": ""}"#, 400),
        (r#"{"page": "a", "text": "", "apply": true}"#, 400),
        (r#"{"page": "a", "text": "", "replaces": "NetworkPolicy shop/none"}"#, 422),
    ] {
        let answer = post(&usual, wrong);
        assert_eq!(answer.status, status, "{wrong:.100}: {}", answer.body);
    }
    // An alias bomb.
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    assert_ne!(tried(&server, &json!({"page": "a", "text": bomb}))["errors"], json!([]));
}

/// While one attempt of a page is evaluated, those that were sent meanwhile wait, and of these only the newest is evaluated.
#[test]
fn a_newer_attempt_replaces_older_ones() {
    let server = Server::start(&["-f", "examples/shop"]);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let one = |number: usize| {
            let body = json!({"page": "a", "text": DENY.replace("deny", &format!("deny-{number}"))});
            server.post("/api/v1/try", &body.to_string()).status
        };
        let all: Vec<_> = (0..20).map(|number| scope.spawn(move || one(number))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
}

//! The JSON output conforms to the published schemas in `docs/schemas`.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::fs;

use schema::conforms;
use serde_json::Value;
use support::{palisade, root, run};

/// Arguments for each verb that cover every kind of end, decision, cause and suggestion in the examples.
const QUESTIONS: &[(&str, &[&str])] = &[
    (
        "can",
        &[
            "shop/frontend shop/backend -f examples/shop",
            "staging/frontend shop/backend:8080 -f examples/shop",
            "shop/backend shop/svc/backend:80 -f examples/shop",
            "shop/backend internet:80 -f examples/shop",
            "shop/frontend 10.0.0.1/ICMP -f examples/shop",
            "sandbox/trial shop/api -f examples/tiers",
            "8.8.8.8 shop/api:8080 -f examples/tiers",
            "billing/invoices api.payments.example:443 -f examples/egress-by-name",
        ],
    ),
    (
        "describe",
        &[
            "shop/backend -f examples/shop",
            "shop/api -f examples/tiers",
            "shop/web -f examples/ingress",
            "shop/api -f examples/ingress",
            "shop/api -f examples/ingress --ingress-controller edge/controller",
            "shop/netpol/backend-egress -f examples/shop",
            "cnp/guardrails -f examples/tiers",
            "ns/shop -f examples/shop",
            "ns/shop -f examples/ingress",
            "shop/netpol/web -f crates/palisade/tests/cases/describe/idle.yaml",
        ],
    ),
    (
        "diff",
        &[
            "examples/shop examples/shop",
            "examples/shop examples/shop-two-rules",
            "examples/shop-two-rules examples/shop",
            "examples/shop examples/tiers",
            "crates/palisade/tests/cases/diff/label-moved/a crates/palisade/tests/cases/diff/label-moved/b",
            "crates/palisade/tests/cases/diff/new-ingress/a crates/palisade/tests/cases/diff/new-ingress/b",
            "crates/palisade/tests/cases/diff/future-pods/a crates/palisade/tests/cases/diff/future-pods/b",
            "crates/palisade/tests/cases/diff/policies-only/a crates/palisade/tests/cases/diff/policies-only/b",
        ],
    ),
    (
        "explain",
        &[
            "shop/frontend shop/backend -f examples/shop",
            "staging/frontend shop/backend:8080 -f examples/shop",
            "shop/frontend shop/backend:8080 -f examples/shop --to-deny",
            "shop/backend internet -f examples/shop",
            "sandbox/trial shop/api -f examples/tiers",
            "billing/invoices api.payments.example:443 -f examples/egress-by-name",
        ],
    ),
    (
        "lint",
        &[
            "-f examples/shop --severity note",
            "-f examples/shop-two-rules --severity note",
            "-f examples/tiers",
        ],
    ),
    (
        "overview",
        &["-f examples/shop", "-f examples/tiers", "-f examples/control-egress", "shop -f examples/shop"],
    ),
    (
        "replay",
        &[
            "--flows crates/palisade/tests/cases/replay/shop.jsonl -f examples/shop",
            "--flows crates/palisade/tests/cases/replay/shop.jsonl -f examples/shop --with crates/palisade/tests/cases/replay/stricter.yaml",
        ],
    ),
    (
        "report",
        &[
            "-f examples/shop",
            "-f examples/tiers --nodes",
            "-f examples/ingress",
            "-f examples/control-egress",
        ],
    ),
    (
        "suggest",
        &[
            "--flows crates/palisade/tests/cases/replay/shop.jsonl -f examples/shop",
            "--flows crates/palisade/tests/cases/replay/shop.jsonl -f examples/shop --style per-namespace -n shop",
            "--from-services -f crates/palisade/tests/cases/suggest/services",
        ],
    ),
    (
        "test",
        &[
            "examples/shop.assertions.yaml -f examples/shop",
            "examples/shop.assertions.yaml -f examples/shop-two-rules",
        ],
    ),
];

fn published(verb: &str) -> Value {
    let path = root().join(format!("docs/schemas/{verb}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn answer_of(verb: &str, question: &str) -> Value {
    let (code, out, err) = run(&mut palisade(&format!("{verb} {question} -o json")));
    assert!(code < 2, "{verb} {question}: {err}");
    serde_json::from_str(&out).unwrap()
}

/// Returns where a schema describes the fields of an answer: a verb with several kinds of answers describes each.
fn fields(schema: &Value, answer: &Value) -> String {
    let choices = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let places = choices.iter().map(|c| c["$ref"].as_str().unwrap().trim_start_matches('#'));
    let mut fitting = places
        .filter(|place| schema.pointer(place).unwrap()["properties"]["kind"]["const"] == answer["kind"]);
    fitting.next().map_or("/properties".to_owned(), |place| format!("{place}/properties"))
}

#[test]
fn answers_are_what_the_schemas_say() {
    for (verb, questions) in QUESTIONS {
        let schema = published(verb);
        for question in *questions {
            let answer = answer_of(verb, question);
            let fields = schema.pointer(&fields(&schema, &answer)).unwrap();
            assert_eq!(answer["schema"], fields["schema"]["const"], "{verb}");
            conforms(&schema, &schema, &answer, &format!("{verb} {question}: $"));
        }
    }
}

/// The check fails if a field of an answer is removed from the schema.
#[test]
fn the_check_sees_fields_that_are_not_described() {
    for (verb, questions) in QUESTIONS {
        let (schema, answer) = (published(verb), answer_of(verb, questions[1]));
        for (name, _) in answer.as_object().unwrap() {
            let mut poorer = schema.clone();
            let fields = poorer.pointer_mut(&fields(&schema, &answer)).unwrap();
            fields.as_object_mut().unwrap().remove(name);
            let check = std::panic::catch_unwind(|| conforms(&poorer, &poorer, &answer, "$"));
            assert!(check.is_err(), "{verb}: {name}");
        }
    }
}

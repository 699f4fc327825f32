//! `palisade test` as a user runs it.

mod support;

use std::{fs, path::PathBuf};

use serde_json::Value;
use support::{palisade, program, root, run};

const SHOP: &str = "test examples/shop.assertions.yaml -f examples/shop";

/// Writes assertions to a file and returns its path, with the directory that holds it.
fn written(assertions: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tests.yaml");
    fs::write(&file, format!("schema: palisade.test/v1\nassertions:\n{assertions}")).expect("a file");
    (dir, file)
}

fn checked(assertions: &str, manifests: &str, rest: &[&str]) -> (i32, String, String) {
    let (_dir, file) = written(assertions);
    let words = ["test", file.to_str().expect("UTF-8"), "-f", manifests];
    run(&mut program(words.into_iter().chain(rest.iter().copied())))
}

/// The files of assertions about the examples, each with its example.
fn example_files() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join("examples")).expect("the examples");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.filter_map(|name| Some((name.clone(), name.strip_suffix(".assertions.yaml")?.to_owned()))).collect()
}

#[test]
fn assertions_of_the_examples_hold() {
    let mut files = 0;
    for (name, example) in example_files() {
        let (code, out, err) = run(&mut palisade(&format!("test examples/{name} -f examples/{example}")));
        assert_eq!(code, 0, "{name}: {out}{err}");
        // Which agents enforce names is said with every answer.
        let expected = usize::from(example == "egress-by-name");
        assert_eq!(err.matches("warning[not-enforced]").count(), expected, "{name}: {err}");
        assert_eq!(err.matches("warning").count(), expected, "{name}: {err}");
        files += 1;
    }
    assert!(files >= 6, "{files}");
}

#[test]
fn the_extra_dash_breaks_two_assertions_with_its_line() {
    let (code, out, _) = run(&mut palisade(&SHOP.replace("-f examples/shop", "-f examples/shop-two-rules")));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("fails      the backend does not reach the internet"), "{out}");
    assert!(out.contains("egress[1] (examples/shop-two-rules/backend-egress.yaml:17)"), "{out}");
    assert!(out.ends_with("6 assertions checked, 4 hold, 2 failed\n"), "{out}");
}

/// All pods that exist are denied; a pod with two labels that none has is not.
#[test]
fn a_hole_for_a_pod_that_does_not_exist_is_found() {
    let assertion = "\
- name: nothing from other namespaces reaches the ledger
  from: { namespaces: 'kubernetes.io/metadata.name!=bank' }
  to: { namespace: bank, pods: { app: ledger } }
  expect: deny
";
    let manifests = "crates/palisade/tests/cases/test/future-hole.yaml";
    let (code, out, err) = checked(assertion, manifests, &[]);
    assert_eq!((code, &*err), (1, ""), "{out}");
    assert!(
        out.contains(
            "a new pod with role=auditor in a new namespace with audit=yes → bank/deployment/ledger  TCP 5432"
        ),
        "{out}"
    );
    assert!(out.contains("the source doesn't exist yet"), "{out}");
    assert!(out.contains("future-hole.yaml:43"), "{out}");
    let (_, json, _) = checked(assertion, manifests, &["-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["results"][0]["counterexamples"][0]["source"]["exists"], false);
}

#[test]
fn contradictions_are_said_with_both_lines() {
    let assertions = "\
- name: a
  from: shop/frontend
  to: { namespace: shop, pods: 'app=backend' }
  ports: [8000-8100]
  expect: allow
- name: b
  from: shop/*
  to: shop/backend
  ports: [8080]
  expect: deny
";
    let (code, out, _) = checked(assertions, "examples/shop", &[]);
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("tests.yaml:8:3")
            && out.contains("contradicts `a` at")
            && out.contains("tests.yaml:3:3"),
        "{out}"
    );
}

#[test]
fn what_matches_nothing_is_an_error() {
    let with = |from: &str| format!("- {{name: a, from: {from}, to: shop/backend, expect: deny}}\n");
    for (from, part) in [
        ("{pods: {app: nothing}}", "it matches no pod that exists"),
        ("{namespace: shpo}", "there is no namespace `shpo`; did you mean shop?"),
        ("shop/frontent", "did you mean"),
        ("shop/frontend:80", "give ports in `ports`"),
        ("api.example.org", "its addresses are not known"),
    ] {
        let (code, out, _) = checked(&with(from), "examples/shop", &[]);
        assert_eq!(code, 2, "{from}: {out}");
        assert!(out.contains(part) && out.contains("tests.yaml:3:"), "{from}: {out}");
    }
    let named = "- {name: a, from: shop/frontend, to: shop/backend, ports: [https], expect: deny}\n";
    let (code, out, _) = checked(named, "examples/shop", &[]);
    assert!(code == 2 && out.contains("no destination has a port `https`/TCP"), "{out}");
}

#[test]
fn files_that_are_no_assertions_are_refused() {
    for (text, part) in [
        ("[", "tests.yaml:3:"),
        ("- name: x\n", "`expect` is missing"),
        ("- {nme: x}\n", "did you mean `name`?"),
    ] {
        let (code, out, err) = checked(text, "examples/shop", &[]);
        assert_eq!((code, &*out), (2, ""), "{text}");
        assert!(err.contains(part), "{text}: {err}");
    }
}

#[test]
fn a_first_file_holds() {
    for example in ["shop", "isolate-database", "segment"] {
        let (code, text, err) = run(&mut palisade(&format!("test --init -f examples/{example}")));
        assert_eq!((code, &*err), (0, ""), "{example}");
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tests.yaml");
        fs::write(&file, &text).expect("a file");
        let words = format!("test {} -f examples/{example}", file.display());
        let (code, out, err) = run(&mut palisade(&words));
        assert_eq!((code, &*err), (0, ""), "{example}: {text}{out}");
    }
}

/// Where nothing may connect, that is what the first file says.
#[test]
fn the_first_file_says_that_nothing_reaches_what_denies_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let manifests = dir.path().join("manifests.yaml");
    let deny = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: deny, namespace: shop}}, spec: {deny}}}\n"
    );
    let pod = |ports: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: db, namespace: shop}}, spec: {{containers: [{{name: db, image: db{ports}}}]}}}}\n"
        )
    };
    let web = pod("").replace("db", "web");
    fs::write(&manifests, policy.clone() + &web + &pod(", ports: [{containerPort: 5432}]")).expect("a file");
    let init = format!("test --init -f {}", manifests.display());
    let (code, text, err) = run(&mut palisade(&init));
    assert!((code, &*err) == (0, "") && text.contains("no pod reaches shop/pod/db"), "{text}{err}");
    let file = dir.path().join("tests.yaml");
    fs::write(&file, &text).expect("a file");
    let (code, out, err) = run(&mut palisade(&format!("test {} -f {}", file.display(), manifests.display())));
    assert_eq!((code, &*err), (0, ""), "{text}{out}");

    fs::write(&manifests, policy + &pod("")).expect("a file");
    let (code, _, err) = run(&mut palisade(&init));
    assert!(code == 2 && err.contains("no workload declares ports"), "{err}");
}

#[test]
fn reports_for_programs_have_every_assertion() {
    let words = SHOP.replace("-f examples/shop", "-f examples/shop-two-rules");
    let (code, tap, _) = run(&mut palisade(&format!("{words} -o tap")));
    assert!(code == 1 && tap.starts_with("TAP version 14\n1..6\nok 1 - "), "{tap}");
    assert!(tap.contains("\nnot ok 4 - the backend does not reach the internet\n# fails"), "{tap}");
    let (code, junit, _) = run(&mut palisade(&format!("{words} -o junit")));
    assert!(code == 1 && junit.contains("tests=\"6\" failures=\"2\" errors=\"0\""), "{junit}");
    assert_eq!(junit.matches("<testcase ").count(), 6, "{junit}");
    let (code, json, _) = run(&mut palisade(&format!("{words} -o json")));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (code, &json["status"], json["results"].as_array().map(Vec::len)),
        (1, &Value::from("fails"), Some(6))
    );
}

#[test]
fn the_examples_conform_to_the_schema_of_the_file() {
    let (code, text, _) = run(&mut palisade("test --schema"));
    let published: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(code, 0);
    for (name, _) in example_files() {
        let text = fs::read_to_string(root().join("examples").join(&name)).expect("a file");
        let file: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert!(fits(&published, &published, &file), "{name}");
        let mut extra = file.clone();
        extra["assertions"][0]["form"] = Value::from("x");
        assert!(!fits(&published, &published, &extra), "an unknown field is refused");
    }
}

/// Whether a value is what the keywords of JSON Schema that this schema uses say.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(root, root.pointer(reference.trim_start_matches('#')).expect(reference), value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().filter(|choice| fits(root, choice, value)).count() == 1;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.contains(value);
    }
    if let Some(constant) = schema.get("const") {
        return value == constant;
    }
    match (schema["type"].as_str().expect("a type"), value) {
        ("string", Value::String(_)) | ("integer", Value::Number(_)) => true,
        ("array", Value::Array(items)) => items.iter().all(|item| fits(root, &schema["items"], item)),
        ("object", Value::Object(fields)) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let described = |name: &str| match &schema["additionalProperties"] {
                Value::Object(_) => Some(&schema["additionalProperties"]),
                _ => schema["properties"].get(name),
            };
            let mut all = required.map(|name| name.as_str().is_some_and(|name| fields.contains_key(name)));
            all.all(|there| there)
                && fields
                    .iter()
                    .all(|(name, field)| described(name).is_some_and(|one| fits(root, one, field)))
        }
        _ => false,
    }
}

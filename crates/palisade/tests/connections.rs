//! `palisade connections` as users run it: every form of the answer word for word, filters, odd names, and what bad input
//! gets. `PALISADE_BLESS=1 cargo test` writes the recorded answers anew.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const FORMS: [&str; 10] = ["table", "wide", "json", "yaml", "csv", "md", "dot", "mermaid", "svg", "html"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program in the repository's root, so that file names in answers are those of the examples.
fn palisade(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(words.split(' ')).current_dir(root()).stdin(Stdio::null());
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE");
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[track_caller]
fn answer(words: &str) -> String {
    let (code, out, err) = run(&mut palisade(words));
    assert_eq!(code, 0, "{words}: {err}");
    assert_eq!(err, "", "{words}");
    out
}

#[track_caller]
fn json(words: &str) -> Value {
    serde_json::from_str(&answer(&format!("{words} -o json"))).unwrap()
}

#[track_caller]
fn refused(words: &str, part: &str) {
    let (code, out, err) = run(&mut palisade(words));
    assert_eq!((code, &*out), (2, ""), "{words}: {err}");
    assert!(err.contains(part) && !err.contains("panicked"), "{words}: no {part:?} in {err}");
}

/// `FROM  TO  PORTS`, as the table has it, with single spaces.
fn lines(words: &str) -> Vec<String> {
    let squeeze = |line: &str| {
        line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" | ")
    };
    answer(words).lines().skip(1).map(squeeze).collect()
}

#[test]
fn every_form_is_as_recorded() {
    let mut differing = Vec::new();
    for (name, words) in
        [("shop", ""), ("shop-denied", " --only-denied"), ("shop-namespaces", " --group-by namespace")]
    {
        for form in FORMS {
            if name != "shop" && !matches!(form, "table" | "json" | "svg") {
                continue;
            }
            let out = answer(&format!("connections -f examples/shop -o {form}{words}"));
            let extension = if form == "table" || form == "wide" { "txt" } else { form };
            let path = root().join(format!("crates/palisade/tests/connections/{name}-{form}.{extension}"));
            if std::env::var_os("PALISADE_BLESS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &out).unwrap();
            } else if fs::read_to_string(&path).ok().as_deref() != Some(&out) {
                differing.push(format!("{name}-{form}:\n{out}"));
            }
        }
    }
    assert!(differing.is_empty(), "not as in tests/connections:\n{}", differing.join("\n"));
}

#[test]
fn the_order_of_files_never_shows() {
    let file = |name: &str| format!("-f examples/shop/{name}.yaml");
    let names = ["backend-egress", "backend-from-frontend", "workloads"].map(file);
    let [a, b, c] = &names;
    for form in FORMS {
        for options in ["", " --only-denied", " --group-by pod", " --group-by class", " --nodes"] {
            let of = |files: [&String; 3]| {
                answer(&format!("connections {} {} {} -o {form}{options}", files[0], files[1], files[2]))
            };
            let first = of([a, b, c]);
            assert_eq!(first, of([c, b, a]), "{form}{options}");
            assert_eq!(first, of([b, c, a]), "{form}{options}");
        }
    }
}

#[test]
fn yaml_says_what_json_says() {
    for options in ["", " --group-by class --nodes", " --only-denied", " --from internet"] {
        let yaml = answer(&format!("connections -f examples/segment{options} -o yaml"));
        let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(yaml, json(&format!("connections -f examples/segment{options}")), "{options}");
    }
}

#[test]
fn json_names_objects_places_and_ports() {
    let json = json("connections -f examples/shop");
    assert_eq!(json["schema"], "palisade.connections/v1");
    assert_eq!((&json["shows"], &json["group_by"]), (&"allowed".into(), &"workload".into()));
    let end = &json["ends"][2];
    assert_eq!(end["object"]["name"], "backend");
    assert_eq!(end["object"]["kind"], "Deployment");
    assert_eq!(
        (&end["object"]["file"], &end["object"]["line"]),
        (&"examples/shop/workloads.yaml".into(), &52.into())
    );
    let outside = json["ends"].as_array().unwrap().iter().find(|e| e["id"] == "192.168.1.0/24").unwrap();
    assert_eq!(outside["ranges"], serde_json::json!([{"first": "192.168.1.0", "last": "192.168.1.255"}]));
    let of_backend: Vec<&Value> = json["connections"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["from"] == "shop/deployment/backend")
        .collect();
    assert_eq!(of_backend.len(), 1);
    assert_eq!(of_backend[0]["to"], "192.168.1.0/24");
    assert_eq!(of_backend[0]["ports"], serde_json::json!([{"protocol": "TCP", "first": 80, "last": 80}]));
    assert_eq!((&of_backend[0]["all"], &of_backend[0]["other_protocols"]), (&false.into(), &false.into()));
    assert_eq!(of_backend[0]["families"], serde_json::json!(["IPv4"]));
    // Each connection names two ends of the list.
    let ids: Vec<&str> = json["ends"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    for connection in json["connections"].as_array().unwrap() {
        assert!(ids.contains(&connection["from"].as_str().unwrap()), "{connection}");
        assert!(ids.contains(&connection["to"].as_str().unwrap()), "{connection}");
    }
}

/// The published schema and the answers hold the same fields: every field of an answer is described, and every one that
/// the schema demands is there.
#[test]
fn the_published_schema_describes_the_answers() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(root().join("docs/connections-schema.json")).unwrap())
            .unwrap();
    for example in ["shop", "segment", "restrict-external", "control-egress"] {
        for options in
            ["", " --group-by pod", " --group-by namespace", " --group-by class", " --nodes --only-denied"]
        {
            let json = json(&format!("connections -f examples/{example}{options}"));
            conforms(&schema, &schema, &json, "$");
        }
    }
    let mut odd = schema;
    odd["properties"]["schema"]["const"] = "palisade.connections/v0".into();
    let json = json("connections -f examples/shop");
    assert!(std::panic::catch_unwind(|| conforms(&odd, &odd, &json, "$")).is_err(), "the check sees nothing");
}

/// Checks the keywords of JSON Schema that ours uses.
fn conforms(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"));
        return conforms(root, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let kind = &value["kind"];
        let fitting: Vec<&Value> = choices
            .iter()
            .map(|c| root.pointer(c["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap())
            .filter(|c| c["properties"]["kind"]["const"] == *kind)
            .collect();
        assert_eq!(fitting.len(), 1, "{at}: kind {kind}");
        return conforms(root, fitting[0], value, at);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(all) => all.iter().map(|k| k.as_str().unwrap()).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.is_empty() || kinds.contains(&kind), "{at}: {kind} is none of {kinds:?}");
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value}");
    }
    match value {
        Value::Object(fields) => {
            let known =
                schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: fields not described"));
            for (name, field) in fields {
                let described = known.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
                conforms(root, described, field, &format!("{at}.{name}"));
            }
            for name in schema["required"].as_array().unwrap() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
            }
        }
        Value::Array(items) => {
            for item in items {
                conforms(root, &schema["items"], item, &format!("{at}[]"));
            }
        }
        _ => {}
    }
}

#[test]
fn filters_choose_ends_and_ports() {
    assert_eq!(
        lines("connections -f examples/shop --from shop/backend"),
        ["shop/deployment/backend | 192.168.1.0/24 | TCP 80"]
    );
    assert_eq!(
        lines("list -f examples/shop --from backend -n shop --to 192.168.1.7"),
        ["shop/deployment/backend | 192.168.1.7 | TCP 80"]
    );
    assert_eq!(
        lines("connections -f examples/shop --to deploy/backend -n shop --port 8080 --port 53/UDP"),
        ["shop/deployment/frontend | shop/deployment/backend | TCP 8080; UDP 53"]
    );
    assert_eq!(
        lines("connections -f examples/shop --from namespace/shop --to 192.168.1.0/24 --only-denied"),
        ["shop/deployment/backend | 192.168.1.0/24 | TCP 1-79,81-65535; UDP; SCTP; other protocols"]
    );
    assert!(
        lines("connections -f examples/shop -n data").iter().all(|l| l.contains("data/statefulset/database"))
    );
    assert_eq!(lines("connections -f examples/shop -A"), lines("connections -f examples/shop"));
    assert_eq!(
        answer("connections -f examples/shop --from shop/backend --to data/database"),
        "no connection that was asked about is allowed\n"
    );
    let none = "connections -f examples/shop --from shop/backend --to data/database";
    for form in FORMS {
        assert!(!answer(&format!("{none} -o {form}")).is_empty(), "{form}");
    }
    assert_eq!(json(none)["connections"], serde_json::json!([]));
}

/// What `connections` shows and what `can` answers are the same, for every port that the examples name.
#[test]
fn can_and_connections_agree() {
    for example in
        ["shop", "shop-two-rules", "segment", "isolate-database", "control-egress", "restrict-external"]
    {
        let json = json(&format!("connections -f examples/{example}"));
        let workloads: Vec<String> = json["ends"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["kind"] == "workload" && e["all_pods"] == true)
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(workloads.len() > 2, "{example}");
        for from in &workloads {
            for to in workloads.iter().filter(|to| *to != from) {
                for port in [80, 5432] {
                    let shown = json["connections"].as_array().unwrap().iter().any(|c| {
                        let has = |p: &Value| {
                            p["protocol"] == "TCP"
                                && p["first"].as_u64() <= Some(port)
                                && p["last"].as_u64() >= Some(port)
                        };
                        c["from"] == **from
                            && c["to"] == **to
                            && c["families"].as_array().unwrap().len() == 2
                            && c["ports"].as_array().unwrap().iter().any(has)
                    });
                    let words = format!("can {from} {to}:{port} -q -f examples/{example}");
                    let (code, _, err) = run(&mut palisade(&words));
                    assert_eq!(code, i32::from(!shown), "{words}: {err}");
                }
            }
        }
    }
}

/// Owners of pods may be of any kind, and files may have any name.
#[test]
fn odd_names_stay_text() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("<script>alert(\"1\")|x;`.yaml");
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  ownerReferences:\n  - {apiVersion: x/v1, kind: \
                    '<img src=x onerror=a()>\"|]`#', name: \"=c|\\u001b[31m\\u202e<b>\\\"\", uid: u}\nspec: {containers: [{name: c, image: \
                    i}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: \"no\"}\nspec: {containers: [{name: c, \
                    image: i}]}\n";
    fs::write(&file, manifest).unwrap();
    let out = |form: &str| {
        let mut command = palisade(&format!("connections -o {form} -f"));
        let (code, out, err) = run(command.arg(dir.path()));
        assert_eq!(code, 0, "{form}: {err}");
        out
    };
    for form in FORMS {
        let text = out(form);
        assert!(
            !text.contains('\u{1b}') && (matches!(form, "json" | "yaml") || !text.contains('\u{202e}')),
            "{form}:\n{text}"
        );
    }
    for form in ["html", "svg", "md", "mermaid"] {
        let text = out(form);
        assert!(
            !text.contains("<img") && !text.contains("<b>") && !text.contains("<script>alert"),
            "{form}:\n{text}"
        );
    }
    let page = out("html");
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)|x;`.yaml"), "{page}");
    assert_eq!(page.matches("<script>").count(), 1);
    // The page loads nothing.
    let namespace = "xmlns=\"http://www.w3.org/2000/svg\"";
    assert!(
        !page.replace(namespace, "").contains("://") && !page.contains("src=\"") && !page.contains("@import")
    );
    // No quote ends a string of DOT early.
    for line in out("dot").lines().filter(|l| l.contains("label=")) {
        let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        assert_eq!(quotes, 2, "{line}");
    }
    // Mermaid's quotes likewise, and table rows have their columns.
    for line in out("mermaid").lines().filter(|l| l.contains('"')) {
        assert_eq!(line.matches('"').count(), 2, "{line}");
    }
    for line in out("md").lines() {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 4, "{line}");
    }
    for line in out("csv").split_terminator("\r\n") {
        let outside_quotes: String = line.split('"').step_by(2).collect();
        assert_eq!(outside_quotes.matches(',').count(), 11, "{line}");
    }
}

#[test]
fn pods_that_no_policy_acts_on_are_told() {
    let dir = TempDir::new().unwrap();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: h}\nspec: {hostNetwork: true, nodeName: node-1, containers: [{name: \
                    c, image: i}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n";
    fs::write(dir.path().join("m.yaml"), manifest).unwrap();
    let (code, out, err) = run(palisade("connections -o json -f").arg(dir.path()));
    assert_eq!(code, 0);
    assert!(err.contains("1 pod") && err.contains("default/h"), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["bystanders"][0]["pod"], "h");
    assert_eq!(json["bystanders"][0]["node"], "node-1");
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("connections", "-f PATH");
    refused("connections -f examples/none", "examples/none");
    refused("connections -f examples/shop -n shp", "no namespace `shp`");
    refused("connections -f examples/shop -n shop -A", "cannot be used with");
    refused("connections -f examples/shop --from shop/frontent", "did you mean");
    refused("connections -f examples/shop --to namespace/shp", "no namespace `shp`");
    refused("connections -f examples/shop --to shop/backend:80", "--port");
    refused("connections -f examples/shop --port http", "port names mean something else");
    refused("connections -f examples/shop --port 90-80", "ends before it begins");
    refused("connections -f examples/shop -o xml", "possible values");
    let dir = TempDir::new().unwrap();
    let (code, out, err) = run(palisade("connections -f").arg(dir.path()));
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("no manifests there"), "{err}");
    fs::write(dir.path().join("m.yaml"), "# nothing\n").unwrap();
    let (code, _, err) = run(palisade("connections -f").arg(dir.path()));
    assert_eq!(code, 2);
    assert!(err.contains("empty"), "{err}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for form in FORMS {
        // More than a pipe holds, so that the writer meets the closed end.
        let words = format!("connections -f examples/shop -f examples/segment --group-by pod -o {form}");
        let mut child = palisade(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{form}: {err}");
        assert_eq!(err, "", "{form}");
    }
}

//! `palisade connections` as users run it: snapshots of every output format, filters, hostile names, and invalid input.
//! `PALISADE_BLESS=1 cargo test` updates the snapshots.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "connections/hundred.rs"]
mod hundred;
#[path = "support/schema.rs"]
mod schema;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    process::Stdio,
};

use schema::conforms;
use serde_json::Value;
use support::{palisade, recorded, refused, root, run};
use tempfile::TempDir;

const FORMS: [&str; 11] =
    ["table", "wide", "matrix", "json", "yaml", "csv", "md", "dot", "mermaid", "svg", "html"];

#[track_caller]
fn answer(words: &str) -> String {
    support::answer(0, words)
}

#[track_caller]
fn json(words: &str) -> Value {
    serde_json::from_str(&answer(&format!("{words} -o json"))).unwrap()
}

/// Returns the JSON with a connection for each pair.
#[track_caller]
fn flat(words: &str) -> Value {
    json(&format!("{words} --no-fold"))
}

/// Returns the lines of the table with a line for each pair, with ` | ` between columns.
fn lines(words: &str) -> Vec<String> {
    let squeeze = |line: &str| {
        line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" | ")
    };
    answer(&format!("{words} --no-fold")).lines().skip(1).map(squeeze).collect()
}

#[test]
fn every_form_is_as_recorded() {
    for (name, words) in
        [("shop", ""), ("shop-denied", " --only-denied"), ("shop-namespaces", " --group-by namespace")]
    {
        for form in FORMS {
            if name != "shop" && !matches!(form, "table" | "matrix" | "json" | "svg") {
                continue;
            }
            let extension = if matches!(form, "table" | "wide" | "matrix") { "txt" } else { form };
            let out = answer(&format!("connections -f examples/shop -o {form}{words}"));
            recorded(&format!("connections/{name}-{form}.{extension}"), &out);
        }
    }
    for form in ["table", "json"] {
        let out = answer(&format!("connections -f examples/shop -o {form} --no-fold"));
        let extension = if form == "table" { "txt" } else { form };
        recorded(&format!("connections/shop-all-{form}.{extension}"), &out);
    }
}

#[test]
fn the_order_of_files_never_shows() {
    for (example, names) in [
        ("shop", ["backend-egress", "backend-from-frontend", "workloads"]),
        ("ingress", ["policies", "routes", "workloads"]),
    ] {
        let [a, b, c] = &names.map(|name| format!("-f examples/{example}/{name}.yaml"));
        let nodes = if example == "shop" { "-f examples/shop/nodes.yaml " } else { "" };
        for form in FORMS {
            for options in ["", " --only-denied", " --group-by pod", " --group-by class", " --nodes"] {
                let of = |files: [&String; 3]| {
                    let words = format!(
                        "connections {} {nodes}{} {} -o {form}{options}",
                        files[0], files[1], files[2]
                    );
                    run(&mut palisade(&words))
                };
                let first = of([a, b, c]);
                assert_eq!(first.0, 0);
                assert_eq!(first, of([c, b, a]), "{form}{options}");
                assert_eq!(first, of([b, c, a]), "{form}{options}");
            }
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

/// The pairs of a document by ends and family, expanded as docs/connections.md describes.
fn expanded(json: &Value) -> BTreeMap<(String, String, String), Value> {
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let ends: BTreeMap<&str, &Value> =
        json["ends"].as_array().unwrap().iter().map(|e| (e["id"].as_str().unwrap(), e)).collect();
    let mut sets: BTreeMap<String, BTreeSet<String>> =
        ends.keys().map(|id| ((*id).to_owned(), [(*id).to_owned()].into())).collect();
    for set in json["sets"].as_array().unwrap() {
        let members = match set.get("ends") {
            Some(members) => names(members),
            None => {
                let left_out = names(&set["all_but"]);
                ends.keys().filter(|id| !left_out.contains(**id)).map(|id| (*id).to_owned()).collect()
            }
        };
        assert!(members.len() > 1 && members.iter().all(|m| ends.contains_key(&**m)), "{set}");
        assert!(sets.insert(set["id"].as_str().unwrap().to_owned(), members).is_none(), "{set}");
    }
    let mut out = BTreeMap::new();
    for connection in json["connections"].as_array().unwrap() {
        let members = |end: &str| &sets[connection[end].as_str().unwrap()];
        for from in members("from") {
            for to in
                members("to").iter().filter(|to| *to != from || ends[to.as_str()]["size"].as_u64() > Some(1))
            {
                let (a, b) = (names(&ends[from.as_str()]["families"]), names(&ends[to.as_str()]["families"]));
                for family in
                    names(&connection["families"]).iter().filter(|f| a.contains(*f) && b.contains(*f))
                {
                    let mut traffic = connection.clone();
                    for end in ["from", "to", "families"] {
                        traffic.as_object_mut().unwrap().remove(end);
                    }
                    let before = out.insert((from.clone(), to.clone(), family.clone()), traffic);
                    assert!(before.is_none(), "{from} to {to} twice");
                }
            }
        }
    }
    out
}

#[test]
fn sets_expand_to_every_pair() {
    for example in ["shop", "segment", "restrict-external", "control-egress", "ingress"] {
        for group_by in ["workload", "pod", "namespace", "class"] {
            for options in
                ["", " --nodes", " --only-denied --nodes", " -n shop", " --from internet --port 80"]
            {
                let words =
                    format!("connections -f examples/{example} --group-by {group_by}{options} -o json");
                let of = |words: &str| -> Value {
                    let (code, out, err) = run(&mut palisade(words));
                    if err.contains("not found") {
                        return Value::Null;
                    }
                    assert_eq!(code, 0, "{words}: {err}");
                    serde_json::from_str(&out).unwrap()
                };
                let (folded, flat) = (of(&words), of(&format!("{words} --no-fold")));
                if !flat.is_null() {
                    assert_eq!(expanded(&folded), expanded(&flat), "{words}");
                    assert_eq!(folded["ends"], flat["ends"], "{words}");
                    assert_eq!(flat["sets"], serde_json::json!([]));
                }
            }
        }
    }
}

#[test]
fn json_names_objects_places_and_ports() {
    let json = flat("connections -f examples/shop");
    assert_eq!(json["schema"], "palisade.connections/v2");
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
    // Each connection refers to two listed ends.
    let ids: Vec<&str> = json["ends"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    for connection in json["connections"].as_array().unwrap() {
        assert!(ids.contains(&connection["from"].as_str().unwrap()), "{connection}");
        assert!(ids.contains(&connection["to"].as_str().unwrap()), "{connection}");
    }
}

#[test]
fn the_published_schema_describes_the_answers() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(root().join("docs/connections-schema.json")).unwrap())
            .unwrap();
    for example in ["shop", "segment", "restrict-external", "control-egress"] {
        for options in [
            "",
            " --group-by pod",
            " --group-by namespace",
            " --explain",
            " --nodes --only-denied --explain --no-fold",
        ] {
            let json = json(&format!("connections -f examples/{example}{options}"));
            conforms(&schema, &schema, &json, "$");
        }
    }
    for options in ["", " --ingress-controller edge/controller --nodes", " --group-by namespace"] {
        let (code, out, _) = run(&mut palisade(&format!("connections -f examples/ingress{options} -o json")));
        assert_eq!(code, 0);
        conforms(&schema, &schema, &serde_json::from_str(&out).unwrap(), "$");
    }
    let mut odd = schema;
    odd["properties"]["schema"]["const"] = "palisade.connections/v0".into();
    let json = json("connections -f examples/shop");
    assert!(std::panic::catch_unwind(|| conforms(&odd, &odd, &json, "$")).is_err(), "the check sees nothing");
}

#[test]
fn ingress_controllers_are_shown_in_every_format() {
    for form in FORMS {
        let extension = if matches!(form, "table" | "wide" | "matrix") { "txt" } else { form };
        let (code, out, err) = run(&mut palisade(&format!("connections -f examples/ingress -o {form}")));
        assert_eq!(code, 0);
        assert!(out.contains("{ingress-controller}"), "{form}: {out}");
        assert!(
            err.starts_with("warning: GRPCRoute shop/api (examples/ingress/routes.yaml:35) leads to"),
            "{err}"
        );
        recorded(&format!("connections/ingress-{form}.{extension}"), &out);
    }
    let forwarded = |words: &str| {
        let (code, out, err) =
            run(&mut palisade(&format!("connections -f examples/ingress {words} --no-fold -o json")));
        assert_eq!(code, 0, "{err}");
        (serde_json::from_str::<Value>(&out).unwrap(), err)
    };
    // The policies of the API allow only the controller that they select.
    let (json, err) = forwarded("--from {ingress-controller} --ingress-controller edge/controller");
    assert_eq!(err, "");
    let to = |json: &Value| {
        let all = json["connections"].as_array().unwrap().iter();
        all.map(|c| (c["to"].clone(), c["ports"][0]["first"].clone(), c["through"][0]["kind"].clone()))
            .collect::<Vec<_>>()
    };
    let (api, web) = (
        ("shop/deployment/api".into(), 9000.into(), "GRPCRoute".into()),
        ("shop/deployment/web".into(), 8080.into(), "Ingress".into()),
    );
    assert_eq!(to(&json), [api.clone(), web.clone()]);
    assert_eq!(json["blocked"], Value::Null);
    let (json, _) = forwarded("--from {ingress-controller}");
    assert_eq!(to(&json), [web]);
    assert_eq!(json["blocked"][0]["to"], "shop/deployment/api");
    let (json, _) = forwarded("--from {ingress-controller} --only-denied");
    assert_eq!(to(&json), [api]);
    let (json, _) = forwarded("--from {ingress-controller} --port 9000");
    assert_eq!(to(&json), []);
    let (json, _) = forwarded("-n edge");
    assert_eq!(json["blocked"], Value::Null, "not of that namespace");
    for (words, part) in [
        ("--ingress-controller nobody -n shop", "there is no pod or workload `nobody`"),
        ("--ingress-controller svc/web -n shop", "not a workload"),
        ("--ingress-controller 10.0.0.1", "not a workload"),
        ("--ingress-controller edge/controller:80", "must be omitted"),
        ("--from {ingress}", "`{ingress}`"),
    ] {
        refused(&format!("connections -f examples/ingress {words}"), part);
    }
}

#[test]
fn filters_select_ends_and_ports() {
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
        "no matching connection is allowed\n"
    );
    let none = "connections -f examples/shop --from shop/backend --to data/database";
    for form in FORMS {
        assert!(!answer(&format!("{none} -o {form}")).is_empty(), "{form}");
    }
    assert_eq!(json(none)["connections"], serde_json::json!([]));
}

/// Ends are pods, not the addresses of their ranges: an empty answer would be wrong.
#[test]
fn addresses_of_pods_are_no_ends() {
    let dir = TempDir::new().unwrap();
    let pod = |name: &str, last: u8| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: a, labels: {{app: {name}}}}}, spec: {{nodeName: n1, containers: [{{name: c}}]}}, status: {{phase: Running, podIP: 10.244.0.{last}}}}}\n"
        )
    };
    let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.244.0.0/24}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}\n";
    let file = dir.path().join("m.yaml");
    fs::write(&file, format!("{node}{}", pod("p", 5))).unwrap();
    let from = |range: &str| format!("connections -f {} --from {range}", file.display());
    for range in ["10.244.0.77", "10.244.0.0/25", "10.244.0.0/24"] {
        refused(&from(range), "it belongs to pods: name pods instead");
    }
    for outside in ["10.244.1.77", "10.0.0.0/8", "0.0.0.0/0"] {
        assert!(answer(&from(outside)).contains("a/pod/p"), "{outside}");
    }
    // A single pod has no other of its workload to connect to.
    let within = format!("connections -f {} -n a --to p --from p", file.display());
    assert_eq!(answer(&within), "no matching connection is allowed\n");
}

/// `connections` and `can` agree for every port in the examples.
#[test]
fn can_and_connections_agree() {
    for example in
        ["shop", "shop-two-rules", "segment", "isolate-database", "control-egress", "restrict-external"]
    {
        let json = flat(&format!("connections -f examples/{example}"));
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
    // No quote ends a DOT string early.
    for line in out("dot").lines().filter(|l| l.contains("label=")) {
        let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        assert_eq!(quotes, 2, "{line}");
    }
    // The same for Mermaid; and table rows have the right number of columns.
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
    assert_eq!(json["bystanders"][0]["object"]["name"], "h");
    assert_eq!(json["bystanders"][0]["node"]["name"], "node-1");
}

#[test]
fn bad_questions_get_clear_errors() {
    refused("connections", "-f PATH");
    refused("connections -f examples/none", "examples/none");
    refused("connections -f examples/shop -n shp", "namespace `shp` not found");
    refused("connections -f examples/shop -n shop -A", "cannot be used with");
    refused("connections -f examples/shop --from shop/frontent", "did you mean");
    refused("connections -f examples/shop --to namespace/shp", "namespace `shp` not found");
    refused("connections -f examples/shop --to shop/backend:80", "--port");
    refused("connections -f examples/shop --port http", "port names are not supported");
    refused("connections -f examples/shop --port 90-80", "ends before it starts");
    refused("connections -f examples/shop -o xml", "possible values");
    let dir = TempDir::new().unwrap();
    let (code, out, err) = run(palisade("connections -f").arg(dir.path()));
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("no manifests found"), "{err}");
    fs::write(dir.path().join("m.yaml"), "# nothing\n").unwrap();
    let (code, _, err) = run(palisade("connections -f").arg(dir.path()));
    assert_eq!(code, 2);
    assert!(err.contains("empty"), "{err}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    for form in FORMS {
        // The output exceeds the pipe's capacity, so that the writer sees the closed pipe.
        let words = format!("connections -f examples/shop -f examples/segment --group-by pod -o {form}");
        let mut child = palisade(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{form}: {err}");
        assert_eq!(err, "", "{form}");
    }
}

#[test]
fn a_hundred_workloads_fit_on_a_few_screens() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("cluster.yaml"), hundred::manifests()).unwrap();
    let of = |options: &str| {
        let (code, out, err) = run(palisade(&format!("connections{options} -f")).arg(dir.path()));
        assert_eq!(code, 0, "{err}");
        out
    };
    let text = of("");
    recorded("connections/hundred-table.txt", &text);
    assert!(text.lines().count() < 200, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    // No name is cut: each workload is listed by itself or by its namespace.
    for name in ["shop/deployment/checkout", "data/deployment/kafka", "legacy/*", "edge/deployment/nginx"] {
        assert!(text.contains(name), "{name}");
    }
    let (folded, flat) = (of(" -o json"), of(" -o json --no-fold"));
    assert!(folded.len() * 3 < flat.len(), "{} and {} bytes", folded.len(), flat.len());
    let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(expanded(&parsed(&folded)), expanded(&parsed(&flat)));
    // By namespace, the matrix fits on two screens.
    let matrix = of(" -o matrix --group-by namespace");
    assert!(matrix.lines().count() < 100, "{matrix}");
    assert!(
        matrix.lines().filter(|line| !line.starts_with("  ")).all(|line| line.chars().count() <= 100),
        "{matrix}"
    );
    assert!(of(" --explain").contains("ingress: NetworkPolicy shop/edge-nginx-shop-web-in, ingress[0] ("));
}

#[test]
fn reasons_name_rules_and_isolating_policies() {
    let text = answer("connections -f examples/shop --explain");
    recorded("connections/shop-explain.txt", &text);
    recorded(
        "connections/shop-denied-explain.txt",
        &answer("connections -f examples/shop --explain --only-denied"),
    );
    for options in ["", " --no-fold", " --group-by pod", " --group-by class --nodes"] {
        let json = json(&format!("connections -f examples/shop --explain{options}"));
        let all = json["connections"].as_array().unwrap();
        let rule = |side: &str| {
            let of = move |c: &Value| c["reasons"][side][0]["rule"].clone();
            all.iter().map(of).find(|rule| !rule.is_null()).unwrap()
        };
        assert_eq!(rule("egress")["policy"]["name"], "backend-egress", "{options}");
        assert_eq!(rule("ingress")["policy"]["kind"], "NetworkPolicy", "{options}");
        assert_eq!(rule("ingress")["line"], 14, "{options}");
        for connection in all {
            for side in ["egress", "ingress"] {
                assert!(
                    !connection["reasons"][side].as_array().unwrap().is_empty(),
                    "{options}: {connection}"
                );
            }
        }
    }
    let denied = json("connections -f examples/shop --explain --only-denied --from shop/backend");
    let reasons = &denied["connections"][0]["reasons"];
    assert_eq!(reasons["egress"][0]["reason"], "isolated");
    assert_eq!(reasons["egress"][0]["policies"][0]["name"], "backend-egress");
    refused("connections -f examples/shop --explain --group-by namespace", "--group-by workload");
    refused("connections -f examples/shop --explain -o dot", "-o table, json or yaml");
    refused("connections -f examples/shop --explain --no-fold", "-o json or yaml");
}

#[test]
fn without_pods_there_is_no_answer() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(
        &file,
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}}}",
    )
    .unwrap();
    for more in ["", " --only-denied", " -o json"] {
        refused(&format!("connections -f {}{more}", file.display()), "have no pods");
    }
}

//! `palisade suggest` as users run it.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use support::{palisade, recorded, refused, run};

const CASES: &str = "crates/palisade/tests/cases";

/// A directory with records, manifests and what was suggested.
struct Trial {
    folder: tempfile::TempDir,
}

impl Trial {
    fn new(records: &str) -> Self {
        let trial = Self { folder: tempfile::tempdir().expect("a directory") };
        fs::create_dir(trial.manifests()).expect("it can be made");
        fs::write(trial.flows(), records).expect("it can be written");
        trial
    }

    fn flows(&self) -> PathBuf {
        self.folder.path().join("flows")
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    fn suggested(&self) -> PathBuf {
        self.folder.path().join("suggested.yaml")
    }

    fn with_manifests(self, text: &str) -> Self {
        fs::write(self.manifests().join("objects.yaml"), text).expect("it can be written");
        self
    }

    /// The manifests of a directory without their policies.
    #[cfg(all(target_os = "linux", feature = "lab"))]
    fn without_policies(self, example: &Path) -> Self {
        let is_policy =
            |text: &str| text.lines().any(|line| line.starts_with("kind: ") && line.ends_with("Policy"));
        for entry in fs::read_dir(example).expect("it is there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("it can be read");
            let kept: Vec<&str> = text.split("\n---").filter(|document| !is_policy(document)).collect();
            let to = self.manifests().join(path.file_name().expect("a name"));
            fs::write(to, kept.join("\n---")).expect("it can be written");
        }
        self
    }

    /// Runs `suggest`, keeps what it wrote, and returns exit code, standard output and standard error.
    fn suggest(&self, rest: &str) -> (i32, String, String) {
        let words =
            format!("suggest --flows {} -f {}{rest}", self.flows().display(), self.manifests().display());
        let (code, out, err) = run(&mut palisade(&words));
        fs::write(self.suggested(), &out).expect("it can be written");
        (code, out, err)
    }

    /// Replays records against the manifests with what was suggested.
    fn replay(&self, flows: &Path) -> (i32, String, String) {
        let [manifests, suggested] = [self.manifests(), self.suggested()];
        let [flows, manifests, suggested] = [flows, &manifests, &suggested].map(Path::display);
        run(&mut palisade(&format!("replay --flows {flows} -f {manifests} --with {suggested}")))
    }
}

/// A record of a connection that passed.
fn record(source: &Value, destination: &Value, protocol: &str, port: u64) -> Value {
    json!({
        "node": "recorder", "verdict": "forwarded", "direction": "ingress",
        "source": source, "destination": destination, "protocol": protocol, "port": port, "count": 2,
    })
}

fn pod(namespace: &str, name: &str, address: &str) -> Value {
    json!({"address": address, "pod": {"namespace": namespace, "name": name}})
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// `shop/web`, `shop/db` (ports `sql` and `metrics`), `ops/monitor`, with addresses.
const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}, {name: metrics, containerPort: 9100}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: db}, ports: [{port: 15432, targetPort: sql}]}
---
apiVersion: v1
kind: Pod
metadata: {name: monitor, namespace: ops, labels: {app: monitor}}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.1.4}]}
";

const HEADER: &str = "source,destination,protocol,port,verdict,count\n";

#[test]
fn policies_with_comments_are_written_and_checked() {
    for (style, file) in [("per-workload", "workload"), ("per-namespace", "namespace")] {
        let words = format!("suggest --flows {CASES}/replay/shop.jsonl -f examples/shop --style {style}");
        let (code, out, err) = run(&mut palisade(&words));
        assert_eq!(code, 0, "{out}{err}");
        recorded(&format!("cases/suggest/shop-{file}.yaml"), &out);
        recorded(&format!("cases/suggest/shop-{file}.txt"), &err);
    }
}

#[test]
fn what_is_suggested_breaks_nothing_that_was_seen_and_denies_the_rest() {
    let seen = format!(
        "{HEADER}10.0.0.2,10.0.0.3,TCP,5432,,9\n10.0.1.4,10.0.0.3,TCP,9100,,\n10.0.0.2,192.0.2.7,TCP,443,,\n"
    );
    for style in ["per-workload", "per-namespace"] {
        let trial = Trial::new(&seen).with_manifests(SHOP);
        let (code, out, err) = trial.suggest(&format!(" --style {style}"));
        assert_eq!(code, 0, "{out}{err}");
        for part in [
            "port: sql",
            "port: metrics",
            "cidr: 192.0.2.7/32",
            "# shop/pod/web → shop/pod/db on TCP 5432, 9 times (line 2)",
        ] {
            assert!(out.contains(part), "{style}: no {part:?} in {out}");
        }
        let (code, _, err) = trial.replay(&trial.flows());
        assert_eq!(code, 0, "{style}: {err}");
        for other in [
            "10.0.1.4,10.0.0.3,TCP,5432",
            "10.0.0.2,192.0.2.8,TCP,443",
            "10.0.0.3,10.0.0.2,TCP,8080",
            "198.51.100.1,10.0.0.2,TCP,8080",
        ] {
            let unseen = trial.folder.path().join("unseen");
            fs::write(&unseen, format!("{HEADER}{other},,\n")).expect("it can be written");
            let (code, out, err) = trial.replay(&unseen);
            assert_eq!(code, 1, "{style}: {other}: {out}{err}");
        }
    }
}

/// Records of web with names of destinations, in the formats of Palisade and of Hubble.
fn by_name() -> String {
    let to = |address: &str, names: &[&str]| json!({"address": address, "names": names});
    let web = pod("shop", "web", "10.0.0.2");
    let hubble = json!({"flow": {
        "verdict": "FORWARDED", "IP": {"source": "10.0.0.2", "destination": "203.0.113.8"},
        "l4": {"TCP": {"destination_port": 443}}, "source": {"namespace": "shop", "pod_name": "web"},
        "destination": {"labels": ["reserved:world"]}, "destination_names": ["cdn.example.net"],
        "traffic_direction": "EGRESS",
    }});
    lines(&[
        record(&web, &to("203.0.113.7", &["API.Example.com."]), "TCP", 443),
        hubble,
        // Names that policies can't have, and an address that agents don't learn.
        record(&web, &to("203.0.113.9", &["localhost", "203.0.113.9", "_x.example.com"]), "TCP", 443),
        record(&web, &to("172.16.0.9", &["inside.example.com"]), "TCP", 443),
        record(&web, &pod("shop", "db", "10.0.0.3"), "TCP", 5432),
    ])
}

#[test]
fn destinations_with_names_are_allowed_by_name_on_request() {
    for style in ["per-workload", "per-namespace"] {
        let trial = Trial::new(&by_name()).with_manifests(SHOP);
        let (code, out, err) = trial.suggest(&format!(" --style {style} --domains"));
        assert_eq!(code, 0, "{out}{err}");
        for part in [
            "kind: ClusterNetworkPolicy",
            "tier: Admin",
            "- api.example.com",
            "- cdn.example.net",
            "cidr: 203.0.113.9/32",
            "cidr: 172.16.0.9/32",
            "# shop/pod/web → 203.0.113.7 on TCP 443, 2 times (line 1)",
        ] {
            assert!(out.contains(part), "{style}: no {part:?} in {out}");
        }
        for no in ["203.0.113.7/32", "203.0.113.8", "localhost", "inside.example.com", "_x"] {
            let rules = out.lines().filter(|line| !line.trim_start().starts_with('#'));
            assert!(!rules.clone().any(|line| line.contains(no)), "{style}: {no} in {out}");
        }
        assert!(err.contains("1 policy has domain names, which only agents with --domain-names=on"), "{err}");
        if style == "per-workload" {
            recorded("cases/suggest/by-name.yaml", &out);
        }
        // The records have the names, so nothing breaks; without them, the addresses are unknown, and denied.
        let (code, _, err) = trial.replay(&trial.flows());
        assert_eq!(code, 0, "{style}: {err}");
        let unnamed = trial.folder.path().join("unnamed");
        fs::write(&unnamed, format!("{HEADER}10.0.0.2,203.0.113.7,TCP,443,,\n")).expect("it can be written");
        let (code, out, err) = trial.replay(&unnamed);
        assert_eq!(code, 1, "{style}: {out}{err}");
        let named =
            "source,destination,protocol,port,dst_host\n10.0.0.2,203.0.113.200,TCP,443,api.example.com\n";
        fs::write(&unnamed, named).expect("it can be written");
        let (code, _, err) = trial.replay(&unnamed);
        assert_eq!(code, 0, "{style}: another address of the name: {err}");
        fs::write(&unnamed, named.replace("api.", "other.")).expect("it can be written");
        assert_eq!(trial.replay(&unnamed).0, 1, "{style}: another name");
        // What lint knows about names holds for it.
        let lint = format!("lint -f {} --severity warning", trial.suggested().display());
        let (_, out, _) = run(&mut palisade(&lint));
        assert!(!out.contains("PAL067"), "{out}");
    }
    let trial = Trial::new(&by_name()).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains("domainNames") && out.contains("203.0.113.7/32"), "without --domains: {out}");
}

#[test]
fn a_connection_to_a_service_is_one_to_the_pods_behind_it() {
    let trial = Trial::new(&format!("{HEADER}10.0.0.2,10.96.0.9,TCP,15432,,\n")).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("port: sql") && !out.contains("10.96.0.9") && !out.contains("15432"), "{out}");
    assert_eq!(trial.replay(&trial.flows()).0, 0);
}

/// A namespace without policies is open, so it is named.
#[test]
fn namespaces_that_get_no_policies_are_named() {
    let pods = ["a/one/10.0.0.1", "b/two/10.0.0.2", "c/three/10.0.0.3"].map(|pod| {
        let [namespace, name, address]: [&str; 3] = pod.split('/').collect::<Vec<_>>().try_into().expect("three");
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{containers: [{{name: c, image: i}}]}}, \
             status: {{phase: Running, podIP: {address}}}}}\n"
        )
    });
    let records = "source,destination,protocol,port\n10.0.0.1,10.0.0.2,TCP,80\n";
    let trial = Trial::new(records).with_manifests(&pods.join("---\n"));
    let words = format!("suggest --flows {} -f {}", trial.flows().display(), trial.manifests().display());
    let (code, _, err) = run(&mut palisade(&words));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("note: no policies for c: no connection of their pods was recorded"), "{err}");
    let (code, _, err) = run(&mut palisade(&format!("{words} -n a")));
    assert!(code == 0 && !err.contains("no policies for"), "{err}");
}

#[test]
fn replies_and_drops_are_left_out_and_said() {
    let records = format!(
        "{HEADER}10.0.0.2,10.0.0.3,TCP,5432,,\n10.0.0.3,10.0.0.2,TCP,40001,,\n10.0.0.3,10.0.0.2,TCP,40002,,\n10.0.1.4,10.0.0.3,TCP,9100,dropped,\n10.0.0.2,224.0.0.251,UDP,5353,,\n"
    );
    let trial = Trial::new(&records).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains("4000") && !out.contains("9100") && !out.contains("metrics"), "{out}");
    for part in [
        "left out: 2 connections to a client's port that look like replies, which need no rule, first in line 3",
        "left out: 1 connection that were dropped (--include-dropped allows them), first in line 5",
        "left out: 1 connection to multicast, broadcast or link-local addresses",
    ] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    let (code, out, _) = trial.suggest(" --include-dropped");
    assert!(code == 0 && out.contains("port: metrics"), "{out}");
    let only_dropped =
        Trial::new(&format!("{HEADER}10.0.1.4,10.0.0.3,TCP,9100,dropped,\n")).with_manifests(SHOP);
    let (code, out, err) = only_dropped.suggest("");
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("all 1 recorded connections were dropped; use --include-dropped"), "{err}");
}

#[test]
fn records_that_cannot_be_placed_are_said_and_give_exit_code_2() {
    let gone = pod("shop", "gone", "10.0.0.77");
    let web = pod("shop", "web", "10.0.0.2");
    let db = pod("shop", "db", "10.0.0.3");
    let records = [record(&web, &db, "TCP", 5432), record(&web, &json!({"address": "10.0.0.99"}), "TCP", 80)];
    let trial = Trial::new(&lines(&records)).with_manifests(SHOP);
    assert_eq!(trial.suggest("").0, 0);
    let hubble = json!({"flow": {
        "verdict": "FORWARDED", "IP": {"source": "10.0.0.77", "destination": "10.0.0.3"},
        "l4": {"TCP": {"destination_port": 5432}},
        "source": {"namespace": "shop", "pod_name": "gone"}, "destination": {"namespace": "shop", "pod_name": "db"},
    }});
    let of_labels = record(&gone, &db, "TCP", 5432);
    for (line, code, part) in [
        // Our records have labels, also if there are none.
        (of_labels, 0, "checked:"),
        (hubble, 0, "checked:"),
    ] {
        let trial = Trial::new(&lines(&[line])).with_manifests(SHOP);
        let (got, out, err) = trial.suggest("");
        assert_eq!(got, code, "{out}{err}");
        assert!(err.contains(part), "{err}");
    }
    let rows = format!("{HEADER}10.0.0.2,10.0.0.3,TCP,5432,,\n203.0.113.1,203.0.113.2,TCP,80,,4\n");
    let trial = Trial::new(&rows).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 2, "{out}{err}");
    assert!(
        err.contains("undecided: 1 connection, 4 times, first in line 3: neither 203.0.113.1 nor"),
        "{err}"
    );
    assert!(out.contains("port: sql"), "the rest is suggested");
    // An address that is recorded as one outside and is one of a pod now.
    let outside = json!({"address": "10.0.1.4"});
    let trial = Trial::new(&lines(&[record(&web, &db, "TCP", 5432), record(&outside, &db, "TCP", 80)]));
    let (code, out, err) = trial.with_manifests(SHOP).suggest("");
    assert!(
        code == 2
            && err.contains("10.0.1.4 is an address of a pod that is gone")
            && !out.contains("10.0.1.4"),
        "{err}"
    );
    // Lines that are no records.
    let trial = Trial::new(&format!("{HEADER}10.0.0.2,10.0.0.3,TCP,5432,,\nnonsense\n")).with_manifests(SHOP);
    let (code, out, _) = trial.suggest("");
    assert_eq!((code, &*out), (2, ""));
    let (code, out, _) = trial.suggest(" --keep-going");
    assert!(code == 2 && out.contains("port: sql"), "{out}");
}

#[test]
fn policies_that_deny_what_was_seen_are_named() {
    let data = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: ops}\n\
                spec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let trial = Trial::new(&format!("{HEADER}10.0.0.2,10.0.1.4,TCP,9090,,\n"))
        .with_manifests(&format!("{SHOP}---\n{data}"));
    let (code, out, err) = trial.suggest(" -n shop");
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("denied: shop/pod/web → ops/pod/monitor on TCP 9090") && err.contains("ops/closed"),
        "{err}"
    );
    assert!(!out.contains("namespace: ops"), "only the namespace that was asked for: {out}");
    assert_eq!(trial.suggest("").0, 0, "with policies for both namespaces, everything is allowed");
}

/// Names and labels of records may have any character: they can't add a rule, a line or a policy.
#[test]
fn records_cannot_write_yaml() {
    let db = pod("shop", "db", "10.0.0.3");
    let evil = "x\n---\nkind: NetworkPolicy # \u{1b}[31m\u{202e}";
    let named = json!({"address": "10.0.0.77", "pod": {"namespace": "shop", "name": evil}, "labels": {"app": "evil"}});
    let workload = json!({"address": "10.0.0.78", "pod": {"namespace": "shop", "name": "y"}, "labels": {"app": "y"},
        "workload": {"kind": evil, "name": evil}});
    let records = [record(&named, &db, "TCP", 5432), record(&workload, &db, "TCP", 5432)];
    let trial = Trial::new(&lines(&records)).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains(['\u{1b}', '\u{202e}']) && !err.contains('\u{202e}'), "{out:?}");
    let policies = out.lines().filter(|line| line.starts_with("kind: NetworkPolicy")).count();
    assert_eq!(policies, out.lines().filter(|line| line.starts_with("  name: ")).count());
    // A label that no object can have can't be selected.
    let labelled = json!({"address": "10.0.0.79", "pod": {"namespace": "shop", "name": "z"}, "labels": {"app": "a\nb: c"}});
    let trial = Trial::new(&lines(&[record(&labelled, &db, "TCP", 5432)])).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("the API server would refuse a suggested policy"), "{err}");
}

#[test]
fn json_lists_what_each_rule_stands_for() {
    let records = format!("{HEADER}10.0.0.2,10.0.0.3,TCP,5432,,9\n");
    let trial = Trial::new(&records).with_manifests(SHOP);
    let (code, out, err) = trial.suggest(" -o json");
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&answer["schema"], &answer["complete"]), (&json!("palisade.suggest/v1"), &json!(true)));
    let policies = answer["policies"].as_array().expect("policies");
    let db = policies.iter().find(|one| one["object"]["metadata"]["name"] == "db").expect("a policy for db");
    assert_eq!(db["ingress"][0][0]["source"], "shop/pod/web");
    assert_eq!(db["ingress"][0][0]["count"], 9);
    assert_eq!(db["object"]["spec"]["ingress"][0]["ports"][0]["port"], "sql");
    assert_eq!((&answer["pairs"]["seen"], &answer["pairs"]["more_total"]), (&json!(1), &json!(0)));
}

#[test]
fn the_result_does_not_depend_on_the_order_of_records() {
    let rows =
        ["10.0.0.2,10.0.0.3,TCP,5432,,1", "10.0.1.4,10.0.0.3,TCP,9100,,1", "10.0.0.2,192.0.2.7,UDP,443,,1"];
    let of = |rows: Vec<&str>| {
        let trial = Trial::new(&format!("{HEADER}{}\n", rows.join("\n"))).with_manifests(SHOP);
        let (_, out, _) = trial.suggest("");
        out.lines().map(|line| line.split(" (line").next().unwrap_or(line).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(rows.to_vec()), of(rows.iter().rev().copied().collect()));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    refused("suggest --flows - -f -", "standard input (-) can be given only once");
    refused("suggest --flows /nonexistent -f examples/shop", "can't read /nonexistent");
    let words = format!("suggest --flows {CASES}/replay/shop.jsonl -f examples/shop -n nowhere");
    let (code, _, err) = run(&mut palisade(&words));
    assert!(
        code == 2 && err.contains("no recorded connection has an end in namespace nowhere"),
        "{code} {err}"
    );
}

#[test]
fn the_number_of_connections_is_limited() {
    let row = |n: u32| format!("10.0.0.2,{},TCP,443,,\n", std::net::Ipv4Addr::from(0xcb00_0000 + n));
    let rows: String = (0..=100_000).map(row).collect();
    let trial = Trial::new(&format!("{HEADER}{rows}")).with_manifests(SHOP);
    let (code, out, err) = trial.suggest("");
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(
        err.contains("100001 different connections are recorded, and at most 100000 can be checked"),
        "{err}"
    );
}

/// The connections that the kernel let pass in each example are allowed by what is suggested from them: `replay` says so, and
/// so does the kernel.
#[cfg(all(target_os = "linux", feature = "lab"))]
#[test]
fn what_passed_in_the_lab_passes_with_the_suggested_policies() {
    let mut examples = 0;
    for entry in fs::read_dir(support::root().join("examples")).expect("the examples") {
        let example = entry.expect("an entry").path();
        if !example.is_dir() {
            continue;
        }
        examples += 1;
        for (style, every) in [("per-workload", 3), ("per-namespace", 5)] {
            let seen: Vec<Value> = passed(&example).into_iter().step_by(every).collect();
            let records: Vec<Value> = seen.iter().map(as_record).collect();
            let trial = Trial::new(&lines(&records)).without_policies(&example);
            let name = example.display();
            let (code, out, err) = trial.suggest(&format!(" --style {style}"));
            assert_eq!(code, 0, "{name}: {out}{err}");
            let (code, out, err) = trial.replay(&trial.flows());
            assert_eq!(code, 0, "{name}: {out}{err}");
            fs::copy(trial.suggested(), trial.manifests().join("suggested.yaml")).expect("a copy");
            let now: std::collections::BTreeSet<String> =
                passed(&trial.manifests()).iter().map(key).collect();
            let lost: Vec<String> = seen.iter().map(key).filter(|key| !now.contains(key)).collect();
            assert!(!seen.is_empty() && lost.is_empty(), "{name}, {style}: {lost:#?}");
        }
    }
    assert!(examples >= 7, "only {examples} examples");
}

/// Runs the lab; returns the probes between pods, and of pods and outside addresses, that passed.
#[cfg(all(target_os = "linux", feature = "lab"))]
fn passed(manifests: &Path) -> Vec<Value> {
    let runtime = tempfile::tempdir().expect("a directory");
    let mut command = palisade(&format!("lab run {} -o json", manifests.display()));
    let (code, out, err) = run(command.env("XDG_RUNTIME_DIR", runtime.path()));
    assert_eq!(code, 0, "{}: {err}", manifests.display());
    let mut answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["agrees"], true);
    let Value::Array(probes) = answer["probes"].take() else { panic!("no probes: {out}") };
    let fits = |probe: &Value| {
        probe["expected"] == "allowed"
            && [&probe["source"], &probe["destination"]]
                .iter()
                .all(|end| end["kind"] == "pod" || end["kind"] == "outside")
            && probe["source"] != probe["destination"]
            && matches!(probe["protocol"].as_str(), Some("TCP" | "UDP" | "SCTP"))
    };
    probes.into_iter().filter(fits).collect()
}

#[cfg(all(target_os = "linux", feature = "lab"))]
fn as_record(probe: &Value) -> Value {
    let end = |end: &Value| match end["kind"].as_str() {
        Some("pod") => {
            json!({"address": end["address"], "pod": {"namespace": end["namespace"], "name": end["name"]}})
        }
        _ => json!({"address": end["address"]}),
    };
    let protocol = probe["protocol"].as_str().expect("a protocol");
    record(
        &end(&probe["source"]),
        &end(&probe["destination"]),
        protocol,
        probe["port"].as_u64().expect("a port"),
    )
}

#[cfg(all(target_os = "linux", feature = "lab"))]
fn key(probe: &Value) -> String {
    let end = |end: &Value| match end["kind"].as_str() {
        Some("pod") => format!("{}/{}", end["namespace"], end["name"]),
        _ => end["address"].to_string(),
    };
    format!(
        "{} → {} {} {} {}",
        end(&probe["source"]),
        end(&probe["destination"]),
        probe["family"],
        probe["protocol"],
        probe["port"]
    )
}

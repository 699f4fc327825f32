//! `palisade suggest --from-services` as users run it.

mod support;

use std::{fs, path::PathBuf};

use serde_json::Value;
#[cfg(all(target_os = "linux", feature = "lab"))]
use support::root;
use support::{palisade, recorded, refused, run};

const CASES: &str = "crates/palisade/tests/cases/suggest";

/// A directory with manifests, to which what is suggested can be added.
struct Trial(tempfile::TempDir);

impl Trial {
    fn new(manifests: &str) -> Self {
        let trial = Self(tempfile::tempdir().expect("a directory"));
        fs::write(trial.path("objects.yaml"), manifests).expect("it can be written");
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn suggest(&self, rest: &str) -> (i32, String, String) {
        run(&mut palisade(&format!(
            "suggest --from-services -f {}{rest}",
            self.path("objects.yaml").display()
        )))
    }
}

/// A Deployment with one container.
fn deployment(namespace: &str, name: &str, container: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: c, image: i, ports: [{{name: http, containerPort: 8080}}], {container}}}]}}\n---\n"
    )
}

fn service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// A Service `to` of pods with port 8080, and a client whose container has these settings.
fn client(container: &str) -> String {
    deployment("shop", "client", container)
        + &deployment("shop", "to", "")
        + &service("shop", "to", "selector: {app: to}, ports: [{port: 80, targetPort: http}]")
}

fn env(name: &str, value: &str) -> String {
    format!("env: [{{name: {name}, value: {}}}]", serde_json::to_string(value).expect("a text"))
}

const ALLOWED: &str = "shop/deployment/client → shop/deployment/to on TCP 8080";

#[test]
fn policies_are_written_with_evidence_and_what_is_not_known() {
    for style in ["workload", "namespace"] {
        let words = format!("suggest --from-services -f {CASES}/services --style per-{style}");
        let (code, out, err) = run(&mut palisade(&words));
        assert_eq!(code, 0, "{out}{err}");
        recorded(&format!("cases/suggest/services-{style}.yaml"), &out);
        recorded(&format!("cases/suggest/services-{style}.txt"), &err);
    }
}

#[test]
fn what_is_suggested_allows_what_the_settings_need_and_denies_the_rest() {
    let (code, out, err) = run(&mut palisade(&format!("suggest --from-services -f {CASES}/services")));
    assert_eq!(code, 0, "{err}");
    let folder = tempfile::tempdir().expect("a directory");
    let suggested = folder.path().join("suggested.yaml");
    fs::write(&suggested, &out).expect("it can be written");
    let words =
        format!("test {CASES}/services.assertions.yaml -f {CASES}/services -f {}", suggested.display());
    let (code, out, err) = run(&mut palisade(&words));
    assert_eq!(code, 0, "{out}{err}");
}

/// The kernel agrees with what was suggested, and lets pass what the assertions allow.
#[cfg(all(target_os = "linux", feature = "lab"))]
#[test]
fn the_lab_agrees() {
    let objects = fs::read_to_string(root().join(CASES).join("services/objects.yaml")).expect("it is there");
    let trial = Trial::new(&objects);
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{err}");
    fs::write(trial.path("suggested.yaml"), out).expect("it can be written");
    let runtime = tempfile::tempdir().expect("a directory");
    let mut command = palisade(&format!("lab run {} -o json", trial.0.path().display()));
    let (code, out, err) = run(command.env("XDG_RUNTIME_DIR", runtime.path()));
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["agrees"], true);
    let passed = |from: &str, to: &str, port: u64| {
        let probes = answer["probes"].as_array().expect("probes");
        let fits = probes.iter().filter(|probe| {
            let name = |end: &str| probe[end]["name"].as_str().unwrap_or_default().to_owned();
            name("source").starts_with(from) && name("destination").starts_with(to) && probe["port"] == port
        });
        let expected: Vec<bool> = fits.map(|probe| probe["expected"] == "allowed").collect();
        assert!(!expected.is_empty(), "no probe of {from} to {to} {port}");
        expected.iter().all(|allowed| *allowed)
    };
    assert!(passed("web", "orders", 9000) && passed("orders", "db", 5432) && passed("web", "redis", 6379));
    assert!(!passed("web", "db", 5432) && !passed("web", "orders", 9100));
}

#[test]
fn routes_are_forwarded_by_the_ingress_controller() {
    let words = "suggest --from-services -f examples/ingress/workloads.yaml -f examples/ingress/routes.yaml";
    let (code, out, err) = run(&mut palisade(words));
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(
        err.contains("undecided: Ingress shop/web (examples/ingress/routes.yaml:1): its ingress controller is not in the input"),
        "{err}"
    );
    let (code, out, err) = run(&mut palisade(&format!("{words} --ingress-controller edge/controller")));
    assert_eq!(code, 0, "{err}");
    for part in [
        "# edge/deployment/controller → shop/deployment/web on TCP 8080: Ingress shop/web (examples/ingress/routes.yaml:1)",
        "# edge/deployment/controller → shop/deployment/api on TCP 9000: GRPCRoute shop/api",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
}

#[test]
fn monitors_are_connections_of_prometheus() {
    let monitor = "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: to, namespace: shop}\nspec: \
                   {selector: {matchLabels: {team: a}}, endpoints: [{port: web}]}\n---\n";
    let to = deployment("shop", "to", "")
        + &service("shop", "to", "selector: {app: to}, ports: [{name: web, port: 80, targetPort: http}]")
            .replace("name: to, namespace: shop}", "name: to, namespace: shop, labels: {team: a}}")
        + monitor;
    let (code, _, err) = Trial::new(&to).suggest("");
    assert!(code == 2 && err.contains("undecided: ServiceMonitor shop/to"), "{err}");
    assert!(err.contains("no pod of Prometheus is in the input"), "{err}");
    let (code, out, err) = Trial::new(&(to + &deployment("mon", "prometheus", ""))).suggest("");
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("mon/deployment/prometheus → shop/deployment/to on TCP 8080: ServiceMonitor shop/to"),
        "{out}"
    );
}

#[test]
fn settings_name_services_in_many_ways() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, namespace: shop}\ndata: {TO_HOST: to, nginx.conf: \"\
                  server { proxy_pass http://to; }\"}\n---\n";
    for (container, place) in [
        (env("TO_HOST", "to"), "env TO_HOST"),
        (env("TO", "http://to.shop.svc.cluster.local/x"), "env TO"),
        (env("TO", "to.shop:80"), "env TO"),
        ("args: [\"--to-host\", \"to\"]".to_owned(), "argument --to-host"),
        ("command: [\"run\", \"--url=http://to\"]".to_owned(), "argument --url"),
        ("env: [{name: TO_HOST, value: to}, {name: TO_PORT, value: \"80\"}]".to_owned(), "env TO_HOST"),
        ("envFrom: [{configMapRef: {name: conf}}]".to_owned(), "env TO_HOST of ConfigMap shop/conf"),
        (
            "env: [{name: A_HOST, valueFrom: {configMapKeyRef: {name: conf, key: TO_HOST}}}]".to_owned(),
            "env A_HOST (key TO_HOST of ConfigMap shop/conf)",
        ),
        (
            "}], volumes: [{name: v, configMap: {name: conf}}], initContainers: [{name: d, image: i"
                .to_owned(),
            "key TO_HOST of ConfigMap shop/conf",
        ),
    ] {
        let trial = Trial::new(&(client(&container) + config));
        let (code, out, err) = trial.suggest("");
        assert_eq!(code, 0, "{container}: {err}");
        let part = format!("{ALLOWED}: {place} (");
        assert!(out.contains(&part), "{container}: no {part:?} in {out}");
    }
}

#[test]
fn an_address_in_a_url_of_udp_is_allowed_by_udp() {
    let trial = Trial::new(&client(&env("SYSLOG", "udp://192.0.2.9:514")));
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{err}");
    fs::write(trial.path("suggested.yaml"), out).expect("it can be written");
    for (protocol, expected) in [("UDP", 0), ("TCP", 1)] {
        let words = format!("can shop/client 192.0.2.9:514/{protocol} -f {}", trial.0.path().display());
        let (code, out, err) = run(&mut palisade(&words));
        assert_eq!(code, expected, "{out}{err}");
    }
}

#[test]
fn what_cannot_be_decided_is_said_and_gives_exit_code_2() {
    let gone = service("shop", "hand", "ports: [{port: 80}]");
    let elsewhere = service("data", "orders", "selector: {app: x}, ports: [{port: 80}]");
    for (setting, part) in [
        (env("TO_URL", "http://to:81"), "service shop/to has no port 81; it has 80"),
        (env("TO_PORT_HOST", "gone.shop.svc"), "names gone.shop.svc, and there is no shop/gone in the input"),
        (env("ORDERS_HOST", "orders"), "namespace shop has no such Service; there is one in data"),
        (env("HAND_HOST", "hand"), "service shop/hand has no selector"),
    ] {
        // One that can be decided, so that there is an answer.
        let more = deployment("shop", "other", &env("TO_HOST", "to"));
        let (code, out, err) = Trial::new(&(client(&setting) + &more + &gone + &elsewhere)).suggest("");
        assert_eq!(code, 2, "{setting}: {err}");
        assert!(
            err.contains("undecided: shop/deployment/client: env ") && err.contains(part),
            "{setting}: {err}"
        );
        assert!(out.contains("shop/deployment/other → shop/deployment/to"), "the rest is suggested: {out}");
    }
}

#[test]
fn what_is_not_known_is_listed_and_stays_closed() {
    let external = service("shop", "away", "type: ExternalName, externalName: db.example.com");
    let alias = service("shop", "alias", "type: ExternalName, externalName: to.shop.svc.cluster.local");
    let front = service("shop", "front", "type: LoadBalancer, selector: {app: client}, ports: [{port: 80}]");
    let settings = "env: [{name: A_URL, value: 'https://api.example.com/x'}, {name: B_HOST, value: away}, {name: C_HOST, value: \
                    alias}, {name: LEVEL, value: to}, {name: D_URL, value: 'http://localhost:9'}, {name: E, value: \
                    '192.0.2.7:443'}, {name: S_URL, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: CLIENT_HOST, value: \
                    me}]";
    let me = service("shop", "me", "clusterIP: None, selector: {app: client}, ports: [{port: 8080}]");
    let unused = service("shop", "unused", "selector: {app: to}, ports: [{port: 90}]");
    let trial = Trial::new(
        &[&client(settings), &external, &alias, &front, &me, &unused].map(String::as_str).concat(),
    );
    let (code, out, err) = trial.suggest("");
    assert_eq!(code, 0, "{err}");
    for part in [
        "env A_URL",
        "names api.example.com, which is not in the input; a NetworkPolicy can't allow names",
        "names db.example.com",
        "env LEVEL",
        "is the name of Service shop/to, but the setting's name does not say that it is a host",
        "env S_URL",
        "has its value from Secret shop/s, which is not read",
        "Service shop/front",
        "is reached from outside the cluster",
        "Service shop/unused",
        "nothing in the input refers to it",
    ] {
        assert!(out.contains(part) && err.contains("not known, so not allowed:"), "no {part:?} in {out}");
    }
    for part in [
        &format!("{ALLOWED}: env C_HOST"),
        "cidr: 192.0.2.7/32",
        "shop/deployment/client → shop/deployment/client on TCP 8080",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    assert!(!out.contains("TCP 90") && !out.contains("port: 90"), "{out}");
}

/// Names and values may have any character: they can't add a rule, a line or a policy.
#[test]
fn settings_cannot_write_yaml() {
    let evil = "X_HOST\n---\nkind: NetworkPolicy # \u{1b}[31m\u{202e}";
    let setting = format!("env: [{{name: {}, value: to}}]", serde_json::to_string(evil).expect("a text"));
    let secret = "envFrom: [{secretRef: {name: \"s\\nspec: {}\"}}]";
    let manifests = client(&format!("{}, {secret}", setting.replace("value: to", "value: 'http://to'")));
    let (code, out, err) = Trial::new(&manifests).suggest("");
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains(['\u{1b}', '\u{202e}']) && !err.contains('\u{202e}'), "{out:?}");
    let policies = out.lines().filter(|line| line.starts_with("kind: ")).count();
    assert_eq!(policies, out.lines().filter(|line| line.starts_with("apiVersion: ")).count());
    assert_eq!(policies, 4, "{out}");
    assert!(out.contains(ALLOWED), "{out}");
    assert!(out.lines().all(|line| line.len() < 400), "long names are shortened: {out}");
}

/// Values of a megabyte, and a name that ten thousand namespaces have.
#[test]
fn large_inputs_are_bounded() {
    let long = format!("{}http://to {}", "x".repeat(1 << 20), "a.b:1 ".repeat(1 << 17));
    let mut manifests = client(&env("BIG_URL", &long));
    for n in 0..10_000 {
        manifests += &service(&format!("ns-{n}"), "to", "selector: {app: to}, ports: [{port: 80}]");
    }
    let begun = std::time::Instant::now();
    let (code, out, err) = Trial::new(&manifests).suggest("");
    assert!(code == 0 && out.contains(ALLOWED), "{code}: {err}");
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    assert!(err.lines().count() < 60 && out.len() < 100_000, "{}: {err}", out.len());
}

#[test]
fn the_number_of_hosts_is_limited() {
    let urls: Vec<String> = (1..=1000).map(|port| format!("http://localhost:{port}")).collect();
    let mut manifests = client(&env("TO_HOST", "to"));
    for n in 0..101 {
        manifests += &deployment("shop", &format!("more-{n}"), &env("URLS", &urls.join(" ")));
    }
    let (code, out, err) = Trial::new(&manifests).suggest("");
    assert!(code == 2 && out.contains(ALLOWED), "{code}: {err}");
    assert!(
        err.contains("undecided: 1001 hosts that settings name are not read: there are too many"),
        "{err}"
    );
}

#[test]
fn json_has_the_evidence() {
    let (code, out, err) = Trial::new(&client(&env("TO_HOST", "to"))).suggest(" -o json");
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    let policies = answer["policies"].as_array().expect("policies");
    let to = policies.iter().find(|one| one["object"]["metadata"]["name"] == "to").expect("a policy for to");
    let evidence = to["ingress"][0][0]["evidence"].as_str().expect("evidence");
    assert!(evidence.starts_with("env TO_HOST (") && evidence.ends_with("objects.yaml:9)"), "{evidence}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    refused("suggest --from-services", "--from-services needs manifests");
    refused("suggest -f examples/shop", "--flows");
    refused("suggest --from-services --flows x -f examples/shop", "cannot be used with");
    refused(
        "suggest --flows x -f examples/shop --ingress-controller a",
        "--ingress-controller needs --from-services",
    );
    refused("suggest --from-services -f examples/shop", "the manifests show no connection of a pod");
}

//! Hints below the answers of `palisade can`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use serde_json::Value;
use support::{palisade, run};
use tempfile::TempDir;

fn pod(namespace: &str, name: &str, address: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\n\
         metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}, k8s-app: {name}}}}}\n\
         spec: {{containers: [{{name: a, image: a, ports: [{ports}]}}]}}\n\
         status: {{phase: Running, podIPs: [{{ip: {address}}}]}}\n"
    )
}

fn service(namespace: &str, name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{ports}]}}\n"
    )
}

/// A policy for the egress of the client, with these rules.
fn egress(rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: out, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{rules}]}}\n"
    )
}

/// A shop without DNS servers and policies.
fn shop() -> String {
    let http = "{name: http, containerPort: 8080}";
    [
        pod("shop", "client", "10.1.0.1", ""),
        pod("shop", "web", "10.1.0.2", http),
        service("shop", "web", "{port: 80, targetPort: 8080}, {name: old, port: 81, targetPort: 8081}"),
    ]
    .concat()
}

fn dns() -> String {
    pod("kube-system", "kube-dns", "10.1.0.3", "{containerPort: 53, protocol: UDP}")
}

const TO_SHOP: &str = "{to: [{podSelector: {}}]}";
const TO_DNS: &str = "{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}";

/// Writes one manifest and returns the output of `can` with these words.
fn can(manifest: &str, words: &str) -> String {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), manifest).unwrap();
    let words = format!("can {words} -f m.yaml");
    let (code, out, err) = run(palisade(&words).current_dir(dir.path()));
    assert!(code < 2, "{words}: {out}{err}");
    out
}

fn hints(manifest: &str, words: &str) -> Vec<String> {
    let out = can(manifest, words);
    out.lines().filter_map(|line| line.strip_prefix("hint: ")).map(str::to_owned).collect()
}

/// Returns the error of `can` with these words.
fn refused(manifest: &str, words: &str) -> String {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), manifest).unwrap();
    let words = format!("can {words} -f m.yaml");
    let (code, out, err) = run(palisade(&words).current_dir(dir.path()));
    assert_eq!((code, &*out), (2, ""), "{words}: {err}");
    err
}

#[test]
fn a_pod_that_does_not_exist_is_not_put_into_a_namespace_that_nearly_exists() {
    let near = refused(&shop(), "pod:app=a@shpo shop/web:8080");
    assert!(near.contains("there is no namespace `shpo`; did you mean shop?"), "{near}");
    // `nod/x` would be a misspelled kind, but there is no name after this one.
    let kind = can(&shop(), "pod:app=a@nod shop/web:8080");
    assert!(kind.starts_with("allowed  nod/pod/pod:app=a"), "{kind}");
}

#[test]
fn a_port_needs_a_name() {
    let error = refused(&shop(), "shop/client :8080");
    assert!(
        error.contains("destination `:8080`: there is no name before the port; use NAME:PORT"),
        "{error}"
    );
}

#[test]
fn a_port_that_nothing_declares_is_said() {
    let declares = "it declares TCP 8080 (http)";
    assert_eq!(
        hints(&shop(), "shop/client shop/web:81"),
        [format!("no container of shop/pod/web declares TCP 81; {declares}")]
    );
    assert_eq!(
        hints(&shop(), "shop/client shop/web:8080/UDP"),
        [format!("no container of shop/pod/web declares UDP 8080; {declares}")]
    );
    assert_eq!(
        hints(&shop(), "shop/client shop/svc/web:81"),
        ["no container behind shop/svc/web declares TCP 8081; they declare TCP 8080 (http)"]
    );
    // It comes before the advice to read more about a denial.
    let denied = hints(&(shop() + &egress("")), "shop/client shop/web:81");
    assert_eq!(denied.len(), 2);
    assert!(denied[0].starts_with("no container of") && denied[1].starts_with("`palisade explain"));
}

#[test]
fn nothing_is_said_where_nothing_is_known_about_ports() {
    let shop = shop() + &pod("shop", "bare", "10.1.0.4", "");
    for words in [
        "shop/client shop/web:8080",
        "shop/client shop/web:http",
        "shop/client shop/web",
        "shop/client shop/svc/web:80",
        "shop/client shop/bare:81",
        "shop/client shop/web/ICMP",
        // One of them declares no ports.
        "shop/web ns/shop:81",
        "shop/client 203.0.113.1:81",
        "shop/client internet:81",
        "shop/web pod:app=new@shop:81",
    ] {
        assert_eq!(hints(&shop, words), [""; 0], "{words}");
    }
}

#[test]
fn a_name_that_the_source_cannot_look_up_is_said() {
    let manifest = shop() + &dns() + &egress(TO_SHOP);
    let hint =
        "shop/pod/client can't ask DNS (UDP 53 to kube-system/kube-dns is denied), so names are not resolved";
    for words in [
        "shop/client shop/web:8080",
        "shop/client shop/svc/web:80",
        "shop/client http://web.shop/",
        "shop/client web.shop.svc.cluster.local:80",
    ] {
        assert_eq!(hints(&manifest, words), [hint], "{words}");
    }
    // What no policy of the source decides: the servers refuse it.
    let refused = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: in, namespace: kube-system}\n\
                   spec: {podSelector: {}, policyTypes: [Ingress]}\n";
    assert_eq!(hints(&(shop() + &dns() + refused), "shop/client shop/web:8080"), [hint]);
    let others = shop() + &dns() + &egress(TO_SHOP) + &pod("shop", "other", "10.1.0.5", "");
    assert_eq!(
        hints(&others, "ns/shop shop/web:8080"),
        [format!("some pods of {}", hint.replace("shop/pod/client", "namespace/shop"))]
    );
    let both = hints(&manifest, "shop/client shop/web:81");
    assert!(both.len() == 2 && both[1] == hint, "{both:?}");
}

#[test]
fn nothing_is_said_about_dns_where_it_is_not_needed_allowed_or_unknown() {
    let denied = shop() + &dns() + &egress(TO_SHOP);
    let allowed = shop() + &dns() + &egress(&format!("{TO_SHOP}, {TO_DNS}"));
    let unknown = shop() + &egress(TO_SHOP);
    let to_all = shop() + &dns() + &egress(&format!("{TO_SHOP}, {{ports: [{{port: 53, protocol: UDP}}]}}"));
    for (manifest, words) in [
        (&denied, "shop/client 10.1.0.2:8080"),
        (&denied, "shop/web shop/web:8080"),
        (&denied, "203.0.113.1 shop/web:8080"),
        (&allowed, "shop/client shop/web:8080"),
        (&to_all, "shop/client kube-system/kube-dns:53/UDP"),
        (&unknown, "shop/client shop/web:8080"),
    ] {
        assert_eq!(hints(manifest, words), [""; 0], "{words}");
    }
    // A denied connection fails anyway.
    let other = hints(&denied, "shop/client kube-system/kube-dns:53/UDP");
    assert!(other.len() == 1 && other[0].starts_with("`palisade explain"), "{other:?}");
    // The servers on the node answer.
    let local = pod("kube-system", "node-local-dns", "10.1.0.6", "")
        + &egress(&format!("{TO_SHOP}, {{to: [{{ipBlock: {{cidr: 169.254.20.10/32}}}}]}}"));
    assert_eq!(hints(&(shop() + &dns() + &local), "shop/client shop/web:8080"), [""; 0]);
}

#[test]
fn a_denied_connection_names_the_command_that_explains_it() {
    let manifest = shop() + &egress("");
    assert_eq!(
        hints(&manifest, "-n shop client pod:app=web@shop:8080"),
        [
            "`palisade explain -n shop client pod:app=web@shop:8080 -f m.yaml` shows every rule and an edit that allows it"
        ]
    );
    let quoted = hints(&manifest, "shop/client shop/*:8080");
    assert_eq!(
        quoted,
        [
            "`palisade explain shop/client 'shop/*:8080' -f m.yaml` shows every rule and an edit that allows it"
        ]
    );
    assert_eq!(can(&manifest, "shop/client shop/web:8080 -q"), "");
    assert_eq!(hints(&shop(), "shop/client shop/web:8080"), [""; 0]);
}

#[test]
fn the_command_of_a_hint_works() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), shop() + &egress("")).unwrap();
    let can = |words: &str| run(palisade(words).current_dir(dir.path()));
    let (_, out, _) = can("can -o text -n shop client web:8080 -f m.yaml");
    let (_, command) = out.split_once("hint: `palisade ").unwrap();
    let (command, _) = command.split_once('`').unwrap();
    let (code, out, err) = can(command);
    assert_eq!((code, &*err), (1, ""), "{command}");
    assert!(out.contains("denied"), "{out}");
}

#[test]
fn json_has_hints_only_where_there_are_some() {
    let json = |manifest: &str, words: &str| -> Value {
        serde_json::from_str(&can(manifest, &format!("{words} -o json"))).unwrap()
    };
    let found = json(&(shop() + &dns() + &egress(TO_SHOP)), "shop/client shop/web:81");
    let codes: Vec<&str> =
        found["hints"].as_array().unwrap().iter().map(|hint| hint["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["port-not-declared", "dns-denied"]);
    assert!(found["hints"][0]["text"].as_str().unwrap().contains("TCP 81"));
    // Programs need no command for people.
    assert_eq!(json(&(shop() + &egress("")), "shop/client shop/web:8080")["hints"], Value::Null);
}

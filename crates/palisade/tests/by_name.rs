//! Destinations by host name: what rules with `domainNames` allow once the name is resolved, through the command line.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "support/on_path.rs"]
mod on_path;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use on_path::{Ran, manifest, run};
use tempfile::TempDir;

/// Asserts the exit code, and that the output has all of `parts` when its lines are joined.
#[track_caller]
fn answered(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    let joined = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(joined.contains(part), "no {part:?} in:\n{}{}", ran.out, ran.err);
    }
}

/// Asserts an error: exit code 2, no answer, and all of `parts` in the message.
#[track_caller]
fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!((ran.code, &*ran.out), (2, ""), "{}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    let joined = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(joined.contains(part), "no {part:?} in:\n{}", ran.err);
    }
}

const BY_NAME: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: by-name}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress:
  - {name: never, action: Deny, to: [{networks: [192.0.2.0/24]}]}
  - {name: vendor, action: Accept, to: [{domainNames: ['*.Example.com.']}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {name: exact, action: Accept, to: [{domainNames: [xn--bcher-kva.example, a_b.example.net, 198.51.100.9]}]}
  - {action: Accept, to: [{networks: [203.0.113.0/24]}], protocols: [{tcp: {destinationPort: {number: 22}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.0.0.8, podIPs: [{ip: 10.0.0.8}]}
";

/// The policy without the rule that treats some addresses differently.
fn plain() -> TempDir {
    let lines = BY_NAME.lines().filter(|line| !line.contains("name: never") && !line.contains("number: 22"));
    manifest(&lines.collect::<Vec<_>>().join("\n"))
}

const RULE: &str = "by ClusterNetworkPolicy by-name, egress[0] \"vendor\" (";

#[test]
fn a_host_that_a_rule_names_is_allowed_once_resolved() {
    let dir = plain();
    for name in ["api.example.com", "API.Example.COM.", "a.b.example.com"] {
        let ran = run(&format!("can shop/web {name}:443"), dir.path());
        answered(
            &ran,
            0,
            &["allowed once resolved shop/pod/web → ", RULE, "m.yaml:10)", "--domain-names=on"],
        );
        assert!(
            ran.err.contains("domainNames are enforced only by agents that learn addresses"),
            "{}",
            ran.err
        );
    }
    answered(&run("can shop/web xn--bcher-kva.example:80", dir.path()), 0, &["allowed once resolved"]);
    answered(&run("can shop/web a_b.example.net:80", dir.path()), 0, &["allowed once resolved"]);
    answered(&run("can shop/web https://api.example.com/x", dir.path()), 0, &["allowed once resolved"]);
    let json = run("can shop/web api.example.com:443 -o json", dir.path());
    answered(
        &json,
        0,
        &["\"verdict\": \"allowed\"", "\"once_resolved\": true", "\"domain-names\"", "vendor"],
    );
    let quiet = run("can shop/web api.example.com:443 -q", dir.path());
    assert_eq!((quiet.code, &*quiet.out), (0, ""), "{}", quiet.err);
}

#[test]
fn a_host_that_no_rule_names_is_denied_and_near_misses_are_named() {
    let dir = plain();
    let denied = |end: &str, parts: &[&str]| {
        let ran = run(&format!("can shop/web {end}"), dir.path());
        answered(&ran, 1, &[&["denied shop/pod/web → "], parts].concat());
        assert!(!ran.out.contains("once resolved"), "{end}: {}", ran.out);
    };
    // The name matches, the port does not.
    denied(
        "api.example.com:80",
        &["*.example.com matches api.example.com; its rule is for other ports, or a rule before it decides"],
    );
    denied("example.com:443", &["*.example.com matches names below example.com, not example.com itself"]);
    denied("notexample.com:443", &[]);
    denied("example.com.evil.net:443", &[]);
    denied(
        "www.xn--bcher-kva.example:443",
        &["xn--bcher-kva.example matches that name alone", "*.xn--bcher-kva.example"],
    );
    // A name that is an address is never resolved.
    denied("198.51.100.9:443", &["198.51.100.9", "use networks"]);
    denied("198.51.100.10:443", &[]);
}

#[test]
fn a_rule_for_some_addresses_before_the_names_makes_the_host_undecided() {
    let dir = manifest(BY_NAME);
    answered(
        &run("can shop/web api.example.com:443", dir.path()),
        2,
        &["undecided", "192.0.2.0", "once resolved"],
    );
    let json = run("can shop/web api.example.com:443 -o json", dir.path());
    answered(&json, 2, &["\"verdict\": \"undecided\"", "host-addresses"]);
}

#[test]
fn names_that_no_resolver_can_be_asked_for_are_errors() {
    let dir = plain();
    let long = format!("{}.example.com", "a".repeat(64));
    for (end, part) in [
        ("b\u{fc}cher.example:443", "ASCII form"),
        ("*.example.com:443", "ask about one name"),
        ("api..example.com:443", "api..example.com"),
        ("api.example.com..:443", "api.example.com.."),
        (&format!("{long}:443"), "63 characters"),
        (&format!("{}com:443", "a.".repeat(200)), "names consist of"),
        ("api.example.com:https", "give the number"),
        ("api.example.com", "give the port"),
    ] {
        refused(&run(&format!("can shop/web {end}"), dir.path()), &[part]);
    }
}

#[test]
fn an_explanation_of_a_host_shows_the_rule_that_names_it() {
    let dir = plain();
    let ran = run("explain shop/web api.example.com:443", dir.path());
    answered(
        &ran,
        0,
        &["once api.example.com is resolved", "egress[0] \"vendor\"", "✓ peer domain name *.example.com"],
    );
    let json = run("explain shop/web api.example.com:443 -o json", dir.path());
    answered(&json, 0, &["\"verdict\": \"allowed\"", "\"once_resolved\": true"]);
    let ran = run("explain shop/web other.example.org:443", dir.path());
    answered(&ran, 1, &["✗ peer domain name *.example.com"]);
    assert!(!ran.out.contains("is resolved"), "{}", ran.out);
    let ran = run("explain shop/web 203.0.113.9:443", dir.path());
    answered(&ran, 1, &["✗ peer domain name *.example.com"]);
    // Of every port, the one of the rule.
    answered(&run("explain shop/web api.example.com", dir.path()), 1, &["allowed TCP 443"]);
}

/// Runs the program where these are the only hosts, and without a network.
#[cfg(target_os = "linux")]
fn run_among(hosts: &str, words: &str, path: &Path) -> Ran {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("hosts");
    fs::write(&file, hosts).unwrap();
    let mut command = Command::new("unshare");
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command.args(["--user", "--map-root-user", "--mount", "--net", "--", "sh", "-ec"]);
    command.arg("mount --bind \"$0\" /etc/hosts; exec \"$@\"").arg(file);
    command.arg(env!("CARGO_BIN_EXE_palisade")).args(words.split_whitespace()).arg("-f").arg(path);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[cfg(target_os = "linux")]
#[test]
fn a_resolver_is_asked_on_request_and_its_answer_is_decided() {
    let dir = manifest(BY_NAME);
    let hosts = "203.0.113.9 api.example.com\n192.0.2.5 two.example.com\n203.0.113.7 two.example.com\n\
                 10.9.9.9 inside.example.com\n203.0.113.8 other.example.org\n10.0.0.8 pod.example.com\n";
    let can = |words: &str| run_among(hosts, &format!("can {words} --resolve"), dir.path());
    // Without an answer, it depends on the address (above).
    let ran = can("shop/web api.example.com:443");
    answered(&ran, 0, &["allowed once resolved", RULE_1, "answered 203.0.113.9 for api.example.com"]);
    let ran = can("shop/web two.example.com:443");
    answered(
        &ran,
        1,
        &["denied", "differs by address", "for 192.0.2.5", "egress[0] \"never\"", "for 203.0.113.7"],
    );
    // A rule with CIDRs needs no name.
    let ran = can("shop/web other.example.org:22");
    answered(&ran, 0, &["allowed shop/pod/web", "answered 203.0.113.8"]);
    assert!(!ran.out.contains("once resolved"), "{}", ran.out);
    answered(&can("shop/web other.example.org:443"), 1, &["denied"]);
    // What agents don't learn is denied, whatever the resolver says.
    answered(
        &can("shop/web inside.example.com:443"),
        1,
        &["denied", "10.9.9.9 is not an address", "--dns-allow"],
    );
    answered(&can("shop/web pod.example.com:443"), 1, &["answered 10.0.0.8"]);
    let json = can("shop/web api.example.com:443 -o json");
    answered(&json, 0, &["\"once_resolved\": true", "\"host-name\"", "203.0.113.9"]);
    let ran = run_among(hosts, "explain shop/web two.example.com:443 --resolve", dir.path());
    let answered_by =
        "note: the resolver of this machine answered 192.0.2.5, 203.0.113.7 for two.example.com";
    answered(&ran, 1, &[answered_by, "✓ peer domain name *.example.com"]);
    let json = run_among(hosts, "explain shop/web inside.example.com:443 --resolve -o json", dir.path());
    answered(&json, 1, &["\"not-learned\"", "\"host-name\""]);
}

#[cfg(target_os = "linux")]
const RULE_1: &str = "by ClusterNetworkPolicy by-name, egress[1] \"vendor\" (";

#[cfg(target_os = "linux")]
#[test]
fn a_resolver_without_an_answer_and_ends_that_are_no_hosts_are_errors() {
    let dir = manifest(BY_NAME);
    let can = |words: &str| run_among("", &format!("can {words} --resolve"), dir.path());
    let none = ["can't resolve api.example.com", "the resolver of this machine has no answer"];
    refused(&can("shop/web api.example.com:443"), &none);
    refused(&can("shop/web 192.0.2.5:443"), &["--resolve: neither end is the name of a host"]);
    let with_service = format!(
        "{BY_NAME}---\n{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: shop}}, spec: {{clusterIP: \
         10.96.0.9, ports: [{{port: 443}}]}}}}\n"
    );
    let dir = manifest(&with_service);
    let ran =
        run_among("10.96.0.9 api.example.com\n", "can shop/web api.example.com:443 --resolve", dir.path());
    refused(&ran, &["10.96.0.9 of a service", "shop/svc/s"]);
}

#[test]
fn assertions_have_hosts_as_destinations() {
    let dir = plain();
    let assertions = |expected: &[(&str, &str, &str)]| {
        let mut text = "schema: palisade.test/v1\nassertions:\n".to_owned();
        for (at, (to, port, expect)) in expected.iter().enumerate() {
            text +=
                &format!("- {{name: a{at}, from: shop/web, to: {to}, ports: [{port}], expect: {expect}}}\n");
        }
        let file = dir.path().join("assertions.txt");
        fs::write(&file, text).unwrap();
        run(&format!("test {}", file.display()), &dir.path().join("m.yaml"))
    };
    let hold = [
        ("api.example.com", "443", "allow"),
        ("API.Example.com.", "443", "allow"),
        ("api.example.com", "80", "deny"),
        ("example.com", "443", "deny"),
        // What one assertion resolves is not resolved for another.
        ("internet", "443", "deny"),
        ("[api.example.com, b.example.com]", "443", "allow"),
    ];
    answered(&assertions(&hold), 0, &["6 assertions checked, 6 hold"]);
    let ran = assertions(&[("api.example.com", "443", "deny")]);
    answered(&ran, 1, &["fails", "egress[0] \"vendor\"", "api.example.com may have any public address"]);
    // The addresses of one name are not those of another, although both have a rule.
    let ran = assertions(&[("[api.example.com, a_b.example.net]", "80", "allow")]);
    answered(&ran, 1, &["fails", "api.example.com may have any public address"]);
    assert!(!ran.out.contains("a_b.example.net may"), "{}", ran.out);
    // Some addresses of the name are denied before.
    let ran = {
        let file = dir.path().join("assertions.txt");
        fs::write(&file, "schema: palisade.test/v1\nassertions:\n- {name: a, from: shop/web, to: api.example.com, ports: [443], expect: allow}\n").unwrap();
        run(&format!("test {}", file.display()), manifest(BY_NAME).path())
    };
    answered(&ran, 1, &["fails", "egress[0] \"never\""]);
}

#[test]
fn connections_are_listed_to_a_host() {
    let dir = plain();
    let ran = run("connections --to api.example.com --from shop/web", dir.path());
    answered(&ran, 0, &["api.example.com (203.0.113.1)", "TCP 443"]);
    assert!(ran.err.contains("note: api.example.com may have any public address"), "{}", ran.err);
    let ran = run("connections --to api.example.com --port 80", dir.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.out.contains("api.example.com"), "{}", ran.out);
    let ran = run("connections --to other.example.org --from shop/web", dir.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.out.contains("TCP 443") && !ran.err.contains("resolved"), "{}{}", ran.out, ran.err);
    // Where rules treat some of its addresses differently, each part is listed.
    let ran = run("connections --to api.example.com --from shop/web", manifest(BY_NAME).path());
    answered(&ran, 0, &["api.example.com (", "TCP 22,443"]);
    refused(&run("connections --to api.example.com --to b.example.com", dir.path()), &["ask about one"]);
    let json = run("connections --to api.example.com -o json", dir.path());
    answered(&json, 0, &["api.example.com (203.0.113.1)"]);
}

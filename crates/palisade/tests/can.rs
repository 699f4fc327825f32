//! `palisade can` as users run it: exit codes, answers for the examples, and invalid input.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    // Without a code, the process was killed by a signal.
    let code = output.status.code().unwrap_or(-1);
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}

fn palisade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

/// Runs `palisade can` on one path.
fn can(words: &str, path: &Path) -> Ran {
    ran(palisade().arg("can").args(words.split(' ')).arg("-f").arg(path).output().unwrap())
}

/// A directory with one manifest.
fn manifest(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("m.yaml"), text).unwrap();
    dir
}

/// Asserts an error: exit code 2, empty standard output, no panic, and all of `parts` in the message.
#[track_caller]
fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    assert_eq!(ran.out, "");
    assert!(ran.err.contains("error"), "{}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no {part:?} in:\n{}", ran.err);
    }
}

#[track_caller]
fn answered(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    assert_eq!(ran.err, "");
    for part in parts {
        assert!(ran.out.contains(part), "no {part:?} in:\n{}", ran.out);
    }
}

const TWO_PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: b}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}
---
";

#[test]
fn the_shop_answers_with_rules_and_lines() {
    let shop = example("shop");
    let allowed = can("frontend backend:8080 -n shop", &shop);
    answered(
        &allowed,
        0,
        &["allowed", "NetworkPolicy shop/backend-from-frontend, ingress[0]", "backend-from-frontend.yaml:14"],
    );
    let denied = can("staging/frontend shop/backend", &shop);
    answered(
        &denied,
        1,
        &["denied", "TCP 8080, TCP 9100", "isolated by", "requires pods app=frontend in namespace shop"],
    );
    answered(&can("shop/backend 192.168.1.20:80", &shop), 0, &["egress[0]"]);
    answered(&can("shop/backend 192.168.1.20:443", &shop), 1, &["the peer matches, the port does not"]);
    answered(&can("shop/backend internet:80", &shop), 1, &["TCP 80, IPv4 and IPv6"]);
    answered(&can("shop/frontend internet:80", &shop), 0, &["no policy isolates the source"]);
    answered(&can("shop/frontend shop/svc/backend", &shop), 0, &["service port"]);
    answered(&can("shop/backend data/database/ICMP", &shop), 1, &["ICMP, IPv4 and IPv6"]);
}

#[test]
fn the_misspelled_shop_opens_port_80_of_the_internet() {
    let path = example("shop-two-rules");
    answered(&can("shop/backend internet:80", &path), 0, &["egress[1]"]);
    answered(&can("shop/backend 192.168.1.20:443", &path), 0, &["egress[0]"]);
}

#[test]
fn the_tiers_answer_with_policy_tier_priority_and_line() {
    let path = example("tiers");
    answered(
        &can("sandbox/trial shop/web:8080", &path),
        1,
        &[
            "ingress: denied by ClusterNetworkPolicy guardrails, ingress[1] \"sandbox-stays-inside\" (",
            "tiers/platform.yaml:44), admin tier, priority 10",
        ],
    );
    answered(
        &can("shop/web 198.51.100.7:443", &path),
        1,
        &[
            "egress:  denied by ClusterNetworkPolicy guardrails, egress[0] \"old-data-centre\" (",
            "platform.yaml:51)",
        ],
    );
    // The team's policy has no rule for this port, and is not evaluated.
    answered(
        &can("monitoring/prometheus shop/api:9200", &path),
        0,
        &[
            "ingress: allowed by ClusterNetworkPolicy guardrails, ingress[0] \"scraping\" (",
            "platform.yaml:36)",
        ],
    );
    // Passed by the platform's policy, decided by the team's.
    let passed = can("sandbox/trial shop/api:8080", &path);
    answered(&passed, 0, &["ingress: allowed by NetworkPolicy shop/api, ingress[0] (", "team.yaml:12)"]);
    let below = passed.out.lines().last().unwrap().trim();
    assert!(
        below.starts_with("passed by ClusterNetworkPolicy sandbox-to-api, ingress[0] \"team-decides\" ("),
        "{below}"
    );
    assert!(below.ends_with("platform.yaml:17), admin tier, priority 5"), "{below}");
    answered(
        &can("shop/api shop/web:8080", &path),
        1,
        &[
            "denied by ClusterNetworkPolicy no-pod-by-default, ingress[0] \"pods\" (",
            "baseline tier, priority 100",
        ],
    );
    // A NetworkPolicy is final: the baseline is not evaluated.
    answered(&can("8.8.8.8 shop/api:8080", &path), 1, &["isolated by NetworkPolicy shop/api"]);
    answered(&can("8.8.8.8 shop/web:8080", &path), 0, &["no policy isolates the destination"]);
}

#[test]
fn json_tells_tier_priority_action_and_what_was_passed_on() {
    let path = example("tiers");
    let side = |words: &str| -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_str(&can(words, &path).out).unwrap();
        json["answers"][0]["ingress"].clone()
    };
    let denied = side("sandbox/trial shop/api:9200 -o json");
    assert_eq!(denied["verdict"], "denied");
    assert_eq!(denied["reason"], "rule");
    let rule = &denied["rule"];
    assert_eq!(
        (&rule["policy"]["kind"], &rule["policy"]["name"]),
        (&"ClusterNetworkPolicy".into(), &"guardrails".into())
    );
    assert!(rule["policy"].get("namespace").is_none());
    assert_eq!((&rule["index"], &rule["line"]), (&1.into(), &44.into()));
    assert_eq!((&rule["tier"], &rule["priority"]), (&"admin".into(), &10.into()));
    assert_eq!(rule["action"], "deny");
    assert_eq!(rule["name"], "sandbox-stays-inside");
    assert!(denied.get("passed").is_none());
    let passed = side("sandbox/trial shop/api:8080 -o json");
    assert_eq!(passed["rule"]["tier"], "developer");
    assert!(passed["rule"].get("priority").is_none());
    assert_eq!(passed["passed"][0]["policy"]["name"], "sandbox-to-api");
    assert_eq!((&passed["passed"][0]["action"], &passed["passed"][0]["line"]), (&"pass".into(), &17.into()));
}

#[test]
fn regions_of_the_internet_are_told_apart() {
    let path = example("restrict-external");
    let ran = can("internet web/admin:443", &path);
    answered(&ran, 1, &["differs by address", "203.0.113.0/25", "2001:db8:113:80::/64"]);
    answered(&can("203.0.113.7 web/admin:443", &path), 0, &[]);
    answered(&can("203.0.113.200 web/admin:443", &path), 1, &["203.0.113.0/24 except 203.0.113.128/25"]);
    answered(&can("internet web/gateway", &path), 1, &["differs by port"]);
}

#[test]
fn quiet_says_it_with_the_exit_code_alone() {
    let ran = can("shop/frontend shop/backend:8080 -q", &example("shop"));
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "", ""));
    let ran = can("staging/frontend shop/backend:8080 -q", &example("shop"));
    assert_eq!((ran.code, &*ran.out, &*ran.err), (1, "", ""));
}

#[test]
fn json_has_a_schema_and_positions() {
    let ran = can("staging/frontend shop/backend:8080 -o json", &example("shop"));
    assert_eq!(ran.code, 1);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["schema"], "palisade.can/v2");
    assert_eq!(json["verdict"], "denied");
    let ingress = &json["answers"][0]["ingress"];
    assert_eq!(ingress["reason"], "isolated");
    assert_eq!(ingress["policies"][0]["policy"]["namespace"], "shop");
    assert_eq!(ingress["policies"][0]["policy"]["name"], "backend-from-frontend");
    assert_eq!(ingress["near"][0]["port_matches"], true);
    assert_eq!(json["answers"][0]["flows"].as_array().unwrap().len(), 2, "one pod each, two families");
}

#[test]
fn families_that_differ_are_both_shown() {
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: v4}
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]
";
    let dir = manifest(&format!("{TWO_PODS}{policy}"));
    let ran = can("a b:80", dir.path());
    answered(&ran, 1, &["differs by family", "TCP 80, IPv4\n", "TCP 80, IPv6\n"]);
    answered(&can("a internet:80", dir.path()), 1, &["differs by family"]);
}

#[test]
fn pods_of_a_workload_that_differ_are_shown() {
    let pods = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  serviceName: db
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: db, extra: x}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 1, targetPort: 5432}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: extra}
spec: {podSelector: {matchLabels: {extra: x}}, policyTypes: [Ingress]}
---
";
    let dir = manifest(&format!("{TWO_PODS}{pods}"));
    let ran = can("a svc/db:1", dir.path());
    answered(
        &ran,
        1,
        &[
            "differs by pod",
            "default/a → default/one",
            "default/a → default/db-0, default/a → default/db-1",
            "which allows nothing",
        ],
    );
    answered(&can("a db:5432", dir.path()), 0, &["default/statefulset/db"]);
    answered(&can("db db:5432", dir.path()), 0, &["no policy isolates"]);
}

#[test]
fn addresses_mean_their_owners() {
    let text = format!(
        "{TWO_PODS}{}",
        "
apiVersion: v1
kind: Pod
metadata: {name: x}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.9.9.9, podIPs: [{ip: 10.9.9.9}]}
"
    );
    let dir = manifest(&text);
    let ran = can("a 10.9.9.9:80", dir.path());
    answered(&ran, 0, &["default/x (10.9.9.9)", "TCP 80, IPv4\n"]);
    refused(&can("fd00::1 10.9.9.9:80", dir.path()), &["no IP family in common"]);
}

#[test]
fn invalid_specs_are_reported_with_a_cure() {
    let shop = example("shop");
    refused(
        &can("shop/frontend shop/backnd:80", &shop),
        &["there is no pod or workload `backnd`", "did you mean shop/deployment/backend"],
    );
    refused(
        &can("frontend shop/backend:80", &shop),
        &["source", "is ambiguous: it may be shop/deployment/frontend"],
    );
    refused(&can("shop/frontend shop/backend:99999", &shop), &["1 to 65535"]);
    refused(&can("shop/frontend shop/backend:80/QUIC", &shop), &["supported are TCP"]);
    refused(&can("shop/frontend 10.0.0.0/8", &shop), &["10.0.0.0/8 declares no ports"]);
    refused(&can("shop/frontend:80 shop/backend:80", &shop), &["give it with the destination"]);
    refused(&can("shop/frontend internet", &shop), &["DST:PORT"]);
    refused(&can("internet internet:80", &shop), &["neither end is in the cluster"]);
    refused(&can("shop/frontend shop/svc/backend:1", &shop), &["has no port 1/TCP; it has"]);
    refused(&can("shop/gateway/x shop/backend", &shop), &["is not a kind with network endpoints"]);
    refused(
        &can("shop/frontend shop/backend:nope", &shop),
        &["no pod of the destination declares a port named `nope`"],
    );
}

#[test]
fn a_workload_without_pods_says_so() {
    let none = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: 0
  selector: {matchLabels: {app: c}}
  template: {metadata: {labels: {app: c}}, spec: {containers: [{name: c, image: i}]}}
";
    let dir = manifest(&format!("{TWO_PODS}{none}"));
    refused(&can("a idle:80", dir.path()), &["deployment default/idle has no pods"]);
    refused(&can("deploy/idle b:80", dir.path()), &["deployment default/idle has no pods"]);
}

#[test]
fn nodes_are_endpoints_and_may_reach_their_own_pods() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{containerPort: 80, protocol: SCTP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec: {nodeName: n2, hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut}
spec: {podSelector: {}}
";
    let dir = manifest(text);
    answered(&can("node/n1 p:80/SCTP", dir.path()), 0, &["the pod's own node", "SCTP 80, IPv4"]);
    answered(
        &can("node/n2 p", dir.path()),
        1,
        &["isolated by NetworkPolicy default/shut", "which allows nothing"],
    );
    answered(&can("host p", dir.path()), 1, &["default/pod/host"]);
    answered(&can("p host:22", dir.path()), 0, &["the destination is not a pod on the cluster network"]);
    answered(&can("192.0.2.2 p", dir.path()), 1, &["node n2 (192.0.2.2)"]);
    refused(&can("node/n3 p", dir.path()), &["there is no node `n3`", "did you mean node/n1 or node/n2"]);
    refused(&can("p node/n1", dir.path()), &["node n1 declares no ports"]);
}

#[test]
fn names_of_several_kinds_are_refused_with_the_list() {
    let other = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: c}}
  template: {metadata: {labels: {app: c}}, spec: {containers: [{name: c, image: i}]}}
";
    let dir = manifest(&format!("{TWO_PODS}{other}"));
    refused(&can("a b:80", dir.path()), &["`a` is ambiguous", "default/deployment/a", "default/pod/a"]);
    answered(&can("pod/a b:80", dir.path()), 0, &[]);
}

#[test]
fn no_manifests_no_answer() {
    let ran = ran(palisade().args(["can", "a", "b:80"]).output().unwrap());
    refused(&ran, &["-f PATH"]);
    let empty = TempDir::new().unwrap();
    refused(&can("a b:80", empty.path()), &["no manifests found"]);
    refused(&can("a b:80", Path::new("/does/not/exist")), &["/does/not/exist"]);
    let nothing = manifest("");
    refused(&can("a b:80", nothing.path()), &["empty"]);
    let other = manifest("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
    refused(&can("a b:80", other.path()), &["the manifests have no pods"]);
}

#[test]
fn standard_input_is_a_source_too() {
    let mut child = palisade()
        .args(["can", "a", "b:80", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(TWO_PODS.as_bytes()).unwrap();
    answered(&ran(child.wait_with_output().unwrap()), 0, &["default/pod/a → default/pod/b"]);
}

#[test]
fn broken_documents_are_reported_and_passed_over_only_on_demand() {
    let dir = manifest(&format!("{TWO_PODS}\nkind: [unclosed\n---\n"));
    refused(&can("a b:80", dir.path()), &["m.yaml", "1 error in the manifests", "--keep-going"]);
    let ran = can("a b:80 --keep-going", dir.path());
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("m.yaml") && ran.err.contains("incomplete:"), "{}", ran.err);
    assert_eq!(can("a b:80 --keep-going --allow-incomplete", dir.path()).code, 0);
}

#[test]
fn garbage_is_no_manifest() {
    let dir = TempDir::new().unwrap();
    let garbage: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(dir.path().join("g.yaml"), garbage).unwrap();
    refused(&can("a b:80", dir.path()), &["g.yaml"]);
    for text in ["{", "]", "a: b: c", "\t- x", "- *nobody", "&a [*a]", "\u{0}", "kind: Pod", "---\n---\n- 1"]
    {
        refused(&can("a b:80", manifest(text).path()), &["m.yaml"]);
    }
}

#[test]
fn a_file_of_200_mb_is_refused_unread() {
    let dir = TempDir::new().unwrap();
    File::create(dir.path().join("big.yaml")).unwrap().set_len(200 << 20).unwrap();
    refused(&can("a b:80", dir.path()), &["big.yaml"]);
}

#[test]
fn ten_thousand_documents_are_read() {
    let mut text = String::from(TWO_PODS);
    for i in 0..10_000 {
        text += &format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{i}}}\n\
             spec: {{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{n: x{i}}}}}}}]}}]}}\n---\n"
        );
    }
    let dir = manifest(&text);
    answered(&can("a b:80", dir.path()), 1, &["9995 more", "and no rule matches"]);
}

#[test]
fn ten_thousand_broken_documents_are_summed_up() {
    let dir = manifest(&"apiVersion: v1\nkind: Pod\nmetadata: 7\n---\n".repeat(10_000));
    let ran = can("a b:80", dir.path());
    refused(&ran, &["… and ", "errors in the manifests"]);
    assert!(ran.err.len() < 60_000, "{} bytes", ran.err.len());
}

#[test]
fn unknown_fields_and_versions_are_reported() {
    let field =
        manifest(&format!("{TWO_PODS}apiVersion: v1\nkind: Pod\nmetadata: {{name: c, lables: {{a: b}}}}\n"));
    let ran = can("a b:80", field.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("lables"), "{}", ran.err);
    refused(&can("a b:80 --strict", field.path()), &["lables"]);
    let version = manifest(&format!(
        "{TWO_PODS}apiVersion: networking.k8s.io/v7\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{podSelector: {{}}}}\n"
    ));
    refused(&can("a b:80", version.path()), &["networking.k8s.io/v7"]);
}

#[test]
fn a_pod_without_an_address_and_one_with_anothers() {
    let text = format!(
        "{TWO_PODS}{}",
        "
apiVersion: v1
kind: Pod
metadata: {name: first}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.9.9.9}
---
apiVersion: v1
kind: Pod
metadata: {name: second}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.9.9.9}
---
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec: {containers: [{name: c, image: i}]}
status: {phase: Pending}
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec: {containers: [{name: c, image: i}]}
status: {phase: Succeeded, podIP: 10.9.9.8}
"
    );
    let dir = manifest(&text);
    let ran = can("a 10.9.9.9:80", dir.path());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("10.9.9.9 is also the address of default/first"), "{}", ran.err);
    let waiting = can("a waiting:80", dir.path());
    assert_eq!(waiting.code, 2, "{}{}", waiting.out, waiting.err);
    assert!(waiting.err.contains("pod default/waiting has no address"), "{}", waiting.err);
    let done = can("a done:80", dir.path());
    assert_eq!(done.code, 2);
    assert!(done.err.contains("has finished"), "{}", done.err);
}

const NODES: &str = "\
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/24]}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 'fd01::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: b, labels: {app: d}}, spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 443}]}]}, status: {phase: Running, podIPs: [{ip: 10.244.0.5}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h, namespace: b, labels: {app: h}}, spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 9100, name: metrics}, {containerPort: 53, protocol: UDP}]}]}, status: {phase: Running, podIPs: [{ip: 192.168.0.1}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: eg, namespace: b}, spec: {podSelector: {matchLabels: {app: d}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.0.0/24}}]}]}}
";

#[test]
fn the_addresses_of_a_node_are_named_where_the_verdicts_differ_by_them() {
    let dir = manifest(NODES);
    let ran = can("b/d node/n1:9100", dir.path());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.starts_with("denied  b/pod/d → node/n1 (differs by address)\n"), "{}", ran.out);
    for line in
        ["denied  b/d → node/n1 (198.51.100.1)  TCP 9100", "allowed  b/d → node/n1 (192.168.0.1)  TCP 9100"]
    {
        assert!(ran.out.contains(line), "no {line:?} in:\n{}", ran.out);
    }
    // One address, or the same verdict: no address is shown.
    assert!(
        can("node/n1 b/d:443", dir.path()).out.starts_with("allowed  node/n1 → b/pod/d  TCP 443, IPv4\n")
    );
}

#[test]
fn without_a_port_the_ports_of_host_network_pods_are_checked() {
    let dir = manifest(NODES);
    let ran = can("b/d b/h", dir.path());
    assert!(ran.out.starts_with("allowed  b/pod/d → b/pod/h"), "{}", ran.out);
    assert!(ran.out.contains("TCP 9100") && ran.out.contains("UDP 53"), "{}", ran.out);
    assert!(can("b/d b/h:metrics", dir.path()).out.contains("TCP 9100"));
    refused(&can("b/d b/h:web", dir.path()), &["declares a port named `web`", "metrics (TCP 9100)"]);
    refused(&can("b/d node/n1", dir.path()), &["node n1 declares no ports"]);
}

#[test]
fn an_address_of_pods_that_no_pod_has_is_said_to_be_one() {
    let dir = manifest(NODES);
    let ran = can("10.244.0.77 b/d:443", dir.path());
    assert_eq!(ran.code, 0);
    assert!(
        ran.out.contains("note: 10.244.0.77 is in a range of pods, but no pod of the input has it"),
        "{}",
        ran.out
    );
    for outside in ["10.244.1.77", "192.0.2.1"] {
        assert!(
            !can(&format!("{outside} b/d:443"), dir.path()).out.contains("in a range of pods"),
            "{outside}"
        );
    }
    // The address of a node and of its host-network pod is one.
    let ran = can("192.168.0.0/24 b/d:443", dir.path());
    assert!(ran.out.contains("note: 1 address in 192.168.0.0/24 is of pods and nodes"), "{}", ran.out);
}

#[test]
fn a_node_without_address_is_named_as_what_is_not_known() {
    let without =
        NODES.replace("{type: InternalIP, address: 192.168.0.1}, ", "").replace("{ip: 192.168.0.1}", "");
    let without = without
        .replace("{type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 'fd01::1'}", "");
    let dir = manifest(&without);
    let ran = can("b/d b/h:9100/TCP", dir.path());
    assert!(
        ran.code == 2 && ran.out.contains("depends on addresses of nodes; give Node objects"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let mut child = palisade()
        .args(["can", "shop/frontend", "shop/backend:8080", "-f"])
        .arg(example("shop"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(err, "");
}

#[test]
fn color_is_for_terminals() {
    let ran = can("shop/frontend shop/backend:8080", &example("shop"));
    assert!(!ran.out.contains('\u{1b}'));
    let colored = ran_colored(false);
    assert!(colored.contains('\u{1b}'), "CLICOLOR_FORCE asks for color");
    assert!(!ran_colored(true).contains('\u{1b}'), "NO_COLOR forbids it");
}

fn ran_colored(no_color: bool) -> String {
    let mut command = palisade();
    if no_color {
        command.env("NO_COLOR", "1")
    } else {
        command.env("CLICOLOR_FORCE", "1")
    };
    ran(command
        .args(["can", "shop/frontend", "shop/backend:8080", "-f"])
        .arg(example("shop"))
        .output()
        .unwrap())
    .out
}

//! Addresses that are not known never decide; what depends on them is undecided.
#![cfg(test)]

mod support;

use std::{fs, net::IpAddr};

use serde_json::Value;
use support::{answer, palisade, run};
use tempfile::TempDir;

const CASES: &str = "tests/cases/addresses";

fn case(name: &str) -> String {
    format!("{}/{CASES}/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

fn json(code: i32, words: &str) -> Value {
    let (got, out, err) = run(&mut palisade(&format!("{words} -o json")));
    assert_eq!(got, code, "{words}: {out}{err}");
    serde_json::from_str(&out).unwrap()
}

fn manifest(text: &str) -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("m.yaml");
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (dir, path)
}

#[test]
fn an_answer_that_depends_on_pod_addresses_says_so() {
    for name in ["invented-in", "invented-out"] {
        let words = format!("can shop/web shop/db:5432 -f {}", case(name));
        let out = answer(2, &words);
        assert!(out.starts_with("undecided"), "{out}");
        assert!(out.contains("depends on pod addresses; give --pod-cidr or status.podIPs"), "{out}");
        assert!(out.contains(&format!("{name}.yaml:14")), "{out}");
        let json = json(2, &words);
        assert_eq!(json["verdict"], "undecided");
        assert_eq!(json["undecided"][0]["rules"][0]["line"], 14);
        assert_eq!(json["undecided"][0]["rules"][0]["policy"]["name"], "office");
        let flows = json["answers"].as_array().unwrap().iter().flat_map(|a| a["flows"].as_array().unwrap());
        let known = |flow: &Value| flow["source"]["samples"][0].get("address").is_some();
        assert!(!flows.into_iter().any(known), "{json}");
        for verb in ["explain shop/web shop/db:5432", "describe shop/db", "connections"] {
            let (code, out, err) = run(&mut palisade(&format!("{verb} -f {}", case(name))));
            assert_eq!(code, 2, "{verb}: {out}{err}");
            assert!(format!("{out}{err}").contains("undecided"), "{verb}: {out}{err}");
            assert!(!format!("{out}{err}").contains("0.0.0.1"), "no placeholder is shown: {out}{err}");
        }
    }
}

/// Of a namespace and of a policy, what is not known isn't left out either.
#[test]
fn namespaces_and_policies_say_what_is_not_known() {
    let (_dir, file) = manifest(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n\
         {apiVersion: v1, kind: Namespace, metadata: {name: ops}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: ops}, spec: {containers: [{name: c, image: i}]}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {containers: [{name: c, image: i}]}}\n---\n\
         {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: {}, \
         policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/24}}], ports: [{port: 5432}]}], egress: \
         [{to: [{ipBlock: {cidr: 10.96.0.0/12}}]}]}}\n",
    );
    for what in ["ns/shop", "ns/ops", "shop/netpol/p"] {
        let words = format!("describe {what} -f {file}");
        let out = answer(2, &words);
        let text = "undecided: the connections of ";
        assert!(out.contains(text) && out.contains("because of NetworkPolicy shop/p"), "{out}");
        let json = json(2, &words);
        assert_eq!(json["undecided"][0]["code"], "pod-addresses", "{json:#}");
        assert_eq!(json["undecided"][0]["rules"][0]["policy"]["name"], "p", "{json:#}");
        let drawn = answer(2, &format!("{words} -o svg"));
        assert!(drawn.contains(text), "{drawn}");
        let known = run(&mut palisade(&format!("{words} --pod-cidr 10.0.0.0/24 --family 4")));
        assert!(known.0 == 0 && !known.1.contains("undecided"), "{}{}", known.1, known.2);
    }
    let dns = json(2, &format!("describe ns/shop -f {file}"));
    assert_eq!(dns["workloads"][0]["dns"], "undecided", "{dns:#}");
}

#[test]
fn pod_ranges_decide_if_all_their_addresses_agree() {
    let ask = |name: &str, options: &str| {
        let words = format!("can shop/web shop/db:5432 -f {} {options}", case(name));
        run(&mut palisade(&words)).0
    };
    for options in ["--pod-cidr 10.244.0.0/16 --family 4", "--pod-cidr 10.244.0.0/16"] {
        assert_eq!((ask("invented-in", options), ask("invented-out", options)), (0, 1), "{options}");
    }
    assert_eq!(ask("invented-in", "--pod-cidr 10.0.0.0/7"), 2, "half of it is in the block");
    assert_eq!(ask("invented-in", "--pod-cidr 10.244.0.0/16,192.168.0.0/16"), 2);
    assert_eq!(ask("invented-in", "--pod-cidr 10.244.0.0/16 --family 6"), 2, "an error");
    // In the other family, the rule allows nothing.
    assert_eq!(ask("invented-in", "--family 6"), 1);
}

#[test]
fn a_rule_for_every_address_needs_none() {
    let text = fs::read_to_string(case("invented-in")).unwrap();
    let (_dir, path) = manifest(&text.replace("10.0.0.0/8", "0.0.0.0/0, except: [169.254.169.254/32]"));
    assert_eq!(run(&mut palisade(&format!("can shop/web shop/db:5432 --family 4 -f {path}"))).0, 0);
}

#[test]
fn nodes_tell_the_families_and_the_ranges_of_pods() {
    let words = format!("can shop/web internet:443 -f {}", case("ipv4-only"));
    let (code, out, err) = run(&mut palisade(&words));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("allowed") && !out.contains("IPv6"), "{out}");
    assert_eq!(err, "", "nodes have all of their families");
    // In a cluster of both families, most services have one.
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ipFamilies: [IPv4]}\n";
    let (_dir, path) = manifest(&(fs::read_to_string(case("invented-out")).unwrap() + service));
    let (_, out, err) = run(&mut palisade(&format!("can shop/web shop/db:5432 -f {path}")));
    assert!(err.contains("note: only IPv4 is considered") && !out.contains("IPv6"), "{out}{err}");
    assert_eq!(json(0, &words)["families"], Value::from(vec!["IPv4"]));
    assert_eq!(run(&mut palisade(&format!("{words} --family both"))).0, 1);
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\n";
    let (_dir, path) = manifest(&(fs::read_to_string(case("invented-in")).unwrap() + node));
    assert_eq!(run(&mut palisade(&format!("can shop/web shop/db:5432 -f {path}"))).0, 0);
    // A pod outside of its node's range shows that the cluster ignores these ranges.
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: n1}\nstatus: {phase: Running, podIP: 192.168.7.7}\n";
    let (_dir, path) = manifest(&(fs::read_to_string(case("invented-in")).unwrap() + node + pod));
    assert_eq!(run(&mut palisade(&format!("can shop/web shop/db:5432 -f {path}"))).0, 2);
}

#[test]
fn external_ends_hold_no_address_of_the_cluster() {
    let json = json(0, &format!("connections -f {}", case("external-ends")));
    let own: Vec<IpAddr> =
        ["10.1.0.5", "10.1.0.6", "172.18.0.2", "172.18.0.3"].iter().map(|a| a.parse().unwrap()).collect();
    let ends = json["ends"].as_array().unwrap();
    let ranges =
        ends.iter().filter(|end| end["kind"] == "external").flat_map(|end| end["ranges"].as_array().unwrap());
    let mut seen = 0;
    for range in ranges {
        let bound = |name: &str| range[name].as_str().unwrap().parse::<IpAddr>().unwrap();
        let (first, last) = (bound("first"), bound("last"));
        assert!(own.iter().all(|a| !(first..=last).contains(a)), "{range}");
        seen += 1;
    }
    assert!(seen > 0);
}

/// A Deployment doesn't say on which node its pods run. Where policies treat the nodes alike, that doesn't matter.
#[test]
fn a_host_network_pod_without_a_node_may_be_on_any() {
    let node = |name: &str, pool: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{pool: {pool}}}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n---\n"
        )
    };
    let pod = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
             spec: {{{spec}containers: [{{name: c, image: i}}]}}\n---\n"
        )
    };
    let policy = |name: &str, direction: &str, peer: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  podSelector: {{matchLabels: {{app: {name}}}}}\n  policyTypes: [Ingress, Egress]\n  \
             {direction}: [{{{peer}}}]\n---\n"
        )
    };
    let text = [
        node("n1", "a", "192.168.0.1"),
        node("n2", "b", "192.168.0.2"),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: exporter, namespace: shop}\nspec:\n  replicas: 2\n  \
         selector: {matchLabels: {app: exporter}}\n  template:\n    metadata: {labels: {app: exporter}}\n    \
         spec: {hostNetwork: true, containers: [{name: c, image: i}]}\n---\n"
            .to_owned(),
        pod("free", ""),
        // A selector never matches host-network pods.
        pod("selecting", ""),
        policy("selecting", "ingress", "from: [{podSelector: {}}]"),
        // One node's address, and both.
        pod("one", ""),
        policy("one", "ingress", "from: [{ipBlock: {cidr: 192.168.0.1/32}}]"),
        pod("both", ""),
        policy("both", "ingress", "from: [{ipBlock: {cidr: 192.168.0.0/24}}]"),
        pod("client", ""),
        policy("client", "egress", "to: [{ipBlock: {cidr: 192.168.0.2/32}}]"),
        // Its own node is always allowed.
        pod("placed", "nodeName: n1, "),
        policy("placed", "ingress", "from: [{podSelector: {}}]"),
        // One on each node: of whichever node the source is, it reaches one of them.
        pod("each-1", "nodeName: n1, ").replace("app: each-1", "app: each"),
        pod("each-2", "nodeName: n2, ").replace("app: each-2", "app: each"),
        policy("each", "ingress", "from: [{podSelector: {}}]"),
    ];
    let (_dir, path) = manifest(&text.concat());
    for (question, expected) in [
        ("shop/exporter shop/free:80", 0),
        ("shop/free shop/exporter:9100", 0),
        ("shop/exporter 192.0.2.1:443", 0),
        ("shop/exporter shop/selecting:80", 1),
        ("shop/selecting shop/exporter:9100", 1),
        ("shop/exporter shop/both:80", 0),
        ("shop/exporter shop/one:80", 2),
        ("shop/client shop/exporter:9100", 2),
        ("shop/exporter shop/placed:80", 2),
        ("shop/exporter shop/each-2:80", 2),
        ("node/n1 shop/one:80", 0),
    ] {
        for verb in ["can", "explain"] {
            let answer = json(expected, &format!("{verb} {question} -f {path}"));
            let word = ["allowed", "denied", "undecided"][usize::try_from(expected).unwrap()];
            assert_eq!(answer["verdict"], word, "{verb} {question}: {answer:#}");
            assert_eq!(
                answer["undecided"][0]["code"] == "node",
                expected == 2,
                "{verb} {question}: {answer:#}"
            );
            let noted = answer["notes"].to_string().contains("\"any-node\"");
            assert_eq!(noted, question.contains("exporter"), "{verb} {question}: {answer:#}");
        }
    }
    for verb in ["can", "explain"] {
        let (code, out, err) = run(&mut palisade(&format!("{verb} shop/exporter shop/one:80 -f {path}")));
        let depends = "undecided: depends on the node of shop/deployment/exporter";
        assert!(code == 2 && out.contains(depends), "{verb}: {out}{err}");
    }
}

#[test]
fn host_network_workloads_are_on_a_made_up_node() {
    let text = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: mon}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
";
    let (_dir, path) = manifest(text);
    let (code, out, err) = run(&mut palisade(&format!("can mon/agent shop/db:80 -f {path}")));
    assert_eq!(code, 1, "{out}{err}");
    assert_eq!(
        err.matches("note: no Node objects; host-network pods are placed on a made-up node").count(),
        1
    );
    let json = json(0, &format!("connections --nodes -f {path}"));
    assert_eq!(json["notes"][0]["code"], "made-up-node");
    let ends = json["ends"].as_array().unwrap();
    let node = ends.iter().find(|end| end["kind"] == "nodes").unwrap();
    assert_eq!(node["nodes"][0]["addresses"], Value::from(Vec::<String>::new()), "none is made up");
}

#[test]
fn a_difference_that_depends_on_addresses_is_undecided() {
    let text = fs::read_to_string(case("invented-in")).unwrap();
    let (_before, a) = manifest(&text);
    let (_after, b) = manifest(&text.replace("10.0.0.0/8", "10.0.0.0/9"));
    let (code, out, err) = run(&mut palisade(&format!("diff {a} {b}")));
    assert_eq!(code, 2, "{out}{err}");
    assert!(format!("{out}{err}").contains("depends on pod addresses"), "{out}{err}");
    // The same rules treat every address alike, whatever it is.
    assert_eq!(run(&mut palisade(&format!("diff {a} {a}"))).0, 0);
    let (_other, c) = manifest(&text.replace("name: office", "name: other"));
    let (code, out, err) = run(&mut palisade(&format!("diff {a} {c}")));
    assert_eq!(code, 0, "{out}{err}");
    // With a range, it is decided.
    assert_eq!(run(&mut palisade(&format!("diff --pod-cidr 10.1.0.0/16 {a} {b} -o json"))).0, 1);
}

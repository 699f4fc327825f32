//! The ends of a question as people write them: addresses of services, names, sets and pods that don't exist.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

#[path = "support/on_path.rs"]
mod on_path;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use on_path::{Ran, manifest, run};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

/// Asserts the exit code, and that the output has all of `parts`.
#[track_caller]
fn answered(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    for part in parts {
        assert!(ran.out.contains(part), "no {part:?} in:\n{}{}", ran.out, ran.err);
    }
}

/// Asserts an error: exit code 2, no answer, no panic, and all of `parts` in the message.
#[track_caller]
fn refused(ran: &Ran, parts: &[&str]) {
    assert_eq!((ran.code, &*ran.out), (2, ""), "{}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no {part:?} in:\n{}", ran.err);
    }
}

#[test]
fn every_address_of_a_service_stands_for_its_pods() {
    let path = case("services/load-balancer.yaml");
    for address in ["10.96.0.77:80", "203.0.113.50:80", "203.0.113.60:80", "192.168.0.21:30080"] {
        for source in ["shop/db", "198.51.100.7", "internet"] {
            let ran = run(&format!("can {source} {address}"), &path);
            answered(&ran, 1, &["shop/svc/web", "service port 80 → TCP 8080", "web-closed"]);
        }
        let ran = run(&format!("explain shop/db {address}"), &path);
        answered(&ran, 1, &["shop/svc/web"]);
    }
    answered(&run("can shop/db node/n1:30080", &path), 1, &["shop/svc/web", "service port 80 → TCP 8080"]);
    answered(&run("can shop/db 192.168.0.21:30081", &path), 0, &["node n1"]);
    answered(&run("can shop/db 203.0.113.51:80", &path), 0, &["203.0.113.51"]);
    let listed = run("connections --to 203.0.113.50", &path);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(!listed.out.contains("203.0.113.50"), "it stands for shop/web:\n{}", listed.out);
}

#[test]
fn nothing_answers_on_other_ports_of_the_address_of_a_service() {
    let path = case("services/load-balancer.yaml");
    for address in ["10.96.0.77", "203.0.113.50", "203.0.113.60"] {
        let ran = run(&format!("can shop/db {address}:81"), &path);
        refused(&ran, &["service shop/web has no port 81/TCP", "it has 80/TCP"]);
    }
    let ran = run("can shop/db shop/svc/web:8080", &path);
    refused(&ran, &["8080 is the port of its pods: use the service's port 80"]);
}

/// A service that only forwards to pods on the node that is asked.
const LOCAL: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.21}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.0.22}]}
";

#[test]
fn a_node_port_with_local_policy_answers_only_where_a_pod_runs() {
    let dir = manifest(LOCAL);
    answered(&run("can shop/db 192.168.0.21:30080", dir.path()), 0, &["shop/svc/web"]);
    let ran = run("can shop/db 192.168.0.22:30080", dir.path());
    refused(&ran, &["nothing answers on port 30080 of node n2", "externalTrafficPolicy: Local"]);
}

#[test]
fn endpoints_are_listed_by_endpoint_slices_and_endpoints() {
    let world = |kind: &str| {
        manifest(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: a, namespace: shop, labels: {{app: a}}}}
spec: {{containers: [{{name: c, image: x}}]}}
status: {{phase: Running, podIP: 10.0.0.5, podIPs: [{{ip: 10.0.0.5}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: shop}}
spec: {{clusterIP: 10.96.0.9, ports: [{{port: 5432, name: sql}}]}}
---
{kind}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: out, namespace: shop}}
spec:
  podSelector: {{}}
  policyTypes: [Egress]
  egress: [{{to: [{{ipBlock: {{cidr: 203.0.113.0/24}}}}]}}]
"
        ))
    };
    let slice = |address: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {{name: db-1, namespace: shop, labels: {{kubernetes.io/service-name: db}}}},
 endpoints: [{{addresses: [{address}]}}], ports: [{{name: sql, port: 6000, protocol: TCP}}]}}"
        )
    };
    let dir = world(&slice("203.0.113.9"));
    let parts = ["service port 5432 → TCP 6000"];
    answered(&run("can shop/a shop/svc/db", dir.path()), 0, &parts);
    answered(&run("can shop/a 10.96.0.9:5432", dir.path()), 0, &parts);
    let dir = world(&slice("192.0.2.9"));
    answered(&run("can shop/a shop/svc/db:sql", dir.path()), 1, &parts);
    let dir = world(
        "{apiVersion: v1, kind: Endpoints, metadata: {name: db, namespace: shop},
 subsets: [{addresses: [{ip: 203.0.113.9}], ports: [{name: sql, port: 6000}]}]}",
    );
    answered(&run("can shop/a shop/svc/db", dir.path()), 0, &parts);
    let dir = world("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    refused(&run("can shop/a shop/svc/db", dir.path()), &["has no selector", "give its EndpointSlice"]);
}

#[test]
fn the_api_server_is_where_its_endpoint_slice_or_the_control_plane_is() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 192.168.0.0/16}}], ports: [{port: 6443}]}]
---
";
    let dir = manifest(pod);
    let unknown = ["the API server's address is not in the input", "give its EndpointSlice"];
    refused(&run("can shop/a default/svc/kubernetes", dir.path()), &unknown);
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}},
 endpoints: [{addresses: [192.168.0.10]}], ports: [{name: https, port: 6443}]}";
    let dir = manifest(&format!("{pod}{slice}"));
    answered(&run("can shop/a default/svc/kubernetes:443", dir.path()), 0, &["service port 443 → TCP 6443"]);
    let node = "{apiVersion: v1, kind: Node,
 metadata: {name: cp, labels: {node-role.kubernetes.io/control-plane: ''}},
 status: {addresses: [{type: InternalIP, address: 192.168.0.11}]}}";
    let dir = manifest(&format!("{pod}{node}"));
    answered(&run("can shop/a default/svc/kubernetes", dir.path()), 0, &["service port 443 → TCP 6443"]);
}

/// A namespace with a Service in front of a Deployment, another one, and a policy that admits pods of one label.
const SHOP: &str = "
{apiVersion: v1, kind: Node, metadata: {name: pods-1}, spec: {podCIDR: 10.0.0.0/9}, status: {addresses: [{address: 192.168.0.9}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: staging}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 8080, name: http}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http, name: main}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: staging, labels: {app: client}}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: frontend}}}]
    ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: staging}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}, {ipBlock: {cidr: ::/0}}]
    ports: [{port: 443}]
  - to: [{ipBlock: {cidr: 140.82.112.0/20}}]
    ports: [{port: 22}]
";

#[test]
fn dns_names_and_urls_are_services_and_pods() {
    let dir = manifest(SHOP);
    for end in [
        "web.shop:80",
        "web.shop.svc:80",
        "web.shop.svc.cluster.local:main",
        "http://web.shop/login",
        "web.shop",
    ] {
        let ran = run(&format!("can shop/db {end}"), dir.path());
        answered(&ran, 1, &["shop/svc/web", "service port 80 → TCP 8080"]);
    }
    answered(
        &run("can staging/client db-0.db.shop.svc.cluster.local:443", dir.path()),
        1,
        &["shop/pod/db-0"],
    );
    answered(&run("can 10-0-0-7.staging.pod.cluster.local shop/db", dir.path()), 1, &["staging/client"]);
    answered(&run("can db.shop web.shop:80", dir.path()), 1, &["shop/statefulset/db"]);
    refused(
        &run("can shop/db web.shop:8080", dir.path()),
        &["no port 8080/TCP", "use the service's port 80"],
    );
    refused(&run("can shop/db web.shpo:80", dir.path()), &["no namespace `shpo`", "web.shop"]);
    refused(&run("can shop/db wbe.shop:80", dir.path()), &["wbe", "did you mean", "web"]);
    refused(&run("can shop/db web.shop.svc.cluster.local:https", dir.path()), &["it has 80/TCP (main)"]);
}

#[test]
fn an_external_name_of_the_cluster_is_followed_or_an_error() {
    let alias = |name: &str, target: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{type: ExternalName, externalName: {target}}}}}\n"
        )
    };
    let aliases = [
        ("front", "web.shop.svc.cluster.local"),
        ("frontier", "front.shop.svc.cluster.local."),
        ("replica", "db-0.db.shop.svc.cluster.local"),
        ("far", "elsewhere.shop.svc.cluster.local"),
        ("gone", "nobody.shop.svc.cluster.local"),
        ("loop", "pool.shop.svc.cluster.local"),
        ("pool", "loop.shop.svc.cluster.local"),
        ("short", "web"),
        ("shorter", "web.shop"),
    ];
    let dir =
        manifest(&aliases.iter().fold(SHOP.to_owned(), |all, (name, target)| all + &alias(name, target)));
    let can = |what: &str| run(&format!("can shop/db shop/svc/{what}"), dir.path());
    for name in ["front", "frontier"] {
        answered(&can(&format!("{name}:80")), 1, &["service port 80 → TCP 8080", "NetworkPolicy shop/web"]);
    }
    let of_pod = run("can staging/client shop/svc/replica:443", dir.path());
    answered(&of_pod, 1, &["db-0.db.shop.svc.cluster.local", "NetworkPolicy staging/out"]);
    answered(&can("far:443"), 0, &["another name for elsewhere.shop.svc", "another name for db.example.com"]);
    refused(&can("gone:80"), &["another name for nobody.shop.svc.cluster.local", "nobody"]);
    refused(&can("loop:80"), &["shop/svc/loop", "its own"]);
    for name in ["short", "shorter"] {
        let cure = "no search path completes this name: write web.shop.svc.cluster.local";
        refused(&can(&format!("{name}:80")), &[cure]);
    }
}

#[test]
fn a_name_that_only_one_namespace_has_is_found_and_said() {
    let dir = manifest(SHOP);
    let ran = run("can client web:8080", dir.path());
    answered(
        &ran,
        1,
        &["staging/pod/client", "note: `client` is not in namespace default; staging/pod/client is the only"],
    );
    refused(
        &run("can client web:8080 -n shop", dir.path()),
        &["no pod or workload `client` in namespace shop"],
    );
    let both = SHOP.replace("name: client, namespace: staging", "name: web, namespace: staging");
    refused(
        &run("can shop/db web:1", manifest(&both).path()),
        &["ambiguous", "shop/deployment/web", "staging/pod/web"],
    );
}

#[test]
fn misspelt_names_come_with_what_there_is() {
    let dir = manifest(SHOP);
    refused(&run("can shop/wbe shop/db", dir.path()), &["did you mean shop/deployment/web"]);
    refused(&run("can shop/gateway shop/db", dir.path()), &["shop/deployment/web", "shop/statefulset/db"]);
    refused(&run("can deployement/web shop/db", dir.path()), &["did you mean deployment/web"]);
    refused(&run("can shop/deploymnt/web shop/db", dir.path()), &["did you mean deployment"]);
    refused(&run("can shop/db shop/web:htpp", dir.path()), &["named `htpp`", "they declare http (TCP 8080)"]);
    refused(&run("can shpo/web shop/db", dir.path()), &["did you mean shop"]);
    refused(&run("can ns/shpo shop/db", dir.path()), &["no namespace `shpo`", "did you mean shop"]);
}

/// A wrong end comes with its cause, and with what to write instead.
#[test]
fn wrong_ends_come_with_a_cure() {
    let dir = manifest(SHOP);
    for (source, destination, says) in [
        ("10.0.0.300", "shop/db", "`10.0.0.300` is not an IP address"),
        ("clinet", "shop/db", "there is no pod or workload `clinet`; did you mean staging/pod/client?"),
        ("quarterly-report", "shop/db", "there is no pod or workload `quarterly-report`; there are "),
        ("shop", "shop/db", "did you mean ns/shop?"),
        ("quarterly/report", "shop/db", "there is no namespace `quarterly`; there are "),
        ("shop/db", "netpol/web", "`netpol` is not a kind with network endpoints"),
        ("shop/db", "secret/web", "`secret` is not a kind with network endpoints"),
        ("shop/db", "web/8080", "did you mean web:8080?"),
        ("shop/db", "shop/web:", "no port after the colon"),
        ("shop/db", "shop/web:80-90", "give one port. `palisade connections --port` takes ranges"),
        ("shop/db", "shop/web:80,90", "give one port"),
        ("shop/db", "fd00::7:80", "give the port: '[fd00::7:80]:PORT"),
        ("shop/db", "shop/web 8080/TCP", "the port is part of the destination: DST:8080/TCP"),
        ("shop/db", "shop/web examples", "manifests are given with -f: '-f examples'"),
    ] {
        refused(&run(&format!("can {source} {destination}"), dir.path()), &[says]);
    }
    refused(&run("describe shop", dir.path()), &["did you mean ns/shop?"]);
    refused(&run("lint examples", dir.path()), &["manifests are given with -f: '-f examples'"]);
    refused(&run("diff", dir.path()), &["manifests are given without -f: 'palisade diff PATH'"]);
    refused(
        &run("connections --ingress-controller web-1", dir.path()),
        &["there is no pod or workload `web-1`; did you mean shop/deployment/web?"],
    );
    refused(&run("suggest", dir.path()), &["--from-services needs no records"]);
    refused(&run("lint --select PAL999", dir.path()), &["rules have codes, from PAL001 to PAL0"]);
}

#[test]
fn namespaces_and_everything_are_ends() {
    let dir = manifest(SHOP);
    for source in ["ns/shop", "shop/*", "*"] {
        let ran = run(&format!("can {source} shop/web:8080"), dir.path());
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    }
    answered(&run("can ns/shop db.shop:5432", dir.path()), 0, &["namespace/shop → shop/statefulset/db"]);
    answered(&run("can ns/staging ns/shop:443", dir.path()), 1, &["namespace/staging → namespace/shop"]);
    refused(&run("can shop/w* shop/db", dir.path()), &["no pattern"]);
}

#[test]
fn ranges_are_split_where_policies_split_them() {
    let dir = manifest(SHOP);
    answered(&run("can staging/client 8.0.0.0/8:443", dir.path()), 0, &["8.0.0.0/8"]);
    answered(&run("can staging/client 10.0.0.0/7:443", dir.path()), 1, &["differs by address", "11.0.0.0"]);
    answered(&run("can 10.0.0.0/8 shop/web:8080", dir.path()), 1, &["note: ", "left out"]);
    answered(&run("can 8.8.8.8/32 shop/db:5432", dir.path()), 0, &["8.8.8.8"]);
}

#[test]
fn a_host_is_answered_if_every_public_address_has_the_same_verdict() {
    let dir = manifest(SHOP);
    answered(
        &run("can staging/client api.github.com:443", dir.path()),
        0,
        &["api.github.com", "note: policies see addresses"],
    );
    answered(&run("can staging/client https://api.github.com/x", dir.path()), 0, &["api.github.com"]);
    answered(&run("can staging/client api.github.com:80", dir.path()), 1, &["api.github.com"]);
    let ran = run("can staging/client github.com:22", dir.path());
    answered(&ran, 2, &["undecided", "140.82.112.0", "give"]);
    let json = run("can staging/client github.com:22 -o json", dir.path());
    answered(&json, 2, &["\"verdict\": \"undecided\"", "host-addresses"]);
    answered(
        &run("can staging/client shop/svc/elsewhere:443", dir.path()),
        0,
        &["another name for db.example.com"],
    );
}

#[test]
fn pods_that_do_not_exist_are_asked_about_by_labels() {
    let dir = manifest(SHOP);
    answered(&run("can pod:role=frontend@shop shop/web", dir.path()), 0, &["shop/pod/pod:role=frontend"]);
    answered(&run("can pod:role=backend@shop shop/web", dir.path()), 1, &[]);
    answered(&run("can pod:role=frontend@other shop/web", dir.path()), 1, &["other/pod/pod:role=frontend"]);
    answered(&run("can shop/db pod:app=web@shop:8080", dir.path()), 1, &["NetworkPolicy shop/web"]);
    answered(&run("can shop/db pod:app=new,tier=x@team=a:80", dir.path()), 0, &[]);
    answered(&run("explain pod:role=frontend@shop shop/web:8080", dir.path()), 0, &[]);
    refused(
        &run("can pod:role=frontend@shpo shop/web", dir.path()),
        &["no namespace `shpo`", "did you mean shop"],
    );
    refused(&run("can pod:role@shop shop/web", dir.path()), &["invalid label"]);
}

#[test]
fn replicas_are_folded() {
    let many = SHOP.replace("replicas: 3", "replicas: 1000").replace("replicas: 2", "replicas: 1000");
    let dir = manifest(&many);
    let began = std::time::Instant::now();
    answered(
        &run("can shop/db shop/web", dir.path()),
        1,
        &["denied  shop/statefulset/db → shop/deployment/web"],
    );
    answered(&run("can shop/web shop/web", dir.path()), 1, &["denied"]);
    let json = run("can shop/db shop/web -o json", dir.path());
    answered(&json, 1, &["\"pairs\": 1000000"]);
    assert!(json.out.len() < 20_000, "{} bytes", json.out.len());
    // A debug build on a busy machine; before, this was an error, and minutes without it.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    let only = many
        + "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one, namespace: shop}
spec:
  podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: db-7}}
  policyTypes: [Egress]
";
    let dir = manifest(&only);
    let ran = run("can shop/db shop/db:5432", dir.path());
    answered(&ran, 1, &["differs by pod", "shop/db-7 → shop/db-0", "995 more"]);
}

#[test]
fn notes_say_where_a_real_cluster_may_differ() {
    let path = case("services/load-balancer.yaml");
    let address = "note: externalTrafficPolicy: Cluster: for pods behind";
    answered(&run("can shop/db 203.0.113.50:80", &path), 1, &[address]);
    answered(&run("can 198.51.100.7 203.0.113.50:80", &path), 1, &[address]);
    let inside = run("can shop/db 10.96.0.77:80", &path);
    assert!(!inside.out.contains("note:"), "{}", inside.out);
    answered(
        &run("can node/n1 shop/web:8080", &path),
        1,
        &["tunnel address", "a pod always accepts its own node"],
    );
    let open = run("can node/n1 shop/db:1", &path);
    assert!(!open.out.contains("note:"), "{}", open.out);
    let json = run("can shop/db 203.0.113.50:80 -o json", &path);
    answered(&json, 1, &["\"notes\"", "\"code\": \"client-address\""]);
}

/// The candidates for the last of these words.
fn complete(words: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg("__complete").args(words).stdin(Stdio::null()).env("KUBECONFIG", "/nonexistent");
    command.env_remove("KUBERNETES_SERVICE_HOST");
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn names_are_completed_from_manifests() {
    let dir = manifest(SHOP);
    let path = dir.path().to_str().unwrap();
    assert_eq!(complete(&["can", "-f", path, "shop/w"]), ["shop/web", ":4"]);
    assert_eq!(
        complete(&["can", "-f", path, "shop/web", "shop/s"]),
        ["shop/svc/elsewhere", "shop/svc/web", ":4"]
    );
    assert_eq!(complete(&["describe", "-n", "shop", "-f", path, "we"]), ["web", ":4"]);
    assert_eq!(complete(&["explain", &format!("--file={path}"), "-n", "st"]), ["staging", ":4"]);
    assert_eq!(complete(&["connections", "-f", path, "--to", "ns/s"]), ["ns/shop", "ns/staging", ":4"]);
    assert_eq!(complete(&["can", "-f", ""]), [":0"]);
    assert_eq!(complete(&["can", "-f", "/nonexistent", "sh"]), [":4"], "errors are silent");
    assert_eq!(complete(&["can", "sh"]), [":4"], "no cluster");
    assert!(complete(&["ca"])[0].starts_with("can\t"));
}

#[test]
fn completion_scripts_ask_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_palisade")).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("palisade __complete"), "{shell}");
    }
}

#[test]
fn names_of_the_cluster_are_never_names_of_the_outside() {
    let dir = manifest(
        "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: data}
spec: {podSelector: {}}
",
    );
    answered(&run("can shop/web db-0.db.data:5432", dir.path()), 1, &["denied"]);
    refused(&run("can shop/web db-5.db.data:5432", dir.path()), &["db-5"]);
    refused(&run("can shop/web db-0.bd.data:5432", dir.path()), &["bd"]);
    refused(&run("can shop/web data.db:5432", dir.path()), &["did you mean db.data?"]);
    let address = run("can shop/web 10-0-0-7.data.pod:5432", dir.path());
    refused(&address, &["no pod has the address 10.0.0.7"]);
    answered(&run("can shop/web api.github.com:443", dir.path()), 0, &["allowed"]);
}

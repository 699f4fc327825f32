//! The ends of a question as people write them: addresses of services, names, sets and pods that don't exist.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod completion;
mod names;
#[path = "../support/on_path.rs"]
mod on_path;
mod services;
mod sets;

use std::path::{Path, PathBuf};

use on_path::Ran;

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

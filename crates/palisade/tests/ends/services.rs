//! Services and the addresses that stand for them.

use crate::{
    answered, case,
    on_path::{manifest, run},
    refused,
};

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

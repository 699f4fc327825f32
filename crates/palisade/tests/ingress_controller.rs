//! The ingress controller is recognized, and the program says which pods it takes for it.

mod support;

use std::fs;

use support::{palisade, run};

/// Two controllers, and an Ingress of this class to `shop/web`, which admits pods of namespace ingress-nginx only.
fn manifests(class: &str) -> String {
    let controller = |namespace: &str, labels: &str| {
        format!(
            "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: controller, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{{labels}}}}}
  template: {{metadata: {{labels: {{{labels}}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}
---"
        )
    };
    format!(
        "{}{}
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec: {{containers: [{{name: c, image: i, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: in, namespace: shop}}
spec:
  podSelector: {{}}
  ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: ingress-nginx}}}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: shop{class}
  rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]
",
        controller("ingress-nginx", "app.kubernetes.io/name: ingress-nginx, app.kubernetes.io/component: controller"),
        controller("traefik", "app.kubernetes.io/name: traefik"),
    )
}

/// The answer of `connections --from` the controller, and the messages.
fn connections(class: &str) -> (String, String) {
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("m.yaml"), manifests(class)).expect("the file can be written");
    let (code, out, err) = run(palisade("connections -f m.yaml -o csv").current_dir(folder.path()));
    assert_eq!(code, 0, "{err}");
    (out, err)
}

#[test]
fn the_class_says_which_controller_serves() {
    for class in
        ["}\nspec:\n  ingressClassName: nginx", ", annotations: {kubernetes.io/ingress.class: nginx}}\nspec:"]
    {
        let (out, err) = connections(class);
        assert!(
            err.contains(
                "recognized as the ingress controller: ingress-nginx/deployment/controller (labels of ingress-nginx)"
            ),
            "{err}"
        );
        assert!(!err.contains("traefik") && !err.contains("warning"), "{err}");
        assert!(out.contains("{ingress-controller}"), "{out}");
    }
    // The policy denies Traefik.
    let (out, err) = connections("}\nspec:\n  ingressClassName: traefik");
    assert!(
        err.contains("traefik/deployment/controller (labels of Traefik)") && err.contains("policies deny it"),
        "{err}"
    );
    assert!(!out.contains("{ingress-controller}"), "{out}");
}

#[test]
fn a_service_of_type_load_balancer_is_in_front_of_the_controller() {
    let own = manifests("}\nspec:").replace("app.kubernetes.io/name: ", "own: ");
    let service = |namespace: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: lb, namespace: {namespace}}}\n\
             spec: {{type: LoadBalancer, selector: {{own: {namespace}}}, ports: [{{port: 443, targetPort: 8443}}]}}\n"
        )
    };
    let connections = |text: &str| {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("m.yaml"), text).expect("the file can be written");
        run(palisade("connections -f m.yaml -o csv").current_dir(folder.path())).2
    };
    let one = own + &service("ingress-nginx");
    let err = connections(&one);
    assert!(err.contains("ingress-nginx/deployment/controller (behind Service ingress-nginx/lb)"), "{err}");
    // With two, nothing tells which one it is.
    let err = connections(&(one + &service("traefik")));
    assert!(!err.contains("recognized"), "{err}");
}

#[test]
fn a_load_balancer_outside_the_cluster_is_no_pod() {
    let (out, err) = connections("}\nspec:\n  ingressClassName: alb");
    assert!(err.contains("served by a load balancer outside the cluster (class alb)"), "{err}");
    assert!(!out.contains("{ingress-controller}"), "{out}");
}

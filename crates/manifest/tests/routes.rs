//! Ingress, the routes of the Gateway API and OpenShift's Route: their backends, and what makes them unusable.

use palisade_manifest::{Code, Input, LoadOptions, Loaded, Severity, load};

/// Web pods with a named port behind a service with two ports, in `shop`, and the same service in `other`.
const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {selector: {app: web}, ports: [{name: web, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: other, name: web, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: other, name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: by-hand}
spec: {ports: [{port: 80}]}
";

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: edge, name: public}
spec:
  gatewayClassName: any
  listeners:
  - {name: web, protocol: HTTPS, port: 443, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}
  - {name: own, protocol: HTTP, port: 80}
  - {name: shops, protocol: HTTP, port: 8000, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}}
  - {name: raw, protocol: TCP, port: 5432, allowedRoutes: {namespaces: {from: All}}}
  - {name: grpc, protocol: HTTPS, port: 444, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}
";

fn read(documents: &[&str]) -> Loaded {
    let text = documents.join("\n---\n");
    load(&[Input::Text { name: "t.yaml".to_owned(), text }], &LoadOptions::default())
}

/// The backends of the routes, as `Kind ns/name -> ns/service port`.
fn backends(loaded: &Loaded) -> Vec<String> {
    let of = |r: &palisade_names::Route| {
        let (kind, key) = (r.kind.clone(), r.key.clone());
        let to = |b: &palisade_names::RouteBackend| {
            format!("{kind} {key} -> {} {:?} {}", b.service, b.port, b.protocol)
        };
        r.backends.iter().map(to).collect::<Vec<_>>()
    };
    loaded.routes.iter().flat_map(of).collect()
}

/// Asserts that there is one warning, with this code and text.
#[track_caller]
fn assert_warning(loaded: &Loaded, code: Code, words: &str) {
    let [d] = &loaded.diagnostics[..] else { panic!("{:#?}", loaded.diagnostics) };
    assert_eq!((d.severity, d.code), (Severity::Warning, code), "{d}");
    assert!(d.to_string().contains(words), "no {words:?} in {d}");
    assert!(d.origin.is_some(), "{d}");
}

fn ingress(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{namespace: shop, name: i}}\nspec: {spec}\n"
    )
}

fn http_route(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{namespace: shop, name: r}}\nspec: {spec}\n"
    )
}

#[test]
fn an_ingress_has_its_default_backend_and_those_of_all_paths() {
    let text = ingress(
        "{defaultBackend: {service: {name: web, port: {name: admin}}}, rules: [{host: a, http: {paths: \
         [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}, \
          {path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}, \
          {path: /y, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}]}}]}",
    );
    let loaded = read(&[SHOP, &text]);
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    assert_eq!(
        backends(&loaded),
        [
            "Ingress shop/i -> shop/web Service(Number(80)) TCP",
            "Ingress shop/i -> shop/web Service(Name(\"admin\")) TCP"
        ]
    );
}

#[test]
fn missing_backends_are_reported() {
    for (spec, words) in [
        ("{defaultBackend: {service: {name: nope, port: {number: 80}}}}", "there is no service shop/nope"),
        (
            "{defaultBackend: {service: {name: web, port: {number: 8080}}}}",
            "service shop/web has no port 8080/TCP; it has 80/TCP (web), 81/TCP (admin)",
        ),
        (
            "{defaultBackend: {service: {name: web, port: {name: http}}}}",
            "service shop/web has no port http/TCP",
        ),
        (
            "{defaultBackend: {service: {name: by-hand, port: {number: 80}}}}",
            "service shop/by-hand has no selector",
        ),
    ] {
        let loaded = read(&[SHOP, &ingress(spec)]);
        assert_warning(&loaded, Code::NoBackend, words);
        assert!(loaded.diagnostics[0].to_string().contains("Ingress shop/i: spec.defaultBackend"));
        assert_eq!(backends(&loaded), [""; 0], "{spec}");
    }
    let no_pods = "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: empty}\nspec: {selector: {app: none}, ports: [{port: 1}]}";
    let loaded =
        read(&[SHOP, no_pods, &ingress("{defaultBackend: {service: {name: empty, port: {number: 1}}}}")]);
    assert_warning(&loaded, Code::NoBackend, "no running pod in namespace shop matches its selector");
}

#[test]
fn openshift_routes_refer_to_pod_ports() {
    let route = |spec: &str| {
        format!(
            "apiVersion: route.openshift.io/v1\nkind: Route\nmetadata: {{namespace: shop, name: r}}\nspec: {spec}\n"
        )
    };
    for (spec, expected) in [
        ("{to: {kind: Service, name: web}}", vec!["Any"]),
        ("{to: {kind: Service, name: web}, port: {targetPort: web}}", vec!["Target(Name(\"web\"))"]),
        ("{to: {kind: Service, name: web}, port: {targetPort: http}}", vec!["Target(Name(\"http\"))"]),
        ("{to: {kind: Service, name: web}, port: {targetPort: 8080}}", vec!["Target(Number(8080))"]),
        ("{to: {kind: Service, name: web}, port: {targetPort: '9000'}}", vec!["Target(Number(9000))"]),
        (
            "{to: {kind: Service, name: web, weight: 0}, alternateBackends: [{kind: Service, name: web, weight: 5}], port: {targetPort: web}}",
            vec!["Target(Name(\"web\"))"],
        ),
        ("{to: {kind: Service, name: web, weight: 0}}", vec![]),
    ] {
        let loaded = read(&[SHOP, &route(spec)]);
        assert!(loaded.diagnostics.is_empty(), "{spec}: {:#?}", loaded.diagnostics);
        let expected: Vec<_> = expected.iter().map(|p| format!("Route shop/r -> shop/web {p} TCP")).collect();
        assert_eq!(backends(&loaded), expected, "{spec}");
    }
    let loaded = read(&[SHOP, &route("{to: {kind: Service, name: web}, port: {targetPort: 80}}")]);
    assert_warning(&loaded, Code::NoBackend, "service shop/web has no port 80/TCP");
}

#[test]
fn a_route_needs_a_listener_that_accepts_it() {
    let refs = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let to = |parent: &str, rest: &str| http_route(&format!("{{parentRefs: [{parent}], {rest} {refs}}}"));
    for (parent, rest) in [
        ("{namespace: edge, name: public, sectionName: web}", "hostnames: [shop.example.com],"),
        ("{namespace: edge, name: public, sectionName: web}", ""),
        ("{namespace: edge, name: public, sectionName: shops}", "hostnames: [anything.at.all],"),
        ("{namespace: edge, name: public, port: 8000}", ""),
        ("{namespace: edge, name: public}", ""),
    ] {
        let loaded = read(&[SHOP, GATEWAY, &to(parent, rest)]);
        assert!(loaded.diagnostics.is_empty(), "{parent}: {:#?}", loaded.diagnostics);
        assert_eq!(backends(&loaded), ["HTTPRoute shop/r -> shop/web Service(Number(80)) TCP"], "{parent}");
    }
    for (parent, rest, words) in [
        ("{namespace: edge, name: public, sectionName: nope}", "", "it has no listener named `nope`"),
        (
            "{namespace: edge, name: public, sectionName: raw}",
            "",
            "named `raw` accepts routes of kind HTTPRoute",
        ),
        ("{namespace: edge, name: public, sectionName: grpc}", "", "accepts routes of kind HTTPRoute"),
        ("{namespace: edge, name: public, sectionName: own}", "", "accepts routes of namespace shop"),
        (
            "{namespace: edge, name: public, sectionName: web}",
            "hostnames: [example.org],",
            "has one of its hostnames",
        ),
        ("{namespace: edge, name: public, port: 1}", "", "it has no listener on port 1"),
    ] {
        let loaded = read(&[SHOP, GATEWAY, &to(parent, rest)]);
        assert_warning(&loaded, Code::NotAttached, words);
        assert_eq!(backends(&loaded), [""; 0], "{parent}");
    }
    // A missing gateway may exist in the cluster, so the route counts as accepted.
    let loaded = read(&[SHOP, &to("{name: elsewhere}", "")]);
    assert_warning(&loaded, Code::NotAttached, "Gateway shop/elsewhere is not in the manifests");
    assert_eq!(backends(&loaded).len(), 1);
    // A route of a service mesh forwards nothing into the cluster.
    let loaded = read(&[SHOP, &to("{group: '', kind: Service, name: web}", "")]);
    assert_eq!((loaded.diagnostics.len(), backends(&loaded).len()), (0, 0));
    assert_warning(
        &read(&[SHOP, &http_route(&format!("{{{refs}}}"))]),
        Code::NotAttached,
        "has no parentRefs",
    );
}

#[test]
fn services_of_another_namespace_need_a_reference_grant() {
    let route = http_route(
        "{parentRefs: [{namespace: edge, name: public}], rules: [{backendRefs: [{namespace: other, name: web, port: 80}]}]}",
    );
    let grant = |version: &str, kind: &str, namespace: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: ReferenceGrant\nmetadata: {{namespace: other, name: g}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}], to: [{to}]}}\n"
        )
    };
    for granted in [
        grant("v1beta1", "HTTPRoute", "shop", "{group: '', kind: Service}"),
        grant("v1", "HTTPRoute", "shop", "{group: '', kind: Service, name: web}"),
    ] {
        let loaded = read(&[SHOP, GATEWAY, &route, &granted]);
        assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
        assert_eq!(backends(&loaded), ["HTTPRoute shop/r -> other/web Service(Number(80)) TCP"]);
    }
    for refused in [
        String::new(),
        grant("v1beta1", "GRPCRoute", "shop", "{group: '', kind: Service}"),
        grant("v1beta1", "HTTPRoute", "edge", "{group: '', kind: Service}"),
        grant("v1beta1", "HTTPRoute", "shop", "{group: '', kind: Service, name: db}"),
        grant("v1beta1", "HTTPRoute", "shop", "{group: '', kind: Secret}"),
    ] {
        let loaded = read(&[SHOP, GATEWAY, &route, &refused]);
        assert_warning(
            &loaded,
            Code::NoBackend,
            "no ReferenceGrant there lets a HTTPRoute of namespace shop use it",
        );
        assert_eq!(backends(&loaded), [""; 0]);
    }
}

#[test]
fn every_kind_of_route_and_every_backend_of_it_is_read() {
    let route = |version: &str, kind: &str, parent: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{namespace: shop, name: r}}\n\
             spec: {{parentRefs: [{{namespace: edge, name: {parent}}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}\n"
        )
    };
    for (version, kind) in [("v1beta1", "HTTPRoute"), ("v1", "GRPCRoute"), ("v1alpha2", "TCPRoute")] {
        let loaded = read(&[SHOP, GATEWAY, &route(version, kind, "public")]);
        assert!(loaded.diagnostics.is_empty(), "{kind}: {:#?}", loaded.diagnostics);
        assert_eq!(backends(&loaded).len(), 1, "{kind}");
    }
    let udp = read(&[SHOP, &route("v1alpha2", "UDPRoute", "elsewhere")]);
    assert!(udp.diagnostics.iter().any(|d| d.to_string().contains("service shop/web has no port 80/UDP")));
    let all = http_route(
        "{parentRefs: [{namespace: edge, name: public}], rules: [{filters: [{type: RequestMirror, requestMirror: \
         {backendRef: {name: web, port: 81}}}], backendRefs: [{name: web, port: 80, weight: 0}, {group: x.example, kind: Bucket, name: b}]}]}",
    );
    let loaded = read(&[SHOP, GATEWAY, &all]);
    assert_eq!(backends(&loaded), ["HTTPRoute shop/r -> shop/web Service(Number(81)) TCP"]);
}

#[test]
fn unread_versions_are_a_warning() {
    for (version, kind, read_as) in [
        ("extensions/v1beta1", "Ingress", "networking.k8s.io/v1"),
        ("networking.k8s.io/v1beta1", "Ingress", "networking.k8s.io/v1"),
        ("gateway.networking.k8s.io/v9", "HTTPRoute", "gateway.networking.k8s.io/v1"),
    ] {
        let text =
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{anything: [1]}}\n");
        let loaded = read(&[SHOP, &text]);
        assert_warning(&loaded, Code::NotEvaluated, "is not read: its backends are not shown");
        assert_eq!(loaded.diagnostics[0].help.as_deref(), Some(&*format!("use apiVersion: {read_as}")));
    }
}

/// Invalid values are errors with a position or are ignored, and the rest is read.
#[test]
fn invalid_values_do_not_affect_the_rest() {
    for spec in [
        "[]",
        "1",
        "null",
        "{rules: 1}",
        "{rules: [1]}",
        "{rules: [{http: {paths: {}}}]}",
        "{defaultBackend: []}",
        "{defaultBackend: {service: x}}",
        "{defaultBackend: {service: {name: 1}}}",
        "{defaultBackend: {service: {name: web, port: {number: 70000}}}}",
        "{defaultBackend: {service: {name: web, port: {number: -1}}}}",
        "{defaultBackend: {service: {name: web, port: 80}}}",
    ] {
        let loaded = read(&[SHOP, &ingress(spec)]);
        assert_eq!(loaded.cluster.pods.len(), 2, "{spec}");
        assert_eq!(backends(&loaded), [""; 0], "{spec}");
    }
    for spec in [
        "{parentRefs: 1}",
        "{parentRefs: [1]}",
        "{parentRefs: [{name: x}], rules: [{backendRefs: [{name: web, port: x}]}]}",
        "{parentRefs: [{name: x}], hostnames: [1], rules: [{filters: 1}]}",
    ] {
        let loaded = read(&[SHOP, &http_route(spec)]);
        assert!(loaded.has_errors(), "{spec}");
        assert_eq!(backends(&loaded), [""; 0], "{spec}");
    }
}

#[test]
fn the_order_of_documents_does_not_matter() {
    let route = http_route(
        "{parentRefs: [{namespace: edge, name: public}], rules: [{backendRefs: [{name: web, port: 80}, {name: nope, port: 1}]}]}",
    );
    let ingress = ingress("{defaultBackend: {service: {name: web, port: {number: 81}}}}");
    let documents = [SHOP, GATEWAY, &route, &ingress];
    let expected = backends(&read(&documents));
    assert_eq!(expected.len(), 2);
    for by in 1..4 {
        let mut turned = documents;
        turned.rotate_left(by);
        assert_eq!(backends(&read(&turned)), expected);
        turned.reverse();
        assert_eq!(backends(&read(&turned)), expected);
    }
}

//! Recognizes the pods that forward connections for Ingresses and routes.
//!
//! No API says which pods these are. Well-known controllers have well-known labels, which their charts and manifests set, and
//! classes of Ingresses and Gateways that their documentation uses. Any controller is behind a Service that clients outside the
//! cluster may use, on the ports of HTTP or HTTPS.

use std::collections::BTreeSet;

use palisade_policy::{Cluster, Name, ObjectKey, Pod, Protocol, Service};

use crate::{
    routes::Route,
    services::{backends, route_backends},
};

/// A controller that is recognized.
struct KnownController {
    /// The project.
    name: &'static str,
    /// The usual names of its classes.
    classes: &'static [&'static str],
    /// Sets of labels. Its pods have all labels of one of them.
    labels: &'static [&'static [(&'static str, &'static str)]],
}

const NAME: &str = "app.kubernetes.io/name";
const COMPONENT: &str = "app.kubernetes.io/component";

const KNOWN: [KnownController; 14] = [
    KnownController {
        name: "ingress-nginx",
        classes: &["nginx"],
        labels: &[
            &[(NAME, "ingress-nginx"), (COMPONENT, "controller")],
            &[("app", "ingress-nginx")],
            &[("app.kubernetes.io/name", "rke2-ingress-nginx"), (COMPONENT, "controller")],
        ],
    },
    KnownController {
        name: "NGINX Ingress Controller",
        classes: &["nginx"],
        labels: &[&[(NAME, "nginx-ingress")], &[("app", "nginx-ingress")]],
    },
    KnownController {
        name: "NGINX Gateway Fabric",
        classes: &["nginx"],
        labels: &[&[(NAME, "nginx-gateway-fabric")], &[(NAME, "nginx-gateway")]],
    },
    KnownController {
        name: "Traefik",
        classes: &["traefik"],
        labels: &[&[(NAME, "traefik")], &[("app", "traefik")], &[("k8s-app", "traefik-ingress-lb")]],
    },
    KnownController {
        name: "HAProxy",
        classes: &["haproxy"],
        labels: &[
            &[(NAME, "haproxy-ingress")],
            &[(NAME, "kubernetes-ingress")],
            &[("run", "haproxy-ingress")],
        ],
    },
    KnownController {
        name: "Kong",
        classes: &["kong"],
        labels: &[
            &[(NAME, "kong"), (COMPONENT, "app")],
            &[("app", "proxy-kong")],
            &[("app", "ingress-kong")],
        ],
    },
    KnownController {
        name: "Contour",
        classes: &["contour"],
        labels: &[&[(NAME, "contour"), (COMPONENT, "envoy")], &[("app", "envoy")]],
    },
    KnownController {
        name: "Istio",
        classes: &["istio"],
        labels: &[&[("istio", "ingressgateway")], &[("istio", "gateway")], &[("app", "istio-ingress")]],
    },
    KnownController {
        name: "Envoy Gateway",
        classes: &["eg", "envoy-gateway", "envoy"],
        labels: &[&[("app.kubernetes.io/managed-by", "envoy-gateway"), (COMPONENT, "proxy")]],
    },
    KnownController {
        name: "Emissary",
        classes: &["ambassador"],
        labels: &[&[(NAME, "emissary-ingress")], &[("service", "ambassador")]],
    },
    KnownController { name: "APISIX", classes: &["apisix"], labels: &[&[(NAME, "apisix")]] },
    KnownController {
        name: "Skipper",
        classes: &["skipper"],
        labels: &[&[("application", "skipper-ingress")]],
    },
    KnownController {
        name: "the OpenShift router",
        classes: &["openshift-default"],
        labels: &[&[("ingresscontroller.operator.openshift.io/deployment-ingresscontroller", "default")]],
    },
    KnownController {
        name: "Cloudflare Tunnel",
        classes: &["cloudflare-tunnel"],
        labels: &[&[("app", "cloudflared")], &[(NAME, "cloudflared")]],
    },
];

/// Classes whose load balancer is outside the cluster: connections come from outside addresses, not from a pod.
const OUTSIDE: [&str; 7] = [
    "alb",
    "amazon-vpc-lattice",
    "azure-application-gateway",
    "azure-alb-external",
    "gce",
    "gce-internal",
    "gke-l7",
];

/// Pods that are taken for an ingress controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecognizedController {
    /// What tells, such as `labels of Traefik` or `behind Service edge/lb`.
    pub sign: String,
    /// The pods, sorted.
    pub pods: BTreeSet<ObjectKey>,
}

/// Returns the pods among those with a `place` that are known controllers. If classes of the routes say which of
/// several controllers serves them, only these. If there are none, the pods behind the only Service with port 80 or 443 that
/// clients outside the cluster may use and no route forwards to. `O(pods + routes)`.
#[must_use]
pub fn recognized_controllers(
    cluster: &Cluster,
    routes: &[Route],
    place: impl Fn(&Pod) -> bool,
) -> Vec<RecognizedController> {
    let classes: BTreeSet<&Name> = routes.iter().filter_map(|route| route.class.as_ref()).collect();
    let mut found: Vec<(&KnownController, BTreeSet<ObjectKey>)> = Vec::new();
    for pod in cluster.pods.values().filter(|pod| place(pod)) {
        let Some(known) = KNOWN.iter().find(|known| known.is(pod)) else { continue };
        match found.iter_mut().find(|(other, _)| other.name == known.name) {
            Some((_, pods)) => drop(pods.insert(pod.key.clone())),
            None => found.push((known, BTreeSet::from([pod.key.clone()]))),
        }
    }
    let serves = |known: &KnownController| classes.iter().any(|class| known.has_class(class));
    if found.iter().any(|(known, _)| serves(known)) {
        found.retain(|(known, _)| serves(known));
    }
    found.sort_by_key(|(known, _)| known.name);
    if found.is_empty() {
        return behind_service(cluster, routes, place).into_iter().collect();
    }
    let recognized = |(known, pods): (&KnownController, _)| RecognizedController {
        sign: format!("labels of {}", known.name),
        pods,
    };
    found.into_iter().map(recognized).collect()
}

/// Returns the pods behind the only Service that may be that of a controller.
fn behind_service(
    cluster: &Cluster,
    routes: &[Route],
    place: impl Fn(&Pod) -> bool,
) -> Option<RecognizedController> {
    let is_web = |service: &Service| {
        let mut ports = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        ports.any(|port| matches!(port.port, 80 | 443))
    };
    let routed: BTreeSet<&ObjectKey> = routes
        .iter()
        .flat_map(|route| &route.backends)
        .flat_map(|backend| route_backends(cluster, backend).into_iter().flatten())
        .map(|backend| &backend.pod.key)
        .collect();
    let pods = |service: &Service| -> BTreeSet<ObjectKey> {
        let backends = backends(cluster, service, None, None).into_iter().flatten();
        backends.filter(|backend| place(backend.pod)).map(|backend| backend.pod.key.clone()).collect()
    };
    let exposed = cluster.services.values().filter(|s| s.access.exposed && s.selector.is_some() && is_web(s));
    let mut candidates = exposed
        .map(|service| (service, pods(service)))
        .filter(|(_, pods)| !pods.is_empty() && pods.iter().all(|pod| !routed.contains(pod)));
    let (service, pods) = candidates.next()?;
    let is_only = candidates.all(|(_, others)| others == pods);
    is_only.then(|| RecognizedController { sign: format!("behind Service {}", service.key), pods })
}

/// Returns whether connections for routes of this class come from outside the cluster, such as those of a cloud's load
/// balancer, and not from a pod.
#[must_use]
pub fn is_served_from_outside(class: &str) -> bool {
    OUTSIDE.contains(&class) || class.starts_with("gke-l7-")
}

impl KnownController {
    fn is(&self, pod: &Pod) -> bool {
        let has = |(key, value): &(&str, &str)| pod.labels.get(key) == Some(*value);
        self.labels.iter().any(|all| all.iter().all(has))
    }

    /// Returns whether a class is one of its own: by its usual name, or by a name derived from it, such as
    /// `nginx-internal`.
    fn has_class(&self, class: &str) -> bool {
        self.classes.iter().any(|own| {
            class == *own
                || class.strip_prefix(own).is_some_and(|rest| rest.starts_with('-'))
                || class.strip_suffix(own).is_some_and(|rest| rest.ends_with('-'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usual_dns_server;

    fn pod(name: &str, labels: &[(&str, &str)]) -> Pod {
        let labels = labels.iter().map(|(k, v)| (Name::from(*k), Name::from(*v))).collect();
        Pod { key: ObjectKey::new("edge", name), labels, ..usual_dns_server() }
    }

    fn found(pods: &[Pod], class: Option<&str>) -> Vec<String> {
        let cluster = Cluster { pods: pods.iter().cloned().collect(), ..Cluster::default() };
        let route = Route {
            kind: "Ingress".into(),
            key: ObjectKey::new("shop", "web"),
            class: class.map(Into::into),
            backends: Vec::new(),
            origin: None,
        };
        let names = recognized_controllers(&cluster, &[route], |_| true);
        let name = |c: &RecognizedController| c.sign.trim_start_matches("labels of ").to_owned();
        names.iter().flat_map(|c| c.pods.iter().map(move |p| format!("{}: {}", name(c), p.name))).collect()
    }

    #[test]
    fn controllers_are_recognized_by_labels_and_chosen_by_class() {
        let nginx = pod("nginx", &[(NAME, "ingress-nginx"), (COMPONENT, "controller")]);
        let backend = pod("backend", &[(NAME, "ingress-nginx"), (COMPONENT, "default-backend")]);
        let traefik = pod("traefik", &[(NAME, "traefik")]);
        let web = pod("web", &[("app", "web")]);
        let all = [nginx, backend, traefik, web];
        assert_eq!(found(&all, Some("nginx-internal")), ["ingress-nginx: nginx"]);
        assert_eq!(found(&all, Some("traefik")), ["Traefik: traefik"]);
        assert_eq!(found(&all, None), ["Traefik: traefik", "ingress-nginx: nginx"]);
        assert_eq!(found(&all, Some("own")), ["Traefik: traefik", "ingress-nginx: nginx"]);
        assert!(found(&all[3..], Some("nginx")).is_empty());
    }

    #[test]
    fn load_balancers_of_clouds_are_outside() {
        for class in ["alb", "gce", "gke-l7-global-external-managed"] {
            assert!(is_served_from_outside(class), "{class}");
        }
        assert!(!is_served_from_outside("nginx"));
    }
}

//! `controller-not-allowed`: finds routes whose ingress controller policies keep from the backend.

use std::collections::HashSet;

use crate::admits::{Other, allowed, is_isolated, isolating, may_admit_others};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_names::{Backend, is_served_from_outside, recognized_controllers, route_backends};
use palisade_policy::{Direction, Pod, Policy, PortSet, Traffic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL050",
    name: "controller-not-allowed",
    level: Level::Warning,
    what: "Finds Ingresses and routes whose controller can't reach the backend because of policies.",
    why: "The controller connects to the pods behind the route as any other pod does, so its own policies and those of these pods must allow it on the port of the pod. If they don't, clients get an error of the gateway. Controllers are recognized by their labels. If none is in the input, it is a note, where no rule allows the port to anything outside the namespace.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

macro_rules! route {
    () => {
        "\
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: v1
kind: Pod
metadata:
  name: controller
  namespace: edge
  labels: {app.kubernetes.io/name: ingress-nginx, app.kubernetes.io/component: controller}
spec:
  containers: [{name: main, image: example}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
"
    };
}

const BAD: &str = concat!(
    shop!(),
    route!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {}
"#
);

const GOOD: &str = concat!(
    shop!(),
    route!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: edge
      podSelector:
        matchLabels:
          app.kubernetes.io/name: ingress-nginx
"#
);

/// How many pods of controllers are tried for each backend.
const MOST_CONTROLLERS: usize = 20;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let cluster = &cx.loaded.cluster;
    if cx.loaded.routes.iter().all(|route| route.backends.is_empty()) {
        return Vec::new();
    }
    let recognized = recognized_controllers(cluster, &cx.loaded.routes, |_| true);
    let keys = recognized.iter().flat_map(|controller| &controller.pods).take(MOST_CONTROLLERS);
    let controllers: Vec<&Pod> = keys.filter_map(|key| cluster.pods.get(key)).collect();
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    let served = cx.loaded.routes.iter().filter(|r| !r.class.as_deref().is_some_and(is_served_from_outside));
    for (route, backend) in served.flat_map(|route| route.backends.iter().map(move |b| (route, b))) {
        let mut tried = HashSet::new();
        for at in route_backends(cluster, backend).into_iter().flatten() {
            let Some(class) =
                cx.class_of(at.pod).filter(|class| tried.insert((std::ptr::from_ref(*class), at.port)))
            else {
                continue;
            };
            if let Some((controller, policy)) = kept_in(cx, &controllers, &at)
                && shown.insert((&policy.key, &route.kind, &route.key))
            {
                let message = format!(
                    "no rule allows the ingress controller {} to connect to {} {} of {}, where {} {} leads",
                    controller.key, at.protocol, at.port, at.pod.key, route.kind, route.key
                );
                out.push(Found::of(&policy.key, policy.origin.as_ref(), message));
            }
            let profile = cx.profile(class);
            if !is_isolated(cx, &profile, Direction::Ingress) {
                continue;
            }
            let traffic = Traffic::of(at.protocol, PortSet::range(at.port, at.port));
            let admits = |controller: &&Pod| {
                let other = Other::of(cx, controller);
                allowed(cx, &profile, Direction::Ingress, other, Some(at.pod)).contains(at.protocol, at.port)
            };
            let (level, who) = match controllers.first() {
                None if may_admit_others(cx, class, at.pod, &traffic) => continue,
                None => (Level::Note, "an ingress controller in another namespace".to_owned()),
                Some(_) if controllers.iter().any(admits) => continue,
                // From its own node, a pod in the host network is always allowed.
                Some(first) if first.host_network => {
                    (Level::Note, format!("the ingress controller {}", first.key))
                }
                Some(first) => (Level::Warning, format!("the ingress controller {}", first.key)),
            };
            let Some(policy) = isolating(cx, &profile, Direction::Ingress).next() else { continue };
            if shown.insert((&policy.key, &route.kind, &route.key)) {
                let message = format!(
                    "no rule allows {who} to connect to {} {}, where {} {} leads",
                    at.protocol, at.port, route.kind, route.key
                );
                out.push(Found::of(&policy.key, policy.origin.as_ref(), message).at_level(level));
            }
        }
    }
    out
}

/// Returns the first controller and a NetworkPolicy that isolates it, if the policies of every controller keep it from a
/// backend.
fn kept_in<'a>(cx: &Context<'a>, controllers: &[&'a Pod], at: &Backend<'_>) -> Option<(&'a Pod, &'a Policy)> {
    let mut first = None;
    for controller in controllers {
        // Policies don't apply to a controller in the host network.
        let profile = cx.profile(cx.class_of(controller)?);
        let policy = isolating(cx, &profile, Direction::Egress).next()?;
        let traffic = allowed(cx, &profile, Direction::Egress, Other::of(cx, at.pod), Some(at.pod));
        if traffic.contains(at.protocol, at.port) {
            return None;
        }
        first.get_or_insert((*controller, policy));
    }
    first
}

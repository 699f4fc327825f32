//! `webhook-blocked`: finds webhooks and aggregated APIs that policies keep from the API server.

use std::collections::HashSet;

use crate::admits::{Other, allowed, is_isolated, isolating};
use crate::needed::{Needed, needed};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::CallTarget;
use palisade_policy::{Direction, Labels, NAMESPACE_NAME_LABEL, Protocol};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL063",
    name: "webhook-blocked",
    level: Level::Warning,
    what: "Finds admission and conversion webhooks (webhook-blocked) and aggregated APIs (apiservice-blocked) that policies keep from the API server.",
    why: "The API server connects to the pod's port, not to that of the Service, from an address of the control plane, which no pod selector matches. Where it may not, requests that the webhook has to see fail, and the aggregated API is unavailable. An ipBlock of any addresses counts as allowing it, since the address is not known, and so do pods in kube-system, through which some providers tunnel. The objects are read from files only.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

macro_rules! webhook {
    () => {
        "\
apiVersion: v1
kind: Service
metadata: {name: hook, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 443, targetPort: 8080}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: orders}
webhooks:
- name: orders.example.org
  clientConfig: {service: {namespace: shop, name: hook}}
---
"
    };
}

const BAD: &str = concat!(
    shop!(),
    webhook!(),
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
    webhook!(),
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
  - from:
    - ipBlock: {cidr: 192.0.2.0/28}
    ports:
    - port: 8080
      protocol: TCP
"#
);

/// Where agents run through which the API servers of some providers connect: Konnectivity.
const TUNNEL: (&str, (&str, &str)) = ("kube-system", ("k8s-app", "konnectivity-agent"));

fn check(cx: &Context<'_>) -> Vec<Found> {
    let (namespace, label) = TUNNEL;
    let own = [(NAMESPACE_NAME_LABEL, namespace)].into_iter().collect::<Labels>();
    let namespace_labels = cx.loaded.cluster.namespaces.get(namespace).map_or(&own, |n| &n.labels);
    let labels = [label].into_iter().collect::<Labels>();
    let tunnel =
        Other::Pod { namespace, namespace_labels: Some(namespace_labels), labels: &labels, address: None };
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    for one in needed(cx, |target| matches!(target, CallTarget::Service { .. })) {
        let Needed { class, pod, port, .. } = one;
        let profile = cx.profile(class);
        let admits =
            |other| allowed(cx, &profile, Direction::Ingress, other, Some(pod)).contains(Protocol::Tcp, port);
        if !is_isolated(cx, &profile, Direction::Ingress) || admits(Other::Address(None)) || admits(tunnel) {
            continue;
        }
        let object = one.object();
        if let Some(policy) = isolating(cx, &profile, Direction::Ingress).next()
            && shown.insert((&policy.key, object.clone()))
        {
            let message = format!("the API server can't connect to TCP {port}, which {object} asks for");
            out.push(Found::of(&policy.key, policy.origin.as_ref(), message));
        }
    }
    out
}

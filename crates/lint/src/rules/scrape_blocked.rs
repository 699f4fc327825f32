//! `scrape-blocked`: finds metrics that monitors ask for and policies deny.

use std::collections::HashSet;

use crate::admits::{Other, allowed, is_isolated, isolating, may_admit_others};
use crate::needed::{Needed, needed};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::CallTarget;
use palisade_names::is_scraper;
use palisade_policy::{Direction, Pod, Protocol};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL064",
    name: "scrape-blocked",
    level: Level::Warning,
    what: "Finds ports that a ServiceMonitor or PodMonitor asks for and policies deny to Prometheus.",
    why: "Prometheus connects to the port of the pod as any other pod does. Where it may not, the metrics are missing. Prometheus is recognized by its labels. Its operator makes the pods, so often none is in the input; then it is a note, where no rule allows the port to anything outside the namespace. The objects are read from files only.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

macro_rules! monitor {
    () => {
        "\
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: monitoring, labels: {app.kubernetes.io/name: prometheus}}
spec:
  containers: [{name: main, image: example}]
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  podMetricsEndpoints: [{port: http}]
---
"
    };
}

const BAD: &str = concat!(
    shop!(),
    monitor!(),
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
    monitor!(),
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
          kubernetes.io/metadata.name: monitoring
      podSelector:
        matchLabels:
          app.kubernetes.io/name: prometheus
"#
);

/// How many pods that scrape are tried.
const MOST_SCRAPERS: usize = 20;

fn check(cx: &Context<'_>) -> Vec<Found> {
    if cx.loaded.callers.is_empty() {
        return Vec::new();
    }
    let classes = cx.all_classes().map(|class| class.pods[0]);
    let scrapers: Vec<&Pod> = classes.filter(|pod| is_scraper(pod)).take(MOST_SCRAPERS).collect();
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    for one in needed(cx, |target| !matches!(target, CallTarget::Service { .. })) {
        let Needed { class, pod, port, .. } = one;
        let profile = cx.profile(class);
        if !is_isolated(cx, &profile, Direction::Ingress) {
            continue;
        }
        let admits = |scraper: &&Pod| {
            let other = Other::of(cx, scraper);
            allowed(cx, &profile, Direction::Ingress, other, Some(pod)).contains(Protocol::Tcp, port)
        };
        let (level, who) = match scrapers.first() {
            None if may_admit_others(cx, class, pod, &one.traffic()) => continue,
            None => (Level::Note, "Prometheus in another namespace".to_owned()),
            Some(_) if scrapers.iter().any(admits) => continue,
            Some(first) => (Level::Warning, format!("Prometheus ({})", first.key)),
        };
        let object = one.object();
        if let Some(policy) = isolating(cx, &profile, Direction::Ingress).next()
            && shown.insert((&policy.key, object.clone()))
        {
            let message = format!("no rule allows {who} to connect to TCP {port}, which {object} asks for");
            out.push(Found::of(&policy.key, policy.origin.as_ref(), message).at_level(level));
        }
    }
    out
}

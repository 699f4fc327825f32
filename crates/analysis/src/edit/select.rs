//! Selectors for the pods of a workload, made of labels that stay.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{
    Cluster, Labels, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, ObjectKey, Origin, Peer, Phase, Pod,
    PodMatch, Selector, Workload,
};

/// What the manifest of a workload declares about labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredLabels {
    /// The workload's `spec.selector`; matches everything if there is none.
    pub selector: Selector,
    /// The labels of the workload object itself, which policies never match.
    pub object: Labels,
    /// The labels of its pod template.
    pub template: Labels,
    /// Where the pod template, or else the object, begins.
    pub origin: Option<Origin>,
}

/// The declared labels of workloads, by namespace.
pub type DeclaredWorkloads = BTreeMap<(Name, Workload), DeclaredLabels>;

/// Labels that a controller sets for each generation or replica, so that policies should not select them.
const EPHEMERAL: [&str; 8] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
];

/// Labels that people and tools change with a release, or that a Job gets anew for each run.
const VOLATILE: [&str; 9] = [
    "version",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "chart",
    "heritage",
    "rollouts-pod-template-hash",
    "job-name",
    "batch.kubernetes.io/job-name",
];

/// Labels that name an application, or a part of it.
const IDENTITY: [&str; 8] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app",
    "k8s-app",
    "name",
    "component",
    "tier",
];

/// Finds selectors.
#[derive(Clone, Copy)]
pub(crate) struct Selectors<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) workloads: &'a DeclaredWorkloads,
}

impl Selectors<'_> {
    /// Returns a selector that matches these pods of one namespace, and as few others of it as labels can. The
    /// workload's own selector is preferred, then labels that name an application, then all labels that stay.
    pub(crate) fn of(&self, pods: &BTreeSet<ObjectKey>) -> Selector {
        let found: Vec<&Pod> = pods.iter().filter_map(|key| self.cluster.pods.get(key)).collect();
        let Some(first) = found.first() else { return Selector::everything() };
        let shared = first.labels.project(|key| {
            found.iter().all(|p| p.labels.get(key) == first.labels.get(key)) && !EPHEMERAL.contains(&key)
        });
        let of = |labels: Labels| Selector::of_labels(labels.iter().map(|(k, v)| (&**k, &**v)));
        let candidates = [
            self.declared(first).unwrap_or_default(),
            of(shared.project(|key| IDENTITY.contains(&key))),
            of(shared.project(|key| !VOLATILE.contains(&key))),
            of(shared),
        ];
        let fits = |s: &Selector| !s.is_everything() && found.iter().all(|p| s.matches(&p.labels));
        let others = |selector: &Selector| {
            let lives = |p: &&Pod| !matches!(p.phase, Phase::Succeeded | Phase::Failed);
            let same = self.cluster.pods.in_namespace(&first.key.namespace).filter(lives);
            same.filter(|p| selector.matches(&p.labels) && !pods.contains(&p.key)).count()
        };
        let best = candidates.into_iter().filter(fits).min_by_key(others);
        best.unwrap_or_default()
    }

    fn declared(&self, pod: &Pod) -> Option<Selector> {
        let workload = pod.workload.clone()?;
        let declared = self.workloads.get(&(pod.key.namespace.clone(), workload))?;
        Some(declared.selector.clone())
    }

    /// Returns pods of one namespace as a peer, or as the subject, of a policy in the namespace `home`, which is empty for
    /// a cluster-wide policy.
    pub(crate) fn pods(&self, pods: &BTreeSet<ObjectKey>, home: &str) -> Option<PodMatch> {
        let own = &pods.first()?.namespace;
        let namespaces = if **own == *home {
            NamespaceMatch::Named(own.clone())
        } else {
            NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, &**own)]))
        };
        Some(PodMatch { namespaces, pods: self.of(pods) })
    }
}

/// Returns the labels that are not those of a generation or a replica.
pub(crate) fn stable_labels(labels: &Labels) -> Labels {
    labels.project(|key| !EPHEMERAL.contains(&key))
}

/// Returns a peer for pods of one namespace, in a policy of the namespace `home`.
pub(crate) fn peer_for(
    cluster: &Cluster,
    workloads: &DeclaredWorkloads,
    pods: &BTreeSet<ObjectKey>,
    home: &str,
) -> Option<Peer> {
    Selectors { cluster, workloads }.pods(pods, home).map(Peer::Pods)
}

#[cfg(test)]
mod tests {
    use palisade_testkit::running_pod;

    use super::*;

    fn selector(own: &[(&str, &str)], others: &[&[(&str, &str)]], declared: &[(&str, &str)]) -> String {
        let mut cluster = Cluster::default();
        let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        let workload = Workload { kind: "Deployment".into(), name: "web".into() };
        let web =
            Pod { labels: labels(own), workload: Some(workload.clone()), ..running_pod("shop", "web-0") };
        let key = web.key.clone();
        cluster.pods.insert(web);
        for (i, other) in others.iter().enumerate() {
            cluster.pods.insert(Pod { labels: labels(other), ..running_pod("shop", &format!("other-{i}")) });
        }
        let declared = DeclaredLabels {
            selector: Selector::of_labels(declared.iter().copied()),
            ..DeclaredLabels::default()
        };
        let workloads = DeclaredWorkloads::from([(("shop".into(), workload), declared)]);
        Selectors { cluster: &cluster, workloads: &workloads }.of(&BTreeSet::from([key])).to_string()
    }

    #[test]
    fn the_selector_of_the_workload_is_preferred() {
        let own = [("app", "web"), ("tier", "front"), ("helm.sh/chart", "web-1.2.3"), ("version", "v42")];
        assert_eq!(selector(&own, &[], &[("tier", "front")]), "tier=front");
        assert_eq!(selector(&own, &[], &[]), "app=web,tier=front");
    }

    #[test]
    fn more_labels_are_taken_only_if_they_tell_pods_apart() {
        let own = [("app", "web"), ("track", "stable"), ("version", "1")];
        let canary: &[(&str, &str)] = &[("app", "web"), ("track", "canary"), ("version", "2")];
        assert_eq!(selector(&own, &[], &[("app", "web")]), "app=web");
        assert_eq!(selector(&own, &[canary], &[("app", "web")]), "app=web,track=stable");
        let release: &[(&str, &str)] = &[("app", "web"), ("track", "stable"), ("version", "2")];
        assert_eq!(selector(&own, &[release], &[]), "app=web,track=stable,version=1", "nothing else differs");
        assert_eq!(selector(&[("pod-template-hash", "5d")], &[], &[]), "{}");
    }
}

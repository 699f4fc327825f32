//! Reports pods that are closed because their policies exceed the node's budget: log, metric, and an Event for each policy.

use std::collections::{BTreeMap, BTreeSet};

use palisade_api::{ObjectRef, Reporter, ResourceKind};
use palisade_policy::{Direction, Limit, Name, ObjectKey, OverBudget, PolicyKey};

use super::error_log::ErrorLog;
use crate::{Reconciler, metrics::Metrics};

/// The most policies that are logged and get an Event: a tenant may have many.
const MAX_POLICIES: usize = 20;

/// The limit that policies exceed, and the pods that are closed, by the largest policy and direction.
type ByPolicy = BTreeMap<(PolicyKey, Direction), (Limit, BTreeSet<ObjectKey>)>;

/// What was reported last.
#[derive(Debug, Default)]
pub(super) struct OverBudgetReports {
    /// The value of [`Reconciler::over_budget_changes`].
    version: Option<u64>,
    policies: ByPolicy,
}

impl OverBudgetReports {
    /// Reports what has changed. `O(1)` if nothing has.
    pub(super) fn update(
        &mut self,
        node: &Name,
        reconciler: &Reconciler,
        metrics: &Metrics,
        reporter: Option<&Reporter>,
        errors: &mut ErrorLog,
    ) {
        let version = Some(reconciler.over_budget_changes());
        if self.version == version {
            return;
        }
        self.version = version;
        let over = reconciler.over_budget();
        for direction in Direction::BOTH {
            let count = over.iter().filter(|o| o.direction == direction).count();
            metrics.over_budget_pods.get_or_create(&direction.into()).set(count as i64);
        }
        let policies = by_policy(over);
        if self.policies == policies {
            return;
        }
        for ((policy, direction), (limit, pods)) in policies.iter().take(MAX_POLICIES) {
            let known = self.policies.get(&(policy.clone(), *direction));
            if known.is_some_and(|(before, closed)| before == limit && closed.len() == pods.len()) {
                continue;
            }
            let (count, pod) = (pods.len(), pods.first().map(ToString::to_string).unwrap_or_default());
            tracing::error!(
                %policy, %direction, pods = count, pod, %limit,
                "closed pods whose policies exceed the node's budget"
            );
            errors.record(
                "budget",
                format!("{policy}: {count} pods closed for {direction}, because their policies have {limit}"),
            );
        }
        if policies.len() > MAX_POLICIES {
            let policies = policies.len() - MAX_POLICIES;
            tracing::error!(policies, "closed pods of further policies that exceed the node's budget");
        }
        if policies.is_empty() {
            tracing::info!("all policies are within the node's budget again");
        }
        if let Some(reporter) = reporter {
            reporter.over_budget(event_notes(node, &policies));
        }
        self.policies = policies;
    }
}

fn by_policy(over: Vec<OverBudget>) -> ByPolicy {
    let mut out = ByPolicy::new();
    for OverBudget { direction, pod, limit, largest, address: _ } in over {
        let Some(policy) = largest else { continue };
        out.entry((policy, direction)).or_insert_with(|| (limit, BTreeSet::new())).1.insert(pod);
    }
    out
}

/// The notes of the Events, one for each policy.
fn event_notes(node: &Name, policies: &ByPolicy) -> Vec<(ObjectRef, String)> {
    let mut out: BTreeMap<&PolicyKey, String> = BTreeMap::new();
    for ((policy, direction), (limit, pods)) in policies {
        let note = out.entry(policy).or_default();
        let separator = if note.is_empty() { "" } else { "; " };
        let count = pods.len();
        note.push_str(&format!(
            "{separator}{count} pods on node {node} are closed for {direction}, because the policies that select them have {limit}"
        ));
    }
    for note in out.values_mut() {
        note.push_str(
            ". Make this policy smaller, or split it so that fewer of its rules select the same pods",
        );
    }
    let object = |policy: &PolicyKey| {
        Some(ObjectRef {
            kind: ResourceKind::from_name(&policy.kind)?,
            namespace: Some(policy.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: policy.name.clone(),
            uid: "".into(),
            generation: 0,
        })
    };
    out.into_iter().take(MAX_POLICIES).filter_map(|(policy, note)| Some((object(policy)?, note))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use palisade_policy::{Change, Cluster, Labels, Pod};
    use palisade_testkit::hostile;

    use super::*;
    use crate::Input;

    fn value(metrics: &Metrics, direction: Direction) -> i64 {
        metrics.over_budget_pods.get_or_create(&direction.into()).get()
    }

    #[test]
    fn closed_pods_and_the_policy_at_fault_are_reported_once_and_withdrawn() {
        let pod = Pod {
            node: Some("n1".into()),
            ..Pod::new(ObjectKey::new("shop", "web"), Labels::default(), vec!["10.0.0.1".parse().unwrap()])
        };
        let metrics = Arc::new(Metrics::new("1", "n1"));
        let (mut reports, mut errors) = (OverBudgetReports::default(), ErrorLog::new(Arc::clone(&metrics)));
        let mut reconciler = Reconciler::new("n1".into());
        let now = std::time::Duration::ZERO;
        reconciler.handle(Input::Snapshot(Cluster::default()), now);
        let node: Name = "n1".into();
        let hostile = hostile::excepts(&pod, 3_200);
        let key = hostile.key.clone();
        reconciler
            .handle(Input::Changes(vec![Change::SetPod(pod), Change::SetPolicy(Arc::new(hostile))]), now);
        reports.update(&node, &reconciler, &metrics, None, &mut errors);
        assert_eq!((value(&metrics, Direction::Ingress), value(&metrics, Direction::Egress)), (1, 0));
        let notes = event_notes(&node, &reports.policies);
        assert_eq!((&*notes[0].0.name, notes[0].0.kind), (&*key.name, ResourceKind::NetworkPolicy));
        assert!(
            notes[0].1.starts_with("1 pods on node n1 are closed for ingress, because "),
            "{}",
            notes[0].1
        );
        reports.update(&node, &reconciler, &metrics, None, &mut errors);
        assert_eq!(errors.errors().events.len(), 1, "reported once");
        reconciler.handle(Input::Changes(vec![Change::RemovePolicy(key)]), now);
        reports.update(&node, &reconciler, &metrics, None, &mut errors);
        assert_eq!(value(&metrics, Direction::Ingress), 0);
        assert!(reports.policies.is_empty());
    }
}

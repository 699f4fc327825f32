//! Reports pods that are closed because their policies exceed the node's budget: log, metric, and an Event about
//! each policy.

use std::collections::{BTreeMap, BTreeSet};

use palisade_api::{Kind, ObjectRef, Reporter};
use palisade_policy::{Direction, Limit, Name, ObjectKey, OverBudget, PolicyKey};

use super::ledger::Ledger;
use crate::{Reconciler, metrics::Metrics};

/// So many policies are named; a tenant may have many.
const NAMED: usize = 20;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    changes: Option<u64>,
    policies: BTreeMap<(PolicyKey, Direction), (Limit, BTreeSet<ObjectKey>)>,
}

impl Told {
    /// Tells what has changed. `O(1)` where nothing has.
    pub(super) fn settle(
        &mut self,
        node: &Name,
        reconciler: &Reconciler,
        metrics: &Metrics,
        reporter: Option<&Reporter>,
        ledger: &mut Ledger,
    ) {
        let changes = Some(reconciler.over_budget_changes());
        if self.changes == changes {
            return;
        }
        self.changes = changes;
        let over = reconciler.over_budget();
        for direction in Direction::BOTH {
            let count = over.iter().filter(|o| o.direction == direction).count();
            metrics.over_budget_pods.get_or_create(&direction.into()).set(count as i64);
        }
        let policies = by_policy(over);
        if self.policies == policies {
            return;
        }
        for ((policy, direction), (limit, pods)) in policies.iter().take(NAMED) {
            let known = self.policies.get(&(policy.clone(), *direction));
            if known.is_some_and(|(before, closed)| before == limit && closed.len() == pods.len()) {
                continue;
            }
            let (count, first) = (pods.len(), pods.first().map(ToString::to_string).unwrap_or_default());
            tracing::error!(
                %policy, %direction, pods = count, first,
                "the pods are closed: their policies have {limit}; make this policy smaller"
            );
            ledger.error(
                "budget",
                format!("{policy}: pods closed for {direction}: {count}, as their policies have {limit}"),
            );
        }
        if policies.len() > NAMED {
            tracing::error!(more = policies.len() - NAMED, "and so are pods of more policies");
        }
        if policies.is_empty() {
            tracing::info!("no pod is over budget any more");
        }
        if let Some(reporter) = reporter {
            reporter.over_budget(notes(node, &policies));
        }
        self.policies = policies;
    }
}

fn by_policy(over: Vec<OverBudget>) -> BTreeMap<(PolicyKey, Direction), (Limit, BTreeSet<ObjectKey>)> {
    let mut out: BTreeMap<_, (Limit, BTreeSet<ObjectKey>)> = BTreeMap::new();
    for OverBudget { direction, pod, limit, largest, address: _ } in over {
        let Some(policy) = largest else { continue };
        out.entry((policy, direction)).or_insert_with(|| (limit, BTreeSet::new())).1.insert(pod);
    }
    out
}

/// What Events say, one for each policy.
fn notes(
    node: &Name,
    policies: &BTreeMap<(PolicyKey, Direction), (Limit, BTreeSet<ObjectKey>)>,
) -> Vec<(ObjectRef, String)> {
    let mut out: BTreeMap<&PolicyKey, String> = BTreeMap::new();
    for ((policy, direction), (limit, pods)) in policies {
        let note = out.entry(policy).or_default();
        let and = if note.is_empty() { "" } else { "; " };
        let count = pods.len();
        note.push_str(&format!(
            "{and}pods closed for {direction} on node {node}: {count}, as the policies that select them have {limit}"
        ));
    }
    for note in out.values_mut() {
        note.push_str(
            ". Make this policy smaller, or split it so that fewer of its rules select the same pods",
        );
    }
    let object = |policy: &PolicyKey| {
        Some(ObjectRef {
            kind: Kind::ALL.into_iter().find(|kind| kind.as_str() == &*policy.kind)?,
            namespace: Some(policy.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: policy.name.clone(),
            uid: "".into(),
            generation: 0,
        })
    };
    out.into_iter().take(NAMED).filter_map(|(policy, note)| Some((object(policy)?, note))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use palisade_policy::{Change, Cluster, Labels, Phase, Pod};
    use palisade_testkit::hostile;

    use super::*;
    use crate::Input;

    fn value(metrics: &Metrics, direction: Direction) -> i64 {
        metrics.over_budget_pods.get_or_create(&direction.into()).get()
    }

    #[test]
    fn who_is_closed_and_by_which_policy_is_told_once_and_taken_back() {
        let pod = Pod {
            key: ObjectKey::new("shop", "web"),
            labels: Labels::default(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: Some("n1".into()),
            host_network: false,
            phase: Phase::Running,
            ports: Arc::from([]),
            created: 0,
            workload: None,
        };
        let metrics = Arc::new(Metrics::new("1", "n1"));
        let (mut told, mut ledger) = (Told::default(), Ledger::new(Arc::clone(&metrics)));
        let mut reconciler = Reconciler::new("n1".into());
        let now = std::time::Duration::ZERO;
        reconciler.handle(Input::Snapshot(Cluster::default()), now);
        let node: Name = "n1".into();
        let hostile = hostile::excepts(&pod, 3_200);
        let key = hostile.key.clone();
        reconciler
            .handle(Input::Changes(vec![Change::SetPod(pod), Change::SetPolicy(Arc::new(hostile))]), now);
        told.settle(&node, &reconciler, &metrics, None, &mut ledger);
        assert_eq!((value(&metrics, Direction::Ingress), value(&metrics, Direction::Egress)), (1, 0));
        let notes = notes(&node, &told.policies);
        assert_eq!((&*notes[0].0.name, notes[0].0.kind), (&*key.name, Kind::NetworkPolicy));
        assert!(notes[0].1.starts_with("pods closed for ingress on node n1: 1, as "), "{}", notes[0].1);
        told.settle(&node, &reconciler, &metrics, None, &mut ledger);
        assert_eq!(ledger.errors().events.len(), 1, "told once");
        reconciler.handle(Input::Changes(vec![Change::RemovePolicy(key)]), now);
        told.settle(&node, &reconciler, &metrics, None, &mut ledger);
        assert_eq!(value(&metrics, Direction::Ingress), 0);
        assert!(told.policies.is_empty());
    }
}

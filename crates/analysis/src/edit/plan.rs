//! Combines edits until a question has the requested verdict, and sorts what was found.

use palisade_policy::{Cluster, Direction, PolicyKey, Verdict};

use super::{
    action::Edit,
    allow::{candidates, is_dedicated},
    apply::{applied, applied_all},
    effect::{Effect, Effects, one_direction},
    gap::{self, Gap},
    question::{Asked, Question},
    select::{DeclaredWorkloads, Selectors},
};

/// Edits that together give a question the requested verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The edits, in order.
    pub edits: Vec<Edit>,
    /// Whether the first edit corrects a mistake, rather than adding something.
    pub mends: bool,
    /// What else changes.
    pub effect: Effect,
}

impl Plan {
    /// Returns whether nothing else changes that should not. What a correction closes was not meant to be open.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.effect.opens.is_empty() && (self.mends || self.effect.closes.is_empty())
    }
}

/// The most gaps that one plan closes: more workloads than that behind one name are left to separate questions.
const MAX_GAPS: usize = 16;

/// The most edits that are compared for one gap, and the most plans that are returned.
const MAX_CANDIDATES: usize = 10;
const MAX_PLANS: usize = 4;

/// Returns plans that allow everything that a question asks about, the best first: one that changes nothing else, or
/// else changes least, then one that corrects a mistake, then the smallest. `mends` are edits that correct mistakes. Empty if the question is
/// allowed, or if no plan was found.
///
/// Costs some dozen computations of all connections at most.
#[must_use]
pub fn to_allow(
    cluster: &Cluster,
    question: &Question,
    workloads: &DeclaredWorkloads,
    mends: &[Edit],
) -> Vec<Plan> {
    if question.has_verdict(cluster, Verdict::Allow) {
        return Vec::new();
    }
    let search = Search { cluster, question, workloads, asked: question.asked() };
    let mut found: Vec<(Vec<Edit>, bool)> = Vec::new();
    for mend in mends {
        found.extend(search.completed(vec![mend.clone()]).map(|edits| (edits, true)));
    }
    if let Some(first) = gap::denied(cluster, question) {
        found.extend(search.labelled(cluster, &first).map(|edits| (edits, false)));
        for edit in search.ranked(cluster, &first).into_iter().take(MAX_PLANS) {
            found.extend(search.completed(vec![edit]).map(|edits| (edits, false)));
        }
    }
    sorted(cluster, found, &search.asked)
}

/// Judges plans, sorts them and removes duplicates.
pub(crate) fn sorted(cluster: &Cluster, found: Vec<(Vec<Edit>, bool)>, asked: &Asked) -> Vec<Plan> {
    let effects = Effects::new(cluster);
    let mut plans: Vec<Plan> = Vec::new();
    for (edits, mends) in found {
        if plans.iter().all(|plan| plan.edits != edits) {
            let effect = effects.of(&applied_all(cluster, &edits), asked);
            plans.push(Plan { edits, mends, effect });
        }
    }
    let size = |plan: &Plan| plan.edits.iter().map(Edit::size).sum::<usize>();
    // The sort is stable, so that of equal plans the one that was found first stays first.
    plans.sort_by_cached_key(|plan| {
        let wide = plan.edits.iter().any(|edit| is_wide(cluster, edit, asked));
        // Of those that change something else, the one that changes least, also before a correction.
        let harm = if plan.is_harmless() { 0 } else { plan.effect.len() };
        (!plan.is_harmless(), wide && !plan.mends, harm, !plan.mends, size(plan), plan.effect.len())
    });
    plans.truncate(MAX_PLANS);
    plans
}

/// Returns whether an edit adds to a policy that selects more pods than were asked about, or selects every pod of a
/// namespace.
fn is_wide(cluster: &Cluster, edit: &Edit, asked: &Asked) -> bool {
    edit.selects_every_pod()
        || match edit {
            Edit::Rules { policy, direction, .. } => !is_dedicated(cluster, policy, asked.pods(*direction)),
            _ => false,
        }
}

/// Merges edits of policies that the same plan adds into these policies, which are in no file yet. `edited` is the cluster
/// with all edits.
fn merged(edits: Vec<Edit>, edited: &Cluster) -> Vec<Edit> {
    let new: Vec<PolicyKey> = edits
        .iter()
        .filter_map(|edit| if let Edit::NewPolicy(policy) = edit { Some(policy.key.clone()) } else { None })
        .collect();
    let merge = |edit: Edit| match edit {
        Edit::NewPolicy(policy) => {
            Some(Edit::NewPolicy(edited.policies.get(&policy.key).cloned().unwrap_or(policy)))
        }
        Edit::Rules { policy, .. } | Edit::Subject { policy, .. } | Edit::Direction { policy, .. }
            if new.contains(&policy) =>
        {
            None
        }
        other => Some(other),
    };
    edits.into_iter().filter_map(merge).collect()
}

struct Search<'a> {
    cluster: &'a Cluster,
    question: &'a Question,
    workloads: &'a DeclaredWorkloads,
    asked: Asked,
}

impl Search<'_> {
    /// Returns a plan that first gives pods without labels one, since nothing but `{}` selects them otherwise. `None` if
    /// they have labels, or if their labels are not declared with a workload.
    fn labelled(&self, cluster: &Cluster, gap: &Gap<'_>) -> Option<Vec<Edit>> {
        let selectors = Selectors { cluster, workloads: self.workloads };
        let ends = [gap.subjects.clone(), gap.other_pods()].into_iter().filter(|pods| !pods.is_empty());
        let labels = ends.filter(|pods| selectors.of(pods).is_everything()).filter_map(|pods| {
            let pod = cluster.pods.get(pods.first()?)?;
            let (namespace, workload) = (pod.key.namespace.clone(), pod.workload.clone()?);
            self.workloads.get(&(namespace.clone(), workload.clone()))?;
            let labels = [("app", &*workload.name)].into_iter().collect();
            Some(Edit::Labels { namespace, workload, labels })
        });
        let edits: Vec<Edit> = labels.collect();
        if edits.is_empty() { None } else { self.completed(edits) }
    }

    /// Adds the best edit for each gap that is left. `None` if the question stays denied.
    fn completed(&self, mut edits: Vec<Edit>) -> Option<Vec<Edit>> {
        let mut edited = applied_all(self.cluster, &edits);
        for _ in 0..MAX_GAPS {
            let Some(gap) = gap::denied(&edited, self.question) else { break };
            let best = self.ranked(&edited, &gap).into_iter().next()?;
            edited = applied(&edited, &best);
            edits.push(best);
        }
        self.question.has_verdict(&edited, Verdict::Allow).then(|| merged(edits, &edited))
    }

    /// Returns the edits that close a gap, the best first. What the other direction denies hides what an edit opens, so
    /// edits are judged by the direction that they edit.
    fn ranked(&self, cluster: &Cluster, gap: &Gap<'_>) -> Vec<Edit> {
        let selectors = Selectors { cluster, workloads: self.workloads };
        let mut found = candidates(selectors, gap);
        found.retain(|edit| gap.is_closed(&applied(cluster, edit)));
        found.truncate(MAX_CANDIDATES);
        let direction: Direction = gap.direction;
        let effects = Effects::new(&one_direction(cluster, direction));
        found.sort_by_cached_key(|edit| {
            let after = one_direction(&applied(cluster, edit), direction);
            let effect = effects.of(&after, &self.asked);
            (!effect.is_none(), is_wide(cluster, edit, &self.asked), edit.size(), effect.len())
        });
        found
    }
}

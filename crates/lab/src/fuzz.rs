//! Random clusters in the kernel, with policies of all APIs: each is built, probed, changed at random and probed again.
//!
//! A case is its seed: the same seed makes the same cluster, changes, mode and choice of probes, on every machine.

use palisade_policy::{
    Cluster,
    random::{self, Rng, Shape},
};
use serde::Serialize;

use crate::{
    enforce::MakeEnforcer,
    lab::{Lab, LabError},
    layout::{Families, Layout, Options},
    probe::{self, Mismatch},
    sandbox::Sandbox,
};

/// How much to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// The seed of the first case; the next has the next number.
    pub seed: u64,
    /// How many cases.
    pub count: usize,
    /// At most so many probes for each cluster and for each after its changes.
    pub probes: usize,
    /// How many random edits follow, all at once.
    pub changes: usize,
}

impl Default for Cases {
    fn default() -> Self {
        Self { seed: 0, count: 200, probes: 400, changes: 4 }
    }
}

/// A case that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// What makes it again.
    pub seed: u64,
    /// How many connections were tried.
    pub probed: usize,
    /// How many of them were dropped: a case that drops nothing shows little.
    pub dropped: usize,
    /// How many of them were made by a pod that may meet itself behind the service that it calls.
    pub hairpins: usize,
    /// Where kernel and engine disagree.
    pub failure: Option<Failure>,
}

/// A case in which kernel and engine disagree, or that could not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When: as built, or after which changes.
    pub stage: String,
    /// Whether kernel and engine disagree; else the case could not be run.
    pub disagrees: bool,
    /// The disagreements, or the error.
    pub what: Vec<String>,
    /// The cluster.
    pub cluster: String,
}

/// What a case is made of.
struct Recipe {
    first: Cluster,
    changes: Vec<palisade_policy::Change>,
    options: Options,
}

fn recipe(seed: u64, changes: usize) -> Recipe {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape::small_tiered();
    let first = random::cluster(&mut rng, &shape);
    let mut after = first.clone();
    let changes = (0..changes)
        .map(|_| {
            let change = random::change(&mut rng, shape.style, &after);
            after.apply(change.clone());
            change
        })
        .collect();
    let families = match rng.usize(..6) {
        0 => Families::V4,
        1 => Families::V6,
        _ => Families::Dual,
    };
    Recipe { first, changes, options: Options { bridged: rng.bool(), families, ..Options::default() } }
}

/// Runs the cases one after the other; `progress` hears of each as it ends. Stops at none.
pub fn run(
    sandbox: &Sandbox,
    cases: &Cases,
    make: &MakeEnforcer,
    mut progress: impl FnMut(&Case),
) -> Vec<Case> {
    (0..cases.count as u64)
        .map(|i| {
            let case = one(sandbox, cases.seed.wrapping_add(i), cases, make);
            progress(&case);
            case
        })
        .collect()
}

fn one(sandbox: &Sandbox, seed: u64, cases: &Cases, make: &MakeEnforcer) -> Case {
    let recipe = recipe(seed, cases.changes);
    let mut case = Case { seed, probed: 0, dropped: 0, hairpins: 0, failure: None };
    let mut after = recipe.first.clone();
    let failed =
        |stage: String, what: Unsound, cluster: &Cluster| what.failure(stage, random::describe(cluster));
    let mode = format!(
        "{}, {:?}",
        if recipe.options.bridged { "bridged" } else { "routed" },
        recipe.options.families
    );

    let built = Layout::of(&recipe.first, &recipe.options)
        .map_err(LabError::from)
        .and_then(|layout| Lab::build(sandbox, layout, make.clone()));
    let mut lab = match built {
        Ok(lab) => lab,
        Err(e) => {
            case.failure =
                Some(failed(format!("while being built, {mode}"), Unsound::error(&e), &recipe.first));
            return case;
        }
    };
    if let Err(what) = probe_stage(&lab, seed, cases, &mut case) {
        case.failure = Some(failed(format!("as built, {mode}"), what, &recipe.first));
        return case;
    }
    recipe.changes.iter().cloned().for_each(|c| after.apply(c));
    let stage = || format!("after the changes {:?}, {mode}", recipe.changes);
    if let Err(e) = lab.update(&after) {
        case.failure = Some(failed(stage(), Unsound::error(&e), &after));
        return case;
    }
    if let Err(what) = probe_stage(&lab, seed ^ 1, cases, &mut case) {
        case.failure = Some(failed(stage(), what, &after));
    }
    case
}

/// Why a case is no success.
struct Unsound {
    disagrees: bool,
    what: Vec<String>,
}

impl Unsound {
    fn error(error: &LabError) -> Self {
        Self { disagrees: false, what: vec![with_causes(error)] }
    }

    fn failure(self, stage: String, cluster: String) -> Failure {
        Failure { stage, disagrees: self.disagrees, what: self.what, cluster }
    }
}

fn probe_stage(lab: &Lab, seed: u64, cases: &Cases, case: &mut Case) -> Result<(), Unsound> {
    let options = probe::Options { max_probes: Some(cases.probes), seed, ..probe::Options::default() };
    let plan = probe::Plan::of(lab.layout(), &options);
    let report = probe::run(lab, &plan, &options, |_, _| {}).map_err(|e| Unsound::error(&e))?;
    case.probed += report.counts.probed;
    case.dropped += report.counts.dropped;
    case.hairpins += plan.probes.iter().filter(|p| p.is_hairpin()).count();
    if report.agrees() {
        return Ok(());
    }
    Err(Unsound { disagrees: true, what: report.mismatches.iter().map(Mismatch::in_words).collect() })
}

/// The smallest cluster that still makes kernel and engine disagree as it is built; `None` if `seed` doesn't, as when it
/// takes the changes. Builds and probes a lab for each of many candidates: minutes.
#[must_use]
pub fn shrink(sandbox: &Sandbox, seed: u64, make: &MakeEnforcer) -> Option<Cluster> {
    let recipe = recipe(seed, 0);
    let fails = |cluster: &Cluster| {
        let Ok(layout) = Layout::of(cluster, &recipe.options) else { return false };
        let Ok(lab) = Lab::build(sandbox, layout, make.clone()) else { return false };
        let options = probe::Options::default();
        let plan = probe::Plan::of(lab.layout(), &options);
        probe::run(&lab, &plan, &options, |_, _| {}).is_ok_and(|r| !r.agrees())
    };
    fails(&recipe.first).then(|| random::shrink(&recipe.first, fails))
}

fn with_causes(e: &LabError) -> String {
    let mut out = e.to_string();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_case_again() {
        let (a, b) = (recipe(7, 4), recipe(7, 4));
        assert_eq!((a.first, a.changes, a.options), (b.first, b.changes, b.options));
        assert_ne!(recipe(8, 4).first, recipe(7, 4).first);
    }
}

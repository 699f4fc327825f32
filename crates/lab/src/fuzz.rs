//! Random clusters in the kernel, with policies of all APIs: each is built, probed, changed at random and probed again.
//!
//! A case is its seed: the same seed makes the same cluster, changes, mode and choice of probes, on every machine.

use palisade_policy::Cluster;
use palisade_testkit::{Rng, Shape};
use serde::Serialize;

use crate::{
    enforce::MakeEnforcer,
    error::{LabError, with_causes},
    lab::Lab,
    layout::Layout,
    options::{Families, LayoutOptions},
    probe::{self, Mismatch, ProbeOptions},
    sandbox::Sandbox,
};

/// How much to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuzzOptions {
    /// The seed of the first case; the next has the next number.
    pub seed: u64,
    /// How many cases.
    pub count: usize,
    /// At most so many probes for each cluster and for each after its changes.
    pub probes: usize,
    /// How many random edits follow, all at once.
    pub changes: usize,
}

impl Default for FuzzOptions {
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
struct CaseInput {
    first: Cluster,
    changes: Vec<palisade_policy::Change>,
    options: LayoutOptions,
}

fn case_input(seed: u64, changes: usize) -> CaseInput {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape::small_tiered();
    let first = palisade_testkit::cluster(&mut rng, &shape);
    let mut after = first.clone();
    let changes = (0..changes)
        .map(|_| {
            let change = palisade_testkit::change(&mut rng, shape.style, &after);
            after.apply(change.clone());
            change
        })
        .collect();
    let families = match rng.usize(..6) {
        0 => Families::V4,
        1 => Families::V6,
        _ => Families::Dual,
    };
    CaseInput {
        first,
        changes,
        options: LayoutOptions { bridged: rng.bool(), families, ..LayoutOptions::default() },
    }
}

/// Runs the cases one after the other; `progress` hears of each as it ends. Stops at none.
pub fn run(
    sandbox: &Sandbox,
    options: &FuzzOptions,
    make: &MakeEnforcer,
    mut progress: impl FnMut(&Case),
) -> Vec<Case> {
    (0..options.count as u64)
        .map(|i| {
            let case = one(sandbox, options.seed.wrapping_add(i), options, make);
            progress(&case);
            case
        })
        .collect()
}

fn one(sandbox: &Sandbox, seed: u64, options: &FuzzOptions, make: &MakeEnforcer) -> Case {
    let input = case_input(seed, options.changes);
    let mut case = Case { seed, probed: 0, dropped: 0, hairpins: 0, failure: None };
    let mut after = input.first.clone();
    let failed = |stage: String, what: CaseError, cluster: &Cluster| {
        what.failure(stage, palisade_testkit::describe(cluster))
    };
    let mode =
        format!("{}, {:?}", if input.options.bridged { "bridged" } else { "routed" }, input.options.families);

    let built = Layout::of(&input.first, &input.options)
        .map_err(LabError::from)
        .and_then(|layout| Lab::build(sandbox, layout, make.clone()));
    let mut lab = match built {
        Ok(lab) => lab,
        Err(e) => {
            case.failure =
                Some(failed(format!("while being built, {mode}"), CaseError::error(&e), &input.first));
            return case;
        }
    };
    if let Err(what) = probe_stage(&lab, seed, options, &mut case) {
        case.failure = Some(failed(format!("as built, {mode}"), what, &input.first));
        return case;
    }
    input.changes.iter().cloned().for_each(|c| after.apply(c));
    let stage = || format!("after the changes {:?}, {mode}", input.changes);
    if let Err(e) = lab.update(&after) {
        case.failure = Some(failed(stage(), CaseError::error(&e), &after));
        return case;
    }
    if let Err(what) = probe_stage(&lab, seed ^ 1, options, &mut case) {
        case.failure = Some(failed(stage(), what, &after));
    }
    case
}

/// Why a case is no success.
struct CaseError {
    disagrees: bool,
    what: Vec<String>,
}

impl CaseError {
    fn error(error: &LabError) -> Self {
        Self { disagrees: false, what: vec![with_causes(error)] }
    }

    fn failure(self, stage: String, cluster: String) -> Failure {
        Failure { stage, disagrees: self.disagrees, what: self.what, cluster }
    }
}

fn probe_stage(lab: &Lab, seed: u64, options: &FuzzOptions, case: &mut Case) -> Result<(), CaseError> {
    let probing = ProbeOptions { max_probes: Some(options.probes), seed, ..ProbeOptions::default() };
    let plan = probe::Plan::of(lab.layout(), &probing);
    let report = probe::run(lab, &plan, &probing, |_, _| {}).map_err(|e| CaseError::error(&e))?;
    case.probed += report.counts.probed;
    case.dropped += report.counts.dropped;
    case.hairpins += plan.probes.iter().filter(|p| p.is_hairpin()).count();
    if report.agrees() {
        return Ok(());
    }
    Err(CaseError { disagrees: true, what: report.mismatches.iter().map(Mismatch::in_words).collect() })
}

/// The smallest cluster that still makes kernel and engine disagree as it is built; `None` if `seed` doesn't, as when it
/// takes the changes. Builds and probes a lab for each of many candidates: minutes.
#[must_use]
pub fn shrink(sandbox: &Sandbox, seed: u64, make: &MakeEnforcer) -> Option<Cluster> {
    let input = case_input(seed, 0);
    let fails = |cluster: &Cluster| {
        let Ok(layout) = Layout::of(cluster, &input.options) else { return false };
        let Ok(lab) = Lab::build(sandbox, layout, make.clone()) else { return false };
        let options = ProbeOptions::default();
        let plan = probe::Plan::of(lab.layout(), &options);
        probe::run(&lab, &plan, &options, |_, _| {}).is_ok_and(|r| !r.agrees())
    };
    fails(&input.first).then(|| palisade_testkit::shrink(&input.first, fails))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_case_again() {
        let (a, b) = (case_input(7, 4), case_input(7, 4));
        assert_eq!((a.first, a.changes, a.options), (b.first, b.changes, b.options));
        assert_ne!(case_input(8, 4).first, case_input(7, 4).first);
    }
}

//! Random clusters in the kernel, with policies of all APIs. Each is built, probed, changed at random and probed again.
//!
//! A case is determined by its seed: cluster, changes, mode and sample of probes are the same on every machine.

#[cfg(feature = "records")]
mod records;

use palisade_policy::Cluster;
use palisade_testkit::{Rng, Shape};
use serde::Serialize;

use crate::{
    enforce::MakeEnforcer,
    error::{LabError, with_causes},
    lab::Lab,
    layout::Layout,
    options::{Families, LayoutOptions},
    probe::{self, Mismatch, Plan, ProbeOptions, Report},
    sandbox::Sandbox,
};
#[cfg(feature = "records")]
pub use records::run_with_records;

/// The options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuzzOptions {
    /// The seed of the first case. Each further case has the next number.
    pub seed: u64,
    /// The number of cases.
    pub count: usize,
    /// The maximum number of probes before and after the changes of a case.
    pub probes: usize,
    /// The number of random changes, applied at once.
    pub changes: usize,
    /// Whether random policies are in audit mode, in the cluster and by changes. Packets pass as if these did not exist.
    pub audit: bool,
}

impl Default for FuzzOptions {
    fn default() -> Self {
        Self { seed: 0, count: 200, probes: 400, changes: 4, audit: false }
    }
}

/// A finished case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The seed, which reproduces the case.
    pub seed: u64,
    /// The number of probes.
    pub probed: usize,
    /// The number of dropped probes. A case that drops nothing proves little.
    pub dropped: usize,
    /// The number of probes from a pod to a service that it is a backend of.
    pub hairpins: usize,
    /// The number of probes whose record was compared with the engine's reason, if records are compared: those that were dropped, and
    /// those that a policy in audit mode would drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<usize>,
    /// The disagreement of kernel and engine, if any.
    pub failure: Option<Failure>,
}

/// A case in which kernel and engine disagree, or that could not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When it failed: as built, or after which changes.
    pub stage: String,
    /// Whether kernel and engine disagree. Otherwise the case could not be run.
    pub disagrees: bool,
    /// The disagreements, or the error.
    pub what: Vec<String>,
    /// The cluster, as text.
    pub cluster: String,
}

/// The input of a case.
struct CaseInput {
    first: Cluster,
    changes: Vec<palisade_policy::Change>,
    options: LayoutOptions,
}

/// What is compared at each stage of a case, beside the outcomes of probes.
trait Comparison {
    /// Changes the input of a case.
    fn prepare(&mut self, _: &mut CaseInput) {}

    /// Changes how a stage is probed. Called right before it is.
    fn begin(&mut self, _: &mut ProbeOptions) {}

    /// Compares after a stage was probed. Returns the disagreements.
    fn compare(&mut self, _: &Lab, _: &Plan, _: &Report, _: &mut Case) -> Result<Vec<String>, LabError> {
        Ok(Vec::new())
    }
}

/// Nothing further.
impl Comparison for () {}

fn case_input(seed: u64, changes: usize, audit: bool) -> CaseInput {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape::small_tiered();
    let mut first = palisade_testkit::cluster(&mut rng, &shape);
    if audit {
        palisade_testkit::audit_some(&mut rng, &mut first);
    }
    let mut after = first.clone();
    let changes = (0..changes)
        .map(|_| {
            let of_mode = audit && rng.bool();
            let change = of_mode.then(|| palisade_testkit::mode_change(&mut rng, &after)).flatten();
            let change = change.unwrap_or_else(|| palisade_testkit::change(&mut rng, shape.style, &after));
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

/// Runs all cases, also after a failure. `progress` receives each finished case.
pub fn run(
    sandbox: &Sandbox,
    options: &FuzzOptions,
    make: &MakeEnforcer,
    progress: impl FnMut(&Case),
) -> Vec<Case> {
    run_comparing(sandbox, options, make, &mut (), progress)
}

fn run_comparing(
    sandbox: &Sandbox,
    options: &FuzzOptions,
    make: &MakeEnforcer,
    comparison: &mut dyn Comparison,
    mut progress: impl FnMut(&Case),
) -> Vec<Case> {
    (0..options.count as u64)
        .map(|i| {
            let case = run_case(sandbox, options.seed.wrapping_add(i), options, make, comparison);
            progress(&case);
            case
        })
        .collect()
}

fn run_case(
    sandbox: &Sandbox,
    seed: u64,
    options: &FuzzOptions,
    make: &MakeEnforcer,
    comparison: &mut dyn Comparison,
) -> Case {
    let mut input = case_input(seed, options.changes, options.audit);
    comparison.prepare(&mut input);
    let mut case = Case { seed, probed: 0, dropped: 0, hairpins: 0, recorded: None, failure: None };
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
                Some(failed(format!("while building, {mode}"), CaseError::error(&e), &input.first));
            return case;
        }
    };
    if let Err(what) = probe_stage(&lab, seed, options, comparison, &mut case) {
        case.failure = Some(failed(format!("as built, {mode}"), what, &input.first));
        return case;
    }
    input.changes.iter().cloned().for_each(|c| after.apply(c));
    let stage = || format!("after the changes {:?}, {mode}", input.changes);
    if let Err(e) = lab.update(&after) {
        case.failure = Some(failed(stage(), CaseError::error(&e), &after));
        return case;
    }
    if let Err(what) = probe_stage(&lab, seed ^ 1, options, comparison, &mut case) {
        case.failure = Some(failed(stage(), what, &after));
    }
    case
}

/// Why a case failed.
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

fn probe_stage(
    lab: &Lab,
    seed: u64,
    options: &FuzzOptions,
    comparison: &mut dyn Comparison,
    case: &mut Case,
) -> Result<(), CaseError> {
    let mut probing = ProbeOptions { max_probes: Some(options.probes), seed, ..ProbeOptions::default() };
    comparison.begin(&mut probing);
    let plan = Plan::of(lab.layout(), &probing);
    let report = probe::run(lab, &plan, &probing, |_, _| {}).map_err(|e| CaseError::error(&e))?;
    case.probed += report.counts.probed;
    case.dropped += report.counts.dropped;
    case.hairpins += plan.probes.iter().filter(|p| p.is_hairpin()).count();
    if !report.agrees() {
        let what = report.mismatches.iter().map(Mismatch::summary).collect();
        return Err(CaseError { disagrees: true, what });
    }
    let what = comparison.compare(lab, &plan, &report, case).map_err(|e| CaseError::error(&e))?;
    if what.is_empty() { Ok(()) } else { Err(CaseError { disagrees: true, what }) }
}

/// Shrinks the cluster of a case while kernel and engine still disagree about it as built.
///
/// Returns `None` if they agree, as when the failure needs the changes. Builds and probes a lab for each of many candidates,
/// which takes minutes.
#[must_use]
pub fn shrink(sandbox: &Sandbox, seed: u64, audit: bool, make: &MakeEnforcer) -> Option<Cluster> {
    let input = case_input(seed, 0, audit);
    let fails = |cluster: &Cluster| {
        let Ok(layout) = Layout::of(cluster, &input.options) else { return false };
        let Ok(lab) = Lab::build(sandbox, layout, make.clone()) else { return false };
        let options = ProbeOptions::default();
        let plan = Plan::of(lab.layout(), &options);
        probe::run(&lab, &plan, &options, |_, _| {}).is_ok_and(|r| !r.agrees())
    };
    fails(&input.first).then(|| palisade_testkit::shrink(&input.first, fails))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reproduces_its_case() {
        let (a, b) = (case_input(7, 4, true), case_input(7, 4, true));
        assert_eq!((a.first, a.changes, a.options), (b.first, b.changes, b.options));
        assert_ne!(case_input(8, 4, false).first, case_input(7, 4, false).first);
    }
}

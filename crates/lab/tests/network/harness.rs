//! Building and probing labs in tests.

use libtest_mimic::Failed;
use palisade_lab::{
    Lab, Layout, LayoutOptions, Sandbox,
    enforce::MakeEnforcer,
    probe::{self, ProbeOptions},
    with_causes,
};
use palisade_policy::Cluster;

/// A test and its name. It runs in the sandbox.
pub(crate) type Test = (&'static str, fn(&Sandbox) -> Result<(), Failed>);

/// Builds a lab.
pub(crate) fn build(
    sandbox: &Sandbox,
    cluster: &Cluster,
    options: &LayoutOptions,
    make: MakeEnforcer,
) -> Result<Lab, Failed> {
    let layout = Layout::of(cluster, options).map_err(|e| with_causes(&e))?;
    Lab::build(sandbox, layout, make).map_err(|e| with_causes(&e).into())
}

/// Changes a lab to another cluster.
pub(crate) fn update(lab: &mut Lab, cluster: &Cluster) -> Result<palisade_lab::UpdateSummary, Failed> {
    lab.update(cluster).map_err(|e| with_causes(&e).into())
}

/// Probes all connections.
pub(crate) fn probe_all(lab: &Lab, options: &ProbeOptions) -> Result<probe::Report, Failed> {
    let plan = probe::Plan::of(lab.layout(), options);
    if plan.probes.is_empty() {
        return Err("nothing to probe".into());
    }
    probe::run(lab, &plan, options, |_, _| {}).map_err(|e| with_causes(&e).into())
}

/// Probes all connections and fails unless kernel and engine agree about each.
pub(crate) fn must_agree(lab: &Lab) -> Result<probe::Report, Failed> {
    let report = probe_all(lab, &ProbeOptions::default())?;
    if report.agrees() {
        return Ok(report);
    }
    let lines: Vec<String> = report.mismatches.iter().take(12).map(probe::Mismatch::summary).collect();
    Err(format!(
        "{} of {} disagree:\n  {}",
        report.counts.mismatches,
        report.counts.probed,
        lines.join("\n  ")
    )
    .into())
}

/// Fails with `what` unless `condition` holds.
pub(crate) fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(what().into()) }
}

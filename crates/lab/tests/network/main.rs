//! Labs in the real kernel. `main` enters the sandbox before the first thread starts; where it can't, the tests fail.

#![expect(
    clippy::print_stdout,
    reason = "tests say what they measured, and a copy of this program says when it is ready"
)]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod clusters;
mod enforcement;
mod link;
mod residue;
mod topology;
mod translation;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use palisade_lab::{
    Lab, Layout, LayoutOptions, Sandbox,
    enforce::MakeEnforcer,
    probe::{self, ProbeOptions},
};
use palisade_policy::Cluster;

/// A test by name, run in the sandbox.
type Test = (&'static str, fn(&Sandbox) -> Result<(), Failed>);

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(residue::ROLE) {
        return residue::child(&role);
    }
    let arguments = Arguments::from_args();
    let outer = residue::Outer::look();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trial = |name: &str, test: fn(&Sandbox) -> Result<(), Failed>| {
        Trial::test(name, move || match sandbox {
            Ok(sandbox) => test(sandbox),
            Err(e) => Err(format!("no sandbox: {}", chain(e)).into()),
        })
    };
    let mut trials = Vec::new();
    trials.extend(topology::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(translation::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(enforcement::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(link::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(residue::trials(outer));
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}

/// An error with all its causes.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        out = format!("{out}: {e}");
        next = e.source();
    }
    out
}

/// Builds a lab.
pub(crate) fn build(
    sandbox: &Sandbox,
    cluster: &Cluster,
    options: &LayoutOptions,
    make: MakeEnforcer,
) -> Result<Lab, Failed> {
    let layout = Layout::of(cluster, options).map_err(|e| chain(&e))?;
    Lab::build(sandbox, layout, make).map_err(|e| chain(&e).into())
}

/// Probes everything.
pub(crate) fn probe_all(lab: &Lab) -> Result<probe::Report, Failed> {
    let options = ProbeOptions::default();
    let plan = probe::Plan::of(lab.layout(), &options);
    if plan.probes.is_empty() {
        return Err("nothing to probe".into());
    }
    probe::run(lab, &plan, &options, |_, _| {}).map_err(|e| chain(&e).into())
}

/// Probes everything and fails unless kernel and engine agree everywhere.
pub(crate) fn must_agree(lab: &Lab) -> Result<probe::Report, Failed> {
    let report = probe_all(lab)?;
    if report.agrees() {
        return Ok(report);
    }
    let lines: Vec<String> = report.mismatches.iter().take(12).map(probe::Mismatch::in_words).collect();
    Err(format!(
        "{} of {} disagree:\n  {}",
        report.counts.mismatches,
        report.counts.probed,
        lines.join("\n  ")
    )
    .into())
}

/// Fails with `what` unless `is`.
pub(crate) fn ensure(is: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if is { Ok(()) } else { Err(what().into()) }
}

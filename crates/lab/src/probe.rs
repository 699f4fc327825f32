//! Probes: real connections between all endpoints, and the expected outcome of each.
//!
//! A [`Plan`] lists the probes with the outcome that the reference expects. [`run`] makes the connections and compares. What
//! can't be probed is listed by name, never left out silently.

mod client;
mod options;
mod outcome;
mod plan;
mod report;
mod sample;

use std::time::Instant;

pub use options::{ProbeOptions, Timeouts};
pub use outcome::Outcome;
pub use plan::{Expected, NotProbed, Plan, Probe, Target, refuses};
pub use report::{Counts, Durations, Mismatch, ProbeResult, Report};

#[cfg(feature = "records")]
pub(crate) use client::run as repeat;
pub(crate) use client::run_from;

use crate::{error::LabError, lab::Lab};

/// Runs a plan against a lab. `progress` receives the number of finished probes and of all probes.
///
/// The first pass has short timeouts. Probes with an unexpected outcome are repeated with longer timeouts and fewer at a time,
/// so that a busy machine causes no mismatch. A connection that should have been denied and was made is not repeated: the
/// mismatch is proven.
///
/// # Errors
/// Fails if the lab lacks a place of the plan, or if no socket can be opened.
pub fn run(
    lab: &Lab,
    plan: &Plan,
    options: &ProbeOptions,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<Report, LabError> {
    let began = Instant::now();
    let mut done = 0;
    let total = plan.probes.len();
    let all: Vec<usize> = (0..total).collect();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; total];
    client::run(lab, &plan.probes, &all, &options.first, &mut |i, outcome| {
        outcomes[i] = Some(outcome);
        done += 1;
        progress(done, total);
    })?;
    let first = began.elapsed();
    let mut retried = 0;
    for timeouts in &options.retries {
        let repeated: Vec<usize> = all
            .iter()
            .copied()
            .filter(|i| outcomes[*i].as_ref().is_some_and(|o| may_change(&plan.probes[*i], o)))
            .collect();
        if repeated.is_empty() {
            break;
        }
        retried += repeated.len();
        client::run(lab, &plan.probes, &repeated, timeouts, &mut |i, outcome| outcomes[i] = Some(outcome))?;
    }
    let never = || Outcome::Failed("the probe was never started".to_owned());
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|o| o.unwrap_or_else(never)).collect();
    let durations = Durations { first, total: began.elapsed() };
    Ok(Report::of(lab.layout(), plan, &outcomes, retried, durations))
}

/// Returns whether a repetition may have another outcome.
fn may_change(probe: &Probe, outcome: &Outcome) -> bool {
    !probe.agrees(outcome)
        && !matches!(outcome, Outcome::Connected { .. } if probe.expected() == Expected::Denied)
}

//! Real connections between all endpoints, and what each should have come to.
//!
//! A [`Plan`] says what is probed and what the reference expects; [`run`] does it and holds the outcomes against that.
//! What can't be probed is listed by name, never left out silently.

mod client;
mod options;
mod outcome;
mod plan;
mod report;
mod sample;

use std::time::Instant;

pub use options::{ProbeOptions, Timeouts};
pub use outcome::Outcome;
pub use plan::{Expected, NotProbed, Plan, Probe, Target};
pub use report::{Counts, Durations, Mismatch, ProbeResult, Report};

pub(crate) use client::run_from;

use crate::{error::LabError, lab::Lab};

/// Runs a plan against a lab. `progress` hears how many of how many probes are done.
///
/// A first pass is quick. Whatever didn't come to what was expected is tried again more slowly, fewer at a time, so that
/// a busy machine makes no mismatch. A connection that should have been denied and was made is not tried again: it is
/// proven.
///
/// # Errors
/// When the lab has no such places, or no socket can be opened at all.
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
    for timeouts in &options.again {
        let doubtful: Vec<usize> = all
            .iter()
            .copied()
            .filter(|i| outcomes[*i].as_ref().is_some_and(|o| is_doubtful(&plan.probes[*i], o)))
            .collect();
        if doubtful.is_empty() {
            break;
        }
        retried += doubtful.len();
        client::run(lab, &plan.probes, &doubtful, timeouts, &mut |i, outcome| outcomes[i] = Some(outcome))?;
    }
    let never = || Outcome::Failed("it was never tried".to_owned());
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|o| o.unwrap_or_else(never)).collect();
    let durations = Durations { first, total: began.elapsed() };
    Ok(Report::of(lab.layout(), plan, &outcomes, retried, durations))
}

/// Whether another try may come to something else.
fn is_doubtful(probe: &Probe, outcome: &Outcome) -> bool {
    !probe.agrees(outcome)
        && !matches!(outcome, Outcome::Connected { .. } if probe.expected() == Expected::Denied)
}

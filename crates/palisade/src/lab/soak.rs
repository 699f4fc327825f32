//! `palisade lab soak`: compares the kernel with the engine on a cluster that changes continuously.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_lab::{
    Sandbox,
    soak::{self, SoakOptions, SoakReport},
};
use serde::Serialize;

use crate::{
    exit,
    output::{self, Format, Style, styled},
};

pub(crate) const HELP: &str = "\
Pods, namespaces, policies and services are created, relabeled, moved, edited and deleted at random, while connections that the changes do not affect are probed. At every quiet point, the kernel is compared with the engine, with packets and by reading its rules back.

Examples:
  palisade lab soak --minutes 10
  palisade lab soak --minutes 1 --seed 4711 --pods 30 -o json

Exit codes: 0 kernel and engine agreed, 1 they disagreed, 2 error.";

/// Arguments of `lab soak`.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Duration in minutes; may be a fraction
    #[arg(long, value_name = "M", default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Seed of the cluster and its changes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Initial number of pods
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    pods: u16,
    /// Maximum number of connections to probe at each quiet point
    #[arg(long, value_name = "N", default_value_t = SoakOptions::default().probes)]
    max_probes: usize,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Parses a number of minutes, up to a week.
fn minutes(text: &str) -> Result<f64, String> {
    let given: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if given > 0.0 && given <= 10_080.0 {
        Ok(given)
    } else {
        Err("must be greater than 0 and at most a week (10080)".to_owned())
    }
}

#[derive(Serialize)]
struct JsonSoak<'a> {
    schema: &'static str,
    agrees: bool,
    seed: u64,
    pods: u16,
    #[serde(flatten)]
    outcome: &'a SoakReport,
}

/// Runs the soak test.
pub(crate) fn run(arguments: &Soak) -> Result<exit::Outcome> {
    let sandbox = Sandbox::enter()?;
    let plan = SoakOptions {
        seed: arguments.seed,
        duration: Duration::from_secs_f64(arguments.minutes * 60.0),
        pods: usize::from(arguments.pods),
        probes: arguments.max_probes,
    };
    let bar = progress(plan.duration);
    let outcome = soak::run(&sandbox, &plan, &palisade_lab::agent::palisade(), |counts, elapsed| {
        bar.set_position(elapsed.as_secs());
        let (rounds, changes) = (counts.rounds, counts.all_changes());
        bar.set_message(format!(
            "{rounds} rounds, {changes} changes, {} probes",
            counts.probed + counts.probed_during_changes
        ));
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    let agrees = outcome.failure.is_none();
    let text = match arguments.output.encoding() {
        None => text(arguments.seed, &outcome),
        Some(encoding) => {
            let (seed, pods) = (arguments.seed, arguments.pods);
            let result = JsonSoak { schema: "palisade.lab-soak/v1", agrees, seed, pods, outcome: &outcome };
            encoding.encode(&result)?
        }
    };
    output::print(&text).context("can't write the result")?;
    Ok(exit::Outcome::of(agrees))
}

fn progress(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_secs());
    // The template is constant and valid.
    if let Ok(style) = ProgressStyle::with_template("soaking {wide_bar} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn text(seed: u64, outcome: &SoakReport) -> String {
    let SoakReport { counts, resident_kib: resident, seconds, failure } = outcome;
    let mut out = format!("{} rounds in {seconds} s from seed {seed}\n\n", counts.rounds);
    let mut row = |name: &str, value: usize| _ = writeln!(out, "{name:<24}{value:>9}");
    for (kind, count) in &counts.changes {
        row(kind, *count);
    }
    row("changes", counts.all_changes());
    row("probes at quiet points", counts.probed);
    row("  of them dropped", counts.dropped);
    row("probes during changes", counts.probed_during_changes);
    if counts.late > 0 {
        // The nodes' counters have shown that no rule dropped them.
        row("  of them answered late", counts.late);
    }
    row("verdicts read back", counts.verdicts_compared);
    let mib = |kib: u64| kib as f64 / 1024.0;
    _ = writeln!(
        out,
        "resident memory: {:.1} MiB at first, {:.1} in the middle, {:.1} at the end",
        mib(resident.start),
        mib(resident.middle),
        mib(resident.end)
    );
    match failure {
        None => _ = writeln!(out, "{}", styled(Style::Good, "kernel and engine agreed at every quiet point")),
        Some(failure) => {
            let title = format!("round {} failed:", failure.round);
            _ = writeln!(out, "{}", styled(Style::Bad, &title));
            for what in &failure.what {
                _ = writeln!(out, "  {what}");
            }
            _ = writeln!(out, "after the changes of this round:");
            for change in &failure.changes {
                _ = writeln!(out, "  {change}");
            }
            _ = writeln!(out, "{}", failure.cluster);
        }
    }
    out
}

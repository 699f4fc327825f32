//! `palisade lab bench`: measures the cost of policies for connections and packets.

#[cfg(feature = "agent")]
mod flood;
#[cfg(not(feature = "agent"))]
use no_flood as flood;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_lab::{
    Sandbox,
    bench::{self, BenchOptions, Measured},
};
use serde::Serialize;

use super::run::progress_bar;
use crate::{
    exit::Outcome,
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
The scenarios are measured in turns, each in its own lab. Ratios are relative to the scenario without rules in the same round, so that load on the machine affects both.

With --flood, one pod sends packets that policies deny. Meanwhile a policy is changed again and again, all connections of the other pods are probed, and what was dropped is compared with the records and with what was counted as without a record.

Examples:
  palisade lab bench
  palisade lab bench --rounds 100 -o json
  palisade lab bench --flood 60 --flood-rate 50000

Exit codes: 0 done, 1 a connection beside the flood had another verdict than the policies demand, 2 error.";

/// Arguments of `lab bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Number of turns of each scenario
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Duration of a turn in milliseconds, for connections and for round trips each
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    turn_ms: u64,
    /// Measure a flood of denied packets of this many seconds instead
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["rounds", "turn_ms"], value_parser = clap::value_parser!(u64).range(1..))]
    flood: Option<u64>,
    /// Packets a second of the flood; a machine that can't send so many sends as many as it can
    #[arg(long, value_name = "N", default_value_t = 50_000, requires = "flood", value_parser = clap::value_parser!(u32).range(100..))]
    flood_rate: u32,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct JsonBench<'a> {
    schema: &'static str,
    rounds: u32,
    turn_ms: u64,
    scenarios: &'a [Measured],
}

/// Runs the benchmark.
pub(crate) fn run(arguments: &Bench) -> Result<Outcome> {
    if let Some(seconds) = arguments.flood {
        return flood::run(Duration::from_secs(seconds), arguments.flood_rate, arguments.output);
    }
    let sandbox = Sandbox::enter()?;
    let options =
        BenchOptions { rounds: arguments.rounds as usize, slice: Duration::from_millis(arguments.turn_ms) };
    output::note("building a lab for each scenario …\n");
    let bar = progress_bar(0);
    let measured = bench::run(&sandbox, &options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let measured = measured.context("the measurement failed")?;
    let text = match arguments.output.encoding() {
        None => text(&measured),
        Some(encoding) => {
            let (rounds, turn_ms) = (arguments.rounds, arguments.turn_ms);
            let result = JsonBench { schema: "palisade.lab-bench/v1", rounds, turn_ms, scenarios: &measured };
            encoding.encode(&result)?
        }
    };
    output::print(&text).context("can't write the result")?;
    Ok(Outcome::Yes)
}

fn text(measured: &[Measured]) -> String {
    let names: Vec<String> = measured.iter().map(|m| m.scenario.to_string()).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let mut out = format!(
        "{:<width$}  {:>13}  {:>5}  {:>13}  {:>5}\n",
        "", "connections/s", "ratio", "round trips/s", "ratio"
    );
    for (name, m) in names.iter().zip(measured) {
        _ = writeln!(
            out,
            "{name:<width$}  {:>13.0}  {:>5.2}  {:>13.0}  {:>5.2}",
            m.connections.per_second, m.connections.ratio, m.round_trips.per_second, m.round_trips.ratio
        );
    }
    out
}

/// Without the agent there are no records to compare.
#[cfg(not(feature = "agent"))]
mod no_flood {
    use std::time::Duration;

    use anyhow::Result;

    use crate::{exit::Outcome, output::Format};

    pub(super) fn run(_: Duration, _: u32, _: Format) -> Result<Outcome> {
        Err(crate::left_out::no_records("--flood"))
    }
}

//! `palisade lab fuzz`: compares the kernel with the engine on random clusters.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_lab::{
    Sandbox,
    fuzz::{self, Case, FuzzOptions},
};
use serde::Serialize;

use super::run::progress_bar;
use crate::{
    exit::Outcome,
    output::{self, Format, Style, styled},
};

pub(crate) const HELP: &str = "\
Each case is a random cluster that is built, probed, changed and probed again. A case that fails is printed with its seed.

Examples:
  palisade lab fuzz --seed 1 --cases 200
  palisade lab fuzz --seed 4711 --cases 1
  palisade lab fuzz --audit
  palisade lab fuzz --records

Exit codes: 0 kernel and engine agree, 1 they disagree, 2 error.";

/// Arguments of `lab fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// Seed of the first case; each further case adds 1
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Number of cases
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// Maximum number of connections to probe before and after the changes of each case
    #[arg(long, value_name = "N", default_value_t = FuzzOptions::default().probes)]
    max_probes: usize,
    /// Put random policies into audit mode, by each of its settings
    #[arg(long)]
    audit: bool,
    /// Compare the nodes' records of flows too: each dropped probe has one, with the policies, the rule and its line, and the reason in the words of `palisade explain`. With --audit also those of what policies in audit mode would drop
    #[arg(long)]
    records: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct JsonFuzz<'a> {
    schema: &'static str,
    agrees: bool,
    cases: &'a [Case],
}

/// Runs the cases.
pub(crate) fn run(arguments: &Fuzz) -> Result<Outcome> {
    let sandbox = Sandbox::enter()?;
    let cases = FuzzOptions {
        seed: arguments.seed,
        count: usize::try_from(arguments.cases)?,
        probes: arguments.max_probes,
        audit: arguments.audit,
        ..FuzzOptions::default()
    };
    let began = Instant::now();
    let bar = progress_bar(cases.count);
    let done = if arguments.records {
        with_records(&sandbox, &cases, |_| bar.inc(1))?
    } else {
        fuzz::run(&sandbox, &cases, &palisade_lab::agent::palisade(), |_| bar.inc(1))
    };
    bar.finish_and_clear();
    let failed = done.iter().filter(|c| c.failure.is_some()).count();
    let text = match arguments.output.encoding() {
        None => done.iter().map(|case| failure_text(case, arguments)).collect(),
        Some(encoding) => {
            let result = JsonFuzz { schema: "palisade.lab-fuzz/v1", agrees: failed == 0, cases: &done };
            encoding.encode(&result)?
        }
    };
    output::print(&text).context("can't write the result")?;
    let probed: usize = done.iter().map(|c| c.probed).sum();
    let dropped: usize = done.iter().map(|c| c.dropped).sum();
    let recorded = match arguments.records {
        true => format!(", {} records compared", done.iter().filter_map(|c| c.recorded).sum::<usize>()),
        false => String::new(),
    };
    let style = if failed == 0 { Style::Good } else { Style::Bad };
    output::note(&format!(
        "{} cases from seed {}: {probed} probes, {dropped} dropped{recorded}; {}; {}\n",
        done.len(),
        arguments.seed,
        styled(style, &format!("{failed} failed")),
        output::duration(began.elapsed())
    ));
    Ok(outcome(&done))
}

/// Returns the outcome. A case that could not be run is neither agreement nor disagreement.
fn outcome(cases: &[Case]) -> Outcome {
    let failures = || cases.iter().filter_map(|case| case.failure.as_ref());
    if failures().any(|failure| failure.disagrees) {
        Outcome::No
    } else if failures().next().is_some() {
        Outcome::Incomplete
    } else {
        Outcome::Yes
    }
}

#[cfg(feature = "agent")]
fn with_records(sandbox: &Sandbox, cases: &FuzzOptions, progress: impl FnMut(&Case)) -> Result<Vec<Case>> {
    let wording: palisade_lab::records::Wording = std::sync::Arc::new(crate::reasons::lines);
    Ok(fuzz::run_with_records(sandbox, cases, &wording, progress))
}

/// Without the agent there are no records to compare.
#[cfg(not(feature = "agent"))]
fn with_records(_: &Sandbox, _: &FuzzOptions, _: impl FnMut(&Case)) -> Result<Vec<Case>> {
    Err(crate::left_out::no_records("--records"))
}

fn failure_text(case: &Case, arguments: &Fuzz) -> String {
    let Some(failure) = &case.failure else { return String::new() };
    let mut out =
        format!("{}\n", styled(Style::Bad, &format!("seed {} failed, {}:", case.seed, failure.stage)));
    for what in &failure.what {
        _ = writeln!(out, "  {what}");
    }
    _ = writeln!(
        out,
        "  reproduce with: palisade lab fuzz --seed {} --cases 1 --max-probes {}{}{}\n{}",
        case.seed,
        arguments.max_probes,
        if arguments.audit { " --audit" } else { "" },
        if arguments.records { " --records" } else { "" },
        failure.cluster
    );
    out
}

#[cfg(test)]
mod tests {
    use palisade_lab::fuzz::Failure;

    use super::*;

    #[test]
    fn what_could_not_be_run_is_no_disagreement() {
        let case = |disagrees: Option<bool>| {
            let failure = disagrees.map(|disagrees| Failure {
                stage: "as built".to_owned(),
                disagrees,
                what: Vec::new(),
                cluster: String::new(),
            });
            Case { seed: 1, probed: 0, dropped: 0, hairpins: 0, recorded: None, failure }
        };
        assert_eq!(outcome(&[case(None)]), Outcome::Yes);
        assert_eq!(outcome(&[case(None), case(Some(false))]), Outcome::Incomplete);
        assert_eq!(outcome(&[case(Some(false)), case(Some(true))]), Outcome::No);
    }
}

//! Records of flows that agents make of random clusters, compared with the engine's reasons. `PALISADE_FUZZ_SEED` sets the first seed,
//! `PALISADE_FUZZ_CASES` the number of cases.

#![expect(clippy::print_stdout, reason = "the test prints the cases that disagree")]

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use palisade_lab::{
    Sandbox,
    fuzz::{self, Case, FuzzOptions},
    records::Wording,
};
use palisade_testkit::seeds;

/// The default number of cases: some hundred dropped connections.
const CASES: usize = 4;
/// The most differences of a case that are printed.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trials = [
        ("records_of_drops_have_the_reason_of_the_engine", false),
        ("records_of_policies_in_audit_mode_are_of_what_these_would_drop", true),
    ];
    let trials = trials.map(|(name, audit)| {
        Trial::test(name, move || match sandbox {
            Ok(sandbox) => run(sandbox, audit),
            Err(e) => Err(format!("no sandbox: {e}").into()),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn number(name: &str) -> Result<Option<u64>, Failed> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value.parse().map_err(|e| format!("{name}: {e}"))?)),
        Err(_) => Ok(None),
    }
}

fn run(sandbox: &Sandbox, audit: bool) -> Result<(), Failed> {
    let count = number("PALISADE_FUZZ_CASES")?.map_or(CASES, |n| n as usize);
    let first = number("PALISADE_FUZZ_SEED")?.unwrap_or(0);
    // Every field of the decision, so that a record with another one is noticed whatever the words are.
    let wording: Wording = Arc::new(|side, direction| vec![format!("{direction}: {side:?}")]);
    let report = |case: &Case| {
        if let Some(failure) = &case.failure {
            let what: Vec<&str> = failure.what.iter().take(SHOWN).map(String::as_str).collect();
            let (what, all) = (what.join("\n  "), failure.what.len());
            println!("seed {}: {}, {all} differ\n  {what}\n{}", case.seed, failure.stage, failure.cluster);
        }
    };
    let done: Vec<Case> = seeds(first..first.wrapping_add(count as u64))
        .flat_map(|seed| {
            let one = FuzzOptions { seed, count: 1, audit, ..FuzzOptions::default() };
            fuzz::run_with_records(sandbox, &one, &wording, report)
        })
        .collect();
    let dropped: usize = done.iter().map(|c| c.dropped).sum();
    let recorded: usize = done.iter().filter_map(|c| c.recorded).sum();
    println!(
        "{} cases, {dropped} connections dropped, {recorded} with records that were compared",
        done.len()
    );
    let failed: Vec<u64> = done.iter().filter(|c| c.failure.is_some()).map(|c| c.seed).collect();
    if !failed.is_empty() {
        return Err(format!("records differ from the engine; seeds {failed:?}").into());
    }
    if recorded < 100 {
        return Err(format!("only {recorded} records were compared, which proves little").into());
    }
    Ok(())
}

//! Random clusters in the kernel. `PALISADE_FUZZ_SEED` sets the first seed, `PALISADE_FUZZ_CASES` the number of cases.

#![expect(clippy::print_stdout, reason = "the test prints the cases that disagree")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use palisade_lab::{
    Sandbox, agent,
    fuzz::{self, Case, FuzzOptions},
};
use palisade_testkit::seeds;

/// The default number of cases: enough to use every feature of the generator, and short enough for every test run. CI runs more
/// with the command line.
const CASES: usize = 20;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trials =
        [("random_clusters_in_the_kernel", false), ("random_clusters_with_policies_in_audit_mode", true)];
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
    let began = std::time::Instant::now();
    let report = |case: &Case| {
        if let Some(failure) = &case.failure {
            println!(
                "seed {}: {}\n  {}\n{}",
                case.seed,
                failure.stage,
                failure.what.join("\n  "),
                failure.cluster
            );
        }
    };
    let done: Vec<Case> = seeds(first..first.wrapping_add(count as u64))
        .flat_map(|seed| {
            let one = FuzzOptions { seed, count: 1, audit, ..FuzzOptions::default() };
            fuzz::run(sandbox, &one, &agent::palisade(), report)
        })
        .collect();
    let probed: usize = done.iter().map(|c| c.probed).sum();
    let dropped: usize = done.iter().map(|c| c.dropped).sum();
    let hairpins: usize = done.iter().map(|c| c.hairpins).sum();
    println!(
        "{count} cases, {probed} connections ({hairpins} of pods to services that they are a backend of), {dropped} dropped, in {:?}",
        began.elapsed()
    );
    let failed: Vec<u64> = done.iter().filter(|c| c.failure.is_some()).map(|c| c.seed).collect();
    if !failed.is_empty() {
        return Err(format!(
            "seeds {failed:?} disagree; run one again with `palisade lab fuzz --seed {} --cases 1{}`",
            failed[0],
            if audit { " --audit" } else { "" }
        )
        .into());
    }
    // Without these and without drops the test proves nothing.
    if hairpins == 0 {
        return Err("no pod connected to itself through a service".into());
    }
    if dropped * 20 < probed { Err("fewer than 5 % of the connections were dropped".into()) } else { Ok(()) }
}

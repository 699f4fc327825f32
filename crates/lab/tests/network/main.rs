//! Labs in the real kernel. `main` enters the sandbox before the first thread starts. If it can't, the tests fail.

#![expect(
    clippy::print_stdout,
    reason = "tests print what they measured, and child processes print when they are ready"
)]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod cleanup;
mod clusters;
mod enforcement;
mod harness;
mod link_local;
mod topology;
mod translation;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use palisade_lab::{Sandbox, with_causes};

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(cleanup::ROLE) {
        return cleanup::child(&role);
    }
    let arguments = Arguments::from_args();
    let host = cleanup::HostLinks::read();
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trial = |name: &str, test: fn(&Sandbox) -> Result<(), Failed>| {
        Trial::test(name, move || match sandbox {
            Ok(sandbox) => test(sandbox),
            Err(e) => Err(format!("no sandbox: {}", with_causes(e)).into()),
        })
    };
    let mut trials = Vec::new();
    trials.extend(topology::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(translation::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(enforcement::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(link_local::TESTS.iter().map(|(name, test)| trial(name, *test)));
    trials.extend(cleanup::trials(host));
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}

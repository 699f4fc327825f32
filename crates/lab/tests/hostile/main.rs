//! Nothing passes that the policies deny, whatever happened before the agent came, whatever others do to its table, and
//! whatever a pod puts on the wire. Real packets in the real kernel, against the agent as its own process.
//!
//! ```text
//!  main ─ enters the sandbox, then runs the trials
//!   ├ world     a lab without enforcers, its cluster as a directory of manifests, agents on its nodes
//!   │  └ agent  a copy of this program that runs the daemon in the node's namespace
//!   ├ talk      numbered bytes over connections that stay open
//!   ├ flood     a thousand numbered datagrams a second
//!   ├ tap       what arrives at an interface, before any socket
//!   │  └ watch  at all ends of what is denied
//!   ├ frames    packets that no socket would send
//!   ├ tunnel    an overlay between the nodes
//!   └ hand      what `nft` and `conntrack` do to a node
//! ```

#![expect(clippy::print_stdout, reason = "tests say what they measured")]

mod agent;
mod flood;
mod frames;
mod hand;
mod hands;
mod layers;
mod old;
mod storm;
mod talk;
mod tap;
mod tenants;
mod tunnel;
mod watch;
mod world;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use palisade_lab::Sandbox;

/// A test by name, run in the sandbox.
type Test = (&'static str, fn(&Sandbox) -> Result<(), Failed>);

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(agent::ROLE) {
        return agent::child(&role);
    }
    let mut arguments = Arguments::from_args();
    // One at a time: they measure when packets stop, and a machine of two cores is busy with one.
    arguments.test_threads.get_or_insert(1);
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trial = |(name, test): &Test| {
        let test = *test;
        Trial::test(*name, move || match sandbox {
            Ok(sandbox) => test(sandbox),
            Err(e) => Err(format!("no sandbox: {}", chain(e)).into()),
        })
    };
    let trials = [old::TESTS, layers::TESTS, hands::TESTS, storm::TESTS, tenants::TESTS]
        .concat()
        .iter()
        .map(trial)
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// An error with all its causes.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(e.source(), |cause| cause.source());
    causes.fold(e.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Fails with `what` unless `is`.
pub(crate) fn ensure(is: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if is { Ok(()) } else { Err(what().into()) }
}

/// Asks until the answer is something, or the time is over.
pub(crate) fn until<T>(
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<Option<T>, Failed> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if begin.elapsed() > patience {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

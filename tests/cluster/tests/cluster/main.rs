//! Palisade in a cluster with a real API server. All tests share one control plane and one lab, and run one after the other. Each
//! starts with an empty cluster and no agent. If something that they need is missing, they fail.

mod deploy;
mod explainer;
mod failures;
mod lab;
mod live;
mod manifests;
mod pages;
mod policies;
mod reports;
mod services;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use palisade_cluster_tests::{World, confined};
use palisade_lab::Sandbox;

/// A test by name.
type Test = (&'static str, fn(&mut World) -> Result<()>);

/// The shared world, created for the first test.
struct Shared {
    sandbox: Sandbox,
    world: Option<Result<World, String>>,
}

fn main() -> ExitCode {
    confined(|sandbox| {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let shared = Arc::new(Mutex::new(Shared { sandbox, world: None }));
        let tests = [
            lab::TESTS,
            policies::TESTS,
            reports::TESTS,
            services::TESTS,
            failures::TESTS,
            live::TESTS,
            explainer::TESTS,
            pages::TESTS,
            deploy::TESTS,
        ]
        .concat();
        let trials = tests.into_iter().map(|(name, test)| {
            let shared = shared.clone();
            Trial::test(name, move || run(&shared, test))
        });
        let conclusion = libtest_mimic::run(&arguments, trials.collect());
        // Ends the processes and removes the folder.
        drop(shared);
        conclusion.exit_code()
    })
}

fn run(shared: &Mutex<Shared>, test: fn(&mut World) -> Result<()>) -> Result<(), Failed> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Shared { sandbox, world } = &mut *shared;
    let world = world
        .get_or_insert_with(|| World::new(sandbox).map_err(|e| format!("cannot create the cluster: {e:#}")));
    let world = world.as_mut().map_err(|e| Failed::from(&*e))?;
    world.reset().map_err(|e| format!("cannot clear the cluster: {e:#}\n{}", world.logs()))?;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(world)));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("{e:#}\n\n{}", world.logs()).into()),
        Err(panic) => {
            eprintln!("{}", world.logs());
            std::panic::resume_unwind(panic)
        }
    }
}

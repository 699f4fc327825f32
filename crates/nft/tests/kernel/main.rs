//! What the enforcer leaves in a real kernel, each test in a network namespace of its own.
//!
//! The process enters a user namespace before its first thread starts, so the tests need no rights, and meet the limits
//! that a process without rights meets (no `SO_SNDBUFFORCE`).

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod agreement;
mod claim;
mod connections;
mod cut_off;
mod drift;
mod drops;
mod entries;
mod faults;
mod hairpin;
mod hands;
mod link;
mod listing;
mod others;
mod random;
mod restart;
mod revocation;
mod sandbox;
mod scripted;
mod shapes;
mod staging;
mod storm;
mod surroundings;
mod text;
mod verify;
mod without;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    // Listing needs no namespace; running without one would be no test, so it fails.
    if !arguments.list {
        sandbox::enter();
    }
    let tests: Vec<Trial> = [
        agreement::trials(),
        claim::trials(),
        connections::trials(),
        cut_off::trials(),
        drift::trials(),
        drops::trials(),
        faults::trials(),
        hands::trials(),
        hairpin::trials(),
        link::trials(),
        listing::trials(),
        others::trials(),
        restart::trials(),
        revocation::trials(),
        shapes::trials(),
        staging::trials(),
        storm::trials(),
        surroundings::trials(),
        text::trials(),
        verify::trials(),
        without::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, tests).exit();
}

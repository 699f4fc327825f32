//! Hostile conditions: connections that exist before the agent starts, other programs that change its table, restarts during
//! changes, and forged packets. No packet that the policies deny may pass. Real packets in the real kernel; the agent is a
//! process of its own.
//!
//! ```text
//!  main ─ enters the sandbox, then runs the trials
//!   ├ testbed          a lab without enforcers, its cluster as a directory of manifests, agents on its nodes
//!   │  └ agent         a copy of this program that runs the daemon in the node's namespace
//!   ├ conversations    numbered bytes over connections that stay open
//!   ├ flood            numbered datagrams at a high rate
//!   ├ capture          what arrives at an interface, before any socket
//!   │  └ denied_traffic  captures at both ends of denied conversations
//!   ├ frames           packets that no socket would send
//!   ├ senders          frames with forged senders
//!   ├ tunnel           an overlay between the nodes
//!   └ commands         `nft`, `conntrack` and sysctls on a node
//! ```

#![expect(clippy::print_stdout, reason = "tests print what they measured")]

mod agent;
mod capture;
mod commands;
mod conversations;
mod costly_policy;
mod denied_traffic;
#[path = "../../../nft/tests/kernel/entries.rs"]
mod entries;
mod established;
mod flood;
mod forged_packets;
mod frames;
mod harness;
mod kills;
mod many_connections;
mod senders;
mod table_edits;
mod testbed;
mod tunnel;

use std::process::ExitCode;

use harness::Test;
use libtest_mimic::{Arguments, Trial};
use palisade_lab::{Sandbox, with_causes};

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(agent::ROLE) {
        return agent::child(&role);
    }
    let mut arguments = Arguments::from_args();
    // One test at a time: they measure when packets stop, and one test keeps two cores busy.
    arguments.test_threads.get_or_insert(1);
    let sandbox: &'static Result<Sandbox, _> = Box::leak(Box::new(Sandbox::enter()));
    let trial = |(name, test): &Test| {
        let test = *test;
        Trial::test(*name, move || match sandbox {
            Ok(sandbox) => commands::check().and_then(|()| test(sandbox)),
            Err(e) => Err(format!("no sandbox: {}", with_causes(e)).into()),
        })
    };
    let trials = [
        established::TESTS,
        many_connections::TESTS,
        forged_packets::TESTS,
        senders::TESTS,
        table_edits::TESTS,
        kills::TESTS,
        costly_policy::TESTS,
    ]
    .concat()
    .iter()
    .map(trial)
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

//! Captures at both ends of denied conversations, which must not receive any of their packets.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;

use crate::{
    capture::{Capture, FiveTuple},
    conversations::Conversations,
    harness::ensure,
    testbed::Testbed,
};

/// The duration of a capture. Keepalives are sent each second, and retransmissions at least as often.
const DURATION: Duration = Duration::from_millis(1600);
/// The maximum number of failures that are printed.
const MAX_LINES: usize = 12;

/// Captures at both ends of all denied conversations.
pub(crate) struct DeniedTraffic {
    pub(crate) captures: BTreeMap<&'static str, Capture>,
}

impl DeniedTraffic {
    /// Opens the captures.
    pub(crate) fn open(testbed: &Testbed) -> Result<Self, Failed> {
        let places = ["srv", "bad", "open", "iso", "both", "far-bad", "outside"];
        let captures = places.into_iter().map(|name| Ok((name, Capture::open(testbed, name)?)));
        Ok(Self { captures: captures.collect::<Result<_, Failed>>()? })
    }

    /// Captures for a while. Fails if a packet of a denied conversation arrives at either end.
    pub(crate) fn expect_none(&self, conversations: &Conversations, when: &str) -> Result<(), Failed> {
        let denied: BTreeMap<FiveTuple, String> = conversations.with(|all| {
            let denied = all.iter().filter(|t| !t.spec.allowed);
            denied.flat_map(|t| [t.tuple, t.tuple.reversed()].map(|tuple| (tuple, t.to_string()))).collect()
        });
        self.captures.values().try_for_each(Capture::drain)?;
        let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
        let begin = Instant::now();
        while begin.elapsed() < DURATION {
            thread::sleep(Duration::from_millis(20));
            for (name, capture) in &self.captures {
                let incoming = capture.take()?.into_iter().filter(|f| f.incoming);
                for conversation in incoming.filter_map(|f| denied.get(&f.five_tuple()?)) {
                    *arrived.entry(format!("{conversation}: at {name}")).or_default() += 1;
                }
            }
        }
        let number = denied.len() / 2;
        println!(
            "{when}: packets of {} of {number} denied conversations at one end or the other",
            arrived.len()
        );
        ensure(arrived.is_empty(), || {
            let lines = arrived.iter().map(|(what, n)| format!("{what}: {n} packets"));
            let (lines, number): (Vec<String>, _) = (lines.take(MAX_LINES).collect(), arrived.len());
            format!(
                "{when}: packets of denied conversations arrive at {number} ends:\n  {}",
                lines.join("\n  ")
            )
        })
    }
}

/// The failures of a test that continues after a failed check.
#[derive(Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Records the outcome if it is a failure.
    pub(crate) fn note(&mut self, outcome: Result<(), Failed>) {
        if let Err(e) = outcome {
            self.0.push(e.message().unwrap_or("failed").to_owned());
        }
    }

    /// Fails if any recorded check failed.
    pub(crate) fn into_result(self) -> Result<(), Failed> {
        ensure(self.0.is_empty(), || self.0.join("\n"))
    }
}

//! How to probe.

use std::time::Duration;

/// How to probe.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// At most so many probes, chosen at random; the rest is listed as not probed. `None`: all. What a pod sends to itself
    /// through a service is rare and decided apart (SEMANTICS G-6): it is chosen first.
    pub max_probes: Option<usize>,
    /// What the choice is drawn from.
    pub seed: u64,
    /// Whether to probe ICMP echo too.
    pub icmp: bool,
    /// The first pass.
    pub first: Timeouts,
    /// Further passes, over what didn't come to what was expected.
    pub again: Vec<Timeouts>,
}

/// How patient one pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// After so long without an answer a connection counts as dropped.
    pub whole: Duration,
    /// At most so many connections at once.
    pub in_flight: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        let timeouts = |millis, in_flight| Timeouts { whole: Duration::from_millis(millis), in_flight };
        Self {
            max_probes: None,
            seed: 0,
            icmp: true,
            first: timeouts(400, 512),
            again: vec![timeouts(1500, 64), timeouts(4000, 8)],
        }
    }
}

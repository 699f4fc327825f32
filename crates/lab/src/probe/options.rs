//! The options of a probe run.

use std::time::Duration;

/// The options of a probe run.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// The maximum number of probes. A random sample is chosen, and the rest is listed as not probed. `None`: all. Connections
    /// of a pod to itself through a service are rare and have rules of their own (SEMANTICS G-6), so they are chosen first.
    pub max_probes: Option<usize>,
    /// The seed of the sample.
    pub seed: u64,
    /// Whether to probe ICMP echo too.
    pub icmp: bool,
    /// The timeouts of the first pass.
    pub first: Timeouts,
    /// The timeouts of further passes, which repeat the probes with an unexpected outcome.
    pub retries: Vec<Timeouts>,
}

/// The limits of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The time after which a connection without an answer counts as dropped.
    pub whole: Duration,
    /// The maximum number of simultaneous connections.
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
            retries: vec![timeouts(1500, 64), timeouts(4000, 8)],
        }
    }
}

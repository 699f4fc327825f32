//! Reports bridges of pods whose settings keep policies from being enforced.

use std::time::{Duration, Instant};

use super::Worker;

/// How often the settings are read. The kernel doesn't notify of all of them.
const INTERVAL: Duration = Duration::from_secs(2);

/// What was reported of the bridges.
#[derive(Debug, Default)]
pub(in crate::daemon::worker) struct BridgeReports {
    read: Option<Instant>,
    bypassing: Vec<String>,
    learning: Vec<String>,
}

impl BridgeReports {
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.read.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if is_due {
            self.read = Some(now);
        }
        is_due
    }
}

impl Worker {
    /// Counts and logs bridges that pass packets past netfilter, and those that can't be kept from learning from frames that no rule sees.
    pub(super) fn report_bridges(&mut self) {
        if !self.bridges.is_due(Instant::now()) {
            return;
        }
        let [bypassing, learning] = self.agent.data_plane().bridge_problems();
        self.metrics.bypassing_bridges.set(bypassing.len() as i64);
        if bypassing != self.bridges.bypassing {
            if bypassing.is_empty() {
                tracing::info!("bridges pass the packets of pods to netfilter again");
            } else {
                let bridges = bypassing.join(",");
                tracing::error!(
                    bridges,
                    "packets between pods on bridges bypass all policies, set net.bridge.bridge-nf-call-iptables and -ip6tables to 1"
                );
                let text = format!(
                    "packets between pods on {bridges} bypass all policies: net.bridge.bridge-nf-call-iptables or -ip6tables is 0"
                );
                self.errors.record("links", text);
            }
            self.bridges.bypassing = bypassing;
        }
        if learning != self.bridges.learning {
            if !learning.is_empty() {
                let bridges = learning.join(",");
                tracing::warn!(
                    bridges,
                    "cannot set no_linklocal_learn on bridges, so pods may receive packets for other pods of the bridge"
                );
            }
            self.bridges.learning = learning;
        }
    }
}

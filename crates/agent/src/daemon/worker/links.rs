//! Follows changes of the node's links.

mod bridges;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub(super) use bridges::BridgeReports;

use super::Worker;
use crate::error_chain;

/// How long the pod of a bridge port may be unknown before that is logged: a pod's interface is there before its address is known.
const UNBOUND_PATIENCE: Duration = Duration::from_secs(30);

/// The most names of interfaces in one log line.
const NAMED: usize = 8;

/// The bridge ports whose pods are not known.
#[derive(Debug, Default)]
pub(super) struct UnboundPorts {
    /// Since when, and whether it was logged, by index.
    ports: BTreeMap<u32, (Instant, bool)>,
}

impl UnboundPorts {
    /// Updates the ports. Returns the names of those to log now: each once.
    fn update(&mut self, unbound: &BTreeMap<u32, String>, now: Instant) -> Vec<String> {
        self.ports.retain(|index, _| unbound.contains_key(index));
        let mut due = Vec::new();
        for (index, name) in unbound {
            let (since, is_logged) = self.ports.entry(*index).or_insert((now, false));
            if !*is_logged && now.saturating_duration_since(*since) >= UNBOUND_PATIENCE {
                *is_logged = true;
                due.push(name.clone());
            }
        }
        due
    }
}

impl Worker {
    /// Logs features that the kernel lacks, and updates the rules that depend on the node's links.
    pub(super) fn follow_links(&mut self) {
        let missing = self.agent.data_plane().missing_features();
        if missing.len() > self.missing_features {
            self.missing_features = missing.len();
            missing.iter().for_each(|feature| feature.log());
        }
        self.agent.follow_wish_for_other_pods();
        match self.agent.data_plane().refresh_links() {
            Ok(None) => {}
            Ok(Some(commit)) => {
                self.generation = commit.generation;
                tracing::debug!(elements = commit.elements, "programmed a change of the node's links");
            }
            Err(error) => {
                let err = error_chain::with_causes(&error);
                tracing::error!(
                    err,
                    "cannot read the node's links, retrying; forged and tunnelled packets of pods may pass"
                );
                self.errors.record("links", err);
            }
        }
        self.report_unbound_ports();
        self.report_bridges();
    }

    /// Counts and logs bridge ports whose pods are not known.
    fn report_unbound_ports(&mut self) {
        let unbound = self.agent.data_plane().unbound_ports();
        self.metrics.unbound_ports.set(unbound.len() as i64);
        let due = self.unbound_ports.update(&unbound, Instant::now());
        if due.is_empty() {
            return;
        }
        let more = due.len().saturating_sub(NAMED);
        let ports = due.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(",");
        tracing::warn!(
            ports,
            more,
            "the pods behind bridge ports are unknown, so they may send from unassigned addresses"
        );
        self.errors.record("links", format!("bridge ports lead to pods that are not known: {ports}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unbound_port_is_logged_once_and_again_when_it_is_unbound_again() {
        let ports = |of: &[(u32, &str)]| of.iter().map(|(i, n)| (*i, (*n).to_owned())).collect();
        let (mut unbound, start) = (UnboundPorts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let one = ports(&[(7, "veth7")]);
        assert!(unbound.update(&one, at(0)).is_empty());
        assert!(unbound.update(&one, at(29)).is_empty());
        assert_eq!(unbound.update(&ports(&[(7, "veth7"), (8, "veth8")]), at(30)), ["veth7"]);
        assert!(unbound.update(&one, at(90)).is_empty());
        assert!(unbound.update(&BTreeMap::new(), at(91)).is_empty());
        assert!(unbound.update(&one, at(92)).is_empty());
        assert_eq!(unbound.update(&one, at(122)), ["veth7"]);
    }
}

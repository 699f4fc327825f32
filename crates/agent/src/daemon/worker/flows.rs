//! Keeps the records of flows true: what is known of an address is forgotten when its pod changes, and losses are counted in time.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_nft::conntrack::Events;
use palisade_policy::Change;

use super::{Worker, kernel_events};
use crate::{
    changed_addresses::changed_addresses,
    config::{Config, Flows},
    connections::ConnectionLog,
    daemon::shared::{Shared, Wording},
    error_chain,
    flow_logs::FlowLogs,
};

/// How often dropped packets are counted that the kernel did not log.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

impl Worker {
    /// What the records of this node are made with.
    fn flow_logs(&mut self) -> FlowLogs<'_> {
        FlowLogs { drops: &mut self.drops, connections: self.connections.as_mut() }
    }

    /// Forgets what is known of flows from and to changed pods. To be called before the changes are applied. Returns the addresses, which
    /// [`Worker::follow_local_pods`] takes afterwards.
    pub(super) fn forget_flows_of(&mut self, changes: &[Change]) -> HashSet<IpAddr> {
        let addresses = changed_addresses(changes, self.agent.reconciler().cluster());
        self.flow_logs().forget_ends(&addresses);
        addresses
    }

    /// Tells the thread that reads connections which addresses are those of the node's pods now.
    pub(super) fn follow_local_pods(&self, changed: &HashSet<IpAddr>) {
        if let Some(connections) = &self.connections {
            connections.seen().follow(changed, &self.agent.reconciler().plan().local);
        }
    }

    /// Forgets why flows were dropped or passed, if the changes are of anything but pods. To be called before they are applied.
    pub(super) fn forget_policies_of_flows(&mut self, changes: &[Change]) {
        self.flow_logs().forget_policies(changes);
    }

    /// Forgets everything, after a snapshot.
    pub(super) fn forget_all_flows(&mut self) {
        let Self { agent, drops, connections, .. } = self;
        let logs = FlowLogs { drops, connections: connections.as_mut() };
        logs.forget_all(&agent.reconciler().plan().local);
    }

    /// Starts to read connections. Called once.
    pub(super) fn read_connections(&mut self) {
        let events = match self.which_flows {
            Flows::Drops => return,
            Flows::New => Events::New,
            Flows::All => Events::NewAndEnded,
        };
        let Some(connections) = &self.connections else { return };
        let (inbox, metrics) = (Arc::clone(&self.inbox), Arc::clone(&self.metrics));
        let started = kernel_events::read_connections(events, Arc::clone(connections.seen()), inbox, metrics);
        if let Err(error) = started {
            let err = error_chain::with_causes(&error);
            tracing::warn!(err, "cannot start reading connections, they are not recorded");
            self.errors.record("drops", err);
        }
    }

    /// Makes records of connections that were seen.
    pub(super) fn record_connections(&mut self) {
        let world = (self.agent.reconciler(), self.generation);
        if let Some(connections) = &mut self.connections {
            connections.tick(world, Instant::now());
        }
    }

    /// Counts dropped packets that the kernel did not log, at intervals: without a scrape of the metrics, nothing else does.
    pub(super) fn count_losses(&mut self) {
        if self.drops_counted.elapsed() >= COUNT_INTERVAL {
            self.count_losses_now();
        }
    }

    /// The same at once.
    pub(super) fn count_losses_now(&mut self) {
        if self.log_group.is_some() {
            self.drops_counted = Instant::now();
            self.count_unlogged_drops();
        }
    }
}

/// Makes what records connections, if the settings say so and records go anywhere.
pub(super) fn connection_log(config: &Config, shared: &Shared, wording: &Wording) -> Option<ConnectionLog> {
    if config.flows == Flows::Drops {
        return None;
    }
    if !shared.flows.is_on() {
        tracing::warn!(
            "connections are not recorded: the setting flow-buffer is 0, and there is neither flow-file nor otlp-endpoint"
        );
        return None;
    }
    let (records, wording) = (Arc::clone(&shared.flows), Arc::clone(wording));
    let log = ConnectionLog::new(shared.node.clone(), Arc::default(), records, wording, config.log_drops);
    Some(log)
}

/// How many packets were dropped in the last minute.
#[derive(Debug, Default)]
pub(super) struct DropRate {
    /// Times and numbers of packets that were dropped until then, [`SAMPLE`] apart. The first is the latest that is at least a minute
    /// old, or the first of all.
    samples: VecDeque<(Instant, u64)>,
    /// The number until now.
    total: u64,
}

impl DropRate {
    /// Sets how many packets were dropped until now.
    pub(super) fn add(&mut self, now: Instant, total: u64) {
        self.total = total;
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.samples.back().is_none_or(|(at, _)| age(*at) >= SAMPLE) {
            self.samples.push_back((now, total));
        }
        while self.samples.get(1).is_some_and(|(at, _)| age(*at) >= MINUTE) {
            self.samples.pop_front();
        }
    }

    /// Returns the number. `None` if drops are not counted.
    pub(super) fn last_minute(&self) -> Option<u64> {
        let (_, first) = self.samples.front()?;
        Some(self.total.saturating_sub(*first))
    }
}

/// The period of [`DropRate`], and how far its samples are apart.
const MINUTE: Duration = Duration::from_secs(60);
const SAMPLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_of_the_last_minute_are_counted_from_a_bounded_number_of_samples() {
        let (mut rate, begin) = (DropRate::default(), Instant::now());
        assert_eq!(rate.last_minute(), None);
        rate.add(begin, 100);
        assert_eq!(rate.last_minute(), Some(0), "those before the first sample have no time");
        // Ten a second, asked for four times a second.
        for quarter in 1..=1200_u64 {
            rate.add(begin + Duration::from_millis(250) * quarter as u32, 100 + quarter * 10 / 4);
        }
        assert!(rate.last_minute().is_some_and(|drops| (590..=620).contains(&drops)), "{rate:?}");
        assert!(rate.samples.len() < 100, "{}", rate.samples.len());
    }
}

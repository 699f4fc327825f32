//! Connections between the thread that reads the kernel's announcements and the worker, which knows pods and policies.
//!
//! The thread adds up equal connections, and the worker takes the sums. Connections without a pod of the node are left out here: a busy node has
//! many. What is kept is bounded, with fair shares of the senders.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use palisade_nft::conntrack::{ConnectionEnd, ConntrackEntry};
use palisade_policy::Protocol;

/// The most different connections that wait for the worker, and that wait there for their records.
pub(super) const MAX_WAITING: usize = 4096;
/// The most of them with one sender.
pub(super) const MAX_WAITING_OF_SENDER: u32 = 256;

/// What equal connections have in common: all but the source port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Connection {
    pub(crate) source: IpAddr,
    /// After destination NAT.
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub(crate) port: u16,
    /// The destination before NAT, if it was translated.
    pub(crate) opened_to: Option<(IpAddr, u16)>,
    /// Whether it has ended. Otherwise it has begun.
    pub(crate) has_ended: bool,
}

impl Connection {
    pub(crate) fn of(entry: &ConntrackEntry, has_ended: bool) -> Self {
        Self {
            source: entry.source,
            destination: entry.destination,
            protocol: entry.protocol,
            port: entry.port,
            opened_to: entry.translated.then_some(entry.opened_to),
            has_ended,
        }
    }
}

/// The sum of equal connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) connections: u64,
    /// When the last one began or ended.
    pub(crate) time: Timestamp,
    /// Packets and bytes of those whose packets were counted.
    pub(crate) packets: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) longest: Option<Duration>,
}

impl Sum {
    /// One connection that began.
    pub(crate) fn of_new() -> Self {
        Self { connections: 1, time: Timestamp::now(), ..Self::default() }
    }

    /// One connection that ended.
    pub(crate) fn of_end(end: ConnectionEnd) -> Self {
        Self { packets: end.packets, bytes: end.bytes, longest: end.duration, ..Self::of_new() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (one, other) => one.or(other),
        };
        *self = Self {
            connections: self.connections.saturating_add(other.connections),
            time: self.time.max(other.time),
            packets: sum(self.packets, other.packets),
            bytes: sum(self.bytes, other.bytes),
            longest: self.longest.max(other.longest),
        };
    }
}

/// Connections that wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct SeenConnections(Mutex<Waiting>);

/// What has come since the last [`SeenConnections::take`].
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) connections: HashMap<Connection, Sum>,
    /// Connections that found no place.
    pub(crate) lost: u64,
    /// How often announcements were lost.
    pub(crate) overruns: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The addresses of the node's pods.
    local: HashSet<IpAddr>,
    taken: Taken,
    of_sender: HashMap<IpAddr, u32>,
    /// Why connections are not announced, though they should be.
    problem: Option<String>,
}

impl SeenConnections {
    /// Adds a connection, if a pod of the node has a part in it. Returns whether it is the first one to wait.
    pub(crate) fn add(&self, connection: Connection, sum: Sum) -> bool {
        let mut waiting = self.lock();
        let Waiting { local, taken, of_sender, .. } = &mut *waiting;
        let Some(sender) = sender(local, &connection) else { return false };
        let was_empty = taken.connections.is_empty();
        if let Some(known) = taken.connections.get_mut(&connection) {
            known.add(sum);
            return false;
        }
        let of_sender = of_sender.entry(sender).or_default();
        if taken.connections.len() >= MAX_WAITING || *of_sender >= MAX_WAITING_OF_SENDER {
            taken.lost = taken.lost.saturating_add(sum.connections);
            return false;
        }
        *of_sender += 1;
        taken.connections.insert(connection, sum);
        was_empty
    }

    /// Returns the address in whose share a connection is.
    pub(super) fn sender(&self, connection: &Connection) -> IpAddr {
        sender(&self.lock().local, connection).unwrap_or(connection.destination)
    }

    /// Counts a loss of announcements.
    pub(crate) fn add_overrun(&self) {
        self.lock().taken.overruns += 1;
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Taken {
        let mut waiting = self.lock();
        waiting.of_sender.clear();
        mem::take(&mut waiting.taken)
    }

    /// Sets the addresses of the node's pods.
    pub(crate) fn set_local(&self, local: &BTreeSet<IpAddr>) {
        self.lock().local = local.iter().copied().collect();
    }

    /// Sets whether addresses are among those of the node's pods.
    pub(crate) fn follow<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
        local: &BTreeSet<IpAddr>,
    ) {
        let mut waiting = self.lock();
        for address in addresses {
            match local.contains(address) {
                true => waiting.local.insert(*address),
                false => waiting.local.remove(address),
            };
        }
    }

    /// Sets why connections are not announced. Returns whether that is new.
    pub(crate) fn set_problem(&self, problem: Option<String>) -> bool {
        let mut waiting = self.lock();
        let is_new = waiting.problem != problem;
        waiting.problem = problem;
        is_new
    }

    /// Returns why connections are not announced, if they are not.
    pub(crate) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Ignores poisoning: after a panic at most one sum is off.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses that are not those of the node's pods may be forged: they share what is left for the receiving pod. `None` without such a pod.
fn sender(local: &HashSet<IpAddr>, connection: &Connection) -> Option<IpAddr> {
    [connection.source, connection.destination].into_iter().find(|end| local.contains(end))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn connection(source: [u8; 4], destination: [u8; 4], port: u16) -> Connection {
        Connection {
            source: source.into(),
            destination: destination.into(),
            protocol: Protocol::Tcp,
            port,
            opened_to: None,
            has_ended: false,
        }
    }

    const POD: [u8; 4] = [10, 0, 0, 1];
    const OTHER: [u8; 4] = [10, 0, 0, 2];
    const OUTSIDE: [u8; 4] = [192, 0, 2, 1];

    fn seen() -> SeenConnections {
        let seen = SeenConnections::default();
        seen.set_local(&BTreeSet::from([POD.into(), OTHER.into()]));
        seen
    }

    #[test]
    fn equal_connections_are_added_up_and_those_without_a_pod_left_out() {
        let seen = seen();
        assert!(seen.add(connection(POD, OUTSIDE, 443), Sum::of_new()), "the first one");
        assert!(!seen.add(connection(POD, OUTSIDE, 443), Sum::of_new()));
        assert!(!seen.add(connection(OUTSIDE, [10, 0, 9, 9], 443), Sum::of_new()));
        let taken = seen.take();
        let sums: Vec<u64> = taken.connections.values().map(|sum| sum.connections).collect();
        assert_eq!((sums, taken.lost), (vec![2], 0));
        assert!(seen.take().connections.is_empty());
        seen.follow(&[POD.into()], &BTreeSet::from([OTHER.into()]));
        assert!(!seen.add(connection(POD, OUTSIDE, 443), Sum::of_new()), "a pod that is gone");
    }

    #[test]
    fn a_flood_by_one_pod_leaves_room_for_others_and_is_counted() {
        let seen = seen();
        for port in 1..=10_000 {
            seen.add(connection(POD, OUTSIDE, port), Sum::of_new());
        }
        // Forged addresses count for the pod that receives.
        for host in 0..=255 {
            for port in 1..=4 {
                seen.add(connection([192, 0, 2, host], POD, port), Sum::of_new());
            }
        }
        assert!(!seen.add(connection(OTHER, OUTSIDE, 443), Sum::of_new()));
        let taken = seen.take();
        assert!(taken.connections.contains_key(&connection(OTHER, OUTSIDE, 443)));
        assert_eq!(taken.connections.len(), MAX_WAITING_OF_SENDER as usize + 1);
        assert_eq!(taken.lost, 10_000 + 1024 - u64::from(MAX_WAITING_OF_SENDER));
    }

    #[test]
    fn what_was_counted_at_the_end_is_added_up() {
        let end = |packets, milliseconds| ConnectionEnd {
            packets,
            bytes: packets.map(|packets| packets * 100),
            duration: Some(Duration::from_millis(milliseconds)),
        };
        let mut sum = Sum::of_end(end(Some(3), 20));
        sum.add(Sum::of_end(end(Some(4), 10)));
        sum.add(Sum::of_end(end(None, 5)));
        assert_eq!((sum.connections, sum.packets, sum.bytes), (3, Some(7), Some(700)));
        assert_eq!(sum.longest, Some(Duration::from_millis(20)));
    }
}

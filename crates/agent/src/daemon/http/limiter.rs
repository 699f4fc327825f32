//! Limits on concurrent connections, per peer and in total.
//!
//! Any client that can reach the port can open idle connections. They must not lock out other clients, and their cost must
//! not grow with their number. A new connection therefore evicts the one that has been open longest without sending its
//! request, since real clients send theirs at once. It is refused only if every connection is waiting for its response.

use std::{
    collections::BTreeMap,
    future,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// How many connections are served at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For all peers together.
    pub(super) total: usize,
    /// For each peer.
    pub(super) per_peer: usize,
}

/// Assigns slots to connections.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    limits: Limits,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Open connections in the order of their arrival.
    open: BTreeMap<u64, OpenConnection>,
    next: u64,
}

#[derive(Debug)]
struct OpenConnection {
    peer: IpAddr,
    /// Evicts the connection. `None` once its request has arrived.
    evict: Option<oneshot::Sender<()>>,
}

/// The slot of one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
}

/// Resolves when the connection is evicted.
#[derive(Debug)]
pub(super) struct Eviction(oneshot::Receiver<()>);

/// What [`ConnectionLimiter::admit`] returns.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) slot: Slot,
    pub(super) eviction: Eviction,
    /// Whether another connection was evicted for this one.
    pub(super) has_evicted: bool,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, connections: Mutex::default() })
    }

    /// Admits a connection from `client`, evicting an idle one if necessary. `None` if all connections that could make room
    /// have sent their requests. `O(connections)`.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admission> {
        let peer = peer(client);
        let mut connections = self.lock();
        let of_peer = connections.open.values().filter(|connection| connection.peer == peer).count();
        let mut has_evicted = false;
        if of_peer >= self.limits.per_peer {
            connections.evict_oldest_idle(|connection| connection.peer == peer)?;
            has_evicted = true;
        }
        if connections.open.len() >= self.limits.total {
            connections.evict_oldest_idle(|_| true)?;
            has_evicted = true;
        }
        let number = connections.next;
        connections.next += 1;
        let (evict, evicted) = oneshot::channel();
        connections.open.insert(number, OpenConnection { peer, evict: Some(evict) });
        let slot = Slot { limiter: Arc::clone(self), number };
        Some(Admission { slot, eviction: Eviction(evicted), has_evicted })
    }

    /// Ignores poisoning: each change is a single insertion or removal, so the value is consistent after a panic.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// Evicts the oldest connection that has not sent a request, among those that match `filter`.
    fn evict_oldest_idle(&mut self, filter: impl Fn(&OpenConnection) -> bool) -> Option<()> {
        let oldest =
            self.open.iter().find(|(_, connection)| connection.evict.is_some() && filter(connection));
        let number = *oldest?.0;
        let evict = self.open.remove(&number)?.evict?;
        // The connection may have ended meanwhile.
        _ = evict.send(());
        Some(())
    }
}

impl Slot {
    /// Records that the request has arrived: the connection keeps its slot until it is answered.
    pub(super) fn request_received(&self) {
        if let Some(connection) = self.limiter.lock().open.get_mut(&self.number) {
            connection.evict = None;
        }
    }
}

impl Eviction {
    /// Waits until the connection is evicted; never returns if it isn't.
    pub(super) async fn wait(self) {
        if self.0.await.is_err() {
            future::pending::<()>().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limiter.lock().open.remove(&self.number);
    }
}

/// The unit that [`Limits::per_peer`] counts: an IPv4 address, or an IPv6 /64, of which one host has all addresses.
fn peer(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 3, per_peer: 2 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admit(limiter: &Arc<ConnectionLimiter>, client: &str) -> Option<Admission> {
        limiter.admit(address(client))
    }

    fn is_evicted(admission: &mut Admission) -> bool {
        admission.eviction.0.try_recv().is_ok()
    }

    #[test]
    fn a_new_connection_evicts_the_oldest_idle_one_of_its_peer_then_of_all_peers() {
        let limiter = ConnectionLimiter::new(LIMITS);
        let mut other = admit(&limiter, "10.0.0.9").unwrap();
        let mut first = admit(&limiter, "10.0.0.1").unwrap();
        let mut second = admit(&limiter, "10.0.0.1").unwrap();
        let mut third = admit(&limiter, "10.0.0.1").unwrap();
        assert!(third.has_evicted && is_evicted(&mut first) && !is_evicted(&mut other));
        let _fourth = admit(&limiter, "10.0.0.2").unwrap();
        assert!(is_evicted(&mut other), "the oldest of all");
        drop((other, first));
        assert!(!is_evicted(&mut second) && !is_evicted(&mut third));
        assert_eq!(limiter.lock().open.len(), 3);
    }

    #[test]
    fn a_connection_with_a_request_is_not_evicted_and_frees_its_slot_when_it_ends() {
        let limiter = ConnectionLimiter::new(LIMITS);
        let clients = ["10.0.0.1", "10.0.0.1", "10.0.0.2"];
        let mut admitted: Vec<Admission> =
            clients.iter().map(|client| admit(&limiter, client).unwrap()).collect();
        admitted.iter().for_each(|admission| admission.slot.request_received());
        assert!(admit(&limiter, "10.0.0.1").is_none() && admit(&limiter, "10.0.0.3").is_none());
        assert!(admitted.iter_mut().all(|admission| !is_evicted(admission)));
        drop(admitted);
        assert!(!admit(&limiter, "10.0.0.1").unwrap().has_evicted);
    }

    #[test]
    fn all_addresses_of_a_host_are_one_peer() {
        assert_eq!(peer(address("2001:db8::1")), peer(address("2001:db8::ffff:0:0:1")));
        assert_ne!(peer(address("2001:db8::1")), peer(address("2001:db8:0:1::1")));
        assert_eq!(peer(address("::ffff:10.0.0.1")), address("10.0.0.1"), "on a dual-stack socket");
        assert_ne!(peer(address("10.0.0.1")), peer(address("10.0.0.2")));
    }
}

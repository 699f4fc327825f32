//! Room for connections: how many are served at once, of one peer and of all.
//!
//! Any client that can reach the port can open idle connections. These must not keep other clients out, and their cost must
//! not grow with their number. A new connection therefore displaces the one that has been open longest without sending
//! its request, since real clients send theirs at once. It is refused only if all connections are being answered.

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
    /// Of all peers together.
    pub(super) overall: usize,
    /// Of one peer.
    pub(super) of_one: usize,
}

/// Connections being served.
#[derive(Debug)]
pub(super) struct Room {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// In the order of their arrival.
    taken: BTreeMap<u64, Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    peer: IpAddr,
    /// Tells the connection to close. `None`: its request has come, and it may stay.
    waits: Option<oneshot::Sender<()>>,
}

/// A connection's place. Dropping it gives the place away.
#[derive(Debug)]
pub(super) struct Guest {
    room: Arc<Room>,
    number: u64,
}

/// Hears when another connection takes the place.
#[derive(Debug)]
pub(super) struct Displaced(oneshot::Receiver<()>);

impl Room {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, places: Mutex::default() })
    }

    /// A place for a connection from `from`. `None`: all that it could have are taken by requests being answered.
    /// `O(places)`.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Entered> {
        let peer = peer(from);
        let mut places = self.lock();
        let of_peer = places.taken.values().filter(|place| place.peer == peer).count();
        let mut displaced = false;
        if of_peer >= self.limits.of_one {
            places.displace(|place| place.peer == peer)?;
            displaced = true;
        }
        if places.taken.len() >= self.limits.overall {
            places.displace(|_| true)?;
            displaced = true;
        }
        let number = places.next;
        places.next += 1;
        let (waits, until) = oneshot::channel();
        places.taken.insert(number, Place { peer, waits: Some(waits) });
        Some(Entered { guest: Guest { room: Arc::clone(self), number }, until: Displaced(until), displaced })
    }

    /// Ignores poisoning: each change is a single insertion or removal, so the value is consistent after a panic.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Room::enter`] gives.
#[derive(Debug)]
pub(super) struct Entered {
    /// The place.
    pub(super) guest: Guest,
    /// When it is lost to another connection.
    pub(super) until: Displaced,
    /// Whether another connection lost its place.
    pub(super) displaced: bool,
}

impl Places {
    /// Closes the oldest waiting connection among some.
    fn displace(&mut self, among: impl Fn(&Place) -> bool) -> Option<()> {
        let oldest = self.taken.iter().find(|(_, place)| place.waits.is_some() && among(place));
        let number = *oldest?.0;
        let waits = self.taken.remove(&number)?.waits?;
        // It may have ended meanwhile.
        _ = waits.send(());
        Some(())
    }
}

impl Guest {
    /// The request has come: the connection keeps its place until it is answered.
    pub(super) fn settle(&self) {
        if let Some(place) = self.room.lock().taken.get_mut(&self.number) {
            place.waits = None;
        }
    }
}

impl Displaced {
    /// Waits for it; for ever if it doesn't happen.
    pub(super) async fn wait(self) {
        if self.0.await.is_err() {
            future::pending::<()>().await;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.room.lock().taken.remove(&self.number);
    }
}

/// Who counts as one peer: an IPv4 address, or a /64 of IPv6, of which one host has all addresses.
fn peer(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
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

    const LIMITS: Limits = Limits { overall: 3, of_one: 2 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn enter(room: &Arc<Room>, from: &str) -> Option<Entered> {
        room.enter(address(from))
    }

    fn is_displaced(entered: &mut Entered) -> bool {
        entered.until.0.try_recv().is_ok()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_its_peers_oldest_waiting_connection_then_of_anybodys() {
        let room = Room::new(LIMITS);
        let mut other = enter(&room, "10.0.0.9").unwrap();
        let mut first = enter(&room, "10.0.0.1").unwrap();
        let mut second = enter(&room, "10.0.0.1").unwrap();
        let mut third = enter(&room, "10.0.0.1").unwrap();
        assert!(third.displaced && is_displaced(&mut first) && !is_displaced(&mut other));
        let _fourth = enter(&room, "10.0.0.2").unwrap();
        assert!(is_displaced(&mut other), "the oldest of all");
        drop((other, first));
        assert!(!is_displaced(&mut second) && !is_displaced(&mut third));
        assert_eq!(room.lock().taken.len(), 3);
    }

    #[test]
    fn a_request_keeps_its_place_and_one_that_ends_leaves_it() {
        let room = Room::new(LIMITS);
        let mut entered: Vec<Entered> =
            ["10.0.0.1", "10.0.0.1", "10.0.0.2"].iter().map(|from| enter(&room, from).unwrap()).collect();
        entered.iter().for_each(|entered| entered.guest.settle());
        assert!(enter(&room, "10.0.0.1").is_none() && enter(&room, "10.0.0.3").is_none());
        assert!(entered.iter_mut().all(|entered| !is_displaced(entered)));
        drop(entered);
        assert!(!enter(&room, "10.0.0.1").unwrap().displaced);
    }

    #[test]
    fn all_addresses_of_a_host_are_one_peer() {
        assert_eq!(peer(address("2001:db8::1")), peer(address("2001:db8::ffff:0:0:1")));
        assert_ne!(peer(address("2001:db8::1")), peer(address("2001:db8:0:1::1")));
        assert_eq!(peer(address("::ffff:10.0.0.1")), address("10.0.0.1"), "on a socket for both families");
        assert_ne!(peer(address("10.0.0.1")), peer(address("10.0.0.2")));
    }
}

//! The kernel announces new and ended connections: real packets over the loopback device.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel,
    conntrack::{ConnectionEvent, ConnectionEvents, ConntrackEntry, Events, delete_older},
};
use palisade_policy::{NodePlan, Protocol};

use crate::{
    revocation::{PATIENCE, SILENCE, loopback_up},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("connections_are_announced_when_they_begin_and_end", announced),
        trial("nothing_is_announced_if_the_kernel_is_not_to", not_announced),
        trial("announcements_that_are_not_read_are_lost_and_said", lost),
    ]
}

fn next(events: &mut ConnectionEvents) -> ConnectionEvent {
    loop {
        if let Some(event) = events.read().unwrap() {
            return event;
        }
        assert!(events.wait(PATIENCE).unwrap(), "nothing came");
    }
}

fn ends(entry: &ConntrackEntry) -> (SocketAddr, SocketAddr, Protocol) {
    let end = SocketAddr::new;
    (end(entry.source, entry.source_port), end(entry.destination, entry.port), entry.protocol)
}

fn announced() {
    loopback_up();
    // Connections are tracked while a rule needs it.
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    fs::write("/proc/sys/net/netfilter/nf_conntrack_acct", "1").unwrap();
    fs::write("/proc/sys/net/netfilter/nf_conntrack_timestamp", "1").unwrap();
    ConnectionEvents::are_enabled().unwrap();
    let mut events = ConnectionEvents::open(Events::NewAndEnded).unwrap();
    let mut only_new = ConnectionEvents::open(Events::New).unwrap();
    assert_eq!(events.read().unwrap(), None);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer: SocketAddr = "127.0.0.2:5353".parse().unwrap();
    for _ in 0..3 {
        socket.send_to(&[0; 72], peer).unwrap();
    }
    let ConnectionEvent::New(entry) = next(&mut events) else { panic!("not new") };
    assert_eq!(ends(&entry), (socket.local_addr().unwrap(), peer, Protocol::Udp));
    assert_eq!((entry.translated, entry.opened_to), (false, (peer.ip(), peer.port())));
    delete_older(enforcer.kernel(), &[peer.ip()].into()).unwrap();
    let ConnectionEvent::Ended(entry, end) = next(&mut events) else { panic!("not ended") };
    assert_eq!(ends(&entry), (socket.local_addr().unwrap(), peer, Protocol::Udp));
    assert_eq!((end.packets, end.bytes), (Some(3), Some(300)));
    assert!(end.duration.is_some_and(|time| time < PATIENCE));
    assert!(matches!(next(&mut only_new), ConnectionEvent::New(_)));
    assert!(!only_new.wait(SILENCE).unwrap(), "it reads no ends");
}

fn not_announced() {
    loopback_up();
    let (_enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let events = ConnectionEvents::open(Events::NewAndEnded).unwrap();
    fs::write("/proc/sys/net/netfilter/nf_conntrack_events", "0").unwrap();
    let why = ConnectionEvents::are_enabled().unwrap_err();
    assert!(why.contains("nf_conntrack_events is 0"), "{why}");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.2:53").unwrap();
    assert!(!events.wait(SILENCE).unwrap());
}

fn lost() {
    loopback_up();
    let (_enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let mut events = ConnectionEvents::with_buffer(Events::New, 8 << 10).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in 1..=1000 {
        socket.send_to(b"x", ("127.0.0.2", port)).unwrap();
    }
    let (mut new, mut overruns) = (0, 0);
    while events.wait(Duration::from_millis(200)).unwrap() {
        match events.read().unwrap() {
            Some(ConnectionEvent::New(_)) => new += 1,
            Some(ConnectionEvent::Lost) => overruns += 1,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    assert!(new > 0 && new < 1000 && overruns > 0, "{new} {overruns}");
}

//! `conntrack-labels`: whether a tracked connection can be marked as revoked.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use palisade_netns::rtnetlink::{LOOPBACK, Netlink};
use palisade_nft::{
    Enforcer,
    conntrack::{self, Revocation},
};

use crate::finding::{Outcome, chain};

const CURE: &str = "load nf_conntrack and nf_conntrack_netlink, or run a kernel with CONFIG_NF_CT_NETLINK and CONFIG_NF_CONNTRACK_LABELS";

/// Revokes a connection over the loopback device.
pub(super) fn check(enforcer: &mut Enforcer) -> Outcome {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let socket = match send_to_self(here) {
        Ok(socket) => socket,
        Err(e) => return Outcome::unknown(format!("cannot send over the loopback device: {e}"), CURE),
    };
    let found = conntrack::list(enforcer.kernel(), &BTreeSet::from([here]));
    drop(socket);
    let revoked = found.and_then(|connections| {
        connections.first().map(|connection| conntrack::revoke(enforcer.kernel(), connection)).transpose()
    });
    match revoked {
        Ok(Some(Revocation::Labeled)) => {
            Outcome::ok("connections are tracked, and can be revoked by a label")
        }
        Ok(Some(Revocation::Replaced | Revocation::Deleted | Revocation::Gone)) => Outcome::warn(
            "conntrack entries have no labels: connections are revoked by the set of revoked connections only",
            CURE,
        ),
        Ok(None) => Outcome::fail("a connection was not tracked", CURE),
        Err(e) => Outcome::fail(chain(&e), CURE),
    }
}

/// Sends a packet over the loopback device, which is down in a new network namespace.
fn send_to_self(address: IpAddr) -> io::Result<UdpSocket> {
    Netlink::open().and_then(|mut netlink| netlink.link_up(LOOPBACK).commit()).map_err(io::Error::other)?;
    let socket = UdpSocket::bind((address, 0))?;
    socket.send_to(b"palisade", socket.local_addr()?)?;
    Ok(socket)
}

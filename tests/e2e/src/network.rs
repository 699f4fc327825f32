//! The network of a run: a bridge to which the nodes are connected, as machines to a switch.
//!
//! ```text
//!   control plane, clients from outside         172.30.0.1, .2   fd00:30::1, ::2
//!     └─ bridge "switch" ── eth0 of n1          172.30.0.11      fd00:30::11     pods 10.244.1.0/24  fd00:10:244:1::/64
//!                       └── eth0 of n2          172.30.0.12      fd00:30::12     pods 10.244.2.0/24  fd00:10:244:2::/64
//! ```
//!
//! Every namespace has routes to the pods of each node, through that node's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use palisade_netns::{
    namespace::{Namespace, set_sysctls},
    rtnetlink::{LOOPBACK, LinkEnd, Netlink, Route},
};

/// The nodes' names. The first one is number 1.
pub const NODES: [&str; 2] = ["n1", "n2"];
/// The networks of all pods.
pub const PODS: &str = "10.244.0.0/16,fd00:10:244::/48";

const SWITCH: u32 = 10;
const ETH0: u32 = 2;
const NODES_V4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(172, 30, 0, 0)), 24);
const NODES_V6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0)), 64);

/// The addresses of the switch's side: the control plane's, which is that of the first client too, and those of a second client.
#[must_use]
pub fn outside(number: u8) -> [IpAddr; 2] {
    on_switch(number)
}

/// The addresses of a node.
#[must_use]
pub fn node(number: u8) -> [IpAddr; 2] {
    on_switch(10 + number)
}

fn on_switch(host: u8) -> [IpAddr; 2] {
    // The same digits in both families.
    let last = u16::from_str_radix(&host.to_string(), 16).unwrap_or_default();
    [Ipv4Addr::new(172, 30, 0, host).into(), Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, last).into()]
}

/// The networks of a node's pods, by family.
#[must_use]
pub fn pods(number: u8) -> [(IpAddr, u8); 2] {
    [
        (Ipv4Addr::new(10, 244, number, 0).into(), 24),
        (Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 0).into(), 64),
    ]
}

/// Builds the switch in the calling thread's namespace.
///
/// # Errors
/// If the kernel refuses something.
pub fn build_switch() -> Result<()> {
    // What passes the switch is forwarded between ports, and no business of this namespace's rules.
    set_sysctls(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ])?;
    let mut netlink = Netlink::open()?;
    netlink.bridge(&LinkEnd { name: "switch".into(), index: SWITCH, mac: mac(1) });
    for number in [1, 2] {
        for address in outside(number) {
            netlink.address(SWITCH, address, false);
        }
    }
    for network in [NODES_V4, NODES_V6] {
        netlink.route(&Route { to: network, via: None, link: SWITCH, source: None });
    }
    Ok(netlink.commit()?)
}

/// Connects a node to the switch, which is in the calling thread's namespace.
///
/// # Errors
/// If the kernel refuses something.
pub fn connect(number: u8, namespace: &Namespace) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let port = u32::from(10 + number);
    let end = LinkEnd { name: format!("port{number}"), index: port, mac: mac(100 + number) };
    let eth0 = LinkEnd { name: "eth0".into(), index: ETH0, mac: mac(10 + number) };
    netlink.veth(&end, &eth0, namespace).bridge_port(port, SWITCH, false).commit()?;
    namespace.run(|| set_up_node(number))??;
    route_pods(&mut netlink, SWITCH, number);
    Ok(netlink.commit()?)
}

/// Sets up a node's side, in its namespace.
fn set_up_node(number: u8) -> Result<()> {
    // What every installer of Kubernetes sets on a node; docs/install.md has those of bridges as a requirement.
    set_sysctls(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/eth0/accept_dad", "0"),
        ("bridge/bridge-nf-call-iptables", "1"),
        ("bridge/bridge-nf-call-ip6tables", "1"),
    ])?;
    let mut netlink = Netlink::open()?;
    netlink.link_up(LOOPBACK).link_up(ETH0);
    for address in node(number) {
        netlink.address(ETH0, address, false);
    }
    for network in [NODES_V4, NODES_V6] {
        netlink.route(&Route { to: network, via: None, link: ETH0, source: None });
    }
    for (gateway, any) in
        outside(1).into_iter().zip([IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()])
    {
        netlink.route(&Route { to: (any, 0), via: Some(gateway), link: ETH0, source: None });
    }
    for other in (1..).take(NODES.len()).filter(|n| *n != number) {
        route_pods(&mut netlink, ETH0, other);
    }
    netlink.commit().with_context(|| format!("cannot set up the network of node {number}"))
}

/// Queues the routes to a node's pods.
fn route_pods(netlink: &mut Netlink, link: u32, number: u8) {
    for (network, gateway) in pods(number).into_iter().zip(node(number)) {
        netlink.route(&Route { to: network, via: Some(gateway), link, source: None });
    }
}

fn mac(last: u8) -> [u8; 6] {
    [0x02, 0xe2, 0xe0, 0, 0, last]
}

//! An overlay between the nodes: VXLAN devices, and routes through them.

use std::net::IpAddr;

use libtest_mimic::Failed;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::{
    capture::Mac,
    testbed::{NEAR, Testbed},
};

/// A VXLAN device of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vxlan {
    pub(crate) name: &'static str,
    /// The interface index, different from those of the lab.
    pub(crate) index: u32,
    /// The network identifier.
    pub(crate) id: u32,
    /// The UDP port.
    pub(crate) port: u16,
}

/// Returns the hardware address of a node's tunnel devices.
pub(crate) fn mac(node: &str) -> Mac {
    [2, 0, 0, 0, 0, if node == NEAR { 0xa1 } else { 0xa2 }]
}

/// Creates a device on a node. Its packets go to the node at `remote`.
pub(crate) fn add(
    testbed: &Testbed,
    node: &str,
    device: Vxlan,
    local: IpAddr,
    remote: IpAddr,
) -> Result<(), Failed> {
    let ends = match (local, remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => [InfoVxlan::Local(local), InfoVxlan::Group(remote)],
        (IpAddr::V6(local), IpAddr::V6(remote)) => [InfoVxlan::Local6(local), InfoVxlan::Group6(remote)],
        _ => return Err("one family".into()),
    };
    let mut data = vec![InfoVxlan::Id(device.id), InfoVxlan::Port(device.port)];
    data.extend(ends);
    let mut link = LinkMessage::default();
    link.header.index = device.index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(device.name.into()),
        LinkAttribute::Address(mac(node).to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]),
    ];
    request(testbed, node, RouteNetlinkMessage::NewLink(link), NLM_F_CREATE)
}

/// Adds a route on a node that sends packets for a pod of the node `peer` through a device.
pub(crate) fn route_through(
    testbed: &Testbed,
    node: &str,
    device: Vxlan,
    peer: &str,
    to: IpAddr,
) -> Result<(), Failed> {
    let (family, address, prefix) = match to {
        IpAddr::V4(a) => (AddressFamily::Inet, RouteAddress::Inet(a), 32),
        IpAddr::V6(a) => (AddressFamily::Inet6, RouteAddress::Inet6(a), 128),
    };
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = family;
    neighbour.header.ifindex = device.index;
    neighbour.header.state = NeighbourState::Permanent;
    let destination = match to {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    };
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac(peer).to_vec()),
    ];
    request(testbed, node, RouteNetlinkMessage::NewNeighbour(neighbour), NLM_F_CREATE | NLM_F_REPLACE)?;
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.destination_prefix_length = prefix;
    route.header.table = 254;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Destination(address), RouteAttribute::Oif(device.index)];
    // Replaces the route of the lab (IPv4, where both have metric 0), or has a better metric than it (IPv6).
    if to.is_ipv6() {
        route.attributes.push(RouteAttribute::Priority(1));
    }
    request(testbed, node, RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
}

fn request(testbed: &Testbed, node: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), Failed> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = testbed.within(node, || Socket::new(NETLINK_ROUTE))??;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?.payload {
        NetlinkPayload::Error(e) if e.code.is_some() => {
            Err(format!("{node}: {}: {request:?}", e.to_io()).into())
        }
        _ => Ok(()),
    }
}

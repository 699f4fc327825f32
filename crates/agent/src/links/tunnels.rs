//! Tunnel devices: the ports and protocols by which they receive packets, and their remote endpoints.

use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoGre, InfoGre6, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute,
    LinkInfo, LinkMessage,
};
use palisade_nft::NodeLinks;

/// The kernel's defaults for devices without a port: 8472 for VXLAN (`IANA_VXLAN_UDP_PORT` is set by user space),
/// `GENEVE_UDP_PORT`, `GTP1U_PORT`.
const VXLAN: u16 = 8472;
const GENEVE: u16 = 6081;
const GTP: u16 = 2152;

/// IP protocol numbers: IPv4, IPv6 and MPLS in IP, and GRE.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const MPLS: u8 = 137;

/// Adds the ports, protocols and remote endpoints of a tunnel device. WireGuard and IPsec are not included: their packets are
/// authenticated.
pub(super) fn add(link: &LinkMessage, out: &mut NodeLinks) {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    for info in infos.flatten() {
        match info {
            LinkInfo::Kind(kind) => add_kind(kind, out),
            LinkInfo::Data(data) => add_data(data, out),
            _ => {}
        }
    }
    let add_default_port = |kind: &InfoKind, port: u16, out: &mut NodeLinks| {
        let is_kind = link.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(kind.clone())))
        });
        if is_kind && port_of(link).is_none() {
            out.tunnel_ports.insert(port);
        }
    };
    add_default_port(&InfoKind::Vxlan, VXLAN, out);
    add_default_port(&InfoKind::Geneve, GENEVE, out);
}

fn add_kind(kind: &InfoKind, out: &mut NodeLinks) {
    match kind {
        InfoKind::IpIp | InfoKind::SitTun | InfoKind::Ip6Tnl => {
            out.tunnel_protocols.extend([IPV4, IPV6, MPLS]);
        }
        InfoKind::GreTun
        | InfoKind::GreTap
        | InfoKind::GreTun6
        | InfoKind::GreTap6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan => drop(out.tunnel_protocols.insert(GRE)),
        InfoKind::Gtp => drop(out.tunnel_ports.insert(GTP)),
        _ => {}
    }
}

/// Returns the UDP port of a device.
fn port_of(link: &LinkMessage) -> Option<u16> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else { return None };
        infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => data.iter().find_map(|one| match one {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            }),
            LinkInfo::Data(InfoData::Geneve(data)) => data.iter().find_map(|one| match one {
                InfoGeneve::Port(port) => Some(*port),
                _ => None,
            }),
            _ => None,
        })
    })
}

fn add_data(data: &InfoData, out: &mut NodeLinks) {
    let mut ports: Vec<u16> = Vec::new();
    let mut peers: Vec<IpAddr> = Vec::new();
    match data {
        InfoData::Vxlan(data) => data.iter().for_each(|one| match one {
            InfoVxlan::Port(port) => ports.push(*port),
            InfoVxlan::Group(peer) => peers.push((*peer).into()),
            InfoVxlan::Group6(peer) => peers.push((*peer).into()),
            _ => {}
        }),
        InfoData::Geneve(data) => data.iter().for_each(|one| match one {
            InfoGeneve::Port(port) => ports.push(*port),
            InfoGeneve::Remote(peer) => peers.push((*peer).into()),
            InfoGeneve::Remote6(peer) => peers.push((*peer).into()),
            _ => {}
        }),
        // Foo over UDP: the remote end listens on the port to which this end sends. Usually both use the same port.
        InfoData::IpTunnel(data) => data.iter().for_each(|one| match one {
            InfoIpTunnel::EncapDPort(port) => ports.push(*port),
            InfoIpTunnel::Remote(peer) => peers.push(*peer),
            _ => {}
        }),
        InfoData::GreTun(data) | InfoData::GreTap(data) | InfoData::ErSpan(data) => {
            data.iter().for_each(|one| match one {
                InfoGre::DestinationPort(port) => ports.push(*port),
                InfoGre::Remote(peer) => peers.push((*peer).into()),
                _ => {}
            });
        }
        InfoData::GreTun6(data) | InfoData::GreTap6(data) | InfoData::Ip6ErSpan(data) => {
            peers.extend(data.iter().filter_map(|one| match one {
                InfoGre6::Remote(peer) => Some(IpAddr::from(*peer)),
                _ => None,
            }));
        }
        InfoData::BareUdp(data) => data.iter().for_each(|one| {
            if let InfoBareUdp::Port(port) = one {
                ports.push(*port);
            }
        }),
        _ => {}
    }
    out.tunnel_ports.extend(ports.into_iter().filter(|port| *port != 0));
    out.tunnel_peers.extend(peers.into_iter().filter(|peer| !peer.is_unspecified()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: InfoKind, data: Option<InfoData>) -> LinkMessage {
        let mut message = LinkMessage::default();
        let infos = [LinkInfo::Kind(kind)].into_iter().chain(data.map(LinkInfo::Data)).collect();
        message.attributes.push(LinkAttribute::LinkInfo(infos));
        message
    }

    fn added(kind: InfoKind, data: Option<InfoData>) -> NodeLinks {
        let mut out = NodeLinks::default();
        add(&link(kind, data), &mut out);
        out
    }

    #[test]
    fn a_vxlan_device_adds_its_port_and_remote_endpoint() {
        let peer = std::net::Ipv4Addr::new(10, 0, 0, 9);
        let data = InfoData::Vxlan(vec![InfoVxlan::Port(4789), InfoVxlan::Group(peer)]);
        let out = added(InfoKind::Vxlan, Some(data));
        assert_eq!(out.tunnel_ports, [4789].into());
        assert_eq!(out.tunnel_peers, [peer.into()].into());
        assert_eq!(added(InfoKind::Vxlan, None).tunnel_ports, [VXLAN].into());
        assert_eq!(added(InfoKind::Geneve, None).tunnel_ports, [GENEVE].into());
    }

    #[test]
    fn tunnels_without_ports_add_their_protocols() {
        assert_eq!(added(InfoKind::IpIp, None).tunnel_protocols, [IPV4, IPV6, MPLS].into());
        assert_eq!(added(InfoKind::GreTap6, None).tunnel_protocols, [GRE].into());
        for none in [InfoKind::Veth, InfoKind::Bridge, InfoKind::Wireguard] {
            assert_eq!(added(none, None), NodeLinks::default());
        }
    }

    #[test]
    fn an_unspecified_remote_endpoint_adds_nothing() {
        let any = IpAddr::from([0, 0, 0, 0]);
        let data = InfoData::IpTunnel(vec![InfoIpTunnel::Remote(any), InfoIpTunnel::EncapDPort(0)]);
        let out = added(InfoKind::IpIp, Some(data));
        assert!(out.tunnel_peers.is_empty() && out.tunnel_ports.is_empty(), "{out:?}");
    }
}

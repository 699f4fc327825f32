//! A node with pods, in the calling thread's network namespace.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use palisade_netns::{
    Namespace,
    rtnetlink::{LOOPBACK, LinkEnd, Netlink, Route},
};

/// The index of the bridge.
pub(crate) const BRIDGE: u32 = 900;
/// The index of the node's other interface, by which its default routes lead.
const OUTSIDE: u32 = 901;

/// Where a pod's interface on the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// A port of the bridge, to which the route to all pods leads.
    Bridged,
    /// An interface of its own, with a route to the pod.
    Routed,
}

/// A pod on the node.
pub(crate) struct Pod {
    pub(crate) addresses: [IpAddr; 2],
    _namespace: Namespace,
}

/// The node's part of its pods' network.
pub(crate) struct Node {
    pub(crate) netlink: Netlink,
    attachment: Attachment,
    /// What the default route leads to.
    _outside: Namespace,
}

fn end(name: String, index: u32) -> LinkEnd {
    let [_, _, c, d] = index.to_be_bytes();
    LinkEnd { name, index, mac: [2, 0, 0, 0, c, d] }
}

/// Sets the bridge's forward delay to zero. Otherwise the kernel notifies of each port once more after 15 seconds.
fn forward_at_once() {
    let mut message = LinkMessage::default();
    message.header.index = BRIDGE;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
    ]));
    assert!(Place::here().request(RouteNetlinkMessage::NewLink(message), 0));
}

/// Returns an interface of the calling thread's network namespace.
pub(crate) fn link(index: u32) -> LinkMessage {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let Some(RouteNetlinkMessage::NewLink(link)) = Place::here().ask(RouteNetlinkMessage::GetLink(request))
    else {
        panic!("no interface {index}");
    };
    link
}

/// Returns the index of the interface that leads to pod `n`.
pub(crate) fn index_of(n: u16) -> u32 {
    1000 + u32::from(n)
}

impl Node {
    pub(crate) fn new(attachment: Attachment) -> Self {
        let mut netlink = Netlink::open().unwrap();
        let outside = Namespace::create(|| ()).unwrap().0;
        netlink.link_up(LOOPBACK);
        let (own, other) = (end("eth0".into(), OUTSIDE), end("eth0".into(), 2));
        netlink.veth(&own, &other, &outside).bridge(&end("cni0".into(), BRIDGE));
        let (everywhere, via) = (IpAddr::from([0; 4]), Some(IpAddr::from([192, 168, 0, 1])));
        netlink.address(OUTSIDE, IpAddr::from([192, 168, 0, 2]), false);
        netlink.route(&Route { to: (everywhere, 0), via, link: OUTSIDE, source: None });
        if attachment == Attachment::Bridged {
            for (to, length) in [(IpAddr::from([10, 244, 0, 0]), 16), ("fd00:244::".parse().unwrap(), 64)] {
                netlink.route(&Route { to: (to, length), via: None, link: BRIDGE, source: None });
            }
        }
        netlink.commit().unwrap();
        forward_at_once();
        Self { netlink, attachment, _outside: outside }
    }

    /// Adds the interface of pod `n`, as a CNI plugin does.
    pub(crate) fn add(&mut self, n: u16) -> Pod {
        let [high, low] = n.to_be_bytes();
        let v6 = [0xfd00, 0x244, 0, 0, 0, 0, 0, n + 1];
        let addresses = [IpAddr::from([10, 244, high, low]), IpAddr::from(v6)];
        let (namespace, opened) = Namespace::create(Netlink::open).unwrap();
        let mut inside = opened.unwrap();
        let (own, other) = (
            end(format!("veth{n}"), index_of(n)),
            LinkEnd { index: 2, ..end("eth0".into(), 0x8000 + u32::from(n)) },
        );
        self.netlink.veth(&own, &other, &namespace);
        match self.attachment {
            Attachment::Bridged => {
                self.netlink.bridge_port(own.index, BRIDGE, false);
            }
            Attachment::Routed => {
                for address in addresses {
                    self.netlink.route(&Route::to_host(address, own.index));
                }
            }
        }
        self.netlink.commit().unwrap();
        inside.link_up(LOOPBACK).link_up(2);
        for address in addresses {
            inside.address(2, address, false);
        }
        inside.commit().unwrap();
        Pod { addresses, _namespace: namespace }
    }
}

/// A network namespace, with a socket in it.
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    socket: Socket,
}

impl Place {
    pub(crate) fn here() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        socket.bind_auto().unwrap();
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        Self { namespace: Namespace::current().unwrap(), socket }
    }

    /// Sends a request. Many are refused, such as those about interfaces that don't exist.
    pub(crate) fn request(&self, message: RouteNetlinkMessage, flags: u16) -> bool {
        let reply = self.exchange(message, NLM_F_ACK | flags);
        matches!(reply, NetlinkPayload::Error(error) if error.code.is_none())
    }

    /// Sends a request, and returns what it asks for.
    fn ask(&self, message: RouteNetlinkMessage) -> Option<RouteNetlinkMessage> {
        match self.exchange(message, 0) {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }

    /// Sends a message, and returns the reply.
    fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).unwrap();
        let (reply, _) = self.socket.recv_from_full().unwrap();
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply).unwrap().payload
    }

    pub(crate) fn set(&self, index: u32, attributes: Vec<LinkAttribute>) -> bool {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(crate) fn set_up(&self, index: u32, up: bool) -> bool {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(crate) fn delete(&self, index: u32) -> bool {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }
}

//! A small blocking rtnetlink client that creates and removes links, addresses, routes and neighbors.
//!
//! Requests are queued and sent together. The kernel acknowledges each, and an error names the request that failed. The
//! caller chooses interface indices and hardware addresses, so nothing has to be read back.

use std::{fmt, io, net::IpAddr, os::fd::AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::Namespace;

/// The index of the loopback device, in every namespace.
pub const LOOPBACK: u32 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel's reply is not valid netlink.
    #[error("cannot decode the kernel's reply: {0}")]
    Answer(String),
    /// The kernel refused a request.
    #[error("the kernel refused to {request}")]
    Refused {
        /// The request, for messages.
        request: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// The most requests in one datagram: their acknowledgements must fit in the receive buffer (212,992 bytes by default; an
/// acknowledgement takes about 1 KiB with its bookkeeping).
const REQUESTS_AT_ONCE: usize = 64;

/// A queued request.
struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    /// A description, for errors.
    text: String,
    /// Whether "not found" counts as success: the request removes something.
    may_be_missing: bool,
}

/// An rtnetlink client for the namespace in which it was opened.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    queue: Vec<Request>,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

/// One side of a veth pair.
#[derive(Clone, Debug)]
pub struct LinkEnd {
    /// The interface's name.
    pub name: String,
    /// The interface's index.
    pub index: u32,
    /// The hardware address.
    pub mac: Mac,
}

/// A route to one network.
#[derive(Clone, Debug)]
pub struct Route {
    /// The destination and its prefix length; length 0 is the default route.
    pub to: (IpAddr, u8),
    /// The next hop. `None`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface.
    pub link: u32,
    /// The preferred source address for packets that this namespace sends.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route to exactly one address.
    pub fn to_host(address: IpAddr, link: u32) -> Self {
        Self { to: (address, host_prefix(address)), via: None, link, source: None }
    }
}

/// The prefix length of a single address.
pub fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Netlink {
    /// Opens a client in the calling thread's namespace. It can be used from any thread.
    ///
    /// # Errors
    /// When the socket can't be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Acknowledgements need no copy of the request: its description is in the queue.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(NetlinkError::Socket)?, sequence: 0, queue: Vec::new() })
    }

    /// Queues a veth pair: this end here and up, the peer in `peer_namespace` and down.
    pub fn veth(&mut self, end: &LinkEnd, peer: &LinkEnd, peer_namespace: &Namespace) -> &mut Self {
        use std::os::fd::AsFd;
        let mut other = named(peer);
        other.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()));
        let mut message = named(end);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(message), format!("create the veth pair {}", end.name));
        self.link_up(end.index)
    }

    /// Queues a bridge, up.
    pub fn bridge(&mut self, end: &LinkEnd) -> &mut Self {
        let mut message = named(end);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(RouteNetlinkMessage::NewLink(message), format!("create the bridge {}", end.name));
        self.link_up(end.index)
    }

    /// Queues attaching a link to a bridge. `hairpin`: frames may leave through the port on which they arrived, as a pod
    /// needs to reach itself through a service.
    pub fn bridge_port(&mut self, link: u32, bridge: u32, hairpin: bool) -> &mut Self {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.push(RouteNetlinkMessage::SetLink(message), 0, format!("attach link {link} to bridge {bridge}"));
        if hairpin {
            let mut message = LinkMessage::default();
            message.header.index = link;
            message.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
            ]));
            self.push(RouteNetlinkMessage::NewLink(message), 0, format!("set hairpin mode on link {link}"));
        }
        self
    }

    /// Queues setting a link up.
    pub fn link_up(&mut self, link: u32) -> &mut Self {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.push(RouteNetlinkMessage::SetLink(message), 0, format!("set link {link} up"))
    }

    /// Queues removing a link; removing one end of a veth pair removes both.
    pub fn remove_link(&mut self, link: u32) -> &mut Self {
        let mut message = LinkMessage::default();
        message.header.index = link;
        self.push(RouteNetlinkMessage::DelLink(message), 0, format!("remove link {link}"))
    }

    /// Queues a single address on a link, without a prefix route. `link_scope`: the address gets link scope, so the kernel
    /// does not select it as a source for destinations beyond the link.
    pub fn address(&mut self, link: u32, address: IpAddr, link_scope: bool) -> &mut Self {
        let message = address_message(link, address, link_scope);
        self.create(RouteNetlinkMessage::NewAddress(message), format!("assign {address} to link {link}"))
    }

    /// Queues removing an address from a link.
    pub fn remove_address(&mut self, link: u32, address: IpAddr) -> &mut Self {
        let message = address_message(link, address, false);
        self.push(RouteNetlinkMessage::DelAddress(message), 0, format!("remove {address} from link {link}"))
    }

    /// Queues a route; it replaces one to the same network.
    pub fn route(&mut self, route: &Route) -> &mut Self {
        let text = format!("route {}/{} to link {}", route.to.0, route.to.1, route.link);
        self.push(RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE, text)
    }

    /// Queues removing a route.
    pub fn remove_route(&mut self, route: &Route) -> &mut Self {
        let text = format!("remove the route {}/{} from link {}", route.to.0, route.to.1, route.link);
        self.push(RouteNetlinkMessage::DelRoute(route_message(route)), 0, text)
    }

    /// Queues a permanent neighbor entry.
    pub fn neighbor(&mut self, link: u32, address: IpAddr, mac: Mac) -> &mut Self {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(address.into()),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        let text = format!("add the neighbor {address} on link {link}");
        self.push(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, text)
    }

    /// Queues removing a neighbor entry, if it exists.
    pub fn remove_neighbor(&mut self, link: u32, address: IpAddr) -> &mut Self {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.attributes = vec![NeighbourAttribute::Destination(address.into())];
        self.queue.push(Request {
            message: RouteNetlinkMessage::DelNeighbour(message),
            flags: 0,
            text: format!("remove the neighbor {address} from link {link}"),
            may_be_missing: true,
        });
        self
    }

    fn create(&mut self, message: RouteNetlinkMessage, text: String) -> &mut Self {
        self.push(message, NLM_F_CREATE | NLM_F_EXCL, text)
    }

    fn push(&mut self, message: RouteNetlinkMessage, flags: u16, text: String) -> &mut Self {
        self.queue.push(Request { message, flags, text, may_be_missing: false });
        self
    }

    /// Sends the queue and waits for all acknowledgements. The kernel performs every request, even after one failed.
    ///
    /// # Errors
    /// Returns the first failure.
    pub fn commit(&mut self) -> Result<(), NetlinkError> {
        let queue = std::mem::take(&mut self.queue);
        let mut first_error = None;
        let mut requests = queue.into_iter().peekable();
        while requests.peek().is_some() {
            let batch: Vec<_> = requests.by_ref().take(REQUESTS_AT_ONCE).collect();
            let first_sequence = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut sent = Vec::with_capacity(batch.len());
            for Request { message, flags, text, may_be_missing } in batch {
                self.sequence = self.sequence.wrapping_add(1);
                append(&mut bytes, message, flags, self.sequence);
                sent.push((text, may_be_missing));
            }
            self.socket.send(&bytes, 0).map_err(NetlinkError::Socket)?;
            self.await_answers(first_sequence, sent, &mut first_error)?;
        }
        first_error.map_or(Ok(()), Err)
    }

    fn await_answers(
        &self,
        first_sequence: u32,
        mut sent: Vec<(String, bool)>,
        first_error: &mut Option<NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut open = sent.len();
        while open > 0 {
            let (bytes, _) = self.socket.recv_from_full().map_err(NetlinkError::Socket)?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| NetlinkError::Answer(e.to_string()))?;
                // Messages are padded to a multiple of four.
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                let at = answer.header.sequence_number.wrapping_sub(first_sequence) as usize;
                let NetlinkPayload::Error(error) = answer.payload else { continue };
                let Some((text, may_be_missing)) = sent.get_mut(at) else { continue };
                open -= 1;
                let source = error.to_io();
                let is_missing = *may_be_missing && source.kind() == io::ErrorKind::NotFound;
                if error.code.is_some() && !is_missing && first_error.is_none() {
                    *first_error = Some(NetlinkError::Refused { request: std::mem::take(text), source });
                }
            }
        }
        Ok(())
    }
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

fn named(end: &LinkEnd) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index;
    message.attributes =
        vec![LinkAttribute::IfName(end.name.clone()), LinkAttribute::Address(end.mac.to_vec())];
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(link: u32, address: IpAddr, link_scope: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = host_prefix(address);
    message.header.index = link;
    message.header.scope = if link_scope { AddressScope::Link } else { AddressScope::Universe };
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    message
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (to, length) = route.to;
    message.header.address_family = family(to);
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope =
        if route.via.is_none() && to.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    if length > 0 {
        message.attributes.push(RouteAttribute::Destination(to.into()));
    }
    if let Some(via) = route.via {
        // The next hop is a single address, outside any prefix of the link.
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(via.into()));
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message.attributes.push(RouteAttribute::Oif(route.link));
    message
}

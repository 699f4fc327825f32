//! Requests of rtnetlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        BridgeBooleanOptionFlags, BridgeBooleanOptions, InfoBridge, InfoData, InfoKind, LinkAttribute,
        LinkExtentMask, LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    nsid::{NsidAttribute, NsidMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{errno::Errno, libc::ENODEV};
use palisade_nft::Mac;
#[cfg(feature = "daemon")]
use {netlink_packet_route::neighbour::NeighbourState, nix::libc::ENOENT};

/// The timeout for a response. The kernel responds at once.
const RESPONSE_TIMEOUT: nix::sys::time::TimeVal = nix::sys::time::TimeVal::new(5, 0);

/// The most attempts at a listing, if links change meanwhile.
const ATTEMPTS: usize = 4;

/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// The route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The index of the outgoing interface.
    pub(super) interface: u32,
    /// Whether the address is on that link, not behind a gateway.
    pub(super) on_link: bool,
    /// The source address of packets that the node itself sends there.
    pub(super) source: Option<IpAddr>,
}

/// A socket for requests.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    /// How many messages were sent and received.
    messages: u64,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimeout, &RESPONSE_TIMEOUT)?;
        // Makes the kernel filter listings by the attributes of the request.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, messages: 0 })
    }

    /// Returns how many messages were sent and received so far.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the route to an address, if there is one.
    pub(super) fn route(&mut self, address: IpAddr) -> io::Result<Option<Route>> {
        let route = self.find_route(address)?.filter(|route| route.header.kind == RouteType::Unicast);
        Ok(route.and_then(|route| {
            let interface = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })?;
            let source = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
                _ => None,
            });
            let gateway =
                |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
            Some(Route { interface, on_link: !route.attributes.iter().any(gateway), source })
        }))
    }

    /// Returns whether an address is one of this namespace.
    pub(super) fn is_local(&mut self, address: IpAddr) -> io::Result<bool> {
        Ok(self.find_route(address)?.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    fn find_route(&mut self, address: IpAddr) -> io::Result<Option<RouteMessage>> {
        let mut request = RouteMessage::default();
        let (family, length) =
            if address.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        request.header.address_family = family;
        request.header.destination_prefix_length = length;
        request.attributes.push(RouteAttribute::Destination(address.into()));
        let responses = match self.request(RouteNetlinkMessage::GetRoute(request), NLM_F_ACK) {
            // Unreachable, prohibited, or of a family that this kernel doesn't support.
            Err(e) if is_no_route(&e) => return Ok(None),
            other => other?,
        };
        Ok(responses.into_iter().find_map(|response| match response {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        }))
    }

    /// Returns an interface, without its statistics. `None` if there is none.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Option<LinkMessage>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let responses = match self.request(RouteNetlinkMessage::GetLink(request), NLM_F_ACK) {
            Err(e) if e.raw_os_error() == Some(ENODEV) => return Ok(None),
            other => other?,
        };
        Ok(responses.into_iter().find_map(|response| match response {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        }))
    }

    /// Sets the option of a bridge not to learn from frames to reserved groups. It is no error if the bridge is gone.
    pub(super) fn set_no_link_local_learning(&mut self, index: u32) -> io::Result<()> {
        let option = BridgeBooleanOptionFlags::NoLinkLocalLearn;
        let options = BridgeBooleanOptions { value: option, mask: option };
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MultiBoolOpt(options)])),
        ]));
        match self.request(RouteNetlinkMessage::NewLink(request), NLM_F_ACK) {
            Err(e) if e.raw_os_error() != Some(ENODEV) => Err(e),
            _ => Ok(()),
        }
    }

    /// Lists all interfaces, without their statistics: on a node with many pods these would be most of the listing.
    pub(super) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let responses = self.dump(&RouteNetlinkMessage::GetLink(request))?;
        let link = |response| match response {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        };
        Ok(responses.into_iter().filter_map(link).collect())
    }

    /// Returns the addresses of the interfaces of a network namespace, given by its number here, or of this one.
    pub(super) fn addresses(&mut self, namespace: Option<i32>) -> io::Result<BTreeSet<IpAddr>> {
        Ok(self.addresses_by_interface(namespace, None)?.into_values().flatten().collect())
    }

    /// As [`Requests::addresses`], by the index of the interface, and of one interface only if that is given.
    pub(super) fn addresses_by_interface(
        &mut self,
        namespace: Option<i32>,
        index: Option<u32>,
    ) -> io::Result<BTreeMap<u32, BTreeSet<IpAddr>>> {
        let mut out: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            request.header.family = family;
            request.header.index = index.unwrap_or_default();
            request.attributes.extend(namespace.map(AddressAttribute::TargetNetNsId));
            let responses = match self.dump(&RouteNetlinkMessage::GetAddress(request)) {
                // A family that this kernel doesn't support.
                Err(e) if is_no_route(&e) && family == AddressFamily::Inet6 => Vec::new(),
                // The interface is gone.
                Err(e) if e.raw_os_error() == Some(ENODEV) && index.is_some() => Vec::new(),
                other => other?,
            };
            for response in responses {
                let RouteNetlinkMessage::NewAddress(message) = response else { continue };
                // `Local` is the interface's own address where the other is that of a peer.
                let local = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                let any = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
                out.entry(message.header.index).or_default().extend(local.or(any));
            }
        }
        Ok(out)
    }

    /// Returns the hardware address of an interface of another network namespace, if it has one of Ethernet's length.
    pub(super) fn hardware(&mut self, namespace: i32, index: u32) -> io::Result<Option<Mac>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::IfNetnsId(namespace));
        let responses = self.request(RouteNetlinkMessage::GetLink(request), NLM_F_ACK)?;
        let link = responses.into_iter().find_map(|response| match response {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        Ok(link.as_ref().and_then(hardware_of))
    }

    /// Returns the number that this network namespace has for another one. `None` if it has none: no interface here leads there.
    pub(super) fn namespace_number(&mut self, namespace: &File) -> io::Result<Option<i32>> {
        let mut request = NsidMessage::default();
        let descriptor = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
        request.attributes.push(NsidAttribute::Fd(descriptor));
        let responses = self.request(RouteNetlinkMessage::GetNsId(request), NLM_F_ACK)?;
        let number = responses.into_iter().find_map(|response| match response {
            RouteNetlinkMessage::NewNsId(message) => message.attributes.into_iter().find_map(|a| match a {
                NsidAttribute::Id(number) => Some(number),
                _ => None,
            }),
            _ => None,
        });
        Ok(number.filter(|number| *number >= 0))
    }

    /// Returns the remote endpoints in the forwarding database of a VXLAN device.
    pub(super) fn forwarding_peers(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = index;
        let responses = match self.dump(&RouteNetlinkMessage::GetNeighbour(request)) {
            // The device is gone.
            Err(e) if e.raw_os_error() == Some(ENODEV) => Vec::new(),
            other => other?,
        };
        let peers = responses.into_iter().filter_map(|response| match response {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == index => Some(entry),
            _ => None,
        });
        let peer = |attribute: NeighbourAttribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::from(a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::from(a)),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => parse_address(&bytes),
            _ => None,
        };
        let all = peers.flat_map(|entry| entry.attributes.into_iter().filter_map(peer));
        Ok(all.filter(|a| !a.is_unspecified()).collect())
    }

    /// Forgets the neighbor with this address on a link if the kernel still looks for its hardware address, and drops the packets that wait
    /// for it. It is no error if there is none. Other entries stay, above all those that a network plugin has set.
    #[cfg(feature = "daemon")]
    pub(super) fn forget_unresolved_neighbor(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut request = NeighbourMessage::default();
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        (request.header.family, request.header.ifindex) = (family, interface);
        request.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
        let is_unresolved = |response: &RouteNetlinkMessage| match response {
            RouteNetlinkMessage::NewNeighbour(entry) => entry.header.state == NeighbourState::Incomplete,
            _ => false,
        };
        let outcome = match self.request(RouteNetlinkMessage::GetNeighbour(request.clone()), NLM_F_ACK) {
            Ok(responses) if responses.iter().any(is_unresolved) => {
                self.request(RouteNetlinkMessage::DelNeighbour(request), NLM_F_ACK)
            }
            other => other,
        };
        match outcome {
            Err(e) if e.raw_os_error() == Some(ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    fn dump(&mut self, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            match self.request(request.clone(), NLM_F_DUMP) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Err(io::Error::other("links change faster than they can be listed"))
    }

    /// Sends one request. Returns the messages until the end of the listing or the acknowledgement, without those that can't be
    /// parsed, which are of other types. Fails with `Interrupted` if the listing is inconsistent.
    fn request(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.messages += 1;
        self.socket.send(&bytes, 0)?;
        let (mut out, mut is_consistent) = (Vec::new(), true);
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some(head) = rest.get(..4).and_then(|head| <[u8; 4]>::try_from(head).ok()) {
                let length = (u32::from_ne_bytes(head) as usize).max(16);
                let Some(one) = rest.get(..length) else { break };
                self.messages += 1;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                let Ok(response) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
                // Left over from an earlier response that was abandoned.
                if response.header.sequence_number != self.sequence {
                    continue;
                }
                is_consistent &= response.header.flags & INTERRUPTED == 0;
                match response.payload {
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) if is_consistent => return Ok(out),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    NetlinkPayload::InnerMessage(message) => out.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// Returns the hardware address of an interface, if it has one of Ethernet's length.
pub(super) fn hardware_of(link: &LinkMessage) -> Option<Mac> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => <Mac>::try_from(&bytes[..]).ok(),
        _ => None,
    })
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn is_no_route(error: &io::Error) -> bool {
    let of = [
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
        Errno::EACCES,
        Errno::EINVAL,
        Errno::ESRCH,
        Errno::EAFNOSUPPORT,
        Errno::EOPNOTSUPP,
        Errno::ENETDOWN,
    ];
    error.raw_os_error().is_some_and(|number| of.contains(&Errno::from_raw(number)))
}

//! What is asked of rtnetlink, and what it tells unasked.

use std::{fmt, io, net::IpAddr, os::fd::AsRawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    libc::{ENOBUFS, ENODEV, MSG_DONTWAIT, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK},
};

/// Answers are waited for this long; the kernel gives them at once.
const PATIENCE: nix::sys::time::TimeVal = nix::sys::time::TimeVal::new(5, 0);

/// A listing is begun again this often when links change meanwhile.
const ATTEMPTS: usize = 4;

/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The index of the interface by which they leave.
    pub(super) interface: u32,
    /// Whether the address is on that link, not behind a gateway.
    pub(super) on_link: bool,
}

/// A socket for requests.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
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
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimeout, &PATIENCE)?;
        // Lists what a request names, not everything.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The route to an address; none where there is none.
    pub(super) fn route(&mut self, address: IpAddr) -> io::Result<Option<Route>> {
        let mut request = RouteMessage::default();
        let (family, length) =
            if address.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        request.header.address_family = family;
        request.header.destination_prefix_length = length;
        request.attributes.push(RouteAttribute::Destination(address.into()));
        let answers = match self.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_ACK) {
            // Unreachable, prohibited, of a family that this kernel has not: no packet goes there.
            Err(e) if is_no_route(&e) => return Ok(None),
            other => other?,
        };
        let route = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(route.filter(|route| route.header.kind == RouteType::Unicast).and_then(|route| {
            let interface = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })?;
            let gateway =
                |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
            Some(Route { interface, on_link: !route.attributes.iter().any(gateway) })
        }))
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let answers = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let link = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The far ends to which a VXLAN device sends, by its forwarding database.
    pub(super) fn forwarding_peers(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = index;
        let answers = match self.dump(&RouteNetlinkMessage::GetNeighbour(request)) {
            // The device is gone.
            Err(e) if e.raw_os_error() == Some(ENODEV) => Vec::new(),
            other => other?,
        };
        let peers = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == index => Some(entry),
            _ => None,
        });
        let peer = |attribute: NeighbourAttribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::from(a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::from(a)),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => of_bytes(&bytes),
            _ => None,
        };
        let all = peers.flat_map(|entry| entry.attributes.into_iter().filter_map(peer));
        Ok(all.filter(|a| !a.is_unspecified()).collect())
    }

    fn dump(&mut self, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            match self.ask(request.clone(), NLM_F_DUMP) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Err(io::Error::other("links change faster than they can be listed"))
    }

    /// Sends one request; gives what is listed until the end or the acknowledgement. What can't be parsed is passed over: it
    /// is of a kind that is not looked for. `Interrupted`: the listing is not of one moment.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (mut out, mut whole) = (Vec::new(), true);
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some(head) = rest.get(..4).and_then(|head| <[u8; 4]>::try_from(head).ok()) {
                let length = (u32::from_ne_bytes(head) as usize).max(16);
                let Some(one) = rest.get(..length) else { break };
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
                // The rest of an answer that was given up.
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= answer.header.flags & INTERRUPTED == 0;
                match answer.payload {
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) if whole => return Ok(out),
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

fn of_bytes(bytes: &[u8]) -> Option<IpAddr> {
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

/// A socket on which the kernel tells of changes of links and routes.
pub(super) struct Events {
    socket: Socket,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // From the kernel alone.
        socket.connect(&SocketAddr::new(0, 0))?;
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE] {
            socket.add_membership(group)?;
        }
        Ok(Self { socket })
    }

    /// Forgets what was told; says whether anything was. Never waits.
    pub(super) fn drain(&mut self) -> io::Result<bool> {
        /// More than the socket holds: whoever changes routes without rest must not keep us here.
        const MANY: usize = 10_000;
        let mut told = false;
        for _ in 0..MANY {
            // What doesn't fit is thrown away: that something was told is all that counts.
            match nix::sys::socket::recv(
                self.socket.as_raw_fd(),
                &mut [0; 64],
                nix::sys::socket::MsgFlags::from_bits_truncate(MSG_DONTWAIT),
            )
            .map_err(io::Error::from)
            {
                Ok(_) => told = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Something was lost.
                Err(e) if e.raw_os_error() == Some(ENOBUFS) => told = true,
                Err(e) => return Err(e),
            }
        }
        Ok(told)
    }
}

//! Notifications of rtnetlink about links, addresses, routes and forwarding entries, as hints of what to read again.
//!
//! Only the heads of messages are used: what a notification says of an object may be part of it, and outdated when it is received.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use ipnet::IpNet;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc::{
        AF_BRIDGE, AF_INET, AF_INET6, BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
        ENOBUFS, IFF_UP, MSG_DONTWAIT, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELROUTE, RTM_DELRULE,
        RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_NEWRULE, RTNLGRP_IPV4_IFADDR,
        RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE,
        RTNLGRP_LINK, RTNLGRP_NEIGH, sock_filter,
    },
    sys::socket::{MsgFlags, recv, setsockopt, sockopt::RcvBufForce},
};
use socket2::{SockFilter, SockRef};

/// The groups of [`Events`] without the neighbors.
const GROUPS: [u32; 7] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
];

/// The size of the receive buffer: some thousands of notifications, where the default has room for a hundred.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The most notifications that are read at once. More than the socket holds; bounds the loop while links change all the time.
const MANY: usize = 10_000;

/// As much of a notification as is read: its head and its first attributes.
const HEAD: usize = 512;

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The type of the attribute with the destination of a route or rule (`RTA_DST`, `FRA_DST`).
const DESTINATION: u16 = 1;
/// The types of the attributes with an address of an interface (`IFA_ADDRESS`, `IFA_LOCAL`).
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// An interface.
    Link {
        index: u32,
        /// Whether it was down, or gone, at some time. Routes through it may be gone without a notification.
        was_down: bool,
        /// Whether it was gone: what has this index now is another interface.
        was_gone: bool,
    },
    /// The addresses of an interface.
    Addresses {
        index: u32,
        /// The address, if it was removed. Routes that have it as their source may be gone without a notification.
        removed: Option<IpAddr>,
    },
    /// The routes to addresses of this network.
    Routes(IpNet),
    /// The forwarding entries of a VXLAN device.
    Forwarding(u32),
    /// The forwarding entries of all VXLAN devices, because notifications were lost.
    AllForwarding,
    /// Anything, because notifications were lost.
    Everything,
}

impl Hint {
    /// Returns what a notification hints at. `None` if it is about nothing that matters here.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(array(message, 4)?);
        let body = message.get(HEADER..)?;
        let family = i32::from(*body.first()?);
        match kind {
            RTM_NEWLINK | RTM_DELLINK => {
                let index = u32::from_ne_bytes(array(body, 4)?);
                let flags = u32::from_ne_bytes(array(body, 8)?);
                // A port that leaves a bridge is reported as a link of the bridge family that is deleted.
                let was_gone = kind == RTM_DELLINK && family != AF_BRIDGE;
                let was_down = was_gone || flags & IFF_UP.cast_unsigned() == 0;
                Some(Self::Link { index, was_down, was_gone })
            }
            RTM_NEWADDR | RTM_DELADDR => {
                let index = u32::from_ne_bytes(array(body, 4)?);
                let address = || attribute(body, 8, LOCAL).or_else(|| attribute(body, 8, ADDRESS));
                let removed = if kind == RTM_DELADDR { address().and_then(parse_address) } else { None };
                Some(Self::Addresses { index, removed })
            }
            // Both begin with the family and the lengths of destination and source.
            RTM_NEWROUTE | RTM_DELROUTE | RTM_NEWRULE | RTM_DELRULE => {
                let [length, of_source] = array(body, 1)?;
                // Routes are looked up without a source.
                let is_used = of_source == 0;
                is_used
                    .then(|| network(family, length, attribute(body, 12, DESTINATION)).map(Self::Routes))?
            }
            RTM_NEWNEIGH | RTM_DELNEIGH if family == AF_BRIDGE => {
                Some(Self::Forwarding(u32::from_ne_bytes(array(body, 4)?)))
            }
            _ => None,
        }
    }
}

/// Returns the network of a route. The whole family if the destination is missing.
fn network(family: i32, length: u8, destination: Option<&[u8]>) -> Option<IpNet> {
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let whole = IpNet::new(any, 0).ok();
    let address = destination.and_then(parse_address).filter(|address| address.is_ipv4() == any.is_ipv4());
    address.and_then(|address| IpNet::new(address, length).ok()).or(whole)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Returns the content of the first attribute of a type, after a head of this length.
fn attribute(body: &[u8], head: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = body.get(head..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(array(rest, 0)?));
        let content = rest.get(4..length)?;
        if u16::from_ne_bytes(array(rest, 2)?) == kind {
            return Some(content);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Sockets for notifications.
pub(super) struct Events {
    socket: Socket,
    /// The VXLAN devices whose forwarding entries are followed, with the socket for these.
    forwarding: Option<(BTreeSet<u32>, Socket)>,
    /// How many notifications were read.
    count: u64,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let socket = open()?;
        GROUPS.into_iter().try_for_each(|group| socket.add_membership(group))?;
        Ok(Self { socket, forwarding: None, count: 0 })
    }

    /// Returns how many notifications were read so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Follows the forwarding entries of these devices from now on, and of no others. Returns the devices that it did not follow before.
    ///
    /// *Why a socket of its own:* pods can make many entries of a bridge, and what is lost of the others would cost a full reading.
    pub(super) fn follow_forwarding(&mut self, devices: &BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
        let followed = self.forwarding.as_ref().map(|(devices, _)| devices.clone()).unwrap_or_default();
        if *devices == followed {
            return Ok(BTreeSet::new());
        }
        let new = devices.difference(&followed).copied().collect();
        if devices.is_empty() {
            self.forwarding = None;
            return Ok(new);
        }
        let socket = open()?;
        let filter =
            of_devices(devices).into_iter().map(|one| SockFilter::new(one.code, one.jt, one.jf, one.k));
        SockRef::from(&socket).attach_filter(&filter.collect::<Vec<_>>())?;
        socket.add_membership(RTNLGRP_NEIGH)?;
        let is_first = self.forwarding.replace((devices.clone(), socket)).is_none();
        // What the previous socket held is lost.
        Ok(if is_first { new } else { devices.clone() })
    }

    /// Reads the pending notifications. Never blocks.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Hint)) -> io::Result<()> {
        let count = &mut self.count;
        receive(&self.socket, count, Hint::Everything, &mut each)?;
        match &self.forwarding {
            Some((_, socket)) => receive(socket, count, Hint::AllForwarding, &mut each),
            None => Ok(()),
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Without the capability the default must do.
    _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
    socket.bind_auto()?;
    // Receives from the kernel only.
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Reads pending notifications. `lost` is the hint for those that were lost.
fn receive(socket: &Socket, count: &mut u64, lost: Hint, each: &mut impl FnMut(Hint)) -> io::Result<()> {
    let mut buffer = [0; HEAD];
    for _ in 0..MANY {
        let flags = MsgFlags::from_bits_truncate(MSG_DONTWAIT);
        match recv(socket.as_raw_fd(), &mut buffer, flags).map_err(io::Error::from) {
            Ok(length) => {
                *count += 1;
                hints(buffer.get(..length).unwrap_or(&buffer), lost, each);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(ENOBUFS) => each(lost),
            Err(e) => return Err(e),
        }
    }
    each(lost);
    Ok(())
}

/// Calls `each` with the hints of a datagram, of which the end may be cut off.
fn hints(datagram: &[u8], lost: Hint, each: &mut impl FnMut(Hint)) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some(length) = array(rest, 0).map(|length| u32::from_ne_bytes(length) as usize) else {
            return each(lost);
        };
        let length = length.max(HEADER);
        Hint::of(rest.get(..length).unwrap_or(rest)).into_iter().for_each(&mut *each);
        // The kernel sends one message per datagram. If the end of one is missing, so is what may follow.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Returns a socket filter that accepts messages about entries of the bridge family for these devices.
fn of_devices(devices: &BTreeSet<u32>) -> Vec<sock_filter> {
    /// The offset of `ndm_family`, and of `ndm_ifindex`.
    const FAMILY: u32 = 16;
    const INDEX: u32 = 20;
    /// The most devices that one jump can pass over. If there are more, entries of all are accepted.
    const MOST: usize = 200;
    let jump = |forward: usize| u8::try_from(forward).unwrap_or(u8::MAX);
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let is_bridge = |jt, jf| instruction(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, AF_BRIDGE.cast_unsigned());
    let mut out = vec![instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, FAMILY)];
    if devices.len() > MOST {
        out.push(is_bridge(1, 0));
    } else {
        out.push(is_bridge(0, jump(devices.len() + 1)));
        out.push(instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, INDEX));
        for (at, index) in devices.iter().enumerate() {
            // A filter loads words in network byte order; an index is in that of the processor.
            let index = u32::from_be_bytes(index.to_ne_bytes());
            out.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, jump(devices.len() - at), 0, index));
        }
    }
    out.push(instruction(BPF_RET | BPF_K, 0, 0, 0));
    out.push(instruction(BPF_RET | BPF_K, 0, 0, u32::MAX));
    out
}

#[cfg(test)]
mod tests;

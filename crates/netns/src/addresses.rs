//! Addresses in another network namespace, read over netlink without entering it.
//!
//! *Why not by entering it:* that takes CAP_SYS_ADMIN. A request that names the namespace takes CAP_NET_ADMIN alone (Linux 4.20 or later).

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::TimeVal,
    },
};

use crate::dump::replies;

/// How long the kernel may take for an answer. It answers at once.
const ANSWER_TIMEOUT: TimeVal = TimeVal::new(1, 0);
/// What the kernel calls a namespace that has no number yet (`NETNSA_NSID_NOT_ASSIGNED`), and asks for any number.
const NOT_ASSIGNED: i32 = -1;

/// Returns the permanent addresses of an interface in a network namespace, none if it has no such interface. Addresses that it was told by
/// a router, which expire, are left out. Each answer of the kernel is waited for a second at most.
///
/// # Errors
/// When it is no network namespace, or the kernel refuses: the caller needs CAP_NET_ADMIN in the user namespace that owns it.
pub fn addresses_of(namespace: BorrowedFd<'_>, interface: &str) -> io::Result<Vec<IpAddr>> {
    let mut client = Client::open()?;
    let namespace = client.number(namespace)?;
    let Some(index) = client.index(namespace, interface)? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for address in client.addresses(namespace, index, family)? {
            if !out.contains(&address) {
                out.push(address);
            }
        }
    }
    Ok(out)
}

/// A socket in the calling thread's namespace. The numbers of other namespaces are this one's.
struct Client(Socket);

impl Client {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(&socket, ReceiveTimeout, &ANSWER_TIMEOUT)?;
        // Without it the kernel ignores the attributes of a request for a listing, and lists this namespace.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self(socket))
    }

    /// The number by which this namespace knows another one. It has one if links lead there; if not it gets one, for as long as it exists.
    fn number(&mut self, namespace: BorrowedFd<'_>) -> io::Result<i32> {
        let fd = NsidAttribute::Fd(u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?);
        let request = |attributes| {
            let mut message = NsidMessage::default();
            message.attributes = attributes;
            message
        };
        let known = RouteNetlinkMessage::GetNsId(request(vec![fd.clone()]));
        if let Some(number) = number_in(&self.request(known.clone(), NLM_F_ACK)?) {
            return Ok(number);
        }
        let new = RouteNetlinkMessage::NewNsId(request(vec![fd, NsidAttribute::Id(NOT_ASSIGNED)]));
        match self.request(new, NLM_F_ACK) {
            // It has got one meanwhile.
            Err(error) if is(&error, &[Errno::EEXIST]) => {}
            other => _ = other?,
        }
        number_in(&self.request(known, NLM_F_ACK)?)
            .ok_or_else(|| io::Error::other("the kernel gives the network namespace no number"))
    }

    fn index(&mut self, namespace: i32, interface: &str) -> io::Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message.attributes =
            vec![LinkAttribute::IfNetnsId(namespace), LinkAttribute::IfName(interface.to_owned())];
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(error) if is(&error, &[Errno::ENODEV]) => return Ok(None),
            other => other?,
        };
        Ok(replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
            _ => None,
        }))
    }

    fn addresses(&mut self, namespace: i32, index: u32, family: AddressFamily) -> io::Result<Vec<IpAddr>> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::TargetNetNsId(namespace)];
        let replies = match self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP) {
            // A kernel without this family, and an interface that is gone.
            Err(error) if is(&error, &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::ENODEV]) => Vec::new(),
            other => other?,
        };
        let of_reply = |reply| match reply {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => own(&message),
            _ => None,
        };
        Ok(replies.into_iter().filter_map(of_reply).collect())
    }

    fn request(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        replies(&self.0)
    }
}

fn number_in(replies: &[RouteNetlinkMessage]) -> Option<i32> {
    let attributes = replies.iter().filter_map(|reply| match reply {
        RouteNetlinkMessage::NewNsId(message) => Some(&message.attributes),
        _ => None,
    });
    attributes.flatten().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) if *number != NOT_ASSIGNED => Some(*number),
        _ => None,
    })
}

/// The address of a message, if it is permanent. With a point-to-point peer it has two, of which the local one is the interface's.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let (mut address, mut local, mut is_permanent) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Flags(flags) => is_permanent = flags.contains(AddressFlags::Permanent),
            _ => {}
        }
    }
    local.or(address).filter(|_| is_permanent)
}

fn is(error: &io::Error, numbers: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|number| numbers.contains(&Errno::from_raw(number)))
}

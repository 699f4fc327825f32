//! The node's interfaces, over rtnetlink.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
    },
    tc::{TcAttribute, TcHandle, TcMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A bridge that connects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
}

/// An interface, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Option<InfoKind>,
    /// The bridge of which it is a port.
    pub(super) controller: Option<u32>,
    /// Whether its other end is in another network namespace: as a rule, a pod's.
    pub(super) leads_elsewhere: bool,
    /// Whether an XDP program sits on it.
    pub(super) has_xdp: bool,
    /// Whether a bridge hands its IPv4 and IPv6 packets to netfilter, whatever the sysctl says.
    pub(super) asks_netfilter: [bool; 2],
}

impl Interface {
    pub(super) fn is_pod_facing(&self) -> bool {
        self.leads_elsewhere && matches!(self.kind, Some(InfoKind::Veth | InfoKind::Netkit))
    }
}

/// All interfaces of the calling thread's network namespace.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let messages = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(interface(link)),
            _ => None,
        })
        .collect())
}

fn interface(link: LinkMessage) -> Interface {
    let mut out = Interface { index: link.header.index, ..Interface::default() };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => out.name = name,
            LinkAttribute::Controller(index) => out.controller = Some(index),
            LinkAttribute::LinkNetNsId(_) => out.leads_elsewhere = true,
            LinkAttribute::Xdp(xdp) => {
                let none = LinkXdp::Attached(XdpAttached::None);
                out.has_xdp = xdp.iter().any(|x| matches!(x, LinkXdp::Attached(_)) && *x != none);
            }
            LinkAttribute::LinkInfo(info) => info.into_iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => out.kind = Some(kind),
                LinkInfo::Data(InfoData::Bridge(bridge)) => {
                    for setting in bridge {
                        match setting {
                            InfoBridge::NfCallIpTables(on) => out.asks_netfilter[0] = on,
                            InfoBridge::NfCallIp6Tables(on) => out.asks_netfilter[1] = on,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }),
            _ => {}
        }
    }
    out
}

/// The interfaces on which `tc` runs an eBPF (or classic BPF) program, by index.
pub(super) fn with_bpf_filters() -> io::Result<Vec<u32>> {
    /// `TC_H_CLSACT`, as a queueing discipline's handle, and what hangs below it.
    const MAJOR: u16 = 0xffff;
    const PARENTS: [u16; 3] = [0, 0xfff2, 0xfff3];
    let mut out = Vec::new();
    for message in dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))? {
        let RouteNetlinkMessage::NewQueueDiscipline(discipline) = message else { continue };
        let is = |kinds: &[&str]| {
            discipline
                .attributes
                .iter()
                .any(|a| matches!(a, TcAttribute::Kind(kind) if kinds.contains(&&**kind)))
        };
        if !is(&["clsact", "ingress"]) {
            continue;
        }
        let index = discipline.header.index;
        let mut has_filter = false;
        for minor in PARENTS {
            let mut request = TcMessage::with_index(index);
            request.header.parent = TcHandle { major: MAJOR, minor };
            // A class that does not exist is refused.
            let filters = dump(RouteNetlinkMessage::GetTrafficFilter(request)).unwrap_or_default();
            has_filter |= filters.iter().any(|f| match f {
                RouteNetlinkMessage::NewTrafficFilter(filter) => {
                    filter.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "bpf"))
                }
                _ => false,
            });
        }
        if let (true, Ok(index)) = (has_filter, u32::try_from(index)) {
            out.push(index);
        }
    }
    Ok(out)
}

/// Switches the loopback device on: interface 1 of every namespace.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = 1;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
}

fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    ask(request, NLM_F_DUMP)
}

/// Sends one request; gives what is listed until the end or the acknowledgement. What can't be parsed is passed over.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut out = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some(head) = rest.get(..4).and_then(|head| <[u8; 4]>::try_from(head).ok()) {
            let length = u32::from_ne_bytes(head) as usize;
            let Some(one) = rest.get(..length.max(16)) else { break };
            if let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
                match answer.payload {
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(out),
                    NetlinkPayload::InnerMessage(message) => out.push(message),
                    _ => {}
                }
            }
            rest = rest.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

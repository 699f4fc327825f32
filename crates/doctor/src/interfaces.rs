//! The node's interfaces, over rtnetlink.

use std::io;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use palisade_netns::dump::dump;

/// What the checks need of an interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: Option<InfoKind>,
    /// The index of the bridge of which it is a port.
    pub(crate) controller: Option<u32>,
    /// Whether the peer is in another network namespace, usually a pod's.
    pub(crate) has_remote_peer: bool,
    /// Whether an XDP program is attached.
    pub(crate) has_xdp: bool,
    /// Whether a bridge passes its IPv4 and IPv6 packets to netfilter by its own setting, which overrides the sysctl.
    pub(crate) calls_netfilter: [bool; 2],
}

impl Interface {
    /// Returns whether it connects a pod, as far as the node can tell.
    pub(crate) fn is_pod_facing(&self) -> bool {
        self.has_remote_peer && matches!(self.kind, Some(InfoKind::Veth | InfoKind::Netkit))
    }
}

/// Returns all interfaces of the calling thread's network namespace.
pub(crate) fn interfaces() -> io::Result<Vec<Interface>> {
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
            LinkAttribute::LinkNetNsId(_) => out.has_remote_peer = true,
            LinkAttribute::Xdp(xdp) => {
                let none = LinkXdp::Attached(XdpAttached::None);
                out.has_xdp = xdp.iter().any(|x| matches!(x, LinkXdp::Attached(_)) && *x != none);
            }
            LinkAttribute::LinkInfo(info) => info.into_iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => out.kind = Some(kind),
                LinkInfo::Data(InfoData::Bridge(bridge)) => {
                    for setting in bridge {
                        match setting {
                            InfoBridge::NfCallIpTables(on) => out.calls_netfilter[0] = on,
                            InfoBridge::NfCallIp6Tables(on) => out.calls_netfilter[1] = on,
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

/// Returns the indices of interfaces on which `tc` runs an eBPF (or classic BPF) program.
pub(crate) fn with_bpf_filters() -> io::Result<Vec<u32>> {
    /// The handle of the clsact qdisc (`TC_H_CLSACT`) and the minor numbers of its attachment points.
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
            // The kernel refuses a parent that does not exist.
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

/// Returns the bridges that have a port to another network namespace.
pub(crate) fn pod_bridges(all: &[Interface]) -> Vec<&Interface> {
    let has_pods = |bridge: &&Interface| {
        all.iter().any(|port| port.controller == Some(bridge.index) && port.is_pod_facing())
    };
    all.iter().filter(|i| i.kind == Some(InfoKind::Bridge)).filter(has_pods).collect()
}

/// Joins the names of interfaces for a message.
pub(crate) fn names(of: &[&Interface]) -> String {
    let names: Vec<&str> = of.iter().map(|i| &*i.name).collect();
    names.join(", ")
}

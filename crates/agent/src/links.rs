//! The node's links, as far as rules depend on them: which interfaces and bridge ports lead to local pods, and where the node
//! receives encapsulated packets. Read over rtnetlink at the start, when local pods change, and when the kernel notifies of
//! a change of links or routes.

mod rtnetlink;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use palisade_nft::NodeLinks;

use rtnetlink::{Events, Requests};

/// The shortest interval between two full readings, however often links and routes change. A full reading looks up one route for
/// each local address and lists all interfaces.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Addresses of documentation networks, which no host has: their routes lead out of the node.
const EXTERNAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Follows the links and routes of a network namespace.
#[derive(Debug)]
pub(crate) struct LinkMonitor {
    requests: Requests,
    events: Events,
    /// The interfaces of the on-link routes to local addresses.
    routes: BTreeMap<IpAddr, u32>,
    /// Whether links or routes changed, or a reading failed, since the last full reading.
    stale: bool,
    read: Option<Instant>,
}

impl LinkMonitor {
    /// Opens the sockets in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        // Opened first, so that no change is missed between the first reading and the first notification.
        let events = Events::open()?;
        Ok(Self { requests: Requests::open()?, events, routes: BTreeMap::new(), stale: true, read: None })
    }

    /// Reads everything. `local` has the addresses of local pods.
    pub(crate) fn read(&mut self, local: &BTreeSet<IpAddr>) -> io::Result<NodeLinks> {
        self.read = Some(Instant::now());
        self.events.drain()?;
        self.stale = true;
        self.routes.clear();
        self.find_routes(local)?;
        let node_links = self.node_links()?;
        self.stale = false;
        Ok(node_links)
    }

    /// Updates the links after local addresses were added or removed. Looks up the routes of those only.
    pub(crate) fn follow(
        &mut self,
        added: &BTreeSet<IpAddr>,
        removed: &BTreeSet<IpAddr>,
    ) -> io::Result<NodeLinks> {
        self.routes.retain(|address, _| !removed.contains(address));
        let outcome = self.find_routes(added).and_then(|()| self.node_links());
        self.stale |= outcome.is_err();
        outcome
    }

    /// Whether a full reading is due: something changed, and the last one is long enough ago.
    pub(crate) fn is_due(&mut self) -> io::Result<bool> {
        self.stale |= self.events.drain()?;
        Ok(self.stale && self.read.is_none_or(|at| at.elapsed() >= MIN_INTERVAL))
    }

    /// Makes the next reading due, because what was read could not be programmed.
    pub(crate) fn invalidate(&mut self) {
        self.stale = true;
    }

    fn find_routes(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        for address in addresses {
            match self.requests.route(*address)? {
                Some(route) if route.on_link => self.routes.insert(*address, route.interface),
                _ => self.routes.remove(address),
            };
        }
        Ok(())
    }

    fn node_links(&mut self) -> io::Result<NodeLinks> {
        let links: Vec<Link> = self.requests.links()?.into_iter().map(Link::of).collect();
        let mut out = NodeLinks::default();
        let mut outward = BTreeSet::from([LOOPBACK]);
        for address in EXTERNAL {
            outward.extend(self.requests.route(address)?.map(|route| route.interface));
        }
        for index in self.routes.values().copied().collect::<BTreeSet<u32>>() {
            let ports = || links.iter().filter(|link| link.controller == Some(index));
            let is_bridge =
                links.iter().any(|link| link.index == index && link.kind == Some(InfoKind::Bridge));
            if is_bridge {
                out.pod_ports.extend(ports().filter(|port| port.leads_to_pod()).map(|port| port.index));
            }
            // A bridge with other ports also carries packets of other hosts.
            let is_mixed = is_bridge && ports().any(|port| !port.leads_to_pod());
            if !outward.contains(&index) && !is_mixed {
                out.pod_interfaces.insert(index);
                if is_bridge {
                    out.pod_bridges.insert(index);
                }
            }
        }
        for link in links.iter().filter(|link| link.is_up) {
            tunnels::add(&link.message, &mut out);
            if link.kind == Some(InfoKind::Vxlan) {
                out.tunnel_peers.extend(self.requests.forwarding_peers(link.index)?);
            }
        }
        Ok(out)
    }
}

/// One interface.
struct Link {
    index: u32,
    kind: Option<InfoKind>,
    /// The bridge that it is a port of.
    controller: Option<u32>,
    /// Whether its other end is in another network namespace.
    leads_elsewhere: bool,
    is_up: bool,
    message: LinkMessage,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut out = Self {
            index: message.header.index,
            kind: None,
            controller: None,
            leads_elsewhere: false,
            is_up: message.header.flags.contains(LinkFlags::Up),
            message: LinkMessage::default(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Controller(index) => out.controller = Some(*index),
                LinkAttribute::LinkNetNsId(_) => out.leads_elsewhere = true,
                LinkAttribute::LinkInfo(info) => {
                    out.kind = info.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        out.message = message;
        out
    }

    fn leads_to_pod(&self) -> bool {
        let is_end = matches!(self.kind, Some(InfoKind::Veth | InfoKind::Tun | InfoKind::MacVtap));
        is_end && self.leads_elsewhere
    }
}

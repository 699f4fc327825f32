//! The node's links, as far as rules depend on them: which interfaces and bridge ports lead to local pods, and where the node
//! receives encapsulated packets, and to which pod each bridge port leads. Read over rtnetlink at the start, when local pods change, and when the kernel notifies of
//! a change of links or routes.

mod binding;
#[cfg_attr(
    not(feature = "daemon"),
    expect(dead_code, reason = "paths of namespaces are used by the feature `daemon` alone")
)]
mod named;
mod rtnetlink;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use palisade_nft::{Mac, NodeLinks, SourceCheck};
use palisade_policy::{Name, ObjectKey};

#[cfg(feature = "daemon")]
pub(crate) use named::NamedNamespace;

use binding::{Bindings, Namespaces, Pods, Port};
use named::NamedNamespaces;
use rtnetlink::{Events, Requests, hardware_of};

/// The shortest interval between two full readings, however often links and routes change. A full reading looks up one route for
/// each local address and lists all interfaces.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Addresses of documentation networks, which no host has: their routes lead out of the node.
const EXTERNAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Returns the addresses of the interfaces of the calling thread's network namespace, without listing the interfaces.
pub(crate) fn host_addresses() -> io::Result<BTreeSet<IpAddr>> {
    Requests::open()?.addresses(None)
}

/// Follows the links and routes of a network namespace.
#[derive(Debug)]
pub(crate) struct LinkMonitor {
    requests: Requests,
    events: Events,
    /// The interfaces of the on-link routes to local addresses.
    routes: BTreeMap<IpAddr, u32>,
    /// The local pods, of those that have names.
    pods: Pods,
    /// Addresses that have passed from one pod to another since routes were last looked up.
    moved: BTreeSet<IpAddr>,
    /// The pods of bridge ports.
    bindings: Bindings,
    /// The network namespaces of pods that were named.
    named: NamedNamespaces,
    /// The bridge ports, and with a strict check other interfaces, whose pods are not known, with their names.
    unbound: BTreeMap<u32, String>,
    /// The namespaces in which source addresses are not checked.
    unchecked: BTreeSet<Name>,
    /// The networks that pods may use as a source beside their own addresses.
    allowed: BTreeMap<ObjectKey, BTreeSet<IpNet>>,
    /// Which senders are checked, and so which interfaces are bound to pods.
    source_check: SourceCheck,
    /// Whether links or routes changed, or a reading failed, since the last full reading.
    stale: bool,
    read: Option<Instant>,
}

impl LinkMonitor {
    /// Opens the sockets in the calling thread's network namespace.
    ///
    /// `source_check` decides of which interfaces to find out the pods.
    pub(crate) fn open(source_check: SourceCheck) -> io::Result<Self> {
        // Opened first, so that no change is missed between the first reading and the first notification.
        let events = Events::open()?;
        Ok(Self {
            requests: Requests::open()?,
            events,
            routes: BTreeMap::new(),
            pods: Pods::new(),
            moved: BTreeSet::new(),
            bindings: Bindings::default(),
            named: NamedNamespaces::default(),
            unbound: BTreeMap::new(),
            unchecked: BTreeSet::new(),
            allowed: BTreeMap::new(),
            source_check,
            stale: true,
            read: None,
        })
    }

    /// Tells in which namespaces the source addresses of pods are not checked.
    pub(crate) fn set_unchecked_namespaces(&mut self, namespaces: BTreeSet<Name>) {
        self.stale |= self.unchecked != namespaces;
        self.unchecked = namespaces;
    }

    /// Tells which networks pods may use as a source beside their own addresses.
    pub(crate) fn set_allowed_sources(&mut self, allowed: &BTreeMap<ObjectKey, BTreeSet<IpNet>>) {
        self.stale |= self.allowed != *allowed;
        self.allowed.clone_from(allowed);
    }

    /// Whether it must be known which pods routed interfaces lead to.
    fn binds_interfaces(&self) -> bool {
        self.source_check == SourceCheck::Strict || !self.allowed.is_empty()
    }

    /// Tells which pods local addresses belong to, before the addresses are added. The owners of other addresses stay.
    pub(crate) fn name_local(&mut self, names: &BTreeMap<IpAddr, ObjectKey>) {
        let is_known = |pods: &Pods, pod, address| {
            pods.get(pod).is_some_and(|addresses: &BTreeSet<IpAddr>| addresses.contains(address))
        };
        for (address, pod) in names {
            if is_known(&self.pods, pod, address) {
                continue;
            }
            if self.forget(address) {
                self.moved.insert(*address);
            }
            self.pods.entry(pod.clone()).or_default().insert(*address);
        }
    }

    /// Tells the path of the network namespace of a pod.
    #[cfg(feature = "daemon")]
    pub(crate) fn name_namespace(&mut self, sandbox: &str, namespace: NamedNamespace) {
        self.named.add(sandbox, namespace);
        self.stale = true;
    }

    /// Forgets the network namespaces that were named for other sandboxes than these.
    #[cfg(feature = "daemon")]
    pub(crate) fn retain_namespaces(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.stale |= self.named.retain(is_kept);
    }

    /// The bridge ports, and with a strict check other interfaces, that lead to pods which are not known, with their names.
    pub(crate) fn unbound(&self) -> &BTreeMap<u32, String> {
        &self.unbound
    }

    /// Returns whether the address had an owner.
    fn forget(&mut self, address: &IpAddr) -> bool {
        let mut had_owner = false;
        self.pods.retain(|_, addresses| {
            had_owner |= addresses.remove(address);
            !addresses.is_empty()
        });
        had_owner
    }

    fn retain_addresses(&mut self, is_kept: impl Fn(&IpAddr) -> bool) {
        self.pods.retain(|_, addresses| {
            addresses.retain(&is_kept);
            !addresses.is_empty()
        });
    }

    /// Reads everything. `local` has the addresses of local pods.
    pub(crate) fn read(&mut self, local: &BTreeSet<IpAddr>) -> io::Result<NodeLinks> {
        self.retain_addresses(|address| local.contains(address));
        self.read = Some(Instant::now());
        self.events.drain()?;
        self.stale = true;
        self.routes.clear();
        self.find_routes(local)?;
        self.moved.clear();
        let node_links = self.node_links()?;
        self.stale = false;
        Ok(node_links)
    }

    /// Updates the links after local addresses were added or removed, or have passed from one pod to another. Looks up the routes of those
    /// only. `None` if there are none.
    pub(crate) fn follow(
        &mut self,
        added: &BTreeSet<IpAddr>,
        removed: &BTreeSet<IpAddr>,
    ) -> Option<io::Result<NodeLinks>> {
        let mut changed = std::mem::take(&mut self.moved);
        if changed.is_empty() && added.is_empty() && removed.is_empty() {
            return None;
        }
        changed.extend(added);
        self.routes.retain(|address, _| !removed.contains(address));
        self.retain_addresses(|address| !removed.contains(address));
        let outcome = self.find_routes(&changed).and_then(|()| self.node_links());
        self.stale |= outcome.is_err();
        Some(outcome)
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
        let mut ends = Vec::new();
        let mut outward = BTreeSet::from([LOOPBACK]);
        for address in EXTERNAL {
            outward.extend(self.requests.route(address)?.map(|route| route.interface));
        }
        for index in self.routes.values().copied().collect::<BTreeSet<u32>>() {
            let ports = || links.iter().filter(|link| link.controller == Some(index));
            let is_bridge =
                links.iter().any(|link| link.index == index && link.kind == Some(InfoKind::Bridge));
            if is_bridge {
                ends.extend(ports().filter_map(Link::port));
                out.pod_ports.extend(ports().filter(|port| port.leads_to_pod()).map(|port| port.index));
                let bridge = links.iter().find(|link| link.index == index);
                out.bridge_hardware.extend(bridge.and_then(|bridge| hardware_of(&bridge.message)));
            }
            // A bridge with other ports also carries packets of other hosts.
            let is_mixed = is_bridge && ports().any(|port| !port.leads_to_pod());
            if !outward.contains(&index) && !is_mixed {
                out.pod_interfaces.insert(index);
                if is_bridge {
                    out.pod_bridges.insert(index);
                } else if self.binds_interfaces() {
                    ends.extend(links.iter().find(|link| link.index == index).and_then(Link::port));
                }
            }
        }
        for link in links.iter().filter(|link| link.is_up) {
            tunnels::add(&link.message, &mut out);
            if link.kind == Some(InfoKind::Vxlan) {
                out.tunnel_peers.extend(self.requests.forwarding_peers(link.index)?);
            }
        }
        self.unbound.clear();
        if self.source_check.is_on() {
            self.bind(&ends, &links, &mut out)?;
        }
        Ok(out)
    }

    /// Finds out which pods bridge ports and other interfaces lead to.
    fn bind(&mut self, ends: &[Port], links: &[Link], out: &mut NodeLinks) -> io::Result<()> {
        let named = self.named.numbers(&mut self.requests);
        self.bindings.update(ends, &self.pods, &named, &mut self.requests);
        let bindings = &self.bindings;
        let is_unchecked =
            |index: &u32| bindings.pod(*index).is_some_and(|pod| self.unchecked.contains(&pod.namespace));
        out.unchecked_ports = out.pod_ports.iter().copied().filter(is_unchecked).collect();
        for (index, owner) in bindings.owners() {
            if out.pod_ports.contains(&index) {
                out.owners.insert(index, owner);
            } else if self.source_check == SourceCheck::Strict && !is_unchecked(&index) {
                out.interface_owners.insert(index, owner.addresses);
            }
            if let Some(networks) = bindings.pod(index).and_then(|pod| self.allowed.get(pod)) {
                out.allowed_sources.insert(index, networks.clone());
            }
        }
        let is_strict = self.source_check == SourceCheck::Strict;
        let is_unbound = |link: &&Link| {
            let leads_to_pod = out.pod_ports.contains(&link.index)
                || is_strict && ends.iter().any(|end| end.index == link.index);
            leads_to_pod && bindings.pod(link.index).is_none()
        };
        self.unbound.extend(links.iter().filter(is_unbound).map(|link| (link.index, link.name.clone())));
        if !out.pod_ports.is_empty() {
            out.host_addresses = self.requests.addresses(None)?;
        }
        Ok(())
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
    /// The kernel's number of that namespace, and the index of the other end there.
    other_end: (Option<i32>, Option<u32>),
    name: String,
    is_up: bool,
    message: LinkMessage,
}

/// What can't be read belongs to a namespace that is gone, or to one that the agent has no right to read.
impl Namespaces for Requests {
    fn addresses(&mut self, namespace: i32) -> Option<BTreeSet<IpAddr>> {
        Self::addresses(self, Some(namespace)).ok()
    }

    fn hardware(&mut self, port: &Port) -> Option<Mac> {
        Self::hardware(self, port.namespace, port.peer).ok().flatten()
    }
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut out = Self {
            index: message.header.index,
            kind: None,
            controller: None,
            leads_elsewhere: false,
            other_end: (None, None),
            name: String::new(),
            is_up: message.header.flags.contains(LinkFlags::Up),
            message: LinkMessage::default(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Controller(index) => out.controller = Some(*index),
                LinkAttribute::LinkNetNsId(number) => {
                    out.leads_elsewhere = true;
                    out.other_end.0 = Some(*number);
                }
                LinkAttribute::Link(index) => out.other_end.1 = Some(*index),
                LinkAttribute::IfName(name) => out.name.clone_from(name),
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

    /// Returns what binds this port to a pod. `None` unless it is one end of a pair whose other end is in another namespace.
    fn port(&self) -> Option<Port> {
        let (Some(namespace), Some(peer)) = self.other_end else { return None };
        let is_pair = self.leads_to_pod() && self.kind == Some(InfoKind::Veth);
        is_pair.then_some(Port { index: self.index, namespace, peer })
    }

    fn leads_to_pod(&self) -> bool {
        let is_end = matches!(self.kind, Some(InfoKind::Veth | InfoKind::Tun | InfoKind::MacVtap));
        is_end && self.leads_elsewhere
    }
}

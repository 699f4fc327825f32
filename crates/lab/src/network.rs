//! Namespaces, links, addresses and routes of a lab.
//!
//! ```text
//!  the fabric's namespace: a bridge
//!     │ eth0              │ eth0                     │ eth0
//!  node w1             node w2                    outside
//!     │ veth, or           a default route to the      every outside address,
//!     │ bridge and veth    outside, a host route to    a host route to every pod
//!  pod x/a   pod x/b       every pod
//! ```
//!
//! Every address is a /32 or /128 with explicit routes, so that an address that a manifest declares can be in any place. A pod
//! has a default route to its node through a link-local gateway, as with Calico. It resolves the gateway by ARP and neighbor
//! discovery, so enforcement has to accept these. Neighbor entries on the fabric are permanent, because a thousand
//! simultaneous connections must not wait for address resolution.

use std::{collections::BTreeMap, io, net::IpAddr};

use palisade_netns::{
    namespace::{Namespace, set_sysctls},
    rtnetlink::{LOOPBACK, LinkEnd, Mac, Netlink, NetlinkError, Route},
};
use palisade_policy::{Family, Name, ObjectKey};

use crate::{error::LabError, layout::Layout, options::Families};

/// The interface index of `eth0`: the only interface of a pod and of the outside, and a node's interface to the fabric.
const ETH0: u32 = 2;
/// The interface index of a node's bridge.
const BRIDGE: u32 = 3;
/// The first interface index of veth ends on a node and on the fabric.
const FIRST_PORT: u32 = 100;
/// The interface index of the fabric's bridge.
const FABRIC: u32 = 2;

/// Returns the gateway of every pod, on every node. It is link-local (RFC 3927, RFC 4291), so it collides with no other address.
fn pod_gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([169, 254, 1, 1]),
        Family::V6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
    }
}

/// Returns the next hop of a node to addresses outside the cluster.
fn outside_gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([169, 254, 1, 254]),
        Family::V6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0xfe]),
    }
}

/// Returns a locally administered hardware address. `kind` distinguishes the ends of one pair.
fn mac(kind: u8, slot: u32) -> Mac {
    let [a, b, c, d] = slot.to_be_bytes();
    [0x02 | (kind << 4), a, b, c, d, 0x50]
}

const POD_END: u8 = 1;
const NODE_END: u8 = 2;
const FABRIC_END: u8 = 3;
const NODE_BRIDGE: u8 = 4;
const SITE_END: u8 = 5;

/// The maximum number of neighbor entries that bridged pods resolve by ARP and neighbor discovery. With more, all entries are
/// permanent: the kernel has one table for all namespaces and refuses new entries from 1,024 on (`gc_thresh3`).
const MAX_DISCOVERED: usize = 600;

/// A node or the outside, which are attached to the fabric.
#[derive(Debug)]
struct Site {
    namespace: Namespace,
    netlink: Netlink,
    slot: u32,
}

#[derive(Debug)]
struct PodNet {
    namespace: Namespace,
    netlink: Netlink,
    slot: u32,
}

/// The network of a lab.
#[derive(Debug)]
pub(crate) struct Network {
    fabric: Netlink,
    outside: Site,
    nodes: BTreeMap<Name, Site>,
    pods: BTreeMap<ObjectKey, PodNet>,
    next_slot: u32,
}

/// The IPv6 sysctls of every namespace. Bridge and hairpin paths reflect a host's multicast back to it, and duplicate
/// address detection would then give up the address.
const HOST_V6: [(&str, &str); 5] = [
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
];
/// The IPv4 sysctls of every namespace.
const HOST_V4: [(&str, &str); 3] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
];
/// The IPv6 sysctls of a router. ICMP errors are not rate-limited: a probe of a service without backends waits for one.
const ROUTER_V6: [(&str, &str); 3] =
    [("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "1"), ("ipv6/icmp/ratelimit", "0")];
/// The IPv4 sysctls of a router.
const ROUTER_V4: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
];
/// Allows ping sockets for root (`Documentation/networking/ip-sysctl.rst`).
const PING: [(&str, &str); 1] = [("ipv4/ping_group_range", "0 0")];
const BRIDGE_NETFILTER: [&str; 2] = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"];

fn host_sysctls(families: Families) -> io::Result<()> {
    set_sysctls(&HOST_V4)?;
    set_sysctls(&PING)?;
    if families.has(Family::V6) { set_sysctls(&HOST_V6) } else { Ok(()) }
}

fn router_sysctls(families: Families) -> io::Result<()> {
    host_sysctls(families)?;
    set_sysctls(&ROUTER_V4)?;
    if families.has(Family::V6) { set_sysctls(&ROUTER_V6) } else { Ok(()) }
}

fn in_network(place: &str) -> impl Fn(NetlinkError) -> LabError {
    move |source| LabError::Network { place: place.to_owned(), source }
}

/// Creates a namespace, runs `setup` in it and opens a netlink socket there.
fn namespace(
    place: &str,
    setup: impl FnOnce() -> io::Result<()> + Send,
) -> Result<(Namespace, Netlink), LabError> {
    let (namespace, (settings, netlink)) = Namespace::create(|| (setup(), Netlink::open()))
        .map_err(|source| LabError::Namespace { place: place.to_owned(), source })?;
    settings.map_err(|source| LabError::Setting { place: place.to_owned(), source })?;
    let mut netlink = netlink.map_err(in_network(place))?;
    netlink.link_up(LOOPBACK);
    Ok((namespace, netlink))
}

/// Returns the first address of a family.
fn first(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses.iter().copied().find(|a| Family::of(*a) == family)
}

impl Network {
    /// Creates the fabric, the outside and the nodes, without pods.
    pub(crate) fn new(layout: &Layout) -> Result<Self, LabError> {
        // Each lab has its own fabric namespace, so that one process can hold several labs.
        let (_fabric_namespace, mut fabric) = namespace("the fabric", || {
            // Only the nodes filter packets. Without br_netfilter the sysctl does not exist, and the fabric filters nothing.
            let _ = set_sysctls(&BRIDGE_NETFILTER.map(|name| (name, "0")));
            host_sysctls(layout.options.families)
        })?;
        fabric.bridge(&LinkEnd { name: "fabric".into(), index: FABRIC, mac: mac(NODE_BRIDGE, 0) });
        fabric.commit().map_err(in_network("the fabric"))?;
        let families = layout.options.families;
        let (outside, netlink) = namespace("the outside", || router_sysctls(families))?;
        let outside = Site { namespace: outside, netlink, slot: 0 };
        let mut network =
            Self { fabric, outside, nodes: BTreeMap::new(), pods: BTreeMap::new(), next_slot: 1 };
        attach(&mut network.fabric, &network.outside).map_err(in_network("the outside"))?;
        network.outside.netlink.link_up(ETH0);
        for address in &layout.outside {
            network.outside.netlink.address(ETH0, *address, false);
        }
        network.outside.netlink.commit().map_err(in_network("the outside"))?;
        for (name, addresses) in &layout.nodes {
            network.add_node(name, addresses, layout)?;
        }
        network.connect_nodes(layout)?;
        Ok(network)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Name, &Namespace)> {
        self.nodes.iter().map(|(n, s)| (n, &s.namespace))
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = (&ObjectKey, &Namespace)> {
        self.pods.iter().map(|(k, p)| (k, &p.namespace))
    }

    pub(crate) fn node(&self, name: &Name) -> Option<&Namespace> {
        self.nodes.get(name).map(|s| &s.namespace)
    }

    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<&Namespace> {
        self.pods.get(key).map(|p| &p.namespace)
    }

    pub(crate) fn outside(&self) -> &Namespace {
        &self.outside.namespace
    }

    fn slot(&mut self) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        slot
    }

    fn add_node(&mut self, name: &Name, addresses: &[IpAddr], layout: &Layout) -> Result<(), LabError> {
        let place = format!("node {name}");
        let bridged = layout.options.bridged;
        let families = layout.options.families;
        let mut bridge_netfilter = Ok(());
        let (namespace, netlink) = namespace(&place, || {
            if bridged {
                bridge_netfilter = set_sysctls(&BRIDGE_NETFILTER.map(|name| (name, "1")));
            }
            router_sysctls(families)
        })?;
        bridge_netfilter.map_err(LabError::NoBridgeNetfilter)?;
        let mut site = Site { namespace, netlink, slot: self.slot() };
        attach(&mut self.fabric, &site).map_err(in_network(&place))?;
        site.netlink.link_up(ETH0);
        for address in addresses {
            site.netlink.address(ETH0, *address, false);
        }
        if bridged {
            let slot = site.slot;
            site.netlink.bridge(&LinkEnd { name: "cni0".into(), index: BRIDGE, mac: mac(NODE_BRIDGE, slot) });
            for family in families.all() {
                site.netlink.address(BRIDGE, pod_gateway(*family), true);
            }
        }
        for family in families.all() {
            let via = outside_gateway(*family);
            let any = palisade_policy::address::from_number(*family, 0);
            site.netlink.neighbor(ETH0, via, mac(SITE_END, self.outside.slot));
            let source = first(addresses, *family);
            site.netlink.route(&Route { to: (any, 0), via: Some(via), link: ETH0, source });
        }
        site.netlink.commit().map_err(in_network(&place))?;
        self.nodes.insert(name.clone(), site);
        Ok(())
    }

    /// Adds routes and neighbor entries between all nodes, and from the outside to them.
    fn connect_nodes(&mut self, layout: &Layout) -> Result<(), LabError> {
        let macs: Vec<(Name, Mac)> =
            self.nodes.iter().map(|(n, s)| (n.clone(), mac(SITE_END, s.slot))).collect();
        for (other, mac) in &macs {
            for address in &layout.nodes[other] {
                self.outside.netlink.neighbor(ETH0, *address, *mac).route(&Route::to_host(*address, ETH0));
                for (name, site) in self.nodes.iter_mut().filter(|(n, _)| *n != other) {
                    let source = first(&layout.nodes[name], Family::of(*address));
                    let route = Route { source, ..Route::to_host(*address, ETH0) };
                    site.netlink.neighbor(ETH0, *address, *mac).route(&route);
                }
            }
        }
        self.commit_sites()
    }

    fn commit_sites(&mut self) -> Result<(), LabError> {
        self.outside.netlink.commit().map_err(in_network("the outside"))?;
        for (name, site) in &mut self.nodes {
            site.netlink.commit().map_err(in_network(&format!("node {name}")))?;
        }
        Ok(())
    }

    /// Removes the nodes in `removed`, adds the new nodes of `to`, and connects all nodes.
    pub(crate) fn set_nodes(&mut self, from: &Layout, to: &Layout, removed: &[Name]) -> Result<(), LabError> {
        for name in removed {
            let Some(site) = self.nodes.remove(name) else { continue };
            self.fabric
                .remove_link(FIRST_PORT + site.slot)
                .commit()
                .map_err(in_network(&format!("node {name}")))?;
            for address in &from.nodes[name] {
                let route = Route::to_host(*address, ETH0);
                for site in self.nodes.values_mut().chain([&mut self.outside]) {
                    site.netlink.remove_route(&route).remove_neighbor(ETH0, *address);
                }
            }
        }
        self.commit_sites()?;
        let new: Vec<&Name> = to.nodes.keys().filter(|n| !self.nodes.contains_key(*n)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for name in &new {
            self.add_node(name, &to.nodes[*name], to)?;
        }
        self.connect_nodes(to)?;
        // The new nodes need routes to the pods that stay.
        let staying: Vec<ObjectKey> = self.pods.keys().cloned().collect();
        for key in staying {
            let Some(place) = to.pods.get(&key) else { continue };
            for name in &new {
                let source = &to.nodes[*name];
                if let Some(site) = self.nodes.get_mut(*name) {
                    for route in remote_routes(&place.addresses, &to.nodes[&place.node], source) {
                        site.netlink.route(&route);
                    }
                }
            }
        }
        self.commit_sites()
    }

    /// Replaces the addresses of the outside.
    pub(crate) fn set_outside(&mut self, from: &Layout, to: &Layout) -> Result<(), LabError> {
        for address in from.outside.iter().filter(|a| !to.outside.contains(a)) {
            self.outside.netlink.remove_address(ETH0, *address);
        }
        for address in to.outside.iter().filter(|a| !from.outside.contains(a)) {
            self.outside.netlink.address(ETH0, *address, false);
        }
        self.outside.netlink.commit().map_err(in_network("the outside"))
    }

    /// Creates pods and attaches them to their nodes.
    pub(crate) fn add_pods(&mut self, layout: &Layout, keys: &[ObjectKey]) -> Result<(), LabError> {
        let families = layout.options.families;
        for key in keys {
            let place = format!("pod {key}");
            let (namespace, netlink) = namespace(&place, || host_sysctls(families))?;
            let slot = self.slot();
            let mut pod = PodNet { namespace, netlink, slot };
            let at = &layout.pods[key];
            let Some(node) = self.nodes.get_mut(&at.node) else {
                return Err(LabError::NoSuchPlace(format!("node {}", at.node)));
            };
            let end =
                LinkEnd { name: format!("pod{slot}"), index: FIRST_PORT + slot, mac: mac(NODE_END, slot) };
            let peer = LinkEnd { name: "eth0".into(), index: ETH0, mac: mac(POD_END, slot) };
            node.netlink.veth(&end, &peer, &pod.namespace);
            if layout.options.bridged {
                node.netlink.bridge_port(end.index, BRIDGE, true);
            } else {
                for family in families.all() {
                    node.netlink.address(end.index, pod_gateway(*family), true);
                }
            }
            for address in &at.addresses {
                let link = if layout.options.bridged { BRIDGE } else { end.index };
                let source = first(&layout.nodes[&at.node], Family::of(*address));
                node.netlink.route(&Route { source, ..Route::to_host(*address, link) });
                if !layout.options.bridged {
                    node.netlink.neighbor(link, *address, peer.mac);
                }
            }
            // The pod's end of the veth pair exists only after the node's requests are done.
            node.netlink.commit().map_err(in_network(&place))?;
            pod.netlink.link_up(ETH0);
            for address in &at.addresses {
                let family = Family::of(*address);
                let any = palisade_policy::address::from_number(family, 0);
                let default = Route {
                    to: (any, 0),
                    via: Some(pod_gateway(family)),
                    link: ETH0,
                    source: Some(*address),
                };
                pod.netlink.address(ETH0, *address, false).route(&default);
            }
            pod.netlink.commit().map_err(in_network(&place))?;
            self.pods.insert(key.clone(), pod);
        }
        for key in keys {
            let at = &layout.pods[key];
            let via = &layout.nodes[&at.node];
            for route in remote_routes(&at.addresses, via, &[]) {
                self.outside.netlink.route(&route);
            }
            for (name, site) in self.nodes.iter_mut().filter(|(n, _)| **n != at.node) {
                for route in remote_routes(&at.addresses, via, &layout.nodes[name]) {
                    site.netlink.route(&route);
                }
            }
        }
        self.commit_sites()?;
        if layout.options.bridged { self.connect_bridged(layout, keys) } else { Ok(()) }
    }

    /// Adds routes between the pods on one bridge, and permanent neighbor entries where there are too many to resolve.
    fn connect_bridged(&mut self, layout: &Layout, new: &[ObjectKey]) -> Result<(), LabError> {
        let mut per_node: BTreeMap<&Name, Vec<Neighbour<'_>>> = BTreeMap::new();
        for (key, at) in &layout.pods {
            if let Some(pod) = self.pods.get(key) {
                per_node.entry(&at.node).or_default().push((
                    key.clone(),
                    &at.addresses,
                    mac(POD_END, pod.slot),
                ));
            }
        }
        let pairs: usize = per_node.values().map(|p| p.len() * p.len()).sum();
        let permanent = pairs * layout.options.families.all().len() > MAX_DISCOVERED;
        for neighbours in per_node.values() {
            for (key, _, _) in neighbours {
                let is_new = new.contains(key);
                let Some(pod) = self.pods.get_mut(key) else { continue };
                let others = neighbours.iter().filter(|(k, _, _)| k != key && (is_new || new.contains(k)));
                for (_, addresses, mac) in others {
                    for address in *addresses {
                        pod.netlink.route(&Route::to_host(*address, ETH0));
                        if permanent {
                            pod.netlink.neighbor(ETH0, *address, *mac);
                        }
                    }
                }
                pod.netlink.commit().map_err(in_network(&format!("pod {key}")))?;
            }
        }
        Ok(())
    }

    /// Removes pods and every route to them.
    pub(crate) fn remove_pods(&mut self, layout: &Layout, keys: &[ObjectKey]) -> Result<(), LabError> {
        // The namespaces are kept until the end of the function: the kernel removes the links of a closed namespace later, at
        // an unknown time.
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(pod) = self.pods.remove(key) else { continue };
            let at = &layout.pods[key];
            let via = &layout.nodes[&at.node];
            for (name, site) in &mut self.nodes {
                if *name == at.node {
                    // Routes and neighbor entries vanish with their link, except those of a bridge.
                    site.netlink.remove_link(FIRST_PORT + pod.slot);
                    if layout.options.bridged {
                        for a in &at.addresses {
                            site.netlink
                                .remove_route(&Route::to_host(*a, BRIDGE))
                                .remove_neighbor(BRIDGE, *a);
                        }
                    }
                } else {
                    for route in remote_routes(&at.addresses, via, &[]) {
                        site.netlink.remove_route(&route);
                    }
                }
            }
            for route in remote_routes(&at.addresses, via, &[]) {
                self.outside.netlink.remove_route(&route);
            }
            if layout.options.bridged {
                let same_node = layout.pods.iter().filter(|(k, p)| *k != key && p.node == at.node);
                for (other, _) in same_node {
                    if let Some(other_pod) = self.pods.get_mut(other) {
                        for a in &at.addresses {
                            other_pod
                                .netlink
                                .remove_route(&Route::to_host(*a, ETH0))
                                .remove_neighbor(ETH0, *a);
                        }
                        other_pod.netlink.commit().map_err(in_network(&format!("pod {other}")))?;
                    }
                }
            }
            removed.push(pod);
        }
        self.commit_sites()
    }
}

/// A pod on a bridge: its key, its addresses and its hardware address.
type Neighbour<'a> = (ObjectKey, &'a [IpAddr], Mac);

/// Returns the routes from a namespace on the fabric to a pod on another node, whose addresses are `via`.
fn remote_routes(pod: &[IpAddr], via: &[IpAddr], source: &[IpAddr]) -> impl Iterator<Item = Route> {
    pod.iter().map(move |address| {
        let family = Family::of(*address);
        Route { via: first(via, family), source: first(source, family), ..Route::to_host(*address, ETH0) }
    })
}

/// Connects a node or the outside to the fabric.
fn attach(fabric: &mut Netlink, site: &Site) -> Result<(), NetlinkError> {
    let slot = site.slot;
    let end = LinkEnd { name: format!("site{slot}"), index: FIRST_PORT + slot, mac: mac(FABRIC_END, slot) };
    let peer = LinkEnd { name: "eth0".into(), index: ETH0, mac: mac(SITE_END, slot) };
    fabric.veth(&end, &peer, &site.namespace).bridge_port(end.index, FABRIC, false).commit()
}

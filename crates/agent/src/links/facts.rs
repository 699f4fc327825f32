//! What is known of the node's links. Read once, then followed: a notification says what to read again.
//!
//! What is read is always the kernel's present state, so a notification can't make this older or mix two states. The kernel doesn't notify of
//! everything; what follows from other changes is marked with these:
//!
//! * The other end of a pair of interfaces moves to another namespace: this end changes too.
//! * An interface goes down: IPv4 routes through it are gone.
//! * The last copy of an IPv4 address is removed: routes that have it as their source are gone (Linux notifies of these since 6.7).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use palisade_nft::{Mac, NodeLinks};

use super::{
    binding::Port,
    bridges::BridgeOptions,
    notifications::{Events, Hint},
    rtnetlink::{Requests, Route, hardware_of},
    tunnels,
};

/// Addresses of documentation networks, which no host has: their routes lead out of the node.
const EXTERNAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// If more interfaces than this may have changed, all are listed: one request instead of one for each.
const LISTED: usize = 32;

/// The most interfaces that are remembered as changed, while they can't be read.
const REMEMBERED: usize = 10_000;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) kind: Option<InfoKind>,
    /// The bridge that it is a port of.
    pub(super) controller: Option<u32>,
    /// Whether its other end is in another network namespace.
    leads_elsewhere: bool,
    /// The kernel's number of that namespace, and the index of the other end there.
    other_end: (Option<i32>, Option<u32>),
    pub(super) name: String,
    pub(super) is_up: bool,
    /// Whether it has a carrier.
    is_running: bool,
    pub(super) hardware: Option<Mac>,
    /// The options, if it is a bridge.
    pub(super) bridge: Option<BridgeOptions>,
    /// What it adds as the device of a tunnel.
    pub(super) tunnel: Option<Box<NodeLinks>>,
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut tunnel = NodeLinks::default();
        tunnels::add(message, &mut tunnel);
        let mut out = Self {
            index: message.header.index,
            kind: None,
            controller: None,
            leads_elsewhere: false,
            other_end: (None, None),
            name: String::new(),
            is_up: flags.contains(LinkFlags::Up),
            is_running: flags.contains(LinkFlags::Running | LinkFlags::LowerUp),
            hardware: hardware_of(message),
            bridge: None,
            tunnel: (tunnel != NodeLinks::default()).then(|| Box::new(tunnel)),
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
                    for info in info {
                        match info {
                            LinkInfo::Kind(kind) => out.kind = Some(kind.clone()),
                            LinkInfo::Data(InfoData::Bridge(options)) => {
                                out.bridge = Some(BridgeOptions::of(options));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// Returns what binds this port to a pod. `None` unless it is one end of a pair whose other end is in another namespace.
    pub(super) fn port(&self) -> Option<Port> {
        let (Some(namespace), Some(peer)) = self.other_end else { return None };
        let is_pair = self.leads_to_pod() && self.kind == Some(InfoKind::Veth);
        is_pair.then_some(Port { index: self.index, namespace, peer })
    }

    pub(super) fn leads_to_pod(&self) -> bool {
        let is_end = matches!(self.kind, Some(InfoKind::Veth | InfoKind::Tun | InfoKind::MacVtap));
        is_end && self.leads_elsewhere
    }

    /// Whether it is the device of a tunnel, also of an encrypted one, and no port of a bridge.
    pub(super) fn carries_other_hosts(&self) -> bool {
        let is_tunnel = self.tunnel.is_some() || self.kind == Some(InfoKind::Wireguard);
        is_tunnel && self.controller.is_none() && !self.leads_elsewhere
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }

    /// The other end of a pair, if it is in this namespace.
    fn other_end_here(&self) -> Option<u32> {
        let is_here = self.kind == Some(InfoKind::Veth) && self.other_end.0.is_none();
        self.other_end.1.filter(|_| is_here)
    }
}

/// What may have changed since it was read.
#[derive(Debug, Default)]
struct Marks {
    everything: bool,
    /// Interfaces, and whether they were down.
    links: BTreeMap<u32, bool>,
    /// Interfaces whose addresses may have changed.
    addresses: BTreeSet<u32>,
    /// IPv4 addresses that were removed.
    removed: BTreeSet<IpAddr>,
    /// Local addresses whose routes may have changed.
    routes: BTreeSet<IpAddr>,
    /// Whether the routes to [`EXTERNAL`] may have changed.
    outward: bool,
    /// VXLAN devices whose forwarding entries may have changed.
    forwarding: BTreeSet<u32>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        let Self { everything, links, addresses, removed, routes, outward, forwarding } = self;
        let has_none = links.is_empty() && addresses.is_empty() && removed.is_empty() && routes.is_empty();
        has_none && forwarding.is_empty() && !everything && !outward
    }
}

/// The node's links, addresses and routes.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) links: BTreeMap<u32, Link>,
    /// The routes to local addresses.
    routes: BTreeMap<IpAddr, Option<Route>>,
    /// The routes that lead out of the node.
    outward: [Option<Route>; 2],
    /// The addresses of the interfaces, if they are followed.
    addresses: Option<BTreeMap<u32, BTreeSet<IpAddr>>>,
    /// The remote endpoints of VXLAN devices that are up.
    forwarding: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Interfaces that were removed since they were last asked for, even if there is another one with the same index.
    gone: BTreeSet<u32>,
    marks: Marks,
}

impl Facts {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            routes: BTreeMap::new(),
            outward: [None; 2],
            addresses: None,
            forwarding: BTreeMap::new(),
            gone: BTreeSet::new(),
            marks: Marks { everything: true, ..Marks::default() },
        }
    }

    /// Whether anything may have changed.
    pub(super) fn is_marked(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether everything has to be read.
    pub(super) fn is_lost(&self) -> bool {
        self.marks.everything
    }

    /// Marks everything.
    pub(super) fn mark_all(&mut self) {
        self.marks.everything = true;
    }

    /// Marks what a notification hints at.
    pub(super) fn mark(&mut self, hint: Hint) {
        match hint {
            Hint::Link { index, was_down, was_gone } => {
                *self.marks.links.entry(index).or_default() |= was_down;
                if was_gone {
                    self.gone.insert(index);
                }
                if self.marks.links.len().max(self.gone.len()) > REMEMBERED {
                    // As if notifications were lost.
                    self.marks.links.clear();
                    self.gone.clear();
                    self.mark_all();
                }
            }
            Hint::Addresses { index, removed } => {
                if self.addresses.is_some() {
                    self.marks.addresses.insert(index);
                }
                self.marks.removed.extend(removed.filter(IpAddr::is_ipv4));
            }
            Hint::Routes(network) => self.mark_routes(network),
            Hint::Forwarding(index) => drop(self.marks.forwarding.insert(index)),
            Hint::AllForwarding => self.marks.forwarding.extend(self.forwarding.keys()),
            Hint::Everything => self.marks.everything = true,
        }
    }

    fn mark_routes(&mut self, network: IpNet) {
        let within = self.routes.range(network.network()..=network.broadcast());
        self.marks.routes.extend(within.map(|(address, _)| *address));
        self.marks.outward |= EXTERNAL.iter().any(|address| network.contains(address));
    }

    /// Marks routes that `is_marked` selects.
    fn mark_routes_if(&mut self, is_marked: impl Fn(Option<&Route>) -> bool) {
        let marked = self.routes.iter().filter(|(_, route)| is_marked(route.as_ref()));
        self.marks.routes.extend(marked.map(|(address, _)| *address));
        self.marks.outward |= self.outward.iter().any(|route| is_marked(route.as_ref()));
    }

    /// Adds local addresses, whose routes are read next.
    pub(super) fn add_local(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            self.routes.entry(*address).or_default();
            self.marks.routes.insert(*address);
        }
    }

    /// Removes local addresses.
    pub(super) fn remove_local(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            self.routes.remove(address);
            self.marks.routes.remove(address);
        }
    }

    /// Returns the families of the local addresses, IPv4 first.
    pub(super) fn has_families(&self) -> [bool; 2] {
        [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is_of| self.routes.keys().any(is_of))
    }

    /// Returns the interfaces that lead to local addresses.
    pub(super) fn interfaces(&self) -> BTreeSet<u32> {
        self.on_link().map(|(_, interface)| interface).collect()
    }

    /// Returns the local addresses on a link of the node, each with the interface that the route leads through.
    pub(super) fn on_link(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let routes = self.routes.iter().filter_map(|(address, route)| Some((*address, route.as_ref()?)));
        routes.filter(|(_, route)| route.on_link).map(|(address, route)| (address, route.interface))
    }

    /// Returns the interfaces that lead out of the node.
    pub(super) fn outward(&self) -> impl Iterator<Item = u32> {
        self.outward.iter().flatten().map(|route| route.interface)
    }

    /// Returns the remote endpoints of VXLAN devices.
    pub(super) fn forwarding(&self) -> impl Iterator<Item = IpAddr> {
        self.forwarding.values().flatten().copied()
    }

    /// Returns the interfaces that were removed since the last call.
    pub(super) fn take_gone(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.gone)
    }

    /// Returns the addresses of the node's interfaces, and follows them from now on. Without the link-local ones of bridge ports: packets to
    /// these are delivered by the port alone, and the bridge takes all that arrives there.
    pub(super) fn addresses(&mut self, requests: &mut Requests) -> io::Result<BTreeSet<IpAddr>> {
        let by_index = match &mut self.addresses {
            Some(known) => known,
            unknown => unknown.insert(requests.addresses_by_interface(None, None)?),
        };
        let is_port = |index: &u32| self.links.get(index).is_some_and(|link| link.controller.is_some());
        let is_unused = |index: &u32, address: &IpAddr| is_link_local(*address) && is_port(index);
        let all = by_index.iter().flat_map(|(index, of)| of.iter().map(move |address| (index, address)));
        Ok(all.filter(|(index, address)| !is_unused(index, address)).map(|(_, address)| *address).collect())
    }

    /// Ends following the addresses of interfaces.
    pub(super) fn forget_addresses(&mut self) {
        self.addresses = None;
        self.marks.addresses.clear();
    }

    /// Marks everything, with these local addresses.
    pub(super) fn set_local(&mut self, local: &BTreeSet<IpAddr>) {
        self.routes = local.iter().map(|address| (*address, None)).collect();
        self.mark_all();
    }

    /// Reads what is marked.
    pub(super) fn update(&mut self, requests: &mut Requests, events: &mut Events) -> io::Result<()> {
        // If this fails, anything may be outdated.
        let everything = std::mem::replace(&mut self.marks.everything, true);
        if everything {
            self.read_all(requests, events)?;
        } else {
            self.read_marked(requests, events)?;
        }
        self.marks = Marks::default();
        Ok(())
    }

    fn read_all(&mut self, requests: &mut Requests, events: &mut Events) -> io::Result<()> {
        self.links = list(requests)?;
        self.marks.routes = self.routes.keys().copied().collect();
        self.marks.outward = true;
        self.read_routes(requests)?;
        self.addresses = None;
        self.forwarding.clear();
        self.read_forwarding(requests, events)
    }

    fn read_marked(&mut self, requests: &mut Requests, events: &mut Events) -> io::Result<()> {
        let links = std::mem::take(&mut self.marks.links);
        if links.len() > LISTED {
            let before = std::mem::replace(&mut self.links, list(requests)?);
            let all: BTreeSet<u32> = before.keys().chain(self.links.keys()).copied().collect();
            for index in all {
                self.follow_carrier(index, before.get(&index), links.get(&index) == Some(&true));
            }
        } else {
            self.read_links(&links, requests)?;
        }
        for address in std::mem::take(&mut self.marks.removed) {
            if !requests.is_local(address)? {
                self.mark_routes_if(|route| route.is_some_and(|route| route.source == Some(address)));
            }
        }
        self.read_routes(requests)?;
        if let Some(known) = &mut self.addresses {
            for index in &self.marks.addresses {
                let read = match self.links.contains_key(index) {
                    true => requests.addresses_by_interface(None, Some(*index))?,
                    false => BTreeMap::new(),
                };
                known.remove(index);
                known.extend(read.into_iter().filter(|(of, _)| of == index));
            }
        }
        self.read_forwarding(requests, events)
    }

    /// Reads interfaces, and the other ends of pairs that are here. Of a bridge whose hardware address follows from its ports, the kernel notifies.
    fn read_links(&mut self, marked: &BTreeMap<u32, bool>, requests: &mut Requests) -> io::Result<()> {
        let mut waiting: Vec<u32> = marked.keys().copied().collect();
        let mut read = BTreeSet::new();
        while let Some(index) = waiting.pop() {
            if !read.insert(index) {
                continue;
            }
            let before = self.links.remove(&index);
            if let Some(message) = requests.link(index)? {
                self.links.insert(index, Link::of(&message));
            }
            let after = self.links.get(&index);
            let ends = [before.as_ref(), after].map(|link| link.and_then(Link::other_end_here));
            if before.as_ref() != after {
                waiting.extend(ends.into_iter().flatten());
            }
            self.follow_carrier(index, before.as_ref(), marked.get(&index) == Some(&true));
        }
        Ok(())
    }

    /// Marks the routes that may have changed without a notification because an interface went down or up, and the addresses of one that is
    /// gone.
    fn follow_carrier(&mut self, index: u32, before: Option<&Link>, was_down: bool) {
        let state = |link: Option<&Link>| link.map(|link| (link.is_up, link.is_running));
        let after = self.links.get(&index);
        if !was_down && state(before) == state(after) {
            return;
        }
        if after.is_none() && self.addresses.is_some() {
            self.marks.addresses.insert(index);
        }
        // A route by another interface may lead elsewhere only if it was added, which the kernel notifies of, or if it had been passed over
        // because the interface had no carrier.
        self.mark_routes_if(|route| route.is_none_or(|route| route.interface == index || !route.on_link));
    }

    fn read_routes(&mut self, requests: &mut Requests) -> io::Result<()> {
        for address in std::mem::take(&mut self.marks.routes) {
            if let Some(route) = self.routes.get_mut(&address) {
                *route = requests.route(address)?;
            }
        }
        if std::mem::take(&mut self.marks.outward) {
            for (address, route) in EXTERNAL.into_iter().zip(&mut self.outward) {
                *route = requests.route(address)?;
            }
        }
        Ok(())
    }

    /// Reads the forwarding entries of VXLAN devices that are marked or new.
    fn read_forwarding(&mut self, requests: &mut Requests, events: &mut Events) -> io::Result<()> {
        let is_followed = |link: &&Link| link.is_up && link.kind == Some(InfoKind::Vxlan);
        let devices: BTreeSet<u32> = self.links.values().filter(is_followed).map(|link| link.index).collect();
        let mut marked = std::mem::take(&mut self.marks.forwarding);
        marked.extend(events.follow_forwarding(&devices)?);
        self.forwarding.retain(|index, _| devices.contains(index));
        for index in devices {
            if marked.contains(&index) || self.gone.contains(&index) || !self.forwarding.contains_key(&index)
            {
                let peers = requests.forwarding_peers(index)?.into_iter().collect();
                self.forwarding.insert(index, peers);
            }
        }
        Ok(())
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn list(requests: &mut Requests) -> io::Result<BTreeMap<u32, Link>> {
    let links = requests.links()?;
    Ok(links.iter().map(|message| (message.header.index, Link::of(message))).collect())
}

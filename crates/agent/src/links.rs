//! The node's links, as far as rules depend on them: which interfaces and bridge ports lead to local pods, and where the node
//! receives encapsulated packets, and to which pod each bridge port leads.
//!
//! ```text
//!  notifications ──hints──► facts ◄──what is marked── rtnetlink (requests)
//!                             │                          │ namespaces of pods
//!             links, routes   ▼                          ▼
//!                          node_links ◄──pods of ports── binding ◄── named
//! ```
//!
//! Everything is read at the start and when notifications were lost. Otherwise a notification, and a pod that starts, cost what they
//! change: the cost doesn't follow the number of pods.

mod binding;
mod bridges;
mod facts;
#[cfg_attr(
    not(feature = "daemon"),
    expect(dead_code, reason = "paths of namespaces are used by the feature `daemon` alone")
)]
mod named;
mod notifications;
mod rtnetlink;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use palisade_nft::{Mac, NodeLinks, SourceCheck};
use palisade_policy::{Name, ObjectKey};

#[cfg(feature = "daemon")]
pub(crate) use named::{NamedNamespace, open_namespace};

use binding::{Bindings, Namespaces, Pods, Port};
use facts::{Facts, Link};
use named::NamedNamespaces;
use notifications::Events;
use rtnetlink::Requests;

/// The shortest interval between two readings that no change of a local pod causes, however often links and routes change.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval between two full readings, without losses. While links change, it bounds for how long something that the kernel
/// doesn't notify of is missed. A full reading looks up one route for each local address and lists all interfaces.
const FULL_INTERVAL: Duration = Duration::from_mins(1);

/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Returns the addresses of the interfaces of the calling thread's network namespace, without listing the interfaces.
pub(crate) fn host_addresses() -> io::Result<BTreeSet<IpAddr>> {
    Requests::open()?.addresses(None)
}

/// Follows the links and routes of a network namespace.
#[derive(Debug)]
pub struct LinkMonitor {
    requests: Requests,
    events: Events,
    /// The links and routes.
    facts: Facts,
    /// The local pods, of those that have names.
    pods: Pods,
    /// Addresses that have passed from one pod to another since routes were last looked up.
    moved: BTreeSet<IpAddr>,
    /// The pods of bridge ports.
    bindings: Bindings,
    /// The network namespaces of pods that were named.
    named: NamedNamespaces,
    /// The bridges that lead to local pods.
    bridges: BTreeSet<u32>,
    /// Those of them for which the kernel rejects the option not to learn from frames that no rule sees.
    still_learning: BTreeSet<u32>,
    /// The bridge ports, and with a strict check other interfaces, whose pods are not known, with their names.
    unbound: BTreeMap<u32, String>,
    /// The namespaces in which source addresses are not checked.
    unchecked: BTreeSet<Name>,
    /// The networks that pods may use as a source beside their own addresses.
    allowed: BTreeMap<ObjectKey, BTreeSet<IpNet>>,
    /// The addresses of pods of other nodes.
    other_pods: Arc<BTreeSet<IpAddr>>,
    /// Whether a bridge leads to local pods and to other networks too.
    is_mixed: bool,
    /// Which senders are checked, and so which interfaces are bound to pods.
    source_check: SourceCheck,
    /// Whether something else than links and routes changed, or a reading failed, or what was read is not programmed.
    stale: bool,
    /// Whether links or routes have changed since the last full reading.
    changed: bool,
    /// When links were read last without a change of local pods.
    read: Option<Instant>,
    /// When everything was read last.
    read_all: Option<Instant>,
    /// How often everything was read.
    full_readings: u64,
}

impl LinkMonitor {
    /// Opens the sockets in the calling thread's network namespace.
    ///
    /// `source_check` decides of which interfaces to find out the pods.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open(source_check: SourceCheck) -> io::Result<Self> {
        // Opened first, so that no change is missed between the first reading and the first notification.
        let events = Events::open()?;
        Ok(Self {
            requests: Requests::open()?,
            events,
            facts: Facts::new(),
            pods: Pods::new(),
            moved: BTreeSet::new(),
            bindings: Bindings::default(),
            named: NamedNamespaces::default(),
            bridges: BTreeSet::new(),
            still_learning: BTreeSet::new(),
            unbound: BTreeMap::new(),
            unchecked: BTreeSet::new(),
            allowed: BTreeMap::new(),
            other_pods: Arc::default(),
            is_mixed: false,
            source_check,
            stale: true,
            changed: false,
            read: None,
            read_all: None,
            full_readings: 0,
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

    /// Whether the addresses of pods of other nodes matter: the check of sources is on, and a bridge of pods leads to other networks too.
    pub(crate) fn wants_other_pods(&self) -> bool {
        self.is_mixed && self.source_check.is_on()
    }

    /// Tells the addresses of pods of other nodes.
    pub(crate) fn set_other_pods(&mut self, addresses: &Arc<BTreeSet<IpAddr>>) {
        self.stale |= self.wants_other_pods() && self.other_pods != *addresses;
        self.other_pods = Arc::clone(addresses);
    }

    /// Tells which pods local addresses belong to, before the addresses are added. The owners of other addresses stay.
    pub fn name_local(&mut self, names: &BTreeMap<IpAddr, ObjectKey>) {
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
    #[must_use]
    pub fn unbound(&self) -> &BTreeMap<u32, String> {
        &self.unbound
    }

    /// The bridges that lead to local pods and pass packets between their ports past netfilter, so that no policy applies to these.
    #[must_use]
    pub fn bypassing(&self) -> Vec<String> {
        let bridges = self.bridges.iter().filter_map(|index| self.facts.links.get(index));
        let options = bridges.filter_map(|link| Some((link.name.as_str(), link.bridge?)));
        bridges::bypassing(options, self.facts.has_families())
    }

    /// The bridges that lead to local pods and learn hardware addresses from frames that no rule sees, although the agent has set an option
    /// against it.
    #[must_use]
    pub fn learning(&self) -> Vec<String> {
        let names = self.still_learning.iter().filter_map(|index| self.facts.links.get(index));
        names.map(|link| link.name.clone()).collect()
    }

    /// Returns how many netlink messages were sent and received so far.
    pub(crate) fn messages(&self) -> u64 {
        self.requests.messages() + self.events.count()
    }

    /// Returns how often everything was read.
    #[must_use]
    pub fn full_readings(&self) -> u64 {
        self.full_readings
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
    ///
    /// # Errors
    /// If the kernel can't be asked.
    pub fn read(&mut self, local: &BTreeSet<IpAddr>) -> io::Result<NodeLinks> {
        self.retain_addresses(|address| local.contains(address));
        self.read = Some(Instant::now());
        self.facts.set_local(local);
        self.moved.clear();
        self.update()
    }

    /// Updates the links before local addresses are added or removed, or pass from one pod to another. `None` if none do.
    ///
    /// # Errors
    /// If the kernel can't be asked. The next reading is a full one.
    pub fn follow(
        &mut self,
        added: &BTreeSet<IpAddr>,
        removed: &BTreeSet<IpAddr>,
    ) -> Option<io::Result<NodeLinks>> {
        let mut changed = std::mem::take(&mut self.moved);
        if changed.is_empty() && added.is_empty() && removed.is_empty() {
            return None;
        }
        changed.extend(added);
        self.retain_addresses(|address| !removed.contains(address));
        self.facts.remove_local(removed);
        self.facts.add_local(&changed);
        Some(self.update())
    }

    /// Reads what has changed since the last reading. `local` has the addresses of local pods.
    ///
    /// # Errors
    /// If the kernel can't be asked. The next reading is a full one.
    pub fn refresh(&mut self, local: &BTreeSet<IpAddr>) -> io::Result<NodeLinks> {
        self.collect()?;
        if self.facts.is_lost() || self.is_full_reading_due() {
            return self.read(local);
        }
        self.read = Some(Instant::now());
        self.update()
    }

    /// Whether a reading is due: something changed, and the last reading is long enough ago.
    pub(crate) fn is_due(&mut self) -> io::Result<bool> {
        self.collect()?;
        let is_changed = self.stale || self.facts.is_marked();
        let has_waited = self.read.is_none_or(|at| at.elapsed() >= MIN_INTERVAL);
        Ok(is_changed && has_waited || self.is_full_reading_due())
    }

    /// Deletes the unresolved neighbor entries of a pod's addresses, and with them the packets that wait until the kernel has found the pod's
    /// hardware address. The forward hook has accepted these before the pod was isolated, and no hook sees them again. Errors are logged.
    #[cfg(feature = "daemon")]
    pub(crate) fn drop_waiting_packets(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            let dropped = self.requests.route(*address).and_then(|route| match route {
                Some(route) if route.on_link => {
                    self.requests.forget_unresolved_neighbor(route.interface, *address)
                }
                _ => Ok(()),
            });
            if let Err(err) = dropped {
                tracing::debug!(%address, %err, "cannot drop the packets that wait for a pod");
            }
        }
    }

    /// Returns whether the node itself has one of these addresses.
    #[cfg(feature = "daemon")]
    pub(crate) fn has_any(&mut self, addresses: &[IpAddr]) -> io::Result<bool> {
        for address in addresses {
            if self.requests.is_local(*address)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the next reading due, because what was read could not be programmed.
    pub(crate) fn invalidate(&mut self) {
        self.stale = true;
    }

    /// As [`LinkMonitor::invalidate`], because the change of local addresses could not be programmed either.
    pub(crate) fn invalidate_all(&mut self) {
        self.stale = true;
        self.facts.mark_all();
    }

    fn is_full_reading_due(&self) -> bool {
        self.changed && self.read_all.is_none_or(|at| at.elapsed() >= FULL_INTERVAL)
    }

    /// Notes what notifications hint at.
    fn collect(&mut self) -> io::Result<()> {
        let Self { events, facts, changed, .. } = self;
        let outcome = events.drain(|hint| {
            *changed = true;
            facts.mark(hint);
        });
        if outcome.is_err() {
            self.facts.mark_all();
        }
        outcome
    }

    fn update(&mut self) -> io::Result<NodeLinks> {
        self.stale = true;
        self.collect()?;
        if self.facts.is_lost() {
            (self.read_all, self.changed) = (Some(Instant::now()), false);
            self.full_readings += 1;
        }
        self.facts.update(&mut self.requests, &mut self.events)?;
        let node_links = self.node_links()?;
        self.stale = false;
        Ok(node_links)
    }

    fn node_links(&mut self) -> io::Result<NodeLinks> {
        let mut out = NodeLinks::default();
        let ends = find_interfaces(&self.facts, &mut out);
        self.bindings.forget(&self.facts.take_gone());
        self.unbound.clear();
        let bridge_of = |port: &u32| self.facts.links.get(port).and_then(|link| link.controller);
        self.bridges = out.pod_ports.iter().filter_map(bridge_of).collect();
        self.is_mixed = !self.bridges.is_subset(&out.pod_bridges);
        if self.wants_other_pods() {
            out.other_pods = Arc::clone(&self.other_pods);
        }
        if self.source_check.is_on() {
            out.pod_routes.extend(self.facts.on_link());
            out.pod_routes.retain(|_, interface| out.pod_interfaces.contains(interface));
            self.bind(&ends, &mut out);
            self.stop_learning_from_groups();
        }
        if self.source_check.is_on() && !out.pod_ports.is_empty() {
            out.host_addresses = self.facts.addresses(&mut self.requests)?;
        } else {
            self.facts.forget_addresses();
        }
        Ok(out)
    }

    /// Sets the bridges' option. The kernel notifies of it, and then it is read back. What the rules enforce doesn't depend on it.
    fn stop_learning_from_groups(&mut self) {
        self.still_learning.clear();
        for index in &self.bridges {
            let options = self.facts.links.get(index).and_then(|link| link.bridge);
            let is_learning = options.is_some_and(|options| options.learns_from_groups);
            if is_learning && self.requests.set_no_link_local_learning(*index).is_err() {
                self.still_learning.insert(*index);
            }
        }
    }

    /// Finds out which pods bridge ports and other interfaces lead to.
    fn bind(&mut self, ends: &[Port], out: &mut NodeLinks) {
        let named = self.named.numbers(&mut self.requests);
        self.bindings.update(ends, &self.pods, &named, &mut self.requests);
        let bindings = &self.bindings;
        let is_unchecked =
            |index: &u32| bindings.pod(*index).is_some_and(|pod| self.unchecked.contains(&pod.namespace));
        out.unchecked_ports = out.pod_ports.iter().copied().filter(is_unchecked).collect();
        for (index, owner) in bindings.owners() {
            // The node itself receives the packets of a port on its bridge.
            let receiving = self.facts.links.get(&index).and_then(|link| link.controller).unwrap_or(index);
            if let Some(mac) = owner.hardware {
                out.senders.insert((receiving, mac), owner.addresses.clone());
            }
            if out.pod_ports.contains(&index) {
                out.owners.insert(index, owner);
            } else if self.source_check == SourceCheck::Strict && !is_unchecked(&index) {
                out.interface_owners.insert(index, owner.addresses);
            }
            if let Some(networks) = bindings.pod(index).and_then(|pod| self.allowed.get(pod)) {
                out.allowed_sources.insert(index, networks.clone());
            }
        }
        let strict = ends.iter().map(|end| end.index).filter(|_| self.source_check == SourceCheck::Strict);
        let leading: BTreeSet<u32> = out.pod_ports.iter().copied().chain(strict).collect();
        let unbound = leading.into_iter().filter(|index| bindings.pod(*index).is_none());
        let links = &self.facts.links;
        self.unbound.extend(unbound.filter_map(|index| Some((index, links.get(&index)?.name.clone()))));
    }
}

/// Adds the interfaces of pods and of tunnels. Returns those whose pods are to be found.
fn find_interfaces(facts: &Facts, out: &mut NodeLinks) -> Vec<Port> {
    // By index: a port of a bridge may also be what a route leads to.
    let mut ends: BTreeMap<u32, Port> = BTreeMap::new();
    let by_index = |port: Port| (port.index, port);
    let outward: BTreeSet<u32> = facts.outward().chain([LOOPBACK]).collect();
    let mut ports: BTreeMap<u32, Vec<&Link>> = BTreeMap::new();
    for link in facts.links.values() {
        ports.entry(link.controller.unwrap_or_default()).or_default().push(link);
    }
    for index in facts.interfaces() {
        let link = facts.links.get(&index);
        let bridge = link.filter(|link| link.is_bridge());
        let ports = bridge.and_then(|_| ports.get(&index)).map(Vec::as_slice).unwrap_or_default();
        ends.extend(ports.iter().copied().filter_map(Link::port).map(by_index));
        out.pod_ports.extend(ports.iter().filter(|port| port.leads_to_pod()).map(|port| port.index));
        out.bridge_hardware.extend(bridge.and_then(|bridge| bridge.hardware));
        // A bridge with other ports also carries packets of other hosts.
        let is_mixed = ports.iter().any(|port| !port.leads_to_pod());
        if !outward.contains(&index) && !is_mixed {
            out.pod_interfaces.insert(index);
            if bridge.is_some() {
                out.pod_bridges.insert(index);
            } else {
                ends.extend(link.and_then(Link::port).map(by_index));
            }
        }
    }
    for tunnel in facts.links.values().filter(|link| link.is_up).filter_map(|link| link.tunnel.as_ref()) {
        out.tunnel_ports.extend(&tunnel.tunnel_ports);
        out.tunnel_protocols.extend(&tunnel.tunnel_protocols);
        out.tunnel_peers.extend(&tunnel.tunnel_peers);
    }
    out.tunnel_peers.extend(facts.forwarding());
    let of_tunnels = facts.links.values().filter(|link| link.is_up && link.carries_other_hosts());
    out.uplinks = facts.outward().chain(of_tunnels.map(|link| link.index)).collect();
    ends.into_values().collect()
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

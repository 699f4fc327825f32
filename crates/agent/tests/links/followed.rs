//! Random changes of a node's interfaces, addresses, routes and pods: what is followed is what a full reading finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, InfoVlan, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use palisade_agent::LinkMonitor;
use palisade_netns::{
    Namespace,
    rtnetlink::{LOOPBACK, Netlink, Route},
};
use palisade_nft::{NodeLinks, SourceCheck};
use palisade_policy::ObjectKey;
use palisade_testkit::seeds;

use crate::{node::Place, trial};

/// The pods, each with a network namespace.
const PODS: usize = 4;
/// The indexes of interfaces. Few, so that they are used again.
const INDEXES: std::ops::Range<usize> = 100..110;
/// The steps with one seed.
const STEPS: usize = 120;
/// How long to wait for what the kernel reports with a delay, such as a carrier. Far less than the minute after which everything is read again,
/// which would find what following has missed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often another change is tried in place of one that the kernel refuses, such as one of an interface that doesn't exist.
const TRIES: usize = 4;

pub(crate) fn trials() -> Vec<Trial> {
    let random = trial("followed_links_are_those_of_a_full_reading", || {
        for seed in seeds(0..6) {
            let run = move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
                World::new(seed).run();
            };
            thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let unreported =
        trial("changes_that_the_kernel_does_not_notify_of_are_followed", || World::new(1).unreported());
    vec![random, unreported]
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn index(&mut self) -> u32 {
        u32::try_from(INDEXES.start + self.below(INDEXES.len())).unwrap()
    }
}

struct World {
    seed: u64,
    random: Random,
    node: Place,
    pods: Vec<Place>,
    local: BTreeSet<IpAddr>,
    monitor: LinkMonitor,
    /// Of names and hardware addresses, so that none is used twice.
    counter: u32,
}

fn addresses(pod: usize) -> [IpAddr; 2] {
    let n = u8::try_from(pod + 1).unwrap();
    [IpAddr::from([10, 244, 0, n]), IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(n)])]
}

fn names() -> BTreeMap<IpAddr, ObjectKey> {
    let of =
        |pod: usize| addresses(pod).map(|address| (address, ObjectKey::new("x", format!("p{pod}").as_str())));
    (0..PODS).flat_map(of).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let node = Place::here();
        assert!(node.set_up(LOOPBACK, true));
        let pod = |pod: usize| {
            let setup = || {
                let mut netlink = Netlink::open().unwrap();
                netlink.link_up(LOOPBACK);
                for address in addresses(pod) {
                    netlink.address(LOOPBACK, address, false);
                }
                netlink.commit().unwrap();
                Place::here()
            };
            Namespace::create(setup).unwrap().1
        };
        let mut monitor = LinkMonitor::open(SourceCheck::Strict).unwrap();
        let local = BTreeSet::new();
        monitor.read(&local).unwrap();
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { seed, random, node, pods: (0..PODS).map(pod).collect(), local, monitor, counter: 0 }
    }

    /// Makes every pod local, two on a bridge and two on interfaces of their own, and a tunnel.
    fn populate(&mut self) {
        const BRIDGE: u32 = 109;
        const VXLAN: u32 = 108;
        self.device(BRIDGE, InfoKind::Bridge, None);
        let mut netlink = Netlink::open().unwrap();
        netlink.route(&Route {
            to: (IpAddr::from([10, 244, 0, 0]), 24),
            via: None,
            link: BRIDGE,
            source: None,
        });
        netlink.address(BRIDGE, IpAddr::from([192, 168, 0, 3]), false);
        for (pod, index) in (0..PODS).zip(100..) {
            self.pair(index, pod);
            if pod < PODS / 2 {
                assert!(self.node.set(index, vec![LinkAttribute::Controller(BRIDGE)]));
            } else {
                for address in addresses(pod) {
                    netlink.route(&Route::to_host(address, index));
                }
            }
            self.pod(Some(pod));
        }
        netlink.commit().unwrap();
        let data = vec![InfoVxlan::Id(1000), InfoVxlan::Port(4789), InfoVxlan::Learning(false)];
        self.device(VXLAN, InfoKind::Vxlan, Some(InfoData::Vxlan(data)));
        assert!(self.forward(VXLAN, 1, true));
    }

    fn run(mut self) {
        let (mut log, begin) = (Vec::new(), Instant::now());
        // Others start with nothing.
        if !self.seed.is_multiple_of(3) {
            self.populate();
            let found = self.compare(&["populated".to_owned()]);
            assert_eq!(
                (found.pod_ports.len(), found.interface_owners.len()),
                (PODS / 2, PODS / 2),
                "{found:#?}"
            );
        }
        for step in 0..STEPS {
            // Several changes may come between two readings.
            for _ in 0..=self.random.below(3) {
                for _ in 0..TRIES {
                    let text = self.change();
                    let is_refused = text.ends_with("false");
                    log.push(format!("{step}: {text}"));
                    if !is_refused {
                        break;
                    }
                }
            }
            self.compare(&log);
        }
        // Everything is read at the start, and once a minute.
        assert!(self.monitor.full_readings() <= 1 + begin.elapsed().as_secs() / 60);
    }

    /// Compares what is followed with a full reading, until they are the same. Returns it.
    fn compare(&mut self, log: &[String]) -> NodeLinks {
        let begin = Instant::now();
        loop {
            let followed = self.monitor.refresh(&self.local).unwrap();
            let mut fresh = LinkMonitor::open(SourceCheck::Strict).unwrap();
            fresh.name_local(&names());
            let read = fresh.read(&self.local).unwrap();
            if followed == read && fresh.unbound() == self.monitor.unbound() {
                return followed;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "seed {}:\n{}\nfollowed {followed:#?}\nunbound {:?}\nread {read:#?}\nunbound {:?}",
                self.seed,
                log.join("\n"),
                self.monitor.unbound(),
                fresh.unbound(),
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Creates a pair between an interface here and one of a pod, both up.
    fn pair(&mut self, index: u32, pod: usize) {
        let (mut message, mut peer) = (self.interface(index), self.interface(index));
        peer.attributes.push(LinkAttribute::NetNsFd(self.pods[pod].namespace.as_fd().as_raw_fd()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        assert!(self.node.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL));
        assert!(self.node.set_up(index, true) && self.pods[pod].set_up(index, true));
    }

    fn device(&mut self, index: u32, kind: InfoKind, data: Option<InfoData>) {
        let mut message = self.interface(index);
        let infos = [LinkInfo::Kind(kind)].into_iter().chain(data.map(LinkInfo::Data)).collect();
        message.attributes.push(LinkAttribute::LinkInfo(infos));
        assert!(self.node.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL));
        assert!(self.node.set_up(index, true));
    }

    /// What the kernel doesn't notify of, or what its notifications don't tell apart.
    fn unreported(mut self) {
        const BRIDGE: u32 = 105;
        const VXLAN: u32 = 106;
        let said = |text: &str| [text.to_owned()];
        let mut netlink = Netlink::open().unwrap();
        let source = IpAddr::from([192, 168, 0, 1]);
        (0..PODS).for_each(|_| drop(self.pod(None)));
        self.pair(100, 0);
        netlink.route(&Route::to_host(addresses(0)[0], 100)).commit().unwrap();
        assert!(self.compare(&said("a routed pod")).pod_interfaces.contains(&100));
        assert!(self.node.set_up(100, false) && self.node.set_up(100, true));
        let found = self.compare(&said("down and up: the kernel removes the route"));
        assert!(!found.pod_interfaces.contains(&100));

        self.device(BRIDGE, InfoKind::Bridge, None);
        self.pair(101, 1);
        netlink.address(BRIDGE, source, false);
        netlink.route(&Route { to: (addresses(1)[0], 32), via: None, link: 101, source: Some(source) });
        netlink.commit().unwrap();
        assert!(self.compare(&said("a route with a source")).pod_interfaces.contains(&101));
        netlink.remove_address(BRIDGE, source).commit().unwrap();
        let found = self.compare(&said("without the source the kernel removes the route"));
        assert!(!found.pod_interfaces.contains(&101));

        let to_pods =
            Route { to: (IpAddr::from([10, 244, 0, 0]), 24), via: None, link: BRIDGE, source: None };
        netlink.route(&to_pods).commit().unwrap();
        self.pair(104, 3);
        assert!(self.node.set(104, vec![LinkAttribute::Controller(BRIDGE)]));
        let before = self.compare(&said("a bridged pod")).owners[&104].hardware;
        assert_ne!(before, None);
        netlink.route(&Route::to_host(addresses(3)[1], 104)).commit().unwrap();
        let found = self.compare(&said("a route leads to the port itself"));
        assert_eq!(found.owners[&104].hardware, before);
        assert!(self.node.delete(104));
        self.pair(104, 3);
        assert!(self.node.set(104, vec![LinkAttribute::Controller(BRIDGE)]));
        let after = self.compare(&said("another interface with the same index")).owners[&104].hardware;
        assert_ne!(before, after);
        let namespace = |place: &Place| vec![LinkAttribute::NetNsFd(place.namespace.as_fd().as_raw_fd())];
        assert!(self.pods[3].set(104, namespace(&self.pods[2])) && self.pods[2].set_up(104, true));
        let found = self.compare(&said("the other end of a port moves between two namespaces"));
        assert_eq!(found.owners[&104].addresses, addresses(2).into());
        assert!(self.node.set(104, vec![LinkAttribute::Controller(0)]));
        assert!(!self.compare(&said("a port leaves its bridge")).pod_ports.contains(&104));

        let data = vec![InfoVxlan::Id(7), InfoVxlan::Port(4789), InfoVxlan::Learning(false)];
        self.device(VXLAN, InfoKind::Vxlan, Some(InfoData::Vxlan(data)));
        let uplinks = self.compare(&said("a VXLAN device")).uplinks;
        assert_eq!(uplinks, [VXLAN].into(), "packets of other hosts arrive by it");
        assert!(self.node.set_up(VXLAN, false));
        assert_eq!(self.compare(&said("the device is down")).uplinks, [].into());
        assert!(self.node.set_up(VXLAN, true));
        let anywhere = Route { to: (IpAddr::from([0, 0, 0, 0]), 0), via: None, link: BRIDGE, source: None };
        netlink.route(&anywhere).commit().unwrap();
        assert_eq!(self.compare(&said("a default route")).uplinks, [BRIDGE, VXLAN].into());
        for (added, count) in [(true, 1), (false, 0)] {
            assert!(self.forward(VXLAN, 1, added));
            let found = self.compare(&said("a forwarding entry"));
            assert_eq!(found.tunnel_peers.len(), count);
        }
    }

    fn number(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// Returns a message about an interface with a new name and hardware address.
    fn interface(&mut self, index: u32) -> LinkMessage {
        let n = self.number();
        let [_, b, c, d] = n.to_be_bytes();
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes =
            vec![LinkAttribute::IfName(format!("i{n}")), LinkAttribute::Address(vec![2, 0, 0, b, c, d])];
        message
    }

    fn create(&mut self, index: u32) -> String {
        let mut message = self.interface(index);
        let other = self.random.index();
        let (text, info, data) = match self.random.below(10) {
            0..=5 => {
                let mut peer = self.interface(other);
                let pod = self.random.below(PODS + 1);
                let place = self.pods.get(pod).unwrap_or(&self.node);
                peer.attributes.push(LinkAttribute::NetNsFd(place.namespace.as_fd().as_raw_fd()));
                (
                    format!("pair with {other} of {pod}"),
                    InfoKind::Veth,
                    Some(InfoData::Veth(InfoVeth::Peer(peer))),
                )
            }
            6 | 7 => {
                // Without an address of its own it takes that of a port.
                if self.random.chance(50) {
                    message.attributes.truncate(1);
                }
                ("bridge".to_owned(), InfoKind::Bridge, None)
            }
            8 => {
                message.attributes.push(LinkAttribute::Link(other));
                let id = u16::try_from(self.random.below(4) + 1).unwrap();
                (
                    format!("VLAN {id} of {other}"),
                    InfoKind::Vlan,
                    Some(InfoData::Vlan(vec![InfoVlan::Id(id)])),
                )
            }
            _ => {
                let id = self.number();
                let port = [4789, 8472][self.random.below(2)];
                let data = vec![InfoVxlan::Id(id), InfoVxlan::Port(port), InfoVxlan::Learning(false)];
                ("VXLAN".to_owned(), InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
            }
        };
        let infos = [LinkInfo::Kind(info)].into_iter().chain(data.map(LinkInfo::Data)).collect();
        message.attributes.push(LinkAttribute::LinkInfo(infos));
        let created = self.node.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        format!("create {index}: {text}: {created}")
    }

    /// Makes one change. Returns what it was.
    fn change(&mut self) -> String {
        let index = self.random.index();
        match self.random.below(20) {
            0..=2 => self.create(index),
            3 => format!("delete {index}: {}", self.node.delete(index)),
            4 => {
                let deleted = self.node.delete(index);
                format!("delete {index}: {deleted}, {}", self.create(index))
            }
            5 => {
                let name = format!("r{}", self.number());
                format!("rename {index}: {}", self.node.set(index, vec![LinkAttribute::IfName(name)]))
            }
            6..=8 => {
                let bridge = if self.random.chance(25) { 0 } else { self.random.index() };
                format!(
                    "{index} to bridge {bridge}: {}",
                    self.node.set(index, vec![LinkAttribute::Controller(bridge)])
                )
            }
            9 | 10 => self.carrier(index),
            11 => self.carry(index),
            12 => {
                let n = self.number().to_be_bytes();
                let mac = LinkAttribute::Address(vec![2, 0, 1, n[1], n[2], n[3]]);
                format!("hardware address of {index}: {}", self.node.set(index, vec![mac]))
            }
            13 | 14 => self.address(index),
            15 | 16 => self.route(index),
            17 => self.forwarding(index),
            _ => self.local(),
        }
    }

    /// Sets an interface up, or down and perhaps up again, here or in the namespace of a pod.
    fn carrier(&mut self, index: u32) -> String {
        let pod = self.random.below(2 * PODS);
        let place = self.pods.get(pod).unwrap_or(&self.node);
        let how = self.random.below(4);
        let changed = match how {
            0 => place.set_up(index, false),
            1 => place.set_up(index, false) && place.set_up(index, true),
            _ => place.set_up(index, true),
        };
        format!("{index} of {pod} {}: {changed}", ["down", "down and up", "up", "up"][how])
    }

    /// Moves an interface to another namespace, and sets it up there: the kernel reports nothing of one that is down in both.
    fn carry(&mut self, index: u32) -> String {
        let [from, to] = [(); 2].map(|()| self.random.below(PODS + 1));
        let place = |n: usize| self.pods.get(n).unwrap_or(&self.node);
        let to_place = LinkAttribute::NetNsFd(place(to).namespace.as_fd().as_raw_fd());
        let moved = place(from).set(index, vec![to_place]);
        let up = moved
            && place(to).set_up(index, true)
            && (place(to).set_up(index, false), place(to).set_up(index, true)).1;
        format!("move {index} of {from} to {to}: {moved}, {up}")
    }

    fn address(&mut self, index: u32) -> String {
        let n = u8::try_from(self.random.below(4)).unwrap();
        let v4 = self.random.chance(60);
        let address = if v4 {
            IpAddr::from([192, 168, 0, n])
        } else {
            IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, u16::from(n)])
        };
        let mut netlink = Netlink::open().unwrap();
        let added = self.random.chance(60);
        let changed = match added {
            true => netlink.address(index, address, false).commit(),
            false => netlink.remove_address(index, address).commit(),
        };
        format!("{} {address} of {index}: {}", if added { "add" } else { "remove" }, changed.is_ok())
    }

    fn route(&mut self, index: u32) -> String {
        let pod = self.random.below(PODS);
        let [v4, v6] = addresses(pod);
        let host = Ipv4Addr::from([192, 168, 0, u8::try_from(self.random.below(4)).unwrap()]);
        let route = |to, via, source| Route { to, via, link: index, source };
        let route = match self.random.below(7) {
            0 | 1 => Route::to_host(v4, index),
            2 => Route::to_host(v6, index),
            // Gone with its source.
            3 => route((v4, 32), None, Some(host.into())),
            4 => route((IpAddr::from([10, 244, 0, 0]), 24), None, None),
            5 => route((IpAddr::from([10, 244, 0, 0]), 24), Some(host.into()), None),
            _ => route((IpAddr::from([0; 4]), 0), Some(host.into()), None),
        };
        let mut netlink = Netlink::open().unwrap();
        let added = self.random.chance(75);
        let changed =
            if added { netlink.route(&route).commit() } else { netlink.remove_route(&route).commit() };
        format!("{} {route:?}: {}", if added { "add" } else { "remove" }, changed.is_ok())
    }

    fn forwarding(&mut self, index: u32) -> String {
        let n = u8::try_from(self.random.below(4)).unwrap();
        let added = self.random.chance(70);
        format!("forwarding entry {n} of {index}, added {added}: {}", self.forward(index, n, added))
    }

    fn forward(&self, index: u32, n: u8, added: bool) -> bool {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 2, 0, 0, n]),
            NeighbourAttribute::Destination(Ipv4Addr::new(192, 168, 1, n).into()),
        ];
        match added {
            true => {
                self.node.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            }
            false => self.node.request(RouteNetlinkMessage::DelNeighbour(message), 0),
        }
    }

    /// Adds or removes a local pod.
    fn local(&mut self) -> String {
        let pod = self.random.below(PODS);
        self.pod(Some(pod))
    }

    /// As [`World::local`], or adds the first pod that is not local.
    fn pod(&mut self, pod: Option<usize>) -> String {
        let is_new = |pod: &usize| !self.local.contains(&addresses(*pod)[0]);
        let pod = pod.or_else(|| (0..PODS).find(is_new)).unwrap();
        let of: BTreeSet<IpAddr> = addresses(pod).into();
        let is_local = of.is_subset(&self.local);
        let none = BTreeSet::new();
        let (added, removed) = if is_local { (&none, &of) } else { (&of, &none) };
        let names = names();
        let named = names.into_iter().filter(|(address, _)| added.contains(address));
        self.monitor.name_local(&named.collect());
        self.monitor.follow(added, removed).unwrap().unwrap();
        if is_local {
            self.local.retain(|address| !of.contains(address));
        } else {
            self.local.extend(&of);
        }
        format!("pod {pod} {}", if is_local { "is gone" } else { "is local" })
    }
}

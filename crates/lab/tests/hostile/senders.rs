//! What pods on a bridge say of themselves: source addresses, ARP, discovery and hardware addresses, with each setting of the source check.
//!
//! Each case is a frame with a unique mark from the pod `bad` to the pod `open`, or to all. Policies play no part: there are none.

mod annotated;
mod connections;
mod uplink;

use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use libtest_mimic::Failed;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use palisade_agent::{cni::Attachment, config::SourceCheck};
use palisade_lab::Sandbox;
use palisade_netns::{
    dump::dump,
    rtnetlink::{Netlink, Route},
};
use palisade_nft::{Kernel, reader::Ruleset, survey::Survey};
use palisade_policy::Family;

use crate::{
    agent::{self, Agent},
    capture::{Capture, Mac},
    commands,
    frames::{self, ICMPV6, SERVICE_VLAN, UDP, VLAN},
    harness::{Test, ensure, until},
    testbed::{NEAR, PodNetwork, Testbed},
};

pub(crate) const TESTS: &[Test] = &[
    ("senders::without_the_check_every_frame_passes", |s| frames_of_a_pod(s, SourceCheck::Off, Ports::Pods)),
    ("senders::addresses_of_others_are_dropped", |s| frames_of_a_pod(s, SourceCheck::Enforce, Ports::Pods)),
    ("senders::all_but_own_addresses_are_dropped", |s| frames_of_a_pod(s, SourceCheck::Strict, Ports::Pods)),
    ("senders::addresses_of_other_nodes_pods_are_dropped_on_a_bridge_with_an_uplink", |s| {
        frames_of_a_pod(s, SourceCheck::Enforce, Ports::WithUplink)
    }),
    ("senders::all_but_own_addresses_are_dropped_on_a_bridge_with_an_uplink", |s| {
        frames_of_a_pod(s, SourceCheck::Strict, Ports::WithUplink)
    }),
    ("senders::pods_of_other_nodes_come_and_go_on_a_bridge_with_an_uplink", uplink::pods_come_and_go),
    ("senders::routed_pods_have_no_address_but_their_own", routed),
    ("senders::sources_that_are_allowed_pass_on_bridges", allowed_on_a_bridge),
    ("senders::sources_that_are_allowed_pass_between_routes", allowed_when_routed),
    ("senders::annotated_sources_pass_for_one_pod_on_a_bridge", annotated::on_a_bridge),
    ("senders::annotated_sources_pass_for_one_pod_between_routes", annotated::when_routed),
    ("senders::an_annotation_takes_no_address_of_others_on_bridges", |s| {
        annotated::refused(s, PodNetwork::Bridged)
    }),
    ("senders::an_annotation_takes_no_address_of_others_when_routed", |s| {
        annotated::refused(s, PodNetwork::Routed)
    }),
    ("senders::pods_of_a_namespace_are_not_checked", exempt),
    ("senders::a_pod_that_takes_anothers_address_gains_nothing", taken),
    ("senders::pods_that_exchange_addresses_keep_only_their_new_ones", exchanged),
    ("senders::established_connections_take_no_forged_packets_when_routed", |s| {
        connections::forged(s, PodNetwork::Routed)
    }),
    ("senders::established_connections_take_no_forged_packets_on_bridges", |s| {
        connections::forged(s, PodNetwork::Bridged)
    }),
    ("senders::a_named_namespace_settles_whose_port_it_is", named),
    ("senders::rules_are_removed_with_the_agent", removed),
];

/// An address that is no pod's, routed to the bridge, as one that moves between pods (VRRP).
const VIRTUAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1))];

const BROADCAST: Mac = [0xff; 6];
const UNASSIGNED_MAC: Mac = [2, 0, 0, 0x99, 0, 0x99];

/// Neighbor discovery.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const LISTENER_REPORT: u8 = 143;

/// A dropped frame has not arrived after this time.
const SETTLE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings with which a frame passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    Always,
    /// Unless the check is strict.
    UnlessStrict,
    /// Only without the check.
    Unchecked,
}

impl Passes {
    fn with(self, check: SourceCheck) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStrict => check != SourceCheck::Strict,
            Self::Unchecked => check == SourceCheck::Off,
        }
    }
}

struct Case {
    what: String,
    passes: Passes,
    frame: Vec<u8>,
    mark: [u8; 16],
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, what: impl Into<String>, passes: Passes, frame: impl FnOnce(&[u8; 16]) -> Vec<u8>) {
        let mut mark = *b"palisade\0\0\0\0\0\0\0\0";
        mark[8..].copy_from_slice(&(self.0.len() as u64).to_be_bytes());
        self.0.push(Case { what: what.into(), passes, frame: frame(&mark), mark });
    }

    /// What has an unassigned address passes.
    fn allow_unassigned(&mut self) {
        let unassigned = self.0.iter_mut().filter(|case| case.what.contains("unassigned"));
        unassigned.for_each(|case| case.passes = Passes::Always);
    }

    /// Sends each frame, and compares what arrives.
    fn check(&self, bad: &Capture, open: &Capture, check: SourceCheck) -> Result<(), Failed> {
        open.drain()?;
        for case in &self.0 {
            bad.send(&case.frame)?;
        }
        let all = || self.0.iter().enumerate();
        let expected: BTreeSet<usize> =
            all().filter(|(_, case)| case.passes.with(check)).map(|(index, _)| index).collect();
        let mut arrived = BTreeSet::new();
        let mut collect = || -> Result<bool, Failed> {
            for frame in open.take()?.iter().filter(|frame| frame.incoming) {
                arrived.extend(all().filter(|(_, case)| frame.has(&case.mark)).map(|(index, _)| index));
            }
            Ok(expected.is_subset(&arrived))
        };
        until(PATIENCE, || Ok(collect()?.then_some(())))?;
        until(SETTLE, || collect().map(|_| None::<()>))?;
        let what =
            |of: &BTreeSet<usize>| -> Vec<&str> { of.iter().map(|index| &*self.0[*index].what).collect() };
        ensure(arrived == expected, || {
            let passed: BTreeSet<usize> = arrived.difference(&expected).copied().collect();
            let missing: BTreeSet<usize> = expected.difference(&arrived).copied().collect();
            format!("{check:?}: these pass: {:#?}, these don't: {:#?}", what(&passed), what(&missing))
        })?;
        println!("{} of {} frames pass, {check:?}", arrived.len(), self.0.len());
        Ok(())
    }
}

/// The ends of the frames, and whose addresses they may have.
struct Ends {
    bad: Capture,
    open: Capture,
    /// The hardware address of another pod.
    client: Mac,
    ports: Ports,
}

impl Ends {
    fn of(testbed: &Testbed) -> Result<Self, Failed> {
        let client = Capture::open(testbed, "client")?.mac;
        Ok(Self {
            bad: Capture::open(testbed, "bad")?,
            open: Capture::open(testbed, "open")?,
            client,
            ports: Ports::Pods,
        })
    }

    /// Encodes a frame with a datagram from this address.
    fn datagram(&self, source: IpAddr, destination: IpAddr, mark: &[u8; 16]) -> Vec<u8> {
        let inner = frames::udp((source, 40_000), (destination, 7200), mark);
        frames::ethernet(self.open.mac, self.bad.mac, &frames::ip(source, destination, UDP, 64, &inner))
    }

    /// Encodes a frame with a message of discovery.
    fn discovery(&self, kind: u8, source: Ipv6Addr, target: Ipv6Addr, mark: &[u8; 16]) -> Vec<u8> {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let body = [&[0; 4][..], &target.octets(), mark].concat();
        let message = frames::icmpv6(source, all_nodes, kind, &body);
        let packet = frames::ip(source.into(), all_nodes.into(), ICMPV6, 255, &message);
        frames::ethernet(self.open.mac, self.bad.mac, &packet)
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// The index of the bridge of pods, on the node.
fn bridge(_: &Testbed) -> Result<u32, Failed> {
    Ok(nix::net::if_::if_nametoindex("cni0")?)
}

/// The index, on the node, of the interface that leads to a pod.
fn other_end(testbed: &Testbed, pod: &str) -> Result<u32, Failed> {
    let links = testbed.within(pod, || dump(RouteNetlinkMessage::GetLink(LinkMessage::default())))??;
    let mut ends = links.into_iter().filter_map(|link| match link {
        RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::Link(index) => Some(index),
            _ => None,
        }),
        _ => None,
    });
    ends.next_back().ok_or_else(|| format!("{pod} has no interface with another end").into())
}

/// Routes the virtual addresses to an interface of the node, whose index `link` finds there.
fn route_virtual(
    testbed: &Testbed,
    link: impl FnOnce(&Testbed) -> Result<u32, Failed> + Send,
) -> Result<(), Failed> {
    testbed.within(NEAR, || -> Result<(), Failed> {
        let link = link(testbed)?;
        let mut netlink = Netlink::open()?;
        for address in VIRTUAL {
            netlink.route(&Route::to_host(address, link));
        }
        Ok(netlink.commit()?)
    })?
}

/// What the bridge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// Pods alone.
    Pods,
    /// Another network too, in which the pods of other nodes may be.
    WithUplink,
}

fn frames_of_a_pod(sandbox: &Sandbox, check: SourceCheck, ports: Ports) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    agent::set_source_check(testbed.folder(), check)?;
    route_virtual(&testbed, bridge)?;
    if ports == Ports::WithUplink {
        uplink::add(&testbed)?;
    }
    let agent = testbed.start(NEAR)?;
    let status = agent.status().ok_or("no status")?;
    ensure(status.unbound_ports.is_empty(), || format!("unbound: {:?}", status.unbound_ports))?;
    let ends = Ends { ports, ..Ends::of(&testbed)? };
    let mut cases = Cases::default();
    addresses(&testbed, &ends, &mut cases)?;
    resolution(&testbed, &ends, &mut cases)?;
    // Last, because without the check the bridge learns these addresses.
    hardware(&testbed, &ends, &mut cases)?;
    cases.check(&ends.bad, &ends.open, check)?;
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))?;
    // Operators and other programs can list the table, and load the listing.
    let listing = commands::nft(&testbed, NEAR, "list table bridge palisade")?;
    let has_targets = listing.contains("typeof iif . @th,64,128");
    ensure(has_targets == (check != SourceCheck::Off), || format!("{check:?}:\n{listing}"))?;
    commands::nft(
        &testbed,
        NEAR,
        &format!("add table bridge copy\n{}", listing.replacen("palisade", "copy", 1)),
    )?;
    Ok(())
}

/// Source addresses of IP packets.
fn addresses(testbed: &Testbed, ends: &Ends, cases: &mut Cases) -> Result<(), Failed> {
    // Without an uplink, such a source has no route back through the bridge.
    let of_outside = if ends.ports == Ports::WithUplink { Passes::UnlessStrict } else { Passes::Unchecked };
    for family in Family::BOTH {
        let to = testbed.address("open", family)?;
        let mut sources = vec![("its own", testbed.address("bad", family)?, Passes::Always)];
        for other in ["client", "iso", "far-client", NEAR] {
            sources.push((other, testbed.address(other, family)?, Passes::Unchecked));
        }
        sources.push(("outside", testbed.address("outside", family)?, of_outside));
        let at = usize::from(family == Family::V6);
        sources.push(("unassigned", VIRTUAL[at], Passes::UnlessStrict));
        if family == Family::V6 {
            sources.push(("link-local", "fe80::bad".parse()?, Passes::Always));
            sources.push(("the gateway's link-local", "fe80::1".parse()?, Passes::Unchecked));
        }
        for (whose, source, passes) in sources {
            cases.add(format!("from {source}, {whose}"), passes, |mark| ends.datagram(source, to, mark));
        }
    }
    // The receiver removes the tag of VLAN 0.
    for (whose, name, family) in [
        ("its own", "bad", Family::V4),
        ("another pod's", "client", Family::V4),
        ("another pod's", "client", Family::V6),
    ] {
        let (source, to) = (testbed.address(name, family)?, testbed.address("open", family)?);
        for tag in [VLAN, SERVICE_VLAN] {
            cases.add(
                format!("with a VLAN tag {tag:x}, from {whose} address, {family}"),
                Passes::Unchecked,
                |mark| {
                    let packet = ends.datagram(source, to, mark).split_off(14);
                    frames::tagged(ends.open.mac, ends.bad.mac, &[tag], &packet)
                },
            );
        }
    }
    let (any, all) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST));
    for (port, passes) in [(67, Passes::Always), (7200, of_outside)] {
        cases.add(format!("from 0.0.0.0 to port {port}"), passes, |mark| {
            let inner = frames::udp((any, 68), (all, port), mark);
            frames::ethernet(BROADCAST, ends.bad.mac, &frames::ip(any, all, UDP, 64, &inner))
        });
    }
    Ok(())
}

/// ARP and neighbor discovery.
fn resolution(testbed: &Testbed, ends: &Ends, cases: &mut Cases) -> Result<(), Failed> {
    // Without an uplink, no pod of another node can be meant.
    let of_other_node =
        if ends.ports == Ports::WithUplink { Passes::Unchecked } else { Passes::UnlessStrict };
    let own = v4(testbed.address("bad", Family::V4)?);
    let open = v4(testbed.address("open", Family::V4)?);
    let client = v4(testbed.address("client", Family::V4)?);
    let gateway_v4 = Ipv4Addr::new(169, 254, 1, 1);
    for (whose, sender, passes) in [
        ("own", own, Passes::Always),
        ("another pod's", client, Passes::Unchecked),
        ("the gateway's", gateway_v4, Passes::Unchecked),
        ("another node's pod's", v4(testbed.address("far-client", Family::V4)?), of_other_node),
        ("unassigned", v4(VIRTUAL[0]), Passes::UnlessStrict),
    ] {
        cases.add(format!("ARP reply with {whose} address"), passes, |mark| {
            frames::arp(ends.open.mac, ends.bad.mac, sender, open, mark)
        });
        cases.add(format!("gratuitous ARP with {whose} address"), passes, |mark| {
            frames::arp(BROADCAST, ends.bad.mac, sender, sender, mark)
        });
    }
    cases.add("ARP probe", Passes::Always, |mark| {
        frames::arp(BROADCAST, ends.bad.mac, Ipv4Addr::UNSPECIFIED, own, mark)
    });
    let own = v6(testbed.address("bad", Family::V6)?);
    let client = v6(testbed.address("client", Family::V6)?);
    let (own_link_local, gateway) = ("fe80::bad".parse()?, "fe80::1".parse()?);
    for (whose, target, passes) in [
        ("own", own, Passes::Always),
        ("own link-local", own_link_local, Passes::Always),
        ("another pod's", client, Passes::Unchecked),
        ("the gateway's", gateway, Passes::Unchecked),
        ("another node's pod's", v6(testbed.address("far-client", Family::V6)?), of_other_node),
        ("unassigned", v6(VIRTUAL[1]), Passes::UnlessStrict),
    ] {
        cases.add(format!("advertisement of {whose} address"), passes, |mark| {
            ends.discovery(NEIGHBOR_ADVERTISEMENT, own, target, mark)
        });
        cases.add(format!("the same for {whose} address, from a link-local one"), passes, |mark| {
            ends.discovery(NEIGHBOR_ADVERTISEMENT, own_link_local, target, mark)
        });
        cases.add(format!("detection of duplicates of {whose} address"), passes, |mark| {
            ends.discovery(NEIGHBOR_SOLICITATION, Ipv6Addr::UNSPECIFIED, target, mark)
        });
        cases.add(format!("question for {whose} address"), Passes::Always, |mark| {
            ends.discovery(NEIGHBOR_SOLICITATION, own, target, mark)
        });
    }
    for (whose, sender) in [("own", v4(testbed.address("bad", Family::V4)?)), ("the gateway's", gateway_v4)] {
        cases.add(format!("ARP reply with {whose} address, in VLAN 0"), Passes::Unchecked, |mark| {
            let frame = frames::arp(ends.open.mac, ends.bad.mac, sender, open, mark);
            [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat()
        });
    }
    cases.add("listener report without an address", Passes::Always, |mark| {
        ends.discovery(LISTENER_REPORT, Ipv6Addr::UNSPECIFIED, own, mark)
    });
    cases.add("router advertisement", Passes::Unchecked, |mark| {
        ends.discovery(ROUTER_ADVERTISEMENT, own_link_local, own, mark)
    });
    Ok(())
}

/// Hardware addresses, with the pod's own source address.
fn hardware(testbed: &Testbed, ends: &Ends, cases: &mut Cases) -> Result<(), Failed> {
    for family in Family::BOTH {
        let (own, to) = (testbed.address("bad", family)?, testbed.address("open", family)?);
        for (whose, mac, passes) in [
            ("unassigned", UNASSIGNED_MAC, Passes::UnlessStrict),
            ("another pod's", ends.client, Passes::Unchecked),
        ] {
            cases.add(format!("with {whose} hardware address, {family:?}"), passes, |mark| {
                let packet = ends.datagram(own, to, mark).split_off(14);
                frames::ethernet(ends.open.mac, mac, &packet)
            });
        }
    }
    Ok(())
}

/// On routed nodes, an address may be reachable through a pod's interface without being the pod's.
fn routed(sandbox: &Sandbox) -> Result<(), Failed> {
    for check in [SourceCheck::Enforce, SourceCheck::Strict] {
        let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
        agent::set_source_check(testbed.folder(), check)?;
        let port = other_end(&testbed, "bad")?;
        route_virtual(&testbed, |_| Ok(port))?;
        let status = testbed.start(NEAR)?.status().ok_or("no status")?;
        ensure(status.unbound_ports.is_empty(), || format!("unbound: {:?}", status.unbound_ports))?;
        let (bad, open) = (Capture::open(&testbed, "bad")?, Capture::open(&testbed, "open")?);
        routed_packets(&testbed, &bad)?.check(&bad, &open, check)?;
        let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
        ensure(verified.equal, || format!("{:?}", verified.differences))?;
    }
    Ok(())
}

/// Packets of a routed pod by their source.
fn routed_packets(testbed: &Testbed, bad: &Capture) -> Result<Cases, Failed> {
    let hop = frames::next_hop(testbed, "bad", "open")?;
    let mut cases = Cases::default();
    for family in Family::BOTH {
        let to = testbed.address("open", family)?;
        let mut sources = vec![
            ("its own", testbed.address("bad", family)?, Passes::Always),
            ("unassigned", VIRTUAL[usize::from(family == Family::V6)], Passes::UnlessStrict),
        ];
        for other in ["client", "far-client", NEAR, "outside"] {
            sources.push((other, testbed.address(other, family)?, Passes::Unchecked));
        }
        for (whose, source, passes) in sources {
            cases.add(format!("from {source}, {whose}"), passes, |mark| {
                let inner = frames::udp((source, 40_000), (to, 7200), mark);
                frames::ethernet(hop, bad.mac, &frames::ip(source, to, UDP, 64, &inner))
            });
        }
    }
    Ok(cases)
}

/// The virtual addresses are allowed, and the network of a pod, whose address stays its own.
fn allow_sources(testbed: &Testbed) -> Result<(), Failed> {
    let mut networks =
        VIRTUAL.map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })).to_vec();
    networks.push(format!("{}/30", testbed.address("client", Family::V4)?));
    networks.push(format!("{}/126", testbed.address("client", Family::V6)?));
    agent::set_source_check(testbed.folder(), SourceCheck::Strict)?;
    agent::set_allowed_sources(testbed.folder(), &networks.join(",").parse()?)
}

fn allowed_on_a_bridge(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    allow_sources(&testbed)?;
    route_virtual(&testbed, bridge)?;
    let status = testbed.start(NEAR)?.status().ok_or("no status")?;
    ensure(status.unbound_ports.is_empty(), || format!("unbound: {:?}", status.unbound_ports))?;
    let ends = Ends::of(&testbed)?;
    let mut cases = Cases::default();
    addresses(&testbed, &ends, &mut cases)?;
    resolution(&testbed, &ends, &mut cases)?;
    cases.allow_unassigned();
    cases.check(&ends.bad, &ends.open, SourceCheck::Strict)?;
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))
}

/// Without a route back to them.
fn allowed_when_routed(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    allow_sources(&testbed)?;
    let status = testbed.start(NEAR)?.status().ok_or("no status")?;
    ensure(status.unbound_ports.is_empty(), || format!("unbound: {:?}", status.unbound_ports))?;
    let (bad, open) = (Capture::open(&testbed, "bad")?, Capture::open(&testbed, "open")?);
    let mut cases = routed_packets(&testbed, &bad)?;
    cases.allow_unassigned();
    cases.check(&bad, &open, SourceCheck::Strict)?;
    let verified = testbed.agent(NEAR)?.verify().ok_or("no answer")?;
    ensure(verified.equal, || format!("{:?}", verified.differences))
}

/// Waits until the kernel checks ports, or none. The agent reads the interfaces again within a second.
fn await_checked_ports(testbed: &Testbed, checked: bool) -> Result<(), Failed> {
    let done = until(PATIENCE, || {
        let table = testbed.within(NEAR, || Ruleset::read_bridge(&mut Kernel::open()?))??;
        let ports = table.and_then(|table| Some(table.sets.get("checked_ports")?.elements.len()));
        Ok(ports.filter(|ports| (*ports > 0) == checked).map(drop))
    })?;
    done.ok_or_else(|| format!("ports are still checked or not, instead of {checked}").into())
}

/// A label of the namespace turns the check off and on.
fn exempt(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    agent::set_source_check(testbed.folder(), SourceCheck::Strict)?;
    route_virtual(&testbed, bridge)?;
    testbed.start(NEAR)?;
    let ends = Ends::of(&testbed)?;
    for (value, check) in [("off", SourceCheck::Off), ("on", SourceCheck::Strict), ("off", SourceCheck::Off)]
    {
        testbed.label_namespace("palisade.dev/source-check", value)?;
        await_checked_ports(&testbed, check != SourceCheck::Off)?;
        let mut cases = Cases::default();
        for (source, family) in VIRTUAL.into_iter().zip(Family::BOTH) {
            let to = testbed.address("open", family)?;
            cases.add(format!("from {source}"), Passes::Unchecked, |mark| ends.datagram(source, to, mark));
        }
        cases.check(&ends.bad, &ends.open, check)?;
    }
    Ok(())
}

/// A pod that may configure addresses takes that of another, before or after the agent starts.
fn taken(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    testbed.start(NEAR)?;
    let taken = [testbed.address("client", Family::V4)?, testbed.address("client", Family::V6)?];
    testbed.within("bad", || -> Result<(), Failed> {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        let mut netlink = Netlink::open()?;
        for address in taken {
            netlink.address(index, address, false);
        }
        Ok(netlink.commit()?)
    })??;
    let ends = Ends::of(&testbed)?;
    for restarted in [false, true] {
        if restarted {
            testbed.kill(NEAR);
            testbed.start(NEAR)?;
        }
        let mut cases = Cases::default();
        for (source, family) in taken.into_iter().zip(Family::BOTH) {
            let to = testbed.address("open", family)?;
            cases.add(format!("from {source}"), Passes::Unchecked, |mark| ends.datagram(source, to, mark));
            let own = testbed.address("bad", family)?;
            cases.add("its own", Passes::Always, |mark| ends.datagram(own, to, mark));
        }
        cases.check(&ends.bad, &ends.open, SourceCheck::Enforce)?;
        // The pod whose address it is goes on, although another one answers for it.
        for family in Family::BOTH {
            let address = testbed.address("open", family)?;
            let listener = testbed.within("open", || TcpListener::bind((address, 0)))??;
            let at = listener.local_addr()?;
            testbed.within("client", || TcpStream::connect_timeout(&at, PATIENCE))??;
        }
    }
    Ok(())
}

/// No policy distinguishes the two pods, so nothing changes in the plan.
fn exchanged(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    testbed.start(NEAR)?;
    let ends = Ends::of(&testbed)?;
    testbed.exchange_addresses(["bad", "client"])?;
    let status = testbed.agent(NEAR)?.status().ok_or("no status")?;
    ensure(status.unbound_ports.is_empty(), || format!("unbound: {:?}", status.unbound_ports))?;
    let mut cases = Cases::default();
    for family in Family::BOTH {
        let to = testbed.address("open", family)?;
        let (new, old) = (testbed.address("client", family)?, testbed.address("bad", family)?);
        cases.add(format!("from {new}, its own now"), Passes::Always, |mark| ends.datagram(new, to, mark));
        cases.add(format!("from {old}, its former one"), Passes::Unchecked, |mark| {
            ends.datagram(old, to, mark)
        });
    }
    cases.check(&ends.bad, &ends.open, SourceCheck::Enforce)
}

/// Behind two ports there is nothing but the address of one pod, until the CNI plugin names the namespace of that pod.
fn named(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    let of = |testbed: &Testbed, name: &str| -> Result<[IpAddr; 2], Failed> {
        Ok([testbed.address(name, Family::V4)?, testbed.address(name, Family::V6)?])
    };
    let (own, taken) = (of(&testbed, "bad")?, of(&testbed, "client")?);
    testbed.within("bad", || -> Result<(), Failed> {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        let mut netlink = Netlink::open()?;
        for (own, taken) in own.into_iter().zip(taken) {
            netlink.remove_address(index, own).address(index, taken, false);
        }
        Ok(netlink.commit()?)
    })??;
    let unbound = |agent: &mut Agent| -> Result<usize, Failed> {
        Ok(agent.status().ok_or("no status")?.unbound_ports.len())
    };
    ensure(unbound(testbed.start(NEAR)?)? == 2, || "the port of neither is known".into())?;
    let ends = Ends::of(&testbed)?;
    let namespace = testbed.within("client", || File::open("/proc/thread-self/ns/net"))??;
    let attachment = Attachment {
        id: "4f2a".to_owned(),
        namespace: agent::NAMESPACE.to_owned(),
        name: "client".to_owned(),
        uid: String::new(),
        addresses: taken.into(),
        network: "pods".to_owned(),
        network_namespace: format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()).into(),
    };
    let agent = testbed.agent(NEAR)?;
    agent.attach(attachment)?;
    let settled = until(PATIENCE, || Ok((unbound(agent)? == 1).then_some(())))?;
    settled.ok_or("the namespace of the pod is named, and its port is not known")?;
    let mut cases = Cases::default();
    for (source, family) in taken.into_iter().zip(Family::BOTH) {
        let to = testbed.address("open", family)?;
        cases.add(format!("from {source}"), Passes::Unchecked, |mark| ends.datagram(source, to, mark));
    }
    cases.check(&ends.bad, &ends.open, SourceCheck::Enforce)?;
    for family in Family::BOTH {
        let address = testbed.address("open", family)?;
        let listener = testbed.within("open", || TcpListener::bind((address, 0)))??;
        let at = listener.local_addr()?;
        testbed.within("client", || TcpStream::connect_timeout(&at, PATIENCE))??;
    }
    Ok(())
}

fn removed(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Bridged)?;
    testbed.start(NEAR)?;
    let is_there = testbed.within(NEAR, || Ruleset::read_bridge(&mut Kernel::open()?))??.is_some();
    ensure(is_there, || "there is no table to remove".into())?;
    testbed.remove(NEAR)?;
    let tables = testbed.within(NEAR, || -> Result<Vec<String>, Failed> {
        let survey = Survey::read(&mut Kernel::open()?)?;
        Ok(survey.tables.keys().map(ToString::to_string).collect())
    })??;
    let left: Vec<&String> = tables.iter().filter(|table| table.ends_with(" palisade")).collect();
    ensure(left.is_empty(), || format!("left: {left:?}"))
}

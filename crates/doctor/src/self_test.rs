//! Sends packets between two network namespaces and counts which pass the forward hook, where policies are enforced.
//!
//! The namespaces stand for two pods. They are connected to the namespace of the calling thread as a CNI plugin connects
//! pods: each by a route, or both as ports of the CNI's bridge. A table with its own name counts packets in the forward hook.
//!
//! Nothing is left behind, however the process ends: links and routes are removed with the namespaces, the namespaces with
//! the process, and the table with its socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process,
    time::{Duration, Instant},
};

use palisade_netns::{
    Namespace,
    rtnetlink::{LinkEnd, Mac, Netlink, NetlinkError, Route},
};
use palisade_nft::watchpoint::{Watched, Watchpoint};
use palisade_policy::{Family, Protocol};

/// How two pods of a node are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// A host route leads to each pod, as with Calico, `ptp` and the plugins of many clouds.
    Routed,
    /// Both are ports of a bridge, as with `bridge`, flannel or Docker.
    Bridged {
        /// The interface index of the bridge.
        bridge: u32,
    },
}

/// What happened to the packets of one family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// IPv4 or IPv6.
    pub(crate) family: Family,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Whether they passed the forward hook, so that policies apply to them.
    pub(crate) seen: bool,
    /// Whether they reached the other pod.
    pub(crate) arrived: bool,
}

/// An error of the self-test.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfTestError {
    /// A namespace could not be created.
    #[error("cannot create network namespaces: CAP_SYS_ADMIN is required, so run as root")]
    Namespace(#[source] io::Error),
    /// A link, address, route or neighbor could not be created.
    #[error("cannot connect the namespaces")]
    Connect(#[from] NetlinkError),
    /// The packet counters failed.
    #[error("cannot count packets")]
    Count(#[from] palisade_nft::Error),
    /// A socket failed.
    #[error("cannot send packets")]
    Send(#[source] io::Error),
}

/// The destination port: `discard` (RFC 863).
const PORT: u16 = 9;

/// How long to wait for a packet, and how often to send it.
const TIMEOUT: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 4;

const ETH0: u32 = 2;

/// Returns a pod's address: in 198.18.0.0/15, which is reserved for benchmarks (RFC 2544), or in a unique local network.
fn address(family: Family, pod: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, 213, pod).into(),
        Family::V6 => Ipv6Addr::new(0xfd70, 0x616c, 0x6973, 0x6164, 0, 0, 0, u16::from(pod)).into(),
    }
}

/// Returns the next hop of a routed pod. No interface has this address; the pods have a permanent neighbor entry for it.
fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(169, 254, 213, 254).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7061, 0x6c69).into(),
    }
}

/// Returns the hardware address of an end of a veth pair. A bridge adopts the smallest hardware address of its ports; these
/// are larger than any that a CNI plugin assigns, so that the bridge keeps its address.
fn mac(end: u8, pod: u8) -> Mac {
    [0xfe, 0xff, 0xff, 0xff, end, pod]
}

struct Pod {
    number: u8,
    namespace: Namespace,
    netlink: Netlink,
    host_end: LinkEnd,
    own_end: LinkEnd,
}

impl Pod {
    fn new(number: u8) -> Result<Self, SelfTestError> {
        let (namespace, netlink) = Namespace::create(Netlink::open).map_err(SelfTestError::Namespace)?;
        // Indices that are not in use: the kernel assigns them from 1 upwards.
        let index = 0x3000_0000 | ((process::id() & 0xf_ffff) << 4) | u32::from(number);
        let host_end =
            LinkEnd { name: format!("plsd{:x}.{number}", process::id()), index, mac: mac(0, number) };
        let own_end = LinkEnd { name: "eth0".to_owned(), index: ETH0, mac: mac(1, number) };
        Ok(Self { number, namespace, netlink: netlink?, host_end, own_end })
    }
}

/// Sends packets between two namespaces on a path and returns what happened to them.
///
/// The calling thread must be in the node's network namespace. Takes up to some seconds if packets are lost.
///
/// # Errors
/// When a namespace, link, counter or socket can't be created.
pub(crate) fn send_packets(path: &Path, families: &[Family]) -> Result<Vec<Sighting>, SelfTestError> {
    let mut node = Netlink::open()?;
    let mut pods = [Pod::new(1)?, Pod::new(2)?];
    let outcome = connect(path, families, &mut node, &mut pods).and_then(|()| send(families, &pods));
    // The kernel removes them with the namespaces too, but asynchronously.
    for pod in &pods {
        node.remove_link(pod.host_end.index);
    }
    let removed = node.commit();
    for route in routes_by_bridge(path, families, &pods) {
        node.remove_route(&route);
    }
    // Those of a family that the bridge doesn't have don't exist.
    _ = node.commit();
    let sightings = outcome?;
    removed?;
    Ok(sightings)
}

/// Returns the routes from the node to a pod of a bridge. Bridged packets don't need them, but a check of sources does: reverse path filters and the agent's
/// source check drop packets to whose source no route leads back.
fn routes_by_bridge(path: &Path, families: &[Family], pods: &[Pod; 2]) -> Vec<Route> {
    let Path::Bridged { bridge } = path else { return Vec::new() };
    let to = |pod: &Pod| families.iter().map(|family| address(*family, pod.number)).collect::<Vec<_>>();
    pods.iter().flat_map(to).map(|own| Route::to_host(own, *bridge)).collect()
}

fn connect(
    path: &Path,
    families: &[Family],
    node: &mut Netlink,
    pods: &mut [Pod; 2],
) -> Result<(), SelfTestError> {
    for pod in pods.iter() {
        node.veth(&pod.host_end, &pod.own_end, &pod.namespace);
        if let Path::Bridged { bridge } = path {
            node.bridge_port(pod.host_end.index, *bridge, false);
        } else {
            for family in families {
                let own = address(*family, pod.number);
                node.route(&Route::to_host(own, pod.host_end.index)).neighbor(
                    pod.host_end.index,
                    own,
                    pod.own_end.mac,
                );
            }
        }
    }
    node.commit()?;
    for route in routes_by_bridge(path, families, pods) {
        node.route(&route);
    }
    // The bridge may have no IPv6, and a check of sources need not be there.
    _ = node.commit();
    let ends = pods.each_ref().map(|pod| (pod.number, pod.own_end.mac));
    for pod in pods {
        pod.netlink.link_up(ETH0);
        for family in families {
            let own = address(*family, pod.number);
            pod.netlink.address(ETH0, own, false);
            for (number, mac) in ends.iter().filter(|(number, _)| *number != pod.number) {
                let peer = Route { source: Some(own), ..Route::to_host(address(*family, *number), ETH0) };
                match path {
                    Path::Bridged { .. } => pod.netlink.route(&peer).neighbor(ETH0, peer.to.0, *mac),
                    Path::Routed => {
                        let via = gateway(*family);
                        pod.netlink
                            .neighbor(ETH0, via, pod.host_end.mac)
                            .route(&Route { via: Some(via), ..peer })
                    }
                };
            }
        }
        pod.netlink.commit()?;
    }
    Ok(())
}

fn send(families: &[Family], [from, to]: &[Pod; 2]) -> Result<Vec<Sighting>, SelfTestError> {
    const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
    let watched: Vec<Watched> = families
        .iter()
        .flat_map(|family| {
            let source = address(*family, from.number);
            PROTOCOLS.map(|protocol| Watched { source, protocol, port: PORT })
        })
        .collect();
    let mut watchpoint = Watchpoint::open(&format!("palisade_probe_{}", process::id()), &watched)?;
    let mut arrived = Vec::new();
    for Watched { source, protocol, .. } in &watched {
        let ends = (*source, SocketAddr::new(address(Family::of(*source), to.number), PORT));
        let passes = match protocol {
            Protocol::Tcp => tcp(from, to, ends),
            _ => udp(from, to, ends),
        };
        arrived.push(passes.map_err(SelfTestError::Send)?);
    }
    let counts = watchpoint.counts()?.into_iter().zip(arrived);
    Ok(counts
        .map(|((watched, packets), arrived)| Sighting {
            family: Family::of(watched.source),
            protocol: watched.protocol,
            seen: packets > 0,
            arrived,
        })
        .collect())
}

/// Retries a bind: a new address is not usable at once.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match bind() {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && began.elapsed() < TIMEOUT * 4 => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn udp(from: &Pod, to: &Pod, (source, target): (IpAddr, SocketAddr)) -> io::Result<bool> {
    let receiver = to.namespace.run(|| bound(|| UdpSocket::bind(target)))??;
    let sender = from.namespace.run(|| bound(|| UdpSocket::bind((source, 0))))??;
    receiver.set_read_timeout(Some(TIMEOUT))?;
    for _ in 0..ATTEMPTS {
        // A rule may reject the packet, or send may fail: then it did not arrive.
        if sender.send_to(b"palisade", target).is_ok() && receiver.recv(&mut [0; 16]).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn tcp(from: &Pod, to: &Pod, (_, target): (IpAddr, SocketAddr)) -> io::Result<bool> {
    let listener = to.namespace.run(|| bound(|| TcpListener::bind(target)))??;
    let mut connected = None;
    for _ in 0..ATTEMPTS {
        connected = from.namespace.run(|| TcpStream::connect_timeout(&target, TIMEOUT))?.ok();
        if connected.is_some() {
            break;
        }
    }
    let Some(mut client) = connected else { return Ok(false) };
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(TIMEOUT * 4))?;
    Ok(client.write_all(b"x").is_ok() && server.read_exact(&mut [0]).is_ok())
}

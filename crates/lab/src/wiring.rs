//! Whether the packets of this machine's pods come by where policies are enforced: tried, not guessed.
//!
//! Two network namespaces stand for two pods. They are connected to the namespace of the calling thread as a CNI plugin
//! connects pods (each routed, or as ports of the CNI's bridge), and send each other a few packets. A table of counters,
//! under a name of its own, says which came by the forward hook.
//!
//! Nothing stays, however the process ends: the links and routes vanish with the namespaces, the namespaces with the
//! process, and the table with its socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process,
    time::{Duration, Instant},
};

use palisade_nft::watchpoint::{Watched, Watchpoint};
use palisade_policy::{Family, Protocol};

use crate::{
    namespace::Namespace,
    netlink::{LinkEnd, Mac, Netlink, NetlinkError, Route},
};

/// How two pods of a node are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Each has a route to it, as with Calico, `ptp` and many clouds' plugins.
    Routed,
    /// They are ports of a bridge, as with `bridge`, flannel or docker.
    Bridged {
        /// The bridge's interface index.
        bridge: u32,
    },
}

/// What became of the packets of one family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether they came by the forward hook, so that policies can act on them.
    pub seen: bool,
    /// Whether they arrived at the other pod.
    pub arrived: bool,
}

/// Why packets could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The namespaces.
    #[error("cannot make network namespaces: it takes CAP_SYS_ADMIN, so run as root")]
    Namespace(#[source] io::Error),
    /// Links, addresses, routes.
    #[error("cannot connect the namespaces")]
    Connect(#[from] NetlinkError),
    /// The counters.
    #[error("cannot count packets")]
    Count(#[from] palisade_nft::Error),
    /// The sockets.
    #[error("cannot send packets")]
    Send(#[source] io::Error),
}

/// The port on which a probe listens: `discard`.
const PORT: u16 = 9;

/// How long a packet may take, and how often it is sent again.
const PATIENCE: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 4;

const ETH0: u32 = 2;

/// Of 198.18.0.0/15, which is for tests of networks (RFC 2544) and routed nowhere, and a unique local network.
fn address(family: Family, pod: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, 213, pod).into(),
        Family::V6 => Ipv6Addr::new(0xfd70, 0x616c, 0x6973, 0x6164, 0, 0, 0, u16::from(pod)).into(),
    }
}

/// The next hop of a routed pod; nobody has it, its hardware address is given.
fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(169, 254, 213, 254).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7061, 0x6c69).into(),
    }
}

/// A bridge takes the smallest hardware address of its ports for its own: these are larger than any that a CNI plugin
/// gives, so that the pods' neighbour entries stay right.
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
    fn new(number: u8) -> Result<Self, WiringError> {
        let (namespace, netlink) = Namespace::create(Netlink::open).map_err(WiringError::Namespace)?;
        // Indices that nobody uses: the kernel counts up from 1.
        let index = 0x3000_0000 | ((process::id() & 0xf_ffff) << 4) | u32::from(number);
        let host_end =
            LinkEnd { name: format!("plsd{:x}.{number}", process::id()), index, mac: mac(0, number) };
        let own_end = LinkEnd { name: "eth0".to_owned(), index: ETH0, mac: mac(1, number) };
        Ok(Self { number, namespace, netlink: netlink?, host_end, own_end })
    }
}

/// Sends packets between two namespaces on this path, and says what became of them.
///
/// Must run in the network namespace of the node. Takes up to some seconds where packets get lost.
///
/// # Errors
/// Where namespaces, links, counters or sockets can't be had; nothing is known then.
pub fn sight(path: &Path, families: &[Family]) -> Result<Vec<Sighting>, WiringError> {
    let mut node = Netlink::open()?;
    let mut pods = [Pod::new(1)?, Pod::new(2)?];
    let outcome = connect(path, families, &mut node, &mut pods).and_then(|()| send(families, &pods));
    // They would vanish with the namespaces too, but in the kernel's own time.
    for pod in &pods {
        node.remove_link(pod.host_end.index);
    }
    let removed = node.commit();
    let sightings = outcome?;
    removed?;
    Ok(sightings)
}

fn connect(
    path: &Path,
    families: &[Family],
    node: &mut Netlink,
    pods: &mut [Pod; 2],
) -> Result<(), WiringError> {
    for pod in pods.iter() {
        node.veth(&pod.host_end, &pod.own_end, &pod.namespace);
        if let Path::Bridged { bridge } = path {
            node.bridge_port(pod.host_end.index, *bridge, false);
        } else {
            for family in families {
                let own = address(*family, pod.number);
                node.route(&Route::to_host(own, pod.host_end.index)).neighbour(
                    pod.host_end.index,
                    own,
                    pod.own_end.mac,
                );
            }
        }
    }
    node.commit()?;
    let ends = pods.each_ref().map(|pod| (pod.number, pod.own_end.mac));
    for pod in pods {
        pod.netlink.link_up(ETH0);
        for family in families {
            let own = address(*family, pod.number);
            pod.netlink.address(ETH0, own, false);
            for (number, mac) in ends.iter().filter(|(number, _)| *number != pod.number) {
                let peer = Route { source: Some(own), ..Route::to_host(address(*family, *number), ETH0) };
                match path {
                    Path::Bridged { .. } => pod.netlink.route(&peer).neighbour(ETH0, peer.to.0, *mac),
                    Path::Routed => {
                        let via = gateway(*family);
                        pod.netlink
                            .neighbour(ETH0, via, pod.host_end.mac)
                            .route(&Route { via: Some(via), ..peer })
                    }
                };
            }
        }
        pod.netlink.commit()?;
    }
    Ok(())
}

fn send(families: &[Family], [from, to]: &[Pod; 2]) -> Result<Vec<Sighting>, WiringError> {
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
        arrived.push(passes.map_err(WiringError::Send)?);
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

/// A new address takes a moment until it can be used.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match bind() {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && began.elapsed() < PATIENCE * 4 => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn udp(from: &Pod, to: &Pod, (source, target): (IpAddr, SocketAddr)) -> io::Result<bool> {
    let receiver = to.namespace.run(|| bound(|| UdpSocket::bind(target)))??;
    let sender = from.namespace.run(|| bound(|| UdpSocket::bind((source, 0))))??;
    receiver.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..ATTEMPTS {
        // A rule may answer with an ICMP error, or forbid sending: then it does not arrive.
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
        connected = from.namespace.run(|| TcpStream::connect_timeout(&target, PATIENCE))?.ok();
        if connected.is_some() {
            break;
        }
    }
    let Some(mut client) = connected else { return Ok(false) };
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE * 4))?;
    Ok(client.write_all(b"x").is_ok() && server.read_exact(&mut [0]).is_ok())
}

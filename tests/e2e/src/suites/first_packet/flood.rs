//! Packets that are sent to pods all the time, from before they exist: UDP, TCP and ICMP.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use palisade_netns::namespace::{Namespace, set_sysctls};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Cluster, network, starter::echo};

/// Where nothing listens: the kernel counts what arrives.
const CLOSED_PORT: u16 = 9;
/// The last part of the last address that the plugin gives, and of the first.
const RANGE_V4: std::ops::RangeInclusive<u8> = 2..=254;
/// Addresses beyond those of the pods: a failed start takes one too.
const SPARE: usize = 6;
/// How long it pauses when it has sent to every address, and after how many times it tries a connection, which takes more than a packet.
const PAUSE: Duration = Duration::from_millis(10);
const CONNECT_EVERY: u16 = 16;
/// The size of the buffers in which packets wait for a neighbor that is not found yet, in bytes: some packets. More of them, released at once,
/// overrun the queues between interfaces (`net.core.netdev_max_backlog`), and the kernel drops packets that have nothing to do with it.
const WAITING: usize = 4608;
/// The source port of connections to the first address. Those to the others follow.
const FIRST_PORT: u16 = 20_000;

/// The addresses that the next pods of each node get: the CNI plugin gives them in order, and remembers the last one.
pub(super) fn next_addresses(cluster: &Cluster, pods: usize) -> Result<Vec<IpAddr>> {
    let mut out = Vec::new();
    for (number, node) in (1..).zip(cluster.nodes()) {
        for (range, (net, _)) in network::pods(number).into_iter().enumerate() {
            let file = node.path(&format!("/run/cni/addresses/bridge/last_reserved_ip.{range}"));
            // There is none before the first pod.
            let last = match fs::read_to_string(&file) {
                Ok(text) => text.trim().parse().with_context(|| format!("{}: {text:?}", file.display()))?,
                Err(_) => net,
            };
            out.extend(
                std::iter::successors(Some(last), |last| Some(after(*last))).skip(1).take(pods + SPARE),
            );
        }
    }
    Ok(out)
}

/// The address after this one.
fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let next = d.checked_add(1).filter(|d| RANGE_V4.contains(d)).unwrap_or(*RANGE_V4.start());
            Ipv4Addr::new(a, b, c, next).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().max(1) + 1).into(),
    }
}

/// Limits what nodes keep for pods that don't exist yet.
pub(super) fn limit_waiting(cluster: &Cluster) -> Result<()> {
    let size = WAITING.to_string();
    for node in cluster.nodes() {
        node.network().run(|| {
            set_sysctls(&[
                ("ipv4/neigh/cni0/unres_qlen_bytes", &size),
                ("ipv6/neigh/cni0/unres_qlen_bytes", &size),
            ])
        })??;
    }
    Ok(())
}

/// Packets under way.
pub(super) struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Flood {
    /// Begins to send to these addresses from a network namespace.
    pub(super) fn begin(from: &Namespace, to: Vec<IpAddr>) -> Result<Self> {
        let (from, stop) = (from.try_clone()?, Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            from.enter()?;
            send(&to, &stopped)
        });
        Ok(Self { stop, thread })
    }

    /// Ends it, and returns how many packets were sent.
    pub(super) fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// What is sent to one address. Each has its own sockets: while a neighbor is not found, what was sent to it waits in its socket's buffer, and
/// would stop what is sent to others.
struct Sender {
    to: SocketAddr,
    datagrams: Socket,
    echoes: Socket,
    /// The connection that was tried last, from the address's own port: so it has one entry in connection tracking, however long this lasts.
    connection: Option<Socket>,
    port: u16,
}

impl Sender {
    fn new(to: IpAddr, port: u16) -> Result<Self> {
        let to = SocketAddr::new(to, CLOSED_PORT);
        let domain = Domain::for_address(to);
        let echo = if to.is_ipv6() { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let datagrams = Socket::new(domain, Type::DGRAM, None)?;
        let echoes = Socket::new(domain, Type::RAW, Some(echo))?;
        for socket in [&datagrams, &echoes] {
            socket.set_nonblocking(true)?;
            socket.set_send_buffer_size(WAITING)?;
        }
        Ok(Self { to, datagrams, echoes, connection: None, port })
    }

    /// Sends a packet of each protocol, and returns how many the kernel has taken. Most addresses don't exist yet.
    fn send(&mut self, round: u16) -> Result<usize> {
        let mut sent = usize::from(self.datagrams.send_to(b"x", &self.to.into()).is_ok());
        let raw = SocketAddr::new(self.to.ip(), 0).into();
        sent += usize::from(self.echoes.send_to(&echo(self.to.is_ipv6(), round), &raw).is_ok());
        if round.is_multiple_of(CONNECT_EVERY) {
            sent += self.connect()?;
        }
        Ok(sent)
    }

    fn connect(&mut self) -> Result<usize> {
        self.connection = None;
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        let any: IpAddr =
            if self.to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, self.port).into())?;
        _ = socket.connect(&self.to.into());
        self.connection = Some(socket);
        Ok(1)
    }
}

fn send(to: &[IpAddr], stop: &AtomicBool) -> Result<usize> {
    let senders = (FIRST_PORT..).zip(to).map(|(port, to)| Sender::new(*to, port));
    let mut senders = senders.collect::<Result<Vec<_>>>()?;
    let mut sent = 0;
    for round in (0_u16..=u16::MAX).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for sender in &mut senders {
            sent += sender.send(round)?;
        }
        thread::sleep(PAUSE);
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_in_the_order_of_the_plugin() {
        for (last, next) in [
            ("10.244.1.7", "10.244.1.8"),
            ("10.244.1.254", "10.244.1.2"),
            ("10.244.1.0", "10.244.1.2"),
            ("fd00:10:244:1::", "fd00:10:244:1::1"),
            ("fd00:10:244:1::f", "fd00:10:244:1::10"),
        ] {
            let of = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(after(of(last)), of(next));
        }
    }
}

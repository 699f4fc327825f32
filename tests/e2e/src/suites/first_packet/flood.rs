//! Packets that are sent to pods all the time, from before they exist: UDP, TCP and ICMP.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use palisade_netns::namespace::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Cluster, network, starter::echo};

/// Where nothing listens: the kernel counts what arrives.
const CLOSED_PORT: u16 = 9;
/// The last part of the last address that the plugin gives, and of the first.
const RANGE_V4: std::ops::RangeInclusive<u8> = 2..=254;
/// Addresses beyond those of the pods: a failed start takes one too.
const SPARE: usize = 6;

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

fn send(to: &[IpAddr], stop: &AtomicBool) -> Result<usize> {
    let datagrams = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?];
    let echoes = [
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
    ];
    let mut sent = 0;
    for round in 0_u16.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for address in to {
            let (family, to) = (usize::from(address.is_ipv6()), SocketAddr::new(*address, CLOSED_PORT));
            // Most of them don't exist yet.
            sent += usize::from(datagrams[family].send_to(b"x", to).is_ok());
            let raw = SocketAddr::new(*address, 0).into();
            sent += usize::from(echoes[family].send_to(&echo(address.is_ipv6(), round), &raw).is_ok());
            // A connection takes more than a packet.
            if round % 4 == 0 {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                _ = socket.connect(&to.into());
                sent += 1;
            }
        }
        thread::sleep(Duration::from_millis(5));
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

//! What runs in a container of the suite `first-packet`: it sends from its first instruction, over UDP, TCP and ICMP, and prints what
//! came of it.
//!
//! ```text
//!  counters of the kernel ──► one datagram, one connection, one echo to every address ──► again and again ──► counters ──► a line
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    ops::AddAssign,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// The hidden verb of this program that is such a container.
pub const VERB: &str = "starter";
/// How long it tries at least: longer than the first retransmission of TCP.
const LASTS: Duration = Duration::from_millis(1500);
/// How often datagrams and echoes are sent that have no answer yet.
const AGAIN: Duration = Duration::from_millis(100);
/// A connection that is not open after this time has lost its first packet: TCP repeats it after a second.
const FIRST_PACKET: Duration = Duration::from_millis(900);
/// Types of ICMP and of ICMPv6: an echo and its reply.
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// What answers, and what is reached: the server's name, and its addresses, as `NAME=ADDRESS,ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in the report.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, addresses) = text.split_once('=').ok_or("no NAME=ADDRESS,…")?;
        let addresses = addresses.split(',').map(|a| a.parse().map_err(|_| format!("{a:?} is no address")));
        Ok(Self { name: name.to_owned(), addresses: addresses.collect::<Result<_, String>>()? })
    }
}

/// How often something was tried, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Ways that were tried: one is a protocol and an address.
    pub ways: usize,
    /// Those on which the very first packet was answered.
    pub first: usize,
    /// Those on which any packet was answered.
    pub any: usize,
}

impl AddAssign for Tries {
    fn add_assign(&mut self, other: Self) {
        self.ways += other.ways;
        self.first += other.first;
        self.any += other.any;
    }
}

/// What one container has seen, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// By target and protocol.
    pub tries: BTreeMap<String, Tries>,
    /// Packets that have arrived since the first instruction, by kind, as the kernel has counted them: also those that nothing listens for.
    pub received: BTreeMap<String, u64>,
}

impl Seen {
    /// Adds what another one has seen.
    pub fn add(&mut self, other: &Self) {
        for (name, tries) in &other.tries {
            *self.tries.entry(name.clone()).or_default() += *tries;
        }
        for (name, count) in &other.received {
            *self.received.entry(name.clone()).or_default() += count;
        }
    }

    /// The sum over the protocols, of targets with this name.
    #[must_use]
    pub fn of(&self, target: &str) -> Tries {
        let mut sum = Tries::default();
        for (name, tries) in &self.tries {
            if name.split_once(' ').is_some_and(|(of, _)| of == target) {
                sum += *tries;
            }
        }
        sum
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answered =
            |(name, t): (&String, &Tries)| format!("{name} {}/{} (first {})", t.any, t.ways, t.first);
        let tries: Vec<_> = self.tries.iter().map(answered).collect();
        let received: Vec<_> = self.received.iter().map(|(name, count)| format!("{count} {name}")).collect();
        write!(f, "answered: {}; received: {}", tries.join(", "), received.join(", "))
    }
}

/// Runs in a container: sends to all targets, prints a line with what it has [`Seen`], and ends. It waits for answers for `patience`, if that is
/// longer than it tries anyway.
///
/// # Errors
/// If the kernel refuses a socket, or its counters can't be read.
pub fn run(port: u16, patience: Duration, targets: &[Target]) -> Result<()> {
    // First: kernels answer an echo before the next instruction.
    let before = received()?;
    let mut ways = Vec::new();
    for target in targets {
        for address in &target.addresses {
            for kind in [Kind::Udp, Kind::Tcp, Kind::Icmp] {
                let way = Way::begin(kind, SocketAddr::new(*address, port));
                ways.push((&target.name, way.with_context(|| format!("{kind:?} to {address}"))?));
            }
        }
    }
    let begin = Instant::now();
    let mut next = begin + AGAIN;
    let waits = |ways: &[(&String, Way)]| begin.elapsed() < patience && ways.iter().any(|(_, way)| !way.any);
    while begin.elapsed() < LASTS || waits(&ways) {
        thread::sleep(Duration::from_millis(2));
        let again = Instant::now() >= next;
        if again {
            next += AGAIN;
        }
        ways.iter_mut().for_each(|(_, way)| way.poll(again));
    }
    let mut seen = Seen::default();
    for (name, way) in &ways {
        let tries = Tries { ways: 1, first: way.first.into(), any: way.any.into() };
        *seen.tries.entry(format!("{name} {}", way.kind.name())).or_default() += tries;
    }
    let all = received()?;
    seen.received =
        all.into_iter().map(|(name, now)| (name.to_owned(), now - before.get(name).unwrap_or(&0))).collect();
    let line = serde_json::to_string(&seen)?;
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    // Where the kubelet takes a container's last words from.
    Ok(fs::write("/dev/termination-log", line)?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp,
    Icmp,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Icmp => "ICMP",
        }
    }
}

/// One protocol to one address.
#[derive(Debug)]
struct Way {
    kind: Kind,
    is_v6: bool,
    socket: Socket,
    begun: Instant,
    /// When a connection was last seen not to be open. A process that gets no processor sees late that it is.
    not_before: Duration,
    sent: u16,
    first: bool,
    any: bool,
}

impl Way {
    /// Sends the first packet.
    fn begin(kind: Kind, to: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(to);
        let icmp = if to.is_ipv6() { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let (of, protocol) = match kind {
            Kind::Udp => (Type::DGRAM, None),
            Kind::Tcp => (Type::STREAM, None),
            Kind::Icmp => (Type::RAW, Some(icmp)),
        };
        let socket = Socket::new(domain, of, protocol)?;
        socket.set_nonblocking(true)?;
        let begun = Instant::now();
        match socket.connect(&to.into()) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            other => other?,
        }
        let is_v6 = to.is_ipv6();
        let not_before = Duration::ZERO;
        let mut way = Self { kind, is_v6, socket, begun, not_before, sent: 0, first: false, any: false };
        way.send();
        Ok(way)
    }

    /// Sends a packet with the next number, unless the kernel sends by itself.
    fn send(&mut self) {
        // What can't be sent has no answer.
        _ = match self.kind {
            Kind::Udp => self.socket.send(format!("echo {}", self.sent).as_bytes()),
            Kind::Icmp => self.socket.send(&echo(self.is_v6, self.sent)),
            Kind::Tcp => Ok(0),
        };
        self.sent += 1;
    }

    /// Takes the answers that have arrived, and sends again if there is none.
    fn poll(&mut self, again: bool) {
        match self.kind {
            Kind::Tcp => {
                if self.any {
                    return;
                }
                if self.socket.peer_addr().is_ok() {
                    self.any = true;
                    self.first = self.not_before < FIRST_PACKET;
                } else {
                    self.not_before = self.begun.elapsed();
                }
            }
            Kind::Udp | Kind::Icmp => {
                while let Some(number) = self.answer() {
                    self.any = true;
                    self.first |= number == 0;
                }
                if again && !self.any {
                    self.send();
                }
            }
        }
    }

    /// The number of the packet that the next answer is to.
    fn answer(&self) -> Option<u16> {
        let mut buffer = [0; 1500];
        loop {
            let length = (&self.socket).read(&mut buffer).ok()?;
            let bytes = &buffer[..length];
            let number = match self.kind {
                Kind::Udp => std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()),
                _ => echo_reply(self.is_v6, bytes),
            };
            if number.is_some() {
                return number;
            }
        }
    }
}

/// An echo of ICMP or ICMPv6 with a number. Of the latter the kernel makes the checksum.
#[must_use]
pub fn echo(is_v6: bool, number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    let mut message = [ECHO[usize::from(is_v6)].0, 0, 0, 0, 0x50, 0x41, high, low];
    let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    if !is_v6 {
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The number of a reply. A raw socket receives it with its header in IPv4.
fn echo_reply(is_v6: bool, packet: &[u8]) -> Option<u16> {
    let header = if is_v6 { 0 } else { usize::from(packet.first()? & 0xf) * 4 };
    match packet.get(header..)? {
        [of, 0, _, _, 0x50, 0x41, high, low, ..] if *of == ECHO[usize::from(is_v6)].1 => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

/// The packets that this network namespace has received, whether anything listens or not.
fn received() -> Result<BTreeMap<&'static str, u64>> {
    let v4 = fs::read_to_string("/proc/net/snmp")?;
    // Missing on a kernel without IPv6.
    let v6 = fs::read_to_string("/proc/net/snmp6").unwrap_or_default();
    let sum = |names: &[(&str, &str)], names_v6: &[&str]| {
        let of_v4 = names.iter().filter_map(|(part, name)| counter(&v4, part, name));
        let of_v6 = names_v6.iter().filter_map(|name| {
            v6.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        });
        of_v4.chain(of_v6).sum::<u64>()
    };
    Ok(BTreeMap::from([
        ("datagrams", sum(&[("Udp:", "InDatagrams")], &["Udp6InDatagrams "])),
        // From others alone, as echo requests are: nothing listens at the ports of the container.
        ("datagrams to closed ports", sum(&[("Udp:", "NoPorts")], &["Udp6NoPorts "])),
        // Of both families.
        ("TCP segments", sum(&[("Tcp:", "InSegs")], &[])),
        ("echo requests", sum(&[("Icmp:", "InEchos")], &["Icmp6InEchos "])),
        ("echo replies", sum(&[("Icmp:", "InEchoReps")], &["Icmp6InEchoReplies "])),
    ]))
}

/// A counter of `/proc/net/snmp`: two lines for each protocol, of names and of numbers.
fn counter(text: &str, part: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(part));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Tcp: RtoMin InSegs OutSegs\nTcp: 200 17 4\nUdp: InDatagrams NoPorts\nUdp: 3 5\n";
        assert_eq!(counter(text, "Tcp:", "InSegs"), Some(17));
        assert_eq!(counter(text, "Udp:", "NoPorts"), Some(5));
        assert_eq!(counter(text, "Icmp:", "InEchos"), None);
        let own = received().expect("counters");
        assert_eq!(own.len(), 5);
    }

    #[test]
    fn an_echo_is_answered_by_its_number() {
        // Of the loopback device of this machine: the checksum of the request is what another one computes.
        assert_eq!(echo(false, 0), [8, 0, 0xa7, 0xbe, 0x50, 0x41, 0, 0]);
        let reply = [&[0x45][..], &[0; 19], &[0, 0, 0, 0, 0x50, 0x41, 1, 2]].concat();
        assert_eq!(echo_reply(false, &reply), Some(0x0102));
        assert_eq!(echo_reply(true, &[129, 0, 0, 0, 0x50, 0x41, 0, 7]), Some(7));
        for other in [&[128, 0, 0, 0, 0x50, 0x41, 0, 7][..], &[129, 0, 0, 0, 1, 1, 0, 7], &[]] {
            assert_eq!(echo_reply(true, other), None);
        }
    }

    #[test]
    fn a_target_has_a_name_and_addresses() {
        let target: Target = "near=10.0.0.1,fd00::1".parse().expect("a target");
        assert_eq!((target.name.as_str(), target.addresses.len()), ("near", 2));
        assert!("near".parse::<Target>().is_err() && "near=x".parse::<Target>().is_err());
    }
}

//! The prober: one thread that runs thousands of connections at once, each opened in the namespace of its source.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    io::{self, Read},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::errno::Errno;
use palisade_policy::Protocol;
use socket2::{Domain, Socket, Type};

use super::{options::Timeouts, outcome::Outcome, plan::Probe};
use crate::{
    error::LabError,
    lab::Lab,
    layout::Place,
    namespace::Namespace,
    wire::{Answer, echo_request, ipv4_payload, is_echo_reply, parse_sctp_init_ack, sctp_init},
};

/// How often a datagram is sent within the timeout. UDP, SCTP and ICMP probes have no retransmission of their own.
const SENDS: u32 = 4;

/// Runs the chosen probes. `done` receives the index of each probe with its outcome, in the order in which they finish.
pub(crate) fn run(
    lab: &Lab,
    probes: &[Probe],
    chosen: &[usize],
    timeouts: &Timeouts,
    done: &mut (dyn FnMut(usize, Outcome) + Send),
) -> Result<(), LabError> {
    let mut namespaces: BTreeMap<Place, &Namespace> = BTreeMap::new();
    for index in chosen {
        let place = Place::of(&probes[*index].source);
        let namespace = lab.namespace(&place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
        namespaces.insert(place, namespace);
    }
    run_from(&namespaces, probes, chosen, timeouts, done)
}

/// Runs the chosen probes in namespaces that the caller holds, which must include those of all sources.
pub(crate) fn run_from(
    namespaces: &BTreeMap<Place, &Namespace>,
    probes: &[Probe],
    chosen: &[usize],
    timeouts: &Timeouts,
    done: &mut (dyn FnMut(usize, Outcome) + Send),
) -> Result<(), LabError> {
    let failed = |source| LabError::Namespace { place: "the probes".to_owned(), source };
    // The prober gets a thread because it moves that thread between namespaces.
    thread::scope(|scope| {
        let run = || {
            let poll = Poll::new()?;
            ProbeRun {
                poll,
                probes,
                namespaces,
                timeouts,
                in_flight: HashMap::new(),
                timers: BinaryHeap::new(),
                next: 0,
            }
            .run(chosen, done)
        };
        let thread = thread::Builder::new().name("lab-prober".into()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .map_err(failed)
}

enum Connection {
    Tcp {
        stream: TcpStream,
        connected: bool,
        received: Vec<u8>,
    },
    /// A UDP, ping or raw socket: `UdpSocket` handles all three.
    Datagram {
        socket: UdpSocket,
        request: Vec<u8>,
        sends_left: u32,
    },
}

struct InFlight {
    index: usize,
    connection: Connection,
    deadline: Instant,
}

struct ProbeRun<'a> {
    poll: Poll,
    probes: &'a [Probe],
    namespaces: &'a BTreeMap<Place, &'a Namespace>,
    timeouts: &'a Timeouts,
    in_flight: HashMap<usize, InFlight>,
    /// The time at which each probe needs attention. Entries of finished probes are skipped.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    next: usize,
}

impl ProbeRun<'_> {
    fn run(mut self, chosen: &[usize], done: &mut dyn FnMut(usize, Outcome)) -> io::Result<()> {
        let mut waiting = chosen.iter().copied();
        let mut events = Events::with_capacity(1024);
        let mut at = None;
        loop {
            while self.in_flight.len() < self.timeouts.in_flight {
                let Some(index) = waiting.next() else { break };
                let place = Place::of(&self.probes[index].source);
                if at.as_ref() != Some(&place) {
                    self.namespaces[&place].enter()?;
                    at = Some(place);
                }
                if let Err(e) = self.start(index) {
                    done(index, outcome_of(&e));
                }
            }
            let Some(Reverse((due, _))) = self.timers.peek() else { return Ok(()) };
            let wait = due.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for event in &events {
                self.on_event(event.token().0, done);
            }
            self.on_timers(done);
        }
    }

    fn start(&mut self, index: usize) -> io::Result<()> {
        let connection = open(&self.probes[index])?;
        let now = Instant::now();
        let token = self.next;
        self.next += 1;
        let (fd, interest) = match &connection {
            Connection::Tcp { stream, .. } => (stream.as_raw_fd(), Interest::READABLE | Interest::WRITABLE),
            Connection::Datagram { socket, .. } => (socket.as_raw_fd(), Interest::READABLE),
        };
        self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest)?;
        let deadline = now + self.timeouts.whole;
        let due = match &connection {
            Connection::Tcp { .. } => deadline,
            Connection::Datagram { .. } => now + self.timeouts.whole / SENDS,
        };
        self.in_flight.insert(token, InFlight { index, connection, deadline });
        self.timers.push(Reverse((due, token)));
        Ok(())
    }

    fn on_event(&mut self, token: usize, done: &mut dyn FnMut(usize, Outcome)) {
        let Some(probe) = self.in_flight.get_mut(&token) else { return };
        let finished = match progress(&mut probe.connection, &self.probes[probe.index]) {
            Ok(finished) => finished,
            // An ICMPv6 message that the connection is prohibited.
            Err(e) if e.raw_os_error().map(Errno::from_raw) == Some(Errno::EACCES) => {
                Some(Outcome::Unreachable(e.kind()))
            }
            Err(e) => Some(outcome_of(&e)),
        };
        if let Some(outcome) = finished {
            self.finish(token, outcome, done);
        }
    }

    fn on_timers(&mut self, done: &mut dyn FnMut(usize, Outcome)) {
        let now = Instant::now();
        while let Some(Reverse((due, token))) = self.timers.peek().copied() {
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(probe) = self.in_flight.get_mut(&token) else { continue };
            if probe.deadline > now {
                let mut next = probe.deadline;
                if let Connection::Datagram { socket, request, sends_left } = &mut probe.connection
                    && *sends_left > 0
                {
                    *sends_left -= 1;
                    // An ICMP error for the previous datagram is returned here or by the next read, which reports it.
                    let _ = socket.send(request);
                    next = next.min(now + self.timeouts.whole / SENDS);
                }
                self.timers.push(Reverse((next, token)));
                continue;
            }
            let connected = matches!(probe.connection, Connection::Tcp { connected: true, .. });
            let outcome =
                if connected { Outcome::Connected { by: None, seen_from: None } } else { Outcome::TimedOut };
            self.finish(token, outcome, done);
        }
    }

    fn finish(&mut self, token: usize, outcome: Outcome, done: &mut dyn FnMut(usize, Outcome)) {
        if let Some(probe) = self.in_flight.remove(&token) {
            done(probe.index, outcome);
        }
    }
}

fn outcome_of(e: &io::Error) -> Outcome {
    use io::ErrorKind as K;
    match e.kind() {
        K::ConnectionRefused => Outcome::Refused,
        K::TimedOut => Outcome::TimedOut,
        K::HostUnreachable
        | K::NetworkUnreachable
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::NetworkDown => Outcome::Unreachable(e.kind()),
        _ => Outcome::Failed(e.to_string()),
    }
}

/// Opens the connection in the calling thread's namespace.
fn open(probe: &Probe) -> io::Result<Connection> {
    let from = probe.source.address();
    let to = SocketAddr::new(probe.target.address(), probe.port);
    let domain = Domain::for_address(to);
    let v6 = to.is_ipv6();
    let make = |kind, protocol| {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        Ok::<_, io::Error>(socket)
    };
    let datagram = |socket: Socket, to: SocketAddr, request: Vec<u8>| {
        socket.connect(&to.into())?;
        let socket: UdpSocket = socket.into();
        socket.send(&request).map_err(refused_locally)?;
        Ok(Connection::Datagram { socket, request, sends_left: SENDS - 1 })
    };
    match probe.protocol {
        Protocol::Tcp => {
            let socket = make(Type::STREAM, None)?;
            // Closing sends a reset, so that finished connections don't fill the nodes' connection-tracking tables.
            socket.set_linger(Some(Duration::ZERO))?;
            match socket.connect(&to.into()) {
                Err(e) if e.raw_os_error().map(Errno::from_raw) != Some(Errno::EINPROGRESS) => return Err(e),
                _ => {}
            }
            Ok(Connection::Tcp { stream: socket.into(), connected: false, received: Vec::new() })
        }
        Protocol::Udp => datagram(make(Type::DGRAM, None)?, to, b"who".to_vec()),
        Protocol::Sctp => {
            let socket = make(Type::RAW, Some(socket2::Protocol::SCTP))?;
            let port = sctp_port();
            // Any tag except 0 is valid.
            let request = sctp_init(port, probe.port, u32::from(port) | 1 << 16);
            // Raw sockets have no port.
            datagram(socket, SocketAddr::new(to.ip(), 0), request)
        }
        Protocol::Other(1 | 58) => {
            let kind = if v6 { socket2::Protocol::ICMPV6 } else { socket2::Protocol::ICMPV4 };
            datagram(make(Type::DGRAM, Some(kind))?, to, echo_request(v6).to_vec())
        }
        Protocol::Other(n) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("no prober for IP protocol {n}")))
        }
    }
}

/// Turns `EPERM` into a refusal: it is returned where output rules of the sender's node reject the packet, as for a service
/// without backends.
fn refused_locally(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::PermissionDenied { io::ErrorKind::ConnectionRefused.into() } else { e }
}

/// Returns the next source port for SCTP from the dynamic range. Raw sockets get none from the kernel.
fn sctp_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // RFC 6335: there are 16,384 dynamic ports, from 49152.
    49_152 + NEXT.fetch_add(1, Ordering::Relaxed) % 16_384
}

/// Reads what has arrived. Returns the outcome if it is known now.
fn progress(connection: &mut Connection, probe: &Probe) -> io::Result<Option<Outcome>> {
    match connection {
        Connection::Tcp { stream, connected, received } => tcp(stream, connected, received),
        Connection::Datagram { socket, request, .. } => {
            let mut buffer = [0; 2048];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        if let Some(outcome) = datagram(&buffer[..length], request, probe) {
                            return Ok(Some(outcome));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

fn tcp(stream: &mut TcpStream, connected: &mut bool, received: &mut Vec<u8>) -> io::Result<Option<Outcome>> {
    if let Some(e) = stream.take_error()? {
        return Err(e);
    }
    let mut buffer = [0; 256];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Some(Outcome::Connected { by: None, seen_from: None })),
            Ok(length) => {
                *connected = true;
                received.extend_from_slice(&buffer[..length]);
                if let Some(answer) = Answer::parse(received) {
                    return Ok(Some(answered(answer)));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // Only a connected socket has a peer; the first event may be earlier.
                *connected = stream.peer_addr().is_ok();
                return Ok(None);
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

fn datagram(packet: &[u8], request: &[u8], probe: &Probe) -> Option<Outcome> {
    let v6 = probe.source.address().is_ipv6();
    match probe.protocol {
        Protocol::Udp => Answer::parse(packet).map(answered),
        Protocol::Sctp => {
            let payload = if v6 { Some(packet) } else { ipv4_payload(packet) };
            let (port, text) = payload.and_then(parse_sctp_init_ack)?;
            // A raw socket receives the answers to other probes too.
            let mine = request.starts_with(&port.to_be_bytes());
            if mine { Answer::parse(text).map(answered) } else { None }
        }
        _ => is_echo_reply(packet, v6).then_some(Outcome::Connected { by: None, seen_from: None }),
    }
}

fn answered(answer: Answer) -> Outcome {
    Outcome::Connected { by: Some(answer.by), seen_from: Some(answer.client) }
}

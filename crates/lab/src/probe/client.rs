//! The prober: thousands of connections at once from one thread, each opened in its source's namespace.

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

/// How often what has no handshake of its own is sent again within the time that there is.
const SENDS: u32 = 4;

/// Runs these probes; `done` hears each outcome with the probe's index. The order is as things happen.
pub(super) fn run(
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

/// The same, from namespaces that the caller has: among them those of all sources.
pub(crate) fn run_from(
    namespaces: &BTreeMap<Place, &Namespace>,
    probes: &[Probe],
    chosen: &[usize],
    timeouts: &Timeouts,
    done: &mut (dyn FnMut(usize, Outcome) + Send),
) -> Result<(), LabError> {
    let failed = |source| LabError::Namespace { place: "the probes".to_owned(), source };
    // A thread of its own, because it moves from namespace to namespace.
    thread::scope(|scope| {
        let pass = || {
            let poll = Poll::new()?;
            Pass {
                poll,
                probes,
                namespaces,
                timeouts,
                flying: HashMap::new(),
                alarms: BinaryHeap::new(),
                next: 0,
            }
            .run(chosen, done)
        };
        let thread = thread::Builder::new().name("lab-prober".into()).spawn_scoped(scope, pass)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .map_err(failed)
}

enum Line {
    Tcp {
        stream: TcpStream,
        connected: bool,
        received: Vec<u8>,
    },
    /// UDP, or a ping or raw socket: the standard library's datagram socket serves all three.
    Datagram {
        socket: UdpSocket,
        request: Vec<u8>,
        sends_left: u32,
    },
}

struct Flight {
    index: usize,
    line: Line,
    deadline: Instant,
}

struct Pass<'a> {
    poll: Poll,
    probes: &'a [Probe],
    namespaces: &'a BTreeMap<Place, &'a Namespace>,
    timeouts: &'a Timeouts,
    flying: HashMap<usize, Flight>,
    /// When to look at which flight again. What has landed meanwhile is passed over.
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
    next: usize,
}

impl Pass<'_> {
    fn run(mut self, chosen: &[usize], done: &mut dyn FnMut(usize, Outcome)) -> io::Result<()> {
        let mut waiting = chosen.iter().copied();
        let mut events = Events::with_capacity(1024);
        let mut at = None;
        loop {
            while self.flying.len() < self.timeouts.in_flight {
                let Some(index) = waiting.next() else { break };
                let place = Place::of(&self.probes[index].source);
                if at.as_ref() != Some(&place) {
                    self.namespaces[&place].enter()?;
                    at = Some(place);
                }
                if let Err(e) = self.launch(index) {
                    done(index, outcome_of(&e));
                }
            }
            let Some(Reverse((alarm, _))) = self.alarms.peek() else { return Ok(()) };
            let wait = alarm.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for event in &events {
                self.look(event.token().0, done);
            }
            self.ring(done);
        }
    }

    fn launch(&mut self, index: usize) -> io::Result<()> {
        let line = open(&self.probes[index])?;
        let now = Instant::now();
        let token = self.next;
        self.next += 1;
        let (fd, interest) = match &line {
            Line::Tcp { stream, .. } => (stream.as_raw_fd(), Interest::READABLE | Interest::WRITABLE),
            Line::Datagram { socket, .. } => (socket.as_raw_fd(), Interest::READABLE),
        };
        self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest)?;
        let deadline = now + self.timeouts.whole;
        let alarm = match &line {
            Line::Tcp { .. } => deadline,
            Line::Datagram { .. } => now + self.timeouts.whole / SENDS,
        };
        self.flying.insert(token, Flight { index, line, deadline });
        self.alarms.push(Reverse((alarm, token)));
        Ok(())
    }

    fn look(&mut self, token: usize, done: &mut dyn FnMut(usize, Outcome)) {
        let Some(flight) = self.flying.get_mut(&token) else { return };
        let landed = match progress(&mut flight.line, &self.probes[flight.index]) {
            Ok(landed) => landed,
            Err(e) => Some(outcome_of(&e)),
        };
        if let Some(outcome) = landed {
            self.land(token, outcome, done);
        }
    }

    fn ring(&mut self, done: &mut dyn FnMut(usize, Outcome)) {
        let now = Instant::now();
        while let Some(Reverse((alarm, token))) = self.alarms.peek().copied() {
            if alarm > now {
                return;
            }
            self.alarms.pop();
            let Some(flight) = self.flying.get_mut(&token) else { continue };
            if flight.deadline > now {
                let mut next = flight.deadline;
                if let Line::Datagram { socket, request, sends_left } = &mut flight.line
                    && *sends_left > 0
                {
                    *sends_left -= 1;
                    // An ICMP error for the last one comes out here or at the next read; the look at the answer sees it.
                    let _ = socket.send(request);
                    next = next.min(now + self.timeouts.whole / SENDS);
                }
                self.alarms.push(Reverse((next, token)));
                continue;
            }
            let connected = matches!(flight.line, Line::Tcp { connected: true, .. });
            let outcome =
                if connected { Outcome::Connected { by: None, seen_from: None } } else { Outcome::TimedOut };
            self.land(token, outcome, done);
        }
    }

    fn land(&mut self, token: usize, outcome: Outcome, done: &mut dyn FnMut(usize, Outcome)) {
        if let Some(flight) = self.flying.remove(&token) {
            done(flight.index, outcome);
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

/// Opens the connection, in the calling thread's namespace.
fn open(probe: &Probe) -> io::Result<Line> {
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
        socket.send(&request).map_err(refused_at_home)?;
        Ok(Line::Datagram { socket, request, sends_left: SENDS - 1 })
    };
    match probe.protocol {
        Protocol::Tcp => {
            let socket = make(Type::STREAM, None)?;
            // Closing resets: no state stays behind that would fill the nodes' connection tracking.
            socket.set_linger(Some(Duration::ZERO))?;
            match socket.connect(&to.into()) {
                // EINPROGRESS, from `asm-generic/errno.h`.
                Err(e) if e.raw_os_error() != Some(115) => return Err(e),
                _ => {}
            }
            Ok(Line::Tcp { stream: socket.into(), connected: false, received: Vec::new() })
        }
        Protocol::Udp => datagram(make(Type::DGRAM, None)?, to, b"who".to_vec()),
        Protocol::Sctp => {
            // A datagram socket holds the port, so that no two probes of one source share it.
            let socket = make(Type::RAW, Some(socket2::Protocol::SCTP))?;
            let port = sctp_port();
            // Any tag but 0 will do.
            let request = sctp_init(port, probe.port, u32::from(port) | 1 << 16);
            // Raw sockets take no port.
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

/// What the sender's own output rules refuse, as a node does a service without backends, comes back as `EPERM`.
fn refused_at_home(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::PermissionDenied { io::ErrorKind::ConnectionRefused.into() } else { e }
}

/// A source port for SCTP, which has no socket layer here to give one: all of the dynamic range in turn.
fn sctp_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // RFC 6335: the dynamic ports begin at 49152, and there are 16,384.
    49_152 + NEXT.fetch_add(1, Ordering::Relaxed) % 16_384
}

/// Looks at what has come; `Some` if that settles it.
fn progress(line: &mut Line, probe: &Probe) -> io::Result<Option<Outcome>> {
    match line {
        Line::Tcp { stream, connected, received } => tcp(stream, connected, received),
        Line::Datagram { socket, request, .. } => {
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
                // Only what is connected has a peer; the first event may come before that.
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
            // A raw socket sees the answers to its neighbours too.
            let mine = request.starts_with(&port.to_be_bytes());
            if mine { Answer::parse(text).map(answered) } else { None }
        }
        _ => is_echo_reply(packet, v6).then_some(Outcome::Connected { by: None, seen_from: None }),
    }
}

fn answered(answer: Answer) -> Outcome {
    Outcome::Connected { by: Some(answer.by), seen_from: Some(answer.client) }
}

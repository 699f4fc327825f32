//! Conversations: connections that stay open and carry numbers continuously, over TCP or UDP, from either end.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::AtomicU16,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_policy::Family;
use socket2::{SockRef, TcpKeepalive};

use crate::{
    capture::FiveTuple,
    harness::{ensure, until},
    testbed::Testbed,
};

/// The default interval between two numbers.
const PAUSE: Duration = Duration::from_millis(10);
/// The timeout of the handshake, and of numbers that are still on their way at the end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The protocol of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// The ends that send numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Senders {
    /// The client.
    Client,
    /// The server.
    Server,
    /// Both ends.
    Both,
    /// Neither end; both ends of a TCP connection send keepalives.
    Keepalive,
}

/// The ends, the protocol and the senders of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConversationSpec {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) transport: Transport,
    pub(crate) senders: Senders,
    /// Whether the policies of the test allow the conversation.
    pub(crate) allowed: bool,
}

/// An open conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) spec: ConversationSpec,
    pub(crate) family: Family,
    /// The five-tuple of the client's packets.
    pub(crate) tuple: FiveTuple,
    client: End,
    server: End,
}

#[derive(Debug)]
struct End {
    socket: Socket,
    sent: Vec<Instant>,
    received: Received,
    broken: Option<String>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// The numbers that an end has received.
#[derive(Debug, Default)]
struct Received {
    /// For a stream: the count of numbers, which must be consecutive.
    count: u64,
    part: Vec<u8>,
    /// For datagrams: the received numbers.
    numbers: BTreeSet<u64>,
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConversationSpec { from, to, transport, senders, .. } = self.spec;
        write!(f, "{from} to {to}, {transport:?} over {:?}, senders: {senders:?}", self.family)
    }
}

/// Binds a server to a port below the ephemeral range, as services have it. The lab's servers use some of these ports.
///
/// If both ports of a TCP connection are ephemeral, the agent can't tell which end opened it after its entry is lost, and
/// denies it.
fn bind_server<T>(bind: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
    const PORTS: std::ops::Range<u16> = 5000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    for _ in PORTS {
        let next = |port: u16| Some(if port + 1 == PORTS.end { PORTS.start } else { port + 1 });
        let port = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(PORTS.start);
        match bind(port) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

impl Conversation {
    /// Opens a conversation. Both ends send and receive a first number.
    pub(crate) fn open(testbed: &Testbed, spec: ConversationSpec, family: Family) -> Result<Self, Failed> {
        let (from, to) = (testbed.address(spec.from, family)?, testbed.address(spec.to, family)?);
        let failed =
            |e: io::Error| format!("{} to {} over {:?}, {family:?}: {e}", spec.from, spec.to, spec.transport);
        let (client, server, ends) = match spec.transport {
            Transport::Tcp => {
                let listener = testbed
                    .within(spec.to, || bind_server(|port| TcpListener::bind((to, port))))?
                    .map_err(failed)?;
                let target = listener.local_addr()?;
                let client = testbed
                    .within(spec.from, || TcpStream::connect_timeout(&target, TIMEOUT))?
                    .map_err(failed)?;
                let (server, _) = listener.accept()?;
                let source = client.local_addr()?;
                for stream in [&client, &server] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    if spec.senders == Senders::Keepalive {
                        let each = Duration::from_secs(1);
                        SockRef::from(stream)
                            .set_tcp_keepalive(&TcpKeepalive::new().with_time(each).with_interval(each))?;
                    }
                }
                (Socket::Tcp(client), Socket::Tcp(server), (6, source, target))
            }
            Transport::Udp => {
                let client = testbed.within(spec.from, || UdpSocket::bind((from, 0)))?.map_err(failed)?;
                let server = testbed
                    .within(spec.to, || bind_server(|port| UdpSocket::bind((to, port))))?
                    .map_err(failed)?;
                let (source, target) = (client.local_addr()?, server.local_addr()?);
                client.connect(target)?;
                server.connect(source)?;
                for socket in [&client, &server] {
                    socket.set_nonblocking(true)?;
                }
                (Socket::Udp(client), Socket::Udp(server), (17, source, target))
            }
        };
        let pair = |address: SocketAddr| (address.ip(), address.port());
        let (protocol, source, destination) = ends;
        let tuple = FiveTuple { protocol, source: pair(source), destination: pair(destination) };
        let end = |socket| End { socket, sent: Vec::new(), received: Received::default(), broken: None };
        let mut conversation = Self { spec, family, tuple, client: end(client), server: end(server) };
        // Both ends send once, so that connection tracking has seen both directions.
        conversation.exchange_first()?;
        Ok(conversation)
    }

    fn exchange_first(&mut self) -> Result<(), Failed> {
        let name = self.to_string();
        let first = |sender: &mut End, receiver: &mut End| {
            sender.send();
            let received = until(TIMEOUT, || {
                receiver.receive();
                Ok((receiver.received.len() > 0).then_some(()))
            })?;
            received.ok_or_else(|| Failed::from(format!("{name}: the first number does not arrive")))
        };
        first(&mut self.client, &mut self.server)?;
        first(&mut self.server, &mut self.client)
    }

    fn tick(&mut self) {
        let senders = self.spec.senders;
        if matches!(senders, Senders::Client | Senders::Both) {
            self.client.send();
        }
        if matches!(senders, Senders::Server | Senders::Both) {
            self.server.send();
        }
        self.receive();
    }

    fn receive(&mut self) {
        self.client.receive();
        self.server.receive();
    }

    /// Returns how many numbers the server and the client have received.
    pub(crate) fn received(&self) -> (usize, usize) {
        (self.server.received.len(), self.client.received.len())
    }

    /// Describes the numbers that were sent and not received. Datagrams sent in the `excused` periods may be missing.
    fn lost(&self, excused: &[(Instant, Instant)]) -> Option<String> {
        let loss = |what: &str, sender: &End, receiver: &End| {
            if let Some(why) = sender.broken.as_ref().or(receiver.broken.as_ref()) {
                return Some(format!("{what}: {why}"));
            }
            let missing = sender.missing(receiver, excused);
            let all = sender.sent.len();
            (!missing.is_empty()).then(|| {
                let (first, number) = (missing[0], missing.len());
                format!("{what}: {number} of {all} not received, the first is number {first}")
            })
        };
        loss("client to server", &self.client, &self.server)
            .or_else(|| loss("server to client", &self.server, &self.client))
    }
}

impl End {
    fn send(&mut self) {
        let number = (self.sent.len() as u64).to_be_bytes();
        let sent = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(&number),
            Socket::Udp(socket) => socket.send(&number).map(drop),
        };
        match sent {
            Ok(()) => self.sent.push(Instant::now()),
            Err(e) => self.fail(&e),
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let got = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut buffer),
                Socket::Udp(socket) => socket.recv(&mut buffer),
            };
            match got {
                Ok(0) => return,
                Ok(length) => {
                    let stream = matches!(self.socket, Socket::Tcp(_));
                    if let Err(why) = self.received.take(&buffer[..length], stream) {
                        self.broken.get_or_insert(why);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.fail(&e),
            }
        }
    }

    /// Records the error of a stream. ICMP errors of datagrams are ignored: the lost number is noticed at the end.
    fn fail(&mut self, e: &io::Error) {
        if matches!(self.socket, Socket::Tcp(_)) {
            self.broken.get_or_insert(e.to_string());
        }
    }

    fn missing(&self, receiver: &Self, excused: &[(Instant, Instant)]) -> Vec<u64> {
        let stream = matches!(self.socket, Socket::Tcp(_));
        let arrived = |number: u64| {
            if stream {
                number < receiver.received.count
            } else {
                receiver.received.numbers.contains(&number)
            }
        };
        let is_excused =
            |at: Instant| !stream && excused.iter().any(|(from, to)| (*from..=*to).contains(&at));
        let sent = self.sent.iter().enumerate().map(|(number, at)| (number as u64, *at));
        sent.filter(|(number, at)| !arrived(*number) && !is_excused(*at)).map(|(number, _)| number).collect()
    }
}

impl Received {
    fn len(&self) -> usize {
        self.numbers.len() + usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    fn take(&mut self, bytes: &[u8], stream: bool) -> Result<(), String> {
        self.part.extend_from_slice(bytes);
        let whole = self.part.len() / 8 * 8;
        for number in self.part.drain(..whole).collect::<Vec<u8>>().chunks_exact(8) {
            let number = u64::from_be_bytes(number.try_into().map_err(|_| "no number")?);
            if !stream {
                self.numbers.insert(number);
            } else if number == self.count {
                self.count += 1;
            } else {
                return Err(format!("received number {number} instead of {}", self.count));
            }
        }
        Ok(())
    }
}

/// Conversations that continue on a background thread.
#[derive(Debug)]
pub(crate) struct Conversations {
    all: Arc<Mutex<Vec<Conversation>>>,
    /// Whether the ends only receive.
    paused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Conversations {
    /// Opens a conversation for each spec and family, and starts them.
    pub(crate) fn start(testbed: &Testbed, specs: &[ConversationSpec]) -> Result<Self, Failed> {
        Self::start_with(testbed, specs, PAUSE)
    }

    /// Does the same as [`Conversations::start`], with a number each `pause`.
    pub(crate) fn start_with(
        testbed: &Testbed,
        specs: &[ConversationSpec],
        pause: Duration,
    ) -> Result<Self, Failed> {
        let conversations =
            Self { all: Arc::default(), paused: Arc::default(), stop: Arc::default(), thread: None };
        conversations.add(testbed, specs)?;
        Ok(conversations.driven(pause))
    }

    fn driven(mut self, pause: Duration) -> Self {
        let (all, paused, stop) = (self.all.clone(), self.paused.clone(), self.stop.clone());
        self.thread = Some(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let receive_only = paused.load(Ordering::Relaxed);
                for conversation in all.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                    if receive_only { conversation.receive() } else { conversation.tick() }
                }
                thread::sleep(pause.saturating_sub(began.elapsed()).max(Duration::from_millis(1)));
            }
        }));
        self
    }

    /// Opens more conversations.
    pub(crate) fn add(&self, testbed: &Testbed, specs: &[ConversationSpec]) -> Result<(), Failed> {
        for spec in specs {
            for family in Family::BOTH {
                let conversation = Conversation::open(testbed, *spec, family)?;
                self.with(|all| all.push(conversation));
            }
        }
        Ok(())
    }

    /// Calls `f` with all conversations.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Vec<Conversation>) -> T) -> T {
        f(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops or continues sending.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Fails unless all numbers of allowed conversations have arrived, except datagrams sent in the `excused` periods. Waits for
    /// numbers that are still on their way.
    pub(crate) fn expect_no_loss(&self, excused: &[(Instant, Instant)]) -> Result<(), Failed> {
        self.pause(true);
        let lost = || {
            self.with(|all| {
                let allowed = all.iter().filter(|t| t.spec.allowed);
                allowed.filter_map(|t| t.lost(excused).map(|why| format!("{t}: {why}"))).collect::<Vec<_>>()
            })
        };
        let settled = until(TIMEOUT, || Ok(lost().is_empty().then_some(())))?;
        self.pause(false);
        let number = self.with(|all| all.iter().filter(|t| t.spec.allowed).count());
        ensure(settled.is_some(), || {
            let lost = lost();
            let shown = &lost[..lost.len().min(12)];
            format!(
                "{} of {number} allowed conversations lost numbers:\n  {}",
                lost.len(),
                shown.join("\n  ")
            )
        })
    }
}

impl Drop for Conversations {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

//! Conversations that stay open: numbered bytes over TCP, numbered datagrams over UDP, from either end, without pause.

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

use crate::{ensure, tap::Ends, until, world::World};

/// Each speaker says a number so often, unless it is said otherwise.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a first answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The protocol of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Udp,
}

/// Who says numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Who opened the conversation.
    Opener,
    /// Who was called.
    Called,
    Both,
    /// Nobody; both ends of a TCP connection send keepalives.
    Keepalive,
}

/// Whom a conversation joins, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) over: Over,
    pub(crate) speaks: Speaks,
    /// Whether the policies of the test allow it.
    pub(crate) allowed: bool,
}

/// A conversation under way.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) spec: Spec,
    pub(crate) family: Family,
    /// As its opener's packets have them.
    pub(crate) ends: Ends,
    opener: End,
    called: End,
}

#[derive(Debug)]
struct End {
    socket: Socket,
    sent: Vec<Instant>,
    heard: Heard,
    broken: Option<String>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Numbers that have arrived.
#[derive(Debug, Default)]
struct Heard {
    /// Of a stream: so many, each one the successor of the one before.
    count: u64,
    part: Vec<u8>,
    /// Of datagrams.
    numbers: BTreeSet<u64>,
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spec { from, to, over, speaks, .. } = self.spec;
        write!(f, "{from} to {to}, {over:?} over {:?}, speaks: {speaks:?}", self.family)
    }
}

/// Binds the called one to a port below the ephemeral ones, as services have: where both ports of a TCP connection are
/// ephemeral, nobody can tell who opened it once its entry is lost, and it fails closed. The lab's own servers have some.
fn serve<T>(bind: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
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

impl Talk {
    /// Opens a conversation, which begins with a word of its opener that the called one hears.
    pub(crate) fn open(world: &World, spec: Spec, family: Family) -> Result<Self, Failed> {
        let (from, to) = (world.address(spec.from, family)?, world.address(spec.to, family)?);
        let failed =
            |e: io::Error| format!("{} to {} over {:?}, {family:?}: {e}", spec.from, spec.to, spec.over);
        let (opener, called, ends) = match spec.over {
            Over::Tcp => {
                let listener =
                    world.within(spec.to, || serve(|port| TcpListener::bind((to, port))))?.map_err(failed)?;
                let target = listener.local_addr()?;
                let opener = world
                    .within(spec.from, || TcpStream::connect_timeout(&target, PATIENCE))?
                    .map_err(failed)?;
                let (called, _) = listener.accept()?;
                let source = opener.local_addr()?;
                for stream in [&opener, &called] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    if spec.speaks == Speaks::Keepalive {
                        let each = Duration::from_secs(1);
                        SockRef::from(stream)
                            .set_tcp_keepalive(&TcpKeepalive::new().with_time(each).with_interval(each))?;
                    }
                }
                (Socket::Tcp(opener), Socket::Tcp(called), (6, source, target))
            }
            Over::Udp => {
                let opener = world.within(spec.from, || UdpSocket::bind((from, 0)))?.map_err(failed)?;
                let called =
                    world.within(spec.to, || serve(|port| UdpSocket::bind((to, port))))?.map_err(failed)?;
                let (source, target) = (opener.local_addr()?, called.local_addr()?);
                opener.connect(target)?;
                called.connect(source)?;
                for socket in [&opener, &called] {
                    socket.set_nonblocking(true)?;
                }
                (Socket::Udp(opener), Socket::Udp(called), (17, source, target))
            }
        };
        let pair = |address: SocketAddr| (address.ip(), address.port());
        let (protocol, source, destination) = ends;
        let ends = Ends { protocol, source: pair(source), destination: pair(destination) };
        let end = |socket| End { socket, sent: Vec::new(), heard: Heard::default(), broken: None };
        let mut talk = Self { spec, family, ends, opener: end(opener), called: end(called) };
        // Each end is heard once, so that connection tracking has seen both directions.
        talk.first_words()?;
        Ok(talk)
    }

    fn first_words(&mut self) -> Result<(), Failed> {
        let name = self.to_string();
        let heard_first = |speaker: &mut End, listener: &mut End| {
            speaker.say();
            let heard = until(PATIENCE, || {
                listener.listen();
                Ok((listener.heard.how_many() > 0).then_some(()))
            })?;
            heard.ok_or_else(|| Failed::from(format!("{name}: the first word is not heard")))
        };
        heard_first(&mut self.opener, &mut self.called)?;
        heard_first(&mut self.called, &mut self.opener)
    }

    fn tick(&mut self) {
        let speaks = self.spec.speaks;
        if matches!(speaks, Speaks::Opener | Speaks::Both) {
            self.opener.say();
        }
        if matches!(speaks, Speaks::Called | Speaks::Both) {
            self.called.say();
        }
        self.listen();
    }

    fn listen(&mut self) {
        self.opener.listen();
        self.called.listen();
    }

    /// How many numbers have been heard, by the called one and by the opener.
    pub(crate) fn heard(&self) -> (usize, usize) {
        (self.called.heard.how_many(), self.opener.heard.how_many())
    }

    /// What was said and not heard, in words; datagrams of a time of `excused` may be missing.
    fn lost(&self, excused: &[(Instant, Instant)]) -> Option<String> {
        let way = |what: &str, speaker: &End, listener: &End| {
            if let Some(why) = speaker.broken.as_ref().or(listener.broken.as_ref()) {
                return Some(format!("{what}: {why}"));
            }
            let missing = speaker.missing(listener, excused);
            let all = speaker.sent.len();
            (!missing.is_empty()).then(|| {
                let (first, number) = (missing[0], missing.len());
                format!("{what}: {number} of {all} not heard, the first is number {first}")
            })
        };
        way("opener to called", &self.opener, &self.called)
            .or_else(|| way("called to opener", &self.called, &self.opener))
    }
}

impl End {
    fn say(&mut self) {
        let number = (self.sent.len() as u64).to_be_bytes();
        let said = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(&number),
            Socket::Udp(socket) => socket.send(&number).map(drop),
        };
        match said {
            Ok(()) => self.sent.push(Instant::now()),
            Err(e) => self.fail(&e),
        }
    }

    fn listen(&mut self) {
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
                    if let Err(why) = self.heard.take(&buffer[..length], stream) {
                        self.broken.get_or_insert(why);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.fail(&e),
            }
        }
    }

    /// A datagram's ICMP error breaks nothing: what it was about is missed at the end.
    fn fail(&mut self, e: &io::Error) {
        if matches!(self.socket, Socket::Tcp(_)) {
            self.broken.get_or_insert(e.to_string());
        }
    }

    fn missing(&self, listener: &Self, excused: &[(Instant, Instant)]) -> Vec<u64> {
        let stream = matches!(self.socket, Socket::Tcp(_));
        let heard = |number: u64| {
            if stream { number < listener.heard.count } else { listener.heard.numbers.contains(&number) }
        };
        let is_excused =
            |at: Instant| !stream && excused.iter().any(|(from, to)| (*from..=*to).contains(&at));
        let said = self.sent.iter().enumerate().map(|(number, at)| (number as u64, *at));
        said.filter(|(number, at)| !heard(*number) && !is_excused(*at)).map(|(number, _)| number).collect()
    }
}

impl Heard {
    fn how_many(&self) -> usize {
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
                return Err(format!("number {number} where {} was to come", self.count));
            }
        }
        Ok(())
    }
}

/// Conversations that go on in the background.
#[derive(Debug)]
pub(crate) struct Talks {
    all: Arc<Mutex<Vec<Talk>>>,
    /// Whether nobody speaks any more; all still listen.
    silent: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Talks {
    /// Opens conversations of each kind in both families, and lets them go on.
    pub(crate) fn begin(world: &World, specs: &[Spec]) -> Result<Self, Failed> {
        Self::begin_with(world, specs, PAUSE)
    }

    /// As [`Talks::begin`], with a number each `pause`.
    pub(crate) fn begin_with(world: &World, specs: &[Spec], pause: Duration) -> Result<Self, Failed> {
        let talks = Self { all: Arc::default(), silent: Arc::default(), over: Arc::default(), thread: None };
        talks.add(world, specs)?;
        Ok(talks.driven(pause))
    }

    fn driven(mut self, pause: Duration) -> Self {
        let (all, silent, over) = (self.all.clone(), self.silent.clone(), self.over.clone());
        self.thread = Some(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let quiet = silent.load(Ordering::Relaxed);
                for talk in all.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                    if quiet { talk.listen() } else { talk.tick() }
                }
                thread::sleep(pause.saturating_sub(began.elapsed()).max(Duration::from_millis(1)));
            }
        }));
        self
    }

    /// Opens more.
    pub(crate) fn add(&self, world: &World, specs: &[Spec]) -> Result<(), Failed> {
        for spec in specs {
            for family in Family::BOTH {
                let talk = Talk::open(world, *spec, family)?;
                self.with(|all| all.push(talk));
            }
        }
        Ok(())
    }

    /// Looks at them, or changes them.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Vec<Talk>) -> T) -> T {
        f(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets all speak or be silent.
    pub(crate) fn hush(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Fails unless everything that was said in allowed conversations has been heard; datagrams of the `excused` times
    /// excepted. What is under way has a while to arrive.
    pub(crate) fn allowed_lost_nothing(&self, excused: &[(Instant, Instant)]) -> Result<(), Failed> {
        self.hush(true);
        let lost = || {
            self.with(|all| {
                let allowed = all.iter().filter(|t| t.spec.allowed);
                allowed.filter_map(|t| t.lost(excused).map(|why| format!("{t}: {why}"))).collect::<Vec<_>>()
            })
        };
        let settled = until(PATIENCE, || Ok(lost().is_empty().then_some(())))?;
        self.hush(false);
        let number = self.with(|all| all.iter().filter(|t| t.spec.allowed).count());
        ensure(settled.is_some(), || {
            let lost = lost();
            let shown = &lost[..lost.len().min(12)];
            format!(
                "{} of {number} allowed conversations lost something:\n  {}",
                lost.len(),
                shown.join("\n  ")
            )
        })
    }
}

impl Drop for Talks {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

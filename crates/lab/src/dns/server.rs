//! A DNS server at one address of a place: two threads, for UDP and TCP, and one for each TCP connection.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    answers::reply,
    zones::{Forgery, Zones},
};
use crate::namespace::Namespace;

/// How often a thread looks whether it has to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// The most answers that wait for their time, and the most TCP connections at once.
const MAX_WAITING: usize = 4096;
const MAX_CONNECTIONS: usize = 256;
/// The most clients and names whose turns are counted.
const MAX_TURNS: usize = 65_536;

/// How many answers with addresses each client had, by the bytes of its question.
type Turns = Mutex<HashMap<(IpAddr, Vec<u8>), usize>>;

/// A running server. Dropping it closes its sockets.
#[derive(Debug)]
pub(crate) struct DnsServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zones: Arc<Zones>,
    turns: Turns,
    stop: Arc<AtomicBool>,
    connections: AtomicUsize,
}

impl DnsServer {
    /// Starts a server in a namespace.
    pub(crate) fn start(namespace: &Namespace, at: SocketAddr, zones: &Arc<Zones>) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            let udp = UdpSocket::bind(at)?;
            let other = UdpSocket::bind((at.ip(), 0))?;
            let tcp = TcpListener::bind(at)?;
            udp.set_read_timeout(Some(LOOK))?;
            tcp.set_nonblocking(true)?;
            Ok((udp, other, tcp))
        };
        let (udp, other, tcp) = namespace.run(open)??;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            zones: Arc::clone(zones),
            turns: Mutex::default(),
            stop: Arc::clone(&stop),
            connections: AtomicUsize::new(0),
        });
        let for_tcp = Arc::clone(&shared);
        let mut server = Self { stop, threads: Vec::new() };
        server.threads.push(
            thread::Builder::new()
                .name("lab-dns-udp".into())
                .spawn(move || shared.datagrams(&udp, &other))?,
        );
        server
            .threads
            .push(thread::Builder::new().name("lab-dns-tcp".into()).spawn(move || for_tcp.streams(&tcp))?);
        Ok(server)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An answer that waits for its time.
type Delayed = Reverse<(Instant, SocketAddr, Vec<u8>)>;

impl Shared {
    fn has_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns the reply to a query of a client, and counts its turn.
    fn reply(&self, client: IpAddr, query: &[u8], over_tcp: bool) -> Option<super::answers::Reply> {
        // Everything but the id: the flags, the question, and what follows.
        let key = (client, query.get(2..)?.to_vec());
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = reply(&self.zones, query, turns.get(&key).copied().unwrap_or(0), over_tcp)?;
        if reply.has_turn && (turns.len() < MAX_TURNS || turns.contains_key(&key)) {
            *turns.entry(key).or_insert(0) += 1;
        }
        Some(reply)
    }

    fn datagrams(&self, socket: &UdpSocket, other: &UdpSocket) {
        let mut buffer = [0; 4096];
        let mut delayed: BinaryHeap<Delayed> = BinaryHeap::new();
        while !self.has_to_stop() {
            let wait = delayed.peek().map_or(LOOK, |Reverse((due, ..))| {
                due.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), LOOK)
            });
            let _ = socket.set_read_timeout(Some(wait));
            // Errors are those of single clients: ICMP messages about earlier answers.
            if let Ok((length, client)) = socket.recv_from(&mut buffer)
                && let Some(reply) = self.reply(client.ip(), &buffer[..length], false)
            {
                for (forgery, message) in &reply.forged {
                    let from = if *forgery == Forgery::OtherSource { other } else { socket };
                    let _ = from.send_to(message, client);
                }
                if reply.delay.is_zero() {
                    let _ = socket.send_to(&reply.answer, client);
                } else if delayed.len() < MAX_WAITING {
                    delayed.push(Reverse((Instant::now() + reply.delay, client, reply.answer)));
                }
            }
            while delayed.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
                let Some(Reverse((_, client, answer))) = delayed.pop() else { break };
                let _ = socket.send_to(&answer, client);
            }
        }
    }

    fn streams(self: &Arc<Self>, listener: &TcpListener) {
        while !self.has_to_stop() {
            match listener.accept() {
                Ok((stream, client)) if self.connections.load(Ordering::Relaxed) < MAX_CONNECTIONS => {
                    let shared = Arc::clone(self);
                    self.connections.fetch_add(1, Ordering::Relaxed);
                    let serve = move || {
                        let _ = shared.stream(stream, client.ip());
                        shared.connections.fetch_sub(1, Ordering::Relaxed);
                    };
                    if thread::Builder::new().name("lab-dns-connection".into()).spawn(serve).is_err() {
                        self.connections.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn stream(&self, mut stream: TcpStream, client: IpAddr) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_nodelay(true)?;
        loop {
            let mut length = [0; 2];
            self.read(&mut stream, &mut length)?;
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            self.read(&mut stream, &mut query)?;
            let Some(reply) = self.reply(client, &query, true) else { continue };
            thread::sleep(reply.delay);
            let length = u16::try_from(reply.answer.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &reply.answer].concat())?;
        }
    }

    /// Fills `buffer`, unless the connection is idle for too long or the server ends.
    fn read(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        let (mut filled, begin) = (0, Instant::now());
        while filled < buffer.len() {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => filled += length,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.has_to_stop() || begin.elapsed() > IDLE {
                        return Err(e);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

//! The listening sockets of a lab, served by one thread. A server replies with its place and the address of the client.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, mpsc},
    thread,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use nix::errno::Errno;
use palisade_policy::Protocol;
use socket2::{Domain, Socket, Type};

use crate::{
    layout::Place,
    namespace::Namespace,
    options::OpenPort,
    wire::{Answer, ipv4_payload, parse_sctp_init, sctp_init_ack},
};

/// A listening socket: an address of a place, a protocol and a port.
pub(crate) type Listen = (IpAddr, OpenPort);

/// Why listening sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A socket could not be opened.
    #[error("cannot listen on {protocol} {address} port {port} of {place}{}", more_files(source))]
    Listen {
        /// The pod, the node or the outside.
        place: Place,
        /// The protocol.
        protocol: Protocol,
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The server thread failed.
    #[error("the thread that serves all listening sockets failed")]
    Loop(#[source] io::Error),
}

fn more_files(e: &io::Error) -> &'static str {
    if e.raw_os_error().map(Errno::from_raw) == Some(Errno::EMFILE) {
        ": too many open files, raise the limit with `ulimit -n`"
    } else {
        ""
    }
}

enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// A raw socket, bound to one address. It serves all SCTP ports of the address.
    Sctp(UdpSocket, IpAddr),
}

impl Server {
    fn fd(&self) -> i32 {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Udp(s) => s.as_raw_fd(),
            Self::Sctp(s, _) => s.as_raw_fd(),
        }
    }
}

enum Command {
    Open(Place, Vec<(Listen, Server)>, Vec<Listen>),
    Close(Place, BTreeSet<Listen>),
    Stop,
}

/// The servers of a lab. Dropping it closes all sockets.
#[derive(Debug)]
pub(crate) struct Servers {
    commands: mpsc::Sender<(Command, mpsc::Sender<io::Result<()>>)>,
    waker: Arc<Waker>,
    thread: Option<thread::JoinHandle<()>>,
    open: BTreeMap<Place, BTreeSet<Listen>>,
}

const WAKE: Token = Token(usize::MAX);

impl Servers {
    pub(crate) fn start() -> Result<Self, ServerError> {
        let start = || {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
            let (commands, received) = mpsc::channel();
            let thread = thread::Builder::new().name("lab-servers".into()).spawn(move || {
                Loop { poll, received, servers: HashMap::new(), sctp: BTreeSet::new(), next: 0 }.run();
            })?;
            Ok(Self { commands, waker, thread: Some(thread), open: BTreeMap::new() })
        };
        start().map_err(ServerError::Loop)
    }

    /// Opens and closes sockets of a place until exactly `wanted` are open.
    pub(crate) fn set(
        &mut self,
        place: &Place,
        namespace: &Namespace,
        wanted: &BTreeSet<Listen>,
    ) -> Result<(), ServerError> {
        let open = self.open.get(place).cloned().unwrap_or_default();
        let closed: BTreeSet<Listen> = open.difference(wanted).copied().collect();
        if !closed.is_empty() {
            self.command(Command::Close(place.clone(), closed))?;
        }
        let new: Vec<Listen> = wanted.difference(&open).copied().collect();
        if !new.is_empty() {
            let sctp_open =
                open.intersection(wanted).filter(|l| l.1.0 == Protocol::Sctp).map(|l| l.0).collect();
            let servers = namespace.run(|| listen(place, &new, sctp_open)).map_err(ServerError::Loop)??;
            self.command(Command::Open(place.clone(), servers, new))?;
        }
        self.open.insert(place.clone(), wanted.clone());
        Ok(())
    }

    /// Closes all sockets of a place.
    pub(crate) fn close(&mut self, place: &Place) -> Result<(), ServerError> {
        self.open.remove(place).map_or(Ok(()), |open| self.command(Command::Close(place.clone(), open)))
    }

    fn command(&self, command: Command) -> Result<(), ServerError> {
        let ended = || ServerError::Loop(io::Error::other("the thread has ended"));
        let (done, answer) = mpsc::channel();
        self.commands.send((command, done)).map_err(|_| ended())?;
        self.waker.wake().map_err(ServerError::Loop)?;
        answer.recv().map_err(|_| ended())?.map_err(ServerError::Loop)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // An error means that the loop has ended already.
        let _ = self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(
    place: &Place,
    new: &[Listen],
    mut sctp_open: BTreeSet<IpAddr>,
) -> Result<Vec<(Listen, Server)>, ServerError> {
    let mut out = Vec::with_capacity(new.len());
    for &(address, (protocol, port)) in new {
        let server = match protocol {
            // The address has a raw socket already, or gets one with the first port.
            Protocol::Sctp if !sctp_open.insert(address) => continue,
            _ => open(address, protocol, port).map_err(|source| ServerError::Listen {
                place: place.clone(),
                protocol,
                address,
                port,
                source,
            })?,
        };
        out.push(((address, (protocol, port)), server));
    }
    Ok(out)
}

fn open(address: IpAddr, protocol: Protocol, port: u16) -> io::Result<Server> {
    let to = SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(to)?;
            listener.set_nonblocking(true)?;
            Ok(Server::Tcp(listener))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(to)?;
            socket.set_nonblocking(true)?;
            Ok(Server::Udp(socket))
        }
        Protocol::Sctp => {
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(socket2::Protocol::SCTP))?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(address, 0).into())?;
            // `UdpSocket` sends and receives datagrams of any protocol.
            Ok(Server::Sctp(socket.into(), address))
        }
        Protocol::Other(n) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("IP protocol {n} has no ports")))
        }
    }
}

struct Loop {
    poll: Poll,
    received: mpsc::Receiver<(Command, mpsc::Sender<io::Result<()>>)>,
    servers: HashMap<usize, (Place, Listen, Server)>,
    /// The open SCTP ports: a raw socket receives the packets of all ports.
    sctp: BTreeSet<(Place, IpAddr, u16)>,
    next: usize,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(e) = self.poll.poll(&mut events, None) {
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return;
            }
            for event in &events {
                if event.token() == WAKE {
                    continue;
                }
                if let Some((place, _, server)) = self.servers.get(&event.token().0) {
                    serve(place, server, &self.sctp);
                }
            }
            while let Ok((command, done)) = self.received.try_recv() {
                let stop = matches!(command, Command::Stop);
                // The caller may have gone, and then the result is not needed.
                let _ = done.send(self.perform(command));
                if stop {
                    return;
                }
            }
        }
    }

    fn perform(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Open(place, servers, listens) => {
                let sctp = listens.iter().filter(|(_, (protocol, _))| *protocol == Protocol::Sctp);
                self.sctp.extend(sctp.map(|(address, (_, port))| (place.clone(), *address, *port)));
                for (listen, server) in servers {
                    let token = self.next;
                    self.next += 1;
                    self.poll.registry().register(
                        &mut SourceFd(&server.fd()),
                        Token(token),
                        Interest::READABLE,
                    )?;
                    self.servers.insert(token, (place.clone(), listen, server));
                }
            }
            Command::Close(place, gone) => {
                for (address, (protocol, port)) in &gone {
                    if *protocol == Protocol::Sctp {
                        self.sctp.remove(&(place.clone(), *address, *port));
                    }
                }
                let sctp = &self.sctp;
                self.servers.retain(|_, (at, listen, server)| match server {
                    _ if *at != place => true,
                    Server::Sctp(_, address) => sctp.iter().any(|(p, a, _)| *p == place && a == address),
                    _ => !gone.contains(listen),
                });
            }
            Command::Stop => self.servers.clear(),
        }
        Ok(())
    }
}

/// Whether `accept` failed because of the connection that it would have returned: it was closed, or the network reported an error for
/// it. accept(2) says to try again after these.
fn is_of_one_client(e: &io::Error) -> bool {
    const OF_ONE: [Errno; 13] = [
        Errno::ECONNABORTED,
        Errno::ECONNRESET,
        Errno::EHOSTDOWN,
        Errno::EHOSTUNREACH,
        Errno::EINTR,
        Errno::ENETDOWN,
        Errno::ENETUNREACH,
        Errno::ENONET,
        Errno::ENOPROTOOPT,
        Errno::EOPNOTSUPP,
        Errno::EPERM,
        Errno::EPROTO,
        Errno::ETIMEDOUT,
    ];
    e.raw_os_error().is_some_and(|errno| OF_ONE.contains(&Errno::from_raw(errno)))
}

/// Serves until the socket would block. Errors of single clients are ignored: the client notices them.
fn serve(place: &Place, server: &Server, sctp: &BTreeSet<(Place, IpAddr, u16)>) {
    let line = |client: IpAddr| Answer { by: place.clone(), client: client.to_canonical() }.to_line();
    match server {
        Server::Tcp(listener) => loop {
            match listener.accept() {
                // The send buffer of a new socket always has room for one line.
                Ok((mut stream, peer)) => drop(stream.write_all(line(peer.ip()).as_bytes())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Other clients may wait behind this one, and there is no second event for them.
                Err(e) if is_of_one_client(&e) => {}
                Err(_) => return,
            }
        },
        Server::Udp(socket) => {
            let mut buffer = [0; 64];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((_, peer)) => drop(socket.send_to(line(peer.ip()).as_bytes(), peer)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                    // An ICMP error for an earlier reply. Reading it clears it.
                    Err(_) => {}
                }
            }
        }
        Server::Sctp(socket, address) => serve_sctp(place, socket, *address, sctp, &line),
    }
}

fn serve_sctp(
    place: &Place,
    socket: &UdpSocket,
    address: IpAddr,
    open: &BTreeSet<(Place, IpAddr, u16)>,
    line: &dyn Fn(IpAddr) -> String,
) {
    let mut buffer = [0u8; 2048];
    loop {
        let (packet, peer) = match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => (&buffer[..length], peer.ip()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => continue,
        };
        let payload = if address.is_ipv4() { ipv4_payload(packet) } else { Some(packet) };
        let Some((from, to, tag)) = payload.and_then(parse_sctp_init) else { continue };
        if open.contains(&(place.clone(), address, to)) {
            let answer = sctp_init_ack(to, from, tag, line(peer).as_bytes());
            drop(socket.send_to(&answer, SocketAddr::new(peer, 0)));
        }
    }
}

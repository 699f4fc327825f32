//! A pod that asks.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use palisade_netns::Namespace;

use crate::{PATIENCE, messages, topology::Nodes};

/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many queries a client sends on a connection.
const QUERIES_OF_CONNECTION: usize = 10;

/// How a pod asks.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Whether the pod is a port of a bridge; else it is routed.
    bridged: bool,
    /// As the pod has it.
    server: &'static str,
    tcp: bool,
}

const fn way(name: &'static str, bridged: bool, server: &'static str, tcp: bool) -> Way {
    Way { name, bridged, server, tcp }
}

/// A server outside, of both families, a Service, and a server on the node with two ports.
pub(crate) const WAYS: [Way; 14] = [
    way("u4", false, "203.0.113.2:53", false),
    way("t4", false, "203.0.113.2:53", true),
    way("u6", false, "[2001:db8::2]:53", false),
    way("t6", false, "[2001:db8::2]:53", true),
    way("us", false, "10.96.0.10:53", false),
    way("ts", false, "10.96.0.10:53", true),
    way("un", false, "169.254.20.10:53", false),
    way("tn", false, "169.254.20.10:53", true),
    way("up", false, "169.254.20.10:5353", false),
    way("tp", false, "169.254.20.10:5353", true),
    way("bu4", true, "203.0.113.2:53", false),
    way("bt6", true, "[2001:db8::2]:53", true),
    way("bts", true, "10.96.0.10:53", true),
    way("btn", true, "169.254.20.10:53", true),
];

pub(crate) struct Client<'a> {
    pub(crate) way: &'a Way,
    pod: &'a Namespace,
    udp: UdpSocket,
    tcp: Option<(TcpStream, usize)>,
    pub(crate) asked: usize,
    /// How often there was no answer.
    pub(crate) asked_again: usize,
}

impl<'a> Client<'a> {
    pub(crate) fn new(nodes: &'a Nodes, way: &'a Way) -> Self {
        let pod = if way.bridged { &nodes.bridged } else { &nodes.pod };
        let server: SocketAddr = way.server.parse().unwrap();
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let udp = pod.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        udp.connect(server).unwrap();
        udp.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { way, pod, udp, tcp: None, asked: 0, asked_again: 0 }
    }

    /// Moves the thread into the pod.
    pub(crate) fn enter(&self) {
        self.pod.enter().unwrap();
    }

    /// Asks until there is an answer.
    pub(crate) fn ask_patiently(&mut self, name: &str) -> IpAddr {
        let begin = Instant::now();
        loop {
            if let Some(address) = self.ask(name, 0) {
                return address;
            }
            assert!(begin.elapsed() < PATIENCE, "no answer");
        }
    }

    /// Asks as resolvers do: over TCP after a truncated answer, and a second time if there is none.
    pub(crate) fn resolve(&mut self, name: &str, family: usize) -> IpAddr {
        self.asked += 1;
        if let Some(address) = self.ask(name, family).or_else(|| self.ask_tcp(name, family).ok()) {
            return address;
        }
        self.asked_again += 1;
        self.ask_tcp(name, family).unwrap_or_else(|e| panic!("no answer for {name} by {:?}: {e}", self.way))
    }

    /// Asks once. `None` if there is no answer, or a truncated one.
    pub(crate) fn ask(&mut self, name: &str, family: usize) -> Option<IpAddr> {
        if self.way.tcp {
            return self.ask_tcp(name, family).ok();
        }
        let id = next_id();
        self.udp.send(&messages::query(id, name, family)).unwrap();
        let mut buffer = [0; 1500];
        loop {
            let length = self.udp.recv(&mut buffer).ok()?;
            if buffer[..2] == id {
                return messages::address(&buffer[..length], family);
            }
        }
    }

    /// Opens a connection to the server, and asks on it.
    pub(crate) fn connect(&mut self, name: &str) {
        self.tcp = None;
        self.ask_tcp(name, 0).unwrap();
    }

    /// Asks on the connection that is open. Returns why there is no answer.
    pub(crate) fn fail_on_connection(&mut self, name: &str) -> io::ErrorKind {
        assert!(self.tcp.is_some());
        self.ask_tcp(name, 0).unwrap_err().kind()
    }

    fn ask_tcp(&mut self, name: &str, family: usize) -> io::Result<IpAddr> {
        let (mut stream, queries) = match self.tcp.take() {
            Some(used) => used,
            None => (TcpStream::connect_timeout(&self.udp.peer_addr()?, TIMEOUT)?, 0),
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        let query = messages::query(next_id(), name, family);
        stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer[..2], query[..2]);
        self.tcp = Some((stream, queries + 1)).filter(|(_, queries)| *queries < QUERIES_OF_CONNECTION);
        messages::address(&answer, family).ok_or_else(|| io::Error::other("truncated"))
    }
}

fn next_id() -> [u8; 2] {
    static ID: AtomicU16 = AtomicU16::new(0);
    ID.fetch_add(1, Ordering::SeqCst).to_be_bytes()
}

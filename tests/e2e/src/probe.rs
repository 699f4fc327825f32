//! Connections into the cluster, compared with what the engine decides.
//!
//! A probe is sent from the network namespace of its client: a pod's, a node's, or the one outside. The server answers with its
//! name, so that the answer says which pod behind a Service it was.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use palisade_netns::namespace::Namespace;
use palisade_policy::{Cluster as Objects, Flow, Protocol, reference::decide};

use crate::{Cluster, progress::say};

/// How long one attempt may take: longer than the first retransmission of TCP.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How many connections show that a denied one stays denied.
const DENIED_ATTEMPTS: usize = 2;
/// How many connections reach every pod behind a Service, but for one case in a million, if there are two of them.
const SPREAD_ATTEMPTS: usize = 20;
/// How long kube-proxy and the agents may take for a change on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// A pod that may answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The name with which it answers.
    pub name: String,
    /// Its address, after translation.
    pub address: IpAddr,
    /// Its port, after translation.
    pub port: u16,
    /// The client's address as the policies of this pod see it.
    pub client: IpAddr,
}

/// One way into the cluster.
#[derive(Debug)]
pub struct Probe {
    /// What it is, for messages.
    pub what: String,
    /// Where it is sent from.
    pub from: Namespace,
    /// The client's address that the server must be reached from, if the client has several.
    pub source: Option<IpAddr>,
    /// Where it is sent.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who may answer, if policies allow it.
    pub backends: Vec<Backend>,
}

/// How a probe differs from what the engine decides.
#[derive(Debug)]
struct Difference(String);

impl Probe {
    /// The names of the servers that must answer, by the engine's decision.
    fn expected(&self, objects: &Objects) -> BTreeSet<String> {
        let allowed = |backend: &&Backend| {
            let flow = Flow {
                source: objects.endpoint(backend.client),
                destination: objects.endpoint(backend.address),
                protocol: self.protocol,
                port: backend.port,
                through_service: backend.address != self.to.ip(),
            };
            decide(objects, &flow).verdict().is_allow()
        };
        self.backends.iter().filter(allowed).map(|b| b.name.clone()).collect()
    }

    /// Sends packets until they show what the engine expects, or something else.
    fn compare(&self, expected: &BTreeSet<String>) -> Result<(), Difference> {
        let mut answered = BTreeSet::new();
        let mut last_error = String::new();
        let attempts = if expected.is_empty() { DENIED_ATTEMPTS } else { SPREAD_ATTEMPTS };
        for _ in 0..attempts {
            match self.ask() {
                Ok(name) if !expected.contains(&name) => {
                    return Err(Difference(format!("{}: {name} answers, but it is denied", self.what)));
                }
                Ok(name) => {
                    answered.insert(name);
                }
                Err(e) => last_error = format!("{e:#}"),
            }
            if !expected.is_empty() && answered == *expected {
                return Ok(());
            }
        }
        if expected.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = expected.difference(&answered).cloned().collect();
        Err(Difference(format!(
            "{}: {} allowed, but there is no answer: {last_error}",
            self.what,
            missing.join(", ")
        )))
    }

    /// Opens one connection, and returns the name of the server.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn ask(&self) -> Result<String> {
        self.from.run(|| match self.protocol {
            Protocol::Udp => ask_udp(self.to, self.source),
            _ => ask_tcp(self.to, self.source),
        })?
    }
}

fn ask_tcp(to: SocketAddr, source: Option<IpAddr>) -> Result<String> {
    let mut stream = connect(to, source, ATTEMPT)?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
    Ok(body.trim().to_owned())
}

/// Opens a TCP connection, from this address if one is given.
///
/// # Errors
/// If it is not established in time.
pub fn connect(to: SocketAddr, source: Option<IpAddr>, within: Duration) -> Result<TcpStream> {
    let domain = if to.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), within)?;
    Ok(socket.into())
}

fn ask_udp(to: SocketAddr, source: Option<IpAddr>) -> Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ATTEMPT))?;
    socket.send(b"hostname")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

/// How many connections were compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Ways into the cluster.
    pub probes: usize,
    /// Those on which at least one server must answer.
    pub open: usize,
}

/// Sends all probes until packets and engine agree.
///
/// # Errors
/// If they still disagree after the time that a change may take.
pub fn agree(cluster: &Cluster, what: &str, probes: &[Probe]) -> Result<Counts> {
    agree_with(&cluster.objects()?, what, probes)
}

/// Like [`agree`], with what the engine decides for these objects.
///
/// # Errors
/// If they still disagree after the time that a change may take.
pub fn agree_with(objects: &Objects, what: &str, probes: &[Probe]) -> Result<Counts> {
    let expected: Vec<_> = probes.iter().map(|p| p.expected(objects)).collect();
    let start = Instant::now();
    let mut open: Vec<usize> = (0..probes.len()).collect();
    loop {
        let differences = compare(probes, &expected, &open);
        if differences.is_empty() {
            // All of them once more if it took several rounds: what agreed at first must still do so.
            if open.len() == probes.len() {
                break;
            }
            open = (0..probes.len()).collect();
            continue;
        }
        if start.elapsed() > SETTLED_WITHIN {
            let lines: Vec<_> = differences.iter().map(|(_, d)| format!("  {}", d.0)).take(20).collect();
            bail!(
                "{what}: {} of {} differ from the engine's decision:\n{}",
                differences.len(),
                probes.len(),
                lines.join("\n")
            );
        }
        open = differences.into_iter().map(|(index, _)| index).collect();
    }
    let counts = Counts { probes: probes.len(), open: expected.iter().filter(|e| !e.is_empty()).count() };
    say(&format!(
        "{what}: {} ways agree with the engine, {} open and {} closed",
        counts.probes,
        counts.open,
        counts.probes - counts.open
    ));
    Ok(counts)
}

/// Sends these probes side by side.
fn compare(probes: &[Probe], expected: &[BTreeSet<String>], open: &[usize]) -> Vec<(usize, Difference)> {
    // Waiting for answers takes time and no processor, but not more sockets than a busy machine can serve.
    open.chunks(32)
        .flat_map(|chunk| {
            thread::scope(|scope| {
                let threads: Vec<_> = chunk
                    .iter()
                    .map(|&index| (index, scope.spawn(move || probes[index].compare(&expected[index]))))
                    .collect();
                let join =
                    |(index, thread): (usize, thread::ScopedJoinHandle<'_, Result<(), Difference>>)| {
                        let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                        result.err().map(|difference| (index, difference))
                    };
                threads.into_iter().filter_map(join).collect::<Vec<_>>()
            })
        })
        .collect()
}

//! Traffic that goes on while something else happens: every packet that should not pass, and every connection that should.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use palisade_netns::namespace::Namespace;

use crate::{probe::connect, progress::say};

/// How long an answer on an open connection may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One kind of traffic from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One TCP connection that stays open, with requests on it.
    Kept,
    /// New TCP connections, which are allowed.
    Opened,
    /// New TCP connections, which are denied.
    RefusedTcp,
    /// Datagrams, which are denied: a few hundred a second.
    RefusedUdp,
}

/// Traffic that is under way. Dropping it without [`Traffic::stop`] lets it end by itself.
#[derive(Debug, Default)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<(String, Arc<AtomicUsize>, JoinHandle<Result<()>>)>,
}

impl Traffic {
    /// Begins traffic of one kind from a namespace, and waits for its first result.
    ///
    /// # Errors
    /// If it can't begin, or is wrong at once.
    pub fn begin(&mut self, what: &str, kind: Kind, from: &Namespace, to: SocketAddr) -> Result<()> {
        let from = from.try_clone()?;
        let (stop, count) = (self.stop.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let thread = thread::spawn(move || {
            from.enter()?;
            let stopped = || stop.load(Ordering::Relaxed);
            let count = || {
                counted.fetch_add(1, Ordering::Relaxed);
            };
            match kind {
                Kind::Kept => kept(to, stopped, count),
                Kind::Opened => opened(to, stopped, count),
                Kind::RefusedTcp => refused_tcp(to, stopped, count),
                Kind::RefusedUdp => refused_udp(to, stopped, count),
            }
        });
        self.threads.push((format!("{what} ({kind:?}, {to})"), count.clone(), thread));
        let start = Instant::now();
        while count.load(Ordering::Relaxed) == 0 && start.elapsed() < PATIENCE {
            if self.threads.iter().any(|(_, _, t)| t.is_finished()) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// If something passed that should not, or didn't that should, at any moment.
    pub fn stop(self, what: &str) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        let mut counts = Vec::new();
        for (name, count, thread) in self.threads {
            let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let count = count.load(Ordering::Relaxed);
            match result {
                Err(e) => wrong.push(format!("  {name}: after {count}: {e:#}")),
                Ok(()) if count == 0 => wrong.push(format!("  {name}: nothing was sent")),
                Ok(()) => counts.push(count.to_string()),
            }
        }
        ensure!(wrong.is_empty(), "traffic during {what}:\n{}", wrong.join("\n"));
        say(&format!("{what}: traffic as expected at every moment ({} exchanges)", counts.join(" + ")));
        Ok(())
    }
}

/// Sends requests on one connection. Each must be answered.
fn kept(to: SocketAddr, stopped: impl Fn() -> bool, count: impl Fn()) -> Result<()> {
    let stream = connect(to, None, PATIENCE).context("cannot open the connection")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut number = 0_u64;
    while !stopped() {
        number += 1;
        exchange(&mut reader, number)
            .with_context(|| format!("request {number} of an established connection"))?;
        count();
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends one request over HTTP/1.1, and reads its answer.
fn exchange(stream: &mut BufReader<TcpStream>, number: u64) -> Result<()> {
    write!(stream.get_mut(), "GET /echo?msg={number} HTTP/1.1\r\nHost: kept\r\n\r\n")?;
    let mut length = None;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the connection was closed");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = Some(value.trim().parse::<usize>()?);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length.context("an answer without its length")?];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    ensure!(body.trim() == number.to_string(), "the answer is {body:?}");
    Ok(())
}

/// Opens one connection after the other.
fn opened(to: SocketAddr, stopped: impl Fn() -> bool, count: impl Fn()) -> Result<()> {
    while !stopped() {
        connect(to, None, PATIENCE).context("a new connection that is allowed")?;
        count();
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Tries one connection after the other. Nothing may answer, not even with a reset.
fn refused_tcp(to: SocketAddr, stopped: impl Fn() -> bool, count: impl Fn()) -> Result<()> {
    while !stopped() {
        match connect(to, None, Duration::from_millis(100)) {
            Ok(_) => bail!("a connection was established that is denied"),
            Err(e) if is_timeout(&e) => count(),
            Err(e) => return Err(e.context("a connection that is denied")),
        }
    }
    Ok(())
}

fn is_timeout(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::TimedOut)
}

/// Sends one datagram after the other. Each is judged by itself, since one that is dropped leaves no entry in connection tracking.
fn refused_udp(to: SocketAddr, stopped: impl Fn() -> bool, count: impl Fn()) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(3)))?;
    let mut buffer = [0; 512];
    while !stopped() {
        socket.send(b"hostname")?;
        if let Ok(length) = socket.recv(&mut buffer) {
            bail!("{} answers, but it is denied", String::from_utf8_lossy(&buffer[..length]).trim());
        }
        count();
    }
    Ok(())
}

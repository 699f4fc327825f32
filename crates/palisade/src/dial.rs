//! Opens connections and says how each ended: what `palisade test --probe` runs in ephemeral containers.
//!
//! ```text
//!   palisade __dial 1 tcp:10.0.0.7:8080 udp:[fd00::7]:53 …  ─►  palisade-dial/1 ct
//! ```
//!
//! The result is one letter for each connection, so that two hundred fit into a container's termination message. It is also
//! printed. Nothing is sent over a TCP connection, and one empty datagram over UDP.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{exit::Outcome, output};

/// The first word of the command line.
pub(crate) const WORD: &str = "__dial";
/// The version of arguments and result, which may be of different versions of the program.
pub(crate) const VERSION: &str = "1";
/// The beginning of the result.
pub(crate) const HEADING: &str = "palisade-dial/1 ";
/// The most connections of one call.
pub(crate) const MOST: usize = 200;

/// How long an answer may take: long enough for the first two repetitions of a lost packet, after one and three seconds.
const TIMEOUT: Duration = Duration::from_millis(3500);
/// When no further connection is begun, so that a call ends whatever happens to who started it.
const DEADLINE: Duration = Duration::from_secs(40);
const AT_ONCE: usize = 20;
/// Where the kubelet reads a container's message.
const MESSAGE: &str = "/dev/termination-log";

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialed {
    /// The other end accepted it, or sent a datagram.
    Answered,
    /// The other end's kernel has no program at this port. So the packet was received.
    Refused,
    /// Nothing came back.
    Silence,
    /// No packet was sent, or a router answered.
    Unreachable,
    /// It was not begun.
    NotTried,
}

impl Dialed {
    const ALL: [(Self, char); 5] = [
        (Self::Answered, 'a'),
        (Self::Refused, 'r'),
        (Self::Silence, 's'),
        (Self::Unreachable, 'u'),
        (Self::NotTried, 'n'),
    ];

    fn letter(self) -> char {
        Self::ALL.into_iter().find(|(dialed, _)| *dialed == self).map_or('n', |(_, letter)| letter)
    }
}

/// A connection to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Dial {
    pub(crate) udp: bool,
    pub(crate) to: SocketAddr,
}

impl Dial {
    /// Returns it as an argument.
    #[cfg(feature = "live")]
    pub(crate) fn word(&self) -> String {
        format!("{}:{}", if self.udp { "udp" } else { "tcp" }, self.to)
    }

    fn parse(word: &str) -> Result<Self> {
        let (protocol, to) = word.split_once(':').context("no protocol")?;
        ensure!(matches!(protocol, "tcp" | "udp"), "unknown protocol `{protocol}`");
        Ok(Self { udp: protocol == "udp", to: to.parse().with_context(|| format!("no address: {to}"))? })
    }

    fn run(&self) -> Dialed {
        let ended = if self.udp { self.datagram() } else { self.connect() };
        match ended {
            Ok(()) => Dialed::Answered,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Dialed::Refused,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Dialed::Silence,
                _ => Dialed::Unreachable,
            },
        }
    }

    fn connect(&self) -> io::Result<()> {
        TcpStream::connect_timeout(&self.to, TIMEOUT).map(drop)
    }

    fn datagram(&self) -> io::Result<()> {
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(self.to)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send(&[])?;
        socket.recv(&mut [0; 1]).map(drop)
    }
}

/// Opens the connections of a command line, and leaves the result.
///
/// # Errors
/// If a word is no connection, or the result can't be written.
pub(crate) fn run(words: &[String]) -> Result<Outcome> {
    let Some((version, words)) = words.split_first() else { bail!("{WORD}: no version") };
    ensure!(version == VERSION, "this program is of another version: it has no {WORD} {version}");
    ensure!(words.len() <= MOST, "more than {MOST} connections");
    let dials: Vec<Dial> =
        words.iter().map(|word| Dial::parse(word).with_context(|| word.clone())).collect::<Result<_>>()?;
    let result = text(&all(&dials, DEADLINE));
    // Outside a container there is no such file, and none is made.
    if fs::metadata(MESSAGE).is_ok_and(|file| file.is_file()) {
        fs::write(MESSAGE, &result).with_context(|| format!("can't write {MESSAGE}"))?;
    }
    output::print(&format!("{result}\n")).context("can't write the result")?;
    Ok(Outcome::Yes)
}

/// Opens connections, some at once. Those that are not begun by the deadline are not tried.
fn all(dials: &[Dial], deadline: Duration) -> Vec<Dialed> {
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    let mut out = vec![Dialed::NotTried; dials.len()];
    let work = || {
        let mut done = Vec::new();
        while start.elapsed() < deadline {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(dial) = dials.get(at) else { break };
            done.push((at, dial.run()));
        }
        done
    };
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        // As many threads as the container may have. A connection without one is not tried.
        let threads: Vec<_> = (0..AT_ONCE.min(dials.len())).filter_map(spawn).collect();
        for (at, dialed) in threads.into_iter().filter_map(|thread| thread.join().ok()).flatten() {
            out[at] = dialed;
        }
    });
    out
}

fn text(dialed: &[Dialed]) -> String {
    let letters: String = dialed.iter().map(|one| one.letter()).collect();
    format!("{HEADING}{letters}")
}

/// Reads the result of so many connections.
///
/// # Errors
/// If it is none.
#[cfg(feature = "live")]
pub(crate) fn parse(message: &str, count: usize) -> Result<Vec<Dialed>> {
    let letters = message.trim_end().strip_prefix(HEADING).context("the container left another message")?;
    let of = |letter| Dialed::ALL.into_iter().find(|(_, of)| *of == letter).map(|(dialed, _)| dialed);
    let all: Vec<Dialed> = letters.chars().map(of).collect::<Option<_>>().context("it is no result")?;
    ensure!(all.len() == count, "it has {} results for {count} connections", all.len());
    Ok(all)
}

#[cfg(all(test, feature = "live"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_told_from_a_closed_port_and_from_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (open, silent) = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let answering = UdpSocket::bind("[::1]:0").unwrap();
        let answer = answering.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (_, from) = answering.recv_from(&mut [0; 8]).unwrap();
            answering.send_to(b"x", from).unwrap();
        });
        let tcp = |to| Dial { udp: false, to };
        let udp = |to| Dial { udp: true, to };
        let dials = [tcp(open), tcp(closed), udp(answer), udp(closed), udp(silent)];
        for dial in dials {
            assert_eq!(Dial::parse(&dial.word()).unwrap(), dial);
        }
        let result = text(&all(&dials, DEADLINE));
        assert_eq!(result, "palisade-dial/1 arars");
        let read = parse(&result, 5).unwrap();
        assert_eq!(read[4], Dialed::Silence);
        assert!(parse(&result, 4).is_err() && parse("panic", 5).is_err());
        server.join().unwrap();
        assert_eq!(all(&dials, Duration::ZERO), [Dialed::NotTried; 5]);
    }
}

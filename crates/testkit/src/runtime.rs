//! A container runtime for tests, as a plugin of NRI sees it: it offers a socket, accepts one plugin, and announces pods to it.
//!
//! It writes the protocol's bytes itself, so that what the plugin's crate encodes is not read by the same code.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Connection numbers of the services.
const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;
/// Message types of ttrpc.
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// The longest frame that runtimes read.
const LONGEST_FRAME: usize = 4096;
/// What it says of how long it waits for an answer, in milliseconds.
const REQUEST_TIMEOUT: u16 = 2000;

/// A field of Protocol Buffers with bytes.
#[must_use]
pub fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

/// A number that fits two bytes.
fn number(field: u8, value: u16) -> Vec<u8> {
    vec![field << 3, value as u8 & 0x7f | 0x80, (value >> 7) as u8 & 0x7f]
}

/// Returns the field with this number, if it has bytes.
fn bytes_of(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message;
    while let [tag, tail @ ..] = rest {
        let (mut value, mut at) = (0_usize, 0);
        while let Some(byte) = tail.get(at) {
            value |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let end = if tag & 7 == 2 { at + value } else { at };
        if tag >> 3 == wanted && tag & 7 == 2 {
            return tail.get(at..end);
        }
        rest = tail.get(end..)?;
    }
    None
}

/// A pod's sandbox, as the runtime describes it.
#[derive(Clone, Debug)]
pub struct Sandbox<'a> {
    /// Namespace and name of the pod. The sandbox's id is made of the name.
    pub pod: (&'a str, &'a str),
    /// The UID of the pod.
    pub uid: &'a str,
    /// Its labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// The path of its network namespace.
    pub network_namespace: &'a str,
    /// Its addresses; none if the runtime doesn't report them.
    pub addresses: &'a [&'a str],
}

impl Sandbox<'_> {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let namespace = [field(1, "network"), field(2, self.network_namespace)].concat();
        let mut out = [
            field(1, format!("sandbox-{}", self.pod.1)),
            field(2, self.pod.1),
            field(3, self.uid),
            field(4, self.pod.0),
            field(8, field(5, namespace)),
        ]
        .concat();
        for (key, value) in self.labels {
            out.extend(field(5, [field(1, key), field(2, value)].concat()));
        }
        out.extend(self.addresses.iter().flat_map(|address| field(10, address)));
        out
    }
}

/// A runtime that offers its socket.
#[derive(Debug)]
pub struct Offered {
    listener: UnixListener,
    path: PathBuf,
}

impl Offered {
    /// Offers a socket at this path, where none may be.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    /// The agent's option that names the socket.
    #[must_use]
    pub fn option(&self) -> String {
        format!("--nri-socket={}", self.path.display())
    }

    /// Accepts the agent as a plugin, and lists the sandboxes. `patience` bounds each of its answers.
    ///
    /// # Errors
    /// When the plugin doesn't do what the protocol says, or doesn't in time.
    pub fn accept(&self, sandboxes: &[Vec<u8>], patience: Duration) -> io::Result<Connected> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(patience))?;
        let mut runtime = Connected { stream, calls: 0 };
        let (connection, id, kind, registration) = runtime.receive()?;
        let name = bytes_of(&registration, 3).and_then(|payload| bytes_of(payload, 1));
        if (connection, kind, name) != (RUNTIME, REQUEST, Some(&b"palisade"[..])) {
            return Err(io::Error::other(format!("no registration of the agent but {registration:?}")));
        }
        runtime.send(RUNTIME, id, RESPONSE, &field(1, []))?;
        let configuration = [field(2, "containerd"), field(3, "2.2.0"), number(5, REQUEST_TIMEOUT)].concat();
        runtime.call("Configure", &configuration)?.map_err(io::Error::other)?;
        let list: Vec<u8> = sandboxes.iter().flat_map(|pod| field(1, pod)).collect();
        runtime.call("Synchronize", &list)?.map_err(io::Error::other)?;
        Ok(runtime)
    }
}

/// A runtime that has the agent as its plugin.
#[derive(Debug)]
pub struct Connected {
    stream: UnixStream,
    calls: u32,
}

impl Connected {
    /// Calls the plugin. The inner error is what it answers.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn call(&mut self, method: &str, payload: &[u8]) -> io::Result<Result<(), String>> {
        let id = 2 * self.calls + 1;
        self.calls += 1;
        let request = [field(1, "nri.pkg.api.v1alpha1.Plugin"), field(2, method), field(3, payload)].concat();
        self.send(PLUGIN, id, REQUEST, &request)?;
        let (connection, answered, kind, response) = self.receive()?;
        if (connection, answered, kind) != (PLUGIN, id, RESPONSE) {
            return Err(io::Error::other(format!("no answer to {method} but {response:?}")));
        }
        let status = bytes_of(&response, 1).unwrap_or_default();
        Ok(match bytes_of(status, 2) {
            Some(message) if !message.is_empty() => Err(String::from_utf8_lossy(message).into_owned()),
            _ => Ok(()),
        })
    }

    /// Sends bytes as they are, whatever they mean.
    ///
    /// # Errors
    /// When the plugin has closed the connection.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Announces a pod's start. Returns how long it had to wait.
    ///
    /// # Errors
    /// When the plugin doesn't answer, or refuses.
    pub fn start(&mut self, sandbox: &[u8]) -> io::Result<Duration> {
        let begin = Instant::now();
        self.call("RunPodSandbox", &field(1, sandbox))?.map_err(io::Error::other)?;
        Ok(begin.elapsed())
    }

    fn send(&mut self, connection: u32, id: u32, kind: u8, message: &[u8]) -> io::Result<()> {
        let mut frame = connection.to_be_bytes().to_vec();
        frame.extend((message.len() as u32 + 10).to_be_bytes());
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(id.to_be_bytes());
        frame.extend([kind, 0]);
        frame.extend(message);
        self.stream.write_all(&frame)
    }

    /// Returns connection number, stream id, type and content of the next message, which may come in several frames.
    fn receive(&mut self) -> io::Result<(u32, u32, u8, Vec<u8>)> {
        let mut message = Vec::new();
        loop {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header)?;
            let [connection, length] = [&header[..4], &header[4..]].map(word);
            if length as usize > LONGEST_FRAME {
                return Err(io::Error::other(format!("a frame of {length} bytes, which no runtime reads")));
            }
            let start = message.len();
            message.resize(start + length as usize, 0);
            self.stream.read_exact(&mut message[start..])?;
            if message.len() >= 10 && message.len() == 10 + word(&message[..4]) as usize {
                return Ok((connection, word(&message[4..8]), message[8], message.split_off(10)));
            }
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

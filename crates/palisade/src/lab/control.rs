//! The control socket of a running lab: a lock file and a Unix socket in a directory of the user.
//!
//! A lab holds its lock while it runs, and the kernel releases the lock however the lab ends. A socket without a held lock
//! was left by a lab that was killed, and is replaced.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::IpAddr,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

use crate::output;

/// The option that names a lab.
#[derive(Clone, Debug, Args)]
pub(crate) struct LabName {
    /// Name of the lab, if there are several
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = name)]
    pub(crate) name: String,
}

/// `sun_path` of `sockaddr_un` has 108 bytes (unix(7)); this leaves room for the directory.
const MAX_NAME_LENGTH: usize = 32;

fn name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=MAX_NAME_LENGTH).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err(format!("a lab's name consists of 1 to {MAX_NAME_LENGTH} lower-case letters, digits and hyphens"))
    }
}

/// A request to a running lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Open connections.
    Probe {
        /// The source as written.
        source: String,
        /// The destination as written.
        destination: String,
        /// The namespace of names without one.
        namespace: String,
        /// The milliseconds to wait for an answer. `None`: as long as an unexpected outcome takes to be certain.
        timeout: Option<u64>,
    },
    /// Locate the network namespace of a pod or node.
    Locate {
        /// The pod or node as written.
        place: String,
        /// The namespace of names without one.
        namespace: String,
    },
    /// Stop. The connection is closed when everything is removed.
    Down,
}

/// A reply of a running lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The request failed.
    Error(String),
    /// The outcomes of the probes.
    ProbeAnswer(Vec<ProbeAnswer>),
    /// The location of a network namespace.
    Located {
        /// The process of the lab.
        pid: u32,
        /// The file descriptor of the namespace in that process.
        fd: i32,
        /// The pod or node.
        place: String,
        /// The addresses of the lab's DNS servers.
        dns: Vec<IpAddr>,
    },
    /// The lab is stopping.
    Ending,
}

/// A probed connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeAnswer {
    /// The source.
    pub(crate) source: String,
    /// The destination.
    pub(crate) destination: String,
    /// Protocol and port.
    pub(crate) on: String,
    /// The outcome.
    pub(crate) outcome: String,
    /// Whether it was answered.
    pub(crate) answered: bool,
    /// The engine's verdict.
    pub(crate) expected: String,
    /// Whether outcome and verdict agree.
    pub(crate) agrees: bool,
    /// The reasons of the verdict.
    pub(crate) reasons: Vec<String>,
}

/// Returns the directory of this user's labs. Only the user may access it, since a lab's socket accepts requests from anyone
/// who can write to it.
fn directory() -> Result<PathBuf> {
    let own = geteuid();
    let path =
        match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute() && p.is_dir()) {
            Some(runtime) => runtime.join("palisade"),
            None => env::temp_dir().join(format!("palisade-{own}")),
        };
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("can't create {}", path.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(&path).with_context(|| format!("can't read {}", path.display()))?;
    if !metadata.is_dir() || metadata.uid() != own.as_raw() || metadata.mode() & 0o077 != 0 {
        bail!(
            "{} is not a directory that only this user can access: remove it, or set XDG_RUNTIME_DIR to another",
            path.display()
        );
    }
    Ok(path)
}

/// The control socket of a running lab. Dropping it removes the files.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    socket: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<fs::File>,
}

impl ControlSocket {
    /// Opens the control socket of a new lab. Files left by a killed lab of the same name are removed.
    ///
    /// # Errors
    /// When a lab with this name is running.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let directory = directory()?;
        let lock_path = directory.join(format!("{name}.lock"));
        let lock = lock(&lock_path, name)?;
        let socket = directory.join(format!("{name}.sock"));
        match fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("can't remove {}", socket.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("can't listen on {}", socket.display()))?;
        Ok(Self { listener, socket, lock_path, _lock: lock })
    }

    /// Returns another handle to the listening socket.
    pub(crate) fn listener(&self) -> Result<UnixListener> {
        self.listener.try_clone().context("can't clone the lab's socket")
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still held, so the files are this lab's.
        _ = fs::remove_file(&self.socket);
        _ = fs::remove_file(&self.lock_path);
    }
}

fn lock(path: &PathBuf, name: &str) -> Result<Flock<fs::File>> {
    loop {
        let open = || fs::File::options().create(true).truncate(false).write(true).open(path);
        let file = open().with_context(|| format!("can't open {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "a lab named `{name}` is already running: stop it with `palisade lab down --name {name}`, or use another name with \
                 --name"
            ),
            Err((_, error)) => return Err(error).with_context(|| format!("can't lock {}", path.display())),
        };
        // Another lab may have removed the file between opening and locking it. The lock is then on a deleted file.
        let ours = lock.metadata().with_context(|| format!("can't read {}", path.display()))?.ino();
        if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
            return Ok(lock);
        }
    }
}

/// Connects to the lab with this name.
///
/// # Errors
/// When it is not running, or suspended: the kernel accepts connections for it, but nothing answers.
pub(crate) fn connect(name: &str) -> Result<UnixStream> {
    let socket = directory()?.join(format!("{name}.sock"));
    let stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no lab named `{name}` is running; start one with `palisade lab up PATH`")
        }
        _ => anyhow::Error::new(error).context(format!("can't connect to {}", socket.display())),
    })?;
    let peer = getsockopt(&stream, PeerCredentials).context("can't find the process of the lab")?;
    if is_suspended(peer.pid()) {
        bail!(
            "the lab `{name}` is suspended: continue it with `fg` in its shell, or with `kill -CONT {}`",
            peer.pid()
        );
    }
    Ok(stream)
}

/// Whether a process is stopped by a signal, such as that of Ctrl-Z.
fn is_suspended(pid: i32) -> bool {
    // The state follows the name of the program, which may contain anything (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Sends a request and waits for the reply.
pub(crate) fn ask(stream: &mut UnixStream, request: &Request) -> Result<Reply> {
    send(stream, request).context("can't send the request to the lab")?;
    let reply = output::with_progress("waiting for the lab", || receive(stream));
    match reply.context("no reply from the lab")? {
        Some(Reply::Error(error)) => bail!("{error}"),
        Some(reply) => Ok(reply),
        None => bail!("the lab stopped before it replied"),
    }
}

/// Sends a message as a line of JSON.
pub(crate) fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// The largest message in bytes. A probe of a whole cluster takes less than a megabyte.
const MAX_MESSAGE: u64 = 16 << 20;

/// Receives a message. `None`: the connection was closed.
pub(crate) fn receive<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<Option<T>> {
    let mut line = String::new();
    let limited = io::Read::take(stream, MAX_MESSAGE);
    match BufReader::new(limited).read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

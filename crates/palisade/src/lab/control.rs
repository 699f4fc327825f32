//! How other processes find a running lab and talk to it: a lock and a Unix socket in a directory of the user's own.
//!
//! The lock says whether a lab of that name runs, and the kernel lets go of it however the lab ends. So a socket without
//! a locked lock is left over from a lab that was killed, and the next one takes its place.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
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
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

/// Which lab.
#[derive(Clone, Debug, Args)]
pub(crate) struct LabName {
    /// The lab, if there are several
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = name)]
    pub(crate) name: String,
}

/// `sun_path` of `sockaddr_un` has 108 bytes (unix(7)); this leaves room for the directory.
const LONGEST_NAME: usize = 32;

fn name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err(format!("a lab's name has 1 to {LONGEST_NAME} lower-case letters, digits and hyphens"))
    }
}

/// What a running lab is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// To open connections.
    Probe {
        /// The source as written.
        source: String,
        /// The destination as written.
        destination: String,
        /// The namespace of names without one.
        namespace: String,
    },
    /// Where the network namespace of a pod or node is.
    Locate {
        /// The pod or node as written.
        place: String,
        /// The namespace of names without one.
        namespace: String,
    },
    /// To end. The connection is closed when all is gone.
    Down,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It could not.
    Error(String),
    /// The outcomes of the probes.
    ProbeAnswer(Vec<ProbeAnswer>),
    /// Where a namespace is.
    Located {
        /// The process of the lab.
        pid: u32,
        /// The file descriptor of the namespace in that process.
        fd: i32,
        /// Whose namespace it is.
        place: String,
    },
    /// It ends now.
    Ending,
}

/// One connection that was tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeAnswer {
    /// Who opened it.
    pub(crate) source: String,
    /// Who was called.
    pub(crate) destination: String,
    /// Protocol and port.
    pub(crate) on: String,
    /// What it came to.
    pub(crate) outcome: String,
    /// Whether it was answered.
    pub(crate) answered: bool,
    /// What the engine says.
    pub(crate) expected: String,
    /// Whether the two agree.
    pub(crate) agrees: bool,
    /// Why the engine says so.
    pub(crate) reasons: Vec<String>,
}

/// The directory in which labs of this user are found. It belongs to the user alone, since whoever can write to a lab's
/// socket can have it do things.
fn directory() -> Result<PathBuf> {
    let own = geteuid();
    let path =
        match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute() && p.is_dir()) {
            Some(runtime) => runtime.join("palisade"),
            None => env::temp_dir().join(format!("palisade-{own}")),
        };
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("can't make {}", path.display()));
        }
        _ => {}
    }
    let is = fs::symlink_metadata(&path).with_context(|| format!("can't read {}", path.display()))?;
    if !is.is_dir() || is.uid() != own.as_raw() || is.mode() & 0o077 != 0 {
        bail!(
            "{} is not a directory of this user alone: remove it, or set XDG_RUNTIME_DIR to another",
            path.display()
        );
    }
    Ok(path)
}

/// The door of a running lab. Dropping it closes the door and leaves nothing.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    socket: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<fs::File>,
}

impl ControlSocket {
    /// Opens the door of a new lab. What a killed lab of the same name left is removed.
    ///
    /// # Errors
    /// When a lab of that name runs.
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

    /// Another handle on the listening socket.
    pub(crate) fn listener(&self) -> Result<UnixListener> {
        self.listener.try_clone().context("can't clone the lab's socket")
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // While the lock is still held, so that what is removed is ours.
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
                "a lab named `{name}` is running: end it with `palisade lab down --name {name}`, or give this one another \
                 name with --name"
            ),
            Err((_, error)) => return Err(error).with_context(|| format!("can't lock {}", path.display())),
        };
        // The lab before may have removed the file between our opening and locking it: then we hold nothing.
        let ours = lock.metadata().with_context(|| format!("can't read {}", path.display()))?.ino();
        if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
            return Ok(lock);
        }
    }
}

/// Connects to the lab of that name.
///
/// # Errors
/// When none runs.
pub(crate) fn connect(name: &str) -> Result<UnixStream> {
    let socket = directory()?.join(format!("{name}.sock"));
    UnixStream::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no lab named `{name}` is running: start one with `palisade lab up PATH`")
        }
        _ => anyhow::Error::new(error).context(format!("can't connect to {}", socket.display())),
    })
}

/// Asks, and waits for the answer.
pub(crate) fn ask(stream: &mut UnixStream, request: &Request) -> Result<Reply> {
    send(stream, request).context("can't ask the lab")?;
    match receive(stream).context("the lab doesn't answer")? {
        Some(Reply::Error(error)) => bail!("{error}"),
        Some(reply) => Ok(reply),
        None => bail!("the lab ended before it answered"),
    }
}

/// Sends one message: a line of JSON.
pub(crate) fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// The longest message. A probe of a whole cluster is below a megabyte.
const LONGEST_MESSAGE: u64 = 16 << 20;

/// Receives one message; `None` if the other side has closed.
pub(crate) fn receive<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<Option<T>> {
    let mut line = String::new();
    let limited = io::Read::take(stream, LONGEST_MESSAGE);
    match BufReader::new(limited).read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

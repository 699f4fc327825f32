//! One agent writes a network namespace's rules, and one only.
//!
//! Two things hold that, because each alone has a hole: a lock on a file beside the socket, which two agents with different
//! directories don't share; and an abstract socket in the network namespace itself, which agents in different
//! namespaces don't share though they use one directory.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
    },
};

/// The abstract socket's name.
const NAME: &str = "palisade-agent";
/// How often it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// The right to write this network namespace's rules. Dropping it gives the right away and removes the file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<fs::File>,
    namespace: UnixListener,
}

/// Why the right can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent{} {}", of_process(*pid), holds.told())]
    Held {
        /// Its process, as far as it can be seen from here.
        pid: Option<u32>,
        /// What it holds.
        holds: Holds,
    },
    /// The lock can't be made.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What failed.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What another agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The lock file.
    File(PathBuf),
    /// This network namespace.
    Namespace,
}

impl Holds {
    fn told(&self) -> String {
        match self {
            Self::File(path) => format!("holds {}", path.display()),
            Self::Namespace => "enforces policies in this network namespace".to_owned(),
        }
    }
}

fn of_process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Lock {
    /// Takes the right, waiting for another agent to end for at most `patience`; `waiting` hears once that it has to wait.
    ///
    /// # Errors
    /// When it doesn't end, or the directory can't be used.
    pub fn take(
        path: &Path,
        patience: Duration,
        waiting: impl FnOnce(&LockError),
    ) -> Result<Self, LockError> {
        let begin = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            let held = match Self::try_take(path) {
                Err(LockError::Held { pid, holds }) => move || LockError::Held {
                    pid: pid.or_else(|| if holds == Holds::Namespace { holder() } else { None }),
                    holds,
                },
                done => return done,
            };
            if begin.elapsed() >= patience {
                return Err(held());
            }
            if let Some(waiting) = waiting.take() {
                waiting(&held());
            }
            thread::sleep(AGAIN);
        }
    }

    /// Lets go of those who asked who has the right. To be called now and then.
    pub fn let_askers_go(&self) {
        while self.namespace.accept().is_ok() {}
    }

    fn try_take(path: &Path) -> Result<Self, LockError> {
        let failed = |doing, source| LockError::File { doing, path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| failed("make the directory of", e))?;
        }
        let namespace = take_namespace().map_err(|e| failed("make the abstract socket for", e))?;
        let namespace = namespace.ok_or(LockError::Held { pid: None, holds: Holds::Namespace })?;
        loop {
            let open = fs::File::options().create(true).truncate(false).read(true).write(true).open(path);
            let file = open.map_err(|e| failed("open", e))?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    _ = file.read_to_string(&mut text);
                    let pid = text.trim().parse().ok();
                    return Err(LockError::Held { pid, holds: Holds::File(path.to_owned()) });
                }
                Err((_, errno)) => return Err(failed("lock", errno.into())),
            };
            // The agent before may have removed the file between our opening and locking it: then we hold nothing.
            let ours = lock.metadata().map_err(|e| failed("read", e))?.ino();
            if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
                let written = lock
                    .set_len(0)
                    .and_then(|()| lock.rewind())
                    .and_then(|()| writeln!(lock, "{}", std::process::id()));
                written.map_err(|e| failed("write", e))?;
                return Ok(Self { path: path.to_owned(), _file: lock, namespace });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is still held, so that what is removed is ours.
        _ = fs::remove_file(&self.path);
    }
}

/// The network namespace's socket; none if another process has it.
fn take_namespace() -> io::Result<Option<UnixListener>> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(e) => Err(e),
    }
}

/// The process that has the network namespace's socket. None if it can't be seen from here, and if so many have asked
/// that it takes no more connections for the moment.
fn holder() -> Option<u32> {
    let kind = (AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC);
    let socket = socket(kind.0, kind.1, kind.2, None).ok()?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(NAME.as_bytes()).ok()?).ok()?;
    let credentials = getsockopt(&socket, PeerCredentials).ok()?;
    u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0)
}

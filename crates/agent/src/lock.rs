//! Ensures that only one agent writes the rules of a network namespace.
//!
//! Takes two locks, because each alone is incomplete. The lock on a file beside the socket doesn't exclude agents with other
//! directories. The [`Claim`] on the network namespace doesn't exclude agents in other namespaces that use the same directory,
//! and so the same socket.
//!
//! Unprivileged processes can take neither, so they can't keep the agent from starting: the claim requires the permission to
//! change the firewall, and only the agent's user can open the file.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};
use palisade_nft::claim::{Claim, ClaimError};

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// The most attempts to replace a file that isn't a valid lock file.
const ATTEMPTS: usize = 8;
/// Access for the agent's user only. Any process that can open a file, even for reading, can lock it.
const MODE: u32 = 0o600;

/// The exclusive right to write the rules of this network namespace. Dropping it releases both locks and removes the file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<fs::File>,
    _claim: Claim,
}

/// Why the lock can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent holds it.
    #[error("another agent{} {}", of_process(*pid), holds.description())]
    Held {
        /// Its process id, if it can be determined.
        pid: Option<u32>,
        /// What it holds.
        holds: Holds,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file was replaced repeatedly, or is not a regular file.
    #[error(
        "{} is not a valid lock file: remove it, or choose another directory with --socket. Only the agent's user should be able to write the directory",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// The network namespace can't be claimed.
    #[error(transparent)]
    Kernel(#[from] palisade_nft::Error),
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
    fn description(&self) -> String {
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
    /// Takes the lock. Waits up to `timeout` for another agent to end, and calls `on_wait` once if it has to wait.
    ///
    /// # Errors
    /// If the other agent doesn't end, the directory can't be used, or the process may not change the firewall.
    pub fn take(path: &Path, timeout: Duration, on_wait: impl FnOnce(&LockError)) -> Result<Self, LockError> {
        let begin = Instant::now();
        let mut on_wait = Some(on_wait);
        loop {
            let held = match Self::try_take(path) {
                Err(held @ LockError::Held { .. }) => held,
                done => return done,
            };
            if begin.elapsed() >= timeout {
                return Err(held);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait(&held);
            }
            thread::sleep(RETRY);
        }
    }

    fn try_take(path: &Path) -> Result<Self, LockError> {
        let claim = match Claim::take() {
            Ok(claim) => claim,
            Err(ClaimError::Held { port }) => {
                return Err(LockError::Held { pid: port.and_then(process), holds: Holds::Namespace });
            }
            Err(ClaimError::Kernel(error)) => return Err(error.into()),
        };
        let file = take_file(path)?;
        Ok(Self { path: path.to_owned(), _file: file, _claim: claim })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is still held, so that the file is ours.
        _ = fs::remove_file(&self.path);
    }
}

/// Returns the process id of a netlink port. Further ports of a process are negative numbers, not process ids.
fn process(port: u32) -> Option<u32> {
    i32::try_from(port).ok().filter(|port| *port > 0).map(i32::cast_unsigned)
}

/// Locks the file and writes our process id into it.
fn take_file(path: &Path) -> Result<Flock<fs::File>, LockError> {
    let failed = |doing, source| LockError::File { doing, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| failed("create the directory of", e))?;
    }
    for _ in 0..ATTEMPTS {
        let file = match open(path) {
            Ok(Some(file)) => file,
            // Another process may hold it forever. An agent never creates such a file.
            Ok(None) => {
                remove(path).map_err(|e| failed("replace", e))?;
                continue;
            }
            Err(e) => return Err(failed("open", e)),
        };
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                _ = (&mut file).take(16).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(LockError::Held { pid, holds: Holds::File(path.to_owned()) });
            }
            Err((_, errno)) => return Err(failed("lock", errno.into())),
        };
        // The previous agent may have removed the file after we opened it. Then our lock excludes no one.
        let inode = lock.metadata().map_err(|e| failed("read", e))?.ino();
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == inode) {
            let written = lock
                .set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| writeln!(lock, "{}", std::process::id()));
            written.map_err(|e| failed("write", e))?;
            return Ok(lock);
        }
    }
    Err(LockError::NotOurs(path.to_owned()))
}

/// Opens or creates the file. `None` if it exists and isn't a regular file that only the agent's user can open.
fn open(path: &Path) -> io::Result<Option<fs::File>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = fs::File::options();
    options.create(true).truncate(false).read(true).write(true).mode(MODE).custom_flags(flags.bits());
    let file = match options.open(path) {
        Ok(file) => file,
        // A symbolic link, a directory or a socket.
        Err(e)
            if matches!(e.raw_os_error(), Some(nix::libc::ELOOP | nix::libc::EISDIR | nix::libc::ENXIO)) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let metadata = file.metadata()?;
    let is_ours = metadata.is_file()
        && metadata.uid() == geteuid().as_raw()
        && metadata.mode() & 0o077 == 0
        && metadata.nlink() <= 1;
    Ok(is_ours.then_some(file))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_other_users_can_lock_is_replaced() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("run/agent.lock");
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        // Read access is enough to lock it.
        let squatter = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let lock = take_file(&path).unwrap();
        assert_eq!(mode(&path), MODE);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        // A valid file that is locked stays.
        let Err(LockError::Held { pid, holds: Holds::File(_) }) = take_file(&path) else { panic!() };
        assert_eq!(pid, Some(std::process::id()));
        drop(lock);
        assert!(take_file(&path).is_ok());
        drop(squatter);
    }

    #[test]
    fn a_link_or_pipe_is_replaced_and_its_target_is_not_touched() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, target) = (dir.path().join("agent.lock"), dir.path().join("target"));
        fs::write(&target, "precious").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(MODE)).unwrap();
        symlink(&target, &path).unwrap();
        drop(take_file(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&target, &path).unwrap();
        drop(take_file(&path).unwrap());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(MODE)).unwrap();
        drop(take_file(&path).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(take_file(&path).is_err(), "a directory is not removed");
    }
}

//! One agent writes a network namespace's rules, and one only.
//!
//! Two things hold that, because each alone has a hole: a lock on a file beside the socket, which two agents with different
//! directories don't share; and a [`Claim`] on the network namespace itself, which agents in different namespaces don't
//! share though they use one directory and with it one socket.
//!
//! Neither can be taken by a process without rights, which would keep the agent from starting: the claim takes the right to
//! change the firewall, and the file can be opened by the agent's user alone.

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

/// How often it is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a file that is not as it must be is replaced by one that is.
const REPLACED: usize = 8;
/// For the agent's user alone. Whoever can open a file, be it for reading, can lock it.
const MODE: u32 = 0o600;

/// The right to write this network namespace's rules. Dropping it gives the right away and removes the file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<fs::File>,
    _claim: Claim,
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
    /// The file was replaced again and again, or is no file.
    #[error(
        "{} is no lock file of an agent: only the agent's user may write its directory; remove it, or name another with --socket",
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
    /// When it doesn't end, the directory can't be used, or the caller may not change the firewall.
    pub fn take(
        path: &Path,
        patience: Duration,
        waiting: impl FnOnce(&LockError),
    ) -> Result<Self, LockError> {
        let begin = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            let held = match Self::try_take(path) {
                Err(held @ LockError::Held { .. }) => held,
                done => return done,
            };
            if begin.elapsed() >= patience {
                return Err(held);
            }
            if let Some(waiting) = waiting.take() {
                waiting(&held);
            }
            thread::sleep(AGAIN);
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
        // While the lock is still held, so that what is removed is ours.
        _ = fs::remove_file(&self.path);
    }
}

/// The process of a netlink port. Ports that are no process ids, because the process has several, are negative numbers.
fn process(port: u32) -> Option<u32> {
    i32::try_from(port).ok().filter(|port| *port > 0).map(i32::cast_unsigned)
}

/// Locks the file and writes our process id into it.
fn take_file(path: &Path) -> Result<Flock<fs::File>, LockError> {
    let failed = |doing, source| LockError::File { doing, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| failed("make the directory of", e))?;
    }
    for _ in 0..REPLACED {
        let file = match open(path) {
            Ok(Some(file)) => file,
            // Somebody else may hold it for ever: an agent's file is never like that.
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
        // The agent before may have removed the file between our opening and locking it: then we hold nothing.
        let ours = lock.metadata().map_err(|e| failed("read", e))?.ino();
        if fs::symlink_metadata(path).is_ok_and(|there| there.ino() == ours) {
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

/// Opens the file, or makes it. None if what is there is no file that the agent's user alone can open.
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
    fn a_file_that_others_can_open_and_lock_is_replaced() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("run/agent.lock");
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        // Whoever may read it can lock it.
        let squatter = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let lock = take_file(&path).unwrap();
        assert_eq!(mode(&path), MODE);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        // One of ours that is held stays.
        let Err(LockError::Held { pid, holds: Holds::File(_) }) = take_file(&path) else { panic!() };
        assert_eq!(pid, Some(std::process::id()));
        drop(lock);
        assert!(take_file(&path).is_ok());
        drop(squatter);
    }

    #[test]
    fn what_is_no_file_is_replaced_and_nothing_behind_it_is_touched() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, behind) = (dir.path().join("agent.lock"), dir.path().join("behind"));
        fs::write(&behind, "precious").unwrap();
        fs::set_permissions(&behind, fs::Permissions::from_mode(MODE)).unwrap();
        symlink(&behind, &path).unwrap();
        drop(take_file(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&behind, &path).unwrap();
        drop(take_file(&path).unwrap());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(MODE)).unwrap();
        drop(take_file(&path).unwrap());
        assert_eq!(fs::read_to_string(&behind).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(take_file(&path).is_err(), "a directory is not removed");
    }
}

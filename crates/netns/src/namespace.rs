//! Network namespaces that are held by a file descriptor and have no name on disk.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It exists as long as this value, a socket in it or a thread in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Returns the namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted or the process has too many open files.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Creates a namespace and runs `setup` in it, on a new thread.
    ///
    /// # Errors
    /// When the kernel refuses the namespace or the file. `setup`'s result is returned unchanged.
    pub fn create<T: Send>(setup: impl FnOnce() -> T + Send) -> io::Result<(Self, T)> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = Self::current()?;
            Ok((namespace, setup()))
        })
    }

    /// Runs `f` on a new thread in this namespace and waits for it. Sockets that `f` opens and child processes that it
    /// starts belong to this namespace, wherever they are used later.
    ///
    /// # Errors
    /// When the thread can't be started or can't enter the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(f())
        })
    }

    /// Moves the calling thread into this namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Returns another handle to the same namespace.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `f` on a new thread and resumes its panic, if any.
fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().name("palisade-netns".into()).spawn_scoped(scope, f)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Writes sysctls of the calling thread's namespace: (name below `/proc/sys/net`, value).
///
/// # Errors
/// At the first sysctl that can't be written, with its path.
pub fn set_sysctls(settings: &[(&str, &str)]) -> io::Result<()> {
    settings.iter().try_for_each(|(name, value)| {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot write {value} to {path}: {e}")))
    })
}

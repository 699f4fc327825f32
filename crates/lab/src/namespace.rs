//! Network namespaces, held by file descriptor alone.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It lives as long as this value, a socket or a thread in it does.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is missing or the process has too many files open.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Makes a new namespace and runs `setup` in it, on a thread of its own.
    ///
    /// # Errors
    /// When the kernel refuses a namespace or a file; `setup`'s result is handed back as it is.
    pub fn create<T: Send>(setup: impl FnOnce() -> T + Send) -> io::Result<(Self, T)> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = Self::current()?;
            Ok((namespace, setup()))
        })
    }

    /// Runs `f` on a new thread in this namespace and waits for it. Sockets that it opens stay in the namespace, wherever
    /// they are used later; a child process that it starts lives in it.
    ///
    /// # Errors
    /// When the thread can't be started or can't enter the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(f())
        })
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// When the process has too many files open.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `f` on a thread of its own and hands on its panic, if it has one.
fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().name("palisade-netns".into()).spawn_scoped(scope, f)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Writes kernel settings of the calling thread's namespace, as (name below `/proc/sys/net`, value).
///
/// # Errors
/// At the first that can't be written, with its name.
pub fn set_sysctls(settings: &[(&str, &str)]) -> io::Result<()> {
    settings.iter().try_for_each(|(name, value)| {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot write {value} to {path}: {e}")))
    })
}

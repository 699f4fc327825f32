//! Where a run takes place: its own mounts, with one tmpfs that holds every file that the cluster writes.
//!
//! The run is already in a network and a process namespace ([`palisade_cluster_tests::confined()`]). Here it gets a mount namespace
//! too, in which a tmpfs covers `/run`. The kernel removes all of it with the last process, however that ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// The folder of a run, as processes in its mount namespace see it.
pub const FOLDER: &str = "/run/palisade-e2e";

/// A folder below [`FOLDER`].
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Moves this process into a mount namespace of its own. Call it before any thread is started.
///
/// # Errors
/// If the kernel refuses a mount, with its path.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot create a mount namespace")?;
    propagate(MsFlags::MS_PRIVATE)?;
    mount_new("proc", "/proc")?;
    mount_new("tmpfs", "/run")?;
    fs::create_dir_all(FOLDER)?;
    Ok(())
}

/// Sets how mounts below `/` are passed on to other namespaces.
///
/// # Errors
/// If the kernel refuses.
pub fn propagate(how: MsFlags) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, how | MsFlags::MS_REC, None::<&str>)
        .context("cannot set the propagation of /")
}

/// Mounts a new file system of this type.
///
/// # Errors
/// If the kernel refuses.
pub fn mount_new(kind: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Containers have device files, and programs that change their user, in the file systems of a run.
    let flags = if kind == "tmpfs" { MsFlags::empty() } else { flags };
    let data = (kind == "tmpfs").then_some("mode=755,size=70%");
    mount(Some(kind), path, Some(kind), flags, data)
        .with_context(|| format!("cannot mount a {kind} at {path}"))
}

/// Mounts `from`, with what is mounted below it, at `to` too.
///
/// # Errors
/// If the kernel refuses.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

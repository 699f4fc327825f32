//! The private network namespace in which a lab runs.
//!
//! It is entered before the first thread starts, because only a single-threaded process can enter a user namespace. Nothing has
//! a name on disk: when the last process of the sandbox ends, the kernel removes everything.

use std::{fs, io};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{getgid, getuid},
};

use palisade_netns::rtnetlink::{LOOPBACK, Netlink, NetlinkError};

/// Proof that this process is in a private network namespace and may create more.
#[derive(Debug)]
pub struct Sandbox {
    rootless: bool,
}

/// Why a sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Other threads are running.
    #[error("the sandbox must be entered before the first thread starts, but {0} threads are running")]
    Threads(usize),
    /// The user may not create user namespaces.
    #[error("this user may not create a user namespace with a network namespace{}; {cure}", at(setting))]
    Forbidden {
        /// The sysctl that forbids it, as `name = value`, if one does.
        setting: Option<String>,
        /// How to allow it.
        cure: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused although the process is privileged.
    #[error(
        "cannot create a network namespace although the process is privileged: check that the kernel has CONFIG_NET_NS, and \
         the sysctl user.max_net_namespaces"
    )]
    Refused(#[source] io::Error),
    /// The new namespace can't be used.
    #[error("cannot set the loopback device of the sandbox up")]
    Loopback(#[source] NetlinkError),
    /// A file in `/proc` could not be read or written.
    #[error("cannot read or write {path}; is /proc mounted?")]
    Proc {
        /// The file.
        path: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

fn at(setting: &Option<String>) -> String {
    setting.as_ref().map(|s| format!(" ({s})")).unwrap_or_default()
}

/// From `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// The sysctls that can forbid user namespaces: name, the value that forbids them, and how to allow them.
const FORBIDDING: [(&str, &str, &str); 3] = [
    ("user/max_user_namespaces", "0", "run as root, or allow them: sysctl -w user.max_user_namespaces=10000"),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "run as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "run as root, or allow them: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

impl Sandbox {
    /// Moves this process into a private network namespace.
    ///
    /// Without `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` it enters a user namespace first, as root of it. The soft limit of open
    /// files is raised to the hard limit, since every namespace and every probe needs some.
    ///
    /// # Errors
    /// Fails if other threads are running, if user namespaces are forbidden (the error names the sysctl and how to allow
    /// them), or if the kernel refuses.
    pub fn enter() -> Result<Self, SandboxError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(|source| SandboxError::Proc { path: "/proc/self/task", source })?
            .count();
        if threads != 1 {
            return Err(SandboxError::Threads(threads));
        }
        let rootless = !is_privileged()?;
        if rootless {
            enter_user_namespace()?;
        } else {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| SandboxError::Refused(e.into()))?;
        }
        raise_open_files();
        let up = Netlink::open().and_then(|mut n| n.link_up(LOOPBACK).commit());
        match up {
            Err(NetlinkError::Refused { source, .. }) if rootless && is_permission(&source) => {
                // AppArmor allows the user namespace, but denies capabilities in it.
                Err(forbidden(source))
            }
            other => other.map_err(SandboxError::Loopback),
        }?;
        Ok(Self { rootless })
    }

    /// Returns whether the process is root only in a user namespace.
    #[must_use]
    pub fn is_rootless(&self) -> bool {
        self.rootless
    }
}

fn is_permission(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::PermissionDenied
}

fn is_privileged() -> Result<bool, SandboxError> {
    const STATUS: &str = "/proc/self/status";
    let status = fs::read_to_string(STATUS).map_err(|source| SandboxError::Proc { path: STATUS, source })?;
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(0);
    Ok([CAP_NET_ADMIN, CAP_SYS_ADMIN].iter().all(|c| effective & (1 << c) != 0))
}

fn enter_user_namespace() -> Result<(), SandboxError> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        Errno::EPERM | Errno::ENOSPC | Errno::EACCES | Errno::EUSERS => forbidden(e.into()),
        other => SandboxError::Refused(other.into()),
    })?;
    // user_namespaces(7): a group map may be written only after setgroups(2) is denied.
    for (path, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(path, content).map_err(|source| {
            if is_permission(&source) { forbidden(source) } else { SandboxError::Proc { path, source } }
        })?;
    }
    Ok(())
}

fn forbidden(source: io::Error) -> SandboxError {
    explain(source, |name| fs::read_to_string(format!("/proc/sys/{name}")).ok())
}

/// Finds the sysctl that forbids user namespaces, given the value of each.
fn explain(source: io::Error, setting: impl Fn(&str) -> Option<String>) -> SandboxError {
    for (name, value, cure) in FORBIDDING {
        if setting(name).is_some_and(|is| is.trim() == value) {
            let setting = Some(format!("{} = {value}", name.replace('/', ".")));
            return SandboxError::Forbidden { setting, cure, source };
        }
    }
    SandboxError::Forbidden {
        setting: None,
        cure: "run as root, or check what restricts it: a container runtime's seccomp profile, SELinux, or the sysctl \
               user.max_user_namespaces",
        source,
    }
}

/// Raises the limit of open files. A failure is ignored: the request that runs out of files returns the error.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sysctl_that_forbids_is_named_with_the_command_that_allows() {
        for (name, value, _) in FORBIDDING {
            let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
            let text = explain(refused(), |n| (n == name).then(|| format!("{value}\n"))).to_string();
            let dotted = name.replace('/', ".");
            assert!(
                text.contains(&format!(
                    "({dotted} = {value}); run as root, or allow them: sysctl -w {dotted}="
                )),
                "{text}"
            );
            let other = explain(refused(), |n| (n == name).then(|| "7".to_owned())).to_string();
            assert!(other.contains("check what restricts it"), "{other}");
        }
    }

    #[test]
    fn entering_fails_while_other_threads_run() {
        // The test harness runs tests on another thread than the main one.
        assert!(matches!(Sandbox::enter(), Err(SandboxError::Threads(n)) if n > 1));
    }
}

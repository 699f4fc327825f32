//! What several checks need to know of the node, read once.

use std::{cell::OnceCell, fs, io, path::Path};

use palisade_nft::{Error, Kernel, survey::Survey};

use crate::{
    finding::{Outcome, chain},
    interfaces::{Interface, interfaces},
};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` as bits of `CapEff` (`linux/capability.h`).
pub(crate) const NET_ADMIN: u64 = 1 << 12;
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

/// The node under examination. What costs a system call more than `/proc` does is read when a check first needs it.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// The socket of the node's agent.
    pub(crate) socket: &'a Path,
    /// This process's effective capabilities.
    pub(crate) capabilities: Option<u64>,
    interfaces: OnceCell<io::Result<Vec<Interface>>>,
    survey: OnceCell<Result<Survey, Error>>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(socket: &'a Path) -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Self {
            socket,
            capabilities: effective_capabilities(&status),
            interfaces: OnceCell::new(),
            survey: OnceCell::new(),
        }
    }

    /// Returns the interfaces of the node's network namespace.
    pub(crate) fn interfaces(&self) -> Result<&[Interface], Outcome> {
        match self.interfaces.get_or_init(interfaces) {
            Ok(all) => Ok(all),
            Err(e) => {
                let found = format!("cannot list the node's interfaces: {e}");
                Err(Outcome::unknown(found, self.cure_of_refusal()))
            }
        }
    }

    /// Returns the nftables tables of the node's network namespace.
    pub(crate) fn survey(&self) -> Result<&Survey, Outcome> {
        let read = || Kernel::open().and_then(|mut kernel| Survey::read(&mut kernel));
        match self.survey.get_or_init(read) {
            Ok(survey) => Ok(survey),
            Err(e) => {
                let found = format!("cannot list the node's nftables rules: {}", chain(e));
                Err(Outcome::unknown(found, self.cure_of_refusal()))
            }
        }
    }

    /// Returns whether the node forwards IPv4 and IPv6. `None` if `/proc` has no such settings.
    pub(crate) fn forwarding(&self) -> Option<[bool; 2]> {
        let is_on = |value: &str| value != "0";
        let v4 = sysctl("net/ipv4/ip_forward")?;
        let v6 = sysctl("net/ipv6/conf/all/forwarding");
        Some([is_on(&v4), v6.as_deref().is_some_and(is_on)])
    }

    /// Returns what to do where the kernel refuses a request: become root, unless this process is root already.
    pub(crate) fn cure_of_refusal(&self) -> &'static str {
        cure_of_refusal(self.capabilities)
    }
}

fn cure_of_refusal(capabilities: Option<u64>) -> &'static str {
    const BOTH: u64 = NET_ADMIN | SYS_ADMIN;
    if capabilities.is_some_and(|bits| bits & BOTH == BOTH) {
        "this process has the required capabilities; look for a seccomp profile, SELinux, AppArmor, or a kernel without the feature"
    } else {
        "run `palisade doctor` as root on the node (CAP_SYS_ADMIN and CAP_NET_ADMIN)"
    }
}

/// Parses the effective capabilities in `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
}

/// Reads a setting below `/proc/sys`.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_become_root() {
        assert!(cure_of_refusal(Some(u64::MAX)).contains("seccomp"));
        for bits in [None, Some(0), Some(NET_ADMIN)] {
            assert!(cure_of_refusal(bits).contains("as root"));
        }
    }

    #[test]
    fn capabilities_are_parsed() {
        let of = |status| effective_capabilities(status);
        assert_eq!(of("Name:\tx\nCapEff:\t0000000000201000\nCapBnd:\t0\n"), Some(NET_ADMIN | SYS_ADMIN));
        assert_eq!(of("Name:\tx\nCapEff:\t-\n"), None);
        assert_eq!(of(""), None);
    }
}

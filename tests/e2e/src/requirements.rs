//! What the machine must have, checked before anything is built or started. Every message says how to get it.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{cgroups, images};

/// The standard CNI plugins, where Debian has them.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";
/// What starts containers.
pub const RUNC: &str = "/usr/sbin/runc";

/// What a cluster takes: two nodes, their containers and images, and the control plane.
const MEMORY: u64 = 6 << 30;

/// Programs and plugins that are started by path or by name: (any of these paths, Debian package).
const PROGRAMS: [(&[&str], &str); 9] = [
    (&[RUNC], "runc"),
    (&["/usr/lib/cni/bridge"], "containernetworking-plugins"),
    (&["/usr/lib/cni/host-local"], "containernetworking-plugins"),
    (&["/usr/lib/cni/portmap"], "containernetworking-plugins"),
    (&["/usr/lib/cni/loopback"], "containernetworking-plugins"),
    (&["/usr/sbin/iptables", "/sbin/iptables"], "iptables"),
    (&["/usr/sbin/ip6tables", "/sbin/ip6tables"], "iptables"),
    (&["/usr/sbin/nft", "/sbin/nft"], "nftables"),
    (&["/usr/sbin/conntrack", "/sbin/conntrack"], "conntrack"),
];

/// Checks all of it.
///
/// # Errors
/// With the first thing that is missing.
pub fn check() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "kubelets and containers need root: run it as root, in a virtual machine if you would rather not"
    );
    check_memory(&fs::read_to_string("/proc/meminfo")?)?;
    cgroups::check()?;
    ensure!(
        Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
        "packets between pods on one bridge must pass netfilter: modprobe br_netfilter"
    );
    let missing: Vec<(&str, &str)> = PROGRAMS
        .into_iter()
        .filter(|(paths, _)| !paths.iter().any(|p| Path::new(p).exists()))
        .map(|(paths, package)| (paths[0], package))
        .collect();
    let paths: Vec<&str> = missing.iter().map(|(p, _)| *p).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, p)| *p).collect();
    packages.dedup();
    ensure!(
        missing.is_empty(),
        "{} missing: apt-get install --no-install-recommends {}",
        paths.join(", "),
        packages.join(" ")
    );
    images::check()
}

fn check_memory(meminfo: &str) -> Result<()> {
    let available = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|v| v.trim().strip_suffix(" kB"))
        .and_then(|v| v.parse::<u64>().ok())
        .map_or(0, |kib| kib << 10);
    ensure!(
        available >= MEMORY,
        "a cluster takes {} GiB of memory, and {:.1} GiB are available: stop other programs, or use a larger machine",
        MEMORY >> 30,
        available as f64 / f64::from(1 << 30)
    );
    Ok(())
}

/// How images are unpacked: by overlayfs where the kernel has it, else by copying them.
#[must_use]
pub fn snapshotter() -> &'static str {
    let supported = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if supported.lines().any(|l| l.split_whitespace().last() == Some("overlay")) {
        "overlayfs"
    } else {
        "native"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_named_in_gib() {
        let text = |kib: u64| format!("MemTotal:  16000000 kB\nMemAvailable:   {kib} kB\n");
        assert!(check_memory(&text(6 << 20)).is_ok());
        let error = check_memory(&text(5 << 20)).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("6 GiB") && e.contains("5.0 GiB")));
        assert!(check_memory("").is_err());
    }
}

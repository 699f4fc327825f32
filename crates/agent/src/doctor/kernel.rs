//! The kernel's version and settings, and the process's rights, out of `/proc`.

use std::fs;

use super::{Check, Status};

/// The first kernel that has all that the rules use.
const OLDEST: (u32, u32) = (5, 13);

/// From which share of the connection-tracking table on it is close to full, and as good as full, in percent.
const CLOSE: u64 = 75;
const FULL: u64 = 95;

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, as bits of `CapEff`.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;

pub(super) fn checks(out: &mut Vec<Check>) {
    out.push(version(&read("kernel/osrelease").unwrap_or_default()));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    out.push(privileges(&status));
}

fn version(release: &str) -> Check {
    const ID: &str = "kernel-version";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Check::ok(ID, format!("Linux {release}")),
        (Some(_), Some(_)) => Check::of(
            ID,
            Status::Fail,
            format!("Linux {release} is too old"),
            "run Linux 5.13 or later on this node",
        ),
        _ => Check::of(
            ID,
            Status::Unknown,
            format!("the kernel calls itself {release:?}"),
            "compare `uname -r` with 5.13",
        ),
    }
}

/// The capabilities of this process, out of `/proc/thread-self/status`.
fn capabilities(status: &str) -> Option<u64> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
}

/// What to do where the system refuses something: to become root, unless this process is that already.
pub(super) fn cure_of_refusal() -> &'static str {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    refused(capabilities(&status))
}

fn refused(capabilities: Option<u64>) -> &'static str {
    const ALL: u64 = NET_ADMIN | SYS_ADMIN;
    if capabilities.is_some_and(|bits| bits & ALL == ALL) {
        "this process has the rights that it takes: look at what else refuses it, such as a seccomp profile, SELinux or AppArmor, or a kernel without the feature"
    } else {
        "run `palisade doctor` as root on the node (CAP_SYS_ADMIN and CAP_NET_ADMIN)"
    }
}

fn privileges(status: &str) -> Check {
    const ID: &str = "privileges";
    let Some(bits) = capabilities(status) else {
        return Check::of(
            ID,
            Status::Unknown,
            "/proc does not say which capabilities this process has",
            "mount /proc",
        );
    };
    if bits & NET_ADMIN == 0 {
        return Check::of(
            ID,
            Status::Fail,
            "CAP_NET_ADMIN is missing",
            "run as root, or add NET_ADMIN to the container's capabilities",
        );
    }
    if bits & SYS_ADMIN == 0 {
        return Check::of(
            ID,
            Status::Warn,
            "CAP_NET_ADMIN is there, which the agent needs; without CAP_SYS_ADMIN nothing can be tried here",
            "run `palisade doctor` as root on the node for a full answer",
        );
    }
    Check::ok(ID, "CAP_NET_ADMIN, and CAP_SYS_ADMIN for what is tried here")
}

/// Whether the node forwards IPv4 and IPv6.
pub(super) fn forwarding(out: &mut Vec<Check>) -> [bool; 2] {
    const ID: &str = "ip-forward";
    let v4 = read("net/ipv4/ip_forward");
    let v6 = read("net/ipv6/conf/all/forwarding");
    let is_on = |value: &Option<String>| value.as_deref().is_some_and(|v| v != "0");
    let forwards = [is_on(&v4), is_on(&v6)];
    out.push(match (&v4, forwards) {
        (None, _) => Check::of(
            ID,
            Status::Unknown,
            "/proc does not say whether the node forwards packets",
            "mount /proc, and set net.ipv4.ip_forward=1",
        ),
        (_, [true, true]) => Check::ok(ID, "the node forwards IPv4 and IPv6"),
        (_, [true, false]) => Check::ok(ID, "the node forwards IPv4, and no IPv6"),
        (_, [false, true]) => Check::of(
            ID,
            Status::Warn,
            "the node forwards IPv6, and no IPv4: routed pods have no IPv4 traffic",
            "if the cluster has IPv4, set net.ipv4.ip_forward=1",
        ),
        (_, [false, false]) => Check::of(
            ID,
            Status::Fail,
            "the node forwards nothing: pods can't reach other nodes",
            "set net.ipv4.ip_forward=1 (and net.ipv6.conf.all.forwarding=1 for IPv6), in /etc/sysctl.d for good",
        ),
    });
    forwards
}

/// How full the connection-tracking table is.
pub(super) fn conntrack(out: &mut Vec<Check>) {
    const ID: &str = "conntrack-table";
    let number = |name: &str| read(&format!("net/netfilter/{name}")).and_then(|n| n.parse::<u64>().ok());
    let (count, most) = (number("nf_conntrack_count"), number("nf_conntrack_max"));
    out.push(match (count, most) {
        (Some(count), Some(most)) if most > 0 => fullness(ID, count, most),
        _ => Check::of(
            ID,
            Status::Unknown,
            "/proc does not say how full the connection-tracking table is",
            "load nf_conntrack; the kernel does so with the first rule that needs it",
        ),
    });
}

fn fullness(id: &'static str, count: u64, most: u64) -> Check {
    let found = format!("{count} of {most} connections are tracked");
    const CURE: &str = "raise net.netfilter.nf_conntrack_max, or find who opens so many connections";
    match count.saturating_mul(100) / most {
        share if share >= FULL => {
            Check::of(id, Status::Fail, format!("{found}: new ones are dropped, or soon will be"), CURE)
        }
        share if share >= CLOSE => Check::of(id, Status::Warn, found, CURE),
        _ => Check::ok(id, found),
    }
}

/// A setting below `/proc/sys`.
pub(super) fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_become_root() {
        assert!(refused(Some(u64::MAX)).contains("seccomp"));
        for bits in [None, Some(0), Some(NET_ADMIN)] {
            assert!(refused(bits).contains("as root"));
        }
        assert_eq!(super::capabilities("Name:\tx\nCapEff:\t0000000000201000\n"), Some(NET_ADMIN | SYS_ADMIN));
    }

    #[test]
    fn versions() {
        let status = |release| version(release).status;
        for good in ["5.13.0", "5.13-rc1", "6.1.0-18-amd64", "10.0"] {
            assert_eq!(status(good), Status::Ok, "{good}");
        }
        for bad in ["5.12.19", "4.18.0-553.el8_10.x86_64", "5.4"] {
            assert_eq!(status(bad), Status::Fail, "{bad}");
        }
        assert_eq!(status(""), Status::Unknown);
        assert_eq!(status("six"), Status::Unknown);
    }

    #[test]
    fn capabilities() {
        let status = |bits: &str| privileges(&format!("Name:\tx\nCapEff:\t{bits}\nCapBnd:\t0\n")).status;
        assert_eq!(status("000001ffffffffff"), Status::Ok);
        assert_eq!(status("0000000000001000"), Status::Warn);
        assert_eq!(status("0000000000000000"), Status::Fail);
        assert_eq!(status("-"), Status::Unknown);
    }

    #[test]
    fn tables() {
        let status = |count, most| fullness("x", count, most).status;
        assert_eq!((status(0, 100), status(74, 100)), (Status::Ok, Status::Ok));
        assert_eq!((status(75, 100), status(95, 100)), (Status::Warn, Status::Fail));
        assert_eq!(status(u64::MAX, 1), Status::Fail);
    }
}

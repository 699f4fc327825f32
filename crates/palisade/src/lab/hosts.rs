//! `--hosts`: addresses of host names outside the cluster, which the nodes of a lab treat as learned from DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::Read as _,
    net::IpAddr,
};

use anyhow::{Context as _, Result, bail};
use palisade_policy::{Cluster, DomainName, LearnedName};

use crate::{connection_ends::abbreviated, escape};

/// The longest file. Files of hosts that a person writes have a few kilobytes.
const MAX_SIZE: u64 = 1 << 20;
/// The most addresses. Each is probed from and to every pod.
const MAX_ADDRESSES: usize = 48;

/// Names, and the addresses that were learned for them.
pub(super) type Hosts = BTreeMap<DomainName, LearnedName>;

/// Reads a file in the format of /etc/hosts: lines with an address and names, comments after `#`.
///
/// # Errors
/// When it can't be read, has other lines, or too many addresses.
pub(super) fn read(path: &str) -> Result<Hosts> {
    let name = escape::plain(path).into_owned();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("can't read {name}"))?;
    file.take(MAX_SIZE + 1).read_to_string(&mut text).with_context(|| format!("can't read {name}"))?;
    if text.len() as u64 > MAX_SIZE {
        bail!("{name} is longer than {MAX_SIZE} bytes");
    }
    parse(&text).with_context(|| name)
}

fn parse(text: &str) -> Result<Hosts> {
    let mut hosts = Hosts::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(first) = words.next() else { continue };
        let wrong = |what: &str| format!("line {}: `{}` is no {what}", at + 1, escape::plain(first));
        let address: IpAddr = first.parse().with_context(|| wrong("address"))?;
        for word in words {
            let Some(name) = DomainName::new(word) else {
                bail!("line {}: `{}` is no host name", at + 1, escape::plain(word))
            };
            let empty = || LearnedName { name: name.clone(), addresses: std::iter::empty().collect() };
            hosts.entry(name.clone()).or_insert_with(empty).addresses.insert(address);
        }
    }
    let number = addresses(&hosts).len();
    if number == 0 {
        bail!("it has no host names");
    }
    if number > MAX_ADDRESSES {
        bail!("{number} addresses, but at most {MAX_ADDRESSES} can be probed");
    }
    Ok(hosts)
}

/// Returns all addresses.
pub(super) fn addresses(hosts: &Hosts) -> BTreeSet<IpAddr> {
    hosts.values().flat_map(|learned| learned.addresses.iter()).collect()
}

/// Formats the names of a cluster below its matrix; nothing if there are none.
pub(super) fn legend(cluster: &Cluster) -> String {
    let mut out = String::new();
    for learned in cluster.learned.values() {
        let all: Vec<IpAddr> = learned.addresses.iter().collect();
        _ = writeln!(out, "  {} is {}", learned.name, abbreviated(&all, ToString::to_string));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_etc_hosts_is() {
        let hosts =
            parse("# comment\n\n192.0.2.1 a.example B.example. # more\n2001:db8::1\ta.example\n").unwrap();
        let names: Vec<String> = hosts.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example", "b.example"]);
        assert_eq!(addresses(&hosts).len(), 2);
        let cluster = Cluster { learned: hosts, ..Cluster::default() };
        assert_eq!(legend(&cluster), "  a.example is 192.0.2.1, 2001:db8::1\n  b.example is 192.0.2.1\n");
    }

    #[test]
    fn what_is_no_hosts_file_is_refused_with_the_line() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(
            error("192.0.2.1 a.example\na.example 192.0.2.2")
                .starts_with("line 2: `a.example` is no address")
        );
        assert!(error("192.0.2.1 a..b").contains("line 1: `a..b` is no host name"));
        assert!(error("192.0.2.1\n").contains("no host names"));
        let many: String = (0..49).map(|n| format!("192.0.2.{n} n{n}.example\n")).collect();
        assert!(error(&many).contains("49 addresses, but at most 48"));
    }
}

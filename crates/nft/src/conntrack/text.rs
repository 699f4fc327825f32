//! The kernel's text about the connection-tracking table, `/proc/net/nf_conntrack`.
//!
//! A listing by netlink locks each bucket of the table, most of which are empty: 9 ms for the default of 262,144. The text passes over empty
//! buckets in a fifth of that time or less, and takes longer for each entry.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek},
    net::IpAddr,
};

/// Of the calling thread's network namespace.
const FILE: &str = "/proc/thread-self/net/nf_conntrack";
const RELEASE_FILE: &str = "/proc/sys/kernel/osrelease";

/// The first release that finds the entry behind the last one that it has shown by its bucket, as seen with 6.18. Earlier ones count from the beginning
/// of the table for every 4 kB, so that an entry is passed over when any one before it ends, and the time grows with the square of the entries. Now
/// that takes one before it in the same bucket, which ends just then. With as few entries as the text is read for, hardly any bucket has two.
const RESUMES_BY_BUCKET: (u32, u32) = (6, 18);

/// As many buckets as a listing by netlink passes in the time in which one entry is written as text and parsed: about 2 µs.
pub(super) const BUCKETS_PER_LINE: usize = 50;

/// What is read at most: as many entries as [`BUCKETS_PER_LINE`] allows with eight million buckets.
const LONGEST: u64 = 32 << 20;

/// The file, for the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct ConntrackText(File);

impl ConntrackText {
    /// Opens the file. `None` if the kernel has none (`CONFIG_NF_CONNTRACK_PROCFS`), or if the agent may not read it, or if it isn't exact.
    pub(super) fn open() -> Option<Self> {
        let release = fs::read_to_string(RELEASE_FILE).ok()?;
        if !resumes_by_bucket(&release) {
            return None;
        }
        File::open(FILE).ok().map(Self)
    }

    /// Returns whether any entry may have one of these addresses, at any end, translated or not. `None` if it can't be read completely.
    /// `O(buckets + entries)`.
    pub(super) fn mentions(&mut self, addresses: &BTreeSet<IpAddr>) -> Option<bool> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        let length = (&self.0).take(LONGEST).read_to_string(&mut text).ok()?;
        if length as u64 == LONGEST {
            return None;
        }
        text.lines().try_fold(false, |found, line| Some(found || mentions(line, addresses)?))
    }
}

/// `None` if the line isn't one of an entry.
fn mentions(line: &str, addresses: &BTreeSet<IpAddr>) -> Option<bool> {
    let mut ends = line.split_ascii_whitespace().filter_map(|word| {
        word.strip_prefix("src=").or_else(|| word.strip_prefix("dst=")).map(str::parse::<IpAddr>)
    });
    let (mut count, mut found) = (0, false);
    ends.try_for_each(|end| {
        count += 1;
        found |= addresses.contains(&end?);
        Ok::<_, std::net::AddrParseError>(())
    })
    .ok()?;
    (count == 4).then_some(found)
}

fn resumes_by_bucket(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= RESUMES_BY_BUCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_end_of_an_entry_counts() {
        let lines = [
            "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.96.0.1 sport=40000 dport=443 src=10.0.0.9 dst=192.0.2.1 \
             sport=6443 dport=40000 [ASSURED] mark=0 zone=0 use=2",
            "ipv6     10 icmpv6   58 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00:0000:0000:0000:0000:0000:0000:0002 type=128 \
             code=0 id=7 [UNREPLIED] src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:0000:0001 type=129 \
             code=0 id=7 mark=0 zone=0 use=2",
        ];
        for (line, ends) in [
            (0, ["10.0.0.1", "10.96.0.1", "10.0.0.9", "192.0.2.1"]),
            (1, ["fd00::1", "fd00::2", "fd00::1", "fd00::2"]),
        ] {
            for end in ends {
                assert_eq!(mentions(lines[line], &[end.parse().unwrap()].into()), Some(true), "{end}");
            }
            assert_eq!(
                mentions(lines[line], &["10.0.0.2".parse().unwrap(), "fd00::3".parse().unwrap()].into()),
                Some(false)
            );
        }
        for unknown in ["", "src=10.0.0.1 dst=10.0.0.2", "src=10.0.0.1 dst=here src=10.0.0.2 dst=10.0.0.1"] {
            assert_eq!(mentions(unknown, &["10.0.0.1".parse().unwrap()].into()), None, "{unknown}");
        }
    }

    #[test]
    fn the_text_of_older_kernels_is_not_used() {
        for exact in ["6.18.0", "6.18-rc1", "7.0.3-1-amd64"] {
            assert!(resumes_by_bucket(exact), "{exact}");
        }
        for older in ["6.12.48+deb13-amd64", "6.17.9", "5.10.0", "", "six"] {
            assert!(!resumes_by_bucket(older), "{older}");
        }
    }
}

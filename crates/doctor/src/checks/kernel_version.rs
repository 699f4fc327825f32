//! `kernel-version`: whether the kernel has all features that the rules use.

use crate::{
    finding::Outcome,
    node::{Node, sysctl},
};

/// The oldest kernel with all features that the rules use.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn check(_: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(version(&sysctl("kernel/osrelease").unwrap_or_default()))
}

fn version(release: &str) -> Outcome {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Outcome::ok(format!("Linux {release}")),
        (Some(_), Some(_)) => {
            Outcome::fail(format!("Linux {release} is too old"), "run Linux 5.10 or later on this node")
        }
        _ => Outcome::unknown(
            format!("cannot parse the kernel release {release:?}"),
            "compare `uname -r` with 5.10",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn versions() {
        let status = |release| version(release).status;
        for good in ["5.10.0-46-amd64", "5.10-rc1", "6.1.0-18-amd64", "10.0"] {
            assert_eq!(status(good), Status::Ok, "{good}");
        }
        for bad in ["5.9.16", "4.18.0-553.el8_10.x86_64", "5.4"] {
            assert_eq!(status(bad), Status::Fail, "{bad}");
        }
        assert_eq!(status(""), Status::Unknown);
        assert_eq!(status("six"), Status::Unknown);
    }
}

//! `conntrack-table`: how full the connection-tracking table is.

use crate::{
    finding::Outcome,
    node::{Node, sysctl},
};

/// From these percentages on the table is nearly full, and full.
const NEARLY_FULL: u64 = 75;
const FULL: u64 = 95;

pub(super) fn check(_: &Node<'_>) -> Result<Outcome, Outcome> {
    let number = |name: &str| sysctl(&format!("net/netfilter/{name}")).and_then(|n| n.parse::<u64>().ok());
    Ok(match (number("nf_conntrack_count"), number("nf_conntrack_max")) {
        (Some(count), Some(max)) if max > 0 => usage(count, max),
        _ => Outcome::unknown(
            "cannot read the size of the connection-tracking table from /proc",
            "load nf_conntrack; the kernel loads it with the first rule that needs it",
        ),
    })
}

fn usage(count: u64, max: u64) -> Outcome {
    const CURE: &str = "raise net.netfilter.nf_conntrack_max, or find what opens so many connections";
    let found = format!("{count} of {max} connections are tracked");
    match count.saturating_mul(100) / max {
        percent if percent >= FULL => {
            Outcome::fail(format!("{found}: new connections are dropped, or soon will be"), CURE)
        }
        percent if percent >= NEARLY_FULL => Outcome::warn(found, CURE),
        _ => Outcome::ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn a_full_table_fails() {
        let status = |count, max| usage(count, max).status;
        assert_eq!((status(0, 100), status(74, 100)), (Status::Ok, Status::Ok));
        assert_eq!((status(75, 100), status(95, 100)), (Status::Warn, Status::Fail));
        assert_eq!(status(u64::MAX, 1), Status::Fail);
    }
}

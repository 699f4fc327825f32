//! `notrack`: whether a rule exempts packets from connection tracking.

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(match &node.survey()?.notrack_chains[..] {
        [] => Outcome::ok("no rule exempts packets from connection tracking"),
        [(table, chain), ..] => Outcome::warn(
            format!(
                "chain {chain} of table {table} exempts packets from connection tracking (as node-local DNS caches do)"
            ),
            "none needed for a cache on the node; for packets to or from pods, policies must allow both directions",
        ),
    })
}

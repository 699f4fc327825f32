//! `flow-tables`: whether a flow table forwards established connections past the rules.

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(match &node.survey()?.flow_tables[..] {
        [] => Outcome::ok("no flow table forwards connections past the rules"),
        [(table, name), ..] => Outcome::warn(
            format!(
                "flow table {name} of table {table} forwards established connections past the rules: they continue after a \
                 change denies them"
            ),
            "exclude pods' interfaces from the flow table; kindnet and Calico's nftables mode can run without one (docs/install.md)",
        ),
    })
}

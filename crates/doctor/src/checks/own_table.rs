//! `table`: the state of the table `inet palisade`.

use palisade_nft::survey::OwnTable;

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(match &node.survey()?.own_table {
        None => Outcome::ok("table inet palisade does not exist yet"),
        Some(OwnTable::Current) if node.socket.exists() => {
            Outcome::ok("table inet palisade is of this version")
        }
        Some(OwnTable::Current) => Outcome::warn(
            "table inet palisade is active, but no agent updates it",
            "start the agent, or remove the rules with `palisade agent --remove`",
        ),
        Some(OwnTable::Dormant) => Outcome::fail(
            "table inet palisade is dormant (`flags dormant`): no policy is enforced",
            "start the agent, which clears the flag, and find out which program set it",
        ),
        Some(OwnTable::Owned(port)) => Outcome::fail(
            format!(
                "table inet palisade belongs to another program (netlink port {port}): no policy is enforced"
            ),
            "stop that program (the port is usually its process id); the agent then creates the table",
        ),
        Some(OwnTable::Other(comment)) => Outcome::warn(
            match comment {
                Some(comment) => format!("table inet palisade is of another version ({comment})"),
                None => "table inet palisade was created by another program".to_owned(),
            },
            "an agent of this version replaces it when it starts; `palisade agent --remove` removes it",
        ),
    })
}

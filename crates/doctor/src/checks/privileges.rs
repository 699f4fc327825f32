//! `privileges`: the capabilities of this process.

use crate::{
    finding::Outcome,
    node::{NET_ADMIN, Node, SYS_ADMIN},
};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(privileges(node.capabilities))
}

fn privileges(capabilities: Option<u64>) -> Outcome {
    match capabilities {
        None => Outcome::unknown("cannot read this process's capabilities from /proc", "mount /proc"),
        Some(bits) if bits & NET_ADMIN == 0 => Outcome::fail(
            "CAP_NET_ADMIN is missing",
            "run as root, or add NET_ADMIN to the container's capabilities",
        ),
        Some(bits) if bits & SYS_ADMIN == 0 => Outcome::warn(
            "CAP_NET_ADMIN is present, which the agent needs; without CAP_SYS_ADMIN the doctor can't try kernel features",
            "run `palisade doctor` as root on the node for all checks",
        ),
        Some(_) => Outcome::ok("CAP_NET_ADMIN and CAP_SYS_ADMIN are present"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn both_capabilities_are_needed() {
        let status = |bits| privileges(bits).status;
        assert_eq!(status(Some(0x1ff_ffff_ffff)), Status::Ok);
        assert_eq!(status(Some(0x1000)), Status::Warn);
        assert_eq!(status(Some(0)), Status::Fail);
        assert_eq!(status(None), Status::Unknown);
    }
}

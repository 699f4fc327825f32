//! `nftables-events`: whether the agent can be notified when another program changes its rules.

use palisade_nft::{Enforcer, drift::Watcher};

use crate::finding::{Outcome, chain};

pub(super) fn check(enforcer: &mut Enforcer) -> Outcome {
    match Watcher::open(enforcer.kernel()) {
        Ok(_) => Outcome::ok("the kernel sends notifications when other programs change the rules"),
        Err(e) => Outcome::warn(
            format!("the kernel sends no notifications when other programs change the rules: {}", chain(&e)),
            "none needed: the agent finds such changes at its next full comparison",
        ),
    }
}

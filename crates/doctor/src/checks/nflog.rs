//! `nflog`: whether denied packets can be logged and read.

use palisade_nft::{Enforcer, EnforcerOptions, drops::DropEventReader};

use crate::finding::{Outcome, chain};

pub(super) fn check(_: &mut Enforcer) -> Outcome {
    match DropEventReader::open(EnforcerOptions::default().log_group.unwrap_or_default()) {
        Ok(_) => Outcome::ok("denied packets can be logged and read"),
        Err(e) => Outcome::warn(
            format!("denied packets can't be reported: {}", chain(&e)),
            "load nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG); enforcement does not need it",
        ),
    }
}

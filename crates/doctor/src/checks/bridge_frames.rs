//! `bridge-frames`: whether frames other than plain IP can be dropped on bridges.

use palisade_nft::{Enforcer, Feature};

use crate::finding::Outcome;

pub(super) fn check(enforcer: &mut Enforcer) -> Outcome {
    if enforcer.missing_features().any(|feature| feature == Feature::Bridge) {
        Outcome::warn(
            "the kernel has no nftables bridge family: on a bridge, frames with a VLAN tag pass regardless of policies",
            "run a kernel with CONFIG_NF_TABLES_BRIDGE; not needed where no bridge connects pods",
        )
    } else {
        Outcome::ok("on bridges, frames other than plain IP can be dropped")
    }
}

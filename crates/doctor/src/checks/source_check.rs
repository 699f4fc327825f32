//! `source-check`: whether the kernel looks up the route back to a packet's source, which exposes forged sources.

use palisade_nft::{Enforcer, Feature};

use crate::finding::Outcome;

pub(super) fn check(enforcer: &mut Enforcer) -> Outcome {
    if enforcer.missing_features().any(|feature| feature == Feature::SourceCheck) {
        Outcome::warn(
            "the kernel does not look up reverse paths in nftables: packets with a forged source address are judged by that address",
            "run a kernel with CONFIG_NFT_FIB_INET, or set rp_filter=1 on pods' interfaces",
        )
    } else {
        Outcome::ok("packets with forged source addresses are detected by a reverse path lookup")
    }
}

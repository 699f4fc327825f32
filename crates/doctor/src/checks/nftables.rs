//! `nftables`: whether the kernel accepts the table with its maps, sets and base chains.

use palisade_nft::{Enforcer, Error};

use crate::finding::{Outcome, chain};

/// The enforcer has started: the kernel accepted the table.
pub(super) fn check(_: &mut Enforcer) -> Outcome {
    Outcome::ok("nf_tables accepts the table, its maps, sets and base chains")
}

/// The enforcer could not start.
pub(crate) fn refused(error: &Error) -> Outcome {
    Outcome::fail(
        chain(error),
        "load nf_tables and nf_conntrack, or run a kernel with CONFIG_NF_TABLES_INET, CONFIG_NFT_CT and CONFIG_NF_CONNTRACK_LABELS",
    )
}

//! `api-server`: whether the API server can be reached with the given credentials.

use palisade_api::{Rights, rights::RightsError};

use crate::finding::{Outcome, chain};

pub(super) fn check(rights: &Rights) -> Outcome {
    Outcome::ok(format!("{} is reachable at {}", rights.version, rights.server))
}

pub(crate) fn no_cluster() -> Outcome {
    Outcome::unknown(
        "no cluster is configured: there is no kubeconfig and no service account",
        "set KUBECONFIG or use --kubeconfig; --offline skips these checks",
    )
}

pub(crate) fn unreachable(error: &RightsError) -> Outcome {
    Outcome::fail(
        chain(error),
        "make the API server reachable from this node with these credentials; until then the agent keeps its last rules",
    )
}

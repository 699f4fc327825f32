//! `api-policies`: which policy kinds the API server serves.

use palisade_api::Rights;

use crate::finding::Outcome;

pub(super) fn check(rights: &Rights) -> Outcome {
    if rights.served.is_empty() {
        return Outcome::ok("NetworkPolicy is served, and no cluster-wide policy kind");
    }
    let kinds: Vec<String> =
        rights.served.iter().map(|(kind, versions)| format!("{kind} ({})", versions.join(", "))).collect();
    Outcome::ok(format!("NetworkPolicy is served, and {}", kinds.join(", ")))
}

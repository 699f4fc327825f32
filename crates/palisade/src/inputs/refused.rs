//! What `--keep-going` leaves out, and what that means for the answer.
//!
//! A policy with errors is not left out: it isolates what it selects ([`palisade_manifest::RefusedPolicy`]).

use palisade_api::ResourceKind;
use palisade_manifest::{Loaded, Severity};

use crate::{
    cluster::JsonMissing,
    output::{self, Style, styled},
};

/// Says what the documents with errors mean for the answer: each policy, and that the others are missing.
pub(crate) fn report(loaded: &Loaded) {
    let heading = styled(Style::Bad, "incomplete:");
    for refused in &loaded.refused {
        output::note(&format!("{heading} {refused}.\n"));
    }
    if let Some(others) = others(loaded) {
        output::note(&format!("{heading} {others}; {WITHOUT}.\n"));
    }
}

const WITHOUT: &str = "answers are without them";

/// The documents with errors as JSON values.
pub(crate) fn incomplete(loaded: &Loaded) -> impl Iterator<Item = JsonMissing<'_>> {
    let policies = loaded.refused.iter().map(|refused| {
        let kind = ResourceKind::from_name(&refused.key.kind);
        JsonMissing {
            kind: &refused.key.kind,
            resource: kind.map_or("", ResourceKind::plural),
            group: kind.map_or("", ResourceKind::group),
            why: format!("{} ({}) was refused", refused.key, refused.origin),
            means: &refused.effect,
            only_in: &[],
        }
    });
    let others = others(loaded).map(|why| JsonMissing {
        kind: "",
        resource: "",
        group: "",
        why,
        means: WITHOUT,
        only_in: &[],
    });
    policies.chain(others)
}

/// What has errors and is no policy, in words: `Pod (2), documents or files could not be read`.
fn others(loaded: &Loaded) -> Option<String> {
    let is_policy = |kind: &str| loaded.refused.iter().any(|refused| *refused.key.kind == *kind);
    let rejected = loaded.counts.rejected.iter().filter(|(kind, _)| !is_policy(kind));
    let mut words: Vec<String> = rejected.map(|(kind, n)| format!("{kind} ({n})")).collect();
    // An error without an object: a document that is no YAML, or a file that can't be read.
    let unnamed =
        loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error && d.object.is_none()).count();
    if unnamed > 0 || (words.is_empty() && loaded.has_errors() && loaded.refused.is_empty()) {
        words.push("documents or files".to_owned());
    }
    (!words.is_empty()).then(|| format!("{} could not be read", words.join(", ")))
}

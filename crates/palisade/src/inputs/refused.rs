//! What `--keep-going` leaves out, and what that means for the answer.
//!
//! A policy with errors is not left out: it isolates what it selects ([`palisade_manifest::RefusedPolicy`]).

use std::collections::BTreeSet;

use palisade_api::ResourceKind;
use palisade_manifest::{Loaded, RefusedPolicy, Severity};

use crate::{
    cluster::JsonMissing,
    output::{self, Style, styled},
};

/// Says what the documents with errors mean for the answer: each policy, and that the others are missing. Not what is the same in
/// `before`, of which it was said.
pub(super) fn report_new(loaded: &Loaded, before: &Loaded) {
    let heading = styled(Style::Bad, "incomplete:");
    for refused in new_policies(loaded, before) {
        output::note(&format!("{heading} {refused}.\n"));
    }
    if let Some(others) = new_others(loaded, before) {
        output::note(&format!("{heading} {others}; {WITHOUT}.\n"));
    }
}

const WITHOUT: &str = "answers are without them";

/// The documents with errors as JSON values.
pub(crate) fn incomplete(loaded: &Loaded) -> impl Iterator<Item = JsonMissing<'_>> {
    as_json(loaded.refused.iter(), others(loaded))
}

/// As [`incomplete`], of two versions. What is the same in both is named once, where it is in the second.
pub(crate) fn incomplete_sides([before, after]: &[Loaded; 2]) -> impl Iterator<Item = JsonMissing<'_>> {
    as_json(new_policies(before, after), new_others(before, after)).chain(incomplete(after))
}

fn as_json<'l>(
    policies: impl Iterator<Item = &'l RefusedPolicy>,
    others: Option<String>,
) -> impl Iterator<Item = JsonMissing<'l>> {
    let policies = policies.map(|refused| {
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
    let others = others.map(|why| JsonMissing {
        kind: "",
        resource: "",
        group: "",
        why,
        means: WITHOUT,
        only_in: &[],
    });
    policies.chain(others)
}

/// The refused policies that are not in `other`, in the same file and to the same effect.
fn new_policies<'l>(loaded: &'l Loaded, other: &Loaded) -> impl Iterator<Item = &'l RefusedPolicy> + use<'l> {
    let identity = |refused: &RefusedPolicy| {
        let RefusedPolicy { key, origin, effect } = refused;
        (key.clone(), origin.file.clone(), effect.clone())
    };
    let known: BTreeSet<_> = other.refused.iter().map(identity).collect();
    loaded.refused.iter().filter(move |refused| !known.contains(&identity(refused)))
}

/// What [`others`] says, unless it is the same of `other`.
fn new_others(loaded: &Loaded, other: &Loaded) -> Option<String> {
    others(loaded).filter(|words| others(other).as_ref() != Some(words))
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

//! What the loader found, for the rules that name it.

use palisade_manifest::{Code, Diagnostic, Severity};

use crate::{context::Context, finding::Found, level::Level};

/// Returns the findings of the loader about policies for which `fits` holds. `consequence` says what happens in the
/// cluster.
pub(crate) fn about_policies(
    cx: &Context<'_>,
    fits: impl Fn(&Diagnostic) -> bool,
    consequence: impl Fn(&Diagnostic) -> &'static str,
) -> Vec<Found> {
    about(cx, |d| is_about_policy(d) && fits(d), consequence)
}

/// Returns the findings of the loader for which `fits` holds, whatever they are about.
pub(crate) fn about(
    cx: &Context<'_>,
    fits: impl Fn(&Diagnostic) -> bool,
    consequence: impl Fn(&Diagnostic) -> &'static str,
) -> Vec<Found> {
    let fitting = cx.loaded.diagnostics.iter().filter(|d| fits(d));
    fitting.map(|d| found(d, consequence(d))).collect()
}

/// What comes of a policy that the API server refuses, or of a part that it admits and that can't be used.
pub(crate) fn refused_or_unusable(d: &Diagnostic) -> &'static str {
    match (d.code, d.path.as_deref()) {
        (Code::Unusable, Some(path)) if path.starts_with("spec.subject") => "the policy has no effect",
        (Code::Unusable, _) => "the rule has no effect as it is written",
        _ => "the API server rejects the policy, and what it should isolate stays open",
    }
}

/// Makes a finding of what the loader found.
pub(crate) fn found(d: &Diagnostic, consequence: &str) -> Found {
    let field = d.path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
    Found {
        level: Some(if d.severity == Severity::Error { Level::Error } else { Level::Warning }),
        origin: d.origin.clone(),
        object: d.object.clone(),
        message: format!("{field}{}: {consequence}", d.message),
        ..Found::default()
    }
}

pub(crate) fn is_about_policy(d: &Diagnostic) -> bool {
    d.object.as_ref().is_some_and(|o| o.split(' ').next().is_some_and(|kind| kind.ends_with("Policy")))
}

/// Returns whether a finding is about one peer of a cluster-wide policy: `spec.ingress[0].from[1]`.
pub(crate) fn is_cluster_wide_peer(d: &Diagnostic) -> bool {
    let path = d.path.as_deref().unwrap_or_default();
    let of_network_policy = d.object.as_ref().is_some_and(|object| object.starts_with("NetworkPolicy"));
    path.ends_with(']') && ["from", "to"].contains(&last(d)) && !of_network_policy
}

/// Returns whether a finding is an invalid value of a field with this name.
pub(crate) fn is_invalid(d: &Diagnostic, field: &str) -> bool {
    matches!(d.code, Code::Invalid | Code::Required | Code::Ambiguous | Code::WrongType | Code::Unusable)
        && last(d) == field
}

/// Returns the last field of the path, without an index.
pub(crate) fn last(d: &Diagnostic) -> &str {
    let path = d.path.as_deref().unwrap_or_default();
    let field = path.rsplit('.').next().unwrap_or(path);
    field.split('[').next().unwrap_or(field)
}

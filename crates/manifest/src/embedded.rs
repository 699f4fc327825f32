//! Policies inside objects of other kinds, such as an OpenShift Template, a kro ResourceGraphDefinition or a Kyverno rule
//! that generates objects. They are not in the cluster until a program or a controller has made them.

use std::ops::Range;

use crate::{
    kinds::{self, Found},
    scalar::Scalar,
    tree::{At, Value},
};

/// Returns the kind and the bytes of the first policy inside an object. `O(nodes of the object)`; the depth of documents is
/// limited.
pub(crate) fn policy(at: &At<'_>) -> Option<(&'static str, Range<u32>)> {
    let inside = |at: &At<'_>| is_policy(at).map(|kind| (kind, at.span())).or_else(|| policy(at));
    match at.value() {
        Value::Scalar(_) => None,
        Value::Sequence(_) => at.items().find_map(|item| inside(&item)),
        Value::Mapping(_) => at.entries().find_map(|(_, _, value)| inside(&value)),
    }
}

fn is_policy(at: &At<'_>) -> Option<&'static str> {
    let text = |name: &str| match at.get(name)?.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        _ => None,
    };
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    match kinds::find(group, version, &kind) {
        Found::Kind(kind) | Found::OtherVersion(kind, _) if kind.is_policy() => Some(kind.called),
        _ => None,
    }
}

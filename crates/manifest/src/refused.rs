//! Policies that the API server would refuse, and what stands for them.
//!
//! A policy with an error isn't in the cluster until it is corrected, but it is meant to be. An answer that left it out
//! would show as open what it should isolate. So it stays, without what it allows:
//! * A NetworkPolicy isolates the pods of its `podSelector`, in the directions of its `policyTypes`. If its selector
//!   can't be read, it isolates every pod of its namespace; if its namespace can't be read, every pod.
//! * A cluster-wide policy keeps what it denies ([`cluster_wide::refused()`]).

use std::fmt;

use palisade_policy::{Direction, Name, NamespaceMatch, Origin, Policy, PolicyKey, Selector};

use crate::{
    cluster_wide,
    decode::Context,
    isolation,
    kinds::ResourceKind,
    printable::printable,
    scalar::Scalar,
    tree::{At, Value},
};

/// A policy that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// The key of the policy that stands for it in the cluster.
    pub key: PolicyKey,
    /// Where it begins.
    pub origin: Origin,
    /// What stands for it, as the end of a sentence: `it isolates pods app=db of namespace shop for ingress`.
    pub effect: String,
}

impl fmt::Display for RefusedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, effect } = self;
        write!(f, "{} ({}) was refused: {}", printable(&key.to_string()), origin, printable(effect))
    }
}

/// A refused policy, and what stands for it.
#[derive(Debug)]
pub(crate) struct Substitute {
    pub(crate) refused: RefusedPolicy,
    pub(crate) policy: Policy,
}

/// Returns what stands for an object that should be a policy of this kind. Reports nothing.
pub(crate) fn substitute(
    cx: &mut Context<'_>,
    at: &At<'_>,
    kind: &'static ResourceKind,
    default_namespace: &str,
) -> Substitute {
    cx.object = Some(kind.name.to_owned());
    let origin = cx.origin(at);
    let metadata = at.get("metadata");
    let metadata = metadata.as_ref();
    let name = name(cx, metadata, &origin);
    if !kind.namespaced {
        let (policy, effect) = cluster_wide::refused(cx, at, kind.name, &name, &origin);
        return Substitute { refused: RefusedPolicy { key: policy.key.clone(), origin, effect }, policy };
    }
    let namespace = namespace(cx, metadata, default_namespace);
    let spec = at.get("spec");
    let selector = isolation::selector(cx, spec.as_ref());
    // A `spec` of another type says nothing about the directions.
    let readable =
        spec.is_none_or(|at| matches!(at.value(), Value::Mapping(_) | Value::Scalar(Scalar::Null)));
    let directions = if readable { isolation::directions(spec.as_ref()) } else { Direction::BOTH.to_vec() };
    let effect = effect(selector.as_ref(), namespace.as_ref(), &directions);
    let key = PolicyKey {
        kind: cx.names.name(kind.name),
        namespace: namespace.clone().unwrap_or_else(|| Name::from("")),
        name,
    };
    let namespaces =
        namespace.map_or_else(|| NamespaceMatch::Selected(Selector::everything()), NamespaceMatch::Named);
    let policy = isolation::isolation(key.clone(), namespaces, selector, &directions, Some(origin.clone()));
    Substitute { refused: RefusedPolicy { key, origin, effect }, policy }
}

fn effect(selector: Option<&Selector>, namespace: Option<&Name>, directions: &[Direction]) -> String {
    let pods = match selector {
        Some(selector) if !selector.is_everything() => format!("pods {selector}"),
        _ => "every pod".to_owned(),
    };
    let namespace = namespace.map_or_else(|| "every namespace".to_owned(), |n| format!("namespace {n}"));
    let isolated = [Direction::Ingress, Direction::Egress].into_iter().filter(|d| directions.contains(d));
    let isolated: Vec<String> = isolated.map(|d| d.to_string()).collect();
    format!("it isolates {pods} of {namespace} for {}, and allows nothing", isolated.join(" and "))
}

/// The name of an object, however broken its metadata is.
fn name(cx: &mut Context<'_>, metadata: Option<&At<'_>>, origin: &Origin) -> Name {
    let name = text(cx, metadata, "name").filter(|name| !name.is_empty());
    match (name, text(cx, metadata, "generateName")) {
        (Some(name), _) => cx.names.name(&name),
        (None, prefix) => cx.names.name(&format!("{}line-{}", prefix.unwrap_or_default(), origin.line)),
    }
}

/// The namespace of an object; `None` if it is given and can't be read.
fn namespace(cx: &mut Context<'_>, metadata: Option<&At<'_>>, default: &str) -> Option<Name> {
    let Some(metadata) = metadata.filter(|at| !at.is_null()) else { return Some(cx.names.name(default)) };
    let Value::Mapping(_) = metadata.value() else { return None };
    match metadata.get("namespace").filter(|at| !at.is_null()) {
        None => Some(cx.names.name(default)),
        Some(_) => match text(cx, Some(metadata), "namespace")?.as_str() {
            "" => Some(cx.names.name(default)),
            // An unrendered template.
            text if text.contains("{{") || text.contains("${") => None,
            text => Some(cx.names.name(text)),
        },
    }
}

/// The text of a scalar, such as `123`, which is no string.
fn text(cx: &Context<'_>, parent: Option<&At<'_>>, field: &str) -> Option<String> {
    let at = parent?.get(field)?;
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        Value::Scalar(Scalar::Null) | Value::Sequence(_) | Value::Mapping(_) => None,
        Value::Scalar(_) => {
            let span = at.span();
            cx.text.as_str().get(span.start as usize..span.end as usize).map(str::to_owned)
        }
    }
}

//! Decodes policies from an API server, and fails closed if they are invalid.

use std::sync::Arc;

use palisade_policy::{Direction, Interner, Name, NamespaceMatch, ObjectKey, Origin, Policy, PolicyKey};

use super::Decoded;
use crate::{
    declared::Declaration,
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    isolation,
    kinds::{self, NETWORK_POLICY},
    meta::{Meta, Object},
    mode,
    options::{Admission, Channel},
    scalar::Scalar,
    text::Text,
    tree::{At, Documents, Limits, Tree, Value},
};

/// Reads a policy. See [`super::ObjectDecoder::policy`].
pub(super) fn read(names: &Interner, object: String) -> Decoded<Option<Arc<Policy>>> {
    let text = Text::of_cluster(object);
    let mut found = Vec::new();
    let mut cx = Context {
        text: &text,
        names,
        found: &mut found,
        strict: false,
        strict_cidr: false,
        channel: Channel::Experimental,
        admission: Admission::Passed,
        learns_names: false,
        object: None,
        errors: 0,
    };
    let mut policy = match Documents::new(text.as_str(), Limits::default()).next() {
        Some(Ok(tree)) => of_tree(&mut cx, &tree),
        Some(Err(problems)) => {
            for problem in problems {
                cx.report_span(0..0, Diagnostic::new(Severity::Error, Code::NotAnObject, problem.message));
            }
            None
        }
        None => None,
    };
    if let Some(policy) = &mut policy {
        remove_origins(policy);
    }
    for finding in &mut found {
        (finding.origin, finding.span, finding.excerpt) = (None, None, None);
    }
    Decoded { value: policy.map(Arc::new), findings: found }
}

fn of_tree(cx: &mut Context<'_>, tree: &Tree<'_>) -> Option<Policy> {
    let root = tree.root();
    let (kind, version) = (text_at(&root, &["kind"]), text_at(&root, &["apiVersion"]));
    let name = text_at(&root, &["metadata", "name"]).filter(|n| !n.is_empty())?;
    let namespace = text_at(&root, &["metadata", "namespace"]).unwrap_or_default();
    let (kind, version) = (kind.unwrap_or_default(), version.unwrap_or_default());
    let key = ObjectKey { namespace: cx.names.name(&namespace), name: cx.names.name(&name) };
    cx.object = Some(if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {key}") });
    let meta = Meta {
        key,
        labels: palisade_policy::Labels::default(),
        owner: None,
        created: 0,
        uid: palisade_policy::Uid::UNKNOWN,
        origin: Origin { file: Name::from(""), line: 0, column: 0 },
    };
    let version = version.rsplit('/').next().unwrap_or_default();
    let kind = kinds::named(&kind)?;
    let object = Object { kind: kind.name, version, meta, fields: Fields { at: &root } };
    let before = cx.found.len();
    let policy = match (kind.decode)(cx, &object) {
        Some(Declaration::Policy(policy, _)) => Some(*policy),
        _ => None,
    };
    if kind.name == NETWORK_POLICY { Some(failing_closed(cx, &object, policy, before)) } else { policy }
}

/// Returns the decoded NetworkPolicy; without its rules if a field is unknown, and isolation if it is invalid. Its
/// findings are those after the first `before`.
fn failing_closed(
    cx: &mut Context<'_>,
    object: &Object<'_>,
    policy: Option<Policy>,
    before: usize,
) -> Policy {
    let Some(mut policy) = policy.filter(|_| cx.errors == 0) else { return isolation(cx, object) };
    let is_unknown_field = |d: &Diagnostic| d.code == Code::UnknownField;
    if cx.found[before..].iter().any(is_unknown_field) {
        let message = "an unknown field could restrict its rules, so none of them is applied";
        cx.error(object.fields.at, Code::Unusable, message);
        policy.ingress = policy.ingress.map(|_| Vec::new());
        policy.egress = policy.egress.map(|_| Vec::new());
    }
    policy
}

/// Isolates in both directions, in place of a NetworkPolicy that can't be decoded.
fn isolation(cx: &mut Context<'_>, object: &Object<'_>) -> Policy {
    let meta = &object.meta;
    let spec = object.fields.at.get("spec");
    let selector = isolation::selector(cx, spec.as_ref());
    let message = match &selector {
        Some(_) => {
            "is invalid; the pods that it selects are isolated in both directions, and no rule is applied"
                .to_owned()
        }
        None => format!(
            "is invalid, and so is its podSelector; every pod of namespace {} is isolated in both directions",
            meta.key.namespace
        ),
    };
    let help = "correct or delete the policy";
    cx.report(object.fields.at, Diagnostic::new(Severity::Error, Code::Unusable, message).with_help(help));
    let ObjectKey { namespace, name } = meta.key.clone();
    let key = PolicyKey { kind: cx.names.name(NETWORK_POLICY), namespace: namespace.clone(), name };
    let mode = mode::of_annotation(cx, object);
    let isolating =
        isolation::isolation(key, NamespaceMatch::Named(namespace), selector, &Direction::BOTH, None);
    Policy { mode, ..isolating }
}

/// Returns the string at a path, if there is one.
fn text_at(at: &At<'_>, path: &[&str]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return match at.value() {
            Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
            _ => None,
        };
    };
    text_at(&at.get(first)?, rest)
}

/// Removes the positions, which are meaningless to users.
fn remove_origins(policy: &mut Policy) {
    policy.origin = None;
    for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
        rule.origin = None;
        for peer in rule.peers.iter_mut().flatten() {
            peer.origin = None;
        }
        for port in rule.ports.iter_mut().flatten() {
            port.origin = None;
        }
    }
}

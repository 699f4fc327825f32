//! Decodes policies from an API server, and fails closed if they are invalid.

use std::sync::Arc;

use palisade_policy::{Direction, Interner, NamespaceMatch, ObjectKey, Policy, PolicyKey};

use super::{Decoded, whole};
use crate::{
    declared::Declaration,
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    isolation,
    kinds::NETWORK_POLICY,
    meta::Object,
    mode,
};

/// Reads a policy. See [`super::ObjectDecoder::policy`].
pub(super) fn read(names: &Interner, object: String) -> Decoded<Option<Arc<Policy>>> {
    let Decoded { value, findings } = whole::read(names, object, |cx, object, declared, before| {
        let policy = match declared {
            Some(Declaration::Policy(policy, _)) => Some(*policy),
            _ => None,
        };
        if object.kind == NETWORK_POLICY { Some(failing_closed(cx, object, policy, before)) } else { policy }
    });
    let value = value.map(|mut policy| {
        remove_origins(&mut policy);
        Arc::new(policy)
    });
    Decoded { value, findings }
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

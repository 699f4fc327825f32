//! What a NetworkPolicy does that can't be decoded: it isolates the pods that it selects, and allows nothing.
//!
//! What it should allow is unknown, and leaving it out would open the pods that it should isolate. The agent does this
//! with policies of an API server ([`crate::api_objects`]), the command line with those that a server would refuse
//! ([`crate::refused`]).

use palisade_policy::{Direction, NamespaceMatch, Origin, PodMatch, Policy, PolicyKey, Selector, Tier};

use crate::{
    decode::Context,
    diagnostic::Code,
    scalar::Scalar,
    selector::label_selector,
    tree::{At, Value},
};

/// Returns the `podSelector` of a `spec`; `None` if there is none or it is invalid. Reports nothing.
pub(crate) fn selector(cx: &mut Context<'_>, spec: Option<&At<'_>>) -> Option<Selector> {
    let at = spec?.get("podSelector").filter(|at| !at.is_null())?;
    cx.quietly(|cx| {
        let before = cx.found.len();
        let selector = label_selector(cx, &at);
        // An unknown field could restrict the selector.
        let readable = cx.errors == 0 && !cx.found[before..].iter().any(|d| d.code == Code::UnknownField);
        readable.then_some(selector)
    })
}

/// Returns the directions that a `spec` isolates (SEMANTICS A6), and both if that can't be read.
pub(crate) fn directions(spec: Option<&At<'_>>) -> Vec<Direction> {
    let types = spec.and_then(|spec| spec.get("policyTypes")).filter(|at| !at.is_null());
    let is_empty = |at: &At<'_>| matches!(at.value(), Value::Sequence(0) | Value::Scalar(Scalar::Null));
    let Some(types) = types.filter(|at| !is_empty(at)) else {
        let egress = spec.and_then(|spec| spec.get("egress")).is_some_and(|at| !is_empty(&at));
        return if egress { Direction::BOTH.to_vec() } else { vec![Direction::Ingress] };
    };
    let named = |at: &At<'_>| match at.value() {
        Value::Scalar(Scalar::Str(text)) => match &**text {
            "Ingress" => Some(Direction::Ingress),
            "Egress" => Some(Direction::Egress),
            _ => None,
        },
        _ => None,
    };
    match types.value() {
        Value::Sequence(_) => types
            .items()
            .map(|at| named(&at))
            .collect::<Option<Vec<Direction>>>()
            .map_or_else(|| Direction::BOTH.to_vec(), sorted),
        _ => Direction::BOTH.to_vec(),
    }
}

fn sorted(mut directions: Vec<Direction>) -> Vec<Direction> {
    directions.sort_unstable();
    directions.dedup();
    directions
}

/// Returns the policy that isolates pods in these directions and has no rules. Without a selector, it isolates every pod
/// of the namespaces.
pub(crate) fn isolation(
    key: PolicyKey,
    namespaces: NamespaceMatch,
    selector: Option<Selector>,
    directions: &[Direction],
    origin: Option<Origin>,
) -> Policy {
    let rules = |direction| directions.contains(&direction).then(Vec::new);
    Policy {
        key,
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch { namespaces, pods: selector.unwrap_or_else(Selector::everything) },
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        origin,
    }
}

//! What stands for a cluster-wide policy that the API server would refuse: what it denies.
//!
//! The rules are read as those of an admitted object, so unusable ones fail closed (SEMANTICS C23, C24, G-15, G-16). But
//! the object is not in the cluster, so nothing in it may open anything: a rule that accepts matches nothing, and one
//! that passes denies. Unlike in an admitted object (G-17), an unusable subject is every pod: the answer to a question
//! can't lock out a cluster.

use palisade_policy::{
    Action, Direction, Name, NamespaceMatch, Origin, PodMatch, Policy, PolicyKey, Rule, Selector, Tier,
};

use super::{crd::Crd, normal_form, unusable::AdmittedReader};
use crate::{
    decode::{Context, Fields},
    meta::{Meta, Object},
    options::{Admission, Channel},
    scalar::Scalar,
    tree::{At, Value},
};

/// Returns what stands for a refused object of this kind, and describes it as the end of a sentence. Reports nothing.
pub(crate) fn refused(
    cx: &mut Context<'_>,
    at: &At<'_>,
    kind: &'static str,
    name: &Name,
    origin: &Origin,
) -> (Policy, String) {
    let admission = std::mem::replace(&mut cx.admission, Admission::Passed);
    let mut policy = cx.quietly(|cx| closed(cx, at, kind, name, origin));
    cx.admission = admission;
    policy.key = PolicyKey { kind: cx.names.name(kind), namespace: Name::from(""), name: name.clone() };
    let everything = [&policy.ingress, &policy.egress].into_iter().flatten().flatten().any(denies_everything);
    let what = if everything { "it denies everything" } else { "it denies what its rules deny or pass" };
    (policy, format!("{what} to or from the pods that it selects, and allows nothing"))
}

fn closed(cx: &mut Context<'_>, at: &At<'_>, kind: &'static str, name: &Name, origin: &Origin) -> Policy {
    let version = match at.get("apiVersion").as_ref().map(At::value) {
        Some(Value::Scalar(Scalar::Str(text))) => text.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let fields = Fields { at };
    let spec = at.get("spec").filter(|at| matches!(at.value(), Value::Mapping(_)));
    let crd = Crd::of(kind, &version, Channel::Experimental, Admission::Passed);
    let subject = crd.zip(spec).and_then(|(crd, spec)| {
        let mut reader = AdmittedReader::new(cx, crd);
        let subject = reader.usable_subject(Fields { at: &spec });
        subject.filter(|_| std::mem::take(&mut cx.errors) == 0)
    });
    let key = palisade_policy::ObjectKey { namespace: Name::from(""), name: name.clone() };
    let meta = Meta {
        key,
        labels: palisade_policy::Labels::default(),
        owner: None,
        created: 0,
        uid: palisade_policy::Uid::UNKNOWN,
        origin: origin.clone(),
    };
    let object = Object { kind, version: &version, meta, fields };
    let whole = crd.and_then(|crd| normal_form::policy(cx, &object, crd));
    let subject = subject.unwrap_or_else(every_pod);
    if let Some(policy) = whole {
        let close = |rules: Vec<Rule>| rules.into_iter().map(without_opening).collect();
        return Policy {
            subject,
            ingress: policy.ingress.map(close),
            egress: policy.egress.map(close),
            ..policy
        };
    }
    let is_baseline = kind == "BaselineAdminNetworkPolicy"
        || spec.is_some_and(|spec| {
            matches!(spec.get("tier").as_ref().map(At::value), Some(Value::Scalar(Scalar::Str(t))) if t == "Baseline")
        });
    let rules = |direction: Direction| {
        let field = if direction == Direction::Ingress { "ingress" } else { "egress" };
        // Without a readable `spec`, both directions may have rules.
        let has_rules = spec.is_none_or(|spec| spec.get(field).is_some_and(|at| !is_empty(&at)));
        has_rules.then(|| vec![deny_everything(origin.clone())])
    };
    Policy {
        key: PolicyKey { kind: Name::from(kind), namespace: Name::from(""), name: name.clone() },
        tier: if is_baseline { Tier::Baseline } else { Tier::Admin },
        // Before all others, since its place is unknown.
        priority: i32::MIN,
        mode: None,
        subject,
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
        origin: Some(origin.clone()),
    }
}

fn without_opening(rule: Rule) -> Rule {
    match rule.action {
        Action::Accept => Rule { peers: Some(Vec::new()), ..rule },
        Action::Deny | Action::Pass => Rule { action: Action::Deny, ..rule },
    }
}

fn denies_everything(rule: &Rule) -> bool {
    rule.action == Action::Deny && rule.peers.is_none() && rule.ports.is_none()
}

fn deny_everything(origin: Origin) -> Rule {
    Rule { name: None, action: Action::Deny, peers: None, ports: None, origin: Some(origin) }
}

fn is_empty(at: &At<'_>) -> bool {
    matches!(at.value(), Value::Sequence(0) | Value::Scalar(Scalar::Null))
}

fn every_pod() -> PodMatch {
    PodMatch { namespaces: NamespaceMatch::Selected(Selector::everything()), pods: Selector::everything() }
}

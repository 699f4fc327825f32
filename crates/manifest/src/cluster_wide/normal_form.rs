//! Converts an admitted cluster-wide policy into the normal form of all policies (SEMANTICS B.3, C.2 to C.4).

use std::collections::BTreeSet;

use palisade_policy::{
    Action, Direction, Name, NamespaceMatch, Peer, PeerEntry, PodMatch, Policy, PolicyKey, PortEntry,
    PortMatch, Requirement, Rule, Selector, Test, Tier,
};

use super::{
    crd::{ClusterWideKind, Crd},
    unusable::AdmittedReader,
};
use crate::{
    decode::{Context, Fields, quoted},
    diagnostic::Code,
    meta::Object,
    mode,
    tree::At,
};

/// Converts a policy. Returns `None`, after an error, if its tier or priority is invalid, or if its fields have the
/// wrong types.
pub(super) fn policy(cx: &mut Context<'_>, object: &Object<'_>, crd: Crd) -> Option<Policy> {
    let Some(spec) = object.get("spec") else {
        cx.missing(object.fields.at, "spec", Code::Required, "Required value");
        return None;
    };
    let mut reader = AdmittedReader::new(cx, crd);
    // The unknown fields of a validated object have been reported.
    let spec = if reader.is_raw() {
        reader.cx.fields(&spec, crd.spec_fields())
    } else {
        reader.cx.any_fields(&spec)
    };
    let spec = spec?;
    let tier = reader.tier(spec);
    let priority = reader.priority(spec);
    let mode = mode::of_annotation(reader.cx, object);
    let policy = Policy {
        key: PolicyKey {
            kind: reader.cx.names.name(crd.kind.name()),
            namespace: Name::from(""),
            name: object.meta.key.name.clone(),
        },
        tier: tier?,
        priority: priority?,
        mode,
        subject: reader.subject(spec),
        ingress: reader.rules(spec, Direction::Ingress),
        egress: reader.rules(spec, Direction::Egress),
        origin: Some(object.meta.origin.clone()),
    };
    (reader.cx.errors == 0).then_some(policy)
}

impl AdmittedReader<'_, '_> {
    fn tier(&mut self, spec: Fields<'_>) -> Option<Tier> {
        match self.crd.kind {
            ClusterWideKind::Cluster => {}
            ClusterWideKind::Admin => return Some(Tier::Admin),
            ClusterWideKind::Baseline => return Some(Tier::Baseline),
        }
        let Some(at) = spec.get("tier") else {
            self.cx.missing(spec.at, "tier", Code::Required, "Required value");
            return None;
        };
        match self.cx.string(&at)? {
            "Admin" => Some(Tier::Admin),
            "Baseline" => Some(Tier::Baseline),
            _ => {
                let message = format!("Unsupported value: {}: no known tier", quoted(&at));
                self.cx.error(&at, Code::Invalid, message);
                None
            }
        }
    }

    fn priority(&mut self, spec: Fields<'_>) -> Option<i32> {
        // G-14: it comes after all ClusterNetworkPolicies of the Baseline tier.
        if self.crd.kind == ClusterWideKind::Baseline {
            return Some(i32::MAX);
        }
        let Some(at) = spec.get("priority") else {
            self.cx.missing(spec.at, "priority", Code::Required, "Required value");
            return None;
        };
        self.cx.int32(&at)
    }

    fn subject(&mut self, spec: Fields<'_>) -> PodMatch {
        self.usable_subject(spec).unwrap_or_else(nothing)
    }

    /// Returns the subject; `None`, after a warning, if it is unusable.
    pub(super) fn usable_subject(&mut self, spec: Fields<'_>) -> Option<PodMatch> {
        let subject = self.required(spec, "subject").and_then(|at| {
            let (kind, at) = self.only_field(&at, &["namespaces", "pods"], "subject")?;
            self.pod_match(kind, &at)
        });
        let usable = self.check_usable("the subject is unusable and the policy selects nothing");
        subject.filter(|_| usable)
    }

    /// Returns the rules; `None` if there are none, in which case the policy doesn't apply to the direction (SEMANTICS
    /// B9, C10).
    fn rules(&mut self, spec: Fields<'_>, direction: Direction) -> Option<Vec<Rule>> {
        let at = spec.get(if direction == Direction::Ingress { "ingress" } else { "egress" })?;
        let rules: Vec<Rule> = self.cx.list(&at).iter().map(|at| self.rule(at, direction)).collect();
        (!rules.is_empty()).then_some(rules)
    }

    fn rule(&mut self, at: &At<'_>, direction: Direction) -> Rule {
        let origin = Some(self.cx.origin(at));
        let Some(fields) = self.fields(at, &self.crd.rule_fields(direction)) else {
            // A null rule, which no API server admits.
            self.unusable(at, "no rule");
            let rule = Rule { name: None, action: Action::Deny, peers: None, ports: None, origin };
            return self.fail_closed(rule, direction);
        };
        let action = self.action(fields);
        let peers = match self.required(fields, self.crd.peers_field(direction)) {
            Some(at) => {
                self.non_empty_list(&at).iter().flat_map(|at| self.peer(at, direction, action)).collect()
            }
            None => Vec::new(),
        };
        let ports_at = fields.get(self.crd.ports_field());
        let ports = ports_at.as_ref().map(|at| {
            self.non_empty_list(at).iter().filter_map(|at| self.port(at)).collect::<Vec<PortEntry>>()
        });
        if let (Some(at), Some(ports)) = (&ports_at, &ports)
            && names_without_pods(&peers, ports)
        {
            self.cx.warn(
                at,
                Code::Ambiguous,
                "a port name matches only running pods: of the networks, nodes and domain names of this rule, it matches the \
                 addresses of pods that declare it",
            );
        }
        // The type has been validated.
        let name = fields.string(self.cx, "name").filter(|n| !n.is_empty());
        let name = name.map(|n| self.cx.names.name(n));
        self.fail_closed(Rule { name, action, peers: Some(peers), ports, origin }, direction)
    }

    /// Reads the action. An unknown action counts as Deny (SEMANTICS G-16).
    fn action(&mut self, fields: Fields<'_>) -> Action {
        let Some(at) = self.required(fields, "action") else { return Action::Deny };
        let Some(text) = self.cx.string(&at) else { return Action::Deny };
        if !self.crd.actions().contains(&text) {
            self.unusable(&at, format!("unknown action {}, treated as Deny", quoted(&at)));
            return Action::Deny;
        }
        match text {
            "Accept" | "Allow" => Action::Accept,
            "Pass" => Action::Pass,
            _ => Action::Deny,
        }
    }
}

/// Returns whether a rule combines port names with peers that don't declare any (SEMANTICS G-15).
fn names_without_pods(peers: &[PeerEntry], ports: &[PortEntry]) -> bool {
    ports.iter().any(|p| matches!(p.port, PortMatch::Named { .. }))
        && peers.iter().any(|p| !matches!(p.peer, Peer::Pods(_)))
}

/// Matches no pod.
fn nothing() -> PodMatch {
    // Every namespace has this label, and no value is in an empty list.
    let impossible =
        Requirement { key: Name::from("kubernetes.io/metadata.name"), test: Test::In(BTreeSet::new()) };
    PodMatch {
        namespaces: NamespaceMatch::Selected(Selector::new([impossible])),
        pods: Selector::everything(),
    }
}

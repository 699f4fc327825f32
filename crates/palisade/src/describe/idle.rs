//! Says why a part of a policy does nothing.

use palisade_analysis::{
    describe::{CoveredWhat, IdlePart, IdleReason, PodAddress},
    exposure::RuleAt,
};
use palisade_names::{describe_port, near};
use palisade_policy::{
    Cluster, Direction, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, Peer, Policy, PolicyKey, PortMatch,
    Selector, Test,
};

use super::sentence::{choice_text, peer_text};
use crate::{connection_ends::abbreviated, escape};

/// A part that does nothing, in words.
pub(crate) struct IdleText {
    /// A word for programs.
    pub(crate) code: &'static str,
    /// `ingress rule 2: no pod in namespace shop has app=gatewey`.
    pub(crate) text: String,
}

/// Says what a part is and why it does nothing.
pub(crate) fn text(policy: &Policy, part: &IdlePart, cluster: &Cluster) -> IdleText {
    let (code, reason) = reason(policy, part, cluster);
    let place = match part.rule {
        None => String::new(),
        Some((direction, index)) => match policy.rules(direction).and_then(|r| r.get(index)?.name.as_deref())
        {
            Some(name) => format!("{direction} rule {} ({name}): ", index + 1),
            None => format!("{direction} rule {}: ", index + 1),
        },
    };
    IdleText { code, text: escape::plain(&format!("{place}{reason}")).into_owned() }
}

/// Says why a part does nothing, where its place is clear.
pub(super) fn why(policy: &Policy, part: &IdlePart, cluster: &Cluster) -> String {
    escape::plain(&reason(policy, part, cluster).1).into_owned()
}

fn reason(policy: &Policy, part: &IdlePart, cluster: &Cluster) -> (&'static str, String) {
    match &part.reason {
        IdleReason::SelectsNoPod => {
            let pods = choice_text(&policy.subject);
            ("selects-no-pod", format!("the policy selects no running pod; it will apply to {pods}"))
        }
        IdleReason::Contradiction(choice) => {
            let selector = palisade_names::describe_peer(&Peer::Pods(choice.clone()));
            ("contradiction", format!("no pod can match {selector}: the requirements contradict each other"))
        }
        IdleReason::NoNamespace(peer) => {
            let hint = namespace_hint(&peer.namespaces, cluster);
            ("no-namespace", format!("{}: there is no such namespace{hint}", choice_text(peer)))
        }
        IdleReason::NoPod { peer, namespaces } => {
            let known = abbreviated(namespaces, ToString::to_string);
            let noun = if namespaces.len() == 1 { "namespace" } else { "namespaces" };
            let labels = if peer.pods.is_everything() {
                format!("there is no running pod in {noun} {known}")
            } else {
                let hint = label_hint(&peer.pods, namespaces, cluster);
                format!("no running pod in {noun} {known} has labels {}{hint}", peer.pods)
            };
            ("no-pod", format!("{}: {labels}", choice_text(peer)))
        }
        IdleReason::OnlyHostNetwork { peer, pod } => (
            "host-network",
            format!(
                "{}: {pod} has these labels, but uses the host network, and selectors never match such pods",
                choice_text(peer)
            ),
        ),
        IdleReason::NoNode(selector) => ("no-node", format!("no node has labels {selector}")),
        IdleReason::NoSuchPort { name, protocol, known } => {
            let port = describe_port(&PortMatch::Named { protocol: *protocol, name: name.clone() });
            let whose = match part.rule {
                Some((Direction::Egress, _)) => "no pod that the peers select",
                _ => "no pod that the policy selects",
            };
            let known = match &known[..] {
                [] => "their ports have no names".to_owned(),
                some => format!("they have {}", abbreviated(some, |n| format!("\"{n}\""))),
            };
            ("no-such-port", format!("{whose} has {port}: {known}"))
        }
        IdleReason::ServiceAddress { block, service } => (
            "service-address",
            format!(
                "{} is the address of Service {service}: policies see the pods behind it, so select these by labels",
                block.cidr
            ),
        ),
        IdleReason::Covered { part: what, by } => {
            let rule = part.rule.map(|(_, index)| index);
            let what = match what {
                CoveredWhat::Rule => "everything it matches".to_owned(),
                CoveredWhat::Peer(peer) => peer_text(peer),
                CoveredWhat::Port(port) => describe_port(port),
            };
            let by = abbreviated(by, |at| covering(&policy.key, rule, at));
            ("covered", format!("{what} is already matched by {by}"))
        }
    }
}

/// Says why a peer that is a pod's address is fragile.
pub(super) fn pod_address(found: &PodAddress) -> String {
    let text = format!(
        "{} is the address of pod {} now; when it is replaced, it has another: select it by labels",
        found.block.cidr, found.pod
    );
    escape::plain(&text).into_owned()
}

/// Returns the single values that a selector requires, with their keys.
fn required(selector: &Selector) -> impl Iterator<Item = (&Name, &Name)> {
    selector.requirements().iter().filter_map(|requirement| match &requirement.test {
        Test::In(values) if values.len() == 1 => Some((&requirement.key, values.first()?)),
        _ => None,
    })
}

/// Suggests the label of a namespace's name, if the selector asks for another label with a name as its value.
fn namespace_hint(namespaces: &NamespaceMatch, cluster: &Cluster) -> String {
    let NamespaceMatch::Selected(selector) = namespaces else { return String::new() };
    let named = required(selector).find(|(_, value)| cluster.namespaces.contains_key(*value));
    named.map_or_else(String::new, |(_, name)| format!("; did you mean {NAMESPACE_NAME_LABEL}={name}?"))
}

/// Suggests a value that pods of these namespaces have.
fn label_hint(pods: &Selector, namespaces: &[Name], cluster: &Cluster) -> String {
    let similar = required(pods).find_map(|(key, value)| {
        let pods = namespaces.iter().flat_map(|namespace| cluster.pods.in_namespace(namespace));
        let values = pods.filter_map(|pod| pod.labels.get(key));
        near(value, values.map(|v| (v, format!("{key}={v}")))).into_iter().next()
    });
    similar.map_or_else(String::new, |label| format!("; did you mean {label}?"))
}

fn covering(own: &PolicyKey, rule: Option<usize>, at: &RuleAt) -> String {
    let place = at.origin.as_ref().map(|o| format!(" ({o})")).unwrap_or_default();
    match (at.policy == *own, rule == Some(at.index)) {
        (true, true) => "the rest of the rule".to_owned(),
        (true, false) => format!("rule {}{place}", at.index + 1),
        (false, _) => format!("rule {} of {}{place}", at.index + 1, at.policy),
    }
}

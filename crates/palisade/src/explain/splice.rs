//! Edits the text of a manifest where an edit applies, and leaves the rest as it is: comments, style, order.
//!
//! The functions return possible texts, which may be wrong: the caller reads each one, and keeps the first that has exactly
//! the edited objects. So both styles of YAML, and JSON, are handled without a full model of YAML's layout.

use palisade_analysis::edit::{Edit, RuleEdit};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Origin, Policy, PolicyKey};
use serde_json::Value;

use super::{layout::Layout, manifest, tokens};

/// Returns texts that may have the effect of an edit, best first. `loaded` are the objects of the text.
pub(crate) fn candidates(text: &str, loaded: &Loaded, edit: &Edit) -> Vec<String> {
    let layout = Layout::new(text);
    let policy = |key: &PolicyKey| loaded.cluster.policies.get(key).map(|p| &**p);
    match edit {
        Edit::Rules { policy: key, direction, action, .. } => {
            policy(key).map_or_else(Vec::new, |policy| rules(&layout, policy, *direction, action))
        }
        Edit::Subject { policy: key, selector, .. } => policy(key).map_or_else(Vec::new, |policy| {
            let Some(origin) = &policy.origin else { return Vec::new() };
            let range = layout.document(origin);
            tokens::of_selectors(&policy.subject.pods, selector)
                .into_iter()
                .flat_map(|(old, new)| layout.substituted(range.clone(), &old, &new))
                .collect()
        }),
        Edit::Direction { policy: key, direction, .. } => {
            let origin = policy(key).and_then(|policy| policy.origin.as_ref());
            origin.map_or_else(Vec::new, |origin| policy_types(&layout, origin, *direction))
        }
        Edit::Labels { namespace, workload, labels } => {
            let key = (namespace.clone(), workload.clone());
            let Some(declared) = loaded.workload_labels.get(&key) else { return Vec::new() };
            let labels: serde_json::Map<String, Value> =
                labels.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect();
            let at = |origin: &Option<Origin>, value: Value| layout.with_field(origin.as_ref()?, &value);
            let nested = |name: &str, value: Value| Value::from_iter([(name.to_owned(), value)]);
            let labels = Value::from(labels);
            let metadata = nested("labels", labels.clone());
            [
                at(&declared.labels_origin, labels),
                at(&declared.metadata_origin, metadata.clone()),
                at(&declared.template_origin, nested("metadata", metadata)),
            ]
            .into_iter()
            .flatten()
            .collect()
        }
        Edit::NewPolicy(_) => Vec::new(),
    }
}

fn rules(layout: &Layout<'_>, policy: &Policy, direction: Direction, action: &RuleEdit) -> Vec<String> {
    let key = &policy.key;
    let Some(rules) = policy.rules(direction) else { return Vec::new() };
    let rule_at = |index: usize| rules.get(index).and_then(|rule| rule.origin.as_ref());
    let peer_at = |rule: usize, index: usize| rules.get(rule)?.peers.as_ref()?.get(index)?.origin.as_ref();
    let port_at = |rule: usize, index: usize| rules.get(rule)?.ports.as_ref()?.get(index)?.origin.as_ref();
    let count = |rule: usize, ports: bool| {
        let rule = rules.get(rule)?;
        let len = if ports { rule.ports.as_ref()?.len() } else { rule.peers.as_ref()?.len() };
        len.checked_sub(1)
    };
    let peer = |peer| manifest::peer(peer, key);
    let port = |port| manifest::port(port, key);
    let one = |text: Option<String>| text.into_iter().collect();
    match action {
        RuleEdit::AddRule { at, rule } => {
            let rule = manifest::rule(rule, key, direction);
            one(match (rule_at(*at), rules.len().checked_sub(1).and_then(rule_at)) {
                (Some(next), _) => layout.inserted_before(next, &[rule]),
                (None, Some(last)) => layout.inserted_after(last, &[rule]),
                (None, None) => None,
            })
        }
        RuleEdit::AddPeers { rule, peers } => {
            let last = count(*rule, false).and_then(|last| peer_at(*rule, last));
            let peers = manifest::peers_of(peers, key);
            one(last.and_then(|last| layout.inserted_after(last, &peers)))
        }
        RuleEdit::AddPorts { rule, ports } => {
            let last = count(*rule, true).and_then(|last| port_at(*rule, last));
            let ports: Vec<Value> = ports.iter().map(port).collect();
            one(last.and_then(|last| layout.inserted_after(last, &ports)))
        }
        RuleEdit::ReplacePeer { rule, index, peer: new } => {
            let Some(origin) = peer_at(*rule, *index) else { return Vec::new() };
            let old = rules[*rule].peers.as_ref().map(|peers| &peers[*index].peer);
            let words = old.map_or_else(Vec::new, |old| tokens::of_peers(old, new));
            replaced(layout, origin, words, &[peer(new)])
        }
        RuleEdit::ReplacePort { rule, index, ports: new } => {
            let Some(origin) = port_at(*rule, *index) else { return Vec::new() };
            let old = rules[*rule].ports.as_ref().map(|ports| &ports[*index].port);
            let words = match (old, &new[..]) {
                (Some(old), [new]) => tokens::of_ports(old, new),
                _ => Vec::new(),
            };
            replaced(layout, origin, words, &new.iter().map(port).collect::<Vec<_>>())
        }
        RuleEdit::RemovePeers { rule, gone } => {
            let all: Option<Vec<&Origin>> = gone.iter().map(|i| peer_at(*rule, *i)).collect();
            one(all.and_then(|all| layout.removed(&all)))
        }
        RuleEdit::RemovePorts { rule, gone } => {
            let all: Option<Vec<&Origin>> = gone.iter().map(|i| port_at(*rule, *i)).collect();
            one(all.and_then(|all| layout.removed(&all)))
        }
        RuleEdit::RemoveRules(gone) => {
            let all: Option<Vec<&Origin>> = gone.iter().map(|i| rule_at(*i)).collect();
            let Some(all) = all else { return Vec::new() };
            if gone.len() < rules.len() {
                return one(layout.removed(&all));
            }
            // An empty list is written: without it, the policy might not isolate pods.
            let head = format!("{}:", word(direction).to_lowercase());
            let emptied = layout.emptied(&head, &all).or_else(|| layout.removed(&all));
            emptied.map_or_else(Vec::new, |text| with_explicit_types(text, policy, &head))
        }
    }
}

/// Replaces one word of an item, or else the item.
fn replaced(
    layout: &Layout<'_>,
    origin: &Origin,
    words: Vec<(String, String)>,
    items: &[Value],
) -> Vec<String> {
    let range = layout.item_range(origin);
    let substituted = words
        .into_iter()
        .flat_map(|(old, new)| range.iter().flat_map(move |r| layout.substituted(r.clone(), &old, &new)));
    substituted.chain(layout.replaced(origin, items)).collect()
}

fn word(direction: Direction) -> &'static str {
    if direction == Direction::Ingress { "Ingress" } else { "Egress" }
}

/// Adds a direction to `policyTypes`.
fn policy_types(layout: &Layout<'_>, origin: &Origin, direction: Direction) -> Vec<String> {
    let (own, other) = match direction {
        Direction::Ingress => ("Ingress", "Egress"),
        Direction::Egress => ("Egress", "Ingress"),
    };
    let range = layout.document(origin);
    let inline = layout.substituted(range.clone(), other, &format!("{other}, {own}"));
    let below = layout.lines_after(range, &format!("- {other}"), &format!("- {own}"));
    below.into_iter().chain(inline).collect()
}

/// Adds texts in which `policyTypes` has the directions that the policy applies to now: without them, an empty list of egress
/// rules does not isolate (SEMANTICS A6).
fn with_explicit_types(text: String, policy: &Policy, head: &str) -> Vec<String> {
    let Some(origin) = &policy.origin else { return vec![text] };
    let directions = Direction::BOTH.into_iter().filter(|direction| policy.rules(*direction).is_some());
    let types = format!("[{}]", directions.map(word).collect::<Vec<_>>().join(", "));
    let layout = Layout::new(&text);
    let range = layout.document(origin);
    let field = "policyTypes:";
    let mut out = layout.substituted(range.clone(), &format!("{field} []"), &format!("{field} {types}"));
    if !text[range.clone()].contains("policyTypes") {
        let (empty, field) = (format!("{head} []"), format!("{field} {types}"));
        out.extend(layout.lines_after(range.clone(), &empty, &field));
        out.extend(layout.substituted(range, &empty, &format!("{empty}, {field}")));
    }
    out.insert(0, text);
    out
}

//! Finds edits that change a verdict, and renders each in words and as a patch where possible.

use palisade_analysis::{
    causes::{self, Facts},
    edit::{self, DeclaredLabels, DeclaredWorkloads, Edit, Plan, RuleEdit},
};
use palisade_manifest::Loaded;
use palisade_names::{describe_peer, describe_port};
use palisade_policy::{Origin, Selector};

use super::{
    answer::Answer,
    kubectl, manifest,
    patch::Patches,
    suggestion::{EditTarget, Suggestion},
};
use crate::verdict::Conclusion;

/// Adds the likely mistakes, and edits that allow denied traffic, or with `to_deny` deny allowed traffic.
pub(crate) fn add(answer: &mut Answer, place: EditTarget<'_>, to_deny: bool) {
    // Without the addresses, it is not known whether anything has to change.
    if answer.conclusion() == Conclusion::Undecided {
        return;
    }
    let workloads = declared(place.loaded);
    let cluster = &place.loaded.cluster;
    let facts = Facts { cluster, workloads: &workloads, ignored: &place.loaded.ignored_rules };
    answer.wanted = answer.question(cluster, to_deny);
    answer.causes = causes::find(facts, &answer.wanted);
    let plans = if to_deny {
        edit::to_deny(cluster, &answer.wanted, &workloads)
    } else {
        let mends: Vec<Edit> = answer.causes.iter().filter_map(|cause| cause.mend.clone()).collect();
        edit::to_allow(cluster, &answer.wanted, &workloads, &mends)
    };
    let mut suggestions: Vec<Suggestion> = plans.into_iter().map(|plan| suggestion(place, plan)).collect();
    // A patch is worth more than advice, if neither changes anything else. The sort is stable.
    suggestions.sort_by_key(|s| (!s.plan.is_harmless(), s.plan.is_harmless() && !s.is_complete()));
    answer.suggestions = suggestions;
}

/// Returns what manifests declare about the labels of workloads.
pub(crate) fn declared(loaded: &Loaded) -> DeclaredWorkloads {
    let of = |labels: &palisade_manifest::WorkloadLabels| DeclaredLabels {
        selector: Selector::of_labels(labels.selector.iter().map(|(k, v)| (&**k, &**v))),
        object: labels.object.clone(),
        template: labels.template.clone(),
        origin: labels.template_origin.clone(),
    };
    loaded.workload_labels.iter().map(|(key, labels)| (key.clone(), of(labels))).collect()
}

fn suggestion(place: EditTarget<'_>, plan: Plan) -> Suggestion {
    let mut patches = Patches::new(place);
    let mut commands = Vec::new();
    let mut by_hand = Vec::new();
    // Edits apply in order, so what a command edits is what earlier edits left.
    let mut cluster = place.loaded.cluster.clone();
    for edit in &plan.edits {
        if !patches.add(edit) {
            let command = place.live.and_then(|live| kubectl::command(&cluster, live, place.context, edit));
            match command {
                Some(command) => commands.push(command),
                None => by_hand.push(to_insert(edit, place)),
            }
        }
        cluster = edit::applied(&cluster, edit);
    }
    let texts = plan.edits.iter().map(|edit| description(edit, place)).collect();
    Suggestion { plan, texts, patches: patches.finish(), commands, by_hand }
}

/// Returns what has to be inserted by hand; of an edit that only removes something, a comment that says what.
fn to_insert(edit: &Edit, place: EditTarget<'_>) -> String {
    let text = manifest::text(edit);
    if text.is_empty() { format!("# {}\n", description(edit, place)) } else { text }
}

fn description(edit: &Edit, place: EditTarget<'_>) -> String {
    let at = |origin: Option<&Origin>| origin.map(|s| format!(" ({s})")).unwrap_or_default();
    let at_policy = at(edit.origin());
    match edit {
        Edit::Rules { policy, direction, action, .. } => {
            let rule = |index: &usize| format!("{direction}[{index}] of {policy}{at_policy}");
            let peers = |peers: &[palisade_policy::Peer]| {
                peers.iter().map(describe_peer).collect::<Vec<_>>().join(" and ")
            };
            let ports = |ports: &[palisade_policy::PortMatch]| {
                ports.iter().map(describe_port).collect::<Vec<_>>().join(" and ")
            };
            let plural = |n: usize, word: &str| if n == 1 { word.to_owned() } else { format!("{word}s") };
            match action {
                RuleEdit::AddRule { .. } => format!("add an {direction} rule to {policy}{at_policy}"),
                RuleEdit::AddPeers { rule: index, peers: new } => {
                    format!("add the {} {} to {}", plural(new.len(), "peer"), peers(new), rule(index))
                }
                RuleEdit::AddPorts { rule: index, ports: new } => {
                    format!("add {} to the ports of {}", ports(new), rule(index))
                }
                RuleEdit::ReplacePeer { rule: index, index: n, peer } => {
                    let old = old_peer(place, edit, *index, *n);
                    format!("replace {old} by {} in {}", describe_peer(peer), rule(index))
                }
                RuleEdit::ReplacePort { rule: index, index: n, ports: new } => {
                    let old = old_port(place, edit, *index, *n);
                    format!("replace {old} by {} in {}", ports(new), rule(index))
                }
                RuleEdit::RemovePeers { rule: index, gone } => {
                    let old: Vec<String> = gone.iter().map(|n| old_peer(place, edit, *index, *n)).collect();
                    format!("remove {} from {}", old.join(" and "), rule(index))
                }
                RuleEdit::RemovePorts { rule: index, gone } => {
                    let old: Vec<String> = gone.iter().map(|n| old_port(place, edit, *index, *n)).collect();
                    format!("remove {} from {}", old.join(" and "), rule(index))
                }
                RuleEdit::RemoveRules(rules) => {
                    let rules: Vec<String> = rules.iter().map(|n| format!("{direction}[{n}]")).collect();
                    format!("remove {} from {policy}{at_policy}", rules.join(" and "))
                }
            }
        }
        Edit::Subject { policy, selector, .. } => {
            format!("let {policy}{at_policy} select pods {selector}")
        }
        Edit::Direction { policy, direction, .. } => {
            let word = if *direction == palisade_policy::Direction::Ingress { "Ingress" } else { "Egress" };
            format!("add {word} to policyTypes of {policy}{at_policy}")
        }
        Edit::NewPolicy(policy) => {
            let kind = &*policy.key.kind;
            let missing = kind == "ClusterNetworkPolicy"
                && place.live.is_some_and(|live| live.served.iter().all(|served| served.as_str() != kind));
            let install = if missing {
                "; the cluster does not serve ClusterNetworkPolicy: install its CustomResourceDefinition first"
            } else {
                ""
            };
            let direction = edit.direction().map(|d| format!(" for {d}")).unwrap_or_default();
            format!("add {}{direction}{install}", policy.key)
        }
        Edit::Labels { namespace, workload, labels } => {
            let key = (namespace.clone(), workload.clone());
            let declared = place.loaded.workload_labels.get(&key);
            let origin = at(declared.and_then(|d| d.template_origin.as_ref()));
            format!(
                "add {labels} to the pod template of {} {namespace}/{}{origin}",
                workload.kind, workload.name
            )
        }
    }
}

/// Returns the peer or port that an edit replaces or removes, in words. An earlier edit of the plan may have moved it.
fn old_peer(place: EditTarget<'_>, edit: &Edit, rule: usize, index: usize) -> String {
    let found = old_rule(place, edit, rule).and_then(|r| r.peers.as_ref()?.get(index));
    found.map_or_else(|| "a peer".to_owned(), |entry| describe_peer(&entry.peer))
}

fn old_port(place: EditTarget<'_>, edit: &Edit, rule: usize, index: usize) -> String {
    let found = old_rule(place, edit, rule).and_then(|r| r.ports.as_ref()?.get(index));
    found.map_or_else(|| "a port".to_owned(), |entry| describe_port(&entry.port))
}

fn old_rule<'a>(place: EditTarget<'a>, edit: &Edit, rule: usize) -> Option<&'a palisade_policy::Rule> {
    place.loaded.cluster.policies.get(edit.policy()?)?.rules(edit.direction()?)?.get(rule)
}

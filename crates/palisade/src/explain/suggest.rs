//! Finds edits that change a verdict, and renders each in words and as a patch where possible.

use palisade_analysis::{
    edit::{self, Choices, Edit, EditAction},
    explain,
};
use palisade_names::{describe_peer, describe_port};
use palisade_policy::{Cluster, Flow};

use super::{
    answer::{Answer, ExplainedPairs, Pair},
    kubectl, manifest, patch,
    suggestion::{EditTarget, SuggestedEdit, Suggestion},
};
/// Adds to each group the edits that allow denied traffic, or with `to_deny` deny allowed traffic.
pub(crate) fn add(answer: &mut Answer, place: EditTarget<'_>, to_deny: bool) {
    let cluster = place.cluster;
    let mut edited = cluster.clone();
    for group in &mut answer.groups {
        let Some(flow) = &group.flow else { continue };
        if group.is_allowed() != to_deny {
            continue;
        }
        // An edit suggested for an earlier group may suffice: a rule may decide differently in each IP family.
        if edited != *cluster && holds(group, flow, &edited, to_deny) {
            group.suggestions_before_do = true;
            continue;
        }
        let edits = if to_deny { closing(cluster, flow) } else { opening(cluster, flow) };
        if edits.is_empty() {
            continue;
        }
        let alone = edits.iter().fold(cluster.clone(), |cluster, edit| edit::applied(&cluster, edit));
        group.suggestions_hold_for_all = holds(group, flow, &alone, to_deny);
        edited = edits.iter().fold(edited, |cluster, edit| edit::applied(&cluster, edit));
        group.suggestions = edits.into_iter().map(|edit| suggestion(place, edit)).collect();
    }
}

/// Whether a cluster gives the requested verdict for all traffic of a group. An edit for a sample address says nothing
/// about the part of the internet that it represents.
fn holds(group: &ExplainedPairs, flow: &Flow, cluster: &Cluster, to_deny: bool) -> bool {
    group.pairs.iter().all(|pair| {
        let Pair { source, destination, region } = pair;
        let explanation = explain(cluster, source, destination, flow.through_service, &group.traffic);
        region.is_none() && explanation.parts.iter().all(|part| part.verdict.is_allow() != to_deny)
    })
}

/// Returns one edit for each direction that denies. Empty if a direction has none, because then no edit suffices.
fn opening(cluster: &Cluster, flow: &Flow) -> Vec<Edit> {
    let first = |choices: Choices| choices.edits.into_iter().next();
    edit::to_allow(cluster, flow).into_iter().map(first).collect::<Option<_>>().unwrap_or_default()
}

/// Returns one edit in either direction, if possible one that closes nothing else.
fn closing(cluster: &Cluster, flow: &Flow) -> Vec<Edit> {
    let edits = edit::to_deny(cluster, flow).into_iter().flat_map(|choices| choices.edits);
    edits.min_by_key(|edit| edit.wider).into_iter().collect()
}

fn suggestion(place: EditTarget<'_>, edit: Edit) -> Suggestion {
    let EditTarget { cluster, live, context, .. } = place;
    let patch = || patch::patch(place, &edit).map(SuggestedEdit::Patch);
    let command = || kubectl::command(cluster, live?, context, &edit).map(SuggestedEdit::Command);
    let how = patch().or_else(command).unwrap_or_else(|| SuggestedEdit::Text(manifest::text(&edit)));
    let mut what = description(&edit);
    let kind = &*edit.policy.kind;
    if matches!(edit.action, EditAction::NewPolicy(_))
        && live.is_some_and(|live| live.served.iter().all(|served| served.as_str() != kind))
    {
        what += &format!("; the cluster does not serve {kind}: install its CustomResourceDefinition first");
    }
    Suggestion { what, how, wider: edit.wider, edit }
}

fn description(edit: &Edit) -> String {
    let Edit { policy, origin, direction, action, .. } = edit;
    let at = origin.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
    match action {
        EditAction::AddRule { .. } => format!("add an {direction} rule to {policy}{at}"),
        EditAction::AddPeer { rule, peer } => {
            format!("add the peer {} to {direction}[{rule}] of {policy}{at}", describe_peer(peer))
        }
        EditAction::AddPort { rule, port } => {
            format!("add {} to the ports of {direction}[{rule}] of {policy}{at}", describe_port(port))
        }
        EditAction::RemoveRules(rules) => {
            let rules: Vec<String> = rules.iter().map(|rule| format!("{direction}[{rule}]")).collect();
            format!("remove {} from {policy}{at}", rules.join(" and "))
        }
        EditAction::NewPolicy(_) => format!("add {policy}"),
    }
}

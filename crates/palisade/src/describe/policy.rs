//! A policy as text and as JSON.

use std::fmt::Write as _;

use palisade_analysis::{
    AddressQuestion, Exposure,
    describe::{IdlePart, PolicyDescription},
    exposure::{ExposureRow, PodSet},
};
use palisade_manifest::Loaded;
use palisade_policy::{Cluster, Direction, Mode, Origin, Policy, Tier};
use serde::Serialize;

use super::{
    exposure::JsonReached,
    idle,
    sentence::{choice_text, directions, sentence},
};
use crate::{
    addresses::{self, JsonUndecided},
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject, JsonPods},
    diff::folded,
    escape,
    future_pods::{JsonFuturePods, pods_text, traffic_text},
    inputs::{LoadedInputs, plural},
    output::{Encoding, Style, styled},
    traffic::{JsonTraffic, family_names},
};

/// The most rows of a list. JSON has all of them.
const LISTED: usize = 8;

/// Renders the description of a policy.
pub(super) fn text(description: &PolicyDescription, loaded: &Loaded) -> String {
    let policy = &description.policy;
    let mut out = String::new();
    let at = policy.origin.as_ref().map(|at| format!("  {}", escape::plain(&at.to_string())));
    let name = escape::plain(&policy.key.to_string()).into_owned();
    let audit = match loaded.cluster.mode_of(policy) {
        Mode::Audit => " (in audit mode: not enforced)",
        Mode::Enforce => "",
    };
    let (name, tier) = (styled(Style::Strong, &name), tier_text(policy));
    _ = writeln!(out, "{name}{tier}{audit}{}", at.unwrap_or_default());
    _ = writeln!(out, "{}", sentence(policy));
    selects(description, &mut out);
    if !description.idle.is_empty() {
        _ = writeln!(out, "\n{}", styled(Style::Strong, "does nothing:"));
    }
    for part in &description.idle {
        let at = part.origin.as_ref().map(|at| format!("{}: ", escape::plain(&at.to_string())));
        _ = writeln!(out, "  {}{}", at.unwrap_or_default(), idle::text(policy, part, &loaded.cluster).text);
    }
    without(description, &mut out);
    for found in &description.pod_addresses {
        let at = found.origin.as_ref().map(|at| format!("{}: ", escape::plain(&at.to_string())));
        _ = writeln!(out, "\nnote: {}{}", at.unwrap_or_default(), idle::pod_address(found));
    }
    out
}

fn tier_text(policy: &Policy) -> String {
    match policy.tier {
        Tier::Developer => String::new(),
        Tier::Admin => format!(" (admin tier, priority {})", policy.priority),
        Tier::Baseline if policy.priority == i32::MAX => " (baseline tier)".to_owned(),
        Tier::Baseline => format!(" (baseline tier, priority {})", policy.priority),
    }
}

fn selects(description: &PolicyDescription, out: &mut String) {
    let policy = &description.policy;
    let pods: usize = description.selects.iter().map(|w| w.pods.len()).sum();
    let workloads = description.selects.len();
    let count = match pods {
        0 => styled(Style::Bad, "no running pod"),
        _ => format!("{workloads} {} ({pods} {})", plural(workloads, "workload"), plural(pods, "pod")),
    };
    _ = writeln!(out, "\n{} {count}: {}", styled(Style::Strong, "selects"), choice_text(&policy.subject));
    for workload in description.selects.iter().take(LISTED) {
        let pods = workload.pods.len();
        let some = if workload.whole { "" } else { " of its pods" };
        let count = format!("({pods} {}{some})", plural(pods, "pod"));
        let name = format!("{}/{}/{}", workload.namespace, workload.kind.to_lowercase(), workload.name);
        _ = writeln!(out, "  {} {count}", escape::plain(&name));
    }
    more(workloads, out);
    if let [first, ..] = &description.host_network[..] {
        let count = description.host_network.len();
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let text = format!("  not {first}{others}: policies do not apply to pods that use the host network");
        _ = writeln!(out, "{}", escape::plain(&text));
    }
}

fn more(count: usize, out: &mut String) {
    if count > LISTED {
        _ = writeln!(out, "  and {} more", count - LISTED);
    }
}

fn without(description: &PolicyDescription, out: &mut String) {
    _ = writeln!(out, "\n{}", styled(Style::Strong, "without it:"));
    let rows = folded(&description.without.changes);
    for change in rows.iter().take(LISTED) {
        let (style, word) = word(change.row.opened);
        _ = writeln!(out, "  {} {}", styled(style, word), change.text);
    }
    more(rows.len(), out);
    let future = future_lines(description);
    for (opened, line) in future.iter().take(LISTED) {
        let (style, word) = word(*opened);
        _ = writeln!(out, "  {} {line}", styled(style, word));
    }
    more(future.len(), out);
    let undecided = undecided(description);
    if rows.is_empty() && future.is_empty() && undecided.is_none() {
        _ = writeln!(out, "  nothing would change");
    }
    if let Some(text) = undecided {
        _ = writeln!(out, "  {} {}", styled(Style::Bad, "undecided:"), escape::plain(&text));
    }
}

/// Returns what would perhaps change without the policy, since it depends on addresses that are not known.
pub(super) fn undecided(description: &PolicyDescription) -> Option<String> {
    let pairs = &description.without.undecided;
    addresses::undecided_text(pairs.len(), pairs.iter().flat_map(|pair| &pair.questions))
}

fn word(opened: bool) -> (Style, &'static str) {
    if opened { (Style::Good, "opened:") } else { (Style::Bad, "closed:") }
}

/// Returns what would change for pods that don't exist yet.
fn future_lines(description: &PolicyDescription) -> Vec<(bool, String)> {
    let subject = choice_text(&description.policy.subject);
    let mut out = Vec::new();
    for change in &description.exposure_without {
        for (opened, exposure) in [(true, &change.opened), (false, &change.closed)] {
            let line = |pods: String, traffic: String| match exposure.direction {
                Direction::Ingress => format!("{pods} → {subject}  {traffic}"),
                Direction::Egress => format!("{subject} → {pods}  {traffic}"),
            };
            if exposure.is_none() {
                continue;
            }
            if !exposure.exact {
                let bound = format!("at most {}", traffic_text(&exposure.any_pod.some));
                out.push((opened, line("some pods".to_owned(), bound)));
                continue;
            }
            if !exposure.any_pod.all.is_none() {
                let pods = "any pod, regardless of labels".to_owned();
                out.push((opened, line(pods, traffic_text(&exposure.any_pod.all))));
            }
            for row in future_rows(exposure) {
                let reached = &row.reached;
                let traffic = match reached.all.is_none() {
                    true => format!("{} (some of the selected pods)", traffic_text(&reached.some)),
                    false => traffic_text(&reached.all),
                };
                let yet = if row.exists { "" } else { " (none exists yet)" };
                let depends = if row.set.addresses.is_some() { " (depends on pod addresses)" } else { "" };
                out.push((
                    opened,
                    line(format!("{}{yet}", pods_text(&row.set)), format!("{traffic}{depends}")),
                ));
            }
        }
    }
    out
}

/// Returns the rows for pods that don't exist yet: the connections of the others are listed, too. Those for addresses are always among them,
/// since "any pod" has less than they.
fn future_rows(exposure: &Exposure) -> impl Iterator<Item = &ExposureRow> {
    exposure.rows.iter().filter(|row| !row.exists || row.set.addresses.is_some())
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    kind: &'static str,
    policy: JsonObject<'a>,
    tier: &'static str,
    priority: Option<i32>,
    /// `audit` if the policy is in audit mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    text: String,
    isolates: Vec<String>,
    selects: JsonSelects<'a>,
    does_nothing: Vec<JsonIdle<'a>>,
    without: JsonWithout<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecided<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<JsonNote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonSelects<'a> {
    /// Absent if no pod can match the selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<JsonFuturePods>,
    workloads: Vec<JsonPods<'a>>,
    host_network: Vec<JsonObject<'a>>,
}

#[derive(Serialize)]
struct JsonIdle<'a> {
    code: &'static str,
    text: String,
    direction: Option<String>,
    rule: Option<usize>,
    file: Option<&'a str>,
    line: Option<u32>,
}

#[derive(Serialize)]
struct JsonNote {
    code: &'static str,
    text: String,
}

#[derive(Serialize)]
struct JsonWithout<'a> {
    connections: Vec<JsonChange<'a>>,
    future_pods: Vec<JsonFutureChange>,
}

#[derive(Serialize)]
struct JsonChange<'a> {
    change: &'static str,
    from: Vec<JsonEnd<'a>>,
    to: Vec<JsonEnd<'a>>,
    families: Vec<String>,
    traffic: JsonTraffic,
}

#[derive(Serialize)]
struct JsonFutureChange {
    change: &'static str,
    direction: String,
    pods: JsonFuturePods,
    #[serde(flatten)]
    reached: JsonReached,
}

/// Encodes the description of a policy.
pub(super) fn document(
    description: &PolicyDescription,
    world: &LoadedInputs,
    encoding: Encoding,
) -> anyhow::Result<String> {
    let loaded = &world.loaded;
    let policy = &*description.policy;
    let isolates = directions(policy).into_iter().filter(|_| policy.tier == Tier::Developer);
    let host_network = description.host_network.iter();
    let host_network = host_network.map(|pod| {
        let at = connection_ends::origin_of_object("Pod", pod, loaded);
        JsonObject::new("Pod", Some(&pod.namespace), &pod.name, at)
    });
    let undecided = &description.without.undecided;
    let questions: Vec<AddressQuestion> = undecided.iter().flat_map(|pair| pair.questions.clone()).collect();
    encoding.encode(&Document {
        schema: super::SCHEMA,
        kind: "policy",
        policy: JsonObject::of_policy(&policy.key, policy.origin.as_ref()),
        tier: crate::reasons::tier_word(policy.tier),
        priority: (policy.tier != Tier::Developer && policy.priority != i32::MAX).then_some(policy.priority),
        mode: Some(loaded.cluster.mode_of(policy)).filter(|mode| *mode == Mode::Audit).map(Mode::as_str),
        text: sentence(policy),
        isolates: isolates.map(|d| d.to_string()).collect(),
        selects: JsonSelects {
            pods: PodSet::of(&policy.subject).map(|set| (&set).into()),
            workloads: description.selects.iter().map(|w| JsonPods::new(w, loaded)).collect(),
            host_network: host_network.collect(),
        },
        does_nothing: description.idle.iter().map(|part| json_idle(policy, part, &loaded.cluster)).collect(),
        without: json_without(description, loaded),
        undecided: addresses::json_undecided(&questions, !undecided.is_empty(), loaded),
        notes: description
            .pod_addresses
            .iter()
            .map(|found| JsonNote { code: "pod-address", text: idle::pod_address(found) })
            .collect(),
        incomplete: world.incomplete(),
    })
}

fn json_idle<'a>(policy: &Policy, part: &'a IdlePart, cluster: &Cluster) -> JsonIdle<'a> {
    let idle::IdleText { code, text } = idle::text(policy, part, cluster);
    JsonIdle {
        code,
        text,
        direction: part.rule.map(|(direction, _)| direction.to_string()),
        rule: part.rule.map(|(_, index)| index),
        file: part.origin.as_ref().map(|at| &*at.file),
        line: part.origin.as_ref().and_then(Origin::line),
    }
}

fn json_without<'a>(description: &'a PolicyDescription, loaded: &'a Loaded) -> JsonWithout<'a> {
    let word = |opened| if opened { "opened" } else { "closed" };
    let ends = |all: &[&'a palisade_analysis::ConnectionEnd]| {
        all.iter().map(|end| connection_ends::json(end, loaded)).collect()
    };
    let both = palisade_analysis::Families { v4: true, v6: true };
    let connections = folded(&description.without.changes).into_iter().map(|change| JsonChange {
        change: word(change.row.opened),
        from: ends(&change.row.from),
        to: ends(&change.row.to),
        families: family_names(change.row.families.unwrap_or(both)),
        traffic: change.row.traffic.into(),
    });
    let mut future_pods = Vec::new();
    for change in &description.exposure_without {
        for (opened, exposure) in [(true, &change.opened), (false, &change.closed)] {
            let any = (!exposure.is_none()).then(|| (PodSet::default(), &exposure.any_pod));
            let rows = exposure.rows.iter().map(|row| (row.set.clone(), &row.reached));
            future_pods.extend(any.into_iter().chain(rows).map(|(set, reached)| JsonFutureChange {
                change: word(opened),
                direction: exposure.direction.to_string(),
                pods: (&set).into(),
                reached: reached.into(),
            }));
        }
    }
    JsonWithout { connections: connections.collect(), future_pods }
}

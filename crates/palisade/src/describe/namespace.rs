//! A namespace as text and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use palisade_analysis::{
    ConnectionEnd,
    describe::{Crossing, NamespaceDescription, NamespacePolicy},
    overview::{Extent, Protection, WorkloadOverview},
};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Mode, NAMESPACE_NAME_LABEL, ObjectKey};
use serde::Serialize;

use crate::{
    addresses::{self, JsonUndecided},
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject, abbreviated, name},
    escape,
    inputs::{LoadedInputs, plural},
    output::{Encoding, Style, styled},
    overview::{JsonWorkload, json_workload, workload_cells},
    traffic::{JsonTraffic, VisibleTraffic, family_names},
};

/// The most rows of a list. JSON has all of them.
const LISTED: usize = 20;

/// Renders the description of a namespace.
pub(super) fn text(description: &NamespaceDescription, loaded: &Loaded) -> String {
    let mut out = String::new();
    heading(description, loaded, &mut out);
    workloads(description, &mut out);
    policies(description, loaded, &mut out);
    let headings = [(1, "may be reached from outside:"), (0, "may reach outside:")];
    for (at, heading) in headings {
        let rows = &description.crossing[at];
        let none = if rows.is_empty() { " nothing" } else { "" };
        _ = writeln!(out, "\n{}{none}", styled(Style::Strong, heading));
        for row in rows.iter().take(LISTED) {
            _ = writeln!(out, "  {}", crossing_text(row, at == 1));
        }
        more(rows.len(), &mut out);
    }
    if !description.dns_known {
        out.push_str("\nnote: no DNS server is in the input; DNS means pods k8s-app=kube-dns in namespace kube-system\n");
    }
    for text in undecided(description) {
        _ = writeln!(out, "\n{} {}", styled(Style::Bad, "undecided:"), escape::plain(&text));
    }
    out
}

/// Returns what depends on addresses that are not known, in a sentence each.
pub(super) fn undecided(description: &NamespaceDescription) -> Vec<String> {
    let pairs = &description.undecided;
    addresses::undecided_text(pairs.pairs, &pairs.questions)
        .into_iter()
        .chain(undecided_dns(description))
        .collect()
}

/// Returns a sentence if it is not known whether workloads can ask DNS.
fn undecided_dns(description: &NamespaceDescription) -> Option<String> {
    let is_undecided = |workload: &WorkloadOverview| workload.dns == Some(Extent::Undecided);
    let is_any = description.workloads.iter().any(is_undecided);
    is_any.then(|| format!("whether DNS can be asked depends on pod addresses; {}", addresses::CURE))
}

fn heading(description: &NamespaceDescription, loaded: &Loaded, out: &mut String) {
    let key = ObjectKey::new("", description.name.clone());
    let at = connection_ends::origin_of_object("Namespace", &key, loaded);
    let at = at.map(|at| format!("  {}", escape::plain(&at.to_string()))).unwrap_or_default();
    let heading = format!("Namespace {}", escape::plain(&description.name));
    _ = writeln!(out, "{}{at}", styled(Style::Strong, &heading));
    let labels = description.labels.iter().flat_map(|labels| labels.iter());
    let labels: Vec<String> = labels
        .filter(|(key, _)| &***key != NAMESPACE_NAME_LABEL)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let labels =
        if labels.is_empty() { "no labels".to_owned() } else { format!("labels {}", labels.join(", ")) };
    let pods: usize = description.workloads.iter().map(|w| w.pods.pods.len()).sum();
    let open = description.workloads.iter().filter(|w| w.ingress == Protection::None).count();
    let audited = description.policies.iter().filter(|applied| is_audited(applied, loaded)).count();
    let (all, policies) = (description.workloads.len(), description.policies.len() - audited);
    let policy = if policies == 1 { "policy applies" } else { "policies apply" };
    let audited = if audited == 0 { String::new() } else { format!(", {audited} in audit mode") };
    let summary = format!(
        "{labels}; {all} {} ({pods} {}); {policies} {policy}{audited}",
        plural(all, "workload"),
        plural(pods, "pod")
    );
    _ = writeln!(out, "{}", escape::plain(&summary));
    if open > 0 {
        let text =
            format!("{open} of {all} {} unprotected: every pod may connect to them", plural(all, "workload"));
        _ = writeln!(out, "{}", styled(Style::Bad, &text));
    }
}

fn workloads(description: &NamespaceDescription, out: &mut String) {
    if description.workloads.is_empty() {
        _ = writeln!(out, "\nno running pods");
        return;
    }
    let headings = ["WORKLOAD", "PODS", "INGRESS", "EGRESS", "DNS", "INTERNET IN", "INTERNET OUT"];
    let rows = description.workloads.iter().map(|w| {
        let [ingress, egress, dns, internet_in, internet_out] = workload_cells(w);
        let pods = w.pods.pods.len().to_string();
        let name = escape::plain(&short_name(w)).into_owned();
        [name, pods, ingress.into(), egress.into(), dns.into(), internet_in.into(), internet_out.into()]
    });
    let rows: Vec<[String; 7]> = rows.collect();
    let shown = &rows[..rows.len().min(LISTED)];
    let width = |column: usize| {
        let cells = shown.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String; 7]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    _ = writeln!(out, "\n{}", styled(Style::Strong, &line(&headings.map(str::to_owned))));
    for row in shown {
        _ = writeln!(out, "{}", line(row));
    }
    more(rows.len(), out);
}

/// Returns the name of a workload without its namespace.
pub(super) fn short_name(workload: &WorkloadOverview) -> String {
    let name = workload.pods.to_string();
    name.split_once('/').map_or(name.clone(), |(_, short)| short.to_owned())
}

fn policies(description: &NamespaceDescription, loaded: &Loaded, out: &mut String) {
    if description.policies.is_empty() {
        _ = writeln!(out, "\nno policy applies: everything is allowed on this side");
        return;
    }
    _ = writeln!(out, "\n{}", styled(Style::Strong, "policies:"));
    for applied in description.policies.iter().take(LISTED) {
        let origin = loaded.cluster.policies.get(&applied.policy).and_then(|p| p.origin.as_ref());
        let at = origin.map(|at| format!(" ({at})")).unwrap_or_default();
        let directions: Vec<String> = applied.directions.iter().rev().map(ToString::to_string).collect();
        let selected = match applied.workloads {
            0 => styled(Style::Bad, "selects no pod here"),
            n => format!("selects {n} {}", plural(n, "workload")),
        };
        let audit = if is_audited(applied, loaded) { " (in audit mode: not enforced)" } else { "" };
        let text = format!("{}{audit}{at}: {}", applied.policy, directions.join(", "));
        _ = writeln!(out, "  {}; {selected}", escape::plain(&text));
    }
    more(description.policies.len(), out);
}

/// Whether a policy is in audit mode, so that it doesn't apply.
fn is_audited(applied: &NamespacePolicy, loaded: &Loaded) -> bool {
    let policy = loaded.cluster.policies.get(&applied.policy);
    policy.is_some_and(|policy| loaded.cluster.mode_of(policy) == Mode::Audit)
}

fn more(count: usize, out: &mut String) {
    if count > LISTED {
        _ = writeln!(out, "  and {} more", count - LISTED);
    }
}

/// Formats `web/deployment/gateway → deployment/shop  TCP 8080`.
fn crossing_text(row: &Crossing, inwards: bool) -> String {
    let outside = escape::plain(&outside_text(&row.outside)).into_owned();
    let inside = escape::plain(&abbreviated(&row.inside, name)).into_owned();
    let external = |end: &ConnectionEnd| matches!(end, ConnectionEnd::External(_));
    let families = match (row.families.v4 && row.families.v6) || row.outside.iter().any(external) {
        true => String::new(),
        false => format!(" ({})", family_names(row.families).join("")),
    };
    let traffic = VisibleTraffic::of(&row.traffic).text();
    let (from, to) = if inwards { (outside, inside) } else { (inside, outside) };
    format!("{from} → {to}  {traffic}{families}")
}

/// Formats the ends outside: few by name, many workloads by namespace.
pub(super) fn outside_text(ends: &[ConnectionEnd]) -> String {
    /// From how many workloads on they are counted instead of listed.
    const NAMED: usize = 4;
    let (workloads, others): (Vec<&ConnectionEnd>, Vec<&ConnectionEnd>) =
        ends.iter().partition(|end| matches!(end, ConnectionEnd::Workload(_)));
    let mut parts = Vec::new();
    if workloads.len() <= NAMED {
        parts.extend(workloads.iter().map(|end| name(end)));
    } else {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for namespace in workloads.iter().filter_map(|end| end.namespace()) {
            *counts.entry(namespace).or_default() += 1;
        }
        let counts: Vec<(&str, usize)> = counts.into_iter().collect();
        let one = |(namespace, count): &(&str, usize)| {
            format!("{count} {} of namespace {namespace}", plural(*count, "workload"))
        };
        parts.push(abbreviated(&counts, one));
    }
    let (internet, rest): (Vec<&ConnectionEnd>, Vec<&ConnectionEnd>) =
        others.into_iter().partition(|end| end.is_internet());
    if !internet.is_empty() {
        parts.push(format!("internet ({})", abbreviated(&internet, |end| name(end))));
    }
    parts.extend(rest.iter().map(|end| name(end)));
    parts.join(", ")
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    kind: &'static str,
    namespace: JsonObject<'a>,
    labels: Option<BTreeMap<&'a str, &'a str>>,
    workloads: Vec<JsonWorkload<'a>>,
    policies: Vec<JsonPolicy<'a>>,
    ingress: Vec<JsonCrossing<'a>>,
    egress: Vec<JsonCrossing<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecided<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<JsonNote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonPolicy<'a> {
    #[serde(flatten)]
    object: JsonObject<'a>,
    tier: Option<&'static str>,
    directions: Vec<String>,
    /// `audit` if the policy is in audit mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    workloads: usize,
}

#[derive(Serialize)]
struct JsonCrossing<'a> {
    outside: Vec<JsonEnd<'a>>,
    inside: Vec<JsonEnd<'a>>,
    families: Vec<String>,
    traffic: JsonTraffic,
}

#[derive(Serialize)]
struct JsonNote {
    code: &'static str,
    text: &'static str,
}

/// Encodes the description of a namespace.
pub(super) fn document(
    description: &NamespaceDescription,
    world: &LoadedInputs,
    encoding: Encoding,
) -> anyhow::Result<String> {
    let loaded = &world.loaded;
    let key = ObjectKey::new("", description.name.clone());
    let at = connection_ends::origin_of_object("Namespace", &key, loaded);
    let labels = description.labels.as_ref();
    let no_dns = (!description.dns_known).then_some(JsonNote {
        code: "no-dns-server",
        text: "no DNS server is in the input; `dns` means pods k8s-app=kube-dns in namespace kube-system",
    });
    let crossing = |direction: Direction| {
        let at = usize::from(direction == Direction::Ingress);
        description.crossing[at].iter().map(|row| json_crossing(row, loaded)).collect()
    };
    let pairs = &description.undecided;
    let mut undecided = addresses::json_undecided(&pairs.questions, pairs.pairs > 0, loaded);
    undecided.extend(undecided_dns(description).map(|text| JsonUndecided::new("pod-addresses", text)));
    encoding.encode(&Document {
        schema: super::SCHEMA,
        kind: "namespace",
        namespace: JsonObject::new("Namespace", None, &description.name, at),
        labels: labels.map(|labels| labels.iter().map(|(k, v)| (&**k, &**v)).collect()),
        workloads: description.workloads.iter().map(|w| json_workload(w, loaded)).collect(),
        policies: description.policies.iter().map(|p| json_policy(p, loaded)).collect(),
        ingress: crossing(Direction::Ingress),
        egress: crossing(Direction::Egress),
        undecided,
        notes: no_dns.into_iter().collect(),
        incomplete: world.incomplete(),
    })
}

fn json_policy<'a>(applied: &'a NamespacePolicy, loaded: &'a Loaded) -> JsonPolicy<'a> {
    let policy = loaded.cluster.policies.get(&applied.policy);
    JsonPolicy {
        object: JsonObject::of_policy(&applied.policy, policy.and_then(|p| p.origin.as_ref())),
        tier: policy.map(|p| crate::reasons::tier_word(p.tier)),
        directions: applied.directions.iter().map(ToString::to_string).collect(),
        mode: is_audited(applied, loaded).then_some(Mode::Audit.as_str()),
        workloads: applied.workloads,
    }
}

fn json_crossing<'a>(row: &'a Crossing, loaded: &'a Loaded) -> JsonCrossing<'a> {
    let ends = |all: &'a [ConnectionEnd]| all.iter().map(|end| connection_ends::json(end, loaded)).collect();
    JsonCrossing {
        outside: ends(&row.outside),
        inside: ends(&row.inside),
        families: family_names(row.families),
        traffic: (&row.traffic).into(),
    }
}

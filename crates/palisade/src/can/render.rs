//! An answer as text and as JSON.

use std::fmt::Write as _;

use palisade_policy::{Direction, Endpoint, Verdict};
use serde::Serialize;

use super::answer::{Answer, DecidedFlows, DestinationPort, endpoint_name};
use crate::{
    cluster::JsonMissing,
    output::{Encoding, Style, styled},
    reasons::{self, JsonSide, families_text, port_text, verdict_word},
    traffic::range_text,
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.can/v1";

/// The most pairs of pods or ranges that a line lists.
const MAX_LISTED: usize = 4;

/// Renders the answer as text, with colors; the writer strips them where they don't belong.
pub(crate) fn text(answer: &Answer) -> String {
    let mut out = String::new();
    let differs = match &answer.differs[..] {
        [] => String::new(),
        by => format!(" (differs by {})", by.iter().map(|d| d.word()).collect::<Vec<_>>().join(" and ")),
    };
    let head = format!("{} → {}", answer.source, answer.destination);
    _ = match &answer.groups[..] {
        [only] => writeln!(out, "{}  {head}  {}", verdict(answer.verdict), call(only)),
        _ => writeln!(out, "{}  {head}{differs}", verdict(answer.verdict)),
    };
    for group in &answer.groups {
        if answer.groups.len() > 1 {
            _ = writeln!(
                out,
                "\n{}  {}  {}",
                verdict(group.decision.verdict()),
                ends(answer, group),
                call(group)
            );
        } else if let Some(ends) = regions(answer, group) {
            _ = writeln!(out, "  for {ends}");
        }
        for (direction, side) in
            [(Direction::Egress, &group.decision.egress), (Direction::Ingress, &group.decision.ingress)]
        {
            let mut lines = reasons::lines(side, direction).into_iter();
            let name = format!("{direction}:");
            // `denied by …` if one rule decided; other reasons are in a column.
            let said = if reasons::is_by_rule(side) {
                format!("{} ", verdict(side.verdict))
            } else {
                format!("{}  ", padded(side.verdict))
            };
            _ = writeln!(out, "  {name:<8} {said}{}", lines.next().unwrap_or_default());
            for line in lines {
                _ = writeln!(out, "  {:<8} {:<7}  {line}", "", "");
            }
        }
    }
    out
}

fn style(verdict: Verdict) -> Style {
    if verdict.is_allow() { Style::Good } else { Style::Bad }
}

fn verdict(verdict: Verdict) -> String {
    styled(style(verdict), verdict_word(verdict))
}

fn padded(verdict: Verdict) -> String {
    styled(style(verdict), &format!("{:<7}", verdict_word(verdict)))
}

/// Formats ports and families: `TCP 80, IPv4 and IPv6`, `service port 80 → TCP 8080, IPv4`.
fn call(group: &DecidedFlows) -> String {
    let one = |c: &DestinationPort| {
        let service = c.service_port.map(|p| format!("service port {p} → ")).unwrap_or_default();
        format!("{service}{}", port_text(c.protocol, c.port))
    };
    let calls: Vec<String> = group.calls.iter().map(one).collect();
    format!("{}, {}", calls.join(", "), families_text(group.families()))
}

/// Formats the flows of a group: the pairs of pods if there are several, and the part of the internet.
fn ends(answer: &Answer, group: &DecidedFlows) -> String {
    let all = pairs(answer.groups.iter());
    let own = pairs(std::iter::once(group));
    let mut out = if own == all {
        "all pods".to_owned()
    } else {
        let mut shown: Vec<String> = own.iter().take(MAX_LISTED).cloned().collect();
        if own.len() > MAX_LISTED {
            shown.push(format!("{} more", own.len() - MAX_LISTED));
        }
        shown.join(", ")
    };
    if all.len() == 1 {
        out = all.first().cloned().unwrap_or_default();
    }
    match regions(answer, group) {
        Some(regions) => format!("{out}, for {regions}"),
        None => out,
    }
}

fn pairs<'a>(groups: impl Iterator<Item = &'a DecidedFlows>) -> Vec<String> {
    let named = |end: &Endpoint, region: bool| match end {
        Endpoint::External(_) if region => "internet".to_owned(),
        Endpoint::External(address) => address.to_string(),
        _ => endpoint_name(end),
    };
    let mut out: Vec<String> = groups
        .flat_map(|g| &g.asked)
        .map(|a| {
            let region = a.region.is_some();
            format!("{} → {}", named(&a.flow.source, region), named(&a.flow.destination, region))
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

/// Formats the parts of the internet of a group. `None` if the internet is not split.
fn regions(answer: &Answer, group: &DecidedFlows) -> Option<String> {
    if !answer.parts {
        return None;
    }
    let mut regions: Vec<_> = group.asked.iter().filter_map(|a| a.region.as_ref()).collect();
    if regions.is_empty() {
        return None;
    }
    regions.sort_by_key(|r| r.sample);
    regions.dedup();
    let words = regions.iter().take(MAX_LISTED).map(|region| match region.ranges.len() {
        n if n <= MAX_LISTED => region.ranges.iter().map(range_text).collect::<Vec<_>>().join(" "),
        n => format!("{} and similar addresses ({n} ranges)", region.sample),
    });
    let mut words: Vec<String> = words.collect();
    if regions.len() > MAX_LISTED {
        words.push(format!("{} more ranges", regions.len() - MAX_LISTED));
    }
    Some(words.join(", "))
}

#[derive(Serialize)]
struct JsonAnswer<'a> {
    schema: &'static str,
    verdict: &'static str,
    source: &'a str,
    destination: &'a str,
    differs_by: Vec<&'static str>,
    answers: Vec<JsonGroup>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
}

#[derive(Serialize)]
struct JsonGroup {
    verdict: &'static str,
    on: Vec<JsonCall>,
    families: Vec<String>,
    egress: JsonSide,
    ingress: JsonSide,
    flows: Vec<JsonFlow>,
}

#[derive(Serialize)]
struct JsonCall {
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_port: Option<u16>,
}

impl From<&DestinationPort> for JsonCall {
    fn from(call: &DestinationPort) -> Self {
        let port = call.protocol.has_ports().then_some(call.port);
        Self { protocol: call.protocol.to_string(), port, service_port: call.service_port }
    }
}

#[derive(Serialize)]
struct JsonFlow {
    source: JsonEnd,
    destination: JsonEnd,
    /// The public addresses that the external end represents.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_for: Option<Vec<String>>,
}

#[derive(Serialize)]
pub(crate) struct JsonEnd {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    address: String,
}

impl From<&Endpoint> for JsonEnd {
    fn from(end: &Endpoint) -> Self {
        let address = end.address().to_string();
        match end {
            Endpoint::Pod { key, .. } => {
                let (namespace, name) = (Some(key.namespace.to_string()), Some(key.name.to_string()));
                Self { kind: "pod", namespace, name, address }
            }
            Endpoint::Node { name, .. } => {
                Self { kind: "node", namespace: None, name: Some(name.to_string()), address }
            }
            Endpoint::External(_) => Self { kind: "external", namespace: None, name: None, address },
        }
    }
}

/// Encodes the answer for programs.
pub(crate) fn document(
    answer: &Answer,
    incomplete: &[JsonMissing<'_>],
    encoding: Encoding,
) -> anyhow::Result<String> {
    let group = |g: &DecidedFlows| JsonGroup {
        verdict: verdict_word(g.decision.verdict()),
        on: g.calls.iter().map(Into::into).collect(),
        families: g.families().iter().map(ToString::to_string).collect(),
        egress: (&g.decision.egress).into(),
        ingress: (&g.decision.ingress).into(),
        flows: g
            .asked
            .iter()
            .map(|a| JsonFlow {
                source: (&a.flow.source).into(),
                destination: (&a.flow.destination).into(),
                stands_for: a.region.as_ref().map(|r| r.ranges.iter().map(range_text).collect()),
            })
            .collect(),
    };
    encoding.encode(&JsonAnswer {
        schema: SCHEMA,
        verdict: verdict_word(answer.verdict),
        source: &answer.source,
        destination: &answer.destination,
        differs_by: answer.differs.iter().map(|d| d.word()).collect(),
        answers: answer.groups.iter().map(group).collect(),
        incomplete,
    })
}

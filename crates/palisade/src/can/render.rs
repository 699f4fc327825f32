//! An answer as text.

use std::fmt::Write as _;

use palisade_analysis::JudgedSide;
use palisade_policy::{Direction, Endpoint};

use super::{
    answer::{Answer, DecidedFlows, DestinationPort, VariesBy},
    pairs::{MAX_LISTED, NamedPairs, Naming},
};
use crate::{
    addresses,
    output::styled,
    reasons::{self, families_text, port_text},
    traffic::range_text,
    verdict::Conclusion,
};

/// Renders the answer as text, with colors; the writer strips them where they don't belong.
///
/// `headline` is the verdict of the whole. It differs from the answer's own if something could not be read.
pub(crate) fn text(answer: &Answer, headline: Conclusion) -> String {
    let mut out = String::new();
    let incomplete = headline != answer.verdict;
    let by = |conclusion: Conclusion, once_resolved: bool| {
        let what = if incomplete { " by what could be read" } else { "" };
        format!("{}{what}", verdict_of(conclusion, once_resolved))
    };
    let whole = verdict_of(headline, answer.once_resolved && !incomplete);
    let differs = match &answer.differs[..] {
        [] => String::new(),
        by => format!(" (differs by {})", by.iter().map(|d| d.word()).collect::<Vec<_>>().join(" and ")),
    };
    let head = format!("{} → {}", answer.source, answer.destination);
    _ = match &answer.groups[..] {
        [only] => writeln!(out, "{whole}  {head}  {}", call(only)),
        _ => writeln!(out, "{whole}  {head}{differs}"),
    };
    if incomplete && answer.groups.len() == 1 {
        _ = writeln!(out, "  {}", by(answer.verdict, answer.once_resolved));
    }
    for group in &answer.groups {
        if answer.groups.len() > 1 {
            let verdict = by(group.verdict(), group.once_resolved);
            _ = writeln!(out, "\n{verdict}  {}  {}", ends(answer, group), call(group));
        } else if let Some(ends) = regions(answer, group) {
            _ = writeln!(out, "  for {ends}");
        }
        for (direction, side) in
            [(Direction::Egress, &group.judgement.egress), (Direction::Ingress, &group.judgement.ingress)]
        {
            side_lines(side, direction, is_node(group, direction), &mut out);
        }
    }
    for undecided in &answer.undecided {
        _ = writeln!(out, "undecided: {}", undecided.text);
    }
    for note in &answer.notes {
        _ = writeln!(out, "note: {}", note.text);
    }
    for hint in &answer.hints {
        _ = writeln!(out, "hint: {}", hint.text);
    }
    out
}

/// Whether a peer of one direction is a node.
fn is_node(group: &DecidedFlows, direction: Direction) -> bool {
    group.asked.iter().any(|asked| {
        let peer = match direction {
            Direction::Egress => &asked.flow.destination,
            Direction::Ingress => &asked.flow.source,
        };
        matches!(peer, Endpoint::Node { .. })
    })
}

/// Adds the lines of one direction.
fn side_lines(side: &JudgedSide, direction: Direction, is_node: bool, out: &mut String) {
    let name = format!("{direction}:");
    let conclusion = Conclusion::of(side.verdict());
    if conclusion == Conclusion::Undecided {
        let word = verdict(conclusion);
        _ = writeln!(out, "  {name:<8} {word}  {}", addresses::depends(is_node));
        for line in addresses::reasons(&side.questions) {
            _ = writeln!(out, "  {:<8} {:<9}  {line}", "", "");
        }
        return;
    }
    let mut lines = reasons::lines(&side.side, direction).into_iter();
    // `denied by …` if one rule decided; other reasons are in a column.
    let said = if reasons::is_by_rule(&side.side) {
        format!("{} ", verdict(conclusion))
    } else {
        format!("{}  ", styled(conclusion.style(), &format!("{:<7}", conclusion.word())))
    };
    _ = writeln!(out, "  {name:<8} {said}{}", lines.next().unwrap_or_default());
    for line in lines {
        _ = writeln!(out, "  {:<8} {:<7}  {line}", "", "");
    }
}

/// Formats a verdict, which may depend on the resolution of a name.
fn verdict_of(conclusion: Conclusion, once_resolved: bool) -> String {
    let word = if once_resolved { ONCE_RESOLVED } else { conclusion.word() };
    styled(conclusion.style(), word)
}

/// The verdict of what is allowed by a domain name.
const ONCE_RESOLVED: &str = "allowed once resolved";

fn verdict(conclusion: Conclusion) -> String {
    styled(conclusion.style(), conclusion.word())
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
    let outside = answer.outside.as_deref().unwrap_or_default();
    let naming = Naming { outside, addresses_of_nodes: answer.differs.contains(&VariesBy::Region) };
    let all = NamedPairs::of(&answer.groups, naming);
    let out = NamedPairs::of([group], naming).text(&all);
    match regions(answer, group) {
        Some(regions) => format!("{out}, for {regions}"),
        None => out,
    }
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

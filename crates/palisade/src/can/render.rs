//! An answer as text.

use std::fmt::Write as _;

use palisade_policy::{Direction, Verdict};

use super::{
    answer::{Answer, DecidedFlows, DestinationPort},
    pairs::{MAX_LISTED, NamedPairs},
};
use crate::{
    output::{Style, styled},
    reasons::{self, families_text, port_text, verdict_word},
    traffic::range_text,
    verdict::Conclusion,
};

/// Renders the answer as text, with colors; the writer strips them where they don't belong.
pub(crate) fn text(answer: &Answer) -> String {
    let mut out = String::new();
    let differs = match &answer.differs[..] {
        [] => String::new(),
        by => format!(" (differs by {})", by.iter().map(|d| d.word()).collect::<Vec<_>>().join(" and ")),
    };
    let head = format!("{} → {}", answer.source, answer.destination);
    _ = match &answer.groups[..] {
        [only] => writeln!(out, "{}  {head}  {}", headline(answer.verdict), call(only)),
        _ => writeln!(out, "{}  {head}{differs}", headline(answer.verdict)),
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
    for undecided in &answer.undecided {
        _ = writeln!(out, "undecided: {}", undecided.text);
    }
    for note in &answer.notes {
        _ = writeln!(out, "note: {}", note.text);
    }
    out
}

fn style(verdict: Verdict) -> Style {
    if verdict.is_allow() { Style::Good } else { Style::Bad }
}

fn headline(conclusion: Conclusion) -> String {
    styled(conclusion.style(), conclusion.word())
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
    let outside = answer.outside.as_deref().unwrap_or_default();
    let all = NamedPairs::of(&answer.groups, outside);
    let out = NamedPairs::of([group], outside).text(&all);
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

//! Draws a matrix of outcomes as text.

use std::{collections::BTreeSet, fmt::Write as _};

use palisade_policy::{Family, Protocol};

use super::{Line, Matrix, Member, Outcomes};
pub(crate) use crate::matrix::WIDTH;
use crate::matrix::{Drawing, listed, wrapped};

/// The text for a pair that was not probed.
const NOT_TRIED: &str = ".";
const NOTHING: &str = "-";
const EVERYTHING: &str = "all";
/// The text for nodes or external addresses that share a line and have different outcomes.
const MIXED: &str = "mix";

/// Draws the matrix, in several blocks of columns if it would be wider than `width` characters.
pub(crate) fn text(matrix: &Matrix, width: usize) -> String {
    let mut out = String::new();
    if matrix.lines.is_empty() {
        return "there is no pair of ends to try\n".to_owned();
    }
    let (rows, columns) = shown(matrix);
    let names: Vec<String> = matrix.lines.iter().map(|line| line.label.clone()).collect();
    let cell = |row, column| cell(matrix.cells.get(&(row, column)));
    out += &Drawing { names: &names, rows: &rows, columns: &columns, cell: &cell }.text(width);
    legend(matrix, &columns, &mut out);
    out
}

/// Returns the rows and columns to draw: sources and destinations.
fn shown(matrix: &Matrix) -> (Vec<usize>, Vec<usize>) {
    let rows: BTreeSet<usize> = matrix.cells.keys().map(|(from, _)| *from).collect();
    let columns: BTreeSet<usize> = matrix.cells.keys().map(|(_, to)| *to).collect();
    (rows.into_iter().collect(), columns.into_iter().collect())
}

/// Returns the lines of a cell: the allowed ports.
fn cell(outcomes: Option<&Outcomes>) -> Vec<String> {
    let Some(outcomes) = outcomes else { return vec![NOT_TRIED.to_owned()] };
    if outcomes.values().any(|t| t.allowed > 0 && t.denied > 0) {
        return vec![MIXED.to_owned()];
    }
    if outcomes.values().all(|t| t.denied == 0) {
        return vec![EVERYTHING.to_owned()];
    }
    if outcomes.values().all(|t| t.allowed == 0) {
        return vec![NOTHING.to_owned()];
    }
    wrapped(allowed(outcomes))
}

/// Returns the allowed traffic in short form: whole protocols, then single ports; with `/4` or `/6` if only that IP family
/// is allowed.
fn allowed(outcomes: &Outcomes) -> Vec<String> {
    let tried: BTreeSet<(Protocol, u16)> =
        outcomes.keys().map(|(_, protocol, port)| (*protocol, *port)).collect();
    let family_mark = |protocol: Protocol, port: u16| -> Option<&'static str> {
        let went = |family| outcomes.get(&(family, protocol, port)).map(|t| t.allowed > 0);
        match (went(Family::V4), went(Family::V6)) {
            (Some(true), Some(false)) => Some("/4"),
            (Some(false), Some(true)) => Some("/6"),
            (Some(true), _) | (_, Some(true)) => Some(""),
            _ => None,
        }
    };
    let mut out = Vec::new();
    let protocols: BTreeSet<Protocol> = tried.iter().map(|t| t.0).collect();
    for protocol in protocols {
        let ports: Vec<u16> = tried.iter().filter(|t| t.0 == protocol).map(|t| t.1).collect();
        let marks: Vec<Option<&str>> = ports.iter().map(|p| family_mark(protocol, *p)).collect();
        match marks.first() {
            Some(Some(mark)) if ports.len() > 1 && marks.iter().all(|m| m == &marks[0]) => {
                out.push(format!("{protocol}{mark}"));
            }
            _ => out.extend(ports.iter().zip(&marks).filter_map(|(port, mark)| {
                let letter = letter(protocol);
                mark.map(|mark| {
                    if protocol.has_ports() {
                        format!("{port}{letter}{mark}")
                    } else {
                        format!("{protocol}{mark}")
                    }
                })
            })),
        }
    }
    out
}

/// Returns the letter that marks UDP and SCTP ports.
fn letter(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "u",
        Protocol::Sctp => "s",
        _ => "",
    }
}

fn legend(matrix: &Matrix, columns: &[usize], out: &mut String) {
    _ = writeln!(out, "\ntried:");
    let width = columns.last().map_or(1, |c| (c + 1).to_string().len());
    // Columns with the same ports share a line.
    let mut by_ports: Vec<(String, Vec<String>)> = Vec::new();
    for &column in columns {
        let tried: BTreeSet<(Protocol, u16)> = matrix
            .cells
            .iter()
            .filter(|((_, to), _)| *to == column)
            .flat_map(|(_, o)| o.keys().map(|k| (k.1, k.2)))
            .collect();
        let ports = ports_text(&tried);
        let number = format!("{:>width$}", column + 1);
        match by_ports.iter_mut().find(|(p, _)| *p == ports) {
            Some((_, numbers)) => numbers.push(number.trim().to_owned()),
            None => by_ports.push((ports, vec![number.trim().to_owned()])),
        }
    }
    for (ports, numbers) in by_ports {
        _ = writeln!(out, "  to {}: {ports}", numbers.join(", "));
    }
    for (i, line) in matrix.lines.iter().enumerate().filter(|(_, l)| l.members.len() > 1) {
        if let Some(addresses) = outside_addresses(line) {
            out.push_str(&listed(&format!("  {} is ", i + 1), &addresses));
        }
    }
    let used: BTreeSet<String> = matrix.cells.values().flat_map(|o| cell(Some(o))).collect();
    let has = |test: &dyn Fn(&str) -> bool| used.iter().any(|line| line.split(' ').any(test));
    let mut words = vec!["all: everything tried passes", "-: nothing does", ".: not tried"];
    if has(&|w| w.ends_with('u') || w.contains("u/")) {
        words.push("53u: UDP 53");
    }
    if has(&|w| w.ends_with('s') || w.contains("s/")) {
        words.push("99s: SCTP 99");
    }
    if has(&|w| w.ends_with("/4") || w.ends_with("/6")) {
        words.push("/4, /6: in that IP family only");
    }
    if has(&|w| w == MIXED) {
        words.push("mix: not the same for all of them");
    }
    _ = writeln!(out, "  {}", words.join("; "));
}

fn outside_addresses(line: &Line) -> Option<Vec<String>> {
    let addresses: Vec<String> = line
        .members
        .iter()
        .filter_map(|m| if let Member::Outside(a) = m { Some(a.to_string()) } else { None })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Formats the probed ports, each by itself: `TCP 80 443, UDP 53`.
fn ports_text(tried: &BTreeSet<(Protocol, u16)>) -> String {
    let mut out: Vec<String> = Vec::new();
    for protocol in Protocol::WITH_PORTS {
        let ports: Vec<String> = tried.iter().filter(|t| t.0 == protocol).map(|t| t.1.to_string()).collect();
        if !ports.is_empty() {
            out.push(format!("{protocol} {}", ports.join(" ")));
        }
    }
    let others: BTreeSet<Protocol> = tried.iter().map(|t| t.0).filter(|p| !p.has_ports()).collect();
    out.extend(others.iter().map(ToString::to_string));
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(entries: &[(Family, Protocol, u16, bool)]) -> Outcomes {
        let mut out = Outcomes::new();
        for &(family, protocol, port, allowed) in entries {
            out.entry((family, protocol, port)).or_default().add(allowed);
        }
        out
    }

    #[test]
    fn a_cell_says_what_passes_in_few_words() {
        use Family::{V4, V6};
        use Protocol::{Tcp, Udp};
        let text = |entries: &[(Family, Protocol, u16, bool)]| cell(Some(&outcomes(entries))).join("|");
        assert_eq!(text(&[(V4, Tcp, 80, true), (V6, Tcp, 80, true)]), "all");
        assert_eq!(text(&[(V4, Tcp, 80, false), (V6, Tcp, 80, false)]), "-");
        assert_eq!(text(&[(V4, Tcp, 80, true), (V6, Tcp, 80, false)]), "80/4");
        assert_eq!(text(&[(V4, Tcp, 80, true), (V4, Tcp, 81, false)]), "80");
        assert_eq!(text(&[(V4, Tcp, 80, true), (V4, Tcp, 81, true), (V4, Udp, 53, false)]), "TCP");
        assert_eq!(text(&[(V4, Tcp, 80, false), (V4, Udp, 53, true), (V4, Udp, 54, false)]), "53u");
        assert_eq!(text(&[(V4, Tcp, 80, true), (V4, Tcp, 80, false)]), "mix");
        let many: Vec<_> = (1..6).map(|p| (V4, Tcp, 10_000 + p, p != 3)).collect();
        assert_eq!(text(&many), "10001 10002|10004 10005");
        assert_eq!(cell(None), [NOT_TRIED]);
    }
}

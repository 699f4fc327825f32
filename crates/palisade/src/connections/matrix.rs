//! `-o matrix`: rows are sources, columns are destinations, cells are ports. Ends with the same connections share a row
//! and a column.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use anyhow::{Result, bail};
use palisade_analysis::{Edge, FoldedConnections};
use palisade_policy::{PortSet, Traffic};

use super::{grid::spelt, report::Report, sets::SetNames};
use crate::{
    escape, inputs,
    matrix::{Drawing, listed, wrapped},
    traffic::VisibleTraffic,
};

/// The most cells. More than a thousand rows and columns can't be read, and would take minutes to print.
const MOST_CELLS: usize = 1_000_000;
/// The most lines of a cell. Longer lists of ports get a letter, and are listed below the matrix.
const MOST_LINES: usize = 3;
/// The most columns of a name. Longer ones are listed below the matrix.
const LONGEST_NAME: usize = 44;

const EVERYTHING: &str = "all";
const NOTHING: &str = "-";
/// The text for a pair that policies have no effect on.
const NOT_POSSIBLE: &str = ".";

/// A row and the column of the same ends.
struct Line {
    ends: Vec<usize>,
    is_source: bool,
    is_destination: bool,
}

/// Lists of ports by their letters, and the signs that are used.
#[derive(Default)]
struct Key {
    letters: HashMap<String, String>,
    texts: Vec<(String, String)>,
    signs: BTreeSet<&'static str>,
}

/// Returns the matrix.
///
/// # Errors
/// When it would be too large to read.
pub(crate) fn text(report: &Report<'_>, width: usize) -> Result<String> {
    let folded = report.folded();
    let lines = lines(report, &folded);
    let numbers = |is: fn(&Line) -> bool| (0..lines.len()).filter(|n| is(&lines[*n])).collect::<Vec<_>>();
    let (rows, columns) = (numbers(|line| line.is_source), numbers(|line| line.is_destination));
    if rows.is_empty() || columns.is_empty() {
        let what = if report.denied { "denied" } else { "allowed" };
        return Ok(format!("no matching connection is {what}\n"));
    }
    if rows.len() * columns.len() > MOST_CELLS {
        bail!(
            "the matrix would have {} rows and {} columns; choose ends with --from, --to or -n, or use --group-by namespace",
            rows.len(),
            columns.len()
        );
    }
    let set_names = SetNames::new(&report.ends, report.grouping);
    let (mut names, mut long): (Vec<String>, Vec<(usize, Vec<String>)>) = Default::default();
    for (number, line) in lines.iter().enumerate() {
        let terms: Vec<String> =
            set_names.terms(&line.ends).iter().map(|term| escape::plain(term).into_owned()).collect();
        let name = terms.join(", ");
        names.push(if name.chars().count() <= LONGEST_NAME {
            name
        } else {
            // A term of several ranges is as long as several names.
            long.push((
                number,
                terms.iter().flat_map(|term| term.split(", ").map(ToOwned::to_owned)).collect(),
            ));
            let count = line.ends.len();
            format!("{count} {}, listed below", inputs::plural(count, "end"))
        });
    }
    let key = RefCell::new(Key::default());
    let cell = |row: usize, column: usize| cell(report, &lines[row], &lines[column], &mut key.borrow_mut());
    let drawing = Drawing { names: &names, rows: &rows, columns: &columns, cell: &cell };
    let mut out = drawing.text(width);
    out.push('\n');
    for (number, terms) in long {
        out += &listed(&format!("  {} is ", number + 1), &terms);
    }
    out += &key.borrow().legend(report.denied);
    Ok(out)
}

/// Returns the ends in groups with the same connections, in the order of their first ends.
fn lines(report: &Report<'_>, folded: &FoldedConnections<'_>) -> Vec<Line> {
    let mut roles: BTreeMap<usize, [Vec<usize>; 2]> =
        report.visible_ends_of(folded).into_iter().map(|end| (end, Default::default())).collect();
    for (number, edge) in folded.edges.iter().enumerate() {
        for (role, set) in [edge.from, edge.to].into_iter().enumerate() {
            for end in &folded.sets[set] {
                roles.entry(*end).or_default()[role].push(number);
            }
        }
    }
    let mut found: HashMap<(bool, [Vec<usize>; 2]), usize> = HashMap::new();
    let mut out: Vec<Line> = Vec::new();
    for (end, roles) in roles {
        // Without a filter, it shows as well that nothing reaches an end.
        let pods = report.ends[end].endpoint.is_pods();
        let (is_source, is_destination) = match report.is_filtered() {
            true => (!roles[0].is_empty(), !roles[1].is_empty()),
            false => (pods || !roles[0].is_empty(), pods || !roles[1].is_empty()),
        };
        let number = *found.entry((pods, roles)).or_insert(out.len());
        match out.get_mut(number) {
            Some(line) => line.ends.push(end),
            None => out.push(Line { ends: vec![end], is_source, is_destination }),
        }
    }
    out
}

/// Returns the lines of a cell.
fn cell(report: &Report<'_>, from: &Line, to: &Line, key: &mut Key) -> Vec<String> {
    let mut possible = false;
    let mut found: Vec<String> = Vec::new();
    // The ends of a line differ in their families and in whether they have a connection to themselves, so one pair of
    // each kind is enough.
    let mut seen: BTreeSet<(bool, bool)> = BTreeSet::new();
    for from in &from.ends {
        for to in to.ends.iter().filter(|to| from != *to || report.answer.pods(*from) > 1) {
            let shared = report.answer.families(*from).and(report.answer.families(*to));
            if shared.is_empty() || !seen.insert((shared.v4, shared.v6)) {
                continue;
            }
            let edges: Vec<Edge<'_>> = report.answer.between(*from, *to).collect();
            possible |= !edges.is_empty();
            for edge in edges.iter().filter(|edge| report.shows(edge)) {
                for item in items(edge, edge.families != shared) {
                    if !found.contains(&item) {
                        found.push(item);
                    }
                }
            }
        }
        if seen.len() == 3 {
            break;
        }
    }
    let lines = match (found.is_empty(), possible) {
        (true, true) => vec![NOTHING.to_owned()],
        (true, false) => vec![NOT_POSSIBLE.to_owned()],
        _ => wrapped(found.clone()),
    };
    if lines.len() > MOST_LINES {
        return vec![key.letter(&found.join(" "))];
    }
    key.note(&lines);
    lines
}

/// Returns the traffic of an edge in short form: whole protocols, then single ports.
fn items(edge: &Edge<'_>, one_family: bool) -> Vec<String> {
    let family = match (one_family, edge.families.v4) {
        (false, _) => "",
        (true, true) => "/4",
        (true, false) => "/6",
    };
    let exact = if edge.exact { "" } else { "~" };
    let Traffic { tcp, udp, sctp, other } = edge.traffic;
    let visible = VisibleTraffic::of(edge.traffic);
    if visible.is_all() {
        return vec![format!("{exact}{EVERYTHING}{family}")];
    }
    let real = PortSet::range(1, u16::MAX);
    let mut out = Vec::new();
    for (name, ports, letter) in [("TCP", tcp, ""), ("UDP", udp, "u"), ("SCTP", sctp, "s")] {
        let ports = ports.intersection(&real);
        match ports.ranges() {
            [(1, u16::MAX)] => out.push(format!("{exact}{name}{family}")),
            ranges => out.extend(ranges.iter().map(|(first, last)| match first == last {
                true => format!("{exact}{first}{letter}{family}"),
                false => format!("{exact}{first}-{last}{letter}{family}"),
            })),
        }
    }
    if *other {
        out.push(format!("{exact}ICMP{family}"));
    }
    out
}

impl Key {
    /// Returns the letter of a list of ports.
    fn letter(&mut self, text: &str) -> String {
        self.note(std::slice::from_ref(&text.to_owned()));
        let next = format!("[{}]", spelt(self.texts.len() + 1));
        if let Some(letter) = self.letters.get(text) {
            return letter.clone();
        }
        self.letters.insert(text.to_owned(), next.clone());
        self.texts.push((next.clone(), text.to_owned()));
        next
    }

    /// Records the signs in the lines of a cell.
    fn note(&mut self, lines: &[String]) {
        for word in lines.iter().flat_map(|line| line.split(' ')) {
            let port = word.trim_end_matches("/4").trim_end_matches("/6");
            let signs = [
                ("u", port.ends_with('u')),
                ("s", port.ends_with('s')),
                ("/", word != port),
                ("~", word.starts_with('~')),
                ("ICMP", port.ends_with("ICMP")),
                (NOT_POSSIBLE, word == NOT_POSSIBLE),
            ];
            self.signs.extend(signs.into_iter().filter(|(_, is)| *is).map(|(sign, _)| sign));
        }
    }

    fn legend(&self, denied: bool) -> String {
        let what = if denied { "denied" } else { "allowed" };
        let mut out = String::new();
        for (letter, text) in &self.texts {
            let ports: Vec<String> = text.split(' ').map(ToOwned::to_owned).collect();
            out += &listed(&format!("  {letter} is "), &ports);
        }
        let all = format!("all: every port of every protocol is {what}");
        let mut words = vec![all, "-: nothing is".to_owned()];
        let meanings = [
            (NOT_POSSIBLE, ".: no such connection, or policies do not apply to it"),
            ("u", "53u: UDP 53"),
            ("s", "99s: SCTP 99"),
            ("ICMP", "ICMP: and other protocols without ports"),
            ("/", "/4, /6: in that IP family only"),
            ("~", "~: some pods only"),
        ];
        words.extend(
            meanings.iter().filter(|(sign, _)| self.signs.contains(sign)).map(|(_, text)| (*text).to_owned()),
        );
        out += &format!("  {}\n", words.join("; "));
        out
    }
}

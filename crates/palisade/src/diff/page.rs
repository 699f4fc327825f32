//! A difference as a self-contained HTML page: the summary, a matrix, and a table for each cause.

use std::fmt::Write as _;

use palisade_policy::Direction;

use super::{
    comparison::Comparison,
    groups::groups,
    picture,
    summary::Summary,
    text,
    wording::{self, RowText},
};
use crate::escape;

/// The Content-Security-Policy: the page loads, runs and sends nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("../connections/page.css");

/// Renders the page.
pub(crate) fn page(comparison: &Comparison) -> String {
    let title = markup(Summary::new(comparison).text());
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let notes: Vec<String> =
        notes(comparison).iter().map(|text| format!("<li>{}</li>\n", markup(text))).collect();
    if !notes.is_empty() {
        _ = write!(out, "<ul>\n{}</ul>\n", notes.concat());
    }
    if !comparison.difference.changes.is_empty() {
        _ = writeln!(out, "<figure>\n{}</figure>", picture::picture(comparison));
    }
    for group in groups(comparison) {
        _ = writeln!(out, "<h2>{}</h2>", markup(&text::because(comparison, &group)));
        out += "<table>\n<thead><tr><th></th><th>From</th><th>To</th><th>Ports</th></tr></thead>\n<tbody>\n";
        for row in wording::rows(&group, true) {
            let RowText { opened, from, to, traffic } = &row;
            let (from, to, traffic) = (markup(from), markup(to), markup(traffic));
            let word = if *opened { "opened" } else { "closed" };
            _ = writeln!(out, "<tr><td>{word}</td><td>{from}</td><td>{to}</td><td>{traffic}</td></tr>");
        }
        out += "</tbody>\n</table>\n";
    }
    for end in &comparison.difference.ends {
        _ = writeln!(out, "<h2>{}</h2>\n<ul>", markup(&wording::end_change(comparison, end)));
        for line in Direction::BOTH.into_iter().flat_map(|direction| wording::reach(end, direction)) {
            _ = writeln!(out, "<li>{}</li>", markup(&line));
        }
        out += "</ul>\n";
    }
    out += "</body>\n</html>\n";
    out
}

/// Returns what could not be read or decided, and what else to know.
pub(super) fn notes(comparison: &Comparison) -> Vec<String> {
    let incomplete =
        comparison.incomplete().map(|missing| format!("incomplete: {}: {}", missing.why, missing.means));
    let undecided = comparison.undecided.iter().map(|why| format!("undecided: {}", why.text));
    let dns = [false, true].into_iter().filter_map(|opened| wording::dns(comparison, opened));
    let notes = comparison.all_notes().into_iter().map(|note| format!("note: {}", note.text));
    let blocked = wording::blocked(comparison).into_iter().map(|text| format!("note: {text}"));
    let idle = comparison.difference.policies_without_effect();
    let idle = idle.map(|(key, _)| format!("no effect: {}", wording::idle(comparison, key)));
    let renamed = comparison.renamed().map(|key| wording::renamed(comparison, key));
    incomplete.chain(undecided).chain(dns).chain(notes).chain(blocked).chain(idle).chain(renamed).collect()
}

fn markup(text: &str) -> String {
    escape::markup(text).into_owned()
}

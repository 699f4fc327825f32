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
use crate::{escape, page};

/// Renders the page.
pub(crate) fn page(comparison: &Comparison) -> String {
    let title = Summary::new(comparison).text().to_owned();
    let mut out = format!(
        "<header>\n<h1>{}</h1>\n<p>Connections that the change opens and closes</p>\n</header>\n<main>\n",
        markup(&title)
    );
    let notes: Vec<String> =
        notes(comparison).iter().map(|text| format!("<li>{}</li>\n", markup(text))).collect();
    if !notes.is_empty() {
        _ = write!(out, "<ul class=\"notes\">\n{}</ul>\n", notes.concat());
    }
    if !comparison.difference.changes.is_empty() {
        _ = writeln!(
            out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Matrix of the changes\">\n{}</div>",
            picture::picture(comparison)
        );
    }
    for (number, group) in groups(comparison).into_iter().enumerate() {
        _ = writeln!(out, "<h2 id=\"cause-{number}\">{}</h2>", markup(&text::because(comparison, &group)));
        _ = writeln!(
            out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"cause-{number}\"><table class=\"list\">\n\
             <thead><tr><th scope=\"col\">Change</th><th scope=\"col\">From</th><th scope=\"col\">To</th>\
             <th scope=\"col\">Ports</th></tr></thead>\n<tbody>"
        );
        for row in wording::rows(&group, true) {
            let RowText { opened, from, to, traffic } = &row;
            let (from, to, traffic) = (markup(from), markup(to), markup(traffic));
            let (word, class) = if *opened { ("opened", "warn") } else { ("closed", "good") };
            _ = writeln!(
                out,
                "<tr><td class=\"{class}\">{word}</td><td>{from}</td><td>{to}</td><td>{traffic}</td></tr>"
            );
        }
        out += "</tbody>\n</table></div>\n";
    }
    for end in &comparison.difference.ends {
        _ = writeln!(out, "<h2>{}</h2>\n<ul>", markup(&wording::end_change(comparison, end)));
        for line in Direction::BOTH.into_iter().flat_map(|direction| wording::reach(end, direction)) {
            _ = writeln!(out, "<li>{}</li>", markup(&line));
        }
        out += "</ul>\n";
    }
    out += "</main>\n";
    page::page(&title, &out, &[picture::STYLE], None)
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

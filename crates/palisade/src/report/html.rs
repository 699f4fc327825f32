//! The tables of the page, which need no JavaScript. The script adds the matrix, the search and what decides each cell.

use std::fmt::Write as _;

use super::{
    document::{Document, JsonNamespace},
    ends::{JsonEnd, JsonWorkload},
    policies::JsonPolicy,
};
use crate::{
    escape,
    inputs::plural,
    page::{self, Program},
};

/// The classes of what needs attention.
const BAD: &str = "bad";
const WARN: &str = "warn";

const SCRIPT: &str = include_str!("report.js");

/// The most names that a cell lists. The data has all of them.
const LISTED: usize = 8;
/// The most rows of the table of connections. The data has all of them, and the matrix shows them.
const MOST_LINKS: usize = 2_000;

/// Renders the page.
pub(super) fn page(document: &Document<'_>) -> String {
    let counts = &document.counts;
    let parts = [
        (counts.namespaces, "namespace"),
        (counts.workloads, "workload"),
        (counts.pods, "pod"),
        (counts.connections, "connection"),
    ];
    let parts = parts.map(|(count, what)| format!("{count} {}", plural(count, what)));
    let noun = if counts.policies == 1 { "policy" } else { "policies" };
    let mut out = format!(
        "<a class=\"skip\" href=\"#overview\">Skip to the report</a>\n<header>\n<h1>Network policy report</h1>\n\
         <p>{}, {} {noun}</p>\n</header>\n\
         <nav aria-label=\"Sections\"><ul>",
        parts.join(", "),
        counts.policies
    );
    for (id, name) in SECTIONS {
        _ = write!(out, "<li><a href=\"#{id}\">{name}</a></li>");
    }
    out += "</ul><p id=\"search-place\"></p></nav>\n<main>\n";
    notes(document, &mut out);
    overview(document, &mut out);
    workloads(document, &mut out);
    connections(document, &mut out);
    findings(document, &mut out);
    policies(document, &mut out);
    out += "</main>\n<footer><p>Made by palisade report. Connections are new ones, after translation of service addresses. \
            The data of this page is in it as JSON, and <code>palisade report -o json</code> prints it.</p></footer>\n";
    let data = serde_json::to_string(document).unwrap_or_default();
    page::page("Network policy report", &out, &[], Some(&Program { data: &data, script: SCRIPT }))
}

const SECTIONS: [(&str, &str); 5] = [
    ("overview", "Overview"),
    ("workloads", "Workloads"),
    ("connections", "Connections"),
    ("findings", "Findings"),
    ("policies", "Policies"),
];

fn markup(text: &str) -> std::borrow::Cow<'_, str> {
    escape::markup(text)
}

/// Adds what could not be read or decided, and what else to know.
fn notes(document: &Document<'_>, out: &mut String) {
    let incomplete = document.incomplete.iter().map(|m| (BAD, format!("incomplete: {}: {}", m.why, m.means)));
    let undecided = document.undecided.iter().map(|text| (BAD, format!("undecided: {text}")));
    let notes = document.notes.iter().map(|note| ("", format!("note: {}", note.text)));
    let bystanders = (!document.bystanders.is_empty()).then(|| {
        let shown: Vec<&str> = document.bystanders.iter().take(LISTED).map(String::as_str).collect();
        let more = document.bystanders.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let count = document.bystanders.len();
        let text = format!(
            "note: policies do not apply to {count} {} on the host network or without an address: {}{more}",
            plural(count, "pod"),
            shown.join(", ")
        );
        ("", text)
    });
    let all: Vec<(&str, String)> = incomplete.chain(undecided).chain(notes).chain(bystanders).collect();
    if all.is_empty() {
        return;
    }
    out.push_str("<ul class=\"notes\">\n");
    for (class, text) in all {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        _ = writeln!(out, "<li{class}>{}</li>", markup(&text));
    }
    out.push_str("</ul>\n");
}

/// Opens a section with a table.
fn table(out: &mut String, id: &str, headings: &[&str]) {
    _ = write!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{id}\"><table class=\"list\">\n<thead><tr>"
    );
    for heading in headings {
        _ = write!(out, "<th scope=\"col\">{heading}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

const END: &str = "</tbody>\n</table></div>\n</section>\n";

fn overview(document: &Document<'_>, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"overview\">Overview</h2>\n");
    let open: usize = document.namespaces.iter().map(|n| n.ingress_open).sum();
    let all = document.counts.workloads;
    let text = match open {
        0 => format!("Policies apply to what every workload receives ({all})."),
        1 => format!("1 of {all} workloads is unprotected: no policy applies to what it receives."),
        _ => format!("{open} of {all} workloads are unprotected: no policy applies to what they receive."),
    };
    _ = writeln!(out, "<p class=\"{}\">{text}</p>", if open == 0 { "good" } else { "bad" });
    table(
        out,
        "overview",
        &["Namespace", "Workloads", "Ingress", "Egress", "Asks DNS", "Internet in", "Internet out"],
    );
    let mut all: Vec<&JsonNamespace> = document.namespaces.iter().collect();
    all.sort_by_key(|n| (std::cmp::Reverse(n.ingress_open), std::cmp::Reverse(n.internet_in)));
    for namespace in all {
        let n = namespace.workloads;
        let protection = |isolated: usize, open: usize| match (isolated, open) {
            _ if n == 0 => ("", "–".to_owned()),
            (i, _) if i == n => ("good", "isolated".to_owned()),
            (_, o) if o == n => (BAD, "open".to_owned()),
            (i, 0) => ("", format!("{i} of {n} isolated")),
            (i, o) => (WARN, format!("{i} of {n} isolated, {o} open")),
        };
        let (ingress, egress) = (
            protection(namespace.ingress_isolated, namespace.ingress_open),
            protection(namespace.egress_isolated, namespace.egress_open),
        );
        let of = |count: usize, all: usize| match (count, all) {
            (_, 0) => "–".to_owned(),
            (0, _) => "none".to_owned(),
            (c, a) if c == a => "all".to_owned(),
            (c, a) => format!("{c} of {a}"),
        };
        let exposed = if namespace.internet_in > 0 { "warn" } else { "" };
        _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{n}</td><td class=\"{}\">{}</td><td class=\"{}\">{}</td><td>{}</td>\
             <td class=\"{exposed}\">{}</td><td>{}</td></tr>",
            markup(&namespace.name),
            ingress.0,
            ingress.1,
            egress.0,
            egress.1,
            of(namespace.dns, namespace.dns_known),
            of(namespace.internet_in, n),
            of(namespace.internet_out, n),
        );
    }
    out.push_str(END);
}

fn workloads(document: &Document<'_>, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"workloads\">Workloads</h2>\n<p>Unprotected ones first.</p>\n");
    table(
        out,
        "workloads",
        &[
            "Workload",
            "Pods",
            "Ingress",
            "Egress",
            "DNS",
            "Internet in",
            "Internet out",
            "Exposed to, by its own policies",
        ],
    );
    let rank = |workload: &JsonWorkload| match (workload.ingress, workload.internet_in) {
        ("open", _) => 0,
        (_, "no") => 2,
        _ => 1,
    };
    let mut all: Vec<(&JsonEnd, &JsonWorkload)> =
        document.ends.iter().filter_map(|end| Some((end, end.workload.as_ref()?))).collect();
    all.sort_by_key(|(_, workload)| rank(workload));
    for (end, w) in all {
        let class = |word: &str, warm: &str| {
            match word {
                "open" => "bad",
                "isolated" => "good",
                "yes" | "partly" => warm,
                _ => "",
            }
            .to_owned()
        };
        let shown = w
            .exposed_to
            .iter()
            .take(LISTED)
            .map(|[pods, ports]| markup(&format!("{pods}: {ports}")).into_owned());
        let more = w.exposed_to.len().saturating_sub(LISTED);
        let more = (more > 0).then(|| format!("and {more} more"));
        let exposed: Vec<String> = shown.chain(more).collect();
        _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}{}</th><td>{}</td><td class=\"{}\">{}</td><td class=\"{}\">{}</td><td>{}</td>\
             <td class=\"{}\">{}</td><td>{}</td><td>{}</td></tr>",
            markup(&end.id),
            place(end.file.as_deref(), end.line),
            end.pods,
            class(w.ingress, ""),
            w.ingress,
            class(w.egress, ""),
            w.egress,
            w.dns,
            class(w.internet_in, "warn"),
            w.internet_in,
            w.internet_out,
            exposed.join("<br>"),
        );
    }
    out.push_str(END);
}

/// Formats where an object is.
fn place(file: Option<&str>, line: Option<u32>) -> String {
    match (file.filter(|file| !file.is_empty()), line) {
        (Some(file), Some(line)) => format!("<small>{}:{line}</small>", markup(file)),
        _ => String::new(),
    }
}

fn connections(document: &Document<'_>, out: &mut String) {
    out.push_str(
        "<section>\n<h2 id=\"connections\">Connections</h2>\n<div id=\"matrix-place\"></div>\n\
         <details id=\"links\" open>\n<summary>As a list</summary>\n\
         <p>Each of the first may connect to each of the second on these ports.</p>\n",
    );
    table(out, "connections", &["From", "To", "Ports", "Allowed by"]);
    for link in document.allowed.iter().take(MOST_LINKS) {
        let reasons = &document.reasons[link.reasons];
        let side = |word: &str, deciders: &[usize]| -> Option<String> {
            let texts: Vec<&str> = deciders.iter().take(3).map(|at| &*document.deciders[*at].text).collect();
            let more = deciders.len() - texts.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (!texts.is_empty()).then(|| markup(&format!("{word}: {}{more}", texts.join("; "))).into_owned())
        };
        let through = link.through.as_ref().map(|through| markup(&format!("for {through}")).into_owned());
        let by: Vec<String> = [side("egress", &reasons.egress), side("ingress", &reasons.ingress), through]
            .into_iter()
            .flatten()
            .collect();
        let families = match link.families.is_empty() {
            true => String::new(),
            false => format!(" ({})", link.families.join(" and ")),
        };
        _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}{families}</td><td>{}</td></tr>",
            set(document, link.from),
            set(document, link.to),
            markup(&document.traffics[link.traffic].text),
            by.join("<br>")
        );
    }
    out.push_str("</tbody>\n</table></div>\n");
    let more = document.allowed.len().saturating_sub(MOST_LINKS);
    if more > 0 {
        _ = writeln!(out, "<p>and {more} more, which the matrix shows and -o json lists</p>");
    }
    out.push_str("</details>\n</section>\n");
}

/// Names the ends of a set: the first ones.
fn set(document: &Document<'_>, set: usize) -> String {
    let runs = &document.sets[set];
    let count: usize = runs.iter().map(|[first, last]| last - first + 1).sum();
    let names = runs.iter().flat_map(|[first, last]| *first..=*last).take(LISTED);
    let names: Vec<_> = names.map(|end| markup(&document.ends[end].id)).collect();
    let more = count - names.len();
    let more = if more > 0 { format!("<br>and {more} more") } else { String::new() };
    format!("{}{more}", names.join("<br>"))
}

fn findings(document: &Document<'_>, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"findings\">Findings</h2>\n");
    if document.findings.is_empty() {
        out.push_str("<p class=\"good\">palisade lint finds nothing.</p>\n</section>\n");
        return;
    }
    _ = writeln!(
        out,
        "<p>What <code>palisade lint</code> finds; <code>palisade lint --explain CODE</code> says more.</p>"
    );
    table(out, "findings", &["Level", "Code", "Finding", "Where"]);
    for finding in &document.findings {
        let class = match finding.level {
            palisade_lint::Level::Error => "bad",
            palisade_lint::Level::Warning => "warn",
            palisade_lint::Level::Note => "",
        };
        let fix = finding.fix.as_ref().map(|fix| format!("<small>lint --fix: {}</small>", markup(fix)));
        let place = match place(finding.file.as_deref(), finding.line) {
            place if place.is_empty() => {
                finding.object.as_deref().map(|o| markup(o).into_owned()).unwrap_or_default()
            }
            place => place,
        };
        _ = writeln!(
            out,
            "<tr><td class=\"{class}\">{}</td><td>{}<small>{}</small></td><td>{}{}</td><td>{place}</td></tr>",
            finding.level.as_str(),
            finding.code,
            finding.rule,
            markup(&finding.message),
            fix.unwrap_or_default(),
        );
    }
    out.push_str(END);
}

fn policies(document: &Document<'_>, out: &mut String) {
    out.push_str("<section>\n<h2 id=\"policies\">Policies</h2>\n");
    if document.policies.is_empty() {
        out.push_str("<p class=\"bad\">There are no policies: everything is allowed.</p>\n</section>\n");
        return;
    }
    out.push_str(
        "<p>Those without effect first. Connections are pairs that a policy’s rules allow on the side of its pods; alone: that \
         no other policy allows there.</p>\n",
    );
    table(out, "policies", &["Policy", "What it does", "Selects", "Connections", "Alone", "Does nothing"]);
    for policy in &document.policies {
        let JsonPolicy { selects, does_nothing, .. } = policy;
        let list = |all: &[String]| {
            let shown: Vec<_> = all.iter().take(LISTED).map(|text| markup(text)).collect();
            let more = all.len() - shown.len();
            let more = if more > 0 { format!("<br>and {more} more") } else { String::new() };
            format!("{}{more}", shown.join("<br>"))
        };
        let selects =
            if selects.is_empty() { "<span class=\"bad\">no pod</span>".to_owned() } else { list(selects) };
        let tier = if policy.tier == "developer" {
            String::new()
        } else {
            format!("<small>{} tier</small>", policy.tier)
        };
        _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}{}{tier}</th><td>{}</td><td>{selects}</td><td>{}</td><td>{}</td><td class=\"{}\">{}</td></tr>",
            markup(&policy.name),
            place(policy.file.as_deref(), policy.line),
            markup(&policy.text),
            policy.connections,
            policy.alone,
            if does_nothing.is_empty() { "" } else { "warn" },
            list(does_nothing),
        );
    }
    out.push_str(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with a strict policy could not use them, and names reach the page as text only.
    #[test]
    fn the_script_makes_no_markup_and_loads_nothing() {
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "fetch(",
            "://",
            "</",
            "<!--",
        ] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
    }
}

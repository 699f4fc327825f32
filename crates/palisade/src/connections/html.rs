//! A self-contained HTML page: a grid, and a searchable table.

use std::io::{self, Write};

use super::{grid::Grid, report::Report, svg};
use crate::escape;

/// The Content-Security-Policy: the page loads and sends nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page.
pub(crate) fn page(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let title = report.title();
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<figure>"
    )?;
    svg::picture(report, &Grid::new(report), out)?;
    writeln!(
        out,
        "</figure>\n<p><label>Search: <input id=\"search\" type=\"search\" autocomplete=\"off\"></label> \
         <span id=\"count\"></span></p>\n<table>\n\
         <thead><tr><th>From</th><th>To</th><th>Ports</th><th>From at</th><th>To at</th></tr></thead>\n<tbody>"
    )?;
    let markup = |text: &str| escape::markup(text).into_owned();
    let ids: Vec<String> = report.ends.iter().map(|e| markup(&e.id)).collect();
    let places: Vec<String> =
        report.ends.iter().map(|e| e.at.map_or_else(String::new, |at| markup(&at.to_string()))).collect();
    for edge in report.edges() {
        let traffic = report.traffic(&edge);
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            ids[edge.from],
            ids[edge.to],
            escape::markup(&traffic),
            report.through(&edge).map_or_else(|| places[edge.from].clone(), |routes| markup(&routes)),
            places[edge.to]
        )?;
    }
    writeln!(out, "</tbody>\n</table>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")
}

//! CSV: one line per edge and protocol.

use std::io::{self, Write};

use palisade_policy::Origin;

use super::report::Report;
use crate::{
    escape,
    traffic::{VisibleTraffic, family_names},
};

const HEAD: &str =
    "from,from_namespace,from_file,from_line,to,to_namespace,to_file,to_line,families,protocol,ports,exact";

/// Writes the CSV, with the line breaks of RFC 4180.
pub(crate) fn csv(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{HEAD}\r\n")?;
    let ends: Vec<String> = report
        .ends
        .iter()
        .map(|end| {
            let namespace = end.endpoint.namespace().map_or("", |n| n);
            let file = end.at.map_or("", |s: &Origin| &s.file);
            let line = end.at.and_then(Origin::line).map_or_else(String::new, |line| line.to_string());
            let fields = [&*end.id, namespace, file].map(escape::csv).join(",");
            format!("{fields},{line}")
        })
        .collect();
    for edge in report.edges() {
        let families = family_names(edge.families).join(" ");
        let shown = VisibleTraffic::of(edge.traffic);
        let other = shown.has_other().then(|| ("other", String::new()));
        let parts: Vec<(&str, String)> = if shown.is_all() {
            vec![("all", String::new())]
        } else {
            shown.protocols().chain(other).collect()
        };
        for (protocol, ports) in parts {
            let ports = if ports.is_empty() { "all".to_owned() } else { ports.replace(',', " ") };
            let (from, to, exact) = (&ends[edge.from], &ends[edge.to], edge.exact);
            write!(out, "{from},{to},{families},{protocol},{ports},{exact}\r\n")?;
        }
    }
    Ok(())
}

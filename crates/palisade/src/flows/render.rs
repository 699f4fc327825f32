//! One flow as text.

use anyhow::{Context as _, Result};
use palisade_flow::{Record, Verdict};
use serde::Serialize;

use crate::{
    escape,
    output::{Style, styled},
};

/// The columns. Flows are shown as they come, so widths can't follow from the contents.
const TIME: usize = 24;
const NODE: usize = 16;
const END: usize = 32;
const PORT: usize = 10;

/// The heading of the columns.
pub(super) fn heading(names_nodes: bool) -> String {
    let node = if names_nodes { format!("{:NODE$}  ", "NODE") } else { String::new() };
    let text = format!(
        "{:TIME$}  {node}{:END$}  {:END$}  {:PORT$}  {:7}  VERDICT",
        "TIME", "FROM", "TO", "PORT", "PACKETS"
    );
    format!("{}\n", styled(Style::Strong, &text))
}

/// A record, with a line for each reason.
pub(super) fn text(record: &Record, names_nodes: bool) -> String {
    let time = record.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let node = if names_nodes { format!("{:NODE$}  ", escape::plain(&record.node)) } else { String::new() };
    let (from, to) = (record.source.to_string(), record.destination.to_string());
    let (from, to) = (escape::plain(&from), escape::plain(&to));
    let port = record.port_text();
    let style = match record.verdict {
        Verdict::Dropped => Style::Bad,
        Verdict::Audited => Style::Strong,
    };
    let verdict = styled(style, &record.verdict.to_string());
    let mut out = format!(
        "{time:TIME$}  {node}{from:END$}  {to:END$}  {:PORT$}  {:7}  {verdict} by {} policies\n",
        escape::plain(&port),
        record.count,
        record.direction,
    );
    for line in &record.reason {
        out += &format!("    {}\n", escape::plain(line));
    }
    out
}

/// A value as a line of JSON.
///
/// # Errors
/// Never for records.
pub(super) fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).context("can't write a flow as JSON")?;
    Ok(escape::json(&text).into_owned() + "\n")
}

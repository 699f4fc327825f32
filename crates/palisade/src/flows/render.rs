//! One flow as text.

use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_flow::{Ended, Record, Verdict};
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
        "TIME", "FROM", "TO", "PORT", "COUNT"
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
        Verdict::Forwarded => Style::Good,
        Verdict::Dropped => Style::Bad,
        Verdict::Audited => Style::Strong,
    };
    let verdict = styled(style, &record.verdict.to_string());
    let decided = match record.ended {
        Some(_) => ", ended".to_owned(),
        // Without a rule, no policy of that direction allowed it.
        None if record.verdict == Verdict::Forwarded && record.policies.is_empty() => String::new(),
        None => format!(" by {} policies", record.direction),
    };
    let mut out = format!(
        "{time:TIME$}  {node}{from:END$}  {to:END$}  {:PORT$}  {:7}  {verdict}{decided}\n",
        escape::plain(&port),
        record.count,
    );
    if let Some(to) = &record.opened_to {
        out += &format!("    opened to {}\n", escape::plain(&to.to_string()));
    }
    if let Some(counted) = record.ended.as_ref().and_then(counted) {
        out += &format!("    {counted}\n");
    }
    for line in &record.reason {
        out += &format!("    {}\n", escape::plain(line));
    }
    out
}

/// What was counted until connections ended. `None` if nothing was.
fn counted(ended: &Ended) -> Option<String> {
    let packets = ended.packets.map(|packets| format!("{packets} packets"));
    let bytes = ended.bytes.map(|bytes| format!("{bytes} bytes"));
    let time = ended.milliseconds.map(|time| format!("{:.1} s", Duration::from_millis(time).as_secs_f64()));
    let parts: Vec<String> = packets.into_iter().chain(bytes).chain(time).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A value as a line of JSON.
///
/// # Errors
/// Never for records.
pub(super) fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).context("can't write a flow as JSON")?;
    Ok(escape::json(&text).into_owned() + "\n")
}

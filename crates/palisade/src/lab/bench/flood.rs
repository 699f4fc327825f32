//! `palisade lab bench --flood`: a flood of denied packets, and what becomes of its neighbors.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use palisade_lab::{
    Sandbox,
    bench::{FloodOptions, Flooded, Latency, flood},
    records::Wording,
};
use serde::Serialize;

use crate::{
    exit::Outcome,
    lab::progress_bar,
    output::{self, Format, Style, styled},
    reasons,
};

#[derive(Serialize)]
struct JsonFlood<'a> {
    schema: &'static str,
    seconds: u64,
    rate: u32,
    #[serde(flatten)]
    flooded: &'a Flooded,
}

/// Runs the flood.
pub(super) fn run(duration: Duration, rate: u32, form: Format) -> Result<Outcome> {
    let sandbox = Sandbox::enter()?;
    output::note("building the lab, and measuring changes without a flood …\n");
    let bar = progress_bar(duration.as_secs() as usize);
    let wording: Wording = Arc::new(reasons::lines);
    let flooded = flood(&sandbox, &FloodOptions { duration, rate }, &wording, |past| {
        bar.set_position(past.as_secs());
    });
    bar.finish_and_clear();
    let flooded = flooded.context("the measurement failed")?;
    let text = match form.encoding() {
        None => text(&flooded),
        Some(encoding) => {
            let schema = "palisade.lab-flood/v1";
            encoding.encode(&JsonFlood { schema, seconds: duration.as_secs(), rate, flooded: &flooded })?
        }
    };
    output::print(&text).context("can't write the result")?;
    Ok(Outcome::of(flooded.wrong.is_empty()))
}

fn text(flooded: &Flooded) -> String {
    let Flooded { sent, sent_per_second, dropped, recorded, without_record, records, .. } = flooded;
    let mut out = format!(
        "packets      {sent} sent, {sent_per_second:.0} a second; {dropped} dropped, with those of denied probes\n\
         records      {records} for {recorded} packets; {without_record} counted as without a record\n"
    );
    let wrong = format!("{} with another outcome than the policies demand", flooded.wrong.len());
    let style = if flooded.wrong.is_empty() { Style::Good } else { Style::Bad };
    _ = writeln!(out, "connections  {} probed beside the flood, {}", flooded.probed, styled(style, &wrong));
    for line in &flooded.wrong {
        _ = writeln!(out, "  {line}");
    }
    let change = |latency: &Latency| {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        format!(
            "{} changes, median {:.1} ms, longest {:.1} ms",
            latency.changes,
            ms(latency.median),
            ms(latency.longest)
        )
    };
    _ = writeln!(out, "policy to kernel, quiet    {}", change(&flooded.quiet));
    _ = writeln!(out, "policy to kernel, flooded  {}", change(&flooded.flooded));
    let [before, tenth, half, end] = flooded.resident_kib.map(|kib| kib / 1024);
    _ = writeln!(
        out,
        "memory       {before} MiB before, {tenth} MiB after a tenth of the time, {half} MiB after half, {end} MiB at the end"
    );
    out
}

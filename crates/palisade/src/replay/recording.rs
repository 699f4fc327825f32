//! Reads recorded connections: one record a line, in one of three formats, which each file shows by its first line.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read as _},
};

use anyhow::{Context as _, Result, bail};
use palisade_analysis::replay::RecordedFlow;
use palisade_policy::DomainName;

use super::{
    csv, hubble,
    line::{Line, Seen, is_link_traffic},
    ours, source,
};
use crate::{
    escape,
    inputs::plural,
    output::{self, Style, styled},
};

/// The longest line. A record of Hubble with the labels of both ends has some kilobytes.
const MAX_LINE: u64 = 1 << 20;
/// How much of a line that is too long is skipped. What has longer ones has no lines.
const MAX_SKIPPED: u64 = 64 << 20;
/// The most bytes of a pipe or a device, which may never end.
const MAX_STREAM: u64 = 1 << 30;
/// The most different connections. They are kept in memory.
const MAX_FLOWS: usize = 1_000_000;
/// The most messages about lines that are not records.
const MAX_MESSAGES: usize = 20;

/// How often a connection was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// The line of the first record.
    pub(crate) line: usize,
    /// How many records.
    pub(crate) records: u64,
    /// How many connections or packets.
    pub(crate) count: u64,
}

/// The connections of a file. Equal records are one.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// The connections, and whether they passed.
    pub(crate) flows: BTreeMap<(RecordedFlow, bool), Tally>,
    /// The names of the destinations of connections, of those that have some.
    pub(crate) names: BTreeMap<RecordedFlow, BTreeSet<DomainName>>,
    /// Records that are not replayed, by reason.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    /// Connections that the recorder lost.
    pub(crate) lost: u64,
    /// Lines that are no records.
    pub(crate) malformed: usize,
}

/// A format, with what its first line says.
enum Reader {
    Json,
    Csv(csv::Columns),
}

/// Reads a file, or standard input if it is `-`. Lines that are no records are reported with their number.
///
/// # Errors
/// When the file can't be read, has no record or too many, does not end, or has lines that are no records and `keep_going` is not set.
pub(crate) fn read(path: &str, keep_going: bool) -> Result<Recording> {
    let name = if path == "-" { "standard input".to_owned() } else { escape::plain(path).into_owned() };
    let source = source::open(path, &name)?;
    let recording = lines(source.from, &name, if source.is_finite { u64::MAX } else { MAX_STREAM })?;
    let bad = recording.malformed;
    if bad > MAX_MESSAGES {
        output::note(&format!("… and {} more\n", bad - MAX_MESSAGES));
    }
    if bad > 0 && !keep_going {
        bail!(
            "{bad} {} of {name} can't be read; use --keep-going for an incomplete answer without {}",
            plural(bad, "line"),
            if bad == 1 { "it" } else { "them" }
        );
    }
    // Nothing that breaks among nothing is no answer.
    if recording.flows.is_empty() {
        let skipped: Vec<String> = recording.skipped.iter().map(|(why, n)| format!("{n} {why}")).collect();
        match &skipped[..] {
            [] => bail!("{name} has no recorded connections"),
            _ => bail!("{name} has no connections to replay, only {}", skipped.join(", ")),
        }
    }
    Ok(recording)
}

/// Reads at most `most` bytes.
fn lines(mut from: impl BufRead, name: &str, most: u64) -> Result<Recording> {
    let mut read: u64 = 0;
    let mut recording = Recording::default();
    let mut reader: Option<Reader> = None;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = (&mut from).take(MAX_LINE).read_until(b'\n', &mut line);
        let length = length.with_context(|| format!("can't read {name}"))?;
        if length == 0 {
            break;
        }
        read += length as u64;
        if read > most {
            bail!(
                "{name} is not a regular file, and more than {} MiB are not read from it: write them to a file first",
                most >> 20
            );
        }
        if recording.flows.len() > MAX_FLOWS {
            bail!(
                "{name} has more than {MAX_FLOWS} different connections: use the records of a shorter time"
            );
        }
        let found = if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            read += skip_rest(&mut from).with_context(|| format!("can't read {name}"))?;
            Err(format!("the line is longer than {MAX_LINE} bytes"))
        } else {
            std::str::from_utf8(&line)
                .map_err(|_| "the line is not UTF-8".to_owned())
                .and_then(|text| record(text.trim_start_matches('\u{feff}').trim(), &mut reader))
        };
        match found {
            Ok(None) => {}
            Ok(Some(Line::Skipped(why))) => *recording.skipped.entry(why).or_default() += 1,
            Ok(Some(Line::Lost(count))) => recording.lost = recording.lost.saturating_add(count),
            Ok(Some(Line::Flow(seen))) if !seen.passed && is_link_traffic(&seen.flow) => {
                *recording
                    .skipped
                    .entry("dropped multicast, broadcast and link-local packets")
                    .or_default() += 1;
            }
            Ok(Some(Line::Flow(seen))) => {
                let Seen { flow, passed, count, names } = *seen;
                if !names.is_empty() {
                    recording.names.entry(flow.clone()).or_default().extend(names);
                }
                let tally = recording.flows.entry((flow, passed)).or_default();
                tally.line = if tally.records == 0 { number } else { tally.line };
                tally.records += 1;
                tally.count = tally.count.saturating_add(count);
            }
            Err(why) => {
                recording.malformed += 1;
                if recording.malformed <= MAX_MESSAGES {
                    let heading = styled(Style::Bad, "error:");
                    output::note(&format!("{heading} {name}:{number}: {}\n", escape::plain(&why)));
                }
            }
        }
        // A header that can't be read makes every other line unreadable too.
        if reader.is_none() && recording.malformed > 0 {
            break;
        }
    }
    // Of what was only seen to end, nothing was counted.
    recording.flows.values_mut().for_each(|tally| tally.count = tally.count.max(1));
    Ok(recording)
}

/// Skips the rest of a line that is too long, and returns its length.
fn skip_rest(from: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped: u64 = 0;
    loop {
        let buffer = from.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = buffer.len();
        let used = end.map_or(length, |at| at + 1);
        from.consume(used);
        skipped += used as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
        if skipped > MAX_SKIPPED {
            return Err(io::Error::other(format!("a line is longer than {} MiB", MAX_SKIPPED >> 20)));
        }
    }
}

/// Reads a line. The first one that is not empty shows the format.
fn record(text: &str, reader: &mut Option<Reader>) -> Result<Option<Line>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match reader {
        None if text.starts_with('{') => {
            *reader = Some(Reader::Json);
            json(text).map(Some)
        }
        None if text.starts_with('[') => {
            Err("records must be JSON objects, one a line (of a list, `jq -c .[]` makes lines)".to_owned())
        }
        None => {
            *reader = Some(Reader::Csv(csv::Columns::of(text)?));
            Ok(None)
        }
        Some(Reader::Json) => json(text).map(Some),
        Some(Reader::Csv(columns)) => columns.record(text).map(Some),
    }
}

/// Reads a record of Palisade or of Hubble, which have different fields.
fn json(text: &str) -> Result<Line, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object of one line: {error}"))?;
    if hubble::is_hubble(&value) { hubble::line(value) } else { ours::line(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Recording {
        lines(text, "x", u64::MAX).unwrap()
    }

    #[test]
    fn what_never_ends_is_refused() {
        let header = b"source,destination,protocol,port\n";
        let refused = |read: &mut dyn BufRead, most| lines(read, "x", most).unwrap_err();
        let row: &[u8] = b"10.0.0.1,10.0.0.2,TCP,80\n";
        let many = [header, &row.repeat(100_000)[..]].concat();
        let error = refused(&mut &*many, 1 << 20);
        assert!(error.to_string().contains("more than 1 MiB are not read"), "{error}");
        assert!(lines(&*many, "x", u64::MAX).is_ok());
        let zeros = io::BufReader::new(io::repeat(0));
        let mut endless = io::Cursor::new(header).chain(zeros);
        let error = format!("{:#}", refused(&mut endless, u64::MAX));
        assert!(error.contains("a line is longer than 64 MiB"), "{error}");
    }

    #[test]
    fn lines_that_are_too_long_or_not_utf8_are_counted_and_the_rest_is_read() {
        let header = b"source,destination,protocol,port\n".to_vec();
        let row = b"10.0.0.1,10.0.0.2,TCP,80\n".to_vec();
        let long = [vec![b'x'; (MAX_LINE + 7) as usize], b"\n".to_vec()].concat();
        let recording = read(&[header, row.clone(), long, b"\xff\n".to_vec(), b"\n".to_vec(), row].concat());
        assert_eq!(recording.malformed, 2);
        let tallies: Vec<(usize, u64)> = recording.flows.values().map(|t| (t.line, t.records)).collect();
        assert_eq!(tallies, [(2, 2)]);
    }

    #[test]
    fn dropped_link_traffic_is_not_replayed() {
        let rows = "source,destination,protocol,port,verdict\n\
                    fe80::1,ff02::1,UDP,5353,dropped\n10.0.0.1,255.255.255.255,UDP,68,dropped\n\
                    10.0.0.1,10.0.0.2,UDP,53,dropped\n";
        let recording = read(rows.as_bytes());
        assert_eq!((recording.flows.len(), recording.skipped.values().sum::<u64>()), (1, 2));
    }

    #[test]
    fn a_line_of_the_greatest_length_is_read_whole() {
        let padding = " ".repeat(usize::try_from(MAX_LINE).unwrap());
        let row = format!("source,destination,protocol,port\n10.0.0.1,10.0.0.2,TCP,80{padding}");
        let (head, _) = row.split_at("source,destination,protocol,port\n".len() + padding.len());
        assert_eq!(
            read(head.as_bytes()).malformed,
            1,
            "a line without end of exactly this length is refused"
        );
        assert_eq!(read(&head.as_bytes()[..head.len() - 1]).flows.len(), 1);
    }
}

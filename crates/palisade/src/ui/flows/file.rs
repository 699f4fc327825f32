//! Records of a file: what `palisade flows -o json` wrote.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use palisade_flow::Record;

use super::log::FlowLog;

/// The longest line, in bytes.
const MOST_LINE: u64 = 1 << 20;
/// The most lines.
const MOST_LINES: u64 = 5_000_000;
/// How many records are added at once.
const BATCH: usize = 1_000;

/// Reads a file into a log.
///
/// # Errors
/// When the file can't be read, or has no record.
pub(super) fn read(path: &Path, log: &FlowLog) -> Result<()> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("can't read {name}"))?;
    let mut reader = BufReader::new(file);
    let (mut records, mut malformed, mut read, mut line) = (Vec::new(), 0_u64, 0_u64, Vec::new());
    for number in 1.. {
        line.clear();
        let bytes = reader
            .by_ref()
            .take(MOST_LINE)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("can't read {name}"))?;
        if bytes == 0 {
            break;
        }
        if number > MOST_LINES {
            bail!("{name} has more than {MOST_LINES} lines");
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) => records.push(record),
            Err(_) => malformed += 1,
        }
        if records.len() >= BATCH {
            read += records.len() as u64;
            log.add(records.drain(..));
        }
    }
    read += records.len() as u64;
    log.add(records);
    if read == 0 {
        bail!("{name} has no record of `palisade flows -o json`");
    }
    let problem = |count: u64| {
        let lines = if count == 1 { "line is no record" } else { "lines are no records" };
        format!("{name}: {count} {lines} of `palisade flows -o json`, and left out")
    };
    log.fail((malformed > 0).then(|| problem(malformed)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use palisade_flow::Filter;

    use super::*;

    #[test]
    fn lines_that_are_no_records_are_counted() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("flows.json");
        let record = r#"{"id":1,"time":"2026-11-28T10:00:00Z","node":"n1","verdict":"audited","direction":"ingress","source":{"address":"10.0.0.1"},"destination":{"address":"10.0.0.2"},"protocol":"TCP","port":80,"reason":[],"generation":1,"count":1}"#;
        fs::write(&path, format!("{record}\n\nx\n{{}}\n{record}")).unwrap();
        let log = FlowLog::new();
        read(&path, &log).unwrap();
        let answer = log.answer(&Filter::default(), 0);
        assert_eq!(answer.records.len(), 2);
        assert!(answer.problem.unwrap().contains("2 lines are no records"));
        fs::write(&path, "x\n").unwrap();
        assert!(read(&path, &FlowLog::new()).unwrap_err().to_string().contains("has no record"));
        assert!(read(&dir.path().join("none"), &FlowLog::new()).is_err());
    }
}

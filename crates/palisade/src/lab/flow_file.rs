//! `lab run --flow-file`: the nodes' records of flows as a file, in the form of an agent's.

#[cfg(feature = "agent")]
pub(super) use recording::FlowFile;
#[cfg(not(feature = "agent"))]
pub(super) use without_records::FlowFile;

#[cfg(feature = "agent")]
mod recording {
    use std::{
        fs::File,
        io::{BufWriter, Write as _},
        path::{Path, PathBuf},
        sync::Arc,
        thread,
        time::{Duration, Instant},
    };

    use anyhow::{Context as _, Result, anyhow};
    use palisade_flow::{Record, Verdict};
    use palisade_lab::{
        enforce::MakeEnforcer,
        records::{RecordingOptions, Recordings},
    };

    use crate::{output, reasons};

    /// Agents make up to 500 records a second, and for equal connections one a second: if none came for this long, there are no more.
    const QUIET: Duration = Duration::from_millis(1500);
    const POLL: Duration = Duration::from_millis(50);

    /// A file for records.
    pub(in crate::lab) struct FlowFile {
        path: PathBuf,
        file: File,
        recordings: Arc<Recordings>,
    }

    impl FlowFile {
        /// Creates the file. What was in it is lost.
        pub(in crate::lab) fn create(path: &Path) -> Result<Self> {
            let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
            Ok(Self { path: path.to_owned(), file, recordings: Arc::default() })
        }

        /// Returns the constructor of the nodes' agents, which record.
        pub(in crate::lab) fn enforcers(&self) -> MakeEnforcer {
            let wording = Arc::new(reasons::lines);
            self.recordings.enforcers(RecordingOptions { wording, connections: true })
        }

        /// Waits for the last records and writes all, sorted by time.
        pub(in crate::lab) fn write(self) -> Result<()> {
            let mut records =
                self.rest().map_err(|e| anyhow!(e)).context("can't read the records of flows")?;
            records.sort_by_key(|record| record.time);
            let lost = self.recordings.losses();
            let lost = lost.packets + lost.connections + lost.evicted;
            let Self { path, file, .. } = &self;
            write_lines(file, &records, lost).with_context(|| format!("can't write {}", path.display()))?;
            let forwarded = records.iter().filter(|r| r.verdict == Verdict::Forwarded).count();
            let other = records.len() - forwarded;
            let without = match lost {
                0 => String::new(),
                lost => format!("; without a record, because there were too many at once: {lost}"),
            };
            output::note(&format!(
                "wrote {} records to {}: {forwarded} forwarded, {other} dropped or audited{without}\n",
                records.len(),
                path.display()
            ));
            Ok(())
        }

        fn rest(&self) -> Result<Vec<Record>, String> {
            let mut records = Vec::new();
            let mut last = Instant::now();
            while last.elapsed() < QUIET {
                let more = self.recordings.take()?;
                if !more.is_empty() {
                    last = Instant::now();
                    records.extend(more);
                }
                thread::sleep(POLL);
            }
            Ok(records)
        }
    }

    /// The form of `palisade flows -o json`, with a last line of what has no record.
    fn write_lines(file: &File, records: &[Record], lost: u64) -> std::io::Result<()> {
        let mut out = BufWriter::new(file);
        for record in records {
            serde_json::to_writer(&mut out, record)?;
            out.write_all(b"\n")?;
        }
        if lost > 0 {
            writeln!(out, "{{\"lost\":{lost}}}")?;
        }
        out.flush()
    }
}

#[cfg(not(feature = "agent"))]
mod without_records {
    use std::path::Path;

    use anyhow::Result;
    use palisade_lab::enforce::MakeEnforcer;

    /// No build without the agent makes one.
    pub(in crate::lab) enum FlowFile {}

    impl FlowFile {
        pub(in crate::lab) fn create(_: &Path) -> Result<Self> {
            Err(crate::left_out::no_records("--flow-file"))
        }

        pub(in crate::lab) fn enforcers(&self) -> MakeEnforcer {
            match *self {}
        }

        pub(in crate::lab) fn write(self) -> Result<()> {
            match self {}
        }
    }
}

//! Writes records of flows to a file as JSON lines, for programs that ship logs. The file is rotated by size.
//!
//! A thread writes. Records reach it through a bounded queue, so a slow or full disk holds up nothing: records that don't fit are counted, and an
//! error is logged at intervals. The file is opened again until that works.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::libc::O_NOFOLLOW;

use crate::{config::Config, metrics::Metrics};

/// The most records that wait to be written. A record is about one kilobyte.
const QUEUE: usize = 1024;
/// How long after an error the file is opened again.
const RETRY: Duration = Duration::from_secs(5);
/// How often an error that lasts is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is looked whether another program has moved, removed or truncated the file, as those that rotate logs do.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where records are written, and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlowFileOptions {
    /// The file.
    pub(crate) path: PathBuf,
    /// The size from which the file is rotated.
    pub(crate) size: u64,
    /// How many older files are kept: `PATH.1` is the latest.
    pub(crate) count: u32,
}

impl FlowFileOptions {
    /// Returns the options that the settings ask for, if they do.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let path = config.flow_file.clone()?;
        Some(Self { path, size: config.flow_file_size, count: config.flow_file_count.into() })
    }
}

/// The queue to the thread that writes. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct FlowFile {
    queue: SyncSender<Vec<u8>>,
    metrics: Arc<Metrics>,
}

impl FlowFile {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(options: FlowFileOptions, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let writer = Writer::new(options, RETRY);
        let counters = Arc::clone(&metrics);
        thread::Builder::new().name("flow-file".to_owned()).spawn(move || writer.run(&records, &counters))?;
        Ok(Self { queue, metrics })
    }

    /// Adds the text of a record. Never waits.
    pub(crate) fn add(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(line) {
            self.metrics.flow_file_records_lost.inc();
        }
    }
}

/// The open file, if it can be opened.
struct Writer {
    options: FlowFileOptions,
    retry: Duration,
    open: Option<(File, u64)>,
    failed: Option<Instant>,
    logged: Option<Instant>,
    /// When the file is looked at next, and how often that is.
    look: Instant,
    look_interval: Duration,
}

impl Writer {
    fn new(options: FlowFileOptions, retry: Duration) -> Self {
        let (look, look_interval) = (Instant::now(), LOOK_INTERVAL);
        Self { options, retry, open: None, failed: None, logged: None, look, look_interval }
    }

    fn run(mut self, records: &Receiver<Vec<u8>>, metrics: &Metrics) {
        while let Ok(line) = records.recv() {
            if !self.write(&line) {
                metrics.flow_file_records_lost.inc();
            }
        }
    }

    /// Writes a line. Returns whether it was written.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.failed.is_some_and(|at| at.elapsed() < self.retry) {
            return false;
        }
        match self.try_write(line) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    self.logged = None;
                    tracing::info!(file = %self.options.path.display(), "writing records of flows again");
                }
                true
            }
            Err(error) => {
                (self.open, self.failed) = (None, Some(Instant::now()));
                if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                    self.logged = Some(Instant::now());
                    let file = self.options.path.display();
                    tracing::error!(%file, err = %error, "cannot write records of flows");
                }
                false
            }
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        let open_file = self.open.take();
        let (mut file, mut size) = match open_file.and_then(|open| self.still_there(open)) {
            Some(open) => open,
            None => open(&self.options.path)?,
        };
        let length = line.len() as u64;
        if size > 0 && size.saturating_add(length) > self.options.size {
            drop(file);
            self.rotate()?;
            (file, size) = open(&self.options.path)?;
        }
        if let Err(error) = file.write_all(line) {
            // A full disk takes a part of a line. Readers get whole lines only. Another program may have truncated the file meanwhile.
            if file.metadata()?.len() > size {
                file.set_len(size)?;
            }
            return Err(error);
        }
        self.open = Some((file, size + length));
        Ok(())
    }

    /// Returns the open file, with the size that it has now, if its path still leads to it. What is written to a file that is moved or removed is lost to
    /// those who read it by its path.
    fn still_there(&mut self, (file, size): (File, u64)) -> Option<(File, u64)> {
        if self.look > Instant::now() {
            return Some((file, size));
        }
        self.look = Instant::now() + self.look_interval;
        let (at_path, own) = (fs::symlink_metadata(&self.options.path).ok()?, file.metadata().ok()?);
        let is_same = (at_path.dev(), at_path.ino()) == (own.dev(), own.ino());
        is_same.then_some((file, own.len()))
    }

    /// Gives each file the next number, and removes the last.
    fn rotate(&self) -> io::Result<()> {
        let path = &self.options.path;
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.options.count == 0 {
            return gone(fs::remove_file(path));
        }
        for number in (1..self.options.count).rev() {
            gone(fs::rename(numbered(path, number), numbered(path, number + 1)))?;
        }
        gone(fs::rename(path, numbered(path, 1)))
    }
}

/// Opens the file to append, and returns its size. Others than its owner and group must not read whom pods connect to. A symbolic link is not
/// followed.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file =
        OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(O_NOFOLLOW).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path, size: u64, count: u32) -> FlowFileOptions {
        FlowFileOptions { path: directory.join("flows.jsonl"), size, count }
    }

    fn content(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn files_rotate_by_size_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(options(directory.path(), 10, 2), RETRY);
        for n in 0..9 {
            assert!(writer.write(format!("{n}...\n").as_bytes()));
        }
        let expected =
            [("flows.jsonl", "8...\n"), ("flows.jsonl.1", "6...\n7...\n"), ("flows.jsonl.2", "4...\n5...\n")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(content(directory.path()), expected);
        // The next run goes on in the same file.
        let mut writer = Writer::new(options(directory.path(), 10, 0), RETRY);
        assert!(writer.write(b"9...\n"));
        assert_eq!(content(directory.path())[0].1, "8...\n9...\n");
        assert!(writer.write(b"a line longer than a file\n"));
        assert_eq!(content(directory.path())[0].1, "a line longer than a file\n");
        assert_eq!(content(directory.path()).len(), 3, "files of other settings stay");
    }

    #[test]
    fn an_error_loses_records_until_the_file_can_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("later");
        let mut writer = Writer::new(options(&missing, 100, 1), Duration::ZERO);
        assert!(!writer.write(b"1\n"));
        fs::create_dir(&missing).unwrap();
        assert!(writer.write(b"2\n"));
        assert_eq!(content(&missing)[0].1, "2\n");
        // A link to another file is not followed.
        let linked = directory.path().join("linked");
        fs::create_dir(&linked).unwrap();
        std::os::unix::fs::symlink(missing.join("flows.jsonl"), linked.join("flows.jsonl")).unwrap();
        assert!(!Writer::new(options(&linked, 100, 1), Duration::ZERO).write(b"3\n"));
        assert_eq!(content(&missing)[0].1, "2\n");
    }

    /// As programs that rotate logs do, and users who need the space.
    #[test]
    fn a_file_that_another_program_moves_removes_or_truncates_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("flows.jsonl"), directory.path().join("moved"));
        let mut writer = Writer::new(options(directory.path(), 10, 1), RETRY);
        writer.look_interval = Duration::ZERO;
        assert!(writer.write(b"1...\n"));
        fs::rename(&path, &moved).unwrap();
        assert!(writer.write(b"2...\n"));
        assert_eq!([&moved, &path].map(|file| fs::read_to_string(file).unwrap()), ["1...\n", "2...\n"]);
        fs::remove_file(&path).unwrap();
        assert!(writer.write(b"3...\n"));
        fs::write(&path, "").unwrap();
        assert!(writer.write(b"4...\n") && writer.write(b"5...\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "4...\n5...\n");
        assert_eq!(content(directory.path()).len(), 2, "it is not rotated early");
        // A link in its place is not followed.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert!(!writer.write(b"6...\n"));
        assert_eq!(fs::read_to_string(&moved).unwrap(), "1...\n");
    }

    #[test]
    fn a_full_queue_never_waits_and_counts_what_is_lost() {
        let metrics = Arc::new(Metrics::new("1", "n1"));
        let (queue, records) = sync_channel(2);
        let file = FlowFile { queue, metrics: Arc::clone(&metrics) };
        for _ in 0..5 {
            file.add(b"{}".to_vec());
        }
        assert_eq!(metrics.flow_file_records_lost.get(), 3);
        drop(records);
        file.add(Vec::new());
        assert_eq!(metrics.flow_file_records_lost.get(), 4, "and so do those after the thread has ended");
    }
}

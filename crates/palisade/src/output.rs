//! Writes to standard output and standard error. A closed pipe is not an error.

use std::io::{self, Write as _};

use clap::ValueEnum;

use crate::escape;

/// The output format of most verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text
    #[default]
    Text,
    /// JSON; the `schema` field has the version
    Json,
}

/// The meaning of a word, which determines its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Allowed, opened, ok.
    Good,
    /// Denied, closed, failed.
    Bad,
    /// A heading.
    Strong,
}

/// Colors a text. [`print()`] and [`note()`] strip colors where they don't belong.
pub(crate) fn styled(style: Style, text: &str) -> String {
    let style = match style {
        Style::Good => anstyle::AnsiColor::Green.on_default().bold(),
        Style::Bad => anstyle::AnsiColor::Red.on_default().bold(),
        Style::Strong => anstyle::Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// Writes an answer to standard output. Colors are stripped unless it is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// When writing fails, except that a closed pipe is not an error, as in `palisade … | head`.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(escape::terminal(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Streams an answer without colors to standard output, with `write`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn stream(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = Pipe { inner: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()), closed: false };
    match write(&mut out).and_then(|()| out.flush()) {
        Err(_) if out.closed => Ok(()),
        other => other,
    }
}

/// A writer that records whether the pipe was closed: serializers wrap the error, so its kind is lost.
struct Pipe<W> {
    inner: W,
    closed: bool,
}

impl<W> Pipe<W> {
    fn seen<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.closed |= result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: io::Write> io::Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.seen(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.seen(flushed)
    }
}

/// Writes a message to standard error. Errors are ignored: there is no other place to report them.
pub(crate) fn note(text: &str) {
    _ = anstream::stderr().lock().write_all(escape::terminal(text).as_bytes());
}

/// Returns the width of standard error in columns, or 100 if it is not a terminal.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(100, |(width, _)| usize::from(width.0).max(40))
}

#[cfg(all(target_os = "linux", feature = "lab"))]
/// Formats a duration: `0.4 ms`, `47 ms`, `1.3 s`.
pub(crate) fn duration(d: std::time::Duration) -> String {
    match d.as_secs_f64() {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

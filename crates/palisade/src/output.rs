//! Writing to the terminal: colour where it belongs, and a reader who leaves early is no error.

use std::io::{self, Write as _};

use clap::ValueEnum;

use crate::escape;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; the `schema` field names the version.
    Json,
}

/// What a word means, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As wished: allowed, opened.
    Good,
    /// Denied, closed, wrong.
    Bad,
    /// A heading.
    Strong,
}

/// `text` in the colour of its meaning. [`print()`] and [`note()`] strip the colour where it doesn't belong.
pub(crate) fn styled(style: Style, text: &str) -> String {
    let style = match style {
        Style::Good => anstyle::AnsiColor::Green.on_default().bold(),
        Style::Bad => anstyle::AnsiColor::Red.on_default().bold(),
        Style::Strong => anstyle::Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// Writes an answer to standard output. Colour is stripped unless it is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// What the system says, except that a closed pipe is no error: who reads `palisade … | head` has seen enough.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(escape::terminal(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Lets `write` write an answer to standard output as it is made, without colour.
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

/// Remembers that its reader has gone: serializers wrap the error that says so.
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

/// Writes a message to standard error. If nobody can read it there is nothing left to do about it.
pub(crate) fn note(text: &str) {
    _ = anstream::stderr().lock().write_all(escape::terminal(text).as_bytes());
}

/// How many columns standard error has; what fits everywhere if it is no terminal.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(100, |(width, _)| usize::from(width.0).max(40))
}

#[cfg(all(target_os = "linux", feature = "lab"))]
/// A duration as people read it: `0.4 ms`, `47 ms`, `1.3 s`.
pub(crate) fn duration(d: std::time::Duration) -> String {
    match d.as_secs_f64() {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

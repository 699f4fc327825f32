//! Writes to standard output and standard error. A closed pipe is not an error.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::escape;

/// The output format of most verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text
    #[default]
    Text,
    /// JSON; the `schema` field has the version
    Json,
    /// The same data as YAML
    Yaml,
}

impl Format {
    /// Returns the encoding of formats for programs; `None` for text.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Text => None,
            Self::Json => Some(Encoding::Json),
            Self::Yaml => Some(Encoding::Yaml),
        }
    }
}

/// An encoding of answers for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Encoding {
    /// Encodes an answer, with a line break at the end.
    ///
    /// # Errors
    /// When a value can't be represented, such as a map whose keys are not strings.
    pub(crate) fn encode(self, answer: &impl Serialize) -> Result<String> {
        let mut text = match self {
            Self::Json => {
                let text = serde_json::to_string_pretty(answer).context("can't write the answer as JSON")?;
                escape::json(&text).into_owned()
            }
            Self::Yaml => serde_saphyr::to_string(answer).context("can't write the answer as YAML")?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always, also in files and pipes
    Always,
    /// Never
    Never,
}

impl Color {
    /// Applies the choice to standard output and standard error.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// The meaning of a word, which determines its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Allowed, opened, ok.
    Good,
    /// Denied, closed, failed.
    Bad,
    /// Open where it may not be meant to be: not isolated.
    Open,
    /// A heading.
    Strong,
}

/// Colors a text. [`print()`] and [`note()`] strip colors where they don't belong.
pub(crate) fn styled(style: Style, text: &str) -> String {
    let style = match style {
        Style::Good => anstyle::AnsiColor::Green.on_default().bold(),
        Style::Bad => anstyle::AnsiColor::Red.on_default().bold(),
        Style::Open => anstyle::AnsiColor::Yellow.on_default().bold(),
        Style::Strong => anstyle::Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// Writes an answer to standard output. Colors are stripped unless it is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// When writing fails, except that a closed pipe is not an error, as in `palisade … | head`.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_unless_closed(text).map(drop)
}

/// Writes a part of an answer as [`print()`] does. Returns whether somebody may still read the rest.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_unless_closed(text: &str) -> io::Result<bool> {
    let mut out = anstream::stdout().lock();
    match out.write_all(escape::terminal(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Writes prose to standard output as [`print()`] does. On a terminal, lines that are too long are wrapped between words, and
/// continue with the indentation of the line and four more columns.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_wrapped(text: &str) -> io::Result<()> {
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0).max(40));
    print(&width.map_or(Cow::Borrowed(text), |width| Cow::Owned(wrapped(text, width))))
}

/// Wraps lines that are longer than `width` columns between words. Colors have no width.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let own = line.len() - line.trim_start_matches(' ').len();
        let indent = " ".repeat((own + 4).min(width / 2));
        // Names have hyphens and are copied, so they are never divided.
        let options = textwrap::Options::new(width)
            .subsequent_indent(&indent)
            .break_words(false)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        out.push_str(&textwrap::fill(line, options));
        out.push_str(end);
    }
    out
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

/// After this time it is said what the program does; after twice the time, again, and so on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a computation. On a terminal, says what is being done if it takes more than two seconds, and for how long.
pub(crate) fn with_progress<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (began, mut patience) = (Instant::now(), PATIENCE);
            while waiting.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                note(&format!("{what} … {} s\n", began.elapsed().as_secs()));
                patience = began.elapsed();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Returns the width of standard error in columns, or 100 if it is not a terminal.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(100, |(width, _)| usize::from(width.0).max(40))
}

/// Returns the width of standard output in columns, or 100 if it is not a terminal.
pub(crate) fn answer_width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(100, |(width, _)| usize::from(width.0).max(40))
}

#[cfg(all(target_os = "linux", feature = "lab"))]
/// Formats a duration: `0.4 ms`, `47 ms`, `1.3 s`.
pub(crate) fn duration(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_between_words_and_colors_have_no_width() {
        let line = format!("  {} two three four\nshort\n", styled(Style::Good, "one"));
        let expected = format!("  {} two\n      three\n      four\nshort\n", styled(Style::Good, "one"));
        assert_eq!(wrapped(&line, 12), expected);
        assert_eq!(wrapped("a-very-long-name-that-is-not-cut\n", 12), "a-very-long-name-that-is-not-cut\n");
        assert_eq!(wrapped("", 12), "");
    }

    #[test]
    fn encodings_have_the_same_content_and_escape_control_characters() {
        #[derive(Serialize)]
        struct Answer {
            verdict: &'static str,
            name: &'static str,
        }
        let answer = Answer { verdict: "allowed", name: "a\u{1b}[31m: \u{202e}" };
        for encoding in [Encoding::Json, Encoding::Yaml] {
            let text = encoding.encode(&answer).unwrap();
            assert!(!text.contains('\u{1b}'), "{text:?}");
            let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(read["verdict"], "allowed");
            assert_eq!(read["name"], answer.name);
        }
    }
}

//! The agent's log: structured, on standard error.

use std::io::{self, IsTerminal as _, Write};

use palisade_manifest::needs_escape;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel};

/// Crates whose events are logged at the configured level.
const OWN_CRATES: [&str; 3] = ["palisade_agent", "palisade_api", "palisade"];

/// Starts the log of this process. A second call does nothing.
pub fn start(format: LogFormat, level: LogLevel) {
    let own = LevelFilter::from_level(match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    });
    // Libraries log each retry and each request. Our own events contain what operators need.
    let others = if level == LogLevel::Trace { LevelFilter::DEBUG } else { LevelFilter::OFF };
    let filter = Targets::new().with_default(others).with_targets(OWN_CRATES.map(|target| (target, own)));
    let layer = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(|| SanitizingWriter::new(io::stderr(), Format::Json))
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => {
            let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer()
                .with_ansi(color)
                .with_target(false)
                .with_writer(move || {
                    SanitizingWriter::new(io::stderr(), if color { Format::Colored } else { Format::Plain })
                })
                .with_filter(filter)
                .boxed()
        }
    };
    _ = Registry::default().with(layer).try_init();
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    /// Text with the color codes of the subscriber. All other control characters are escaped.
    Colored,
    Json,
}

/// The color codes that the subscriber uses. None of them hides text.
const COLORS: [&str; 9] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[3m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[34m",
    "\u{1b}[35m",
];

/// The longest line of text, in bytes: names and messages may be long.
const MAX_LINE: usize = 16 << 10;

/// Escapes control characters in log lines, so that names and messages from objects, files or the kernel can't move a terminal's
/// cursor, hide text or look like another line.
#[derive(Debug)]
struct SanitizingWriter<W> {
    inner: W,
    format: Format,
}

impl<W> SanitizingWriter<W> {
    fn new(inner: W, format: Format) -> Self {
        Self { inner, format }
    }
}

impl<W: Write> Write for SanitizingWriter<W> {
    /// Writes one line. The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.inner.write_all(sanitize(&String::from_utf8_lossy(line), self.format).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn sanitize(line: &str, format: Format) -> String {
    let text = line.strip_suffix('\n').unwrap_or(line);
    let mut out = String::with_capacity(line.len() + 16);
    for (at, c) in text.char_indices() {
        match format {
            Format::Plain | Format::Colored if out.len() >= MAX_LINE => {
                out.push('…');
                break;
            }
            Format::Colored if COLORS.iter().any(|color| text[at..].starts_with(color)) => out.push(c),
            Format::Json if needs_escape(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ if needs_escape(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "INFO name=a\u{1b}[2J\nERROR forged\r\u{7}\u{9b}31m\u{202e}\n";
        let text = sanitize(hostile, Format::Plain);
        assert!(text.ends_with('\n') && !text.trim_end_matches('\n').contains(needs_escape), "{text}");
        assert!(text.contains("a\\u{1b}[2J\\u{a}ERROR forged\\u{d}"), "{text}");
        let line = serde_json::json!({"name": "\u{9b}\u{202e}\u{7f}\n"}).to_string() + "\n";
        let json = sanitize(&line, Format::Json);
        assert!(!json.trim_end_matches('\n').contains(needs_escape), "{json}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["name"],
            "\u{9b}\u{202e}\u{7f}\n"
        );
        assert!(sanitize(&"y".repeat(64 << 10), Format::Plain).len() < MAX_LINE + 8);
    }

    /// Values that contain color codes are escaped.
    #[test]
    fn only_the_subscribers_colors_pass() {
        use std::sync::{Arc, Mutex};
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = fmt::layer()
            .with_ansi(true)
            .with_writer(move || SanitizingWriter::new(writer.clone(), Format::Colored));
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            let name = "x\u{1b}[2J\u{1b}[8m";
            tracing::error!(%name, text = name, "of {name}");
        });
        let line = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!(line.contains("\u{1b}[31mERROR"), "{line:?}");
        assert!(!line.contains("\u{1b}[2J") && !line.contains("\u{1b}[8m"), "{line:?}");
    }
}

//! The agent's log: structured, on standard error.

use std::io::{self, IsTerminal as _, Write};

use palisade_manifest::needs_escape;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel};

/// Our own crates: what they say is logged as wished.
const OURS: [&str; 3] = ["palisade_agent", "palisade_api", "palisade"];

/// Starts the log of this process. A second call does nothing.
pub fn start(format: LogFormat, level: LogLevel) {
    let own = LevelFilter::from_level(match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    });
    // Libraries tell each retry and each request: what an operator needs of them comes through our own words.
    let others = if level == LogLevel::Trace { LevelFilter::DEBUG } else { LevelFilter::OFF };
    let filter = Targets::new().with_default(others).with_targets(OURS.map(|target| (target, own)));
    let layer = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(|| Shown::new(io::stderr(), Form::Json))
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer()
                .with_ansi(colour)
                .with_target(false)
                .with_writer(move || {
                    Shown::new(io::stderr(), if colour { Form::Coloured } else { Form::Plain })
                })
                .with_filter(filter)
                .boxed()
        }
    };
    _ = Registry::default().with(layer).try_init();
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// With the log's own colours. The subscriber lets names through that have colours; no others than its own pass here.
    Coloured,
    Json,
}

/// What the subscriber colours a line with: none hides text.
const COLOURS: [&str; 9] = [
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

/// As much of a line is logged as text: names and messages of others may be long.
const LONGEST: usize = 16 << 10;

/// Writes lines of the log in which nothing that comes from objects, files or the kernel moves a terminal's cursor, hides
/// text or looks like another line.
#[derive(Debug)]
struct Shown<W> {
    inner: W,
    form: Form,
}

impl<W> Shown<W> {
    fn new(inner: W, form: Form) -> Self {
        Self { inner, form }
    }
}

impl<W: Write> Write for Shown<W> {
    /// The subscriber gives each line as one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.inner.write_all(shown(&String::from_utf8_lossy(line), self.form).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn shown(line: &str, form: Form) -> String {
    let text = line.strip_suffix('\n').unwrap_or(line);
    let mut out = String::with_capacity(line.len() + 16);
    for (at, c) in text.char_indices() {
        match form {
            Form::Plain | Form::Coloured if out.len() >= LONGEST => {
                out.push('…');
                break;
            }
            Form::Coloured if COLOURS.iter().any(|colour| text[at..].starts_with(colour)) => out.push(c),
            Form::Json if needs_escape(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
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
    fn a_line_stays_one_and_obeys_nobody() {
        let hostile = "INFO name=a\u{1b}[2J\nERROR forged\r\u{7}\u{9b}31m\u{202e}\n";
        let text = shown(hostile, Form::Plain);
        assert!(text.ends_with('\n') && !text.trim_end_matches('\n').contains(needs_escape), "{text}");
        assert!(text.contains("a\\u{1b}[2J\\u{a}ERROR forged\\u{d}"), "{text}");
        let line = serde_json::json!({"name": "\u{9b}\u{202e}\u{7f}\n"}).to_string() + "\n";
        let json = shown(&line, Form::Json);
        assert!(!json.trim_end_matches('\n').contains(needs_escape), "{json}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["name"],
            "\u{9b}\u{202e}\u{7f}\n"
        );
        assert!(shown(&"y".repeat(64 << 10), Form::Plain).len() < LONGEST + 8);
    }

    /// The colours are the subscriber's own: what it is given has none.
    #[test]
    fn colours_come_from_nobody_else() {
        use std::sync::{Arc, Mutex};
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let layer =
            fmt::layer().with_ansi(true).with_writer(move || Shown::new(writer.clone(), Form::Coloured));
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            let name = "x\u{1b}[2J\u{1b}[8m";
            tracing::error!(%name, text = name, "of {name}");
        });
        let line = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(line.contains("\u{1b}[31mERROR"), "{line:?}");
        assert!(!line.contains("\u{1b}[2J") && !line.contains("\u{1b}[8m"), "{line:?}");
    }
}

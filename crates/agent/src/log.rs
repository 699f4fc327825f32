//! The agent's log: structured, on standard error.

use std::io::{self, IsTerminal as _};

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
            .with_writer(io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer()
                .with_ansi(colour)
                .with_target(false)
                .with_writer(io::stderr)
                .with_filter(filter)
                .boxed()
        }
    };
    _ = Registry::default().with(layer).try_init();
}

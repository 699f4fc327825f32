//! Sends records of flows as OTLP logs, and the metrics as OTLP metrics, to an endpoint such as an OpenTelemetry Collector.
//!
//! ```text
//! FlowStore ──Arc<Record>──► bounded queue ──► batches ──► POST …/v1/logs      (export, logs)
//! Metrics ──text each minute───────────────────────────► POST …/v1/metrics   (export, points)
//! ```
//!
//! A thread of its own sends, by HTTP with protobuf. Nothing waits for it: records that don't fit into the queue are counted. The
//! messages are those of the crate `opentelemetry-proto`. The SDK is not used: it would define every metric a second time, and
//! does not tell how many records its queue lost.

mod export;
mod logs;
mod points;
mod sender;
mod settings;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::resource::v1::Resource;
use palisade_flow::Record;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::metrics::Metrics;
pub use settings::OtlpError;
pub(crate) use settings::OtlpSettings;

/// The most records that wait to be sent. A record takes one or two kilobytes.
const QUEUE: usize = 4096;
/// How often lost records are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The queue to the thread that sends. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Otlp {
    queue: mpsc::Sender<Arc<Record>>,
    metrics: Arc<Metrics>,
    logged: Mutex<Option<Instant>>,
}

impl Otlp {
    /// Starts the thread.
    ///
    /// # Errors
    /// If TLS can't be set up or no thread can be started.
    pub(crate) fn start(
        settings: OtlpSettings,
        node: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OtlpError> {
        let (queue, records) = mpsc::channel(QUEUE);
        let resource = resource(&settings, node);
        let exporter = export::Exporter::new(settings, resource, Arc::clone(&metrics))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(exporter.run(records));
        thread::Builder::new().name("otlp".to_owned()).spawn(run)?;
        Ok(Self { queue, metrics, logged: Mutex::new(None) })
    }

    /// Adds a record. Never waits.
    pub(crate) fn add(&self, record: &Arc<Record>) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.queue.try_send(Arc::clone(record))
        {
            self.metrics.otlp_records_lost.inc();
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                *logged = Some(Instant::now());
                tracing::warn!("lost records of flows, the OTLP endpoint is too slow");
            }
        }
    }
}

impl From<io::Error> for OtlpError {
    fn from(error: io::Error) -> Self {
        Self::Start(error)
    }
}

/// Describes this agent, by OpenTelemetry's semantic conventions.
fn resource(settings: &OtlpSettings, node: &str) -> Resource {
    let own = [
        ("service.name", "palisade-agent"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", node),
        ("k8s.node.name", node),
    ];
    let given = |key: &str| settings.resource.iter().any(|(name, _)| name == key);
    let own = own.into_iter().filter(|(key, _)| !given(key)).map(|(key, value)| logs::text(key, value));
    let more = settings.resource.iter().map(|(key, value)| logs::text(key, value));
    Resource { attributes: own.chain(more).collect(), ..Resource::default() }
}

#[cfg(test)]
mod tests;

//! The loop that sends. It ends when the queue is closed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse},
    resource::v1::Resource,
};
use palisade_flow::Record;
use prost::Message as _;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

use super::{
    logs, points,
    sender::{Sender, Sent},
    settings::{OtlpError, OtlpSettings},
};
use crate::metrics::{Metrics, ResultLabel};

/// The most records of a request (the specification's default for batches).
const MAX_BATCH: usize = 512;
/// How long the first record of a request waits for others.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// The first and the longest pause after a request that may be accepted later.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often an error that lasts is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Sends records and metrics.
pub(super) struct Exporter {
    sender: Sender,
    settings: OtlpSettings,
    resource: Resource,
    metrics: Arc<Metrics>,
    started: SystemTime,
}

impl Exporter {
    pub(super) fn new(
        settings: OtlpSettings,
        resource: Resource,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OtlpError> {
        let sender = Sender::new(&settings)?;
        Ok(Self { sender, settings, resource, metrics, started: SystemTime::now() })
    }

    /// Sends until the queue is closed. Records and metrics don't wait for each other.
    pub(super) async fn run(self, records: Receiver<Arc<Record>>) {
        tokio::select! {
            () = self.send_records(records) => {}
            () = self.send_metrics() => {}
        }
    }

    async fn send_records(&self, mut records: Receiver<Arc<Record>>) {
        let mut log = ErrorLog::new("records of flows");
        let mut batch: Vec<Arc<Record>> = Vec::new();
        while records.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let until = Instant::now() + BATCH_TIME;
            while batch.len() < MAX_BATCH {
                let room = MAX_BATCH - batch.len();
                match timeout_at(until, records.recv_many(&mut batch, room)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            let message = Bytes::from(logs::request(&self.resource, &batch).encode_to_vec());
            let lost = self.send_batch(message, batch.len() as u64, &mut log).await;
            self.metrics.otlp_records_lost.inc_by(lost);
            batch.clear();
        }
    }

    /// Sends a batch until it is accepted or refused. Returns how many of its records were not accepted.
    async fn send_batch(&self, message: Bytes, number: u64, log: &mut ErrorLog) -> u64 {
        let mut pause = PAUSES[0];
        loop {
            match self.sender.send(&self.settings.logs, message.clone()).await {
                Sent::Accepted(body) => {
                    self.count("ok");
                    log.works();
                    let rejected =
                        ExportLogsServiceResponse::decode(&*body).ok().and_then(|r| r.partial_success);
                    let Some(rejected) = rejected.filter(|some| some.rejected_log_records > 0) else {
                        return 0;
                    };
                    log.failed(&rejected.error_message);
                    return u64::try_from(rejected.rejected_log_records).unwrap_or_default().min(number);
                }
                Sent::Refused(why) => {
                    self.count("failed");
                    log.failed(&why);
                    return number;
                }
                Sent::Later { why, after } => {
                    self.count("failed");
                    log.failed(&why);
                    sleep(apart(until_next(after, pause))).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
    }

    /// Sends the metrics at intervals. Those that don't arrive are in the next ones: counters never go back.
    async fn send_metrics(&self) {
        let mut log = ErrorLog::new("metrics");
        let mut ticks = interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(text) = self.metrics.text() else { continue };
            let request = points::request(&self.resource, &text, self.started, SystemTime::now());
            match self.sender.send(&self.settings.metrics, request.encode_to_vec().into()).await {
                Sent::Accepted(body) => {
                    self.count("ok");
                    log.works();
                    let response = ExportMetricsServiceResponse::decode(&*body).ok();
                    let rejected = response.and_then(|response| response.partial_success);
                    if let Some(rejected) = rejected.filter(|some| some.rejected_data_points > 0) {
                        log.failed(&rejected.error_message);
                    }
                }
                Sent::Later { why, after } => {
                    self.count("failed");
                    log.failed(&why);
                    if let Some(asked) = after {
                        sleep(apart(asked)).await;
                    }
                }
                Sent::Refused(why) => {
                    self.count("failed");
                    log.failed(&why);
                }
            }
        }
    }

    fn count(&self, result: &'static str) {
        self.metrics.otlp_requests.get_or_create(&ResultLabel { result }).inc();
    }
}

/// Returns how long to wait before a request is sent again: as long as the endpoint asks, but at least the first pause. An endpoint that asks for
/// none at all would otherwise get requests without end.
fn until_next(asked: Option<Duration>, pause: Duration) -> Duration {
    asked.map_or(pause, |asked| asked.max(PAUSES[0]))
}

/// Returns a pause that is up to a quarter longer: agents that lost the same endpoint don't come back at the same moment.
fn apart(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + f64::from(jitter()) / 400.0)
}

/// Returns a number from 0 to 99 that differs between agents.
fn jitter() -> u8 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u8::try_from(now.subsec_micros() % 100).unwrap_or_default()
}

/// Logs that nothing is accepted, once a minute while it lasts.
struct ErrorLog {
    what: &'static str,
    logged: Option<Instant>,
}

impl ErrorLog {
    fn new(what: &'static str) -> Self {
        Self { what, logged: None }
    }

    fn failed(&mut self, why: &str) {
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            // What an endpoint answers may be long.
            let why: String = why.chars().take(200).collect();
            tracing::warn!(what = self.what, err = %why, "sending to the OTLP endpoint failed");
        }
    }

    fn works(&mut self) {
        if self.logged.take().is_some() {
            tracing::info!(what = self.what, "sending to the OTLP endpoint works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_never_sent_again_without_a_pause() {
        let seconds = Duration::from_secs;
        assert_eq!(until_next(None, seconds(4)), seconds(4));
        assert_eq!(until_next(Some(Duration::ZERO), seconds(4)), seconds(1));
        assert_eq!(until_next(Some(seconds(60)), seconds(4)), seconds(60));
    }
}

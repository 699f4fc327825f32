//! Collectors that hang, refuse, or send without an end.

use std::time::{Duration, Instant};

use crate::{
    LOGS, METRICS,
    agent::Agent,
    collector::{Answer, Collector},
    ports, send, until,
};

/// Requests fail soon.
const SHORT: (&str, &str) = ("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
/// Metrics are sent once, so that the requests are those of records.
const NO_METRICS: (&str, &str) = ("OTEL_METRIC_EXPORT_INTERVAL", "86400000");

fn start(collector: &Collector, variables: &[(&str, &str)]) -> Agent {
    Agent::start(&format!("http://{}", collector.address), &[&[SHORT], variables].concat())
}

/// Waits for requests with records.
fn sends_logs(collector: &Collector, number: usize) {
    until("records are sent", || collector.received(LOGS).len() >= number);
}

/// The collector accepts, and then its answer does not end.
pub(crate) fn accepted_once() {
    for answer in [Answer::HangingBody(200), Answer::EndlessBody(200)] {
        let collector = Collector::start(None);
        collector.answer(answer);
        let agent = start(&collector, &[NO_METRICS]);
        for port in [1001, 1002, 1003] {
            send(port);
            let text = port.to_string();
            until("the record arrives", || ports(&collector).contains(&text));
        }
        assert_eq!(ports(&collector), ["1001", "1002", "1003"], "each once, with {answer:?}");
        agent.stop();
    }
}

/// An endpoint that asks for a pause of nothing is no reason to send without a pause.
pub(crate) fn no_pause() {
    let collector = Collector::start(None);
    collector.answer(Answer::Status(429, "retry-after: 0\r\n"));
    let agent = start(&collector, &[NO_METRICS]);
    send(1001);
    sends_logs(&collector, 1);
    let begun = Instant::now();
    sends_logs(&collector, 4);
    // As many as seconds, whatever the machine is busy with.
    let (requests, seconds) = (collector.received(LOGS).len() as u64, begun.elapsed().as_secs());
    assert!(requests <= seconds + 3, "{requests} requests in {seconds} s");
    agent.stop();
}

/// A pause until a date, as it is on the clock of the endpoint, which is slow. Records and metrics wait.
pub(crate) fn dates() {
    /// Less than the pause that is asked for. Without it, two pauses are at most 3.75 s, and metrics are sent three times a second.
    const PAUSE: Duration = Duration::from_millis(1900);
    let collector = Collector::start(None);
    collector.answer(Answer::Status(
        503,
        "date: Sun, 01 Mar 2026 12:00:00 GMT\r\nretry-after: Sun, 01 Mar 2026 12:00:02 GMT\r\n",
    ));
    let started = Instant::now();
    let agent = start(&collector, &[]);
    let begun = Instant::now();
    send(1001);
    sends_logs(&collector, 3);
    assert!(begun.elapsed() >= 2 * PAUSE, "records are sent three times in {:?}", begun.elapsed());
    let (metrics, elapsed) = (collector.received(METRICS).len(), started.elapsed());
    assert!(PAUSE * (metrics as u32 - 1) <= elapsed, "metrics are sent {metrics} times in {elapsed:?}");
    agent.stop();
}

/// While the collector fails, the latest records wait. When it works again, they arrive, each once more at most.
pub(crate) fn fails() {
    for answer in [
        Answer::Nothing,
        Answer::Close,
        Answer::Status(429, "retry-after: 1\r\n"),
        Answer::Status(503, ""),
        Answer::HangingBody(503),
    ] {
        let collector = Collector::start(None);
        collector.answer(answer);
        let agent = start(&collector, &[]);
        send(1001);
        sends_logs(&collector, 2);
        send(1002);
        collector.answer(Answer::Status(200, ""));
        until("what waited arrives", || ports(&collector).iter().any(|port| port == "1002"));
        let tried = ports(&collector);
        assert!(tried.iter().filter(|port| *port == "1001").count() >= 2, "{answer:?}: {tried:?}");
        assert_eq!(tried.iter().filter(|port| *port == "1002").count(), 1, "{answer:?}: {tried:?}");
        until("metrics arrive", || !collector.metrics(METRICS).is_empty());
        agent.stop();
    }
}

/// Nothing of an answer is kept beyond a bound, and the connection is closed.
pub(crate) fn endless() {
    /// What sockets may hold on both sides, and what is read of an answer.
    const MOST: u64 = 16 << 20;
    for answer in [Answer::EndlessBody(200), Answer::EndlessBody(503), Answer::EndlessHeaders] {
        let collector = Collector::start(None);
        let agent = start(&collector, &[]);
        until("metrics arrive", || !collector.metrics(METRICS).is_empty());
        let before = agent.memory();
        collector.answer(answer);
        send(1001);
        sends_logs(&collector, 1);
        let so_far = collector.received(METRICS).len();
        until("it goes on", || collector.received(METRICS).len() >= so_far + 5);
        let answers = collector.received(METRICS).len() + collector.received(LOGS).len();
        let taken = collector.endless();
        assert!(taken <= MOST * answers as u64, "{answer:?}: {taken} bytes in {answers} answers");
        let more = agent.memory().saturating_sub(before);
        assert!(more <= 32 << 10, "{answer:?}: {more} KiB more");
        agent.stop();
    }
}

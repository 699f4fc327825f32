//! The exporter against a receiver that decodes what arrives: one that accepts, refuses, is slow, or is away.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU16, AtomicU64, Ordering},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        metrics::v1::ExportMetricsServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
};
use palisade_flow::{Ended, OpenedTo, Verdict};
use prost::Message as _;

use super::*;

/// How long is waited for what must happen, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What arrived, and how requests are answered.
#[derive(Default)]
struct Received {
    logs: Mutex<Vec<LogRecord>>,
    resource: Mutex<Vec<KeyValue>>,
    metrics: Mutex<Vec<Metric>>,
    headers: Mutex<Vec<String>>,
    requests: AtomicU64,
    /// The status of answers; 0 for none at all.
    status: AtomicU16,
    /// How many records of each request are said to be rejected.
    rejected: AtomicU16,
}

impl Received {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        *self.headers.lock().unwrap() = headers;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let status = self.status.load(Ordering::Relaxed);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let mut answer = Vec::new();
        if status == 200 && path == "/v1/logs" {
            for one in ExportLogsServiceRequest::decode(body).unwrap().resource_logs {
                *self.resource.lock().unwrap() = one.resource.unwrap().attributes;
                let logs = one.scope_logs.into_iter().flat_map(|scope| scope.log_records);
                self.logs.lock().unwrap().extend(logs);
            }
            let rejected_log_records = self.rejected.load(Ordering::Relaxed).into();
            let partial =
                ExportLogsPartialSuccess { rejected_log_records, error_message: "too old".to_owned() };
            answer = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        } else if status == 200 {
            assert_eq!(path, "/v1/metrics");
            let found = ExportMetricsServiceRequest::decode(body).unwrap().resource_metrics;
            let scopes = found.into_iter().flat_map(|one| one.scope_metrics);
            *self.metrics.lock().unwrap() = scopes.flat_map(|scope| scope.metrics).collect();
        }
        Ok(Response::builder().status(status).body(Full::from(answer)).unwrap())
    }
}

/// Starts a receiver on a thread of its own.
fn receiver(status: u16) -> (Arc<Received>, SocketAddr) {
    let received = Arc::new(Received { status: AtomicU16::new(status), ..Received::default() });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let shared = Arc::clone(&received);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let shared = Arc::clone(&shared);
                        async move { shared.answer(request).await }
                    });
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await,
                    );
                });
            }
        });
    });
    (received, address)
}

fn start(address: SocketAddr, vars: &[(&str, &str)]) -> (Otlp, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("1.2.3", "n1"));
    let var = |name: &str| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    let settings = OtlpSettings::new(&format!("http://{address}"), var).unwrap();
    (Otlp::start(settings, "n1", Arc::clone(&metrics)).unwrap(), metrics)
}

fn record(id: u64) -> Arc<Record> {
    let record = serde_json::json!({
        "id": id, "time": "2026-01-02T03:04:05Z", "node": "n1", "verdict": "dropped", "direction": "ingress",
        "source": {"address": "10.0.0.1", "pod": {"kind": "Pod", "namespace": "shop", "name": "web-0"},
            "workload": {"kind": "Deployment", "name": "web"}},
        "destination": {"address": "10.0.0.2", "pod": {"kind": "Pod", "namespace": "data", "name": "db-0"},
            "workload": {"kind": "StatefulSet", "name": "db"}},
        "protocol": "TCP", "port": 5432,
        "policies": [{"kind": "NetworkPolicy", "namespace": "data", "name": "closed"}],
        "reason": ["no rule\nmatches"], "generation": 7, "count": 3,
    });
    Arc::new(serde_json::from_value(record).unwrap())
}

#[track_caller]
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn values(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let show = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        Value::ArrayValue(list) => format!("{} values", list.values.len()),
        other => panic!("{other:?}"),
    };
    let value = |one: &KeyValue| show(one.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|one| (&*one.key, value(one))).collect()
}

#[test]
fn records_arrive_with_the_attributes_of_the_conventions() {
    let (received, address) = receiver(200);
    let vars = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=c"),
    ];
    let (otlp, metrics) = start(address, &vars);
    otlp.add(&record(1));
    until("the record arrives", || received.logs.lock().unwrap().len() == 1);
    let logs = received.logs.lock().unwrap();
    let found = values(&logs[0].attributes);
    for (key, value) in [
        ("source.address", "10.0.0.1"),
        ("destination.address", "10.0.0.2"),
        ("destination.port", "5432"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("k8s.namespace.name", "data"),
        ("k8s.pod.name", "db-0"),
        ("k8s.statefulset.name", "db"),
        ("palisade.source.k8s.pod.name", "web-0"),
        ("palisade.source.k8s.deployment.name", "web"),
        ("palisade.destination.k8s.namespace.name", "data"),
        ("palisade.verdict", "dropped"),
        ("palisade.direction", "ingress"),
        ("palisade.packets", "3"),
        ("palisade.policies", "1 values"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!((&*logs[0].event_name, logs[0].severity_number), ("palisade.flow", 13));
    assert_eq!(logs[0].time_unix_nano, 1_767_323_045_000_000_000);
    let resource = received.resource.lock().unwrap();
    let resource = values(&resource);
    assert_eq!(
        (&*resource["service.name"], &*resource["k8s.node.name"], &*resource["k8s.cluster.name"]),
        ("palisade-agent", "n1", "c")
    );
    let headers = received.headers.lock().unwrap();
    for line in ["authorization: Bearer x", "content-type: application/x-protobuf"] {
        assert!(headers.iter().any(|own| own == line), "no {line} in {headers:?}");
    }
    assert_eq!(metrics.otlp_records_lost.get(), 0);
}

/// Forwarded connections are counted as such, with the Service that they were opened to and what was counted when they ended.
#[test]
fn connections_that_passed_have_what_is_known_of_them() {
    let (received, address) = receiver(200);
    let (otlp, _metrics) = start(address, &[]);
    let mut forwarded = Record::clone(&record(1));
    forwarded.verdict = Verdict::Forwarded;
    forwarded.destination.names = vec!["db.example.com".to_owned()];
    forwarded.opened_to =
        Some(OpenedTo { address: "10.96.0.9".parse().unwrap(), port: Some(80), service: None });
    forwarded.ended = Some(Ended { packets: Some(9), bytes: Some(1200), milliseconds: None });
    otlp.add(&Arc::new(forwarded));
    until("the record arrives", || received.logs.lock().unwrap().len() == 1);
    let logs = received.logs.lock().unwrap();
    let found = values(&logs[0].attributes);
    for (key, value) in [
        ("palisade.verdict", Some("forwarded")),
        ("palisade.connections", Some("3")),
        ("palisade.packets", None),
        ("palisade.opened_to", Some("10.96.0.9:80")),
        ("palisade.destination.names", Some("1 values")),
        ("palisade.ended", Some("true")),
        ("palisade.ended.packets", Some("9")),
        ("palisade.ended.bytes", Some("1200")),
        ("palisade.ended.longest_ms", None),
    ] {
        assert_eq!(found.get(key).map(String::as_str), value, "{key}");
    }
}

#[test]
fn metrics_arrive_at_intervals() {
    let (received, address) = receiver(200);
    let (_otlp, metrics) = start(address, &[("OTEL_METRIC_EXPORT_INTERVAL", "100")]);
    metrics.connections_revoked.inc_by(7);
    until("the metrics arrive", || {
        let found = received.metrics.lock().unwrap();
        let revoked = found.iter().find(|metric| metric.name == "palisade_connections_revoked");
        revoked.is_some_and(|metric| format!("{:?}", metric.data).contains("AsDouble(7.0)"))
    });
    let found = received.metrics.lock().unwrap();
    assert!(
        found.len() > 20
            && found
                .iter()
                .any(|metric| metric.name == "palisade_apply_latency_seconds" && metric.unit == "s")
    );
}

/// 503 and no answer at all: records wait in a bounded queue, the rest is counted, nothing blocks, and what waited arrives later.
#[test]
fn an_endpoint_that_is_away_or_slow_blocks_nothing() {
    for status in [503, 0] {
        let (received, address) = receiver(status);
        let (otlp, metrics) = start(address, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]);
        let begun = Instant::now();
        let sent = (QUEUE * 3) as u64;
        (1..=sent).for_each(|id| otlp.add(&record(id)));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let lost = metrics.otlp_records_lost.get();
        assert!(lost > 0 && lost <= sent - QUEUE as u64, "{lost}");
        until("it is tried again", || received.requests.load(Ordering::Relaxed) >= 3);
        received.status.store(200, Ordering::Relaxed);
        until("what waited arrives", || {
            received.logs.lock().unwrap().len() as u64 + metrics.otlp_records_lost.get() == sent
        });
        assert!(metrics.text().unwrap().contains("palisade_otlp_requests_total{result=\"failed\"}"));
    }
}

#[test]
fn what_is_refused_is_counted_and_not_sent_again() {
    let (received, address) = receiver(500);
    let (otlp, metrics) = start(address, &[("OTEL_METRIC_EXPORT_INTERVAL", "86400000")]);
    otlp.add(&record(1));
    until("it is counted", || metrics.otlp_records_lost.get() == 1);
    received.status.store(200, Ordering::Relaxed);
    received.rejected.store(1, Ordering::Relaxed);
    otlp.add(&record(2));
    until("so is one of a partial success", || metrics.otlp_records_lost.get() == 2);
    assert_eq!(received.logs.lock().unwrap().len(), 1, "the first is not sent again");
    // Nothing listens on this port.
    let (otlp, metrics) = start("127.0.0.1:1".parse().unwrap(), &[]);
    otlp.add(&record(3));
    until("an endpoint that is away is a failure", || {
        metrics.text().unwrap().contains("result=\"failed\"} ")
    });
    assert_eq!(metrics.otlp_records_lost.get(), 0, "the record waits");
}

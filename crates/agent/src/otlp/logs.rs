//! Records of flows as OTLP logs.
//!
//! Attributes have the names of OpenTelemetry's semantic conventions where there are any: `source.address`,
//! `destination.address`, `destination.port`, `network.transport`, `network.type`. `k8s.*` is the pod whose policies decided.
//! What is special to policies begins with `palisade.`.

use std::{net::IpAddr, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use palisade_flow::{Direction, End, Ended, Record, Verdict};

/// The name of the event.
const EVENT: &str = "palisade.flow";

/// Makes a request of records.
pub(super) fn request(resource: &Resource, records: &[Arc<Record>]) -> ExportLogsServiceRequest {
    let logs = ScopeLogs {
        scope: Some(scope()),
        log_records: records.iter().map(|record| log(record)).collect(),
        schema_url: String::new(),
    };
    let of_resource =
        ResourceLogs { resource: Some(resource.clone()), scope_logs: vec![logs], schema_url: String::new() };
    ExportLogsServiceRequest { resource_logs: vec![of_resource] }
}

/// Returns the scope of all signals.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "palisade".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Returns an attribute with a text.
pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn texts(key: &str, values: impl Iterator<Item = String>) -> KeyValue {
    let value = |text| AnyValue { value: Some(any_value::Value::StringValue(text)) };
    attribute(key, any_value::Value::ArrayValue(ArrayValue { values: values.map(value).collect() }))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn log(record: &Record) -> LogRecord {
    let is_drop = record.verdict == Verdict::Dropped;
    let severity = if is_drop { SeverityNumber::Warn } else { SeverityNumber::Info };
    let time = u64::try_from(record.time.as_nanosecond()).unwrap_or_default();
    let port = record.port.map(|port| format!(" {port}")).unwrap_or_default();
    let body = format!(
        "{} {} → {} {}{port} ({})",
        record.verdict, record.source, record.destination, record.protocol, record.direction
    );
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.into(),
        severity_text: if is_drop { "WARN" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
        attributes: attributes(record),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(record: &Record) -> Vec<KeyValue> {
    let Record { source, destination, .. } = record;
    let is_forwarded = record.verdict == Verdict::Forwarded;
    let counted = if is_forwarded { "palisade.connections" } else { "palisade.packets" };
    let mut out = vec![
        text("source.address", source.address.to_string()),
        text("destination.address", destination.address.to_string()),
        text("network.transport", record.protocol.to_lowercase()),
        text("network.type", if matches!(destination.address, IpAddr::V4(_)) { "ipv4" } else { "ipv6" }),
        text("palisade.verdict", record.verdict.to_string()),
        text("palisade.direction", record.direction.to_string()),
        number(counted, record.count),
        number("palisade.generation", record.generation),
        number("palisade.record.id", record.id),
        texts("palisade.reason", record.reason.iter().cloned()),
        texts("palisade.policies", record.policies.iter().map(|policy| format!("{} {policy}", policy.kind))),
    ];
    out.extend(record.port.map(|port| number("destination.port", port.into())));
    if let Some(rule) = &record.rule {
        out.push(text("palisade.rule", format!("{} {} {}", rule.policy.kind, rule.policy, rule.field)));
        out.extend(rule.at.as_ref().map(|at| text("palisade.rule.at", at)));
    }
    if !destination.names.is_empty() {
        out.push(texts("palisade.destination.names", destination.names.iter().cloned()));
    }
    out.extend(record.opened_to.as_ref().map(|to| text("palisade.opened_to", to.to_string())));
    out.extend(record.ended.iter().flat_map(ended));
    let decides = if record.direction == Direction::Ingress { destination } else { source };
    add_end(decides, "k8s", &mut out);
    add_end(source, "palisade.source.k8s", &mut out);
    add_end(destination, "palisade.destination.k8s", &mut out);
    out
}

/// Returns what was counted of connections that have ended.
fn ended(ended: &Ended) -> Vec<KeyValue> {
    let counts = [
        ("palisade.ended.packets", ended.packets),
        ("palisade.ended.bytes", ended.bytes),
        ("palisade.ended.longest_ms", ended.milliseconds),
    ];
    let known = counts.into_iter().filter_map(|(key, count)| Some(number(key, count?)));
    known.chain([attribute("palisade.ended", any_value::Value::BoolValue(true))]).collect()
}

/// Adds the pod, workload or node of an end, as the conventions for Kubernetes name them.
fn add_end(end: &End, prefix: &str, out: &mut Vec<KeyValue>) {
    if let Some(pod) = &end.pod {
        out.extend(pod.namespace.as_ref().map(|name| text(&format!("{prefix}.namespace.name"), name)));
        out.push(text(&format!("{prefix}.pod.name"), &pod.name));
    }
    if let Some(workload) = &end.workload {
        out.push(text(&format!("{prefix}.{}.name", workload.kind.to_lowercase()), &workload.name));
    }
    // The node of the record is an attribute of the resource.
    if let Some(node) = end.node.as_ref().filter(|_| prefix != "k8s") {
        out.push(text(&format!("{prefix}.node.name"), node));
    }
}

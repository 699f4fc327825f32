//! Records of `palisade flows -o json`: the fields that a replay needs. Others are ignored, so that records of newer versions
//! are read too.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_analysis::replay::{RecordedEnd, RecordedFlow, RecordedOwner, RecordedPod};
use palisade_policy::{Labels, Name, ObjectKey, Workload};
use serde::Deserialize;

use super::line::{Line, Seen, port, protocol};

#[derive(Deserialize)]
struct Record {
    verdict: Verdict,
    node: Option<String>,
    source: End,
    destination: End,
    protocol: String,
    port: Option<u16>,
    count: Option<u64>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Forwarded,
    Dropped,
    Audited,
}

#[derive(Deserialize)]
struct End {
    address: IpAddr,
    pod: Option<Pod>,
    workload: Option<Owner>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    node: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

/// Reads a record.
pub(super) fn line(value: serde_json::Value) -> Result<Line, String> {
    if let Some(lost) = value.get("lost").and_then(serde_json::Value::as_u64) {
        return Ok(Line::Lost(lost));
    }
    let record: Record = serde_json::from_value(value)
        .map_err(|error| format!("not a record of `palisade flows -o json` or of Hubble: {error}"))?;
    let v6 = record.source.address.is_ipv6();
    if v6 != record.destination.address.is_ipv6() {
        return Err("the addresses are of different IP families".to_owned());
    }
    let protocol =
        protocol(&record.protocol, v6).ok_or_else(|| format!("{:?} is not a protocol", record.protocol))?;
    let to_pod = record.destination.pod.is_some();
    let from_own_node = to_pod && record.source.pod.is_none() && record.source.node.is_some();
    let own = from_own_node && record.source.node == record.node;
    let mut source = end(record.source)?;
    if own {
        source.owner = RecordedOwner::OwnNode;
    }
    let destination = end(record.destination)?;
    let flow = RecordedFlow { source, destination, protocol, port: port(protocol, record.port)? };
    let passed = record.verdict != Verdict::Dropped;
    Ok(Line::Flow(Box::new(Seen { flow, passed, count: record.count.unwrap_or(1) })))
}

fn end(end: End) -> Result<RecordedEnd, String> {
    let owner = match (end.pod, end.node) {
        (Some(pod), _) => {
            // The recorder knows the labels of every pod that it names.
            let labels: Labels =
                end.labels.iter().map(|(key, value)| (Name::from(&**key), Name::from(&**value))).collect();
            let workload = end.workload.map(|w| Workload { kind: w.kind.into(), name: w.name.into() });
            RecordedOwner::Pod(RecordedPod {
                key: key(&pod.namespace, &pod.name)?,
                workload,
                labels: Some(labels),
            })
        }
        (None, Some(node)) => RecordedOwner::Node(Some(node.into())),
        (None, None) => RecordedOwner::Outside,
    };
    Ok(RecordedEnd { address: end.address, owner })
}

/// Returns the key of a pod.
pub(super) fn key(namespace: &str, name: &str) -> Result<ObjectKey, String> {
    if namespace.is_empty() || name.is_empty() {
        return Err("a pod without a name or namespace".to_owned());
    }
    Ok(ObjectKey::new(namespace, name))
}

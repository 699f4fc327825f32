//! Records of `palisade flows -o json`: the fields that a replay needs. Others are ignored, so that records of newer versions
//! are read too.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_analysis::replay::{RecordedEnd, RecordedFlow, RecordedOwner, RecordedPod};
use palisade_policy::{Labels, Name, ObjectKey, Workload};
use serde::Deserialize;

use super::{
    line::{Line, Seen, port, protocol},
    names,
};

#[derive(Deserialize)]
struct Record {
    verdict: Verdict,
    node: Option<String>,
    source: End,
    destination: End,
    protocol: String,
    port: Option<u16>,
    count: Option<u64>,
    /// Connections that have ended, most of which have another record of their beginning.
    ended: Option<serde::de::IgnoredAny>,
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
    #[serde(default)]
    names: Vec<String>,
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
    let names = names::of_record(&record.destination.names);
    let destination = end(record.destination)?;
    let flow = RecordedFlow { source, destination, protocol, port: port(protocol, record.port)? };
    let passed = record.verdict != Verdict::Dropped;
    let count = if record.ended.is_some() { 0 } else { record.count.unwrap_or(1) };
    Ok(Line::Flow(Box::new(Seen { flow, passed, count, names })))
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

#[cfg(all(test, target_os = "linux", feature = "agent"))]
mod tests {
    use palisade_policy::Protocol;

    use super::*;
    use crate::replay::line::Seen;

    /// What agents write, as the type has it that writes it.
    const RECORD: &str = r#"{"id":7,"time":"2026-11-28T10:00:00.25Z","node":"n1","verdict":"dropped","direction":"ingress",
        "source":{"address":"10.0.0.2","pod":{"kind":"Pod","namespace":"shop","name":"web-0"},
            "workload":{"kind":"StatefulSet","name":"web"},"labels":{"app":"web"}},
        "destination":{"address":"10.0.0.1","pod":{"kind":"Pod","namespace":"shop","name":"db"}},
        "protocol":"TCP","port":5432,"policies":[{"kind":"NetworkPolicy","namespace":"shop","name":"closed"}],
        "reason":["isolated by NetworkPolicy shop/closed"],"generation":12,"count":3}"#;

    fn seen(record: &palisade_flow::Record) -> Seen {
        match line(serde_json::to_value(record).expect("a record is JSON")) {
            Ok(Line::Flow(seen)) => *seen,
            Ok(Line::Skipped(why)) => panic!("{why}"),
            Ok(Line::Lost(lost)) => panic!("{lost} lost"),
            Err(why) => panic!("{why}"),
        }
    }

    #[test]
    fn records_are_read_as_agents_write_them() {
        let record: palisade_flow::Record = serde_json::from_str(RECORD).unwrap();
        let Seen { flow, passed, count, .. } = seen(&record);
        assert_eq!((passed, count, flow.protocol, flow.port), (false, 3, Protocol::Tcp, 5432));
        let pod = |name: &str, workload: Option<&str>, labels: &[(&'static str, &'static str)]| {
            let workload = workload.map(|name| Workload { kind: "StatefulSet".into(), name: name.into() });
            let labels = Some(labels.iter().copied().collect());
            RecordedOwner::Pod(RecordedPod { key: ObjectKey::new("shop", name), workload, labels })
        };
        let web = RecordedEnd {
            address: [10, 0, 0, 2].into(),
            owner: pod("web-0", Some("web"), &[("app", "web")]),
        };
        let db = RecordedEnd { address: [10, 0, 0, 1].into(), owner: pod("db", None, &[]) };
        assert_eq!((flow.source, flow.destination), (web, db));
    }

    #[test]
    fn connections_that_ended_are_not_counted_again() {
        let mut record: palisade_flow::Record = serde_json::from_str(RECORD).unwrap();
        record.verdict = palisade_flow::Verdict::Forwarded;
        assert_eq!((seen(&record).passed, seen(&record).count), (true, 3));
        record.ended = Some(palisade_flow::Ended::default());
        assert_eq!((seen(&record).passed, seen(&record).count), (true, 0));
    }

    #[test]
    fn ends_without_a_pod_are_nodes_or_outside() {
        let mut record: palisade_flow::Record = serde_json::from_str(RECORD).unwrap();
        record.source.pod = None;
        record.source.node = Some("n1".to_owned());
        assert_eq!(seen(&record).flow.source.owner, RecordedOwner::OwnNode);
        record.source.node = Some("n2".to_owned());
        assert_eq!(seen(&record).flow.source.owner, RecordedOwner::Node(Some("n2".into())));
        record.source.node = None;
        assert_eq!(seen(&record).flow.source.owner, RecordedOwner::Outside);
    }
}

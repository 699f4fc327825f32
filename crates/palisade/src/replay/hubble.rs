//! Records of Hubble: `hubble observe -o jsonpb` (or `-o json`), whose objects have the record in `flow`, and exported files.

use std::net::IpAddr;

use palisade_analysis::replay::{RecordedEnd, RecordedFlow, RecordedOwner, RecordedPod};
use palisade_policy::{Labels, Name, Workload};
use serde::Deserialize;
use serde_json::Value;

use super::{
    line::{Line, Seen, port, protocol},
    names,
    ours::key,
};

#[derive(Deserialize)]
struct Flow {
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    drop_reason_desc: String,
    #[serde(rename = "IP")]
    ip: Option<Ip>,
    l4: Option<serde_json::Map<String, Value>>,
    source: Option<End>,
    destination: Option<End>,
    #[serde(default)]
    is_reply: Option<bool>,
    #[serde(default)]
    traffic_direction: String,
    #[serde(default)]
    destination_names: Vec<String>,
}

#[derive(Deserialize)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
}

#[derive(Default, Deserialize)]
struct End {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    pod_name: String,
    #[serde(default)]
    workloads: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

/// Returns whether an object is one of Hubble's.
pub(super) fn is_hubble(value: &Value) -> bool {
    ["flow", "lost_events", "node_status", "IP", "agent_event", "debug_event"]
        .iter()
        .any(|field| value.get(field).is_some())
}

/// Reads an object.
pub(super) fn line(mut value: Value) -> Result<Line, String> {
    if let Some(lost) = value.get("lost_events") {
        return Ok(Line::Lost(number(&lost["num_events_lost"]).unwrap_or(1)));
    }
    let flow = if let Some(flow) = value.get_mut("flow") {
        flow.take()
    } else if value.get("IP").is_some() {
        value
    } else {
        return Ok(Line::Skipped("events that are no flows"));
    };
    let flow: Flow =
        serde_json::from_value(flow).map_err(|error| format!("not a flow of Hubble: {error}"))?;
    let passed = match (&*flow.verdict, &*flow.drop_reason_desc) {
        ("FORWARDED" | "REDIRECTED" | "AUDIT", _) => true,
        ("DROPPED", "POLICY_DENIED" | "POLICY_DENY" | "AUTH_REQUIRED" | "") => false,
        ("DROPPED", _) => return Ok(Line::Skipped("drops that no policy caused")),
        ("", _) => return Err("a flow without a verdict".to_owned()),
        _ => return Ok(Line::Skipped("flows that are neither forwarded nor dropped")),
    };
    if flow.is_reply == Some(true) {
        return Ok(Line::Skipped("replies"));
    }
    let Some(ip) = flow.ip else { return Ok(Line::Skipped("flows without an IP address")) };
    let Some((name, l4)) = flow.l4.as_ref().and_then(|l4| l4.iter().next()) else {
        return Ok(Line::Skipped("flows without a protocol"));
    };
    let protocol =
        protocol(name, ip.source.is_ipv6()).ok_or_else(|| format!("{name:?} is not a protocol"))?;
    let to = l4.get("destination_port").and_then(number).and_then(|port| u16::try_from(port).ok());
    let ingress = flow.traffic_direction == "INGRESS";
    let source = end(&flow.source.unwrap_or_default(), ip.source, ingress)?;
    // A pod's own node, as the destination, is a node like any other.
    let destination = end(&flow.destination.unwrap_or_default(), ip.destination, false)?;
    let names = names::of_record(&flow.destination_names);
    let flow = RecordedFlow { source, destination, protocol, port: port(protocol, to)? };
    Ok(Line::Flow(Box::new(Seen { flow, passed, count: 1, names })))
}

/// Reads a number, which the JSON of protobuf may write as a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn end(end: &End, address: IpAddr, may_be_own_node: bool) -> Result<RecordedEnd, String> {
    let is = |label: &str| end.labels.iter().any(|own| own == label);
    let owner = if !end.pod_name.is_empty() {
        let workload = end.workloads.first();
        RecordedOwner::Pod(RecordedPod {
            key: key(&end.namespace, &end.pod_name)?,
            workload: workload.map(|w| Workload { kind: (*w.kind).into(), name: (*w.name).into() }),
            labels: Some(pod_labels(&end.labels)),
        })
    } else if is("reserved:host") && may_be_own_node {
        RecordedOwner::OwnNode
    } else if is("reserved:host") || is("reserved:remote-node") || is("reserved:kube-apiserver") {
        RecordedOwner::Node(None)
    } else if is("reserved:world") || is("reserved:world-ipv4") || is("reserved:world-ipv6") {
        RecordedOwner::Outside
    } else {
        RecordedOwner::Unknown
    };
    Ok(RecordedEnd { address, owner })
}

/// Returns the pod's own labels. Cilium adds some of the namespace, of the cluster and of the service account.
fn pod_labels(labels: &[String]) -> Labels {
    let own = labels.iter().filter_map(|label| label.strip_prefix("k8s:"));
    let own = own.filter(|label| {
        !label.starts_with("io.cilium.k8s.") && !label.starts_with("io.kubernetes.pod.namespace=")
    });
    own.map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (Name::from(key), Name::from(value))
    })
    .collect()
}

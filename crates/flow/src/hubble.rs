//! Records in the JSON of Hubble (`hubble observe -o jsonpb`, its `GetFlowsResponse`), for programs that read that.

use serde_json::{Map, Value, json};

use crate::{Direction, End, Object, Record, Verdict};

/// Returns a record as Hubble's JSON. Fields that Palisade has no value for are left out, as protobuf's JSON does with defaults.
#[must_use]
pub fn hubble(record: &Record) -> Value {
    let time = record.time.to_string();
    let verdict = match record.verdict {
        Verdict::Forwarded => "FORWARDED",
        Verdict::Dropped => "DROPPED",
        Verdict::Audited => "AUDIT",
    };
    let (direction, denied, allowed) = match record.direction {
        Direction::Ingress => ("INGRESS", "ingress_denied_by", "ingress_allowed_by"),
        Direction::Egress => ("EGRESS", "egress_denied_by", "egress_allowed_by"),
    };
    let version = if record.source.address.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut flow = json!({
        "time": time,
        "uuid": format!("{}-{}", record.node, record.id),
        "verdict": verdict,
        "IP": {
            "source": record.source.address.to_string(),
            "destination": record.destination.address.to_string(),
            "ipVersion": version,
        },
        "l4": l4(record),
        "source": end(&record.source),
        "destination": end(&record.destination),
        "Type": "L3_L4",
        "node_name": record.node,
        "traffic_direction": direction,
        "Summary": record.reason.join("; "),
    });
    if record.verdict == Verdict::Dropped {
        flow["drop_reason_desc"] = json!("POLICY_DENIED");
    }
    for (field, end) in [("source_names", &record.source), ("destination_names", &record.destination)] {
        if !end.names.is_empty() {
            flow[field] = json!(end.names);
        }
    }
    if record.verdict == Verdict::Forwarded {
        flow["is_reply"] = json!(false);
        if let Some(rule) = record.rule.iter().find(|rule| rule.decided) {
            flow[allowed] = json!([policy(&rule.policy)]);
        }
        if let Some(service) = record.opened_to.as_ref().and_then(|to| to.service.as_ref()) {
            flow["destination_service"] = json!({ "name": service.name, "namespace": service.namespace });
        }
    } else if !record.policies.is_empty() {
        flow[denied] = record.policies.iter().map(policy).collect();
    }
    json!({ "flow": flow, "node_name": record.node, "time": time })
}

fn l4(record: &Record) -> Value {
    let port = record.port.map_or_else(|| json!({}), |port| json!({ "destination_port": port }));
    let name = match record.protocol.as_str() {
        "ICMP" if record.source.address.is_ipv6() => "ICMPv6",
        "ICMP" => "ICMPv4",
        other => other,
    };
    Value::Object(Map::from_iter([(name.to_owned(), port)]))
}

fn end(end: &End) -> Value {
    let Some(pod) = &end.pod else {
        let label = if end.node.is_some() { "reserved:host" } else { "reserved:world" };
        return json!({ "labels": [label] });
    };
    let labels: Vec<String> = end.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
    let mut out = json!({ "namespace": pod.namespace, "labels": labels, "pod_name": pod.name });
    if let Some(workload) = &end.workload {
        out["workloads"] = json!([{ "name": workload.name, "kind": workload.kind }]);
    }
    out
}

fn policy(policy: &Object) -> Value {
    let mut out = json!({ "name": policy.name, "kind": policy.kind });
    if let Some(namespace) = &policy.namespace {
        out["namespace"] = json!(namespace);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{example, forwarded};

    #[test]
    fn a_dropped_connection_is_as_hubble_writes_it() {
        assert_eq!(
            hubble(&example()),
            json!({
                "flow": {
                    "time": "2026-11-28T10:00:00.25Z",
                    "uuid": "n1-7",
                    "verdict": "DROPPED",
                    "drop_reason_desc": "POLICY_DENIED",
                    "IP": {"source": "10.0.0.2", "destination": "10.0.0.1", "ipVersion": "IPv4"},
                    "l4": {"TCP": {"destination_port": 5432}},
                    "source": {
                        "namespace": "shop",
                        "labels": ["k8s:app=web"],
                        "pod_name": "web-0",
                        "workloads": [{"name": "web", "kind": "StatefulSet"}],
                    },
                    "destination": {"namespace": "shop", "labels": [], "pod_name": "db"},
                    "Type": "L3_L4",
                    "node_name": "n1",
                    "traffic_direction": "INGRESS",
                    "Summary": "isolated by NetworkPolicy shop/closed",
                    "ingress_denied_by": [{"name": "closed", "kind": "NetworkPolicy", "namespace": "shop"}],
                },
                "node_name": "n1",
                "time": "2026-11-28T10:00:00.25Z",
            })
        );
    }

    #[test]
    fn a_forwarded_connection_has_its_service_and_the_policy_that_allows() {
        let mut record = forwarded();
        if let Some(rule) = &mut record.rule {
            rule.decided = true;
        }
        let flow = &hubble(&record)["flow"];
        assert_eq!((&flow["verdict"], &flow["is_reply"]), (&json!("FORWARDED"), &json!(false)));
        assert_eq!(flow["destination_service"], json!({"name": "db", "namespace": "shop"}));
        assert_eq!(flow["ingress_allowed_by"][0]["name"], "closed");
        assert!(flow.get("ingress_denied_by").is_none() && flow.get("drop_reason_desc").is_none(), "{flow}");
    }

    #[test]
    fn other_addresses_are_the_world_or_a_host() {
        let mut record = example();
        record.source.pod = None;
        assert_eq!(hubble(&record)["flow"]["source"]["labels"], json!(["reserved:world"]));
        record.source.node = Some("n2".to_owned());
        assert_eq!(hubble(&record)["flow"]["source"]["labels"], json!(["reserved:host"]));
        assert!(hubble(&record)["flow"].get("destination_names").is_none());
        record.destination.names = vec!["api.example.com".to_owned()];
        assert_eq!(hubble(&record)["flow"]["destination_names"], json!(["api.example.com"]));
    }
}

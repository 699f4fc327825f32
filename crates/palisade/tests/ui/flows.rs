//! `/api/v1/flows`: what agents saw.

use std::fs;

use serde_json::{Value, json};

use crate::{
    client::Server,
    support::{palisade, run},
};

/// A record as `palisade flows -o json` prints it.
fn record(id: u64, verdict: &str, port: u16) -> Value {
    let pod = |name: &str| json!({"address": format!("10.0.0.{id}"), "pod": {"kind": "Pod", "namespace": "shop", "name": name}});
    json!({
        "id": id, "time": format!("2026-11-28T10:00:{id:02}Z"), "node": "n1", "verdict": verdict,
        "direction": "ingress", "source": pod("frontend"), "destination": pod("backend"), "protocol": "TCP",
        "port": port, "reason": ["isolated by NetworkPolicy shop/closed"], "generation": 1, "count": 3,
        "policies": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "closed"}],
    })
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

#[test]
fn flows_of_a_file_are_filtered_and_followed() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("flows.json");
    let first = [record(1, "dropped", 80), record(2, "audited", 81)];
    fs::write(&file, lines(&first) + "not a record\n").unwrap();
    let server = Server::start(&["-f", "examples/shop", "--flows", file.to_str().unwrap()]);
    let get = |query: &str| server.get(&format!("/api/v1/flows{query}"));
    let all = get("").json();
    assert_eq!((&all["schema"], &all["from"]), (&json!("palisade.ui.flows/v1"), &json!("file")));
    assert_eq!(all["records"], json!(first));
    assert!(all["problem"].as_str().unwrap().contains("1 line is no record"), "{all:#}");
    for (query, ids) in [
        ("?verdict=audited", &[2][..]),
        ("?port=80", &[1]),
        ("?port=80/UDP", &[]),
        ("?from=shop/frontend&policy=shop/closed", &[1, 2]),
        ("?to=shop/frontend", &[]),
        ("?namespace=shop&verdict=", &[1, 2]),
        ("?pod=10.0.0.0%2F8", &[1, 2]),
    ] {
        let answer = get(query).json();
        let found: Vec<u64> = answer["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["id"].as_u64().unwrap())
            .collect();
        assert_eq!(found, ids, "{query}");
    }
    for (query, reason) in [
        ("?port=x", "port: \"x\" is not a port"),
        ("?verdict=lost", "none of `forwarded`, `dropped` and `audited`"),
        ("?from=a", "is not a pod"),
        ("?after=x", "no number"),
        ("?until=1", "unknown parameter `until`"),
    ] {
        let answer = get(query);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{query}: {}", answer.body);
    }
    // A file that is written again.
    fs::write(&file, lines(&[record(3, "dropped", 82)])).unwrap();
    let mut number = all["number"].clone();
    let later = loop {
        let answer = get(&format!("?after={number}")).json();
        if answer["records"].as_array().is_some_and(|records| !records.is_empty()) {
            break answer;
        }
        number = answer["number"].clone();
    };
    assert_eq!((&later["records"][0]["id"], &later["problem"]), (&json!(3), &Value::Null));
    // A broken one: what was read last stays.
    fs::write(&file, "nothing\n").unwrap();
    let broken = get(&format!("?after={}", later["number"])).json();
    assert!(broken["problem"].as_str().unwrap().contains("has no record"), "{broken:#}");
    assert_eq!(get("").json()["records"][0]["id"], 3);
}

#[test]
fn without_a_file_or_a_cluster_there_are_no_flows() {
    let server = Server::start(&["-f", "examples/shop"]);
    let answer = server.get("/api/v1/flows").json();
    assert_eq!((&answer["from"], &answer["records"]), (&json!("nowhere"), &json!([])));
    for file in ["/nonexistent", "examples/shop/workloads.yaml"] {
        let (code, out, err) = run(&mut palisade(&format!("ui -f examples/shop --flows {file}")));
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(err.contains(file), "{err}");
    }
}

/// Of a file, the hour ends with its latest record. Packets count for the pod whose policies decided.
#[test]
fn drops_of_the_last_hour_are_counted_by_namespace() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("flows.json");
    let old = json!({"time": "2026-11-28T08:59:59Z"});
    let sent = json!({"direction": "egress", "source": {"address": "10.0.0.9", "pod": {"kind": "Pod", "namespace": "staging", "name": "a"}}});
    let outside = json!({"destination": {"address": "192.0.2.1"}});
    let with = |record: Value, more: &Value| {
        let mut record = record;
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    let records = [
        with(record(1, "dropped", 80), &old),
        record(2, "dropped", 80),
        record(3, "dropped", 81),
        record(4, "audited", 80),
        with(record(5, "dropped", 80), &sent),
        // No pod of this cluster is the one whose policies decided.
        with(record(6, "dropped", 80), &outside),
    ];
    fs::write(&file, lines(&records)).unwrap();
    let server = Server::start(&["-f", "examples/shop", "--flows", file.to_str().unwrap()]);
    let answer = server.get("/api/v1/drops").json();
    assert_eq!(
        answer,
        json!({
            "schema": "palisade.ui.drops/v1", "from": "file", "number": answer["number"],
            "until": "2026-11-28T10:00:06Z", "at_least": false,
            "namespaces": [
                {"name": "shop", "dropped": 6, "audited": 3},
                {"name": "staging", "dropped": 3, "audited": 0},
            ],
        })
    );
    // Another file of flows is another answer.
    fs::write(&file, lines(&[record(7, "dropped", 80)])).unwrap();
    let mut number = answer["number"].clone();
    let later = loop {
        let later = server.get(&format!("/api/v1/drops?after={number}")).json();
        if later["namespaces"].as_array().is_some_and(|found| found.len() == 1) {
            break later;
        }
        number = later["number"].clone();
    };
    assert_eq!(later["namespaces"], json!([{"name": "shop", "dropped": 3, "audited": 0}]));
    assert_eq!(server.get("/api/v1/drops?namespace=shop").status, 400);
    // Without agents and without a file, nothing is claimed.
    let answer = Server::start(&["-f", "examples/shop"]).get("/api/v1/drops").json();
    assert_eq!((&answer["from"], &answer["until"]), (&json!("nowhere"), &Value::Null));
}

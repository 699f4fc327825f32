//! Records of connections that pass: `--flows=new` and `--flows=all`.

use std::{fs, thread, time::Duration};

use serde_json::Value;

use super::stage::{Stage, palisade, policy, run, text};

/// A Service in front of the database.
const SERVICE: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: sql, namespace: shop}
spec: {clusterIP: 10.96.7.1, selector: {app: db}, ports: [{port: 15432, targetPort: 5432}]}
";

impl Stage {
    /// Waits for a record for which `is_it` holds.
    #[track_caller]
    fn until_recorded(&self, words: &[&str], is_it: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..300 {
            let shown = run(&mut self.flows(&[&["-o", "json"], words].concat()), 0);
            let records = shown.lines().filter(|l| l.starts_with('{'));
            let mut records = records.map(|line| serde_json::from_str::<Value>(line).unwrap());
            if let Some(found) = records.find(&is_it) {
                return found;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("no such record: {}", run(&mut self.flows(&["-o", "json"]), 0));
    }

    fn node_setting(&self, setting: &str) {
        run(&mut self.on_node(&["sh", "-c", &format!("echo {setting}")]), 0);
    }
}

#[test]
fn new_connections_are_recorded_with_service_pod_and_reason() {
    let stage = Stage::with(SERVICE);
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&["--flows=new"]);
    agent.until("recording new connections");
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    let forwarded = ["--verdict", "forwarded"];
    let record = stage.until_recorded(&forwarded, |r| r["source"]["pod"]["name"] == "web");
    assert_eq!((&record["verdict"], &record["direction"]), (&"forwarded".into(), &"ingress".into()));
    assert_eq!(record["destination"]["pod"]["name"], "db");
    assert_eq!((&record["protocol"], &record["port"]), (&"TCP".into(), &5432.into()));
    assert_eq!(record["policies"][0]["name"], "db-from");
    assert_eq!((&record["rule"]["field"], &record["rule"]["decided"]), (&"ingress[0]".into(), &true.into()));
    assert!(record["rule"]["at"].as_str().unwrap().contains("policy.yaml:"), "{record}");
    assert!(record["generation"].as_u64().unwrap() > 0 && record["count"].as_u64().unwrap() > 0);
    assert!(record["opened_to"].is_null() && record["ended"].is_null(), "{record}");
    let explained = run(&mut stage.node(&["explain", "-n", "shop", "web", "db:5432"]), 0);
    for line in record["reason"].as_array().unwrap() {
        assert!(explained.contains(line.as_str().unwrap()), "no {line} in {explained}");
    }

    // What is dropped is no connection that passes.
    let dropped = stage.until_recorded(&["--verdict", "dropped"], |_| true);
    assert_eq!(dropped["source"]["pod"]["name"], "other");
    let of_other = run(&mut stage.flows(&["--verdict", "forwarded", "--from", "shop/other"]), 0);
    assert!(of_other.contains("no flows"), "{of_other}");

    // Through a service: the pod, and the service.
    assert!(stage.answers("web", "service/sql:15432"));
    let record = stage.until_recorded(&forwarded, |r| !r["opened_to"].is_null());
    assert_eq!(record["destination"]["address"], "10.244.7.1");
    assert_eq!(record["opened_to"]["address"], "10.96.7.1");
    assert_eq!(record["opened_to"]["port"], 15432);
    assert_eq!(record["opened_to"]["service"]["name"], "sql");
    let shown = run(&mut stage.flows(&forwarded), 0);
    assert!(shown.contains("opened to service shop/sql:15432"), "{shown}");
    assert!(shown.contains("forwarded by ingress policies"), "{shown}");

    // To a pod that no policy isolates.
    assert!(stage.answers("db", "other:80"));
    let record = stage.until_recorded(&forwarded, |r| r["destination"]["pod"]["name"] == "other");
    assert!(record["policies"].is_null() && record["rule"].is_null(), "{record}");
    assert!(record["reason"][0].as_str().unwrap().contains("no policy isolates"), "{record}");

    let status = run(&mut stage.node(&["status"]), 0);
    assert!(status.contains("new connections and drops are recorded"), "{status}");
    let metrics = run(&mut stage.on_node(&["curl", "-s", "http://127.0.0.1:9643/metrics"]), 0);
    assert!(metrics.lines().any(|l| l == "palisade_connection_events 1"), "{metrics}");
    agent.stop();
}

#[test]
fn connections_that_end_are_recorded_with_what_the_node_counts() {
    let stage = Stage::new();
    stage.node_setting("1 > /proc/sys/net/netfilter/nf_conntrack_acct");
    stage.node_setting("1 > /proc/sys/net/netfilter/nf_conntrack_timestamp");
    stage.node_setting("1 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait");
    let agent = stage.agent(&["--flows=all"]);
    agent.until("recording new connections");
    assert!(stage.answers("web", "db:5432"));
    let record = stage.until_recorded(&["--verdict", "forwarded"], |r| !r["ended"].is_null());
    assert_eq!((&record["source"]["pod"]["name"], &record["port"]), (&"web".into(), &5432.into()));
    for counted in ["packets", "bytes", "milliseconds"] {
        assert!(record["ended"][counted].as_u64().is_some_and(|n| n > 0), "{counted}: {record}");
    }
    let shown = run(&mut stage.flows(&[]), 0);
    assert!(shown.contains("forwarded, ended") && shown.contains(" packets, "), "{shown}");
    agent.stop();
}

/// What an agent recorded becomes policies, which allow it and nothing else.
#[test]
fn policies_are_suggested_from_recorded_connections() {
    let stage = Stage::with(SERVICE);
    let flows = stage.dir.path().join("flows.jsonl");
    let file = format!("--flow-file={}", flows.display());
    let agent = stage.agent(&["--flows=all", "--flow-buffer=0", &file]);
    agent.until("recording new connections");
    assert!(stage.answers("web", "service/sql:15432") && stage.answers("other", "web:80"));
    let seen = || fs::read_to_string(&flows).unwrap_or_default();
    let wanted = ["\"name\":\"db\"", "\"port\":80"];
    for _ in 0..300 {
        if wanted.iter().all(|part| seen().contains(part)) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let of = |verb: &str| {
        let mut command = palisade(stage.dir.path());
        command.arg(verb).arg("--flows").arg(&flows).arg("-f").arg(stage.manifests());
        command
    };
    let (code, suggested, err) = text(&of("suggest").output().unwrap());
    assert_eq!(code, 0, "{suggested}{err}");
    let policies = stage.dir.path().join("suggested.yaml");
    fs::write(&policies, &suggested).unwrap();
    let replayed = run(of("replay").arg("--with").arg(&policies), 0);
    assert!(!replayed.is_empty());
    stage.write("suggested.yaml", &suggested);
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "service/sql:15432") && stage.answers("other", "web:80"));
    assert!(!stage.answers("db", "web:80"));
    agent.stop();
}

#[test]
fn without_announcements_of_the_kernel_everything_says_so() {
    let stage = Stage::new();
    stage.node_setting("0 > /proc/sys/net/netfilter/nf_conntrack_events");
    let agent = stage.agent(&["--flows=new"]);
    let log = agent.until("cannot record new connections");
    assert!(log.contains("nf_conntrack_events is 0"), "{log}");
    let status = stage.until_node_says(&["status"], "ready");
    assert!(
        status.contains("connections are not recorded: net.netfilter.nf_conntrack_events is 0"),
        "{status}"
    );
    let metrics = run(&mut stage.on_node(&["curl", "-s", "http://127.0.0.1:9643/metrics"]), 0);
    assert!(metrics.lines().any(|l| l == "palisade_connection_events 0"), "{metrics}");
    let mut all = palisade(stage.dir.path());
    let all = run(all.arg("status").arg("--socket").arg(stage.socket()), 0);
    assert!(all.contains("n1: connections are not recorded:"), "{all}");
    // Recording begins once the kernel announces connections.
    stage.node_setting("1 > /proc/sys/net/netfilter/nf_conntrack_events");
    agent.until("recording new connections");
    assert!(stage.answers("web", "db:5432"));
    stage.until_recorded(&["--verdict", "forwarded"], |r| r["destination"]["pod"]["name"] == "db");
    agent.stop();

    // Records that go nowhere.
    let agent = stage.agent(&["--flows=new", "--flow-buffer=0"]);
    agent.until("connections are not recorded: the setting flow-buffer is 0");
    agent.until("agent is ready");
    agent.stop();
    let wrong = run(&mut stage.agent_command(&["--flows=everything"]), 2);
    assert!(wrong.contains("drops, new, all"), "{wrong}");
}

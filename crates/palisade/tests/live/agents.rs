//! `palisade flows` and `palisade status` of a cluster's agents, through the API server.
#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    ask, asking,
    exec_server::{Act, ExecServer, agent},
};

/// A page of records with these numbers and seconds.
fn page(node: &str, records: &[(u64, u8)], started: u8) -> Value {
    let pod = |name: &str| json!({"address": "10.0.0.1", "pod": {"kind": "Pod", "namespace": "shop", "name": name}});
    let records: Vec<Value> = records
        .iter()
        .map(|(id, second)| {
            json!({"id": id, "time": format!("2026-11-28T10:00:{second:02}Z"), "node": node, "verdict": "dropped",
                "direction": "ingress", "source": pod("web"), "destination": pod("db"), "protocol": "TCP", "port": 5432,
                "reason": ["isolated by NetworkPolicy shop/closed"], "generation": 1, "count": 1})
        })
        .collect();
    json!({"records": records, "next": 9, "more": false, "evicted": 0, "unrecorded": 0,
        "started": format!("2026-11-28T09:00:{started:02}Z")})
}

fn flows(server: &ExecServer, words: &str) -> (i32, String, String) {
    ask(&server.kubeconfig(), format!("flows --namespace-of-agents palisade-system {words}").trim_end())
}

/// The node and second of each line of JSON.
fn shown(out: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let time = record["time"].as_str().unwrap();
        (record["node"].as_str().unwrap().to_owned(), time[17..19].to_owned())
    };
    out.lines().map(line).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn flows_of_all_nodes_are_merged_by_time() {
    let server = ExecServer::of(&["n1", "n2", "n3"], Some(3), |node, _| match node {
        "n1" => vec![Act::Line(page(node, &[(1, 10), (2, 40)], 0)), Act::Exit(0)],
        "n2" => {
            vec![Act::Line(page(node, &[(1, 20)], 0)), Act::Line(page(node, &[(2, 30)], 0)), Act::Exit(0)]
        }
        _ => vec![Act::Line(page(node, &[], 0)), Act::Exit(0)],
    });
    let (code, out, err) = flows(&server, "-o json");
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(shown(&out), pairs(&[("n1", "10"), ("n2", "20"), ("n2", "30"), ("n1", "40")]));
    let (_, out, _) = flows(&server, "-o json --last 2");
    assert_eq!(shown(&out), pairs(&[("n2", "30"), ("n1", "40")]));
    let (_, out, _) = flows(&server, "");
    let line = out.lines().find(|line| line.contains("10:00:20")).unwrap();
    assert!(line.contains("n2  ") && line.contains("shop/web") && line.contains("TCP 5432"), "{out}");
    assert!(out.lines().next().unwrap().contains("NODE"), "{out}");

    // Filters are applied by the agents.
    let filters = "--from shop/ --to 10.0.0.0/8 --pod shop/db -n shop --verdict dropped --policy shop/closed --port 53/udp --since 5m";
    let (code, ..) = flows(&server, &format!("--node n2 {filters}"));
    assert_eq!(code, 0);
    assert_eq!(
        server.commands("n2").last().unwrap().join(" "),
        "/usr/local/bin/palisade flows --output=pages --from=shop/ --to=10.0.0.0/8 --pod=shop/db --namespace=shop \
         --verdict=dropped --policy=shop/closed --port=53/UDP --since=5m"
    );
    assert_eq!(server.commands("n1").len(), 3, "--node leaves out the others");
}

#[test]
fn a_node_that_fails_is_named_and_the_answer_is_incomplete() {
    for (acts, why) in [
        (vec![Act::Close], "the connection was lost"),
        (vec![Act::Line(page("n2", &[(1, 20)], 0)), Act::Close], "the connection was lost"),
        (vec![Act::Refuse(403, "pods \"x\" is forbidden: cannot get resource \"pods/exec\"")], "pods/exec"),
        (
            vec![
                Act::Error("error: invalid value 'pages' for '--output <FORMAT>'\n".to_owned()),
                Act::Exit(2),
            ],
            "its agent is of a version that can't answer this",
        ),
        (
            vec![Act::Error("error: flow-buffer is 0\n".to_owned()), Act::Exit(2)],
            "flow-buffer is 0 (exit code 2)",
        ),
        (vec![Act::Text("{\"records\": 5}\n".to_owned()), Act::Exit(0)], "no page of flows"),
        (vec![Act::Text("\u{1b}[31m\n".to_owned()), Act::Exit(0)], "no page of flows"),
    ] {
        let server = ExecServer::of(&["n1", "n2"], Some(2), move |node, _| match node {
            "n1" => vec![Act::Line(page(node, &[(1, 10)], 0)), Act::Exit(0)],
            _ => acts.clone(),
        });
        let (code, out, err) = flows(&server, "-o json");
        assert_eq!(code, 2, "{why}: {err}");
        assert!(err.contains("node n2 (palisade-agent-n2): ") && err.contains(why), "{why}: {err}");
        assert!(err.contains("incomplete: flows of") && !err.contains('\u{1b}'), "{err}");
        assert!(shown(&out).contains(&("n1".to_owned(), "10".to_owned())), "{out}");
    }
}

#[test]
fn agents_that_are_missing_or_not_running_make_the_answer_incomplete() {
    let script = |node: &str, _| vec![Act::Line(page(node, &[], 0)), Act::Exit(0)];
    let server = ExecServer::of(&["n1"], Some(3), script);
    let (code, _, err) = flows(&server, "");
    assert!(code == 2 && err.contains("2 of 3 nodes have no agent yet"), "{code} {err}");
    let (code, _, err) = flows(&server, "--node n1");
    assert!(code == 0 && err.contains("no flows"), "{code} {err}");
    let (code, _, err) = flows(&server, "--node n9");
    assert!(code == 2 && err.contains("no agent on n9 in namespace palisade-system"), "{code} {err}");
    let mut waiting = agent("n2");
    waiting["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    server.set_pods(vec![agent("n1"), waiting]);
    let (code, _, err) = flows(&server, "");
    assert!(code == 2 && err.contains("node n2") && err.contains("CrashLoopBackOff"), "{code} {err}");
    server.set_pods(Vec::new());
    let (code, _, err) = flows(&server, "");
    assert!(code == 2 && err.contains("no agents in namespace palisade-system"), "{code} {err}");
    // Who may not read the DaemonSet can't know.
    let server = ExecServer::of(&["n1"], None, script);
    let (code, _, err) = flows(&server, "");
    assert!(code == 2 && err.contains("can't tell whether every node has an agent"), "{code} {err}");
}

#[test]
fn losses_and_clocks_are_those_of_a_node() {
    let server = ExecServer::of(&["n1", "n2"], Some(2), |node, _| {
        let mut page = page(node, &[(1, 10)], 0);
        if node == "n2" {
            (page["unrecorded"], page["evicted"], page["now"]) =
                (7.into(), 3.into(), "2001-01-01T00:00:00Z".into());
        }
        vec![Act::Line(page), Act::Exit(0)]
    });
    let (code, _, err) = flows(&server, "-o json");
    assert_eq!(code, 0, "{err}");
    for line in [
        "node n2: dropped packets without a record",
        ": 7",
        "node n2: records that made room",
        ": 3",
        "node n2: its clock is",
    ] {
        assert!(err.contains(line), "no {line} in {err}");
    }
    assert!(err.contains("s behind this machine's") && !err.contains("n1"), "{err}");
}

/// A running `palisade flows -f`.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    fn of(server: &ExecServer, words: &str) -> Self {
        let words = format!("flows -f --namespace-of-agents palisade-system {words}");
        let mut command = asking(&server.kubeconfig(), &words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let to = sender.clone();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(to.send(line)));
        });
        thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    /// Waits for a line with this text, and returns all lines up to it.
    #[track_caller]
    fn until(&self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => seen.push(line),
                Err(error) => panic!("no {text:?} ({error}) in {seen:#?}"),
            }
            if seen.last().is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn agents_that_come_and_go_are_followed() {
    let server = ExecServer::of(&["n1", "n2"], Some(2), |node, attempt| match (node, attempt) {
        // The connection to n1 is lost after a record, which the second attempt sends again.
        ("n1", 0) => vec![Act::Line(page(node, &[(1, 10)], 0)), Act::Close],
        ("n1", 1) => vec![Act::Line(page(node, &[(1, 10), (2, 20)], 0)), Act::Close],
        // Then its container has restarted: numbers begin again.
        ("n1", _) => vec![Act::Line(page(node, &[(1, 50)], 7)), Act::Stay],
        _ => vec![Act::Line(page(node, &[(1, 15)], 0)), Act::Stay],
    });
    let follower = Follower::of(&server, "-o json --last 5");
    let seen = follower.until("10:00:50").join("\n");
    for second in [10, 15, 20] {
        assert_eq!(seen.matches(&format!("10:00:{second}")).count(), 1, "{second}: {seen}");
    }
    for note in [
        "the connection was lost",
        "node n1: its flows are followed again",
        "node n1: its agent has started again",
    ] {
        assert!(seen.contains(note), "no {note} in {seen}");
    }
    let commands = server.commands("n1");
    assert!(commands[0].contains(&"--last=5".to_owned()) && commands[0].contains(&"--follow".to_owned()));
    assert!(commands[1].iter().any(|word| word.starts_with("--since=")), "{commands:?}");
    assert!(!commands[1].contains(&"--last=5".to_owned()), "{commands:?}");

    server.set_pods(vec![agent("n1"), agent("n3")]);
    let seen = follower.until("\"n3\"").join("\n");
    for note in ["node n2: its agent is gone", "node n3: its agent has started"] {
        assert!(seen.contains(note), "no {note} in {seen}");
    }
}

#[test]
fn a_connection_that_is_lost_before_the_first_record_does_not_shorten_what_is_asked_for() {
    let server = ExecServer::of(&["n1", "n2"], Some(2), |node, attempt| match (node, attempt) {
        ("n1", 0) => vec![Act::Close],
        ("n1", _) => vec![Act::Line(page(node, &[(1, 10)], 0)), Act::Stay],
        _ => vec![Act::Stay],
    });
    let follower = Follower::of(&server, "-o json --last 5");
    follower.until("10:00:10");
    let commands = server.commands("n1");
    assert!(commands[1].contains(&"--last=5".to_owned()), "{commands:?}");
}

/// Agents may be starting. Without `-f`, their failure is the answer.
#[test]
fn following_tries_again_if_no_agent_can_be_queried() {
    for nodes in [&["n1"][..], &["n1", "n2"]] {
        let server = ExecServer::of(nodes, Some(nodes.len()), |node, attempt| match (node, attempt) {
            ("n1", 2..) => vec![Act::Line(page(node, &[(1, 10)], 0)), Act::Stay],
            _ => vec![Act::Refuse(403, "pods/exec is forbidden")],
        });
        let follower = Follower::of(&server, "-o json");
        let seen = follower.until("10:00:10").join("\n");
        assert_eq!(seen.matches("node n1 (palisade-agent-n1): 403 Forbidden").count(), 1, "{seen}");
        let none = format!("none of {} agent", nodes.len());
        assert!(seen.contains(&none) && seen.contains("could be queried, trying again"), "{seen}");
        assert!(seen.contains("node n1: its flows are followed again"), "{seen}");
    }
    let server = ExecServer::of(&["n1"], Some(1), |_, _| vec![Act::Refuse(403, "pods/exec is forbidden")]);
    let (code, _, err) = flows(&server, "");
    assert!(code == 2 && err.contains("none of 1 agent could be queried"), "{code} {err}");
}

fn status(ready: bool) -> Value {
    json!({"schema": "palisade.node.status/v1", "status": {"version": "0.1.0", "ready": ready,
        "not_ready": (!ready).then_some("no snapshot yet"), "generation": 7, "policies": [["NetworkPolicy", 2]],
        "errors_last_hour": 1, "drops_last_minute": 60, "held_by": ["nri"], "source_check": "enforce"}})
}

#[test]
fn the_status_of_all_agents_is_a_table_and_its_exit_code_says_whether_they_are_ready() {
    let ask = |server: &ExecServer, words: &str| {
        ask(&server.kubeconfig(), format!("status --namespace-of-agents palisade-system {words}").trim_end())
    };
    let of = |acts: fn(&str) -> Vec<Act>| ExecServer::of(&["n1", "n2"], Some(2), move |node, _| acts(node));
    let server = of(|_| vec![Act::Text(serde_json::to_string_pretty(&status(true)).unwrap()), Act::Exit(0)]);
    let (code, out, err) = ask(&server, "");
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(out.lines().all(|line| line.contains("NRI") || line.contains("NODE")), "{out}");
    assert_eq!(server.commands("n1"), [["/usr/local/bin/palisade", "node", "status", "--output=json"]]);
    let (_, out, _) = ask(&server, "-o json");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["schema"], &answer["complete"]), (&"palisade.status/v1".into(), &true.into()));
    assert_eq!(answer["agents"][1]["status"]["drops_last_minute"], 60);

    let server = of(|node| vec![Act::Line(status(node == "n1")), Act::Exit(i32::from(node != "n1"))]);
    let (code, out, _) = ask(&server, "");
    assert!(code == 1 && out.contains("n2: not ready: no snapshot yet"), "{code} {out}");

    let server = of(|node| match node {
        "n1" => vec![Act::Line(status(false)), Act::Exit(1)],
        _ => vec![Act::Refuse(404, "pods \"palisade-agent-n2\" not found")],
    });
    let (code, out, _) = ask(&server, "");
    assert!(code == 2 && out.contains("n2: could not be queried: 404 Not Found"), "{code} {out}");
}

//! `palisade flows`: what the kernel drops is a record with the engine's own reason.

use std::{fs, process::Command, time::Instant};

use serde_json::Value;

use super::stage::{PATIENCE, Running, Stage, palisade, policy, run};

impl Stage {
    pub(super) fn flows(&self, words: &[&str]) -> Command {
        let mut command = palisade(self.dir.path());
        command.arg("flows").args(words).arg("--socket").arg(self.socket());
        command
    }
}

fn records(lines: &str) -> Vec<Value> {
    lines.lines().filter(|l| l.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn drops_are_flows_with_the_reason_that_explain_gives() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    let nothing = run(&mut stage.flows(&[]), 0);
    assert!(nothing.contains("no flows"), "{nothing}");

    let follower = Running::of(&mut stage.flows(&["-f", "--last", "0", "--to", "shop/db"]));
    follower.until("VERDICT");
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    let seen = follower.until("NetworkPolicy shop/db-from");
    let line = seen.lines().find(|line| line.contains("shop/other")).unwrap();
    for word in ["shop/db ", "TCP 5432", "dropped by ingress policies"] {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
    assert!(!seen.contains("shop/web"), "{seen}");

    // Each field, and the reason in the words of `explain`.
    let found =
        records(&run(&mut stage.flows(&["-o", "json", "--from", "shop/other", "--port", "5432/tcp"]), 0));
    let record = &found[0];
    assert_eq!(record["node"], "n1");
    assert_eq!((&record["verdict"], &record["direction"]), (&"dropped".into(), &"ingress".into()));
    assert_eq!(record["source"]["address"], "10.244.7.3");
    assert_eq!(record["source"]["pod"]["name"], "other");
    assert_eq!(record["source"]["labels"]["app"], "other");
    assert_eq!(record["destination"]["pod"]["namespace"], "shop");
    assert_eq!((&record["protocol"], &record["port"]), (&"TCP".into(), &5432.into()));
    assert_eq!(record["policies"][0]["name"], "db-from");
    assert_eq!((&record["rule"]["field"], &record["rule"]["decided"]), (&"ingress[0]".into(), &false.into()));
    assert!(record["rule"]["at"].as_str().unwrap().contains("policy.yaml:"), "{record}");
    assert!(record["generation"].as_u64().unwrap() > 0 && record["count"].as_u64().unwrap() > 0);
    let explained = run(&mut stage.node(&["explain", "-n", "shop", "other", "db:5432"]), 1);
    for line in record["reason"].as_array().unwrap() {
        assert!(explained.contains(line.as_str().unwrap()), "no {line} in {explained}");
    }

    // Hubble's form, and filters.
    let hubble = records(&run(&mut stage.flows(&["-o", "jsonpb", "--last", "1"]), 0));
    assert_eq!((hubble.len(), &hubble[0]["flow"]["verdict"]), (1, &"DROPPED".into()));
    assert_eq!(hubble[0]["flow"]["ingress_denied_by"][0]["name"], "db-from");
    for none in [["--from", "shop/web"], ["--policy", "other"], ["-n", "kube-system"], ["--since", "0s"]] {
        let text = run(&mut stage.flows(&none), 0);
        assert!(text.contains("no flows"), "{none:?}: {text}");
    }
    for some in [["--policy", "shop/db-from"], ["-n", "shop"], ["--since", "1h"], ["--pod", "shop/other"]] {
        let text = run(&mut stage.flows(&some), 0);
        assert!(text.contains("shop/other"), "{some:?}: {text}");
    }

    // What another machine reads: pages, with the time of this one.
    let page = &records(&run(&mut stage.flows(&["-o", "pages", "--from", "shop/other"]), 0))[0];
    assert!(page["now"].is_string() && page["started"].is_string() && page["more"] == false, "{page}");
    assert_eq!(page["records"][0]["destination"]["pod"]["name"], "db");

    // The drops are in the status, too.
    let status = |words: &[&str], code| {
        let mut command = palisade(stage.dir.path());
        command.arg("status").args(words).arg("--socket").arg(stage.socket());
        run(&mut command, code)
    };
    // The counters of the kernel are read at intervals, and what the first reading finds may be older than a minute.
    let begin = Instant::now();
    let of_agent = loop {
        assert!(!stage.answers("other", "db:5432"));
        let mut answer: Value = serde_json::from_str(&status(&["-o", "json"], 0)).unwrap();
        let of_agent = answer["agents"][0]["status"].take();
        if of_agent["drops_last_minute"].as_u64().unwrap() > 0 {
            break of_agent;
        }
        assert!(begin.elapsed() < PATIENCE, "{of_agent}");
    };
    assert_eq!(of_agent["source_check"], "enforce");
    let table = status(&[], 0);
    assert!(table.lines().any(|line| line.starts_with("n1 ") && line.contains("yes")), "{table}");
    let both = status(&["--node", "n1"], 2);
    assert!(both.contains("use one of them"), "{both}");

    // A follower stays over a restart of the agent.
    agent.stop();
    follower.until("waiting for the agent");
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    follower.until("has started again");
    assert!(!stage.answers("other", "db:5432"));
    follower.until("NetworkPolicy shop/db-from");
    agent.stop();
}

/// The kernel logs a limited number of packets: each sender has its own share.
#[test]
fn a_flood_by_one_pod_does_not_hide_a_single_drop_of_another() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("nobody"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    // Bounded by itself: a program around it would leave it behind when it is killed.
    let send = "while ((SECONDS < 60)); do echo x > /dev/udp/10.244.7.1/9; done";
    let mut flood = palisade(stage.dir.path());
    let flood = Running::of(flood.args(["lab", "exec", "shop/other", "--", "bash", "-c", send]));
    for _ in 0..300 {
        let text = run(&mut stage.flows(&["--from", "shop/other", "--port", "9/udp"]), 0);
        if text.contains("without a record") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let lost = run(&mut stage.flows(&["--from", "shop/other"]), 0);
    assert!(lost.contains("without a record"), "no flood: {lost}");
    assert!(!stage.answers("web", "db:5432"));
    let follower = Running::of(&mut stage.flows(&["-f", "--from", "shop/web"]));
    follower.until("shop/web");
    drop(flood);
    agent.stop();
}

/// Its socket is named, or left over from an agent that was killed.
#[test]
fn an_agent_that_is_not_there_yet_is_followed_once_it_is() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let follower = Running::of(&mut stage.flows(&["-f"]));
    follower.until("waiting for the agent of this node: no agent listens");
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    follower.until("VERDICT");
    assert!(!stage.answers("other", "db:5432"));
    follower.until("NetworkPolicy shop/db-from");
    agent.stop();
    // With `-o pages`, the caller gets the error and asks again. The output ends when the input does, so the input stays open.
    let (input, _open) = std::io::pipe().unwrap();
    let text = run(stage.flows(&["-f", "-o", "pages"]).stdin(input), 2);
    assert!(text.contains("no agent listens"), "{text}");
    // Waiting does not help.
    let agent = stage.agent(&["--flow-buffer", "0"]);
    agent.until("agent is ready");
    let text = run(&mut stage.flows(&["-f"]), 2);
    assert!(text.contains("flow-buffer"), "{text}");
    agent.stop();
}

#[test]
fn flows_that_cannot_be_shown_are_an_error_that_says_why() {
    let stage = Stage::new();
    fs::create_dir_all(stage.socket().parent().unwrap()).unwrap();
    let text = run(&mut stage.flows(&[]), 2);
    assert!(text.contains("no agent listens"), "{text}");
    let agent = stage.agent(&["--flow-buffer", "0"]);
    agent.until("agent is ready");
    let text = run(&mut stage.flows(&[]), 2);
    assert!(text.contains("flow-buffer"), "{text}");
    agent.stop();
    for (wrong, said) in [
        (["--from", "web"], "NAMESPACE/NAME"),
        (["--to", "10.0.0.0/33"], "CIDR"),
        (["--port", "http"], "such as 443"),
        (["--since", "yesterday"], "duration"),
        (["--policy", "a/b/c"], "policy"),
        (["-n", "a/b"], "namespace"),
        (["--verdict", "maybe"], "dropped"),
    ] {
        let text = run(&mut stage.flows(&wrong), 2);
        assert!(text.contains(said), "{wrong:?}: {text}");
    }
}

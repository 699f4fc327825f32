//! Tests `palisade agent` and `palisade node` as users run them: the real program on a node of a lab, with real packets. Requires
//! permission to create namespaces; without it these tests fail. Those that also need the program `nft` are in the target `agent-nft`.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod audit;
mod cni;
mod connections;
mod faults;
mod flows;
mod hostile;
mod node_restart;
mod played_runtime;
mod restarts;
mod runtime;
mod settings;
mod stage;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
    },
};

use stage::{Stage, policy, run};

/// The life of a policy: created, enforced, explained, edited, removed; and of an agent: started, stopped, removed.
#[test]
fn a_directory_is_enforced_and_followed() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    let log = agent.until("agent is ready");
    assert!(log.contains("starting agent") && log.contains("node=n1"), "{log}");
    assert!(stage.answers("web", "db:5432"));
    assert!(!stage.answers("other", "db:5432"));

    // A drop is logged with both pods and the policy at fault.
    let log = agent.until("dropped packets");
    for word in
        ["shop/other (10.244.7.3)", "shop/db (10.244.7.1)", "ingress", "5432", "NetworkPolicy shop/db-from"]
    {
        assert!(log.lines().last().unwrap().contains(word), "no {word} in {log}");
    }

    assert_eq!(fs::metadata(stage.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let status = run(&mut stage.node(&["status"]), 0);
    assert!(status.contains("ready") && status.contains("NetworkPolicy 1"), "{status}");
    let pods = run(&mut stage.node(&["pods"]), 0);
    assert_eq!(pods.lines().filter(|l| l.starts_with("shop/")).count(), 3, "{pods}");
    let profiles = run(&mut stage.node(&["profiles"]), 0);
    assert!(profiles.contains("NetworkPolicy shop/db-from") && profiles.contains("shop/db"), "{profiles}");
    assert!(run(&mut stage.node(&["tables"]), 0).contains("TCP 5432"));
    assert!(run(&mut stage.node(&["groups"]), 0).contains("10.244.7.2"));
    assert!(run(&mut stage.node(&["errors"]), 0).contains("no errors"));
    assert!(run(&mut stage.node(&["verify"]), 0).contains("the kernel matches the plan"));
    let explained = run(&mut stage.node(&["explain", "-n", "shop", "web", "db:5432"]), 0);
    assert!(explained.contains("NetworkPolicy shop/db-from, ingress[0]"), "{explained}");
    run(&mut stage.node(&["explain", "-n", "shop", "other", "db:5432"]), 1);
    assert!(run(&mut stage.node(&["explain", "shop/nobody", "shop/db:5432"]), 2).contains("nobody"));
    for words in ["status", "pods", "profiles", "tables", "groups", "errors", "verify"] {
        let json: serde_json::Value =
            serde_json::from_str(&run(&mut stage.node(&[words, "-o", "json"]), 0)).unwrap();
        assert_eq!(json["schema"], format!("palisade.node.{words}/v1"));
    }

    // An edit that replaces the file.
    stage.write("policy.yaml", &policy("other"));
    stage.until_answers("other", "db:5432", true);
    assert!(!stage.answers("web", "db:5432"));

    // With an invalid file, the last valid state stays, and the agent reports it.
    stage.write("broken.yaml", "a: [\n");
    agent.until("broken.yaml:1:4");
    let status = stage.until_node_says(&["status"], "failing");
    assert!(status.contains("the last valid state stays in place"), "{status}");
    stage.write("policy.yaml", &policy("web"));
    assert!(stage.answers("other", "db:5432"), "nothing is read from an invalid directory");
    fs::remove_file(stage.manifests().join("broken.yaml")).unwrap();
    stage.until_answers("other", "db:5432", false);

    // The rules stay when the agent stops, the next agent takes them over, and only --remove removes them.
    agent.stop();
    assert!(!stage.socket().exists(), "the socket is gone");
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));
    let agent = stage.agent(&[]);
    let log = agent.until("agent is ready");
    assert!(log.contains("took over table inet palisade"), "{log}");
    assert!(!stage.answers("other", "db:5432"));
    let refused = run(&mut stage.agent_command(&["--remove", "--lock-timeout=0"]), 2);
    assert!(refused.contains("another agent (process"), "{refused}");
    agent.stop();
    assert!(run(&mut stage.agent_command(&["--remove"]), 0).contains("removed table inet palisade"));
    assert!(stage.answers("other", "db:5432"));
    assert!(run(&mut stage.agent_command(&["--remove"]), 0).contains("there is no table inet palisade"));
    let left: Vec<_> = fs::read_dir(stage.dir.path().join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A kubelet updates the files of a ConfigMap by creating a new directory and replacing a symbolic link.
#[test]
fn a_replaced_link_is_an_edit() {
    let stage = Stage::new();
    let dir = stage.manifests();
    for (version, app) in [("..1", "web"), ("..2", "other")] {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("policy.yaml"), policy(app)).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/policy.yaml", dir.join("policy.yaml")).unwrap();
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    symlink("..2", dir.join("..fresh")).unwrap();
    fs::rename(dir.join("..fresh"), dir.join("..data")).unwrap();
    stage.until_answers("other", "db:5432", true);
    assert!(!stage.answers("web", "db:5432"));
    agent.stop();
}

/// Programs once, and prints the plan without changing anything, as an unprivileged user can.
#[test]
fn once_programs_and_a_dry_run_changes_nothing() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let source = format!("--source=dir:{}", stage.manifests().display());
    let dry = |words: &[&str]| {
        let mut command = stage::palisade(stage.dir.path());
        command.args(["agent", "--dry-run", "--node-name", "n1", &source]).args(words);
        run(&mut command, 0)
    };
    let plan = dry(&[]);
    for word in ["shop/db", "NetworkPolicy shop/db-from", "TCP 5432", "table inet palisade", "hook forward"] {
        assert!(plan.contains(word), "no {word} in {plan}");
    }
    let json: serde_json::Value = serde_json::from_str(&dry(&["-o", "json"])).unwrap();
    assert_eq!(json["plan"]["pods"].as_array().unwrap().len(), 3);
    assert!(stage.answers("other", "db:5432"), "nothing is programmed");
    assert!(!stage.socket().exists());

    run(&mut stage.agent_command(&["--once"]), 0);
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));
    stage.write("policy.yaml", "a: [\n");
    let refused = run(&mut stage.agent_command(&["--once"]), 2);
    assert!(refused.contains("policy.yaml:1:4"), "{refused}");
    assert!(!stage.answers("other", "db:5432"), "the rules stay");
    run(&mut stage.agent_command(&["--remove"]), 0);
}

/// Invalid requests get an error or a closed connection, and don't affect other clients.
#[test]
fn invalid_requests_at_the_socket_are_refused() {
    let stage = Stage::new();
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    let respond = |stream: UnixStream, request: &[u8]| -> String {
        (&stream).write_all(request).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };
    assert!(respond(stage.connect(), b"hello\n").contains("invalid request"));
    assert!(respond(stage.connect(), b"{\"version\":1}\n").contains("invalid request"));
    assert!(
        respond(stage.connect(), b"{\"version\":99,\"ask\":\"fly\"}\n")
            .contains("unsupported protocol version 99")
    );
    assert!(respond(stage.connect(), &[b'['; 20_000]).contains("at most"));
    assert!(respond(stage.connect(), b"\xff\xfe\n").contains("invalid request"));
    // Two requests on one connection, beside idle connections.
    let idle: Vec<UnixStream> = (0..10).map(|_| stage.connect()).collect();
    let stream = stage.connect();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for _ in 0..2 {
        (&stream).write_all(b"{\"version\":1,\"ask\":\"errors\"}\n").unwrap();
        assert!(lines.next().unwrap().unwrap().contains("events"));
    }
    drop(idle);
    run(&mut stage.node(&["status"]), 0);
    agent.stop();
    let stopped = run(&mut stage.node(&["status"]), 2);
    assert!(stopped.contains("no agent listens"), "{stopped}");
}

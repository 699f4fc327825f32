//! Other programs change the agent's table, own it, or have left one of the same name. The program `nft` does it.

use std::{
    io::Write as _,
    iter,
    net::UdpSocket,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    played_runtime::{DB, Stream, ready, sandbox},
    stage::{InPod, PATIENCE, Running, Stage, policy, run},
};

/// Other programs delete the table, edit it, or have left one of the same name.
#[test]
fn changes_of_the_table_by_other_programs_are_logged_and_repaired() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let nft = |words: &str| {
        let words: Vec<&str> = ["nft"].into_iter().chain(words.split(' ')).collect();
        run(&mut stage.on_node(&words), 0)
    };
    nft("delete table inet palisade");
    nft("add table inet palisade");
    nft("add chain inet palisade old");
    let agent = stage.agent(&[]);
    let log = agent.until("agent is ready");
    assert!(
        log.contains("replaced table inet palisade, which another version or another program had left"),
        "{log}"
    );
    assert!(!stage.answers("other", "db:5432"));

    for command in [
        "delete table inet palisade",
        "flush chain inet palisade forward",
        "add table inet palisade { flags dormant; }",
        "add element inet palisade self4 { * }",
        "delete element inet palisade ingress4 { 10.244.7.1 }",
    ] {
        nft(command);
        let log = agent.until("repaired table inet palisade");
        assert!(log.contains("nft (process"), "{command}: {log}");
        assert!(!stage.answers("other", "db:5432"), "{command}");
        run(&mut stage.node(&["verify"]), 0);
    }
    assert!(run(&mut stage.node(&["errors"]), 0).contains("drift"));
    agent.stop();
    // A change while no agent runs is repaired by the next start.
    nft("flush chain inet palisade forward");
    assert!(stage.answers("other", "db:5432"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    assert!(!stage.answers("other", "db:5432"));
    agent.stop();
}

/// The table is created again at once, however often it is removed.
#[test]
fn a_table_that_is_removed_repeatedly_exists_nearly_all_the_time() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    let (sender, receiver) = (stage.in_pod("shop/other"), stage.in_pod("shop/db"));
    let (sent, passed) = denied_datagrams(&sender, &receiver, Duration::from_millis(200));
    assert!(
        sent > 0 && passed == 0,
        "{passed} of {sent} denied datagrams passed before anything was removed"
    );
    let flush = "while sleep 0.5; do nft flush ruleset; echo flushed; done";
    let flusher = Running::of(&mut stage.on_node(&["sh", "-c", flush]));
    flusher.until("flushed");
    let (sent, passed) = denied_datagrams(&sender, &receiver, Duration::from_secs(6));
    drop(flusher);
    println!("{passed} of {sent} denied datagrams passed");
    assert!(passed * 2 < sent, "{passed} of {sent} denied datagrams passed");
    assert!(agent.until("repaired table inet palisade").contains("nft (process"));
    stage.until_answers("other", "db:5432", false);
    run(&mut stage.node(&["verify"]), 0);
    agent.stop();
}

/// Sends datagrams from one pod to the database, each from a port of its own, so that none belongs to a connection that an earlier one has
/// opened. Returns how many were sent and how many arrived.
fn denied_datagrams(sender: &InPod, receiver: &InPod, duration: Duration) -> (usize, usize) {
    const AT_MOST: Duration = Duration::from_millis(2);
    let server = receiver.run(|| UdpSocket::bind("10.244.7.1:0").unwrap());
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let (begin, mut sent, mut passed) = (Instant::now(), 0, 0);
    let receive = || iter::from_fn(|| server.recv(&mut [0; 8]).ok()).count();
    sender.run(|| {
        while begin.elapsed() < duration {
            let client = UdpSocket::bind("10.244.7.3:0").unwrap();
            client.send_to(b"denied", address).unwrap();
            sent += 1;
            thread::sleep(AT_MOST);
            passed += receive();
        }
    });
    thread::sleep(Duration::from_millis(50));
    (sent, passed + receive())
}

/// Another program's socket owns the table, so that the agent can't change it. The agent is not ready and reports the owner.
#[test]
fn a_table_that_another_program_owns_makes_the_agent_not_ready_until_it_ends() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    let mut owner = stage.on_node(&["nft", "-i"]);
    let mut owner = owner.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = owner.stdin.take().unwrap();
    // Repeated until it is faster than the agent.
    let begin = Instant::now();
    let status = loop {
        input.write_all(b"delete table inet palisade; add table inet palisade { flags owner; }\n").unwrap();
        let (_, out, _) = crate::stage::text(&stage.node(&["status"]).output().unwrap());
        if out.contains("belongs to another program (netlink port") {
            break out;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{out}");
    };
    assert!(status.contains("can't be repaired"), "{status}");
    let verified = run(&mut stage.node(&["verify"]), 1);
    assert!(verified.contains("belongs to another program"), "{verified}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&mut stage.node(&["verify", "-o", "json"]), 1)).unwrap();
    assert!(json.to_string().contains("only that program can change it"), "{json}");
    // The agent is notified when the owner ends, and retries without a pause.
    drop(input);
    owner.wait().unwrap();
    agent.until("agent is ready");
    assert!(!stage.answers("other", "db:5432"));
    run(&mut stage.node(&["verify"]), 0);
    agent.stop();
}

/// Another program owns the table, so the kernel rejects every plan. The pods are cut off in the separate table. If another
/// program owns that too, they are reported as not enforced. When the tables are free, the plan is programmed, and changes by
/// other programs are detected although the first start had failed.
#[test]
fn reports_about_pods_match_what_the_kernel_accepted() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    // The lab creates one.
    run(&mut stage.on_node(&["nft", "delete", "table", "inet", "palisade"]), 0);
    let (mut ours, mut apart) = (owner_of(&stage, "palisade"), owner_of(&stage, "palisade_cut_off"));
    until_listed(&stage, "palisade");
    until_listed(&stage, "palisade_cut_off");
    let agent = stage.agent(&[]);
    let log = agent.until("policies of pod are not enforced");
    assert!(!log.contains("cut off pod,") && stage.answers("other", "db:5432"), "{log}");
    let status = run(&mut stage.node(&["status"]), 1);
    assert!(
        status.contains("NOT ENFORCED 10.244.7.1 ingress") && !status.contains("are cut off"),
        "{status}"
    );
    assert!(run(&mut stage.node(&["pods"]), 0).contains("NOT ENFORCED"));

    // The owner of the second table ends, which removes the table.
    apart.kill().unwrap();
    apart.wait().unwrap();
    let log = agent.until("cut off pod,");
    assert!(!log.contains("are not enforced"), "{log}");
    assert!(!stage.answers("other", "db:5432") && !stage.answers("web", "db:5432"));
    let status = run(&mut stage.node(&["status"]), 1);
    assert!(status.contains("1 pod addresses are cut off") && !status.contains("NOT ENFORCED"), "{status}");

    ours.kill().unwrap();
    ours.wait().unwrap();
    agent.until("agent is ready");
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    run(&mut stage.node(&["verify"]), 0);
    assert!(!run(&mut stage.on_node(&["nft", "list", "tables"]), 0).contains("cut_off"));
    run(&mut stage.on_node(&["nft", "flush", "chain", "inet", "palisade", "forward"]), 0);
    assert!(agent.until("repaired table inet palisade").contains("nft (process"));
    agent.stop();
}

/// Another program owns the table by which the older connections of new pods are dropped.
#[test]
fn a_pod_whose_older_connections_can_not_be_dropped_starts_closed_until_they_are_reviewed() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let mut old = Stream::open(&stage, "other", ("db", DB));
    assert!(old.passes(PATIENCE));
    let mut owner = owner_of(&stage, "palisade_new_pods");
    until_listed(&stage, "palisade_new_pods");
    connected.start(&sandbox("db", DB)).unwrap();
    let line = agent.until("pod starts closed").lines().last().unwrap_or_default().to_owned();
    let expected = "table inet palisade_new_pods belongs to another program";
    assert!(
        line.contains("shop/db") && line.contains("older than the pod") && line.contains(expected),
        "{line}"
    );
    stage.until_answers("web", "db:5432", true);
    assert!(!stage.answers("other", "db:5432") && !old.passes(Duration::from_millis(500)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    agent.stop();
}

/// If it can't be closed either, it does not start.
#[test]
fn a_pod_that_can_not_be_closed_to_older_connections_is_refused_until_it_can() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let tables = ["palisade_new_pods", "palisade_cut_off"];
    let owners = tables.map(|table| owner_of(&stage, table));
    tables.iter().for_each(|table| until_listed(&stage, table));
    let error = connected.start(&sandbox("db", DB)).unwrap_err().to_string();
    let expected = "shop/db could not be isolated: cutting pods off in table inet palisade_cut_off: table inet palisade_cut_off belongs to \
        another program";
    assert!(error.contains(expected), "{error}");
    for mut owner in owners {
        owner.kill().unwrap();
        owner.wait().unwrap();
    }
    let begin = Instant::now();
    while let Err(error) = connected.start(&sandbox("db", DB)) {
        assert!(begin.elapsed() < PATIENCE, "{error}");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    agent.stop();
}

/// Starts a program that owns the table of this name, until it ends.
fn owner_of(stage: &Stage, table: &str) -> Child {
    let mut command = stage.on_node(&["nft", "-i"]);
    let mut nft = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let line = format!("add table inet {table} {{ flags owner; }}\n");
    nft.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    nft
}

fn until_listed(stage: &Stage, table: &str) {
    let listing = || run(&mut stage.on_node(&["nft", "list", "tables"]), 0);
    let begin = Instant::now();
    while !listing().lines().any(|line| line == format!("table inet {table}")) {
        assert!(begin.elapsed() < PATIENCE, "no table {table}: {}", listing());
        thread::sleep(Duration::from_millis(20));
    }
}

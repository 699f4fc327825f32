//! Faults on a node: the agent keeps the last state, reports the fault, and recovers by itself.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::stage::{Stage, palisade, policy, run};

/// The agent is killed at various moments. Denied traffic stays denied, also while the next agent starts.
#[test]
fn a_killed_agent_leaves_the_rules_and_the_next_start_allows_nothing_more() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    stage.agent(&[]).until("agent is ready");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (stage, done) = (&stage, &done);
        let prober = scope.spawn(move || {
            let mut probes = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(!stage.answers("other", "db:5432"), "allowed after {probes} probes");
                probes += 1;
            }
            probes
        });
        for round in 0..12_u64 {
            let mut agent = stage.agent(&[]);
            // Before it has programmed anything, after that, or during an edit.
            thread::sleep(Duration::from_millis(round * 13));
            if round % 3 == 0 {
                stage.write("more.yaml", &policy("web").replace("db-from", &format!("p{round}")));
                thread::sleep(Duration::from_millis(round * 2));
            }
            agent.child.kill().unwrap();
            agent.child.wait().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(prober.join().unwrap() > 0);
    });
    // The socket and the lock of a killed agent don't prevent the next one from starting.
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    run(&mut stage.node(&["verify"]), 0);
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    agent.stop();
}

#[test]
fn only_one_agent_writes_and_a_second_waits_for_it() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let first = stage.agent(&[]);
    first.until("agent is ready");
    // With the same socket, and with another directory.
    let other = stage.dir.path().join("other/agent.sock").display().to_string();
    for words in [&["--lock-timeout=0"][..], &["--lock-timeout=0", "--socket", &other]] {
        let mut command = stage.agent_command(&[]);
        // A repeated flag is an error, so the socket is given once.
        if words.len() > 1 {
            command = stage.on_node(&[env!("CARGO_BIN_EXE_palisade"), "agent", "--node-name", "n1"]);
            command.arg(format!("--source=dir:{}", stage.manifests().display()));
        }
        let (code, text) = crate::stage::Running::of(command.args(words)).ended();
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(&format!("(process {})", first.child.id())), "{text}");
    }
    run(&mut stage.node(&["status"]), 0);

    let second = stage.agent(&["--lock-timeout=60"]);
    second.until("waiting for another agent to stop");
    assert!(!stage.answers("other", "db:5432"));
    first.stop();
    second.until("agent is ready");
    assert!(!stage.answers("other", "db:5432"));
    second.stop();
}

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
    const PROBES: usize = 12;
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    // Each connection attempt has several chances to hit a moment without a table.
    // One program on the node: the lab runs probes and new programs one at a time.
    let flush = "while sleep 0.5; do nft flush ruleset; echo flushed; done";
    let flusher = crate::stage::Running::of(&mut stage.on_node(&["sh", "-c", flush]));
    flusher.until("flushed");
    let open = (0..PROBES).filter(|_| stage.answers("other", "db:5432")).count();
    drop(flusher);
    assert!(open * 2 < PROBES, "{open} of {PROBES} denied connections were established");
    assert!(agent.until("repaired table inet palisade").contains("nft (process"));
    stage.until_answers("other", "db:5432", false);
    run(&mut stage.node(&["verify"]), 0);
    agent.stop();
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

/// With invalid manifests at the start, the kernel stays unchanged and the agent waits.
#[test]
fn invalid_manifests_at_the_start_change_nothing() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    run(&mut stage.agent_command(&["--once"]), 0);
    stage.write("policy.yaml", "kind: [");
    fs::write(stage.manifests().join("noise.json"), [0xff, 0, 0x80, b'{']).unwrap();
    let agent = stage.agent(&[]);
    agent.until("watch failed, retrying");
    let status = run(&mut stage.node(&["status"]), 1);
    assert!(status.contains("waiting for the first snapshot") && status.contains("noise.json"), "{status}");
    assert!(run(&mut stage.node(&["verify"]), 2).contains("nothing is programmed yet"));
    assert!(!stage.answers("other", "db:5432") && stage.answers("web", "db:5432"));
    fs::remove_file(stage.manifests().join("noise.json")).unwrap();
    stage.write("policy.yaml", &policy("other"));
    agent.until("agent is ready");
    assert!(stage.answers("other", "db:5432"));

    // The directory is moved away and back.
    let away = stage.dir.path().join("away");
    fs::rename(stage.manifests(), &away).unwrap();
    agent.until("does not exist: the last valid state stays in place");
    assert!(stage.answers("other", "db:5432") && !stage.answers("web", "db:5432"));
    fs::write(away.join("policy.yaml"), policy("web")).unwrap();
    fs::rename(&away, stage.manifests()).unwrap();
    stage.until_answers("web", "db:5432", true);
    agent.stop();
}

/// An address that two pods report, an invalid address, and an unknown node name.
#[test]
fn questionable_objects_and_names_are_logged() {
    let stage = Stage::new();
    let double = "
apiVersion: v1
kind: Pod
metadata: {name: double, namespace: shop, creationTimestamp: \"2020-01-01T00:00:00Z\"}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Pending, podIP: 10.244.7.1, podIPs: [{ip: 10.244.7.1}]}
";
    stage.write("double.yaml", double);
    stage.write("policy.yaml", &policy("web"));
    let agent = stage.agent(&[]);
    let log = agent.until("agent is ready");
    assert!(log.contains("shop/double") && log.contains("is also the address of shop/db"), "{log}");
    let pods = run(&mut stage.node(&["pods"]), 0);
    assert!(pods.contains("address belongs to shop/db"), "{pods}");
    assert!(run(&mut stage.node(&["errors"]), 0).contains("Pod shop/double"));
    fs::remove_file(stage.manifests().join("double.yaml")).unwrap();
    agent.until("object is valid again or was deleted");
    stage.write("wild.yaml", &double.replace("10.244.7.1", "300.1.2.3"));
    agent.until("watch failed, retrying");
    agent.stop();

    fs::remove_file(stage.manifests().join("wild.yaml")).unwrap();
    let mut command = stage.on_node(&[env!("CARGO_BIN_EXE_palisade"), "agent", "--node-name", "n9"]);
    command.arg(format!("--source=dir:{}", stage.manifests().display())).arg("--socket").arg(stage.socket());
    let agent = crate::stage::Running::of(command.args(["--listen", "off"]));
    let log = agent.until("no node of this name");
    assert!(log.contains("known_nodes=\"n1\""), "{log}");
    agent.stop();
}

/// The agent runs as its pod does, on a node where nothing translates the address of the Service `default/kubernetes` yet.
#[test]
fn an_api_address_that_nothing_translates_is_named_with_the_cure() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    run(&mut stage.agent_command(&["--once"]), 0);
    // The service account of a pod, in a private /run. The certificate is that of any authority: no server is reached.
    fs::write(stage.dir.path().join("ca.pem"), include_str!("ca.pem")).unwrap();
    let account = "/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p {account} && printf token >{account}/token && printf ns >{account}/namespace && \
         cp {}/ca.pem {account}/ca.crt && exec \"$@\"",
        stage.dir.path().display()
    );
    let agent = env!("CARGO_BIN_EXE_palisade");
    let mut command = stage.on_node(&["unshare", "--mount", "sh", "-c", &script, "sh", agent, "agent"]);
    command.args(["--node-name", "n1", "--listen", "off", "--health-listen", "off", "--socket"]);
    command.arg(stage.socket()).env("HOME", "/nonexistent");
    command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("KUBERNETES_SERVICE_PORT", "443");
    let agent = crate::stage::Running::of(&mut command);
    let log = agent.until("watch failed, retrying");
    for part in ["10.96.0.1:443 is the address of the Service", "kube-proxy", "apiServer.host"] {
        assert!(log.contains(part), "no {part} in {log}");
    }
    let status = stage.until_node_says(&["status"], "kube-proxy");
    assert!(status.contains("waiting for the first snapshot"), "{status}");
    assert!(!stage.answers("other", "db:5432"), "the kernel keeps its rules");
    agent.stop();
}

/// An unprivileged user gets an error with the missing capability.
#[test]
fn without_permission_to_change_the_firewall_the_error_says_so() {
    let dir = tempfile::TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let manifests = dir.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("p.yaml"), policy("web")).unwrap();
    for words in [&["--once"][..], &["--remove"], &[]] {
        // None of these commands gets as far as taking the lock of an agent that may run in this network namespace.
        let mut command: Command = palisade(dir.path());
        command.args(["agent", "--node-name", "n1", "--listen", "off", "--lock-timeout", "20"]).args(words);
        command.arg(format!("--source=dir:{}", manifests.display()));
        command.arg("--socket").arg(dir.path().join("run/agent.sock"));
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let text = run(&mut command, 2);
        assert!(text.contains("CAP_NET_ADMIN"), "{words:?}: {text}");
    }
}

/// Another program owns the table, so the kernel rejects every plan. The pods are cut off in the separate table. If another
/// program owns that too, they are reported as not enforced. When the tables are free, the plan is programmed, and changes by
/// other programs are detected although the first start had failed.
#[test]
fn reports_about_pods_match_what_the_kernel_accepted() {
    let stage = Stage::new();
    stage.write("policy.yaml", &policy("web"));
    let own = |name: &str| {
        let mut command = stage.on_node(&["nft", "-i"]);
        let mut nft = command.stdin(Stdio::piped()).spawn().unwrap();
        let line = format!("add table inet {name} {{ flags owner; }}\n");
        std::io::Write::write_all(nft.stdin.as_mut().unwrap(), line.as_bytes()).unwrap();
        nft
    };
    let listed = |name: &str| {
        let listing = || run(&mut stage.on_node(&["nft", "list", "tables"]), 0);
        let begin = Instant::now();
        while !listing().lines().any(|line| line == format!("table inet {name}")) {
            assert!(begin.elapsed() < Duration::from_secs(20), "no table {name}: {}", listing());
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The lab creates one.
    run(&mut stage.on_node(&["nft", "delete", "table", "inet", "palisade"]), 0);
    let (mut ours, mut apart) = (own("palisade"), own("palisade_cut_off"));
    listed("palisade");
    listed("palisade_cut_off");
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

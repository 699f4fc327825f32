//! Faults on a node: the agent keeps the last state, reports the fault, and recovers by itself.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::stage::{PATIENCE, Stage, palisade, policy, run};

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

/// That names match nothing is said by an agent that doesn't learn addresses, and by no other; what can't be learned, by both.
#[test]
fn names_that_are_not_enforced_are_reported_by_agents_that_do_not_learn_addresses() {
    const NOT_LEARNED: &str = "none are known here";
    let policy = format!(
        "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: by-name}}
spec:
  tier: Admin
  priority: 5
  subject: {{namespaces: {{}}}}
  egress: [{{action: Accept, to: [{{domainNames: [vendor.example.com, {}.example.com]}}]}}]
",
        "a".repeat(64)
    );
    let stage = Stage::new();
    stage.write("by-name.yaml", &policy);
    for (words, is_reported) in [(&[][..], true), (&["--domain-names=on"], false)] {
        let agent = stage.agent(words);
        let mut log = agent.until("agent is ready");
        assert!(log.contains("no name of DNS"), "{log}");
        let errors = run(&mut stage.node(&["errors"]), 0);
        assert!(errors.contains("domainNames[1]"), "{errors}");
        assert_eq!(errors.contains(NOT_LEARNED), is_reported, "{words:?}: {errors}");
        // Without the other name all is well.
        let unusable = |expected: &str| {
            let begin = Instant::now();
            let metric = format!("palisade_unusable_objects{{kind=\"ClusterNetworkPolicy\"}} {expected}");
            let metrics = || run(&mut stage.on_node(&["curl", "-s", "http://127.0.0.1:9643/metrics"]), 0);
            while !metrics().contains(&metric) {
                assert!(begin.elapsed() < PATIENCE, "{words:?}: not {metric:?} in {}", metrics());
            }
        };
        unusable("1");
        stage.write("by-name.yaml", &policy.replace(&format!(", {}.example.com", "a".repeat(64)), ""));
        if is_reported {
            log += &agent.until(NOT_LEARNED);
            unusable("1");
        } else {
            log += &agent.until("object is valid again");
            unusable("0");
        }
        assert_eq!(log.contains(NOT_LEARNED), is_reported, "{words:?}: {log}");
        let status = run(&mut stage.node(&["status"]), 0);
        assert_eq!(status.contains("palisade node errors"), is_reported, "{words:?}: {status}");
        agent.stop();
        stage.write("by-name.yaml", &policy);
    }
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

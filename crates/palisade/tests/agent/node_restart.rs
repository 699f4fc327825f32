//! A node that restarts: its rules are gone, and its pods come back before the agent has the cluster's state.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::stage::{PATIENCE, Stage, policy, run};

/// The node, with the range of its pods. The agent's manifests alone have it: the lab gives nodes their addresses itself.
const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.7.0/24, podCIDRs: [10.244.7.0/24]}
";

impl Stage {
    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn state_argument(&self) -> String {
        format!("--state-dir={}", self.state_dir().display())
    }

    /// Waits until the agent has written the state of its node.
    fn until_state_is_kept(&self) -> String {
        let begin = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(self.state_dir().join("node-state")) {
                return text;
            }
            assert!(begin.elapsed() < PATIENCE, "no state");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes all rules, as a restart of the machine does. Without `--state-dir`, the state stays.
    fn lose_rules(&self) {
        run(&mut self.agent_command(&["--remove"]), 0);
    }

    fn restore(&self) -> String {
        run(&mut self.agent_command(&["--restore", &self.state_argument()]), 0)
    }
}

/// Sets the flag that ends a thread, also if an assertion fails: the scope waits for the thread.
struct UntilDropped<'a>(&'a AtomicBool);

impl Drop for UntilDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// From the first start of a pod to readiness, nothing passes that the policies deny; with the source away for longer, and the agent
/// killed meanwhile.
#[test]
fn pods_that_come_back_before_the_agent_are_closed_until_it_is_ready() {
    let stage = Stage::new();
    stage.write("node.yaml", NODE);
    stage.write("policy.yaml", &policy("web"));
    let state = stage.state_argument();
    let agent = stage.agent(&[&state]);
    agent.until("agent is ready");
    let text = stage.until_state_is_kept();
    assert!(text.contains("10.244.7.0/24") && !text.contains("10.244.7.1"), "{text}");
    let mode = fs::metadata(stage.state_dir().join("node-state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The rules of an agent that stops are in force: there is nothing to restore.
    agent.stop();
    assert!(stage.restore().contains("nothing was changed"));
    assert!(stage.answers("web", "db:5432"));

    stage.lose_rules();
    assert!(stage.answers("other", "db:5432"), "nothing is enforced on a node that has restarted");
    let restored = stage.restore();
    assert!(restored.contains("10.244.7.0-10.244.7.255"), "{restored}");
    let (ready, probes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (stage, ready, probes) = (&stage, &ready, &probes);
        let probing = UntilDropped(ready);
        scope.spawn(move || {
            while !ready.load(Ordering::Relaxed) {
                assert!(!stage.answers("other", "db:5432"), "after {probes:?} probes");
                probes.fetch_add(1, Ordering::Relaxed);
            }
        });
        // What the policy allows is closed too: nobody knows the pods. The node reaches them, and they don't reach the node.
        assert!(!stage.answers("web", "db:5432") && !stage.answers("other", "web:80"));
        assert!(stage.answers("node/n1", "db:5432"));
        assert!(!stage.answers("web", "node/n1:80"));

        // The source is away, and agents come and go.
        let away = stage.dir.path().join("away");
        fs::rename(stage.manifests(), &away).unwrap();
        fs::create_dir(stage.manifests()).unwrap();
        fs::write(stage.manifests().join("broken.yaml"), "a: [\n").unwrap();
        for _ in 0..2 {
            let mut agent = stage.agent(&[&state]);
            let log = agent.until("watch failed, retrying");
            assert!(log.contains("denied new connections of this node's pods"), "{log}");
            assert!(!stage.answers("web", "db:5432"));
            agent.child.kill().unwrap();
            agent.child.wait().unwrap();
        }
        let agent = stage.agent(&[&state]);
        agent.until("watch failed, retrying");
        let running = run(&mut stage.agent_command(&["--restore", &state, "--lock-timeout=0"]), 2);
        assert!(running.contains("another agent (process"), "{running}");
        // All files at once: without the policy, the pods alone would be a state in which they are open.
        fs::rename(stage.manifests(), stage.dir.path().join("broken")).unwrap();
        fs::rename(away, stage.manifests()).unwrap();
        agent.until("agent is ready");
        assert!(stage.answers("web", "db:5432"), "what the policies allow is open");
        assert!(stage.answers("other", "web:80"), "pods that no policy selects are open");
        run(&mut stage.node(&["verify"]), 0);
        drop(probing);
        agent.stop();
    });
    assert!(probes.into_inner() > 5);
    assert!(!stage.answers("other", "db:5432"));
    let removed = run(&mut stage.agent_command(&["--remove", &state]), 0);
    assert!(removed.contains("removed table"), "{removed}");
    assert!(!stage.state_dir().exists(), "the state is removed too");
    assert!(stage.answers("other", "db:5432"));
}

/// An agent closes the pods by itself if nothing did before it.
#[test]
fn an_agent_that_starts_without_rules_closes_the_pods_until_the_first_snapshot() {
    let stage = Stage::new();
    let state = stage.state_argument();
    // The first start on a node: nothing is known of it, and its pods stay open.
    fs::write(stage.manifests().join("broken.yaml"), "a: [\n").unwrap();
    let agent = stage.agent(&[&state]);
    agent.until("watch failed, retrying");
    assert!(stage.answers("other", "db:5432"));
    fs::remove_file(stage.manifests().join("broken.yaml")).unwrap();
    // Without ranges of the node.
    stage.write("policy.yaml", &policy("web"));
    agent.until("agent is ready");
    stage.until_state_is_kept();
    agent.stop();
    stage.lose_rules();
    fs::write(stage.manifests().join("broken.yaml"), "a: [\n").unwrap();
    let agent = stage.agent(&[&state]);
    let log = agent.until("watch failed, retrying");
    assert!(log.contains("all that the node forwards"), "{log}");
    for (from, to) in [("other", "db:5432"), ("web", "db:5432"), ("web", "other:80")] {
        assert!(!stage.answers(from, to), "{from} to {to}");
    }
    assert!(stage.answers("node/n1", "db:5432") && stage.answers("web", "node/n1:80"));
    fs::remove_file(stage.manifests().join("broken.yaml")).unwrap();
    agent.until("agent is ready");
    assert!(stage.answers("web", "db:5432") && stage.answers("web", "other:80"));
    assert!(!stage.answers("other", "db:5432"));
    agent.stop();
    run(&mut stage.agent_command(&["--remove", &state]), 0);
}

/// A state that can't be used is said, and everything that the node forwards is closed.
#[test]
fn a_state_that_cannot_be_used_closes_all_that_the_node_forwards() {
    let stage = Stage::new();
    stage.write("node.yaml", NODE);
    stage.write("policy.yaml", &policy("web"));
    let state = stage.state_argument();
    assert!(stage.restore().contains("no agent has kept a state"));
    run(&mut stage.agent_command(&["--once", &state]), 0);
    let whole = stage.until_state_is_kept();
    for (text, said) in [
        (whole.replace("10.244.7.0", "10.9.9.0"), "the checksum does not match"),
        (whole.replace("state 1", "state 7"), "format 7"),
        (String::new(), "not a state of palisade"),
    ] {
        stage.lose_rules();
        fs::write(stage.state_dir().join("node-state"), text).unwrap();
        assert!(stage.answers("other", "db:5432"));
        let restored = stage.restore();
        assert!(restored.contains(said) && restored.contains("all that the node forwards"), "{restored}");
        assert!(!stage.answers("other", "db:5432") && !stage.answers("web", "db:5432"));
    }
    // The state of another node, from a copied disk.
    let mut command =
        stage.on_node(&[env!("CARGO_BIN_EXE_palisade"), "agent", "--node-name", "n2", "--restore"]);
    fs::write(stage.state_dir().join("node-state"), whole).unwrap();
    command.arg(&state).arg("--socket").arg(stage.socket());
    let restored = run(&mut command, 0);
    assert!(restored.contains("the state of node n1, and this is n2"), "{restored}");
    // A snapshot opens the pods, and what the node's state is from now on is kept.
    let agent = stage.agent(&[&state]);
    agent.until("agent is ready");
    assert!(stage.answers("web", "db:5432") && !stage.answers("other", "db:5432"));
    agent.stop();
    let refused = run(&mut stage.agent_command(&["--restore"]), 2);
    assert!(refused.contains("--state-dir"), "{refused}");
    run(&mut stage.agent_command(&["--remove", &state]), 0);
}

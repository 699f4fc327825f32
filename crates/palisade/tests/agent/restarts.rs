//! Pods that start while their node's agent is killed, stands still, and is restarted: the CNI plugin holds each until it is isolated. Nothing
//! may pass from then on, whatever happens to agents. The kernel counts what arrives in the network namespaces.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    cni::{Call, pending, pods},
    stage::{PATIENCE, Running, Stage, palisade},
};

/// How many pods start at least, unless `PALISADE_TEST_STARTS` says so.
const STARTS: usize = 40;
/// How often agents are disturbed meanwhile, at least.
const DISTURBANCES: usize = 6;
/// How long each is looked at.
const LIFE: Duration = Duration::from_millis(30);

/// A pod that sends to another as fast as it can, and how much arrives in it.
struct Sender {
    _running: Running,
    process: String,
}

impl Sender {
    fn start(stage: &Stage, from: &str, to: &str) -> Self {
        let mut command = palisade(stage.dir.path());
        let script = format!("echo pid $$; while ((SECONDS < 600)); do echo x > /dev/udp/{to}/9; done");
        command.args(["lab", "exec", &format!("shop/{from}"), "--", "bash", "-c", &script]);
        let running = Running::of(&mut command);
        let process = running.until("pid ").trim().rsplit(' ').next().unwrap().to_owned();
        Self { _running: running, process }
    }

    /// Datagrams that have arrived in the sender's own pod, where nothing listens for them.
    fn arrived(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/net/snmp", self.process)).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        names.zip(values).find(|(name, _)| *name == "NoPorts").unwrap().1.parse().unwrap()
    }
}

const ISOLATED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
";

/// Kills, stops and restarts agents until there is nothing left to disturb. Counts how often.
fn disturb(stage: &Stage, agent: &Mutex<Running>, goes_on: &AtomicBool, disturbed: &AtomicUsize) {
    while goes_on.load(Ordering::SeqCst) {
        let count = disturbed.load(Ordering::SeqCst);
        let mut running = agent.lock().unwrap();
        match count % 3 {
            0 => running.signal(Signal::SIGKILL),
            1 => running.signal(Signal::SIGTERM),
            _ => {
                running.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(700));
                running.signal(Signal::SIGCONT);
            }
        }
        if count % 3 < 2 {
            running.child.wait().unwrap();
            *running = stage.agent(&[]);
            running.until("agent is ready");
        }
        drop(running);
        disturbed.store(count + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(500));
    }
}

/// Starts pods one after the other. A refused start is tried again, as the kubelet does. Returns how much arrived before they were started.
fn start_pods(stage: &Stage, [db, other]: [&Sender; 2], disturbed: &AtomicUsize) -> [u64; 2] {
    let mut before = [0, 0];
    let starts = std::env::var("PALISADE_TEST_STARTS").map_or(STARTS, |count| count.parse().unwrap());
    for number in 0.. {
        if number >= starts && disturbed.load(Ordering::SeqCst) >= DISTURBANCES {
            break;
        }
        let open = [db.arrived(), other.arrived()];
        let begin = Instant::now();
        while let (Some(1), out) = Call::new(stage, "ADD").env("CNI_CONTAINERID", &id(number)).run() {
            assert!(begin.elapsed() < PATIENCE, "{out}");
        }
        // The pod's containers run from here on.
        let start = [db.arrived(), other.arrived()];
        thread::sleep(LIFE);
        let end = [db.arrived(), other.arrived()];
        assert_eq!(start, end, "packets of pod {number} passed, in or out");
        for (sum, (from, to)) in before.iter_mut().zip(open.into_iter().zip(start)) {
            *sum += to - from;
        }
        Call::new(stage, "DEL").env("CNI_CONTAINERID", &id(number)).succeeds();
    }
    before
}

fn id(number: usize) -> String {
    format!("sandbox-{number}")
}

#[test]
fn nothing_passes_of_pods_that_start_while_agents_are_killed_stopped_and_restarted() {
    let stage = Stage::new();
    pods(&stage, pending);
    stage.write("policy.yaml", ISOLATED);
    let agent = stage.agent(&[]);
    agent.until("agent is ready");
    let db = Sender::start(&stage, "db", "10.244.7.3");
    let other = Sender::start(&stage, "other", "10.244.7.1");
    let (agent, goes_on, disturbed) = (Mutex::new(agent), AtomicBool::new(true), AtomicUsize::new(0));
    let before = thread::scope(|scope| {
        scope.spawn(|| disturb(&stage, &agent, &goes_on, &disturbed));
        let started = scope.spawn(|| start_pods(&stage, [&db, &other], &disturbed));
        let started = started.join();
        goes_on.store(false, Ordering::SeqCst);
        started.unwrap()
    });
    assert!(before.iter().all(|count| *count > 0), "the senders sent nothing: {before:?}");
    agent.into_inner().unwrap().stop();
}

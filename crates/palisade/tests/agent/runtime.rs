//! Pods that a container runtime announces by NRI, with real packets. The runtime is played.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use palisade_nft::{Kernel, new_pods::NewPods};
use palisade_testkit::runtime::{Connected, Offered, Sandbox, field};

use crate::{
    played_runtime::{
        DB, OTHER, Stream, UID, accept, agent, denied_entries, described, offer, ready, sandbox,
        sandbox_without_addresses, without_database,
    },
    stage::{PATIENCE, Running, Stage, policy, run},
};

#[test]
fn an_announced_pod_is_isolated_when_the_runtime_gets_its_answer() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let all = std::fs::read_to_string(stage.dir.path().join("lab/pods.yaml")).unwrap();
    assert!(stage.answers("other", "db:5432"), "nobody knows the pod");

    // As network plugins do, the lab has set the pod's hardware address on the node for good. That stays, or the pod could not be reached.
    let no_answers = "echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore";
    let mut command = crate::stage::palisade(stage.dir.path());
    run(command.args(["lab", "exec", "shop/db", "--", "bash", "-c", no_answers]), 0);

    connected.start(&sandbox("db", DB)).unwrap();
    assert!(!stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "db:5432"));
    assert!(agent.until("programmed pod before its start").contains("pod=\"shop/db\""));

    // What the API server says later: the same pod, and its deletion while it runs.
    stage.write("pods.yaml", &all);
    stage.until_node_says(&["status"], "3 pods");
    without_database(&stage);
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));

    // What no pod can be, and a pod that has no address, leave everything as it is.
    let forged = [field(1, "x"), field(2, "../x"), field(4, "shop")].concat();
    let error = connected.call("RunPodSandbox", &field(1, forged)).unwrap().unwrap_err();
    assert!(error.contains("name of the sandbox"), "{error}");
    agent.until("refused an invalid pod from");
    connected.start(&sandbox_without_addresses("y", "/run/netns/y")).unwrap();
    assert!(agent.until("reports no address of the pod").contains("in the network namespace /run/netns/y"));

    connected.call("StopPodSandbox", &field(1, sandbox("db", DB))).unwrap().unwrap();
    stage.until_answers("other", "db:5432", true);
    agent.stop();
}

/// How long it takes at most until a packet has arrived that passes.
const SOON: Duration = Duration::from_millis(500);

/// How many of the node's connections to the database are of the pod that its policy denies. Of others, a packet that arrives later may begin
/// one again.
fn denied(kernel: &mut Kernel) -> usize {
    denied_entries(kernel).len()
}

fn until_deleted(kernel: &mut Kernel) {
    let begin = Instant::now();
    while denied(kernel) > 0 {
        assert!(begin.elapsed() < PATIENCE, "older connections are not deleted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the kernel drops the older connections of the database.
fn is_new(kernel: &mut Kernel) -> bool {
    NewPods::adopt(kernel).unwrap().1.contains(&DB.parse().unwrap())
}

const DELETED: &str = "deleted connections that are older than the pods that start";

/// However long the node takes to find them.
#[test]
fn connections_that_are_older_than_a_pod_end_when_it_starts() {
    let (stage, runtime, agent, mut connected) = ready(&[]);
    let node = stage.in_pod("node/n1");
    // Before the agent knows the pod.
    let mut old = Stream::open(&stage, "other", ("db", DB));
    assert!(old.passes(PATIENCE));
    node.open_connections(150_000);
    let mut kernel = node.kernel();
    assert_eq!(denied(&mut kernel), 1);

    connected.start(&sandbox("db", DB)).unwrap();
    assert!(!old.passes(SOON), "the container runs");
    let mut new = Stream::allowed(&stage);
    assert!(new.passes(PATIENCE));
    // While connections are still listed. It waits no less for the second announcement.
    connected.start(&sandbox("db", DB)).unwrap();
    assert!(!old.passes(SOON));
    agent.until(DELETED);
    until_deleted(&mut kernel);
    assert!(!old.passes(SOON) && new.passes(PATIENCE));
    assert!(!is_new(&mut kernel));

    // Of the pod itself, which is announced again, and listed when the agent connects again.
    connected.start(&sandbox("db", DB)).unwrap();
    drop(connected);
    let mut connected = accept(&runtime, &[sandbox("db", DB)]);
    let log = agent.until("connected to the container runtime");
    assert!(log.contains("programmed pod before its start") && !log.contains(DELETED), "{log}");
    assert!(new.passes(PATIENCE) && !is_new(&mut kernel));

    // A pod to which no policy applies.
    connected.start(&described("other", "/run/netns/y", &[OTHER])).unwrap();
    let log = agent.until("programmed pod before its start");
    assert!(log.contains("pod=\"shop/other\"") && !log.contains(DELETED), "{log}");
    agent.stop();
}

/// Older connections of the database can't be deleted, because the agent gets no file descriptor. It has started.
struct Undeleted {
    stage: Stage,
    runtime: Offered,
    agent: Running,
    connected: Connected,
    node: Kernel,
    old: Stream,
    new: Stream,
    started: Instant,
}

impl Undeleted {
    fn new() -> Self {
        let (stage, runtime, agent, mut connected) = ready(&[]);
        let mut old = Stream::open(&stage, "other", ("db", DB));
        assert!(old.passes(PATIENCE));
        limit_files(&agent, 0);
        let started = Instant::now();
        connected.start(&sandbox("db", DB)).unwrap();
        agent.until("cannot delete connections that are older than the pods that start");
        let mut new = Stream::allowed(&stage);
        assert!(!old.passes(SOON) && new.passes(PATIENCE) && !stage.answers("other", "db:5432"));
        let node = stage.in_pod("node/n1").kernel();
        let mut undeleted = Self { stage, runtime, agent, connected, node, old, new, started };
        assert!(denied(&mut undeleted.node) == 1 && is_new(&mut undeleted.node));
        undeleted
    }

    fn until_deleted(&mut self) {
        until_deleted(&mut self.node);
        let begin = Instant::now();
        while is_new(&mut self.node) {
            assert!(begin.elapsed() < PATIENCE, "the pod still counts as new");
        }
        assert!(!self.old.passes(SOON) && self.new.passes(PATIENCE));
    }
}

fn limit_files(agent: &Running, files: u32) {
    let words = ["--pid", &agent.child.id().to_string(), &format!("--nofile={files}:")];
    run(std::process::Command::new("prlimit").args(words), 0);
}

#[test]
fn older_connections_that_can_not_be_deleted_are_dropped_until_they_are() {
    let mut pod = Undeleted::new();
    limit_files(&pod.agent, 1024);
    pod.until_deleted();
    pod.agent.stop();
}

#[test]
fn an_agent_deletes_the_older_connections_that_the_one_before_has_left() {
    let mut pod = Undeleted::new();
    pod.agent.signal(nix::sys::signal::Signal::SIGKILL);
    pod.agent.child.wait().unwrap();
    assert!(!pod.old.passes(SOON) && pod.new.passes(PATIENCE), "while there is no agent");
    drop(pod.connected);
    pod.agent = agent(&pod.stage, &pod.runtime, &[]);
    pod.connected = accept(&pod.runtime, &[sandbox("db", DB)]);
    pod.until_deleted();
    pod.agent.stop();
}

#[test]
fn a_pod_that_has_ended_has_no_older_connections() {
    let mut pod = Undeleted::new();
    pod.connected.call("StopPodSandbox", &field(1, sandbox("db", DB))).unwrap().unwrap();
    let begin = Instant::now();
    while is_new(&mut pod.node) {
        assert!(begin.elapsed() < PATIENCE, "the pod still counts as new");
    }
    assert_eq!(denied(&mut pod.node), 1, "not because they are deleted");
    pod.agent.stop();
}

/// The end of its sandbox was not announced: the agent was not connected.
#[test]
fn a_pod_that_the_runtime_no_longer_lists_has_no_older_connections() {
    // Then the agent tries again to delete them. On a busy machine that may come first.
    const NEXT_TRY: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    loop {
        let mut pod = Undeleted::new();
        limit_files(&pod.agent, 1024);
        drop(pod.connected);
        let _connected = accept(&pod.runtime, &[]);
        while is_new(&mut pod.node) {
            assert!(begin.elapsed() < 3 * PATIENCE, "the pod still counts as new");
        }
        let left = denied(&mut pod.node);
        let is_in_time = pod.started.elapsed() < NEXT_TRY;
        pod.agent.stop();
        if is_in_time {
            assert_eq!(left, 1, "not because another try has deleted them");
            break;
        }
        assert!(begin.elapsed() < 3 * PATIENCE, "the agent always tries again first");
    }
}

#[test]
fn packets_that_wait_for_a_pods_hardware_address_are_dropped_before_it_starts() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let shell = |at: &str, script: &str| {
        let mut command = crate::stage::palisade(stage.dir.path());
        run(command.args(["lab", "exec", at, "--", "bash", "-c", script]), 0)
    };
    // Datagrams that a pod has received at a port that nothing listens to: the third number of the second line of "Udp:".
    let received = |pod: &str| -> u32 {
        let counters = shell(pod, "cat /proc/net/snmp");
        let numbers = counters.lines().rfind(|line| line.starts_with("Udp: ")).unwrap();
        numbers.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let answer_requests_for_addresses = |yes: bool| {
        let value = if yes { "0" } else { "8" };
        let script = format!("echo {value} >/proc/sys/net/ipv4/conf/all/arp_ignore");
        for pod in ["shop/db", "shop/web"] {
            shell(pod, &script);
        }
    };
    // The node asks once a second, and gives up after a minute instead of three seconds.
    shell("node/n1", "for n in /proc/sys/net/ipv4/neigh/*/mcast_solicit; do echo 60 >$n; done");
    stage.in_pod("node/n1").forget_neighbors();
    answer_requests_for_addresses(false);
    shell("shop/other", "for pod in 1 2; do echo x >/dev/udp/10.244.7.$pod/9999; done");

    connected.start(&sandbox("db", DB)).unwrap();
    agent.until("programmed pod before its start");
    answer_requests_for_addresses(true);
    let begin = Instant::now();
    while received("shop/web") == 0 {
        assert!(begin.elapsed() < PATIENCE, "the node has kept nothing for the pod that no policy selects");
    }
    assert!(stage.answers("web", "db:5432"));
    assert_eq!(received("shop/db"), 0);
    agent.stop();
}

#[test]
fn addresses_that_the_runtime_does_not_report_are_read_from_the_pods_network_namespace() {
    let (stage, runtime, agent, mut connected) = ready(&[]);
    let in_pod = stage.in_pod("shop/db");
    let database = sandbox_without_addresses("db", &in_pod.namespace());
    connected.start(&database).unwrap();
    assert!(agent.until("programmed pod before its start").contains("pod=\"shop/db\""));
    assert!(!stage.answers("other", "db:5432"));
    assert!(stage.answers("web", "db:5432"));

    // A list without addresses says that the pod still exists.
    drop(connected);
    let mut connected = accept(&runtime, std::slice::from_ref(&database));
    agent.until("connected to the container runtime");
    assert!(!stage.answers("other", "db:5432"));

    connected.call("StopPodSandbox", &field(1, database)).unwrap().unwrap();
    stage.until_answers("other", "db:5432", true);
    agent.stop();
}

#[test]
fn a_pod_with_an_address_of_the_node_is_on_the_host_network() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let address = stage.in_pod("node/n1").run(|| {
        let to_pod = UdpSocket::bind("0.0.0.0:0").unwrap();
        to_pod.connect((DB, 9)).unwrap();
        to_pod.local_addr().unwrap().ip().to_string()
    });
    connected.start(&described("db", "/run/netns/x", &[&address])).unwrap();
    assert!(run(&mut stage.node(&["status"]), 0).contains("2 pods"), "the other two");
    connected.start(&sandbox("db", DB)).unwrap();
    assert!(run(&mut stage.node(&["status"]), 0).contains("3 pods"));
    agent.stop();
}

#[test]
fn a_static_pod_is_that_of_its_mirror() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let all = std::fs::read_to_string(stage.dir.path().join("lab/pods.yaml")).unwrap();
    let labels = &[("app", "other")];
    let (network_namespace, addresses) = ("/run/netns/x", &[DB][..]);
    let sandbox = Sandbox { pod: ("shop", "db"), uid: UID, labels, network_namespace, addresses };
    connected.start(&sandbox.encode()).unwrap();
    assert!(stage.answers("other", "db:5432"), "by the runtime's labels no policy selects it");

    // Another pod of that name lends it no labels; its mirror does.
    let with = |metadata: &str| all.replace("name: db,", &format!("name: db, {metadata},"));
    stage.write("pods.yaml", &with("uid: 11111111-5b43-4d3c-9f2c-0123456789ab"));
    stage.until_node_says(&["status"], "3 pods");
    assert!(stage.answers("other", "db:5432"));
    let mirror = format!("annotations: {{kubernetes.io/config.mirror: {UID}}}");
    stage.write("pods.yaml", &with(&format!("uid: 22222222-5b43-4d3c-9f2c-0123456789ab, {mirror}")));
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));
    agent.stop();
}

#[test]
fn pods_of_a_lost_runtime_stay_isolated_and_its_list_is_taken_when_it_is_back() {
    let (stage, runtime, agent, mut connected) = ready(&[]);
    connected.start(&sandbox("db", DB)).unwrap();
    drop(connected);
    agent.until("lost the connection to the container runtime");
    assert!(!stage.answers("other", "db:5432"));

    let connected = accept(&runtime, &[sandbox("db", DB)]);
    agent.until("connected to the container runtime");
    assert!(!stage.answers("other", "db:5432"));
    drop(connected);
    drop(accept(&runtime, &[]));
    stage.until_answers("other", "db:5432", true);

    // An agent that starts while the pod runs.
    agent.stop();
    let again = self::agent(&stage, &runtime, &[]);
    let _connected = accept(&runtime, &[sandbox("db", DB)]);
    again.until("agent is ready");
    stage.until_answers("other", "db:5432", false);
    assert!(stage.answers("web", "db:5432"));
}

#[test]
fn without_policies_a_pod_starts_closed_or_as_it_is_and_the_runtime_waits_for_a_bounded_time() {
    for how in ["closed", "open"] {
        let stage = Stage::new();
        stage.write("policy.yaml", &policy("web"));
        stage.write("broken.yaml", "kind: [");
        let runtime = offer(&stage);
        let agent = agent(&stage, &runtime, &[&format!("--pod-start={how}")]);
        let mut connected = accept(&runtime, &[]);
        agent.until("connected to the container runtime");
        let waited = connected.start(&sandbox("db", DB)).unwrap();
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        let phrase = if how == "open" { "pod starts before it is isolated" } else { "pod starts closed" };
        assert!(agent.until(phrase).contains("shop/db"));
        assert_eq!(stage.answers("web", "db:5432"), how == "open");
        assert!(stage.answers("web", "other:80"), "another pod");

        stage.write("broken.yaml", "");
        agent.until("agent is ready");
        stage.until_answers("web", "db:5432", true);
        assert!(!stage.answers("other", "db:5432"));
        agent.stop();
    }
}

//! Pods that a container runtime announces by NRI, with real packets. The runtime is played.

use std::time::{Duration, Instant};

use palisade_nft::{
    Kernel,
    conntrack::{self, Revocation},
};
use palisade_testkit::runtime::{Sandbox, field};

use crate::{
    played_runtime::{
        DB, OTHER, UID, accept, agent, connection, denied_entries, described, offer, ready, ready_with,
        sandbox, sandbox_without_addresses, without_database,
    },
    stage::{PATIENCE, Running, Stage, policy},
};

#[test]
fn an_announced_pod_is_isolated_when_the_runtime_gets_its_answer() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let all = std::fs::read_to_string(stage.dir.path().join("lab/pods.yaml")).unwrap();
    assert!(stage.answers("other", "db:5432"), "nobody knows the pod");

    // As network plugins do, the lab has set the pod's hardware address on the node for good. That stays, or the pod could not be reached.
    let no_answers = "echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore";
    let mut command = crate::stage::palisade(stage.dir.path());
    crate::stage::run(command.args(["lab", "exec", "shop/db", "--", "bash", "-c", no_answers]), 0);

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

/// Of the last owner of the database's address: from and to it, allowed and denied.
fn older_connections(stage: &Stage) -> [Running; 3] {
    let database = format!("{DB}/5432");
    [("web", &*database), ("other", &*database), ("db", &format!("{OTHER}/80"))]
        .map(|(from, to)| connection(stage, from, to))
}

/// How many of the node's connections to the database are of the pod that its policy denies. Of others, a packet that arrives later may begin
/// one again.
fn denied(kernel: &mut Kernel) -> usize {
    denied_entries(kernel).len()
}

#[test]
fn connections_that_are_older_than_a_pod_are_deleted_before_its_first_container_starts() {
    const DELETED: &str = "deleted connections that are older than the pods that start";
    let (stage, runtime, agent, mut connected) = ready(&[]);
    let _old = older_connections(&stage);
    let mut kernel = stage.in_pod("node/n1").kernel();
    assert_eq!(denied(&mut kernel), 1);
    connected.start(&sandbox("db", DB)).unwrap();
    connected.start_container(&sandbox("db", DB)).unwrap();
    assert_eq!(denied(&mut kernel), 0, "the container runs");
    let log = agent.until(DELETED);
    let deleted = log.lines().last().unwrap_or_default();
    let count = deleted.split("connections=").nth(1).and_then(|rest| rest.split_whitespace().next());
    assert!(count.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count >= 3), "{deleted}");

    // Of the pod itself, which is announced again, and listed when the agent connects again.
    let _own = connection(&stage, "web", &format!("{DB}/5432"));
    connected.start(&sandbox("db", DB)).unwrap();
    connected.start_container(&sandbox("db", DB)).unwrap();
    drop(connected);
    let mut connected = accept(&runtime, &[sandbox("db", DB)]);
    let log = agent.until("connected to the container runtime");
    assert!(log.contains("programmed pod before its start") && !log.contains(DELETED), "{log}");

    // A pod to which no policy applies.
    connected.start(&described("other", "/run/netns/y", &[OTHER])).unwrap();
    let log = agent.until("programmed pod before its start");
    assert!(log.contains("pod=\"shop/other\"") && !log.contains(DELETED), "{log}");
    // Of a pod that the agent doesn't know.
    connected.start_container(&field(1, "none of ours")).unwrap();
    agent.stop();
}

#[test]
fn a_pod_that_is_announced_again_still_waits_for_the_deletion_of_older_connections() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let _old = older_connections(&stage);
    let node = stage.in_pod("node/n1");
    let mut kernel = node.kernel();
    let denied = denied_entries(&mut kernel).remove(0);
    // The listing of as many takes longer than the announcements.
    node.open_connections(150_000);
    connected.start(&sandbox("db", DB)).unwrap();
    connected.start(&sandbox("db", DB)).unwrap();
    connected.start_container(&sandbox("db", DB)).unwrap();
    let found = conntrack::revoke(&mut kernel, &denied).unwrap();
    assert_eq!(found, Revocation::Gone, "the container runs");
    agent.stop();
}

#[test]
fn a_runtime_that_starts_refused_containers_waits_with_the_sandbox_for_the_deletion_of_older_connections() {
    let (stage, _runtime, agent, mut connected) = ready_with("cri-o", &[]);
    let _old = older_connections(&stage);
    let mut kernel = stage.in_pod("node/n1").kernel();
    assert_eq!(denied(&mut kernel), 1);
    connected.start(&sandbox("db", DB)).unwrap();
    assert_eq!(denied(&mut kernel), 0, "the runtime goes on");
    connected.start_container(&sandbox("db", DB)).unwrap();
    agent.stop();
}

#[test]
fn packets_that_wait_for_a_pods_hardware_address_are_dropped_before_it_starts() {
    let (stage, _runtime, agent, mut connected) = ready(&[]);
    let shell = |at: &str, script: &str| {
        let mut command = crate::stage::palisade(stage.dir.path());
        crate::stage::run(command.args(["lab", "exec", at, "--", "bash", "-c", script]), 0)
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
fn a_pod_whose_older_connections_take_too_long_to_delete_starts_closed_until_they_are_reviewed() {
    // As long as the agent reserves for its answer: no time is left for anything else.
    let (stage, _runtime, agent, mut connected) = ready_with("cri-o", &["--pod-start-timeout=150"]);
    let _old = connection(&stage, "other", &format!("{DB}/5432"));
    let begin = Instant::now();
    // On a busy machine even the answer takes longer. The kubelet tries again.
    while let Err(error) = connected.start(&sandbox("db", DB)) {
        assert!(begin.elapsed() < PATIENCE, "{error}");
    }
    let line = agent.until("pod starts closed").lines().last().unwrap_or_default().to_owned();
    assert!(line.contains("shop/db") && line.contains("older than the pod could not be deleted"), "{line}");
    stage.until_answers("web", "db:5432", true);
    assert!(!stage.answers("other", "db:5432"));
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
        let phrase = if how == "open" { "pod starts before its policies" } else { "pod starts closed" };
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

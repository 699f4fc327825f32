//! Egress by name with packets: pods, a node with the agent as a process, and an outside with DNS servers. Needs permission to create
//! namespaces, and the program `nft`; without them the test fails.
//!
//! `PALISADE_LOOKUPS` sets the number of lookups that are followed by a connection.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and prints what it saw"
)]

mod agent;
mod client;
mod messages;
mod outside;
mod topology;

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};

use self::{
    agent::Agent,
    client::{Client, WAYS},
    outside::Next,
    topology::{Nodes, server},
};

/// How many lookups are followed by a connection, in both families together.
const LOOKUPS: usize = 2400;
/// Less than the time after which a first packet that was dropped is sent again, so that a race is seen.
const AT_ONCE: Duration = Duration::from_millis(900);
/// How long to wait for what must not come.
const SILENCE: Duration = Duration::from_millis(250);
/// How long to wait for the agent on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The arguments of the agent, as lines. Set: this process is the agent.
const AGENT: &str = "PALISADE_TEST_AGENT";

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.7.2, podIPs: [{ip: 10.244.7.2}, {ip: "fd00:7::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bridged, namespace: shop, labels: {app: bridged}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.8.2, podIPs: [{ip: 10.244.8.2}, {ip: "fd00:8::2"}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - name: dns
    action: Accept
    to: [{networks: [203.0.113.2/32, 169.254.20.10/32, "2001:db8::2/128"]}]
    protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}, {udp: {destinationPort: {number: 5353}}}, {tcp: {destinationPort: {number: 5353}}}]
  - name: names
    action: Accept
    to: [{domainNames: ["*.example.com"]}]
    protocols: [{tcp: {destinationPort: {number: 443}}}]
  - name: nothing-else
    action: Deny
    to: [{networks: [0.0.0.0/0, "::/0"]}]
"#;

/// A Service by which a tenant could answer for a DNS server.
const TAKEN: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: tenant}
spec: {clusterIP: 10.96.7.7, externalIPs: [203.0.113.2], ports: [{port: 53, protocol: UDP}]}
"#;

/// A policy that is added meanwhile.
const MORE: &str = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {}}]}]
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn main() {
    if std::env::args().any(|word| word == "--list") {
        println!("names: test");
        return;
    }
    if let Ok(words) = std::env::var(AGENT) {
        return agent::run(&words);
    }
    let lookups = std::env::var("PALISADE_LOOKUPS").map_or(LOOKUPS, |text| text.parse().expect("a number"));
    enter();
    let nodes = topology::build(lookups);
    let next = outside::serve(&nodes);
    let dir = tempfile::TempDir::new().unwrap();
    write_manifests(dir.path(), MANIFESTS);
    scenario(&nodes, &next, dir.path(), lookups);
    println!("test names ... ok");
}

/// Moves the process to a new user and network namespace, before its first thread starts.
fn enter() {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("this test needs user namespaces");
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
}

/// Replaces the manifests that the agent watches, at once.
fn write_manifests(dir: &Path, text: &str) {
    fs::create_dir_all(dir.join("manifests")).unwrap();
    fs::write(dir.join("new.yaml"), text).unwrap();
    fs::rename(dir.join("new.yaml"), dir.join("manifests/all.yaml")).unwrap();
}

fn scenario(nodes: &Nodes, next: &Next, dir: &Path, lookups: usize) {
    let start_with = |more: &[&str]| nodes.node.run(|| Agent::start(dir, more)).unwrap();
    let start = || start_with(&[]);
    let mut clients: Vec<Client<'_>> = WAYS.iter().map(|way| Client::new(nodes, way)).collect();
    // No answer contains this address.
    let never = server(0, lookups + 99);
    clients[0].enter();
    until_connects(never, true);
    let running = start();
    until_connects(never, false);
    let first = clients[0].ask_patiently("first.example.com");
    let mut kept = TcpStream::connect_timeout(&SocketAddr::new(first, 443), AT_ONCE).unwrap();
    let share = lookups / clients.len();
    let half = clients.len() / 2;
    clients[..half].iter_mut().for_each(|client| lookups_and_connections(client, share, next));

    // A policy is added, and the agent restarts.
    write_manifests(dir, &format!("{MANIFESTS}{MORE}"));
    clients[half].enter();
    clients[half].ask_patiently("changed.example.com");
    running.stop();
    let running = start();
    clients[half].ask_patiently("restarted.example.com");
    clients[half..].iter_mut().for_each(|client| lookups_and_connections(client, share, next));
    let (asked, again): (usize, usize) =
        clients.iter().fold((0, 0), |sum, c| (sum.0 + c.asked, sum.1 + c.asked_again));
    println!("{asked} lookups, each followed by a connection; {again} were asked again");
    clients[0].enter();
    truncated_answers(&mut clients[0]);
    let other = clients[0].ask("www.example.org", 0).unwrap();
    assert!(!connects(other, SILENCE), "no rule has this name");

    // Without an agent nothing is answered, and what was learned stays allowed.
    running.stop();
    assert_eq!(clients[0].ask("later.example.com", 0), None, "fails closed");
    assert_eq!(clients[1].ask("later.example.com", 0), None, "fails closed");
    assert!(connects(first, AT_ONCE));
    // Or everything is answered, and nothing more is allowed.
    let running = start_with(&["--dns-fail=open"]);
    clients[0].ask_patiently("open.example.com");
    running.kill();
    for client in &mut clients[..2] {
        let address = client.ask("away.example.com", 0).expect("fails open");
        assert!(!connects(address, SILENCE), "not learned");
    }
    assert!(connects(first, AT_ONCE));
    let running = start_with(&["--dns-fail=open"]);
    // Until the agent reads, answers pass unread.
    clients[..2].iter_mut().for_each(|client| until_learned(client, "back.example.com"));
    running.kill();
    let running = start();
    until_learned(&mut clients[0], "closed.example.com");
    clients[1].connect("before.example.com");
    running.kill();
    assert_eq!(clients[0].ask("later.example.com", 0), None, "fails closed again");
    let running = start();
    let later = clients[0].ask_patiently("later.example.com");
    assert!(connects(later, AT_ONCE));
    let failed = clients[1].fail_on_connection("after.example.com");
    assert_eq!(failed, ErrorKind::ConnectionReset, "the agent has not seen its beginning");
    assert!(connects(first, AT_ONCE), "learned before the restart");
    kept.write_all(b"x").unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.read_exact(&mut [0]).expect("the connection has survived");
    assert!(!connects(other, SILENCE));
    assert!(!connects(never, SILENCE));
    answers_of_a_taken_server(&mut clients[0], dir, never);
    // Another program removes the table: it comes back, and answers wait again.
    let removed =
        nodes.node.run(|| Command::new("nft").args(["delete", "table", "inet", "palisade_dns"]).status());
    assert!(removed.unwrap().unwrap().success());
    until_learned(&mut clients[0], "restored.example.com");
    running.stop();
}

/// Asks for names, and connects to each address that is answered, at once. Addresses that were not answered are out of reach.
fn lookups_and_connections(client: &mut Client<'_>, lookups: usize, next: &Next) {
    client.enter();
    for number in 0..lookups {
        let family = number % 2;
        if number % 100 < 2 {
            let unknown = server(family, next[family].load(Ordering::SeqCst).into());
            assert!(!connects(unknown, SILENCE), "{unknown} was not answered");
        }
        // Some answers are as long as they can be, and then TCP is used.
        let size = if number % 50 < 2 { "big" } else { "n" };
        // Each name has several addresses in turn. A pod can teach 2,000 names.
        let name = format!("{size}{}.{}.example.com", number % 100, client.way.name);
        let address = client.resolve(&name, family);
        assert!(connects(address, AT_ONCE), "{address}, the answer for {name} by {:?}", client.way);
    }
}

/// While a Service of a tenant has the address of a server, nothing is learned from it. Others' answers still are.
fn answers_of_a_taken_server(client: &mut Client<'_>, dir: &Path, never: IpAddr) {
    write_manifests(dir, &format!("{MANIFESTS}{TAKEN}"));
    let begin = Instant::now();
    while connects(client.ask_patiently("taken.example.com"), SILENCE) {
        assert!(begin.elapsed() < PATIENCE, "its answers are still learned");
        std::thread::sleep(SILENCE);
    }
    assert!(!connects(never, SILENCE));
    write_manifests(dir, MANIFESTS);
    until_learned(client, "given-back.example.com");
}

/// What a truncated answer doesn't contain is learned from the answer over TCP.
fn truncated_answers(client: &mut Client<'_>) {
    for family in [0, 1] {
        assert_eq!(client.ask("big.example.com", family), None, "truncated");
        let address = client.resolve("big.example.com", family);
        assert!(connects(address, AT_ONCE));
    }
}

/// Waits until an address can be reached, or with `wanted` false several times can't.
fn until_connects(address: IpAddr, wanted: bool) {
    let (begin, mut seen) = (Instant::now(), 0);
    while seen < if wanted { 1 } else { 3 } {
        assert!(begin.elapsed() < PATIENCE, "{address}: not {wanted}");
        seen = if connects(address, AT_ONCE) == wanted { seen + 1 } else { 0 };
    }
}

/// Asks until the answered address can be reached.
fn until_learned(client: &mut Client<'_>, name: &str) {
    let begin = Instant::now();
    while !connects(client.ask_patiently(name), AT_ONCE) {
        assert!(begin.elapsed() < PATIENCE, "{name} is not learned");
    }
}

fn connects(address: IpAddr, patience: Duration) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, 443), patience).is_ok()
}

//! What DNS costs through the agent: the latency of a lookup, queries in a second and their CPU time, memory for names and addresses. The
//! agent is a process, as in the test `names`, and the packets are real.
//!
//! Runs in a new user and network namespace, without root, but with the program `nft`. Asserts no times.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that panics has failed, and prints what it measured"
)]

#[expect(dead_code, reason = "the test needs more of it")]
#[path = "../tests/names/agent.rs"]
mod agent;
#[expect(dead_code, reason = "the test needs more of it")]
#[path = "../tests/names/messages.rs"]
mod messages;
#[expect(dead_code, reason = "the test needs more of it")]
#[path = "../tests/names/topology.rs"]
mod topology;

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{SysconfVar, getgid, getuid, sysconf},
};
use palisade_netns::{
    Namespace,
    rtnetlink::{Netlink, Route},
};

use self::{agent::Agent, topology::Nodes};

/// The arguments of the agent, as lines. Set: this process is the agent.
const AGENT: &str = "PALISADE_TEST_AGENT";
/// Each may send 1,000 queries in a second.
const PODS: u8 = 24;
const LOOKUPS: u32 = 4_000;
/// How long queries are sent, and how many each pod sends every 10 ms.
const LOAD: Duration = Duration::from_secs(5);
const BATCH: u32 = 8;
const NAMES: u32 = 5_000;
const ADDRESSES_OF_NAME: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(2);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn main() {
    if let Ok(words) = std::env::var(AGENT) {
        return agent::run(&words);
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("user namespaces");
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    let nodes = topology::build(0);
    add_pods(&nodes);
    serve(&nodes.outside);
    let dir = tempfile::TempDir::new().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    fs::write(dir.path().join("manifests/all.yaml"), manifests()).unwrap();
    let clients = clients(&nodes);
    let alone = latency(&clients, |_| "same".to_owned());
    println!("latency of a lookup without an agent: median {alone:?}");
    let running = nodes.node.run(|| Agent::start(dir.path(), &["--log-level=warn"])).unwrap();
    until_answered(&clients[0]);
    measure(&clients, running.0.id(), dir.path());
}

fn measure(clients: &[UdpSocket], agent: u32, dir: &Path) {
    let known = latency(clients, |_| "same".to_owned());
    println!("with an agent, known addresses: median {known:?}");
    let fresh = latency(clients, |number| format!("rotating{}", number % 500));
    println!("with an agent, new addresses, which wait for a commit: median {fresh:?}");
    let (answered, cpu) = load(clients, agent, |_| "same".to_owned());
    println!("known addresses: {answered:.0} answers/s, {cpu:.2} cores");
    let before = memory(agent);
    let mut learned = 0;
    for number in 0..NAMES {
        let client = &clients[number as usize % clients.len()];
        learned += u32::from(ask(client, number as u16, &format!("many{number}")));
    }
    println!(
        "{learned} names with {ADDRESSES_OF_NAME} addresses each: {before} before, {} after",
        memory(agent)
    );
    // It is written every few seconds.
    thread::sleep(Duration::from_secs(6));
    let file = fs::metadata(dir.join("state/learned-names")).map_or(0, |file| file.len());
    println!("file of learned names: {file} bytes; {} after it was written", memory(agent));
    let (answered, cpu) = load(clients, agent, |number| format!("rotating{}", number % 500));
    println!("new addresses beside these: {answered:.0} answers/s, {cpu:.2} cores");
}

/// Returns what the agent needs, from its beginning to now.
fn memory(agent: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let line = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    format!("{} (at most {})", line("VmRSS:"), line("VmHWM:"))
}

/// Returns the median of lookups one after the other.
fn latency(clients: &[UdpSocket], name: impl Fn(u32) -> String) -> Duration {
    let mut times: Vec<Duration> = (0..LOOKUPS)
        .filter_map(|number| {
            let client = &clients[number as usize % clients.len()];
            let begin = Instant::now();
            ask(client, number as u16, &name(number)).then(|| begin.elapsed())
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Sends queries of all pods at a fixed rate. Returns the answers in a second, and the share of a core that the agent needed.
fn load(clients: &[UdpSocket], agent: u32, name: impl Fn(u32) -> String + Sync) -> (f64, f64) {
    let (begin, before) = (Instant::now(), cpu(agent));
    let name = &name;
    let answered: u32 = thread::scope(|scope| {
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(move || send(client, name))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let seconds = begin.elapsed().as_secs_f64();
    (f64::from(answered) / seconds, (cpu(agent) - before) / seconds)
}

fn send(client: &UdpSocket, name: impl Fn(u32) -> String) -> u32 {
    let (begin, mut answered, mut sent) = (Instant::now(), 0, 0);
    client.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1500];
    while begin.elapsed() < LOAD {
        for _ in 0..BATCH {
            _ = client.send(&query(sent as u16, &name(sent)));
            sent += 1;
        }
        thread::sleep(Duration::from_millis(10));
        while client.recv(&mut buffer).is_ok() {
            answered += 1;
        }
    }
    client.set_nonblocking(false).unwrap();
    answered
}

/// Returns the seconds of CPU time that a process has used.
fn cpu(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // The fields utime and stime are the 14th and 15th; the first two end with the name.
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap_or(100) as f64
}

fn query(id: u16, label: &str) -> Vec<u8> {
    messages::query(id.to_be_bytes(), &format!("{label}.example.com"), 0)
}

/// Asks for a name. Returns whether there was an answer.
fn ask(client: &UdpSocket, id: u16, label: &str) -> bool {
    client.send(&query(id, label)).unwrap();
    let mut buffer = [0; 1500];
    while client.recv(&mut buffer).is_ok() {
        if buffer[..2] == id.to_be_bytes() {
            return true;
        }
    }
    false
}

fn until_answered(client: &UdpSocket) {
    // The table exists once an answer waits: then it is of a name of a rule, and was learned.
    thread::sleep(Duration::from_secs(5));
    let begin = Instant::now();
    while !ask(client, 0, "begin") {
        assert!(begin.elapsed() < Duration::from_secs(60), "no answer");
    }
}

fn pod_address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 244, 9, number + 1).into()
}

/// Gives the pods' addresses to the routed pod's namespace.
fn add_pods(nodes: &Nodes) {
    let mut node = Netlink::open().unwrap();
    let mut pod = nodes.pod.run(|| Netlink::open().unwrap()).unwrap();
    for number in 0..PODS {
        node.route(&Route::to_host(pod_address(number), 10));
        pod.address(11, pod_address(number), false);
    }
    node.commit().unwrap();
    pod.commit().unwrap();
}

fn clients(nodes: &Nodes) -> Vec<UdpSocket> {
    let open = |number| {
        let socket = UdpSocket::bind((pod_address(number), 0)).unwrap();
        socket.connect("203.0.113.2:53").unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    };
    nodes.pod.run(|| (0..PODS).map(open).collect()).unwrap()
}

fn manifests() -> String {
    let mut out = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
    for number in 0..PODS {
        let address = pod_address(number);
        let status = format!("{{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}");
        writeln!(
            out,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: shop}}\nspec: {{nodeName: n1, \
             containers: [{{name: c, image: i}}]}}\nstatus: {status}"
        )
        .unwrap();
    }
    out + "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {name: dns, action: Accept, to: [{networks: [203.0.113.2/32]}], protocols: [{udp: {destinationPort: {number: 53}}}]}
  - {name: names, action: Accept, to: [{domainNames: [\"*.example.com\"]}]}
  - {name: nothing-else, action: Deny, to: [{networks: [0.0.0.0/0, \"::/0\"]}]}
"
}

/// Starts a server that answers with one address, with another one each time for names `rotating…`, or with several for names `many…`.
fn serve(outside: &Namespace) {
    let socket = outside.run(|| UdpSocket::bind("203.0.113.2:53").unwrap()).unwrap();
    thread::spawn(move || {
        let (mut buffer, mut next) = ([0; 512], 0x0d00_0000);
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let query = &buffer[..length];
            let label = String::from_utf8_lossy(&query[13..13 + usize::from(query[12])]).into_owned();
            let number: u32 = label.trim_start_matches(|c: char| c.is_alphabetic()).parse().unwrap_or(0);
            let (first, count) = match &label {
                many if many.starts_with("many") => {
                    (0x0c00_0000 + number * ADDRESSES_OF_NAME, ADDRESSES_OF_NAME)
                }
                rotating if rotating.starts_with("rotating") => (next, 1),
                _ => (0x0b00_0001, 1),
            };
            next += 1;
            let mut answer =
                [&query[..2], &[0x81, 0x80, 0, 1, 0, count as u8, 0, 0, 0, 0], &query[12..]].concat();
            for address in first..first + count {
                // A time to live of a quarter of an hour.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 3, 132, 0, 4]);
                answer.extend(address.to_be_bytes());
            }
            _ = socket.send_to(&answer, from);
        }
    });
}

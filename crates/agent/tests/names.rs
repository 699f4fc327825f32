//! Egress by name with packets: a pod, a node with the agent as a process, and an outside with a DNS server. Needs permission to create namespaces;
//! without it the test fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and prints what it saw"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Args as _, FromArgMatches as _};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid},
};
use palisade_agent::{config::Config, daemon};
use palisade_netns::{
    Namespace,
    namespace::set_sysctls,
    rtnetlink::{LinkEnd, Netlink, Route},
};

/// How many lookups are followed by a connection, in each family.
const LOOKUPS: [u16; 2] = [1500, 500];
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
    to: [{networks: [203.0.113.2/32]}]
    protocols: [{udp: {destinationPort: {number: 53}}}]
  - name: names
    action: Accept
    to: [{domainNames: ["*.example.com"]}]
    protocols: [{tcp: {destinationPort: {number: 443}}}]
  - name: nothing-else
    action: Deny
    to: [{networks: [0.0.0.0/0, "::/0"]}]
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The address of the server with a number.
fn server(family: usize, number: u16) -> IpAddr {
    match family {
        0 => Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 114, 0)) + u32::from(number)).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, number + 1).into(),
    }
}

fn main() {
    if std::env::args().any(|word| word == "--list") {
        println!("names: test");
        return;
    }
    if let Ok(words) = std::env::var(AGENT) {
        return agent(&words);
    }
    enter();
    let (pod, outside) = topology();
    let next = serve(&outside);
    let dir = tempfile::TempDir::new().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    fs::write(dir.path().join("manifests/all.yaml"), MANIFESTS).unwrap();
    let node = Namespace::current().unwrap();
    let start = || node.run(|| Agent::start(dir.path())).unwrap();
    pod.run(|| scenario(&start, &next)).unwrap();
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

/// What the pod does.
fn scenario(start: &(dyn Fn() -> Agent + Sync), next: &[AtomicU16; 2]) {
    let client = UdpSocket::bind("10.244.7.2:0").unwrap();
    client.connect("203.0.113.2:53").unwrap();
    // No answer contains this address.
    let never = server(0, LOOKUPS[0] + 99);
    until_connects(never, true);
    let running = start();
    until_connects(never, false);
    let first = lookup_patiently(&client, "first.example.com");
    let mut kept = TcpStream::connect_timeout(&SocketAddr::new(first, 443), AT_ONCE).unwrap();
    let mut asked = 0;
    for (family, lookups) in LOOKUPS.into_iter().enumerate() {
        for number in 0..lookups {
            if number % 100 == 0 {
                let unknown = server(family, next[family].load(Ordering::SeqCst));
                assert!(!connects(unknown, SILENCE), "{unknown} was not answered");
            }
            let name = format!("n{number}.example.com");
            let address =
                lookup(&client, &name, family).unwrap_or_else(|| lookup_again(&client, &name, family));
            assert!(connects(address, AT_ONCE), "{address}, the answer for {name}");
            asked += 1;
        }
    }
    println!("{asked} lookups, each followed by a connection");
    let other = lookup(&client, "www.example.org", 0).unwrap();
    assert!(!connects(other, SILENCE), "no rule has this name");

    // Without an agent nothing is answered, and what was learned stays allowed.
    running.stop();
    assert_eq!(lookup(&client, "later.example.com", 0), None, "fails closed");
    assert!(connects(first, AT_ONCE));
    let running = start();
    let later = lookup_patiently(&client, "later.example.com");
    assert!(connects(later, AT_ONCE));
    assert!(connects(first, AT_ONCE), "learned before the restart");
    kept.write_all(b"x").unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.read_exact(&mut [0]).expect("the connection has survived");
    assert!(!connects(other, SILENCE));
    assert!(!connects(never, SILENCE));
    running.stop();
}

/// Waits until an address can be reached, or with `wanted` false several times can't.
fn until_connects(address: IpAddr, wanted: bool) {
    let (begin, mut seen) = (Instant::now(), 0);
    while seen < if wanted { 1 } else { 3 } {
        assert!(begin.elapsed() < PATIENCE, "{address}: not {wanted}");
        seen = if connects(address, AT_ONCE) == wanted { seen + 1 } else { 0 };
    }
}

fn connects(address: IpAddr, patience: Duration) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, 443), patience).is_ok()
}

fn lookup_patiently(client: &UdpSocket, name: &str) -> IpAddr {
    let begin = Instant::now();
    loop {
        if let Some(address) = lookup(client, name, 0) {
            return address;
        }
        assert!(begin.elapsed() < PATIENCE, "no answer");
    }
}

/// As resolvers do when an answer is late.
fn lookup_again(client: &UdpSocket, name: &str, family: usize) -> IpAddr {
    lookup(client, name, family).unwrap_or_else(|| panic!("no answer for {name}"))
}

/// Asks for the address of a name, once.
fn lookup(client: &UdpSocket, name: &str, family: usize) -> Option<IpAddr> {
    static ID: AtomicU16 = AtomicU16::new(0);
    let id = ID.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let mut query = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, if family == 0 { 1 } else { 28 }, 0, 1]);
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send(&query).unwrap();
    let mut buffer = [0; 512];
    loop {
        let length = client.recv(&mut buffer).ok()?;
        if buffer[..2] == id {
            let address = &buffer[..length];
            return Some(match family {
                0 => IpAddr::from(*address.last_chunk::<4>().unwrap()),
                _ => IpAddr::from(*address.last_chunk::<16>().unwrap()),
            });
        }
    }
}

/// Starts the outside's DNS server, which answers each query with another address and a time to live of one second, and a server at every
/// address, which returns what it gets. Returns the next addresses.
fn serve(outside: &Namespace) -> Arc<[AtomicU16; 2]> {
    let next = Arc::new([AtomicU16::new(0), AtomicU16::new(0)]);
    let (dns, all) = outside
        .run(|| {
            // Of both families: mapped addresses are IPv4.
            (UdpSocket::bind("203.0.113.2:53").unwrap(), TcpListener::bind("[::]:443").unwrap())
        })
        .unwrap();
    let counter = Arc::clone(&next);
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = dns.recv_from(&mut buffer).unwrap();
            let question = &buffer[12..length];
            let family = usize::from(question[question.len() - 3] == 28);
            let address = server(family, counter[family].fetch_add(1, Ordering::SeqCst));
            let mut answer = [&buffer[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], question].concat();
            answer.extend([0xc0, 12, 0, if family == 0 { 1 } else { 28 }, 0, 1, 0, 0, 0, 1, 0]);
            match address {
                IpAddr::V4(a) => answer.extend([&[4][..], &a.octets()].concat()),
                IpAddr::V6(a) => answer.extend([&[16][..], &a.octets()].concat()),
            }
            _ = dns.send_to(&answer, from);
        }
    });
    thread::spawn(move || {
        for stream in all.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    next
}

/// Connects a pod and an outside to this namespace, the node.
fn topology() -> (Namespace, Namespace) {
    set_sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]).unwrap();
    let mut node = Netlink::open().unwrap();
    let (pod, mut in_pod) = Namespace::create(|| Netlink::open().unwrap()).unwrap();
    let (outside, mut outside_links) = Namespace::create(|| Netlink::open().unwrap()).unwrap();
    let end =
        |name: &str, index: u32| LinkEnd { name: name.into(), index, mac: [2, 0, 0, 0, 0, index as u8] };
    node.veth(&end("pod", 10), &end("eth0", 11), &pod);
    node.veth(&end("out", 20), &end("eth0", 21), &outside);
    node.commit().unwrap();
    let via = |to: (&str, u8), via: &str, link| Route {
        to: (ip(to.0), to.1),
        via: Some(ip(via)),
        link,
        source: None,
    };

    for (link, own, other) in [(10, "10.244.7.1", "10.244.7.2"), (20, "203.0.113.1", "203.0.113.2")] {
        node.address(link, ip(own), false).route(&Route::to_host(ip(other), link));
    }
    for (link, own, other) in [(10, "fd00:7::1", "fd00:7::2"), (20, "2001:db8::1", "2001:db8::2")] {
        node.address(link, ip(own), false).route(&Route::to_host(ip(other), link));
    }
    node.link_up(1).commit().unwrap();
    node.route(&via(("203.0.112.0", 20), "203.0.113.2", 20)).route(&via(
        ("2001:db8:5::", 64),
        "2001:db8::2",
        20,
    ));
    node.commit().unwrap();

    let sides = [
        (&mut in_pod, 11, ["10.244.7.2", "fd00:7::2"], ["10.244.7.1", "fd00:7::1"]),
        (&mut outside_links, 21, ["203.0.113.2", "2001:db8::2"], ["203.0.113.1", "2001:db8::1"]),
    ];
    for (links, link, own, gateway) in sides {
        links.link_up(1).link_up(link);
        for (own, gateway) in own.into_iter().zip(gateway) {
            let all = if own.contains(':') { "::" } else { "0.0.0.0" };
            links.address(link, ip(own), false).route(&Route::to_host(ip(gateway), link));
            links.route(&via((all, 0), gateway, link));
        }
        links.commit().unwrap();
    }
    for (family, lookups) in LOOKUPS.into_iter().enumerate() {
        for number in 0..lookups + 100 {
            outside_links.address(1, server(family, number), false);
        }
    }
    outside_links.commit().unwrap();
    (pod, outside)
}

/// The agent, as a process in the node's namespace.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let words = [
            "--node-name=n1".to_owned(),
            format!("--source=dir:{}", at("manifests")),
            format!("--socket={}", at("run/agent.sock")),
            format!("--state-dir={}", at("state")),
            "--listen=off".to_owned(),
            "--health-listen=off".to_owned(),
            "--domain-names=on".to_owned(),
            "--dns-resolver=203.0.113.2".to_owned(),
        ];
        let this = std::env::current_exe().unwrap();
        Self(Command::new(this).env(AGENT, words.join("\n")).spawn().unwrap())
    }

    fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn agent(words: &str) {
    let command = Config::augment_args(clap::Command::new("agent"));
    let config =
        Config::from_arg_matches(&command.get_matches_from(["agent"].into_iter().chain(words.lines())))
            .unwrap();
    fs::create_dir_all(config.socket.parent().unwrap()).unwrap();
    palisade_agent::log::start(config.log_format, config.log_level);
    let explain: daemon::Explain = Arc::new(|_, _, _, _| Err("not in this test".to_owned()));
    daemon::run(&config, explain, Arc::new(|_, _| Vec::new())).unwrap();
}

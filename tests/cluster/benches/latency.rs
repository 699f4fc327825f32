//! Measures the time from the request that creates a policy to the first packet that it drops:
//! `cargo bench -p palisade-cluster-tests`.
//!
//! The API server has thousands of pods and hundreds of policies, and the agents' nodes run two of the pods. A policy that
//! isolates one of them is created and deleted repeatedly, while packets are sent four times a millisecond, each a new connection. A
//! plain watch beside the agents measures the API server's part of the time.
//!
//! Then a container runtime announces pods that some of the policies select, by NRI and by the CNI plugin: how long each has to wait, on
//! a node with hardly any connections, with a thousand, and with many. And many policies are created at once: the agent's processor time and what it was
//! spent for are printed.
//!
//! PALISADE_BENCH_BASELINE=PROGRAM measures another `palisade` first, in the same run. It prints and asserts nothing.
//! PALISADE_BENCH_PODS, _POLICIES, _ROUNDS, _CONNECTIONS and _BURST change the sizes.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "latency/pod_starts.rs"]
mod pod_starts;

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use http::Request;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use palisade_cluster_tests::{
    World,
    agent::{AgentOptions, Metrics},
    confined, control_plane, crowd,
    world::{NODES, READY_WITHIN, key},
};
use palisade_lab::{Place, namespace::Namespace};
use palisade_nft::{Kernel, conntrack};
use palisade_testkit::runtime::Offered;
use serde_json::{Value, json};

fn main() -> ExitCode {
    confined(|sandbox| {
        let run = || -> Result<()> {
            let mut world = World::new(&sandbox)?;
            bench(&mut world).with_context(|| world.logs())
        };
        match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("error: {e:#}");
                ExitCode::FAILURE
            }
        }
    })
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(format!("PALISADE_BENCH_{name}")).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

const PODS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: bench}}
---
{apiVersion: v1, kind: Pod, metadata: {name: from, namespace: bench, labels: {app: from}},
 spec: {nodeName: w1, containers: [{name: main, image: example.com/none}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: to, namespace: bench, labels: {app: to}},
 spec: {nodeName: w2, containers: [{name: main, image: example.com/none}]}}
";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/bench/networkpolicies";

/// Isolates bench/to.
fn closing() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "bench"},
        "spec": {"podSelector": {"matchLabels": {"app": "to"}}, "policyTypes": ["Ingress"]},
    })
}

fn bench(world: &mut World) -> Result<()> {
    let (pods, policies, rounds) = (size("PODS", 5000), size("POLICIES", 500), size("ROUNDS", 200));
    let start = Instant::now();
    let plane = world.control();
    let (namespace, admin) = (plane.namespace().try_clone()?, plane.admin().to_owned());
    // Not through `request`, which has the timeout of a test.
    inside(&namespace, async || crowd::create(&control_plane::client(&admin).await?, pods, policies).await)?;
    world.apply(PODS)?;
    println!(
        "{pods} pods and {policies} policies after {:.1} s; {rounds} rounds",
        start.elapsed().as_secs_f64()
    );
    world.install()?;
    // The pods exist in the lab.
    world.settle()?;
    let packets = Packets::start(world)?;
    let plain = PlainWatch::start(namespace.try_clone()?, admin.clone())?;
    let folder = tempfile::tempdir()?;
    let baseline = std::env::var_os("PALISADE_BENCH_BASELINE").map(PathBuf::from);
    let programs = baseline.map(Some).into_iter().chain([None]);
    for program in programs {
        match &program {
            Some(path) => println!("\n== baseline: {}", path.display()),
            None => println!("\n== this version"),
        }
        // Another version may not have the option.
        let socket = folder.path().join("nri.sock");
        let offered = if program.is_none() { Some(Offered::at(&socket)?) } else { None };
        let mut runtime = None;
        let mut options =
            AgentOptions { kubeconfig: world.agent_kubeconfig()?, program, ..AgentOptions::default() };
        for node in NODES {
            let offered = offered.as_ref().filter(|_| node == "w2");
            options.more = offered.map(|o| vec!["--nri=on".to_owned(), o.option()]).unwrap_or_default();
            let agent = world.start_agent(node, &options)?;
            if let Some(offered) = offered {
                runtime = Some(offered.accept(&[], READY_WITHIN)?);
            }
            agent.wait_ready(READY_WITHIN)?;
        }
        world.settle()?;
        one_policy(world, (&namespace, &admin), (&packets, &plain), rounds)?;
        if let Some(runtime) = &mut runtime {
            for wanted in [0, 1_000, size("CONNECTIONS", 100_000)] {
                let connections = packets.open_connections(world, wanted)?;
                println!(
                    "\nhow long a pod waits for the agent, while the node tracks {connections} connections"
                );
                pod_starts::measure(world, runtime, (&namespace, &admin), rounds.div_ceil(4))?;
            }
        }
        many_policies(world, &namespace, &admin, size("BURST", 1000))?;
    }
    Ok(())
}

/// Measures from the request that creates a policy to the first dropped packet.
fn one_policy(
    world: &mut World,
    (namespace, admin): (&Namespace, &Path),
    (packets, plain): (&Packets, &PlainWatch),
    rounds: usize,
) -> Result<()> {
    let before = world.agent("w2")?.metrics()?;
    let (mut dropped, mut answered, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    inside(namespace, async || {
        let client = control_plane::client(admin).await?;
        for _ in 0..rounds {
            let sent = Instant::now();
            packets.begin();
            crowd::post(&client, POLICIES, closing()).await?;
            answered.push(sent.elapsed());
            dropped.push(packets.first_dropped()?.saturating_duration_since(sent));
            watched.push(plain.next_event()?.saturating_duration_since(sent));
            reopen(&client, packets, plain).await?;
        }
        Ok(())
    })?;
    println!("\nfrom the request that creates a policy");
    print("to its response", &mut answered);
    print("to its event in a plain watch (baseline)", &mut watched);
    print("to the first packet dropped", &mut dropped);

    let after = world.agent("w2")?.metrics()?;
    let name = "palisade_apply_latency_seconds";
    let (before, after) = (before.histogram(name), after.histogram(name));
    println!("\nthe agent's part of this, from the event to the commit in the kernel, from its histogram");
    for share in [0.5, 0.9, 0.99] {
        println!("  {:>4.0} %  at most {:.2} ms", share * 100.0, quantile(&before, &after, share) * 1000.0);
    }
    let (mut dropped, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..rounds.div_ceil(5) {
        let sent = Instant::now();
        packets.begin();
        world.apply(&closing().to_string())?;
        ended.push(sent.elapsed());
        dropped.push(packets.first_dropped()?.saturating_duration_since(sent));
        plain.next_event()?;
        inside(namespace, async || reopen(&control_plane::client(admin).await?, packets, plain).await)?;
    }
    println!("\nfrom the start of `kubectl apply`");
    print("to its end", &mut ended);
    print("to the first packet dropped", &mut dropped);
    Ok(())
}

/// Measures the processor time of an agent whose pod many policies select, created as fast as the API server accepts them.
fn many_policies(world: &mut World, namespace: &Namespace, admin: &Path, count: usize) -> Result<()> {
    const PARTS: [(&str, &str); 3] = [
        ("compiling", "palisade_compile_duration_seconds"),
        ("kernel transactions", "palisade_transaction_duration_seconds"),
        ("reviews of connections", "palisade_review_duration_seconds"),
    ];
    const KNOWN: &str = "palisade_policies{kind=\"NetworkPolicy\"}";
    let before = world.agent("w2")?.metrics()?;
    let begin = Instant::now();
    inside(namespace, async || crowd::burst(&control_plane::client(admin).await?, POLICIES, count).await)?;
    let posted = begin.elapsed();
    let known = before.get(KNOWN).unwrap_or(0.0) + count as f64;
    let all = |m: &Metrics| m.get(KNOWN) == Some(known);
    let after = world.agent("w2")?.wait_metric("all policies are known", TIMEOUT, all)?;
    // The review of the last change.
    thread::sleep(Duration::from_secs(1));
    let settled = world.agent("w2")?.metrics()?;
    let spent = |name: &str| settled.get(name).unwrap_or(0.0) - before.get(name).unwrap_or(0.0);
    println!("\n{count} policies of one pod, posted in {:.1} s", posted.as_secs_f64());
    println!(
        "  processor time of its agent: {:.2} s; {:.0} commits; known {:.0} ms after the last response",
        spent("process_cpu_seconds_total"),
        spent("palisade_commits_total{result=\"ok\"}"),
        (begin.elapsed().saturating_sub(posted).as_secs_f64() - 1.0) * 1000.0,
    );
    for (what, name) in PARTS {
        let (sum, times) = (spent(&format!("{name}_sum")), spent(&format!("{name}_count")));
        println!("  {what:<24} {times:>6.0} times, {sum:>6.2} s");
    }
    println!(
        "  resident memory: {:.1} MiB",
        after.get("process_resident_memory_bytes").unwrap_or(0.0) / f64::from(1 << 20)
    );
    world.kubectl("delete networkpolicies -n bench --all --wait=false")?;
    Ok(())
}

fn inside<T: Send>(namespace: &Namespace, f: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    namespace.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(f()))?
}

async fn reopen(client: &Client, packets: &Packets, plain: &PlainWatch) -> Result<()> {
    client.request::<Value>(Request::delete(format!("{POLICIES}/closed")).body(Vec::new())?).await?;
    plain.next_event()?;
    packets.until_open()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    println!(
        "  {what:<42} median {:7.2} ms   90 % {:7.2} ms   99 % {:7.2} ms   max {:7.2} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// Returns the upper bound of the bucket with this quantile of the added samples.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> f64 {
    let added = |i: usize| after[i].1 - before.get(i).map_or(0.0, |b| b.1);
    let Some(last) = after.len().checked_sub(1) else { return f64::NAN };
    let wanted = added(last) * share;
    (0..after.len()).find(|i| added(*i) >= wanted).map_or(f64::NAN, |i| after[i].0)
}

/// Numbered packets from one pod to the other, each from a new socket and so a new connection.
struct Packets {
    sending: Arc<AtomicBool>,
    /// The first number of this round, and when each packet of the round was sent.
    sent: Arc<Mutex<(u64, Vec<Instant>)>>,
    /// The highest number that arrived, plus one.
    arrived: Arc<AtomicU64>,
}

/// A packet that hasn't arrived after this time is lost: it crosses only three virtual links.
const LOST_AFTER: Duration = Duration::from_millis(40);
const EVERY: Duration = Duration::from_micros(250);
const TIMEOUT: Duration = Duration::from_secs(10);

impl Packets {
    /// Opens connections between the two pods, of one datagram each. Those that they have are deleted first on the receiver's node. Returns how many
    /// this node tracks then.
    fn open_connections(&self, world: &World, count: usize) -> Result<usize> {
        const PORTS: usize = 50_000;
        let from = world.namespace(&Place::Pod(key("bench/from")))?;
        let address = world.address("bench/to")?;
        let node = world.namespace(&Place::Node("w2".into()))?;
        node.run(|| conntrack::delete_older(&mut Kernel::open()?, &[address].into()))??;
        from.run(|| -> Result<()> {
            for of_socket in (0..count).step_by(PORTS) {
                let socket = UdpSocket::bind((if address.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
                for port in 0..PORTS.min(count - of_socket) {
                    // No program listens there, so sending may report that an earlier datagram was refused.
                    _ = socket.send_to(&[0], (address, 10_000 + port as u16));
                }
            }
            Ok(())
        })??;
        Ok(node
            .run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"))??
            .trim()
            .parse()?)
    }

    fn start(world: &World) -> Result<Self> {
        let place = |pod: &str| world.namespace(&Place::Pod(key(pod)));
        let (from, to) = (place("bench/from")?, place("bench/to")?);
        let address = SocketAddr::new(world.address("bench/to")?, 7000);
        let server = to.run(|| UdpSocket::bind(address))??;
        let packets = Self {
            sending: Arc::default(),
            sent: Arc::new(Mutex::new((0, Vec::new()))),
            arrived: Arc::default(),
        };
        let arrived = packets.arrived.clone();
        thread::spawn(move || {
            let mut number = [0; 8];
            while server.recv(&mut number).is_ok() {
                arrived.fetch_max(u64::from_le_bytes(number) + 1, Ordering::SeqCst);
            }
        });
        let (sending, sent) = (packets.sending.clone(), packets.sent.clone());
        thread::spawn(move || -> Result<()> {
            from.enter()?;
            loop {
                thread::sleep(EVERY);
                if !sending.load(Ordering::SeqCst) {
                    continue;
                }
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let mut round = sent.lock().unwrap_or_else(PoisonError::into_inner);
                let number = round.0 + round.1.len() as u64;
                round.1.push(Instant::now());
                // May return the ICMP error of an earlier packet.
                let _ = socket.send_to(&number.to_le_bytes(), address);
            }
        });
        Ok(packets)
    }

    fn begin(&self) {
        let mut round = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let next = round.0 + round.1.len() as u64;
        *round = (next, Vec::new());
        self.sending.store(true, Ordering::SeqCst);
    }

    /// Waits for the first packet that is dropped, stops sending, and returns when it was sent.
    fn first_dropped(&self) -> Result<Instant> {
        let start = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(1));
            let round = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let next = self.arrived.load(Ordering::SeqCst).saturating_sub(round.0);
            if let Some(first) = round.1.get(usize::try_from(next)?)
                && first.elapsed() > LOST_AFTER
            {
                self.sending.store(false, Ordering::SeqCst);
                return Ok(*first);
            }
            ensure!(start.elapsed() < TIMEOUT, "the policy drops nothing");
        }
    }

    fn until_open(&self) -> Result<()> {
        let before = self.arrived.load(Ordering::SeqCst);
        let start = Instant::now();
        self.begin();
        while self.arrived.load(Ordering::SeqCst) == before {
            if start.elapsed() > TIMEOUT {
                bail!("packets are dropped although the policy was deleted");
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.sending.store(false, Ordering::SeqCst);
        // Packets that are still in flight belong to this round.
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// A watch that only records when it received an event of bench/closed.
struct PlainWatch(Mutex<mpsc::Receiver<Instant>>);

impl PlainWatch {
    fn start(namespace: Namespace, kubeconfig: PathBuf) -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let (ready, listed) = mpsc::channel();
        thread::spawn(move || {
            inside(&namespace, async || {
                let client = control_plane::client(&kubeconfig).await?;
                let events = watcher(Api::<NetworkPolicy>::all(client), watcher::Config::default());
                futures::pin_mut!(events);
                while let Some(event) = events.try_next().await? {
                    match event {
                        Event::InitDone => ready.send(())?,
                        Event::Apply(p) | Event::Delete(p) if p.name_any() == "closed" => {
                            sender.send(Instant::now())?;
                        }
                        _ => {}
                    }
                }
                Ok(())
            })
        });
        listed.recv_timeout(TIMEOUT).context("the plain watch does not start")?;
        Ok(Self(Mutex::new(receiver)))
    }

    fn next_event(&self) -> Result<Instant> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv_timeout(TIMEOUT).context("the plain watch received no event")
    }
}

//! From the moment at which a policy is sent to the first packet that it drops: `cargo bench -p palisade-cluster-tests`.
//!
//! The API server has thousands of pods and hundreds of policies, of which the agents' nodes run two pods. A policy that
//! closes one to the other is created and deleted, again and again, while packets are sent four times a millisecond, each a new
//! connection. A bare watch beside the agents shows what part of the time is the API server's.
//!
//! Prints, asserts nothing. PALISADE_BENCH_PODS, _POLICIES and _ROUNDS change the sizes.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::{
    net::{SocketAddr, UdpSocket},
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
use palisade_cluster_tests::{World, confined, control_plane, crowd, world::key};
use palisade_lab::{Place, namespace::Namespace};
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

/// Closes bench/to to everybody.
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
    let began = Instant::now();
    let plane = world.control();
    let (namespace, admin) = (plane.namespace().try_clone()?, plane.admin().to_owned());
    // Not through `ask`, whose patience is that of a test.
    inside(&namespace, async || crowd::make(&control_plane::client(&admin).await?, pods, policies).await)?;
    world.apply(PODS)?;
    world.start_agents()?;
    world.settle()?;
    println!(
        "{pods} pods and {policies} policies, made and known to two agents after {:.1} s; {rounds} rounds",
        began.elapsed().as_secs_f64()
    );
    let before = world.agent("w2")?.metrics()?;
    let packets = Packets::start(world)?;
    let bare = BareWatch::start(namespace.try_clone()?, admin.clone())?;

    let (mut dropped, mut answered, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    inside(&namespace, async || {
        let client = control_plane::client(&admin).await?;
        for _ in 0..rounds {
            let sent = Instant::now();
            packets.begin();
            crowd::post(&client, POLICIES, closing()).await?;
            answered.push(sent.elapsed());
            dropped.push(packets.first_dropped()?.saturating_duration_since(sent));
            watched.push(bare.seen()?.saturating_duration_since(sent));
            reopen(&client, &packets, &bare).await?;
        }
        Ok(())
    })?;
    println!("\nfrom the request that creates a policy");
    print("to its answer", &mut answered);
    print("to its event in a bare watch (baseline)", &mut watched);
    print("to the first packet dropped", &mut dropped);

    let after = world.agent("w2")?.metrics()?;
    let name = "palisade_apply_latency_seconds";
    let (before, after) = (before.histogram(name), after.histogram(name));
    println!("\nof this the agent's own part, from the event to the kernel's commit, by its histogram");
    for share in [0.5, 0.99] {
        println!("  {:>4.0} %  at most {:.2} ms", share * 100.0, quantile(&before, &after, share) * 1000.0);
    }
    let (mut dropped, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..rounds.div_ceil(5) {
        let sent = Instant::now();
        packets.begin();
        world.apply(&closing().to_string())?;
        ended.push(sent.elapsed());
        dropped.push(packets.first_dropped()?.saturating_duration_since(sent));
        bare.seen()?;
        inside(&namespace, async || reopen(&control_plane::client(&admin).await?, &packets, &bare).await)?;
    }
    println!("\nfrom the start of `kubectl apply`");
    print("to its end", &mut ended);
    print("to the first packet dropped", &mut dropped);
    let metrics = world.agent("w2")?.metrics()?;
    println!(
        "\nresident memory of an agent: {:.1} MiB",
        metrics.get("process_resident_memory_bytes").unwrap_or(0.0) / f64::from(1 << 20)
    );
    Ok(())
}

fn inside<T: Send>(namespace: &Namespace, f: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    namespace.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(f()))?
}

async fn reopen(client: &Client, packets: &Packets, bare: &BareWatch) -> Result<()> {
    client.request::<Value>(Request::delete(format!("{POLICIES}/closed")).body(Vec::new())?).await?;
    bare.seen()?;
    packets.until_open()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    println!(
        "  {what:<42} median {:7.2} ms   90 % {:7.2} ms   99 % {:7.2} ms   most {:7.2} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// The upper bound of the bucket in which this share of what was added lies.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> f64 {
    let added = |i: usize| after[i].1 - before.get(i).map_or(0.0, |b| b.1);
    let Some(last) = after.len().checked_sub(1) else { return f64::NAN };
    let wanted = added(last) * share;
    (0..after.len()).find(|i| added(*i) >= wanted).map_or(f64::NAN, |i| after[i].0)
}

/// Numbered packets from one pod to the other, each from a socket of its own and so a new connection.
struct Packets {
    sending: Arc<AtomicBool>,
    /// When each of this round was sent; the first number of the round.
    sent: Arc<Mutex<(u64, Vec<Instant>)>>,
    /// The number that arrived last, plus one.
    arrived: Arc<AtomicU64>,
}

/// A packet that hasn't arrived when so much time has passed is lost: it only crosses three virtual links.
const LOST_AFTER: Duration = Duration::from_millis(40);
const EVERY: Duration = Duration::from_micros(250);
const PATIENCE: Duration = Duration::from_secs(10);

impl Packets {
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
                // An error of an earlier packet is no reason to stop.
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

    /// When the first packet was sent that did not arrive, as none after it. Stops sending.
    fn first_dropped(&self) -> Result<Instant> {
        let began = Instant::now();
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
            ensure!(began.elapsed() < PATIENCE, "the policy drops nothing");
        }
    }

    fn until_open(&self) -> Result<()> {
        let before = self.arrived.load(Ordering::SeqCst);
        let began = Instant::now();
        self.begin();
        while self.arrived.load(Ordering::SeqCst) == before {
            if began.elapsed() > PATIENCE {
                bail!("nothing passes although the policy is deleted");
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.sending.store(false, Ordering::SeqCst);
        // What is still under way belongs to this round.
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// A watch that only says when it heard of bench/closed.
struct BareWatch(Mutex<mpsc::Receiver<Instant>>);

impl BareWatch {
    fn start(namespace: Namespace, kubeconfig: std::path::PathBuf) -> Result<Self> {
        let (heard, seen) = mpsc::channel();
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
                            heard.send(Instant::now())?;
                        }
                        _ => {}
                    }
                }
                Ok(())
            })
        });
        listed.recv_timeout(PATIENCE).context("the bare watch does not begin")?;
        Ok(Self(Mutex::new(seen)))
    }

    fn seen(&self) -> Result<Instant> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.recv_timeout(PATIENCE).context("the bare watch hears nothing")
    }
}

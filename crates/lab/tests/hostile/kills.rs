//! The agent is killed with SIGKILL sixty times while policies change at random. Packets that the old and the new policies deny
//! never pass, packets that both allow are never dropped, and after each start the kernel holds the plan.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_agent::{NftDataPlane, NodeAgent, source::directory};
use palisade_lab::{Sandbox, namespace::Namespace, with_causes};
use palisade_policy::{Cluster, Family};
use palisade_testkit::Rng;

use crate::{
    conversations::{ConversationSpec, Conversations, Senders, Transport},
    flood::{Flood, Ports},
    harness::{Test, ensure},
    testbed::{NEAR, PodNetwork, Testbed, ingress_from, no_egress, place},
};

pub(crate) const TESTS: &[Test] = &[
    ("kills::thirty_kills_during_policy_changes_routed", |s| kills(s, PodNetwork::Routed, 1)),
    ("kills::thirty_kills_during_policy_changes_bridged", |s| kills(s, PodNetwork::Bridged, 2)),
    ("kills::no_denied_packet_passes_during_commits", commits),
];

/// The number of kills in each of the two tests.
const KILLS: usize = 30;

/// Client and server of the continuous connections. `client` to `srv` and `far-bad` to `open` are always allowed, `outside` to
/// `srv` never is.
const PAIRS: [(&str, &str); 8] = [
    ("client", "srv"),
    ("bad", "srv"),
    ("open", "srv"),
    ("far-bad", "srv"),
    ("outside", "srv"),
    ("iso", "open"),
    ("iso", "srv"),
    ("far-bad", "open"),
];

/// The pairs of [`PAIRS`] that the policies allow, one bit each.
type Allowed = u64;

/// What must happen to the packets of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Pass,
    Drop,
    /// The old or the new policies are enforced, and they differ.
    Either,
}

/// The expectation for each pair, with the number of the change that set it.
#[derive(Debug)]
struct ExpectedVerdicts(Mutex<(u64, [(Expected, u64); PAIRS.len()])>);

impl Default for ExpectedVerdicts {
    fn default() -> Self {
        Self(Mutex::new((0, [(Expected::Either, 0); PAIRS.len()])))
    }
}

impl ExpectedVerdicts {
    /// Must be called before a change is written: from then on the old or the new policies are enforced.
    fn set(&self, old: Allowed, new: Allowed) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (change, pairs) = &mut *guard;
        *change += 1;
        for (pair, entry) in pairs.iter_mut().enumerate() {
            let expected = match (old >> pair & 1, new >> pair & 1) {
                (1, 1) => Expected::Pass,
                (0, 0) => Expected::Drop,
                _ => Expected::Either,
            };
            if entry.0 != expected {
                *entry = (expected, *change);
            }
        }
    }

    fn of(&self, pair: usize) -> (Expected, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1[pair]
    }

    /// Returns the expectation for a packet that was sent after `before` was read.
    fn since(&self, pair: usize, before: (Expected, u64)) -> Expected {
        if self.of(pair) == before { before.0 } else { Expected::Either }
    }
}

/// The numbers of packets, the failures, and the actions of the test.
#[derive(Debug)]
struct Log {
    began: Instant,
    passed: AtomicU64,
    dropped: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// What was done to the agent, with the time.
    actions: Mutex<Vec<String>>,
}

impl Default for Log {
    fn default() -> Self {
        let none = || Mutex::new(Vec::new());
        let zero = || AtomicU64::new(0);
        Self { began: Instant::now(), passed: zero(), dropped: zero(), failures: none(), actions: none() }
    }
}

impl Log {
    fn check(&self, expected: Expected, passed: bool, what: impl FnOnce() -> String) {
        match (expected, passed) {
            (Expected::Pass, true) => _ = self.passed.fetch_add(1, Ordering::Relaxed),
            (Expected::Drop, false) => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
            (Expected::Either, _) => {}
            (Expected::Pass, false) => self.failure(&format!("false drop: {}", what())),
            (Expected::Drop, true) => self.failure(&format!("leak: {}", what())),
        }
    }

    fn failure(&self, what: &str) {
        self.append(&self.failures, what);
    }

    /// Records an action.
    fn action(&self, what: &str) {
        self.append(&self.actions, what);
    }

    fn append(&self, to: &Mutex<Vec<String>>, what: &str) {
        let at = self.began.elapsed().as_micros();
        to.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at} us: {what}"));
    }
}

/// The state that all threads of a test share.
#[derive(Debug, Default)]
struct Shared {
    expected: ExpectedVerdicts,
    log: Log,
    stop: AtomicBool,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The time after which a missing datagram or connection counts as dropped. TCP repeats a lost SYN after one second.
const DROPPED: Duration = Duration::from_millis(900);
/// The timeout of denied connections, short so that many are tried.
const DENIED_TIMEOUT: Duration = Duration::from_millis(40);

/// The addresses of a pair.
#[derive(Clone, Copy, Debug)]
struct Path {
    pair: usize,
    source: IpAddr,
    target: SocketAddr,
}

impl Path {
    fn name(&self, protocol: &str) -> String {
        let (from, to) = PAIRS[self.pair];
        format!("{from} to {to}, {protocol} {}", self.target)
    }
}

/// Sends numbered datagrams of one flow and compares each with the expectation at its send time.
fn datagrams(shared: &Shared, namespace: &Namespace, path: Path, server: &UdpSocket) -> io::Result<()> {
    namespace.enter()?;
    let socket = UdpSocket::bind((path.source, 0))?;
    server.set_nonblocking(true)?;
    let mut waiting: BTreeMap<u64, (Instant, Expected)> = BTreeMap::new();
    let mut buffer = [0; 8];
    for number in 0_u64.. {
        if shared.is_stopped() {
            break;
        }
        let before = shared.expected.of(path.pair);
        // An ICMP error for an earlier datagram is ignored.
        _ = socket.send_to(&number.to_be_bytes(), path.target);
        waiting.insert(number, (Instant::now(), shared.expected.since(path.pair, before)));
        while let Ok(8) = server.recv(&mut buffer) {
            let number = u64::from_be_bytes(buffer);
            if let Some((sent, expected)) = waiting.remove(&number) {
                shared.log.check(expected, true, || {
                    let after = sent.elapsed().as_millis();
                    format!("{}, number {number}, read {after} ms after it was sent", path.name("UDP"))
                });
            }
        }
        while let Some(first) = waiting.first_entry()
            && first.get().0.elapsed() > DROPPED
        {
            let (number, (_, expected)) = first.remove_entry();
            shared.log.check(expected, false, || format!("{}, number {number}", path.name("UDP")));
        }
        thread::sleep(Duration::from_millis(8));
    }
    Ok(())
}

/// Makes connections sequentially and compares each with the expectation.
fn connections(shared: &Shared, namespace: &Namespace, path: Path) -> io::Result<()> {
    namespace.enter()?;
    while !shared.is_stopped() {
        let before = shared.expected.of(path.pair);
        let timeout = if before.0 == Expected::Drop { DENIED_TIMEOUT } else { DROPPED };
        let made = TcpStream::connect_timeout(&path.target, timeout).is_ok();
        let expected = shared.expected.since(path.pair, before);
        shared.log.check(expected, made, || path.name("TCP"));
        thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}

/// The threads of all traffic.
struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Traffic {
    fn start(testbed: &Testbed, allowed: Allowed) -> Result<Self, Failed> {
        let mut traffic = Self { shared: Arc::default(), threads: Vec::new() };
        traffic.shared.expected.set(allowed, allowed);
        let mut listeners = Vec::new();
        for family in Family::BOTH {
            for (pair, (from, to)) in PAIRS.into_iter().enumerate() {
                let (source, address) = (testbed.address(from, family)?, testbed.address(to, family)?);
                let namespace = || -> Result<Namespace, Failed> {
                    Ok(testbed.lab.namespace(&place(from)).ok_or("no such place")?.try_clone()?)
                };
                let server = testbed.within(to, || UdpSocket::bind((address, 0)))??;
                let path = Path { pair, source, target: server.local_addr()? };
                let (shared, at) = (traffic.shared.clone(), namespace()?);
                traffic.threads.push(thread::spawn(move || datagrams(&shared, &at, path, &server)));
                let listener = testbed.within(to, || TcpListener::bind((address, 0)))??;
                listener.set_nonblocking(true)?;
                let path = Path { target: listener.local_addr()?, ..path };
                let (shared, at) = (traffic.shared.clone(), namespace()?);
                traffic.threads.push(thread::spawn(move || connections(&shared, &at, path)));
                listeners.push(listener);
            }
        }
        let shared = traffic.shared.clone();
        traffic.threads.push(thread::spawn(move || {
            while !shared.is_stopped() {
                // Accepted and closed, so that the queues don't fill up.
                listeners.iter().for_each(|listener| while listener.accept().is_ok() {});
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }));
        Ok(traffic)
    }

    fn stop(&mut self) -> Result<(), Failed> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a sender panicked")??;
        }
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        _ = self.stop();
    }
}

/// Random policies: the pods that may connect to `srv` in addition to `client`, and whether `iso` may open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policies {
    bad: bool,
    open: bool,
    far_bad: bool,
    iso_egress: bool,
}

impl Policies {
    fn random(rng: &mut Rng) -> Self {
        Self { bad: rng.bool(), open: rng.bool(), far_bad: rng.bool(), iso_egress: rng.bool() }
    }

    fn allowed(self) -> Allowed {
        // `iso` may connect to `open`, but `srv` never accepts it.
        [true, self.bad, self.open, self.far_bad, false, self.iso_egress, false, true]
            .into_iter()
            .enumerate()
            .fold(0, |bits, (pair, allowed)| bits | u64::from(allowed) << pair)
    }

    fn write(self, testbed: &mut Testbed) -> Result<(), Failed> {
        let mut from = vec!["client"];
        for (name, is) in [("bad", self.bad), ("open", self.open), ("far-bad", self.far_bad)] {
            if is {
                from.push(name);
            }
        }
        testbed.forget("from-iso");
        let mut policies = vec![ingress_from("srv", &from)];
        if !self.iso_egress {
            policies.push(no_egress("iso"));
        }
        testbed.write_policies(&policies)
    }
}

fn kills(sandbox: &Sandbox, kind: PodNetwork, seed: u64) -> Result<(), Failed> {
    let mut rng = Rng::with_seed(seed);
    let mut testbed = Testbed::build(sandbox, kind)?;
    let mut now = Policies::random(&mut rng);
    now.write(&mut testbed)?;
    testbed.start(NEAR)?;
    // These conversations are allowed all the time and expected lose nothing.
    let conversation = |transport| ConversationSpec {
        from: "client",
        to: "srv",
        transport,
        senders: Senders::Both,
        allowed: true,
    };
    let conversations =
        Conversations::start(&testbed, &[conversation(Transport::Tcp), conversation(Transport::Udp)])?;
    let mut traffic = Traffic::start(&testbed, now.allowed())?;
    let begin = Instant::now();
    for kill in 1..=KILLS {
        let next = Policies::random(&mut rng);
        let log = &traffic.shared.log;
        traffic.shared.expected.set(now.allowed(), next.allowed());
        log.action(&format!("edit from {now:?} to {next:?}"));
        next.write(&mut testbed)?;
        // The kill happens before, during or after the transaction.
        thread::sleep(Duration::from_micros(rng.u64(0..40_000)));
        log.action(&format!("kill {kill}"));
        testbed.kill(NEAR);
        log.action("killed");
        let agent = testbed.start(NEAR)?;
        let verified = agent.verify().ok_or("the agent does not answer")?;
        ensure(verified.equal, || format!("after kill {kill}: {:?}", verified.differences))?;
        log.action("verified");
        // A revoked connection that the new policies allow is restored by the review that follows.
        agent.await_reviewed()?;
        log.action("reviewed");
        traffic.shared.expected.set(next.allowed(), next.allowed());
        now = next;
        thread::sleep(Duration::from_millis(30));
    }
    let took = begin.elapsed();
    traffic.stop()?;
    let log = &traffic.shared.log;
    let (passed, dropped) = (log.passed.load(Ordering::Relaxed), log.dropped.load(Ordering::Relaxed));
    println!(
        "{KILLS} kills in {} ms: {passed} packets passed as expected, {dropped} were dropped as expected",
        took.as_millis()
    );
    let failures = log.failures.lock().unwrap_or_else(PoisonError::into_inner);
    ensure(failures.is_empty(), || {
        let actions = log.actions.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
        let shown = &failures[..failures.len().min(12)];
        format!("seed {seed}: {} failures:\n  {}\nactions:\n  {actions}", failures.len(), shown.join("\n  "))
    })?;
    ensure(passed > 1000 && dropped > 1000, || format!("only {passed} and {dropped} packets"))?;
    conversations.expect_no_loss(&[])
}

/// Sends as many denied packets as possible during as many commits as possible, each of which gives the pod a new chain.
///
/// A packet that entered the base chain before a commit reads maps as they are after it, and finds no rules in a chain that
/// was added by the commit. It would pass if a map already had a jump to that chain.
fn commits(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    testbed.write_policies(&[ingress_from("srv", &["client"])])?;
    let data_plane = testbed.within(NEAR, NftDataPlane::open)??;
    let mut agent = NodeAgent::new(NEAR.into(), data_plane);
    let mut commits = 0;
    // The clusters are read in advance: the directory source waits until files are complete, and commits expected follow at once.
    let mut clusters = Vec::new();
    for other in ["bad", "open", "far-bad"] {
        testbed.write_policies(&[ingress_from("srv", &["client", other])])?;
        clusters.push(directory::read(&testbed.folder().join("manifests"))?.0);
    }
    let mut commit = |testbed: &Testbed, cluster: &Cluster| -> Result<(), Failed> {
        let cluster = cluster.clone();
        // The snapshot reads the addresses of the node, in the namespace of the thread.
        let mut report = testbed.within(NEAR, || agent.snapshot(cluster))?;
        commits += report.commits.len();
        report.errors.pop().map_or(Ok(()), |e| Err(with_causes(&e).into()))
    };
    commit(&testbed, &clusters[0])?;
    let floods =
        Family::BOTH.map(|f| Flood::start(&testbed, ("outside", "srv"), f, Ports::Same, Duration::ZERO));
    let floods = floods.into_iter().collect::<Result<Vec<_>, Failed>>()?;
    let begin = Instant::now();
    for cluster in clusters.iter().cycle() {
        if begin.elapsed() > Duration::from_secs(7) {
            break;
        }
        commit(&testbed, cluster)?;
    }
    let counts: Vec<(usize, usize)> = floods.iter().map(|f| f.arrived(begin, Instant::now())).collect();
    let (passed, all) = counts.iter().fold((0, 0), |(p, n), (passed, all)| (p + passed, n + all));
    println!("{passed} of {all} denied datagrams passed in {commits} commits");
    ensure(commits > 50 && all > 10_000, || format!("only {commits} commits and {all} datagrams"))?;
    ensure(passed == 0, || format!("{passed} of {all} denied datagrams passed in {commits} commits"))
}

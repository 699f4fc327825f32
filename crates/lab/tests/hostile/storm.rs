//! The agent is killed with SIGKILL sixty times while policies change at random: what both the old and the new policies
//! deny never passes, what both allow is never dropped, and after each start the kernel holds the plan.

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
use palisade_lab::{Sandbox, namespace::Namespace};
use palisade_policy::{Cluster, Family};
use palisade_testkit::Rng;

use crate::{
    ensure,
    flood::{Flood, Ports},
    talk::{Over, Speaks, Spec, Talks},
    world::{Kind, NEAR, World, ingress_from, no_egress, place},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("storm::thirty_kills_during_edits_routed", |s| storm(s, Kind::Routed, 1)),
    ("storm::thirty_kills_during_edits_bridged", |s| storm(s, Kind::Bridged, 2)),
    ("storm::nothing_passes_at_the_moment_of_a_commit", moment),
];

/// In each of the two tests.
const KILLS: usize = 30;

/// Who calls whom all the time. `client` to `srv` and `far-bad` to `open` are always allowed, `outside` to `srv` never is.
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

/// Which pairs of [`PAIRS`] the policies allow, bit by bit.
type Allowed = u64;

/// What must become of a pair's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Pass,
    Drop,
    /// One policy or the other is in force, and they differ.
    Either,
}

/// What must become of each pair's packets now, and at which change it came to that.
#[derive(Debug)]
struct Force(Mutex<(u64, [(Must, u64); PAIRS.len()])>);

impl Default for Force {
    fn default() -> Self {
        Self(Mutex::new((0, [(Must::Either, 0); PAIRS.len()])))
    }
}

impl Force {
    /// Before an edit is written: from now on, what it replaces or itself is in force.
    fn set(&self, old: Allowed, new: Allowed) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, pairs) = &mut *guard;
        *turn += 1;
        for (pair, entry) in pairs.iter_mut().enumerate() {
            let must = match (old >> pair & 1, new >> pair & 1) {
                (1, 1) => Must::Pass,
                (0, 0) => Must::Drop,
                _ => Must::Either,
            };
            if entry.0 != must {
                *entry = (must, *turn);
            }
        }
    }

    fn of(&self, pair: usize) -> (Must, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1[pair]
    }

    /// What had to become of a pair's packet that was sent since `before` was asked for.
    fn since(&self, pair: usize, before: (Must, u64)) -> Must {
        if self.of(pair) == before { before.0 } else { Must::Either }
    }
}

/// What was tried, and what went wrong.
#[derive(Debug)]
struct Tally {
    began: Instant,
    passed: AtomicU64,
    dropped: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// What was done to the agent, with its time.
    done: Mutex<Vec<String>>,
}

impl Default for Tally {
    fn default() -> Self {
        let none = || Mutex::new(Vec::new());
        let zero = || AtomicU64::new(0);
        Self { began: Instant::now(), passed: zero(), dropped: zero(), wrong: none(), done: none() }
    }
}

impl Tally {
    fn judge(&self, must: Must, passed: bool, what: impl FnOnce() -> String) {
        match (must, passed) {
            (Must::Pass, true) => _ = self.passed.fetch_add(1, Ordering::Relaxed),
            (Must::Drop, false) => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
            (Must::Either, _) => {}
            (Must::Pass, false) => self.note(&format!("false drop: {}", what())),
            (Must::Drop, true) => self.note(&format!("leak: {}", what())),
        }
    }

    fn note(&self, what: &str) {
        self.say(&self.wrong, what);
    }

    /// Notes what was done to the agent.
    fn done(&self, what: &str) {
        self.say(&self.done, what);
    }

    fn say(&self, to: &Mutex<Vec<String>>, what: &str) {
        let at = self.began.elapsed().as_micros();
        to.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at} us: {what}"));
    }
}

/// What all threads of a storm share.
#[derive(Debug, Default)]
struct Shared {
    force: Force,
    tally: Tally,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A datagram that is not there after so long was dropped; a connection that is not made, too: a lost first packet is sent
/// again after a second.
const DROPPED: Duration = Duration::from_millis(900);
/// A denied connection is given up after so long, so that many are tried.
const GIVEN_UP: Duration = Duration::from_millis(40);

/// Where a pair calls.
#[derive(Clone, Copy, Debug)]
struct Way {
    pair: usize,
    source: IpAddr,
    target: SocketAddr,
}

impl Way {
    fn name(&self, protocol: &str) -> String {
        let (from, to) = PAIRS[self.pair];
        format!("{from} to {to}, {protocol} {}", self.target)
    }
}

/// Numbered datagrams of one flow, each judged by what was in force when it was sent.
fn datagrams(shared: &Shared, namespace: &Namespace, way: Way, server: &UdpSocket) -> io::Result<()> {
    namespace.enter()?;
    let socket = UdpSocket::bind((way.source, 0))?;
    server.set_nonblocking(true)?;
    let mut waiting: BTreeMap<u64, (Instant, Must)> = BTreeMap::new();
    let mut buffer = [0; 8];
    for number in 0_u64.. {
        if shared.is_over() {
            break;
        }
        let before = shared.force.of(way.pair);
        // An ICMP error for the one before is no matter.
        _ = socket.send_to(&number.to_be_bytes(), way.target);
        waiting.insert(number, (Instant::now(), shared.force.since(way.pair, before)));
        while let Ok(8) = server.recv(&mut buffer) {
            let number = u64::from_be_bytes(buffer);
            if let Some((sent, must)) = waiting.remove(&number) {
                shared.tally.judge(must, true, || {
                    let after = sent.elapsed().as_millis();
                    format!("{}, number {number}, read {after} ms after it was sent", way.name("UDP"))
                });
            }
        }
        while let Some(first) = waiting.first_entry()
            && first.get().0.elapsed() > DROPPED
        {
            let (number, (_, must)) = first.remove_entry();
            shared.tally.judge(must, false, || format!("{}, number {number}", way.name("UDP")));
        }
        thread::sleep(Duration::from_millis(8));
    }
    Ok(())
}

/// One connection after the other.
fn connections(shared: &Shared, namespace: &Namespace, way: Way) -> io::Result<()> {
    namespace.enter()?;
    while !shared.is_over() {
        let before = shared.force.of(way.pair);
        let patience = if before.0 == Must::Drop { GIVEN_UP } else { DROPPED };
        let made = TcpStream::connect_timeout(&way.target, patience).is_ok();
        let must = shared.force.since(way.pair, before);
        shared.tally.judge(must, made, || way.name("TCP"));
        thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}

/// Everything that calls, on threads.
struct Calls {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Calls {
    fn begin(world: &World, allowed: Allowed) -> Result<Self, Failed> {
        let mut calls = Self { shared: Arc::default(), threads: Vec::new() };
        calls.shared.force.set(allowed, allowed);
        let mut listeners = Vec::new();
        for family in Family::BOTH {
            for (pair, (from, to)) in PAIRS.into_iter().enumerate() {
                let (source, address) = (world.address(from, family)?, world.address(to, family)?);
                let namespace = || -> Result<Namespace, Failed> {
                    Ok(world.lab.namespace(&place(from)).ok_or("no such place")?.try_clone()?)
                };
                let server = world.within(to, || UdpSocket::bind((address, 0)))??;
                let way = Way { pair, source, target: server.local_addr()? };
                let (shared, at) = (calls.shared.clone(), namespace()?);
                calls.threads.push(thread::spawn(move || datagrams(&shared, &at, way, &server)));
                let listener = world.within(to, || TcpListener::bind((address, 0)))??;
                listener.set_nonblocking(true)?;
                let way = Way { target: listener.local_addr()?, ..way };
                let (shared, at) = (calls.shared.clone(), namespace()?);
                calls.threads.push(thread::spawn(move || connections(&shared, &at, way)));
                listeners.push(listener);
            }
        }
        let shared = calls.shared.clone();
        calls.threads.push(thread::spawn(move || {
            while !shared.is_over() {
                // Taken off the queues, and closed.
                listeners.iter().for_each(|listener| while listener.accept().is_ok() {});
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }));
        Ok(calls)
    }

    fn end(&mut self) -> Result<(), Failed> {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a caller panicked")??;
        }
        Ok(())
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        _ = self.end();
    }
}

/// Policies by what they allow: whom `srv` lets in besides `client`, and whether `iso` may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policies {
    bad: bool,
    open: bool,
    far_bad: bool,
    iso_calls: bool,
}

impl Policies {
    fn any(rng: &mut Rng) -> Self {
        Self { bad: rng.bool(), open: rng.bool(), far_bad: rng.bool(), iso_calls: rng.bool() }
    }

    fn allowed(self) -> Allowed {
        // `iso` may call `open`, but `srv` doesn't let it in.
        [true, self.bad, self.open, self.far_bad, false, self.iso_calls, false, true]
            .into_iter()
            .enumerate()
            .fold(0, |bits, (pair, allowed)| bits | u64::from(allowed) << pair)
    }

    fn put(self, world: &mut World) -> Result<(), Failed> {
        let mut from = vec!["client"];
        for (name, is) in [("bad", self.bad), ("open", self.open), ("far-bad", self.far_bad)] {
            if is {
                from.push(name);
            }
        }
        world.forget("from-iso");
        let mut policies = vec![ingress_from("srv", &from)];
        if !self.iso_calls {
            policies.push(no_egress("iso"));
        }
        world.edit(&policies)
    }
}

fn storm(sandbox: &Sandbox, kind: Kind, seed: u64) -> Result<(), Failed> {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::build(sandbox, kind)?;
    let mut now = Policies::any(&mut rng);
    now.put(&mut world)?;
    world.start(NEAR)?;
    // A stream that is allowed all the time, whole at the end.
    let stream = |over| Spec { from: "client", to: "srv", over, speaks: Speaks::Both, allowed: true };
    let talks = Talks::begin(&world, &[stream(Over::Tcp), stream(Over::Udp)])?;
    let mut calls = Calls::begin(&world, now.allowed())?;
    let begin = Instant::now();
    for kill in 1..=KILLS {
        let next = Policies::any(&mut rng);
        let tally = &calls.shared.tally;
        calls.shared.force.set(now.allowed(), next.allowed());
        tally.done(&format!("edit from {now:?} to {next:?}"));
        next.put(&mut world)?;
        // Before, during and after the transaction.
        thread::sleep(Duration::from_micros(rng.u64(0..40_000)));
        tally.done(&format!("kill {kill}"));
        world.kill(NEAR);
        tally.done("killed");
        let verified = world.start(NEAR)?.verify().ok_or("the agent does not answer")?;
        ensure(verified.equal, || format!("after kill {kill}: {:?}", verified.differences))?;
        tally.done("verified");
        calls.shared.force.set(next.allowed(), next.allowed());
        now = next;
        thread::sleep(Duration::from_millis(30));
    }
    let took = begin.elapsed();
    calls.end()?;
    let tally = &calls.shared.tally;
    let (passed, dropped) = (tally.passed.load(Ordering::Relaxed), tally.dropped.load(Ordering::Relaxed));
    println!(
        "{KILLS} kills in {} ms: {passed} packets had to pass and did, {dropped} had to be dropped and were",
        took.as_millis()
    );
    let wrong = tally.wrong.lock().unwrap_or_else(PoisonError::into_inner);
    ensure(wrong.is_empty(), || {
        let done = tally.done.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
        let shown = &wrong[..wrong.len().min(12)];
        format!("seed {seed}: {} wrong:\n  {}\ndone:\n  {done}", wrong.len(), shown.join("\n  "))
    })?;
    ensure(passed > 1000 && dropped > 1000, || format!("only {passed} and {dropped} packets"))?;
    talks.allowed_lost_nothing(&[])
}

/// As many denied packets as the machine can send, under as many commits as it can make. Each gives the pod a chain that is
/// new. A packet that entered the base chain before a commit reads maps as they are after it, and a chain that came with
/// the commit has no rules for such a packet: it passed, if the map led there already.
fn moment(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut world = World::build(sandbox, Kind::Routed)?;
    world.edit(&[ingress_from("srv", &["client"])])?;
    let plane = world.within(NEAR, NftDataPlane::open)??;
    let mut agent = NodeAgent::new(NEAR.into(), plane);
    let mut commits = 0;
    // Files are read only when they have been left alone for a while, and the commits are to come without pause.
    let mut clusters = Vec::new();
    for other in ["bad", "open", "far-bad"] {
        world.edit(&[ingress_from("srv", &["client", other])])?;
        clusters.push(directory::read(&world.folder().join("manifests"))?.0);
    }
    let mut commit = |world: &World, cluster: &Cluster| -> Result<(), Failed> {
        let cluster = cluster.clone();
        // The node's own addresses are read in the namespace of the thread.
        let mut report = world.within(NEAR, || agent.snapshot(cluster))?;
        commits += report.commits.len();
        report.errors.pop().map_or(Ok(()), |e| Err(crate::chain(&e).into()))
    };
    commit(&world, &clusters[0])?;
    let floods =
        Family::BOTH.map(|f| Flood::begin(&world, ("outside", "srv"), f, Ports::Same, Duration::ZERO));
    let floods = floods.into_iter().collect::<Result<Vec<_>, Failed>>()?;
    let begin = Instant::now();
    for cluster in clusters.iter().cycle() {
        if begin.elapsed() > Duration::from_secs(7) {
            break;
        }
        commit(&world, cluster)?;
    }
    let counts: Vec<(usize, usize)> = floods.iter().map(|f| f.arrived(begin, Instant::now())).collect();
    let (passed, all) = counts.iter().fold((0, 0), |(p, n), (passed, all)| (p + passed, n + all));
    println!("{passed} of {all} denied datagrams passed in {commits} commits");
    ensure(commits > 50 && all > 10_000, || format!("only {commits} commits and {all} datagrams"))?;
    ensure(passed == 0, || format!("{passed} of {all} denied datagrams passed in {commits} commits"))
}

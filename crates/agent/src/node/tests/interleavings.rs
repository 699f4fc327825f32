//! Whatever happens in whatever order: the agent says what the kernel holds, and in the end the kernel holds the plan.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use palisade_policy::{Change, Cluster, Compiler, Direction, Family, Name, NodePlan, Protocol};
use palisade_testkit::{Rng, Shape};
use proptest::{prelude::*, test_runner::Config};

use super::{
    super::{Clock, NodeAgent, Report},
    double::{Double, Held, Mood},
};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// So many changes of the cluster come together.
    Changes(u64, usize),
    /// The whole cluster comes anew, after such changes.
    Snapshot(u64, usize),
    /// The kernel refuses other things than before.
    Mood(Mood),
    /// Somebody else edits our tables.
    Edit(u8, usize),
    /// The agent is told that somebody did.
    Told,
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The agent is killed, and another one starts.
    Restart,
}

fn mood() -> impl Strategy<Value = Mood> {
    let sometimes = || prop::bool::weighted(0.25);
    (sometimes(), prop_oneof![Just(None), (0..12usize).prop_map(Some)], sometimes(), sometimes(), sometimes())
        .prop_map(|(owned, limit, torn, unreadable, no_cut_off)| Mood {
            owned,
            limit,
            torn,
            unreadable,
            no_cut_off,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u64>(), 1..4usize).prop_map(|(seed, n)| Step::Changes(seed, n)),
        1 => (any::<u64>(), 0..4usize).prop_map(|(seed, n)| Step::Snapshot(seed, n)),
        3 => prop_oneof![Just(Mood::default()), mood()].prop_map(Step::Mood),
        2 => (any::<u8>(), any::<usize>()).prop_map(|(what, nth)| Step::Edit(what, nth)),
        1 => Just(Step::Told),
        3 => prop_oneof![Just(500), Just(5_000), Just(61_000)].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

struct World {
    node: Name,
    shape: Shape,
    cluster: Cluster,
    kernel: Arc<Mutex<Held>>,
    now: Arc<AtomicU64>,
    agent: NodeAgent<Double>,
}

impl World {
    fn new(seed: u64) -> Self {
        let shape = if seed.is_multiple_of(3) { Shape::small_tiered() } else { Shape::small() };
        let cluster = palisade_testkit::cluster(&mut Rng::with_seed(seed), &shape);
        let node = cluster.nodes.keys().next().expect("a node").clone();
        let (kernel, now) = (Arc::new(Mutex::new(Held::default())), Arc::new(AtomicU64::new(0)));
        let agent = agent(&node, &kernel, &now);
        Self { node, shape, cluster, kernel, now, agent }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.kernel.lock().expect("nobody panicked")
    }

    fn changes(&mut self, seed: u64, n: usize) -> Vec<Change> {
        let rng = &mut Rng::with_seed(seed);
        let mut out = Vec::new();
        for _ in 0..n {
            let change = palisade_testkit::change(rng, self.shape.style, &self.cluster);
            self.cluster.apply(change.clone());
            out.push(change);
        }
        out
    }

    fn perform(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let report = match step {
            Step::Changes(seed, n) => {
                let changes = self.changes(*seed, *n);
                self.agent.apply(changes)
            }
            Step::Snapshot(seed, n) => {
                self.changes(*seed, *n);
                self.agent.snapshot(self.cluster.clone())
            }
            Step::Mood(mood) => {
                self.held().mood = *mood;
                return Ok(());
            }
            Step::Edit(what, nth) => {
                self.held().edit(*what, *nth);
                return Ok(());
            }
            Step::Told => self.agent.disturbed(),
            Step::Pass(milliseconds) => {
                self.now.fetch_add(*milliseconds, Ordering::Relaxed);
                self.agent.tick()
            }
            Step::Restart => {
                self.agent = agent(&self.node, &self.kernel, &self.now);
                self.agent.snapshot(self.cluster.clone())
            }
        };
        self.is_true(&report)
    }

    /// What a report says is so.
    fn is_true(&self, report: &Report) -> Result<(), TestCaseError> {
        let held = self.held();
        let plan = self.agent.plan();
        if held.edited {
            // Nobody has read the kernel since. Somebody is about to tell.
            return Ok(());
        }
        if !self.agent.reconciler().is_behind() {
            prop_assert_eq!(held.table.as_ref(), Some(plan), "programmed, as it says");
            prop_assert!(held.cut_off.is_empty());
            prop_assert!(report.cut_off.is_empty() && report.not_enforced.is_empty());
            return Ok(());
        }
        prop_assert!(!report.errors.is_empty() || report.commits.is_empty());
        for direction in Direction::BOTH {
            for address in isolated(plan, direction) {
                let is_cut = report.cut_off.contains(&(direction, address));
                let is_open = report.not_enforced.contains(&(direction, address));
                prop_assert!(!(is_cut && is_open));
                if !is_open {
                    self.is_closed(&held, direction, address, is_cut)?;
                }
            }
            for (_, address) in report.cut_off.iter().filter(|(d, _)| *d == direction) {
                self.is_closed(&held, direction, *address, true)?;
            }
        }
        Ok(())
    }

    /// The kernel lets nothing pass that the plan denies, and nothing at all if `whole`.
    fn is_closed(
        &self,
        held: &Held,
        direction: Direction,
        address: std::net::IpAddr,
        whole: bool,
    ) -> Result<(), TestCaseError> {
        let plan = self.agent.plan();
        for peer in palisade_testkit::endpoints(&self.cluster).into_iter().map(|e| e.address()) {
            // What a pod has of itself through a service counts as egress.
            let is_own = direction == Direction::Ingress && peer == address;
            if Family::of(peer) != Family::of(address) || is_own {
                continue;
            }
            let ends = if direction == Direction::Ingress { (peer, address) } else { (address, peer) };
            for (protocol, port) in
                palisade_testkit::traffic(&self.cluster).into_iter().chain([(Protocol::Udp, 9)])
            {
                let wanted = plan.decide(direction, ends.0, ends.1, protocol, port).is_allow();
                // What a pod has of itself through a service is no peer's.
                let may = wanted && (!whole || peer == address);
                prop_assert!(
                    may || !held.passes(direction, ends, (protocol, port)),
                    "{direction} of {address}: {protocol} {port} passes between {ends:?}; said to be cut off: {whole}",
                );
            }
        }
        Ok(())
    }

    /// Nothing is refused any more, and the agent is told of what others did.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.perform(&Step::Mood(Mood::default()))?;
        self.perform(&Step::Told)?;
        self.perform(&Step::Pass(61_000))?;
        prop_assert!(!self.agent.reconciler().is_behind());
        let mut compiler = Compiler::new(self.node.clone());
        compiler.apply_all(self.cluster.clone().into_changes());
        let held = self.held();
        prop_assert_eq!(held.table.as_ref(), Some(compiler.plan()));
        prop_assert!(held.cut_off.is_empty());
        Ok(())
    }
}

fn agent(node: &Name, kernel: &Arc<Mutex<Held>>, now: &Arc<AtomicU64>) -> NodeAgent<Double> {
    let plane = Double::new(kernel.clone(), now.clone());
    let clock = Clock(Box::new(plane.clock()));
    NodeAgent { clock, ..NodeAgent::new(node.clone(), plane) }
}

fn isolated(plan: &NodePlan, direction: Direction) -> Vec<std::net::IpAddr> {
    let dispatch = if direction == Direction::Ingress { &plan.ingress } else { &plan.egress };
    dispatch.keys().copied().collect()
}

/// How many interleavings: `PALISADE_CASES`, else some seconds' worth.
fn cases() -> u32 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => 400,
    }
}

proptest! {
    #![proptest_config(Config { cases: cases(), ..Config::default() })]

    #[test]
    fn whatever_happens_the_agent_says_what_the_kernel_holds(
        seed in any::<u64>(),
        first in prop_oneof![3 => Just(Mood::default()), 1 => mood()],
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut world = World::new(seed);
        world.perform(&Step::Mood(first))?;
        world.perform(&Step::Snapshot(seed, 0))?;
        for step in &steps {
            world.perform(step)?;
        }
        world.settle()?;
    }
}

//! Random sequences of events: reports always match what the kernel holds, and in the end the kernel holds the plan.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use palisade_policy::{Change, Cluster, Compiler, Direction, Family, Name, NodePlan, Protocol};
use palisade_testkit::{Rng, Shape};
use proptest::{prelude::*, test_runner::Config};

use super::{
    super::{Clock, NodeAgent, Report},
    double::{Double, Faults, KernelState},
};

/// One event.
#[derive(Clone, Debug)]
enum Step {
    /// This many changes of the cluster arrive together.
    Changes(u64, usize),
    /// A new snapshot arrives, after such changes.
    Snapshot(u64, usize),
    /// The kernel has other faults than before.
    Faults(Faults),
    /// Another program edits our tables.
    Edit(u8, usize),
    /// The agent is notified of such an edit.
    Notify,
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The agent is killed and started again.
    Restart,
}

fn faults() -> impl Strategy<Value = Faults> {
    let sometimes = || prop::bool::weighted(0.25);
    (sometimes(), prop_oneof![Just(None), (0..12usize).prop_map(Some)], sometimes(), sometimes(), sometimes())
        .prop_map(|(owned, limit, partial, unreadable, no_cut_off)| Faults {
            owned,
            limit,
            partial,
            unreadable,
            no_cut_off,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u64>(), 1..4usize).prop_map(|(seed, n)| Step::Changes(seed, n)),
        1 => (any::<u64>(), 0..4usize).prop_map(|(seed, n)| Step::Snapshot(seed, n)),
        3 => prop_oneof![Just(Faults::default()), faults()].prop_map(Step::Faults),
        2 => (any::<u8>(), any::<usize>()).prop_map(|(what, nth)| Step::Edit(what, nth)),
        1 => Just(Step::Notify),
        3 => prop_oneof![Just(500), Just(5_000), Just(61_000)].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

struct World {
    node: Name,
    shape: Shape,
    cluster: Cluster,
    kernel: Arc<Mutex<KernelState>>,
    now: Arc<AtomicU64>,
    agent: NodeAgent<Double>,
}

impl World {
    fn new(seed: u64) -> Self {
        let shape = if seed.is_multiple_of(3) { Shape::small_tiered() } else { Shape::small() };
        let cluster = palisade_testkit::cluster(&mut Rng::with_seed(seed), &shape);
        let node = cluster.nodes.keys().next().expect("a node").clone();
        let (kernel, now) = (Arc::new(Mutex::new(KernelState::default())), Arc::new(AtomicU64::new(0)));
        let agent = agent(&node, &kernel, &now);
        Self { node, shape, cluster, kernel, now, agent }
    }

    fn kernel(&self) -> std::sync::MutexGuard<'_, KernelState> {
        self.kernel.lock().expect("not poisoned")
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
            Step::Faults(faults) => {
                self.kernel().faults = *faults;
                return Ok(());
            }
            Step::Edit(what, nth) => {
                self.kernel().edit(*what, *nth);
                return Ok(());
            }
            Step::Notify => self.agent.resync(),
            Step::Wait(milliseconds) => {
                self.now.fetch_add(*milliseconds, Ordering::Relaxed);
                self.agent.tick()
            }
            Step::Restart => {
                self.agent = agent(&self.node, &self.kernel, &self.now);
                self.agent.snapshot(self.cluster.clone())
            }
        };
        self.check(&report)
    }

    /// Checks that a report matches the kernel.
    fn check(&self, report: &Report) -> Result<(), TestCaseError> {
        let held = self.kernel();
        let plan = self.agent.plan();
        if held.edited {
            // The agent has not read the kernel since, and will be notified.
            return Ok(());
        }
        if !self.agent.reconciler().is_behind() {
            prop_assert_eq!(held.table.as_ref(), Some(plan), "programmed, as reported");
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

    /// Checks that the kernel denies what the plan denies, and everything if `whole`.
    fn is_closed(
        &self,
        held: &KernelState,
        direction: Direction,
        address: std::net::IpAddr,
        whole: bool,
    ) -> Result<(), TestCaseError> {
        let plan = self.agent.plan();
        for peer in palisade_testkit::endpoints(&self.cluster).into_iter().map(|e| e.address()) {
            // Connections of a pod to itself through a service count as egress.
            let is_own = direction == Direction::Ingress && peer == address;
            if Family::of(peer) != Family::of(address) || is_own {
                continue;
            }
            let ends = if direction == Direction::Ingress { (peer, address) } else { (address, peer) };
            for (protocol, port) in
                palisade_testkit::traffic(&self.cluster).into_iter().chain([(Protocol::Udp, 9)])
            {
                let wanted = plan.decide(direction, ends.0, ends.1, protocol, port).is_allow();
                // Connections of a pod to itself through a service have no other peer.
                let may = wanted && (!whole || peer == address);
                prop_assert!(
                    may || !held.passes(direction, ends, (protocol, port)),
                    "{direction} of {address}: {protocol} {port} passes between {ends:?}; reported as cut off: {whole}",
                );
            }
        }
        Ok(())
    }

    /// Clears all faults, notifies the agent of edits, and checks the final state.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.perform(&Step::Faults(Faults::default()))?;
        self.perform(&Step::Notify)?;
        self.perform(&Step::Wait(61_000))?;
        prop_assert!(!self.agent.reconciler().is_behind());
        while self.agent.review_state().unreviewed_for.is_some() {
            self.perform(&Step::Wait(500))?;
        }
        let mut compiler = Compiler::new(self.node.clone());
        compiler.apply_all(self.cluster.clone().into_changes());
        let held = self.kernel();
        prop_assert_eq!(held.table.as_ref(), Some(compiler.plan()));
        prop_assert!(held.cut_off.is_empty());
        Ok(())
    }
}

fn agent(node: &Name, kernel: &Arc<Mutex<KernelState>>, now: &Arc<AtomicU64>) -> NodeAgent<Double> {
    let plane = Double::new(kernel.clone(), now.clone());
    let clock = Clock(Box::new(plane.clock()));
    NodeAgent { clock, ..NodeAgent::new(node.clone(), plane) }
}

fn isolated(plan: &NodePlan, direction: Direction) -> Vec<std::net::IpAddr> {
    let dispatch = if direction == Direction::Ingress { &plan.ingress } else { &plan.egress };
    dispatch.keys().copied().collect()
}

/// The number of sequences: `PALISADE_CASES`, else enough for some seconds.
fn cases() -> u32 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => 400,
    }
}

proptest! {
    #![proptest_config(Config { cases: cases(), ..Config::default() })]

    #[test]
    fn reports_match_the_kernel_whatever_happens(
        seed in any::<u64>(),
        first in prop_oneof![3 => Just(Faults::default()), 1 => faults()],
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut world = World::new(seed);
        world.perform(&Step::Faults(first))?;
        world.perform(&Step::Snapshot(seed, 0))?;
        for step in &steps {
            world.perform(step)?;
        }
        world.finish()?;
    }
}

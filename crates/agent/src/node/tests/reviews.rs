//! Reviews of established connections while changes arrive: every interleaving of commits and steps of reviews.

use palisade_policy::Labels;
use palisade_testkit::Rng;
use proptest::{prelude::*, test_runner::Config};

use super::{
    super::{Clock, NodeAgent},
    *,
};
use crate::stale::{Host, denied};

/// More than one step revokes.
const MANY: u32 = 1000;

/// An agent with many connections to the database.
fn busy() -> NodeAgent<Double> {
    let mut agent = agent(&[]);
    snapshot(&mut agent, shop());
    for n in 0..MANY {
        let mut connection = from("10.0.0.9");
        connection.tuple.source_port = 10_000 + n as u16;
        agent.plane.connections.insert(100 + n, connection);
    }
    agent
}

fn revoked(agent: &NodeAgent<Double>) -> usize {
    agent.plane.connections.values().filter(|c| c.revoked).count()
}

fn web1(labels: &[(&str, &str)]) -> Vec<Change> {
    vec![Change::SetPod(pod("web1", "10.0.0.9", "n2", labels))]
}

/// Isolates another pod of this node for egress.
fn isolate_other() -> Vec<Change> {
    let mut policy = (*deny_ingress()).clone();
    policy.key = PolicyKey::network_policy("shop", "other");
    policy.subject.pods = Selector::of_labels([("app", "other")]);
    (policy.ingress, policy.egress) = (None, Some(Vec::new()));
    let labels: Labels = [("app", "other")].into_iter().collect();
    vec![
        Change::SetPod(Pod { labels, ..pod("db2", "10.0.0.2", "n1", &[]) }),
        Change::SetPolicy(Arc::new(policy)),
    ]
}

#[test]
fn a_change_is_committed_between_two_steps_of_a_review() {
    let mut agent = busy();
    let report = agent.apply(web1(&[]));
    assert_eq!((report.commits.len(), report.revoked), (1, 0));
    while revoked(&agent) == 0 {
        assert!(agent.tick().is_intermediate());
    }
    let left = agent.review_state().left.unwrap();
    let report = agent.apply(isolate_other());
    assert_eq!(report.commits.len(), 1, "while {left} connections are left");
    assert!(agent.plane.programmed.egress.contains_key(&address("10.0.0.2")));
    let (now, before) = (revoked(&agent), agent.review_state().left.unwrap());
    assert!(now < MANY as usize && before < left, "a step with each change, so that reviews end");
    let report = finish(&mut agent, report);
    assert_eq!(revoked(&agent), 1 + MANY as usize);
    assert_eq!(report.revoked, 1 + MANY as usize, "counted at the end of the review");
}

#[test]
fn a_listing_that_takes_long_delays_no_change() {
    let mut agent = busy();
    agent.plane.holds_listings = true;
    agent.apply(web1(&[]));
    let report = agent.apply(isolate_other());
    assert_eq!((report.commits.len(), agent.plane.programmed == *agent.plan()), (1, true));
    wait(&agent, 5000);
    let state = agent.review_state();
    assert_eq!((state.unreviewed_for, state.is_running), (Some(Duration::from_secs(5)), true));
    assert!(agent.tick().review_due.is_some_and(|due| due > agent.started + Duration::from_secs(5)));
    agent.plane.holds_listings = false;
    assert_eq!(tick(&mut agent).revoked, 1 + MANY as usize);
}

/// The listing has the connections, and the rules allow them again before they are judged.
#[test]
fn a_review_revokes_nothing_that_a_newer_change_allows_again() {
    let mut agent = busy();
    agent.plane.holds_listings = true;
    agent.apply(web1(&[]));
    agent.apply(web1(&[("app", "web")]));
    agent.plane.holds_listings = false;
    let report = tick(&mut agent);
    assert_eq!((report.revoked, revoked(&agent), agent.plane.revoked.len()), (0, 0, 0));
    // In the middle of judging: what is revoked is restored, and nothing more is revoked.
    wait(&agent, 1000);
    agent.apply(web1(&[]));
    while revoked(&agent) == 0 {
        agent.tick();
    }
    let cut = revoked(&agent);
    let report = apply(&mut agent, web1(&[("app", "web")]));
    assert!(report.revoked <= cut, "{} of {cut}", report.revoked);
    wait(&agent, 1000);
    assert_eq!(tick(&mut agent).restored, cut);
    assert_eq!((revoked(&agent), agent.plane.revoked.len()), (0, 0));
}

/// The change comes after the listing, so the running review can't know its connections.
#[test]
fn a_review_in_progress_forgets_nothing_that_a_newer_change_denies() {
    let mut agent = busy();
    agent.plane.connections.insert(8, from("10.0.0.10"));
    agent.plane.holds_listings = true;
    agent.apply(web1(&[]));
    agent.tick();
    // This one begins after the listing, and before the change that denies it.
    let mut late = from("10.0.0.10");
    late.tuple.source_port = 9;
    agent.plane.connections.insert(9, late);
    agent.apply(vec![Change::SetPod(pod("web2", "10.0.0.10", "n2", &[]))]);
    agent.plane.holds_listings = false;
    let report = tick(&mut agent);
    assert!(report.review_due.is_some(), "another review is pending");
    wait(&agent, 1000);
    tick(&mut agent);
    assert_eq!(revoked(&agent), agent.plane.connections.len());
    assert_eq!(agent.review_state(), ReviewState::default());
}

#[test]
fn the_review_of_a_pod_that_starts_begins_without_a_pause() {
    let mut agent = busy();
    agent.plane.connections.insert(8, from("10.0.0.10"));
    agent.plane.holds_listings = true;
    agent.apply(web1(&[]));
    agent.tick();
    agent.apply(vec![Change::SetPod(pod("web2", "10.0.0.10", "n2", &[]))]);
    assert!(agent.hurry_review().is_some());
    // The longer the running review takes, the longer the pause after it.
    wait(&agent, 20);
    agent.plane.holds_listings = false;
    while let Some(due) = agent.tick().review_due {
        assert!(due <= agent.started + agent.now() + Duration::from_millis(1), "a pause");
    }
    assert_eq!(revoked(&agent), agent.plane.connections.len());
    assert_eq!(agent.hurry_review(), None);
}

#[test]
fn a_review_that_is_held_waits_for_a_bounded_time() {
    let mut agent = busy();
    agent.hold_review();
    let begun = agent.now();
    let report = agent.apply(web1(&[]));
    assert_eq!(report.review_due, Some(agent.started + begun + Duration::from_millis(250)));
    assert_eq!((agent.review_state().is_running, revoked(&agent)), (false, 0));
    // Held again and again, it begins all the same.
    wait(&agent, 240);
    agent.hold_review();
    assert!(!agent.apply(isolate_other()).commits.is_empty() && !agent.review_state().is_running);
    wait(&agent, 10);
    assert!(tick(&mut agent).revoked > 0);

    // What it was held for has ended.
    wait(&agent, 1000);
    agent.apply(web1(&[("app", "web")]));
    tick(&mut agent);
    wait(&agent, 1000);
    agent.hold_review();
    agent.apply(web1(&[]));
    assert_eq!(revoked(&agent), 0);
    assert_eq!(agent.hurry_review(), Some(agent.started + agent.now()));
    assert!(tick(&mut agent).revoked > 0);
}

#[test]
fn a_review_that_fails_in_the_middle_is_repeated_and_reported_until_then() {
    let mut agent = busy();
    agent.plane.reject_listings = 1;
    let report = apply(&mut agent, web1(&[]));
    assert_eq!((report.errors.len(), report.review_succeeded), (1, false));
    assert!(agent.review_state().unreviewed_for.is_some());
    wait(&agent, 1000);
    agent.tick();
    while revoked(&agent) == 0 {
        agent.tick();
    }
    agent.plane.reject_revocations = 1;
    let report = tick(&mut agent);
    assert_eq!(report.errors.len(), 1);
    assert!(report.revoked > 0 && report.revoked < MANY as usize, "those before the failure are counted");
    wait(&agent, 1000);
    let report = tick(&mut agent);
    assert!(report.review_succeeded && report.errors.is_empty());
    assert_eq!(revoked(&agent), 1 + MANY as usize);
}

/// The agent is killed during a review. The next one reviews everything at its start.
#[test]
fn a_restart_continues_what_a_review_has_left() {
    let mut agent = busy();
    agent.apply(web1(&[]));
    while revoked(&agent) == 0 {
        agent.tick();
    }
    let cut = revoked(&agent);
    let mut next = self::agent(&[]);
    next.plane.connections = std::mem::take(&mut agent.plane.connections);
    next.plane.revoked = std::mem::take(&mut agent.plane.revoked);
    let mut world = shop();
    web1(&[]).into_iter().for_each(|change| world.apply(change));
    let report = snapshot(&mut next, world);
    assert_eq!(report.revoked, 1 + MANY as usize - cut);
    assert_eq!(revoked(&next), 1 + MANY as usize);
}

/// Packets are compared with revoked connections from the start, because a previous run may have revoked some, until a review has found none, and
/// from the first revocation on.
#[test]
fn packets_are_compared_with_revoked_connections_while_there_may_be_any() {
    let mut agent = busy();
    while agent.review_state().unreviewed_for.is_some() {
        assert!(agent.plane.matches_revoked);
        agent.tick();
    }
    assert!(!agent.plane.matches_revoked);
    agent.apply(web1(&[]));
    while revoked(&agent) == 0 {
        agent.tick();
    }
    assert!(agent.plane.matches_revoked);
    // An entry with the label, and no tuple that is remembered.
    let mut next = self::agent(&[]);
    let left = TrackedConnection { revoked: true, ..from("10.0.0.9") };
    next.plane.connections.insert(1, left);
    let mut world = shop();
    web1(&[]).into_iter().for_each(|change| world.apply(change));
    snapshot(&mut next, world);
    wait(&next, 1000);
    assert!(next.review_state().unreviewed_for.is_none() && next.plane.matches_revoked);
}

/// One event.
#[derive(Clone, Debug)]
enum Step {
    /// A pod gets this label; see [`PODS`].
    Label(usize, bool),
    /// The policy appears or disappears.
    Policy(bool),
    /// Connections begin, from the pod with this number.
    Connect(usize, u8),
    /// An entry disappears.
    Flush(usize),
    /// The worker has time for this many steps.
    Tick(u8),
    /// Listings end only from the next of these on.
    Hold(bool),
    /// A revocation fails.
    Reject,
    ReviewAll,
    Wait(u64),
}

/// Pods on another node, with their addresses.
const PODS: [(&str, &str); 3] = [("web1", "10.0.0.9"), ("web2", "10.0.0.10"), ("web3", "10.0.0.11")];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..PODS.len(), any::<bool>()).prop_map(|(pod, on)| Step::Label(pod, on)),
        2 => any::<bool>().prop_map(Step::Policy),
        4 => (0..PODS.len(), 1..200u8).prop_map(|(pod, n)| Step::Connect(pod, n)),
        1 => any::<usize>().prop_map(Step::Flush),
        5 => (0..6u8).prop_map(Step::Tick),
        2 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Reject),
        1 => Just(Step::ReviewAll),
        2 => prop_oneof![Just(20), Just(300), Just(1100)].prop_map(Step::Wait),
    ]
}

struct Scene {
    agent: NodeAgent<Double>,
    next: u32,
}

impl Scene {
    fn allows(&self, connection: &TrackedConnection) -> bool {
        denied(&self.agent.plane.programmed, &Host::default(), connection, |_| false).is_none()
    }

    fn perform(&mut self, step: &Step) {
        let agent = &mut self.agent;
        match step {
            Step::Label(n, on) => {
                let (name, at) = PODS[*n];
                let labels: &[_] = if *on { &[("app", "web")] } else { &[] };
                agent.apply(vec![Change::SetPod(pod(name, at, "n2", labels))]);
            }
            Step::Policy(true) => drop(agent.apply(vec![Change::SetPolicy(Arc::new(from_web()))])),
            Step::Policy(false) => drop(agent.apply(vec![Change::RemovePolicy(from_web().key)])),
            Step::Connect(n, count) => {
                for _ in 0..*count {
                    let mut connection = from(PODS[*n].1);
                    connection.tuple.source_port = 1000 + (self.next % 60_000) as u16;
                    // The kernel's rules decide, and revoked connections stay revoked.
                    if self.allows(&connection) && !self.agent.plane.revoked.contains(&connection.tuple) {
                        self.agent.plane.connections.insert(self.next, connection);
                    }
                    self.next += 1;
                }
            }
            Step::Flush(nth) => {
                let ids: Vec<u32> = agent.plane.connections.keys().copied().collect();
                if let Some(id) = ids.get(nth % ids.len().max(1)) {
                    agent.plane.connections.remove(id);
                }
            }
            Step::Tick(n) => (0..*n).for_each(|_| drop(agent.tick())),
            Step::Hold(on) => agent.plane.holds_listings = *on,
            Step::Reject => agent.plane.reject_revocations = 1,
            Step::ReviewAll => agent.review_all(),
            Step::Wait(milliseconds) => wait(agent, *milliseconds),
        }
    }

    /// Revokes nothing that is allowed: whatever a call revokes is denied by the rules that are committed when it returns.
    fn perform_checked(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.agent.plane.revoked.clone();
        self.perform(step);
        let plane = &self.agent.plane;
        for tuple in plane.revoked.difference(&before) {
            let connection = TrackedConnection { tuple: *tuple, revoked: false, midstream: false };
            prop_assert!(!self.allows(&connection), "{step:?} revoked {tuple}, which is allowed");
        }
        for tuple in before.difference(&plane.revoked) {
            let connection = TrackedConnection { tuple: *tuple, revoked: false, midstream: false };
            prop_assert!(self.allows(&connection), "{step:?} restored {tuple}, which is denied");
        }
        Ok(())
    }

    /// In the end, exactly the denied connections are revoked.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.agent.plane.holds_listings = false;
        self.agent.plane.reject_revocations = 0;
        let mut rounds = 0;
        while self.agent.review_state().unreviewed_for.is_some() {
            self.perform_checked(&Step::Wait(50))?;
            self.perform_checked(&Step::Tick(1))?;
            rounds += 1;
            prop_assert!(rounds < 10_000, "reviews end");
        }
        let plane = &self.agent.plane;
        for connection in plane.connections.values() {
            let (allowed, tuple) = (self.allows(connection), connection.tuple);
            prop_assert_eq!(connection.revoked, !allowed, "{}", tuple);
            prop_assert!(plane.matches_revoked || !connection.revoked, "{}", tuple);
            prop_assert_eq!(plane.revoked.contains(&tuple), !allowed, "{}", tuple);
        }
        for tuple in &plane.revoked {
            let connection = TrackedConnection { tuple: *tuple, revoked: true, midstream: false };
            prop_assert!(!self.allows(&connection), "{tuple} is allowed and not restored");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 120, ..Config::default() })]

    #[test]
    fn exactly_the_denied_connections_are_revoked_however_changes_and_reviews_interleave(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut rng = Rng::with_seed(seed);
        let plane = Double::new(Arc::default(), Arc::default());
        let clock = Clock(Box::new(plane.clock()));
        let agent = NodeAgent { clock, ..NodeAgent::new("n1".into(), plane) };
        let mut scene = Scene { agent, next: 0 };
        scene.agent.plane.listing_takes = rng.u64(0..30);
        scene.agent.snapshot(shop());
        for step in &steps {
            scene.perform_checked(step)?;
        }
        scene.finish()?;
    }
}

//! The agent on a scripted kernel.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_policy::{
    Action as RuleAction, NamespaceMatch, ObjectKey, Peer, Phase, Pod, Policy, PolicyKey, Protocol, Rule,
    Selector, Tier,
    rules::{PeerEntry, PodMatch},
};

use super::*;
use crate::{Connection, FiveTuple, Revoked};

/// A kernel that refuses the commits that `refuse` says and tracks one connection.
#[derive(Default)]
struct Scripted {
    programmed: NodePlan,
    refuse: Vec<bool>,
    connections: BTreeMap<u8, Connection>,
    remembered: BTreeSet<FiveTuple>,
    asked: Vec<BTreeSet<IpAddr>>,
    refuse_revocations: usize,
    /// In milliseconds.
    now: Arc<AtomicU64>,
    listing_takes: u64,
}

fn refused() -> DataPlaneError {
    DataPlaneError { doing: "commit", source: "no buffer space".into() }
}

impl DataPlane for Scripted {
    type Entry = u8;

    fn programmed(&self) -> &NodePlan {
        &self.programmed
    }
    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError> {
        self.commit(&self.programmed.delta_to(plan))
    }
    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        if !self.refuse.is_empty() && self.refuse.remove(0) {
            return Err(refused());
        }
        self.programmed.apply(delta);
        Ok(Programmed { transactions: 1, ..Programmed::default() })
    }
    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        Ok(BTreeSet::new())
    }
    fn connections(&mut self, ends: &BTreeSet<IpAddr>) -> Result<Vec<(Connection, u8)>, DataPlaneError> {
        self.asked.push(ends.clone());
        self.now.fetch_add(self.listing_takes, Ordering::Relaxed);
        let is_concerned =
            |c: &Connection| ends.contains(&c.tuple.source) || ends.contains(&c.tuple.destination);
        let found = self.connections.iter().filter(|(_, c)| is_concerned(c));
        Ok(found.map(|(id, c)| (c.clone(), *id)).collect())
    }
    fn revoke(&mut self, connections: &[(FiveTuple, &u8)]) -> Result<Revoked, DataPlaneError> {
        for (tuple, id) in connections {
            if self.refuse_revocations > 0 {
                self.refuse_revocations -= 1;
                return Err(refused());
            }
            self.connections.get_mut(id).ok_or_else(refused)?.revoked = true;
            self.remembered.insert(*tuple);
        }
        Ok(Revoked { cut: connections.len(), not_remembered: 0 })
    }
    fn restore(&mut self, tuples: &[FiveTuple], ids: &[&u8]) -> Result<(), DataPlaneError> {
        self.remembered.retain(|tuple| !tuples.contains(tuple));
        for id in ids {
            self.connections.get_mut(id).ok_or_else(refused)?.revoked = false;
        }
        Ok(())
    }
    fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        self.remembered.contains(tuple)
    }
    fn revoked(&self) -> Vec<FiveTuple> {
        self.remembered.iter().copied().collect()
    }
    fn labelled(&mut self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        Ok(self.connections.values().filter(|c| c.revoked).map(|c| c.tuple.source).collect())
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply(Change::SetPod(pod("db", "10.0.0.1", "n1", &[])));
    cluster
}

fn deny_ingress() -> Arc<Policy> {
    Arc::new(Policy {
        key: PolicyKey::network_policy("shop", "deny"),
        tier: Tier::Developer,
        priority: 0,
        subject: PodMatch { namespaces: NamespaceMatch::Named("shop".into()), pods: Selector::everything() },
        ingress: Some(Vec::new()),
        egress: None,
        source: None,
    })
}

/// Lets in the pods with the label `app=web`.
fn from_web() -> Policy {
    let pods = PodMatch {
        namespaces: NamespaceMatch::Named("shop".into()),
        pods: Selector::of_labels([("app", "web")]),
    };
    let rule = Rule {
        name: None,
        action: RuleAction::Accept,
        peers: Some(vec![PeerEntry { peer: Peer::Pods(pods), source: None }]),
        ports: None,
        source: None,
    };
    Policy { ingress: Some(vec![rule]), ..(*deny_ingress()).clone() }
}

fn deny() -> Vec<Change> {
    vec![Change::SetPolicy(deny_ingress())]
}

/// A connection to the database that was opened at this address.
fn from(client: &str) -> Connection {
    let tuple = FiveTuple {
        source: address(client),
        destination: address("10.0.0.1"),
        protocol: Protocol::Tcp,
        source_port: 40_000,
        port: 5432,
    };
    Connection { tuple, revoked: false, midstream: false }
}

fn agent(refuse: &[bool]) -> NodeAgent<Scripted> {
    let to_db = from("10.0.0.9");
    let plane = Scripted {
        refuse: refuse.to_vec(),
        connections: BTreeMap::from([(7, to_db)]),
        ..Scripted::default()
    };
    let now = plane.now.clone();
    let clock = move || Duration::from_millis(now.load(Ordering::Relaxed));
    NodeAgent { clock: Clock(Box::new(clock)), ..NodeAgent::new("n1".into(), plane) }
}

fn pass(agent: &NodeAgent<Scripted>, milliseconds: u64) {
    agent.plane.now.fetch_add(milliseconds, Ordering::Relaxed);
}

/// How long after the agent was made.
fn due(agent: &NodeAgent<Scripted>, report: &Report) -> Option<Duration> {
    report.review_due.map(|at| at - agent.started)
}

#[test]
fn an_open_connection_is_cut_when_it_becomes_denied_and_freed_when_it_is_allowed_again() {
    let mut agent = agent(&[]);
    assert_eq!(agent.snapshot(cluster()).revoked, 0);
    assert_eq!(agent.apply(deny()).revoked, 1);
    assert!(agent.plane.connections[&7].revoked);
    assert_eq!(agent.apply(deny()).revoked, 0, "the same policy again");
    let report = agent.apply(vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.revoked, report.restored), (0, 1));
    assert!(!agent.plane.connections[&7].revoked);
}

fn pod(name: &str, ip: &str, node: &str, labels: &[(&str, &str)]) -> Pod {
    Pod {
        key: ObjectKey::new("shop", name),
        labels: labels.iter().copied().collect(),
        addresses: vec![address(ip)],
        node: Some(node.into()),
        host_network: false,
        phase: Phase::Running,
        ports: Arc::from([]),
        created: 0,
        workload: None,
    }
}

/// Two local pods and a policy that lets in the pods with a label, of which there are two elsewhere.
fn shop() -> Cluster {
    let mut cluster = cluster();
    let web = [("app", "web")];
    for pod in [
        pod("db2", "10.0.0.2", "n1", &[]),
        pod("web1", "10.0.0.9", "n2", &web),
        pod("web2", "10.0.0.10", "n2", &web),
    ] {
        cluster.apply(Change::SetPod(pod));
    }
    cluster.apply(Change::SetPolicy(Arc::new(from_web())));
    cluster
}

#[test]
fn a_peer_that_goes_or_is_relabelled_is_the_only_address_asked_for() {
    let gone = Change::RemovePod(ObjectKey::new("shop", "web1"));
    let relabelled = Change::SetPod(pod("web1", "10.0.0.9", "n2", &[("app", "other")]));
    for change in [gone, relabelled] {
        let mut agent = agent(&[]);
        let other = from("10.0.0.10");
        agent.plane.connections.insert(8, other);
        assert_eq!(agent.snapshot(shop()).revoked, 0);
        agent.plane.asked.clear();
        assert_eq!(agent.apply(vec![change]).revoked, 1);
        assert_eq!(agent.plane.asked, [BTreeSet::from([address("10.0.0.9")])]);
        assert!(agent.plane.connections[&7].revoked && !agent.plane.connections[&8].revoked);
        // It comes back, which narrows nothing: the end of what was cut is remembered.
        let back = pod("web1", "10.0.0.9", "n2", &[("app", "web")]);
        assert_eq!(agent.apply(vec![Change::SetPod(back)]).restored, 1);
        assert_eq!(agent.plane.asked.last(), Some(&BTreeSet::from([address("10.0.0.9")])));
    }
}

#[test]
fn a_review_that_failed_is_made_up_for_by_the_next() {
    let mut agent = agent(&[]);
    agent.snapshot(shop());
    agent.plane.refuse_revocations = 1;
    let report = agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", "web1"))]);
    assert_eq!((report.revoked, report.errors.len()), (0, 1));
    assert_eq!(due(&agent, &report), Some(Duration::from_secs(1)), "not at once, and not never");
    // A change of somebody else's.
    pass(&agent, 1000);
    let report = agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", "web2"))]);
    assert_eq!((report.revoked, report.errors.len()), (1, 0));
    assert!(agent.plane.connections[&7].revoked);
    assert_eq!(report.review_due, None);
}

#[test]
fn removals_close_together_share_a_review_and_the_first_is_immediate() {
    let mut agent = agent(&[]);
    let other = from("10.0.0.10");
    agent.plane.connections.insert(8, other);
    agent.snapshot(shop());
    agent.plane.asked.clear();
    agent.plane.listing_takes = 10;
    let gone = |name| vec![Change::RemovePod(ObjectKey::new("shop", name))];

    let report = agent.apply(gone("web1"));
    assert_eq!((report.revoked, report.review, report.review_due), (1, Duration::from_millis(10), None));
    // Forty milliseconds of rest, in which the rules change at once and the connection waits.
    pass(&agent, 5);
    let report = agent.apply(gone("web2"));
    assert_eq!((report.revoked, report.commits.len()), (0, 1));
    assert_eq!(due(&agent, &report), Some(Duration::from_millis(50)));
    let report = agent.apply(vec![Change::SetPod(pod("db3", "10.0.0.3", "n1", &[]))]);
    assert_eq!(report.revoked, 0);
    assert_eq!(agent.tick().revoked, 0, "too early");
    assert_eq!(agent.plane.asked.len(), 1);

    pass(&agent, 35);
    let report = agent.tick();
    assert_eq!((report.revoked, report.review_due), (1, None));
    assert_eq!(agent.plane.asked.len(), 2);
    // The group is empty now, so the local pods concerned are asked for instead of the peer.
    for narrowed in ["10.0.0.1", "10.0.0.3"] {
        assert!(agent.plane.asked[1].contains(&address(narrowed)), "{:?}", agent.plane.asked);
    }
    assert!(agent.plane.connections.values().all(|c| c.revoked));
    assert_eq!(agent.tick().revoked, 0);
    assert_eq!(agent.plane.asked.len(), 2, "nothing waits");
}

#[test]
fn what_is_allowed_again_before_its_review_is_never_cut() {
    let mut agent = agent(&[]);
    agent.snapshot(shop());
    agent.plane.listing_takes = 10;
    agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", "web2"))]);
    agent.apply(vec![Change::SetPod(pod("web1", "10.0.0.9", "n2", &[]))]);
    let report = agent.apply(vec![Change::SetPod(pod("web1", "10.0.0.9", "n2", &[("app", "web")]))]);
    pass(&agent, 100);
    let later = agent.tick();
    assert_eq!((report.revoked, later.revoked, later.restored), (0, 0, 0));
    assert!(!agent.plane.connections[&7].revoked);
}

#[test]
fn changes_that_come_together_are_one_transaction() {
    let mut agent = agent(&[]);
    agent.snapshot(cluster());
    let pods = (20..60).map(|i| pod(&format!("p{i}"), &format!("10.0.0.{i}"), "n1", &[("app", "web")]));
    let mut changes: Vec<Change> = pods.map(Change::SetPod).collect();
    changes.push(Change::SetPolicy(Arc::new(from_web())));
    let report = agent.apply(changes);
    assert_eq!(report.commits.len(), 1);
    assert_eq!(agent.plane.programmed, *agent.plan());
}

#[test]
fn one_refusal_is_made_good_at_once() {
    let mut agent = agent(&[false, true, false]);
    agent.snapshot(cluster());
    let report = agent.apply(deny());
    assert_eq!(report.errors.len(), 1);
    assert!(report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
}

#[test]
fn pods_whose_policies_are_refused_are_cut_off_and_come_back() {
    let mut agent = agent(&[false, true, true, false, false]);
    agent.snapshot(cluster());
    let report = agent.apply(deny());
    assert_eq!(report.errors.len(), 2);
    assert_eq!(report.cut_off, [(Direction::Ingress, address("10.0.0.1"))]);
    assert_eq!(report.revoked, 1, "what was open before is cut, too");
    let closed = agent.plane.programmed.ingress[&address("10.0.0.1")];
    assert_eq!(closed, closed::table_id(Direction::Ingress));

    // Any later change brings the whole difference with it.
    let report = agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", "other"))]);
    assert!(report.errors.is_empty() && report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
}

#[test]
fn a_kernel_that_refuses_everything_keeps_what_it_holds() {
    let mut agent = agent(&[false, true, true, true]);
    agent.snapshot(cluster());
    let before = agent.plane.programmed.clone();
    assert_eq!(agent.apply(deny()).errors.len(), 3);
    assert_eq!(agent.plane.programmed, before);
    assert!(agent.tick().commits.is_empty(), "not before the pause is over");
}

/// The label goes with the entry, and the agent's memory with the agent: the kernel's set stays.
#[test]
fn what_was_revoked_is_restored_though_its_entry_or_its_pod_is_gone() {
    let mut agent = agent(&[]);
    agent.snapshot(cluster());
    agent.apply(deny());
    let tuple = agent.plane.connections[&7].tuple;
    assert!(agent.plane.is_revoked(&tuple));
    agent.plane.connections.clear();
    let report = agent.apply(vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.restored, agent.plane.is_revoked(&tuple)), (1, false), "the entry was flushed");

    let mut agent = self::agent(&[]);
    agent.plane.remembered.insert(tuple);
    agent.plane.connections.get_mut(&7).unwrap().revoked = true;
    let report = agent.snapshot(Cluster::default());
    assert_eq!(
        (report.restored, agent.plane.is_revoked(&tuple)),
        (1, false),
        "its pod was gone at the start"
    );
    assert!(!agent.plane.connections[&7].revoked);
}

/// After a flush the server's packet came first, and counts as the opener's.
#[test]
fn a_connection_that_comes_back_the_wrong_way_round_is_cut_again_and_stays_so() {
    let mut agent = agent(&[]);
    agent.snapshot(cluster());
    agent.apply(deny());
    let tuple = agent.plane.connections[&7].tuple;
    for (id, midstream) in [(8, true), (9, false)] {
        let reversed = Connection { tuple: tuple.reversed(), revoked: false, midstream };
        agent.plane.connections = BTreeMap::from([(id, reversed)]);
        let other = pod(&format!("other{id}"), &format!("10.0.1.{id}"), "n1", &[]);
        pass(&agent, 1000);
        assert_eq!(agent.apply(vec![Change::SetPod(other)]).revoked, 1);
        assert!(agent.plane.connections[&id].revoked && agent.plane.is_revoked(&tuple));
        pass(&agent, 1000);
        let report = agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", format!("other{id}")))]);
        assert_eq!((report.revoked, report.restored), (0, 0));
    }
}

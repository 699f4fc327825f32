//! Tests of the agent with a scripted kernel.

mod double;
mod interleavings;
mod reviews;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use palisade_policy::{
    Action as RuleAction, Direction, NamespaceMatch, ObjectKey, Peer, PeerEntry, Pod, PodMatch, Policy,
    PolicyKey, Protocol, Rule, Selector, Tier,
};

use super::*;
use crate::{FiveTuple, TrackedConnection, fallback};
use double::{Double, Faults};

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
        mode: None,
        subject: PodMatch { namespaces: NamespaceMatch::Named("shop".into()), pods: Selector::everything() },
        ingress: Some(Vec::new()),
        egress: None,
        origin: None,
    })
}

/// Allows ingress from pods with the label `app=web`.
fn from_web() -> Policy {
    let pods = PodMatch {
        namespaces: NamespaceMatch::Named("shop".into()),
        pods: Selector::of_labels([("app", "web")]),
    };
    let rule = Rule {
        name: None,
        action: RuleAction::Accept,
        peers: Some(vec![PeerEntry { peer: Peer::Pods(pods), origin: None }]),
        ports: None,
        origin: None,
    };
    Policy { ingress: Some(vec![rule]), ..(*deny_ingress()).clone() }
}

fn deny() -> Vec<Change> {
    vec![Change::SetPolicy(deny_ingress())]
}

/// A connection to the database from this address.
fn from(client: &str) -> TrackedConnection {
    let tuple = FiveTuple {
        source: address(client),
        destination: address("10.0.0.1"),
        protocol: Protocol::Tcp,
        source_port: 40_000,
        port: 5432,
    };
    TrackedConnection { tuple, revoked: false, midstream: false }
}

fn agent(reject: &[bool]) -> NodeAgent<Double> {
    let mut plane = Double::new(Arc::default(), Arc::default());
    plane.reject = reject.iter().copied().collect();
    plane.connections.insert(7, from("10.0.0.9"));
    let clock = Clock(Box::new(plane.clock()));
    NodeAgent { clock, ..NodeAgent::new("n1".into(), plane) }
}

fn wait(agent: &NodeAgent<Double>, milliseconds: u64) {
    agent.plane.now.fetch_add(milliseconds, Ordering::Relaxed);
}

/// Completes the review that is running. Returns everything that happened since and including `report`.
fn finish(agent: &mut NodeAgent<Double>, mut report: Report) -> Report {
    while agent.review_state().is_running {
        let Report { commits, errors, review, review_due, revoked, restored, review_succeeded, .. } =
            agent.tick();
        report.commits.extend(commits);
        report.errors.extend(errors);
        report.review += review;
        report.review_due = review_due;
        report.revoked += revoked;
        report.restored += restored;
        report.review_succeeded |= review_succeeded;
    }
    report
}

fn snapshot(agent: &mut NodeAgent<Double>, cluster: Cluster) -> Report {
    let report = agent.snapshot(cluster);
    finish(agent, report)
}

fn apply(agent: &mut NodeAgent<Double>, changes: Vec<Change>) -> Report {
    let report = agent.apply(changes);
    finish(agent, report)
}

fn tick(agent: &mut NodeAgent<Double>) -> Report {
    let report = agent.tick();
    finish(agent, report)
}

/// When the pending review is due, since the agent was created.
fn due(agent: &NodeAgent<Double>, report: &Report) -> Option<Duration> {
    report.review_due.map(|at| at - agent.started)
}

#[test]
fn a_connection_is_revoked_when_it_becomes_denied_and_restored_when_it_is_allowed_again() {
    let mut agent = agent(&[]);
    assert_eq!(snapshot(&mut agent, cluster()).revoked, 0);
    assert_eq!(apply(&mut agent, deny()).revoked, 1);
    assert!(agent.plane.connections[&7].revoked);
    assert_eq!(apply(&mut agent, deny()).revoked, 0, "the same policy again");
    let report = apply(&mut agent, vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.revoked, report.restored), (0, 1));
    assert!(!agent.plane.connections[&7].revoked);
}

fn pod(name: &str, ip: &str, node: &str, labels: &[(&str, &str)]) -> Pod {
    Pod {
        node: Some(node.into()),
        ..Pod::new(ObjectKey::new("shop", name), labels.iter().copied().collect(), vec![address(ip)])
    }
}

/// Two local pods, and a policy that allows ingress from pods with a label, of which there are two on another node.
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
fn only_the_address_of_a_removed_or_relabelled_peer_is_listed() {
    let gone = Change::RemovePod(ObjectKey::new("shop", "web1"));
    let relabelled = Change::SetPod(pod("web1", "10.0.0.9", "n2", &[("app", "other")]));
    for change in [gone, relabelled] {
        let mut agent = agent(&[]);
        let other = from("10.0.0.10");
        agent.plane.connections.insert(8, other);
        assert_eq!(snapshot(&mut agent, shop()).revoked, 0);
        agent.plane.listings.clear();
        assert_eq!(apply(&mut agent, vec![change]).revoked, 1);
        assert_eq!(agent.plane.listings, [BTreeSet::from([address("10.0.0.9")])]);
        assert!(agent.plane.connections[&7].revoked && !agent.plane.connections[&8].revoked);
        // It comes back, which restricts nothing: the revoked connection is in the set.
        let back = pod("web1", "10.0.0.9", "n2", &[("app", "web")]);
        assert_eq!(apply(&mut agent, vec![Change::SetPod(back)]).restored, 1);
        assert_eq!(agent.plane.listings.last(), Some(&BTreeSet::from([address("10.0.0.9")])));
    }
}

#[test]
fn a_commit_names_the_owners_that_changed_and_no_others() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, shop());
    let names = |of: &[(&str, &str)]| -> BTreeMap<IpAddr, ObjectKey> {
        of.iter().map(|(ip, pod)| (address(ip), ObjectKey::new("shop", *pod))).collect()
    };
    assert_eq!(std::mem::take(&mut agent.plane.named), [names(&[("10.0.0.1", "db"), ("10.0.0.2", "db2")])]);
    agent.plane.sent.clear();
    // The new pod has the policies and the labels of the old one: the plan stays as it is.
    let plan = agent.plan().clone();
    let passes =
        [Change::RemovePod(ObjectKey::new("shop", "db2")), Change::SetPod(pod("db3", "10.0.0.2", "n1", &[]))];
    let report = apply(&mut agent, passes.to_vec());
    assert_eq!(*agent.plan(), plan);
    assert_eq!((report.errors.len(), &*agent.plane.sent), (0, &["commit"][..]));
    assert_eq!(std::mem::take(&mut agent.plane.named), [names(&[("10.0.0.2", "db3")])]);
    // Neither other properties of the same pod nor pods of other nodes.
    agent.plane.sent.clear();
    apply(&mut agent, vec![Change::SetPod(pod("db3", "10.0.0.2", "n1", &[("unused", "label")]))]);
    apply(&mut agent, vec![Change::SetPod(pod("far", "10.0.0.77", "n2", &[]))]);
    assert_eq!((agent.plane.named.len(), agent.plane.sent.len()), (0, 0));
    apply(&mut agent, vec![Change::SetPod(pod("db4", "10.0.0.4", "n1", &[]))]);
    assert_eq!(std::mem::take(&mut agent.plane.named), [names(&[("10.0.0.4", "db4")])]);
}

#[test]
fn owners_that_changed_while_the_kernel_refused_are_all_named_by_the_next_try() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, shop());
    agent.plane.reject = [true, true, true].into();
    let new = |name: &str| Change::SetPod(pod(name, "10.0.0.2", "n1", &[]));
    let gone = |name: &str| Change::RemovePod(ObjectKey::new("shop", name));
    assert!(!apply(&mut agent, vec![gone("db2"), new("db3")]).errors.is_empty());
    agent.plane.named.clear();
    apply(&mut agent, vec![gone("db3"), new("db4")]);
    let named = agent.plane.named.last().and_then(|names| names.get(&address("10.0.0.2")));
    assert_eq!(named, Some(&ObjectKey::new("shop", "db4")));
}

#[test]
fn a_failed_review_is_repeated_by_the_next() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, shop());
    agent.plane.reject_revocations = 1;
    let report = apply(&mut agent, vec![Change::RemovePod(ObjectKey::new("shop", "web1"))]);
    assert_eq!((report.revoked, report.errors.len()), (0, 1));
    assert_eq!(due(&agent, &report), Some(Duration::from_secs(1)), "after a pause");
    // An unrelated change.
    wait(&agent, 1000);
    let report = apply(&mut agent, vec![Change::RemovePod(ObjectKey::new("shop", "web2"))]);
    assert_eq!((report.revoked, report.errors.len()), (1, 0));
    assert!(agent.plane.connections[&7].revoked);
    assert_eq!(report.review_due, None);
}

#[test]
fn removals_close_together_share_a_review_and_the_first_is_immediate() {
    let mut agent = agent(&[]);
    let other = from("10.0.0.10");
    agent.plane.connections.insert(8, other);
    snapshot(&mut agent, shop());
    agent.plane.listings.clear();
    agent.plane.listing_takes = 10;
    let gone = |name| vec![Change::RemovePod(ObjectKey::new("shop", name))];

    let report = apply(&mut agent, gone("web1"));
    assert_eq!((report.revoked, report.review, report.review_due), (1, Duration::from_millis(10), None));
    // A pause of 40 ms, in which the rules change at once and the review is postponed.
    wait(&agent, 5);
    let report = apply(&mut agent, gone("web2"));
    assert_eq!((report.revoked, report.commits.len()), (0, 1));
    assert_eq!(due(&agent, &report), Some(Duration::from_millis(50)));
    let report = apply(&mut agent, vec![Change::SetPod(pod("db3", "10.0.0.3", "n1", &[]))]);
    assert_eq!(report.revoked, 0);
    assert_eq!(tick(&mut agent).revoked, 0, "too early");
    assert_eq!(agent.plane.listings.len(), 1);

    wait(&agent, 35);
    let report = tick(&mut agent);
    assert_eq!((report.revoked, report.review_due), (1, None));
    assert_eq!(agent.plane.listings.len(), 2);
    // The group is empty now, so the local pods are listed instead of the peer.
    for local in ["10.0.0.1", "10.0.0.3"] {
        assert!(agent.plane.listings[1].contains(&address(local)), "{:?}", agent.plane.listings);
    }
    assert!(agent.plane.connections.values().all(|c| c.revoked));
    assert_eq!(tick(&mut agent).revoked, 0);
    assert_eq!(agent.plane.listings.len(), 2, "no review is pending");
}

#[test]
fn a_connection_allowed_again_before_its_review_is_not_revoked() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, shop());
    agent.plane.listing_takes = 10;
    apply(&mut agent, vec![Change::RemovePod(ObjectKey::new("shop", "web2"))]);
    apply(&mut agent, vec![Change::SetPod(pod("web1", "10.0.0.9", "n2", &[]))]);
    let report = apply(&mut agent, vec![Change::SetPod(pod("web1", "10.0.0.9", "n2", &[("app", "web")]))]);
    wait(&agent, 100);
    let later = tick(&mut agent);
    assert_eq!((report.revoked, later.revoked, later.restored), (0, 0, 0));
    assert!(!agent.plane.connections[&7].revoked);
}

#[test]
fn changes_that_arrive_together_are_one_transaction() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    let pods = (20..60).map(|i| pod(&format!("p{i}"), &format!("10.0.0.{i}"), "n1", &[("app", "web")]));
    let mut changes: Vec<Change> = pods.map(Change::SetPod).collect();
    changes.push(Change::SetPolicy(Arc::new(from_web())));
    let report = apply(&mut agent, changes);
    assert_eq!(report.commits.len(), 1);
    assert_eq!(agent.plane.programmed, *agent.plan());
}

#[test]
fn a_rejection_is_retried_at_once() {
    let mut agent = agent(&[false, true, false]);
    snapshot(&mut agent, cluster());
    let report = apply(&mut agent, deny());
    assert_eq!(report.errors.len(), 1);
    assert!(report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
}

#[test]
fn pods_whose_policies_are_rejected_are_cut_off_until_a_later_change_succeeds() {
    let mut agent = agent(&[false, true, true, false, false]);
    snapshot(&mut agent, cluster());
    let report = apply(&mut agent, deny());
    assert_eq!(report.errors.len(), 2);
    assert_eq!(report.cut_off, [(Direction::Ingress, address("10.0.0.1"))]);
    assert_eq!(report.revoked, 1, "established connections are revoked too");
    let closed = agent.plane.programmed.ingress[&address("10.0.0.1")];
    assert_eq!(closed, fallback::deny_all_id(Direction::Ingress));

    // Any later change programs the whole difference.
    let report = apply(&mut agent, vec![Change::RemovePod(ObjectKey::new("shop", "other"))]);
    assert!(report.errors.is_empty() && report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
}

/// What is only recorded cuts no pod off: without it, the kernel accepts the policies that are enforced.
#[test]
fn policies_in_audit_mode_that_the_kernel_rejects_leave_the_enforced_ones_programmed() {
    let mut agent = agent(&[false, true, true, false, false]);
    snapshot(&mut agent, cluster());
    let audited =
        Policy { key: PolicyKey::network_policy("shop", "audited"), mode: Some(Mode::Audit), ..from_web() };
    let report = apply(&mut agent, [deny(), vec![Change::SetPolicy(Arc::new(audited))]].concat());
    assert_eq!((report.errors.len(), &report.cut_off[..], &report.not_enforced[..]), (2, &[][..], &[][..]));
    assert!(!agent.plan().audit.is_empty());
    assert_eq!(agent.plane.programmed, agent.plan().without_audit());
    let report = apply(&mut agent, vec![Change::RemovePod(ObjectKey::new("shop", "other"))]);
    assert!(report.errors.is_empty() && report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
}

/// If our table can't be changed, the pods are cut off in the separate table until the plan is programmed.
#[test]
fn pods_that_the_fallback_plan_can_not_close_are_cut_off_in_the_separate_table() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    let before = agent.plane.programmed.clone();
    agent.plane.kernel().faults.owned = true;
    let report = apply(&mut agent, deny());
    assert_eq!(report.errors.len(), 3, "the change, the resync, and the fallback plan");
    let db = (Direction::Ingress, address("10.0.0.1"));
    assert_eq!((&report.cut_off[..], &report.not_enforced[..]), (&[db][..], &[][..]));
    assert_eq!((&agent.plane.programmed, agent.plane.kernel().cut_off.contains(&db)), (&before, true));
    assert!(tick(&mut agent).commits.is_empty(), "not before the pause has passed");
    assert_eq!(tick(&mut agent).cut_off, [db], "still cut off");

    agent.plane.kernel().faults.owned = false;
    wait(&agent, 61_000);
    let report = tick(&mut agent);
    assert!(report.errors.is_empty() && report.cut_off.is_empty());
    assert_eq!(agent.plane.programmed, *agent.plan());
    assert!(agent.plane.kernel().cut_off.is_empty());
}

#[test]
fn a_pod_that_can_not_be_cut_off_is_reported_as_not_enforced() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    agent.plane.kernel().faults = Faults { owned: true, no_cut_off: true, ..Faults::default() };
    let report = apply(&mut agent, deny());
    let db = (Direction::Ingress, address("10.0.0.1"));
    assert_eq!((&report.cut_off[..], &report.not_enforced[..]), (&[][..], &[db][..]));
    // The separate table works again, our table still doesn't.
    agent.plane.kernel().faults.no_cut_off = false;
    wait(&agent, 61_000);
    let report = tick(&mut agent);
    assert_eq!((&report.cut_off[..], &report.not_enforced[..]), (&[db][..], &[][..]));
}

/// A rejected change is not sent again as it was: the kernel is read, and the difference to the plan is programmed.
#[test]
fn a_change_that_does_not_fit_the_kernel_is_computed_again() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    apply(&mut agent, deny());
    agent.plane.kernel().table.as_mut().unwrap().ingress.clear();
    agent.plane.sent.clear();
    let report = apply(&mut agent, vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.errors.len(), report.commits.len()), (1, 1));
    assert_eq!(agent.plane.sent, ["commit", "start"]);
    assert_eq!(agent.plane.kernel().table.as_ref(), Some(agent.plan()));
}

/// The kernel holds a table that allows less than the new one: the pods keep it, and no further change is sent.
#[test]
fn a_rejected_change_that_only_allows_more_closes_nothing() {
    let mut agent = agent(&[]);
    let mut denied = shop();
    denied.apply(Change::SetPolicy(deny_ingress()));
    denied.apply(Change::RemovePolicy(from_web().key));
    denied.apply(Change::SetPolicy(deny_ingress()));
    snapshot(&mut agent, denied);
    let before = agent.plane.programmed.clone();
    agent.plane.kernel().faults = Faults { owned: true, no_cut_off: true, ..Faults::default() };
    agent.plane.sent.clear();
    let report = apply(&mut agent, vec![Change::SetPolicy(Arc::new(from_web()))]);
    assert!(agent.reconciler().is_behind());
    assert!(report.cut_off.is_empty() && report.not_enforced.is_empty(), "{report:?}");
    assert_eq!(agent.plane.sent, ["commit", "start", "holds"]);
    assert_eq!(agent.plane.kernel().table.as_ref(), Some(&before));
}

/// The first start that succeeds reviews all connections, which a previous run may have left, not only those of later changes.
#[test]
fn all_connections_are_reviewed_after_the_first_start_that_succeeds() {
    let mut agent = agent(&[true, true, true]);
    let mut world = shop();
    world.apply(Change::RemovePod(ObjectKey::new("shop", "web1")));
    let report = snapshot(&mut agent, world);
    assert_eq!((report.errors.len(), report.revoked), (3, 0), "two tries and the fallback plan");
    assert_eq!(report.cut_off.len(), 2);
    wait(&agent, 61_000);
    let report = tick(&mut agent);
    assert_eq!((report.errors.len(), report.revoked), (0, 1));
    let local = ["10.0.0.1", "10.0.0.2"].map(address).into();
    assert_eq!(agent.plane.listings, [local]);
}

/// Deleting an entry deletes its label, and the agent's state ends with the agent. The set in the kernel stays.
#[test]
fn a_revoked_connection_is_restored_although_its_entry_or_its_pod_is_gone() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    apply(&mut agent, deny());
    let tuple = agent.plane.connections[&7].tuple;
    assert!(agent.plane.is_revoked(&tuple));
    agent.plane.connections.clear();
    let report = apply(&mut agent, vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.restored, agent.plane.is_revoked(&tuple)), (1, false), "the entry was flushed");

    let mut agent = self::agent(&[]);
    agent.plane.revoked.insert(tuple);
    agent.plane.connections.get_mut(&7).unwrap().revoked = true;
    let report = snapshot(&mut agent, Cluster::default());
    assert_eq!(
        (report.restored, agent.plane.is_revoked(&tuple)),
        (1, false),
        "its pod was gone at the start"
    );
    assert!(!agent.plane.connections[&7].revoked);
}

/// After a flush the first packet is the server's, so that the entry has client and server exchanged.
#[test]
fn a_connection_with_a_reversed_entry_is_revoked_again_and_stays_revoked() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    apply(&mut agent, deny());
    let tuple = agent.plane.connections[&7].tuple;
    for (id, midstream) in [(8, true), (9, false)] {
        let reversed = TrackedConnection { tuple: tuple.reversed(), revoked: false, midstream };
        agent.plane.connections = [(id, reversed)].into();
        // As after a repair.
        wait(&agent, 1000);
        agent.review_all();
        assert_eq!(tick(&mut agent).revoked, 1);
        assert!(agent.plane.connections[&id].revoked && agent.plane.is_revoked(&tuple));
        wait(&agent, 1000);
        agent.review_all();
        let report = tick(&mut agent);
        assert_eq!((report.revoked, report.restored), (0, 0));
    }
}

/// Revoked connections are remembered for days. They must not make every later change list connections.
#[test]
fn a_change_that_allows_nothing_more_lists_no_connections() {
    let mut agent = agent(&[]);
    snapshot(&mut agent, cluster());
    assert_eq!(apply(&mut agent, deny()).revoked, 1);
    agent.plane.listings.clear();
    wait(&agent, 1000);
    let report = apply(&mut agent, vec![Change::SetPod(pod("web", "10.0.1.7", "n2", &[("app", "web")]))]);
    assert_eq!((report.revoked, report.review_due, agent.plane.listings.len()), (0, None, 0));
    let report = apply(&mut agent, vec![Change::RemovePolicy(deny_ingress().key.clone())]);
    assert_eq!((report.restored, agent.plane.listings.len()), (1, 1));
}

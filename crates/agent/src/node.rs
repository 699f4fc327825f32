//! One node's agent: the reconciler's actions performed on a data plane.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster, Delta, Direction, Name, NodePlan};

use crate::{
    Action, DataPlane, DataPlaneError, Input, Programmed, Reconciler, closed,
    stale::{is_allowed, narrowed},
};

/// What one input led to.
#[derive(Debug, Default)]
pub struct Report {
    /// What was programmed, commit by commit; empty if nothing had to change.
    pub commits: Vec<Programmed>,
    /// How long compiling took.
    pub compile: Duration,
    /// How long the kernel transactions took.
    pub commit: Duration,
    /// Connections that were cut because they are denied now.
    pub revoked: usize,
    /// Connections cut earlier that are allowed again.
    pub restored: usize,
    /// What went wrong, worst last. Not empty: enforcement is not what it should be, and [`Report::cut_off`] says for
    /// whom; it is tried again at the next tick.
    pub errors: Vec<DataPlaneError>,
    /// Local addresses that are cut off because their policies can't be programmed.
    pub cut_off: Vec<(Direction, IpAddr)>,
}

/// The agent of one node: a [`Reconciler`] and the one executor of its actions.
///
/// It works on the thread that calls it. Dropping it leaves the rules in the kernel.
#[derive(Debug)]
pub struct NodeAgent<D> {
    reconciler: Reconciler,
    plane: D,
    started: Instant,
    /// One end of each connection that may carry our revocation mark, or that is still to be decided anew.
    revoked: BTreeSet<IpAddr>,
}

impl<D: DataPlane> NodeAgent<D> {
    /// An agent that waits for its first snapshot and touches nothing.
    pub fn new(node: Name, plane: D) -> Self {
        Self { reconciler: Reconciler::new(node), plane, started: Instant::now(), revoked: BTreeSet::new() }
    }

    /// The whole cluster, at first or again.
    pub fn snapshot(&mut self, cluster: Cluster) -> Report {
        self.handle(Input::Snapshot(cluster))
    }

    /// Some changes.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        self.handle(Input::Changes(changes))
    }

    /// Lets time pass: what was refused may be tried again.
    pub fn tick(&mut self) -> Report {
        self.handle(Input::Tick)
    }

    /// What the kernel should hold.
    #[must_use]
    pub fn plan(&self) -> &NodePlan {
        self.reconciler.plan()
    }

    /// What the kernel holds.
    #[must_use]
    pub fn data_plane(&mut self) -> &mut D {
        &mut self.plane
    }

    fn handle(&mut self, input: Input) -> Report {
        let mut report = Report::default();
        let begin = Instant::now();
        let mut actions = self.reconciler.handle(input, self.started.elapsed());
        report.compile = begin.elapsed();
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                if let Some(answer) = self.perform(action, &mut report) {
                    next.extend(self.reconciler.handle(answer, self.started.elapsed()));
                }
            }
            actions = next;
        }
        report
    }

    /// Performs one action; returns what to tell the reconciler about it.
    fn perform(&mut self, action: Action, report: &mut Report) -> Option<Input> {
        let begin = Instant::now();
        let done = match action {
            Action::Start => {
                // An earlier run may have left connections open or cut: all local ones are looked at.
                let local = self.reconciler.local_addresses();
                self.plane.start(self.reconciler.plan()).map(|programmed| (programmed, local))
            }
            Action::Commit(delta) => self.commit(&delta),
            Action::Resync => {
                let delta = self.plane.programmed().delta_to(self.reconciler.plan());
                self.commit(&delta)
            }
            Action::FailClosed => {
                self.fail_closed(report);
                return None;
            }
        };
        report.commit += begin.elapsed();
        match done {
            Ok((programmed, narrowed)) => {
                report.commits.push(programmed);
                self.review_connections(&narrowed, report);
                Some(Input::Committed)
            }
            Err(error) => {
                report.errors.push(error);
                Some(Input::Refused)
            }
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<(Programmed, BTreeSet<IpAddr>), DataPlaneError> {
        let narrowed = narrowed(self.plane.programmed(), self.reconciler.plan(), delta);
        Ok((self.plane.commit(delta)?, narrowed))
    }

    /// Programs the plan with the pods cut off whose policies the kernel does not hold.
    fn fail_closed(&mut self, report: &mut Report) {
        let fallback = closed::plan(self.reconciler.plan(), self.plane.programmed());
        report.cut_off = closed::cut_off(&fallback).collect();
        let delta = self.plane.programmed().delta_to(&fallback);
        let narrowed = narrowed(self.plane.programmed(), &fallback, &delta);
        match self.plane.commit(&delta) {
            Ok(programmed) => {
                report.commits.push(programmed);
                self.review_connections(&narrowed, report);
            }
            // Nothing more can be done from here: what the kernel holds stays, and the next tick tries again.
            Err(error) => report.errors.push(error),
        }
    }

    /// Decides existing connections anew: after the commit, so that what begins later meets the new rules and what
    /// began before is in the kernel's list.
    fn review_connections(&mut self, narrowed: &BTreeSet<IpAddr>, report: &mut Report) {
        let concerned: BTreeSet<IpAddr> = narrowed.union(&self.revoked).copied().collect();
        if concerned.is_empty() {
            return;
        }
        if let Err(error) = self.try_review(&concerned, report) {
            report.errors.push(error);
        }
    }

    fn try_review(
        &mut self,
        concerned: &BTreeSet<IpAddr>,
        report: &mut Report,
    ) -> Result<(), DataPlaneError> {
        // If something fails on the way, the next review looks at all of them again.
        self.revoked.clone_from(concerned);
        let host = self.plane.host_addresses()?;
        let mut revoked = BTreeSet::new();
        for (connection, entry) in self.plane.connections(concerned)? {
            let allowed = is_allowed(self.plane.programmed(), &host, &connection);
            match (allowed, connection.revoked) {
                (false, false) => {
                    self.plane.revoke(&entry)?;
                    report.revoked += 1;
                }
                (true, true) => {
                    self.plane.restore(&entry)?;
                    report.restored += 1;
                }
                (true, false) | (false, true) => {}
            }
            if !allowed {
                // The end by which it was found is enough to find it again.
                let by_source = concerned.contains(&connection.source);
                revoked.insert(if by_source { connection.source } else { connection.destination });
            }
        }
        self.revoked = revoked;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use palisade_policy::{
        Action as RuleAction, NamespaceMatch, ObjectKey, Peer, Phase, Pod, Policy, PolicyKey, Protocol, Rule,
        Selector, Tier,
        rules::{PeerEntry, PodMatch},
    };

    use super::*;
    use crate::Connection;

    /// A kernel that refuses the commits that `refuse` says and tracks one connection.
    #[derive(Default)]
    struct Scripted {
        programmed: NodePlan,
        refuse: Vec<bool>,
        connections: BTreeMap<u8, Connection>,
        asked: Vec<BTreeSet<IpAddr>>,
        refuse_revocations: usize,
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
            let is_concerned = |c: &Connection| ends.contains(&c.source) || ends.contains(&c.destination);
            let found = self.connections.iter().filter(|(_, c)| is_concerned(c));
            Ok(found.map(|(id, c)| (c.clone(), *id)).collect())
        }
        fn revoke(&mut self, id: &u8) -> Result<(), DataPlaneError> {
            if self.refuse_revocations > 0 {
                self.refuse_revocations -= 1;
                return Err(refused());
            }
            self.connections.get_mut(id).ok_or_else(refused)?.revoked = true;
            Ok(())
        }
        fn restore(&mut self, id: &u8) -> Result<(), DataPlaneError> {
            self.connections.get_mut(id).ok_or_else(refused)?.revoked = false;
            Ok(())
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
            subject: PodMatch {
                namespaces: NamespaceMatch::Named("shop".into()),
                pods: Selector::everything(),
            },
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

    fn agent(refuse: &[bool]) -> NodeAgent<Scripted> {
        let to_db = Connection {
            source: address("10.0.0.9"),
            destination: address("10.0.0.1"),
            protocol: Protocol::Tcp,
            port: 5432,
            revoked: false,
        };
        let plane = Scripted {
            refuse: refuse.to_vec(),
            connections: BTreeMap::from([(7, to_db)]),
            ..Scripted::default()
        };
        NodeAgent::new("n1".into(), plane)
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
            let other = Connection { source: address("10.0.0.10"), ..agent.plane.connections[&7].clone() };
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
        // A change of somebody else's.
        let report = agent.apply(vec![Change::RemovePod(ObjectKey::new("shop", "web2"))]);
        assert_eq!((report.revoked, report.errors.len()), (1, 0));
        assert!(agent.plane.connections[&7].revoked);
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
}

//! Applies the events, as the agent does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use palisade_api::{Client, Event, ResourceKind, WatchOptions, WatchState, watch};
use palisade_manifest::{Admission, Diagnostic, Input, LoadOptions, load};
use palisade_policy::{Change, Cluster, Policy};
use tokio::sync::mpsc::Receiver;

use super::server::Server;

/// The longest that a test waits for events, in virtual time.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The state after the events so far.
pub(crate) struct Follower {
    events: Receiver<Event>,
    /// `None` before the snapshot.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) states: BTreeMap<ResourceKind, WatchState>,
    /// All states of watches, in order.
    pub(crate) history: Vec<(ResourceKind, WatchState)>,
    pub(crate) findings: BTreeMap<String, Vec<Diagnostic>>,
    pub(crate) changes: Vec<Change>,
}

impl Follower {
    /// Watches a server with the default options of tests.
    pub(crate) fn of(server: &Server) -> Self {
        Self::with(server, Self::options())
    }

    pub(crate) fn with(server: &Server, options: WatchOptions) -> Self {
        Self::with_client(server.client(), options)
    }

    pub(crate) fn with_client(client: Client, options: WatchOptions) -> Self {
        Self {
            events: watch(client, options),
            cluster: None,
            states: BTreeMap::new(),
            history: Vec::new(),
            findings: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn options() -> WatchOptions {
        WatchOptions {
            discovery_interval: Duration::from_millis(100),
            absent_after: Duration::from_millis(400),
            initial_backoff: Duration::from_millis(20),
            max_backoff: Duration::from_millis(100),
            response_timeout: Duration::from_secs(5),
            ..WatchOptions::default()
        }
    }

    /// Applies events until `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                let event = self.events.recv().await.expect("the watch is running");
                self.apply(event);
            }
        };
        if tokio::time::timeout(TIMEOUT, wait).await.is_err() {
            panic!("timed out waiting for {what}; {}", self.report());
        }
    }

    /// Applies the events of a time span.
    pub(crate) async fn for_a_while(&mut self, span: Duration) {
        let end = tokio::time::Instant::now() + span;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.events.recv()).await {
            self.apply(event);
        }
    }

    pub(crate) async fn snapshot(&mut self) {
        self.until("the snapshot", |f| f.cluster.is_some()).await;
    }

    /// Applies events until the cluster is that of the server.
    pub(crate) async fn caught_up(&mut self, server: &Server) {
        let expected = expected(server);
        self.until("the server's cluster", |f| f.cluster.as_ref() == Some(&expected)).await;
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the snapshot was received")
    }

    /// Returns why a watch fails.
    pub(crate) fn why(&self, kind: ResourceKind) -> Option<&str> {
        match self.states.get(&kind) {
            Some(WatchState::Failing { why }) => Some(why),
            _ => None,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Snapshot(cluster) => {
                assert!(self.cluster.is_none(), "a second snapshot");
                self.cluster = Some(*cluster);
            }
            Event::Changes { changes, .. } => {
                assert!(!changes.is_empty());
                self.changes.extend(changes.iter().cloned());
                let cluster = self.cluster.as_mut().expect("changes follow the snapshot");
                changes.into_iter().for_each(|c| cluster.apply(c));
            }
            Event::Watch { kind, state } => {
                assert_ne!(self.states.get(&kind), Some(&state), "only new states are sent");
                self.history.push((kind, state.clone()));
                self.states.insert(kind, state);
            }
            Event::Findings { object, findings } => drop(self.findings.insert(object.to_string(), findings)),
        }
    }

    fn report(&self) -> String {
        let mut out = format!("states {:?}, findings {:?}", self.states, self.findings);
        match &self.cluster {
            None => out.push_str(", no snapshot"),
            Some(c) => {
                let (pods, policies) = (c.pods.len(), c.policies.keys());
                let _ = write!(out, ", {pods} pods, policies {:?}", policies.collect::<BTreeSet<_>>());
            }
        }
        out
    }
}

/// Returns the server's cluster, decoded as manifests are.
pub(crate) fn expected(server: &Server) -> Cluster {
    let options = LoadOptions { addresses: None, admission: Admission::Passed, ..LoadOptions::default() };
    let text = server.everything();
    let declared: BTreeSet<String> = serde_json::from_str::<serde_json::Value>(&text).unwrap()["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|o| o["kind"] == "Namespace")
        .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let loaded = load(&[Input::Text { name: "server".into(), text }], &options);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let mut cluster = loaded.cluster;
    cluster.namespaces.retain(|name, _| declared.contains(&**name));
    for policy in cluster.policies.values_mut() {
        let mut without: Policy = (**policy).clone();
        without.origin = None;
        for rule in without.ingress.iter_mut().chain(&mut without.egress).flatten() {
            rule.origin = None;
            rule.peers.iter_mut().flatten().for_each(|p| p.origin = None);
            rule.ports.iter_mut().flatten().for_each(|p| p.origin = None);
        }
        *policy = without.into();
    }
    cluster
}

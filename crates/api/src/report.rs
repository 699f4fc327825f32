//! What is reported back to the cluster: Events, and the conditions of cluster-wide policies.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use palisade_manifest::Diagnostic;
use palisade_policy::Name;

use crate::{Access, ObjectRef, watch::doors::Doors};

mod conditions;
mod election;
mod ledger;
mod notices;
mod writer;

use ledger::{Ledger, Outcome};

/// How to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    /// This node.
    pub node: Name,
    /// The namespace of the Lease.
    pub namespace: String,
    /// How to connect anew, as in [`crate::WatchOptions::access`].
    pub access: Option<Access>,
    /// Trouble of this node is told after a random part of this time, if it still stands: a thousand nodes may have the same.
    pub spread: Duration,
    /// The first look at the Lease comes after a random part of this time.
    pub first_look: Duration,
}

impl ReportOptions {
    /// The options for an agent on this node.
    #[must_use]
    pub fn of_node(node: impl Into<Name>) -> Self {
        Self {
            node: node.into(),
            namespace: "palisade-system".to_owned(),
            access: None,
            spread: Duration::from_secs(30),
            first_look: Duration::from_secs(5),
        }
    }
}

/// Takes what is to be reported. Never waits and never fails: what can't be written is tried again, and only the latest is
/// kept. The writing ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    spread: Duration,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A ledger is whole between any two statements that could panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// What is wrong with an object now: [`crate::Event::Findings`] as it came. To be called when the changes that came before
    /// have been given to the kernel, and followed by [`Reporter::programmed`]: that speaks of all objects told so far.
    pub fn findings(&self, object: ObjectRef, findings: Vec<Diagnostic>) {
        self.shared.ledger().findings(object, findings, Instant::now());
    }

    /// The kernel has taken everything that has been told so far; or it hasn't, and why. To be called after each
    /// transaction.
    pub fn programmed(&self, outcome: Result<(), String>) {
        let spread = self.spread.mul_f64(fastrand::f64());
        let outcome = match outcome {
            Ok(()) => Outcome::Taken,
            Err(why) => Outcome::Refused(why),
        };
        self.shared.ledger().programmed(outcome, Instant::now(), spread);
    }

    /// Nobody knows that the kernel enforces what was programmed, or it surely doesn't: no policy counts as programmed on this
    /// node. Says why.
    pub fn not_enforced(&self, why: String) {
        let spread = self.spread.mul_f64(fastrand::f64());
        self.shared.ledger().programmed(Outcome::NotEnforced(why), Instant::now(), spread);
    }

    /// All policies that ask for more than this node gives, each with what that means in words: each is an Event about the
    /// policy for as long as it is among them. The uid of a policy may be left empty.
    pub fn over_budget(&self, policies: Vec<(ObjectRef, String)>) {
        let spread = self.spread.mul_f64(fastrand::f64());
        self.shared.ledger().over_budget(policies, Instant::now(), spread);
    }
}

/// Starts reporting, on the tokio runtime that it is called on.
///
/// * Each agent tells what is wrong on its own node, as an Event about the Node: the kernel refuses a transaction; and as
///   Events about the policies concerned: they ask for more than the node gives.
/// * What is wrong with an object itself, all agents see. One of them, elected by the Lease `palisade-status-writer`, tells
///   it as an Event about the object, and writes the conditions `palisade.dev/Accepted` and `palisade.dev/Programmed` of
///   cluster-wide policies: only when they differ from what is there, with the generation that they are about.
///   `Programmed` speaks for the writer's own node; the others speak up when it isn't so for them.
/// * Events come from `palisade.dev/agent`, each notice as one Event whose count goes up, at most 25 at once and then one
///   in ten seconds.
///
/// The rights that it needs: `create` and `patch` on `events.events.k8s.io`; `get` and `patch` on the `status` of
/// `clusternetworkpolicies`, `adminnetworkpolicies` and `baselineadminnetworkpolicies` in `policy.networking.k8s.io`; in its own
/// namespace `create` on `leases.coordination.k8s.io`, and `get` and `update` on the one called `palisade-status-writer`. A
/// right that is missing is told once in the log, and costs that report alone.
#[must_use]
pub fn report(client: Client, options: ReportOptions) -> Reporter {
    let ledger = Ledger::new(Arc::clone(&options.node), Instant::now());
    let shared = Arc::new(Shared { ledger: Mutex::new(ledger) });
    let spread = options.spread;
    let doors = Doors::new(client, options.access.clone());
    tokio::spawn(writer::run(doors, options, Arc::downgrade(&shared)));
    Reporter { shared, spread }
}

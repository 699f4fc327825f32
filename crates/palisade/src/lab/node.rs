//! What each node of the lab runs: the node agent's own loop.

use std::sync::Arc;

use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_lab::{Enforce, EnforceError, enforce::MakeEnforcer};
use palisade_policy::{Change, Cluster, Name};

/// Makes the agent of a node.
pub(crate) fn agents() -> MakeEnforcer {
    Arc::new(|name: &Name| match NftDataPlane::open() {
        Ok(plane) => Box::new(Agent(NodeAgent::new(name.clone(), plane))) as Box<dyn Enforce>,
        Err(error) => Box::new(Broken(Some(error.into()))),
    })
}

struct Agent(NodeAgent<NftDataPlane>);

impl Enforce for Agent {
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError> {
        outcome(self.0.snapshot(cluster))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError> {
        outcome(self.0.apply(changes.to_vec()))
    }
}

fn outcome(report: Report) -> Result<(), EnforceError> {
    match report.errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// An agent that never came to be: the kernel has no nftables.
struct Broken(Option<EnforceError>);

impl Broken {
    fn error(&mut self) -> EnforceError {
        self.0.take().unwrap_or_else(|| "the agent of this node has not started".into())
    }
}

impl Enforce for Broken {
    fn start(&mut self, _: &Cluster) -> Result<(), EnforceError> {
        Err(self.error())
    }

    fn apply(&mut self, _: &[Change]) -> Result<(), EnforceError> {
        Err(self.error())
    }
}

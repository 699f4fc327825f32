//! The real thing as a node's enforcer: the agent's reconcile loop on the kernel's nftables.

use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_policy::{Change, Cluster, Name};

use crate::enforce::{Enforce, EnforceError, MakeEnforcer};

/// Every node runs Palisade's own agent.
#[must_use]
pub fn palisade() -> MakeEnforcer {
    std::sync::Arc::new(|node: &Name| {
        Box::new(Agent { node: node.clone(), running: None }) as Box<dyn Enforce>
    })
}

struct Agent {
    node: Name,
    running: Option<NodeAgent<NftDataPlane>>,
}

impl Enforce for Agent {
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError> {
        // Opened here and not before: the sockets belong to the namespace of the thread that opens them.
        let agent = self.running.insert(NodeAgent::new(self.node.clone(), NftDataPlane::open()?));
        enforced(agent.snapshot(cluster.clone()))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError> {
        let agent = self.running.as_mut().ok_or("the agent was not started")?;
        enforced(agent.apply(changes.to_vec()))
    }
}

/// The agent goes on after errors, with what it can't program cut off. A lab wants to hear of any.
fn enforced(mut report: Report) -> Result<(), EnforceError> {
    match report.errors.pop() {
        None => Ok(()),
        Some(worst) => Err(worst.into()),
    }
}

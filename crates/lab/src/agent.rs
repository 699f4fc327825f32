//! The agent as a node's enforcer: its reconcile loop with the kernel's nftables.

use std::{thread, time::Instant};

use palisade_agent::{NftDataPlane, NodeAgent, Report};
use palisade_nft::EnforcerOptions;
use palisade_policy::{Change, Cluster, Name};

use crate::enforce::{Enforce, EnforceError, MakeEnforcer};

/// Returns a constructor of enforcers that run Palisade's agent.
#[must_use]
pub fn palisade() -> MakeEnforcer {
    palisade_with(EnforcerOptions::default())
}

/// [`palisade`] with other options.
#[must_use]
pub fn palisade_with(options: EnforcerOptions) -> MakeEnforcer {
    std::sync::Arc::new(move |node: &Name| {
        Box::new(Agent { node: node.clone(), options: options.clone(), running: None }) as Box<dyn Enforce>
    })
}

struct Agent {
    node: Name,
    options: EnforcerOptions,
    running: Option<NodeAgent<NftDataPlane>>,
}

impl Enforce for Agent {
    fn start(&mut self, cluster: &Cluster) -> Result<(), EnforceError> {
        // Opened here because sockets belong to the namespace of the thread that opens them.
        let plane = NftDataPlane::open_with(self.options.clone())?;
        let agent = self
            .running
            .insert(NodeAgent::in_mode(self.node.clone(), plane, cluster.mode).denying_by(cluster.deny));
        let report = agent.snapshot(cluster.clone());
        enforced(agent, report)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), EnforceError> {
        let agent = self.running.as_mut().ok_or("the agent was not started")?;
        let report = agent.apply(changes.to_vec());
        enforced(agent, report)
    }

    fn refresh_links(&mut self) -> Result<(), EnforceError> {
        let agent = self.running.as_mut().ok_or("the agent was not started")?;
        Ok(agent.data_plane().refresh_links_now().map(drop)?)
    }
}

/// Waits until established connections are re-evaluated too. Returns the last error of the report: the agent continues after
/// errors, with the pods that it can't program cut off, but a lab must fail.
fn enforced(agent: &mut NodeAgent<NftDataPlane>, mut report: Report) -> Result<(), EnforceError> {
    loop {
        if let Some(worst) = report.errors.pop() {
            return Err(worst.into());
        }
        let Some(due) = report.review_due else { return Ok(()) };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        report = agent.tick();
    }
}

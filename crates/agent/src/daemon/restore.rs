//! Closes the node's pods after a restart of the node, until the agent has programmed the present policies ([`crate::state`]).

use std::path::Path;

use palisade_nft::{ClosedPods, Kernel, close_node};
use palisade_policy::Name;

use super::{
    error::DaemonError,
    setup::{enforcer_options, take_lock},
};
use crate::{
    NodeAgent,
    config::Config,
    data_plane::DataPlane,
    error_chain,
    state::{NodeState, StateFile},
};

/// What [`restore`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// New connections of these pods are denied.
    Closed(String),
    /// The rules of an agent are in place. Nothing was changed.
    HasRules,
    /// No agent has run on this node with this state directory. Nothing was changed.
    NoState,
}

/// Closes the pods of a node that has restarted. For a service that runs before the container runtime; an agent does it by itself when it
/// starts, which is later.
///
/// # Errors
/// If an agent runs, no state directory is set, or the kernel refuses.
pub fn restore(config: &Config) -> Result<Restored, DaemonError> {
    let node = config.node()?;
    let directory = config.state_dir.as_deref().ok_or(DaemonError::NoStateDirectory)?;
    let _lock = take_lock(config)?;
    let (pods, _) = read(directory, &node);
    close(config, &node, pods)
}

/// Does the same when an agent starts. Returns the known state.
pub(super) fn at_start(config: &Config, node: &Name) -> Option<NodeState> {
    let (pods, state) = read(config.state_dir.as_deref()?, node);
    if let Err(error) = close(config, node, pods) {
        let err = error_chain::with_causes(&error);
        tracing::error!(err, "cannot deny new connections of pods, they are open until the first snapshot");
    }
    state
}

/// Returns what must be closed, and the state that is known.
fn read(directory: &Path, node: &Name) -> (Option<ClosedPods>, Option<NodeState>) {
    match StateFile::new(directory).read(node) {
        Ok(state) => (state.as_ref().map(NodeState::closed_pods), state),
        Err(error) => {
            let err = error_chain::with_causes(&error);
            tracing::warn!(err, "node state unusable, the ranges of this node's pods are unknown");
            (Some(ClosedPods::Forwarded), None)
        }
    }
}

fn close(config: &Config, node: &Name, pods: Option<ClosedPods>) -> Result<Restored, DaemonError> {
    let Some(pods) = pods else { return Ok(Restored::NoState) };
    if !close_node(&mut Kernel::open()?, &enforcer_options(config), &pods)? {
        return Ok(Restored::HasRules);
    }
    let pods = match pods {
        ClosedPods::In(ranges) => ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        ClosedPods::Forwarded => "all that the node forwards".to_owned(),
    };
    tracing::info!(%node, pods, "denied new connections of this node's pods until their policies are programmed");
    Ok(Restored::Closed(pods))
}

/// Writes the state after a one-shot command has programmed the kernel.
pub(super) fn keep<D: DataPlane>(config: &Config, agent: &NodeAgent<D>) {
    let Some(directory) = &config.state_dir else { return };
    let (file, reconciler) = (StateFile::new(directory), agent.reconciler());
    let before = file.read(reconciler.node()).ok().flatten();
    let state = NodeState::of(reconciler.cluster(), reconciler.node(), reconciler.plan(), before.as_ref());
    if before.as_ref() == Some(&state) {
        return;
    }
    if let Err(error) = file.write(&state) {
        log_unwritten(&error);
    }
}

/// Logs that the state could not be written.
pub(super) fn log_unwritten(error: &crate::state::StateError) {
    let err = error_chain::with_causes(error);
    tracing::warn!(err, "cannot write the node state, a restart of the node uses the last one");
}

//! Commands that end by themselves: program once, print the plan, remove everything.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use palisade_api::{Event, WatchState};
use palisade_manifest::{Diagnostic, collapse};
use palisade_nft::{Kernel, NodeLinks, conntrack};
use palisade_policy::{Cluster, Compiler, Name};

use super::{
    error::DaemonError,
    error_log::log_finding,
    listener::SocketError,
    node_name, restore,
    setup::{enforcer_options, open_plane, runtime, take_lock, watch_cluster},
};
use crate::{
    NftDataPlane, NodeAgent, Report,
    cni::{Records, uninstall},
    config::{Config, SourceChoice},
    error_chain,
    names::NamesFile,
    source::directory,
    state::StateFile,
    view::PlanView,
};

/// How long these commands wait for a complete snapshot from the API server.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// A plan that was not programmed.
#[derive(Debug)]
pub struct Planned {
    /// The plan as values that can be displayed.
    pub view: PlanView,
    /// The plan in the syntax of `nft`.
    pub nftables: String,
}

/// Compiles this node's plan. Doesn't touch the kernel and requires no privileges.
///
/// # Errors
/// If the source can't be read.
pub fn dry_run(config: &Config) -> Result<Planned, DaemonError> {
    let node = config.node()?;
    let cluster = read_cluster(config, &node)?;
    let mut compiler = Compiler::new(node.clone()).in_mode(config.mode.into()).denying_by(config.deny.into());
    compiler.apply_all(cluster.into_changes());
    let view = PlanView::of(compiler.cluster(), &node, compiler.plan());
    let nftables = palisade_nft::text(compiler.plan(), &enforcer_options(config), &NodeLinks::default())
        .map_err(palisade_nft::Error::from)?;
    Ok(Planned { view, nftables })
}

/// The result of programming once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// The kernel holds the plan, and established connections were re-evaluated.
    Done,
    /// The kernel did not accept the whole plan.
    Refused,
    /// The kernel holds the plan, but established connections that it denies were not revoked.
    NotReviewed,
}

/// Programs the kernel with the current state of the source.
///
/// # Errors
/// As [`run`](super::run), and if the source can't be read.
pub fn once(config: &Config) -> Result<Once, DaemonError> {
    let node = config.node()?;
    let _lock = take_lock(config)?;
    let plane = open_plane(config)?;
    let cluster = read_cluster(config, &node)?;
    let mut agent =
        NodeAgent::in_mode(node.clone(), plane, config.mode.into()).denying_by(config.deny.into());
    let mut report = agent.snapshot(cluster);
    finish_review(&mut agent, &mut report);
    let refused = report.errors.len() - usize::from(report.review_failed);
    for (index, error) in report.errors.iter().enumerate() {
        let err = error_chain::with_causes(error);
        if index < refused {
            tracing::error!(err, "programming the kernel failed");
        } else {
            tracing::error!(err, "re-evaluating established connections failed");
        }
    }
    for (direction, address) in &report.cut_off {
        super::shortfall::log_cut_off(agent.reconciler(), *direction, *address);
    }
    for (direction, address) in &report.not_enforced {
        super::shortfall::log_not_enforced(agent.reconciler(), *direction, *address);
    }
    restore::keep(config, &agent);
    let links = agent.data_plane().refresh_links();
    if let Err(error) = &links {
        let err = error_chain::with_causes(error);
        tracing::error!(err, "cannot read the node's links, forged and tunnelled packets of pods may pass");
    }
    for missing in agent.data_plane().missing_features() {
        missing.log();
    }
    let plan = agent.plan();
    tracing::info!(
        %node,
        ingress = plan.ingress.len(),
        egress = plan.egress.len(),
        tables = plan.tables.len(),
        peer_sets = plan.peer_sets.len(),
        revoked = report.revoked,
        "programmed once, the rules stay in the kernel"
    );
    Ok(match (refused, report.review_failed) {
        _ if links.is_err() => Once::Refused,
        (0, false) => Once::Done,
        (0, true) => Once::NotReviewed,
        _ => Once::Refused,
    })
}

/// Continues the review of established connections until it has ended or failed. Nothing that the kernel refused is tried again.
fn finish_review(agent: &mut NodeAgent<NftDataPlane>, report: &mut Report) {
    while report.errors.is_empty() {
        let Some(due) = report.review_due else { return };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let step = agent.tick();
        report.revoked += step.revoked;
        report.restored += step.restored;
        report.not_remembered += step.not_remembered;
        report.review_due = step.review_due;
        report.review_failed = step.review_failed;
        report.errors = step.errors;
    }
}

/// What [`remove`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether there was a table.
    pub table: bool,
    /// Whether the plugin was in the CNI configuration.
    pub cni: bool,
    /// The number of revoked connections that were restored.
    pub connections: usize,
    /// Why revocation labels may remain on connections, if they may.
    pub left: Option<String>,
}

/// Removes every trace of the agent: the CNI plugin, the table, revocation labels, the state of the node, socket and lock. Does nothing where nothing is left.
///
/// # Errors
/// If an agent runs, or without the permission to change the firewall.
pub fn remove(config: &Config) -> Result<Removed, DaemonError> {
    let lock = take_lock(config)?;
    // First, because pods don't start while the plugin finds no agent.
    let cni = uninstall(&config.cni_conf_dir, &config.cni_bin_dir)?;
    Records::beside(&config.socket).remove_all().map_err(DaemonError::Records)?;
    let mut kernel = Kernel::open()?;
    let table = palisade_nft::remove(&mut kernel)?;
    palisade_nft::dns_table::remove(&mut kernel)?;
    // Without the table the label has no effect, but it would have one again with a later agent.
    let (connections, left) = restore_connections(&mut kernel);
    match fs::remove_file(&config.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(DaemonError::Socket(SocketError::Io {
                doing: "remove",
                path: config.socket.clone(),
                source: e,
            }));
        }
        _ => {}
    }
    if let Some(directory) = &config.state_dir {
        NamesFile::new(directory).remove().map_err(DaemonError::LearnedNames)?;
        StateFile::new(directory).remove()?;
    }
    // Removes the lock file.
    drop(lock);
    Ok(Removed { table, cni, connections, left })
}

/// Removes the revocation label from connections. Returns their number, and the last error: failures don't stop the removal.
fn restore_connections(kernel: &mut Kernel) -> (usize, Option<String>) {
    let revoked = match conntrack::list_revoked(kernel) {
        Ok(revoked) => revoked,
        Err(error) => return (0, Some(error_chain::with_causes(&error))),
    };
    let (mut restored, mut left) = (0, None);
    for connection in revoked {
        match conntrack::restore(kernel, &connection) {
            Ok(is_there) => restored += usize::from(is_there),
            Err(error) => left = Some(error_chain::with_causes(&error)),
        }
    }
    (restored, left)
}

/// Reads the first complete snapshot of the source. Logs a warning if it doesn't have this node.
fn read_cluster(config: &Config, node: &Name) -> Result<Cluster, DaemonError> {
    let cluster = snapshot(config)?;
    if !node_name::is_known(&cluster, node) {
        node_name::warn_unknown(&cluster, node);
    }
    Ok(cluster)
}

fn snapshot(config: &Config) -> Result<Cluster, DaemonError> {
    match &config.source {
        SourceChoice::Directory(path) => {
            let (cluster, findings) = directory::read(path)?;
            log_findings(&findings);
            Ok(cluster)
        }
        SourceChoice::Api => {
            let mut failing = None;
            let waited = runtime()?.block_on(async {
                let mut events =
                    watch_cluster(config.access().connect_without_retries().await?, config, false);
                let snapshot = async {
                    while let Some(event) = events.recv().await {
                        match event {
                            Event::Snapshot(cluster) => return Ok(*cluster),
                            Event::Watch { kind, state: WatchState::Failing { why: err } } => {
                                tracing::error!(%kind, err, "watch failed, retrying");
                                failing = Some(err);
                            }
                            Event::Findings { findings, .. } => log_findings(&findings),
                            _ => {}
                        }
                    }
                    Err(DaemonError::SourceEnded)
                };
                Ok::<_, DaemonError>(tokio::time::timeout(SNAPSHOT_TIMEOUT, snapshot).await)
            });
            match waited? {
                Ok(cluster) => cluster,
                Err(_) => Err(DaemonError::NoSnapshot(SNAPSHOT_TIMEOUT, failing)),
            }
        }
    }
}

fn log_findings(findings: &[Diagnostic]) {
    for finding in collapse(findings) {
        log_finding(&finding.object.as_deref().unwrap_or_default(), &finding);
    }
}

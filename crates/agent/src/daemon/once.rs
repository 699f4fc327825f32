//! What the agent does and ends: program once, show the plan, take everything away.

use std::{fs, io, time::Duration};

use palisade_api::{Event, WatchState};
use palisade_nft::{Kernel, Surroundings, conntrack};
use palisade_policy::{Cluster, Name, compile::Compiler};

use super::{DaemonError, open_plane, own_name, runtime, take_lock, watching};
use crate::{
    NodeAgent,
    config::{Config, SourceChoice},
    source::directory,
    view::PlanView,
    words,
};

/// An API server has so long to tell everything, here where nobody waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plan that was not programmed.
#[derive(Debug)]
pub struct Planned {
    /// In words.
    pub view: PlanView,
    /// As `nft` would read it.
    pub nftables: String,
}

/// Compiles this node's plan. Touches no kernel and needs no right.
///
/// # Errors
/// When the source can't be read.
pub fn dry_run(config: &Config) -> Result<Planned, DaemonError> {
    let node = config.node()?;
    let cluster = first(config, &node)?;
    let mut compiler = Compiler::new(node.clone());
    compiler.apply_all(cluster.into_changes());
    let view = PlanView::of(compiler.cluster(), &node, compiler.plan());
    let nftables = palisade_nft::text(compiler.plan(), &super::options(config), &Surroundings::default())
        .map_err(palisade_nft::Error::from)?;
    Ok(Planned { view, nftables })
}

/// Programs the kernel with what the source says now; says whether the kernel took it.
///
/// # Errors
/// As [`run`](super::run), and when the source can't be read.
pub fn once(config: &Config) -> Result<bool, DaemonError> {
    let node = config.node()?;
    let _lock = take_lock(config)?;
    let plane = open_plane(config)?;
    let cluster = first(config, &node)?;
    let mut agent = NodeAgent::new(node.clone(), plane);
    let report = agent.snapshot(cluster);
    for error in &report.errors {
        tracing::error!(why = words::with_causes(error), "the kernel was not programmed as it should be");
    }
    for (direction, address) in &report.cut_off {
        let pod = agent.reconciler().endpoint(*address);
        tracing::error!(%direction, %pod, "the pod is cut off: the kernel refused its policies");
    }
    for (direction, address) in &report.not_enforced {
        let pod = agent.reconciler().endpoint(*address);
        tracing::error!(
            %direction,
            %pod,
            "NOT ENFORCED: the kernel refused the pod's policies, and refused to cut it off"
        );
    }
    let around = agent.data_plane().look_around();
    if let Err(error) = &around {
        let why = words::with_causes(error);
        tracing::error!(
            why,
            "forged and tunnelled packets of pods may pass: the rules do not know the node's links"
        );
    }
    agent.data_plane().lacking().iter().for_each(|what| tracing::warn!("{what}"));
    let plan = agent.plan();
    tracing::info!(
        %node,
        ingress = plan.ingress.len(),
        egress = plan.egress.len(),
        tables = plan.tables.len(),
        groups = plan.groups.len(),
        cut = report.revoked,
        "programmed once; the rules stay in force"
    );
    Ok(report.errors.is_empty() && around.is_ok())
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether there was a table.
    pub table: bool,
    /// Connections that were cut and may go on.
    pub connections: usize,
}

/// Takes every trace away: the table, the marks on connections, socket and lock. Where there is nothing it does nothing.
///
/// # Errors
/// When an agent runs, or without the right to change the firewall.
pub fn remove(config: &Config) -> Result<Removed, DaemonError> {
    let lock = take_lock(config)?;
    let mut kernel = Kernel::open()?;
    let table = palisade_nft::remove(&mut kernel)?;
    let mut connections = 0;
    // Without the table nobody looks at the mark, but it would count again if the agent came back.
    for connection in conntrack::list_revoked(&mut kernel)? {
        connections += usize::from(conntrack::restore(&mut kernel, &connection)?);
    }
    match fs::remove_file(&config.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(DaemonError::Socket(crate::socket::SocketError::Io {
                doing: "remove",
                path: config.socket.clone(),
                source: e,
            }));
        }
        _ => {}
    }
    // The lock removes its file.
    drop(lock);
    Ok(Removed { table, connections })
}

/// The first whole snapshot of the source, with a warning if it doesn't know this node.
fn first(config: &Config, node: &Name) -> Result<Cluster, DaemonError> {
    let cluster = snapshot(config)?;
    if !own_name::is_known(&cluster, node) {
        own_name::warn(&cluster, node);
    }
    Ok(cluster)
}

fn snapshot(config: &Config) -> Result<Cluster, DaemonError> {
    match &config.source {
        SourceChoice::Directory(path) => {
            let (cluster, findings) = directory::read(path)?;
            for finding in findings {
                tracing::warn!("{finding}");
            }
            Ok(cluster)
        }
        SourceChoice::Api => {
            let mut failing = None;
            let waited = runtime()?.block_on(async {
                let mut events = watching(config.access().connect_for_watching().await?, config);
                let snapshot = async {
                    while let Some(event) = events.recv().await {
                        match event {
                            Event::Snapshot(cluster) => return Ok(*cluster),
                            Event::Watch { kind, state: WatchState::Failing { why } } => {
                                tracing::warn!(%kind, why, "the watch fails");
                                failing = Some(why);
                            }
                            Event::Findings { findings, .. } => {
                                findings.iter().for_each(|finding| tracing::warn!("{finding}"));
                            }
                            _ => {}
                        }
                    }
                    Err(DaemonError::SourceEnded)
                };
                Ok::<_, DaemonError>(tokio::time::timeout(PATIENCE, snapshot).await)
            });
            match waited? {
                Ok(cluster) => cluster,
                Err(_) => Err(DaemonError::NoSnapshot(PATIENCE, failing)),
            }
        }
    }
}

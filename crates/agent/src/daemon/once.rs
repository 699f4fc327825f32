//! What the agent does and ends: program once, show the plan, take everything away.

use std::{fs, io, time::Duration};

use palisade_api::{Event, WatchState};
use palisade_manifest::collapse;
use palisade_nft::{Kernel, Surroundings, conntrack};
use palisade_policy::{Cluster, Compiler, Name};

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

/// What programming once led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Everything is as the source says.
    Done,
    /// The kernel did not take the whole plan.
    Refused,
    /// The rules are in force, and open connections that they deny were not cut.
    NotReviewed,
}

/// Programs the kernel with what the source says now; says how far the kernel took it.
///
/// # Errors
/// As [`run`](super::run), and when the source can't be read.
pub fn once(config: &Config) -> Result<Once, DaemonError> {
    let node = config.node()?;
    let _lock = take_lock(config)?;
    let plane = open_plane(config)?;
    let cluster = first(config, &node)?;
    let mut agent = NodeAgent::new(node.clone(), plane);
    let report = agent.snapshot(cluster);
    let refused = report.errors.len() - usize::from(report.review_failed);
    for (index, error) in report.errors.iter().enumerate() {
        let why = words::with_causes(error);
        if index < refused {
            tracing::error!(why, "the kernel was not programmed as it should be");
        } else {
            tracing::error!(why, "the rules are in force; open connections were not decided anew");
        }
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
        groups = plan.peer_sets.len(),
        cut = report.revoked,
        "programmed once; the rules stay in force"
    );
    Ok(match (refused, report.review_failed) {
        _ if around.is_err() => Once::Refused,
        (0, false) => Once::Done,
        (0, true) => Once::NotReviewed,
        _ => Once::Refused,
    })
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether there was a table.
    pub table: bool,
    /// Connections that were cut and may go on.
    pub connections: usize,
    /// Why marks may be left on connections, if so.
    pub left: Option<String>,
}

/// Takes every trace away: the table, the marks on connections, socket and lock. Where there is nothing it does nothing.
///
/// # Errors
/// When an agent runs, or without the right to change the firewall.
pub fn remove(config: &Config) -> Result<Removed, DaemonError> {
    let lock = take_lock(config)?;
    let mut kernel = Kernel::open()?;
    let table = palisade_nft::remove(&mut kernel)?;
    // Without the table nobody looks at the mark, but it would count again if the agent came back.
    let (connections, left) = restore_connections(&mut kernel);
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
    Ok(Removed { table, connections, left })
}

/// Takes the marks off connections; says of how many, and why not of all. Nothing else waits for it.
fn restore_connections(kernel: &mut Kernel) -> (usize, Option<String>) {
    let revoked = match conntrack::list_revoked(kernel) {
        Ok(revoked) => revoked,
        Err(error) => return (0, Some(words::with_causes(&error))),
    };
    let (mut restored, mut left) = (0, None);
    for connection in revoked {
        match conntrack::restore(kernel, &connection) {
            Ok(is_there) => restored += usize::from(is_there),
            Err(error) => left = Some(words::with_causes(&error)),
        }
    }
    (restored, left)
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
            for finding in collapse(&findings) {
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
                                collapse(&findings).iter().for_each(|finding| tracing::warn!("{finding}"));
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

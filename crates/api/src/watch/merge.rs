//! All watches as one stream of events: the whole cluster first, then every change.

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::Cluster;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use super::{
    Told, WatchOptions,
    discovery::{Answers, Discovery, OPTIONAL, Served},
    doors::Doors,
    resource::Resource,
    session::{Deaf, Session},
};
use crate::{Event, Kind};

/// The kinds that every cluster serves, in version v1.
const ALWAYS: [Kind; 4] = [Kind::Namespace, Kind::Pod, Kind::Node, Kind::NetworkPolicy];
/// How much the watches may be ahead of the merging.
const WAITING: usize = 64;
/// Changes are told together while the receiver is busy, up to about so many.
const TOGETHER: usize = 4096;

/// Starts all watches and merges them until nobody listens.
pub(super) async fn run(doors: Doors, options: WatchOptions, out: mpsc::Sender<Event>) {
    let (doors, options) = (Arc::new(doors), Arc::new(options));
    let (told, mut incoming) = mpsc::channel(WAITING);
    // They end with this function, which owns the set.
    let mut tasks = JoinSet::new();
    let doubt = Arc::new(Notify::new());
    let session = |kind| {
        let resource = Resource::new(kind, "v1");
        Session::new(resource, Arc::clone(&options), Arc::clone(&doors), Arc::clone(&doubt), told.clone())
    };
    for kind in ALWAYS {
        let mut session = session(kind);
        tasks.spawn(async move {
            session.run().await;
        });
    }
    let (discovery, answers) = Discovery::new(Arc::clone(&doors), Arc::clone(&options), Arc::clone(&doubt));
    tasks.spawn(discovery.run());
    for kind in OPTIONAL {
        tasks.spawn(optional(session(kind), kind, answers.clone()));
    }
    drop((told, answers));
    let mut merge =
        Merge { out, listing: ALWAYS.into_iter().chain(OPTIONAL).collect(), cluster: Some(Box::default()) };
    loop {
        let first = tokio::select! {
            first = incoming.recv() => first,
            () = merge.out.closed() => None,
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        while batch.len() < TOGETHER
            && let Ok(more) = incoming.try_recv()
        {
            batch.push(more);
        }
        if merge.pass_on(batch).await.is_err() {
            return;
        }
    }
}

/// Watches an optional kind while it is served, in the version that is.
async fn optional(mut session: Session, kind: Kind, mut answers: watch::Receiver<Answers>) {
    loop {
        let answer = answers.borrow_and_update().get(&kind).cloned().unwrap_or(Served::Unknown);
        let done = match answer {
            Served::Unknown => Ok(()),
            Served::Failing(failure) => session.doubt(&failure).await,
            Served::Not => session.vanish().await,
            Served::At(version) => {
                session.use_version(Resource::new(kind, version));
                // What is known stays until discovery is sure.
                tokio::select! {
                    Deaf = session.run() => Err(Deaf),
                    _ = answers.wait_for(|a| a.get(&kind) != Some(&Served::At(version))) => continue,
                }
            }
        };
        if done.is_err() || answers.changed().await.is_err() {
            return;
        }
    }
}

struct Merge {
    out: mpsc::Sender<Event>,
    /// The kinds of which no list is complete.
    listing: BTreeSet<Kind>,
    /// What has been told so far; `None` once it has been handed over.
    cluster: Option<Box<Cluster>>,
}

impl Merge {
    /// Passes on what came, changes that follow each other as one.
    async fn pass_on(&mut self, batch: Vec<Told>) -> Result<(), mpsc::error::SendError<Event>> {
        let mut waiting = None;
        for told in batch {
            match told {
                Told::Changes { changes, received } => match (&mut self.cluster, &mut waiting) {
                    (Some(cluster), _) => changes.into_iter().for_each(|c| cluster.apply(c)),
                    (None, None) => waiting = Some((changes, received)),
                    (None, Some((before, _))) => before.extend(changes),
                },
                Told::Event(event) => {
                    self.changes(&mut waiting).await?;
                    self.out.send(event).await?;
                }
                Told::Listed(kind) => {
                    self.listing.remove(&kind);
                    if self.listing.is_empty()
                        && let Some(cluster) = self.cluster.take()
                    {
                        self.out.send(Event::Snapshot(cluster)).await?;
                    }
                }
            }
        }
        self.changes(&mut waiting).await
    }

    async fn changes(
        &self,
        waiting: &mut Option<(Vec<palisade_policy::Change>, std::time::Instant)>,
    ) -> Result<(), mpsc::error::SendError<Event>> {
        match waiting.take() {
            Some((changes, received)) => self.out.send(Event::Changes { changes, received }).await,
            None => Ok(()),
        }
    }
}

//! Merges all watches into one stream of events: first the whole cluster, then each change.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use palisade_policy::{Change, Cluster};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::SendError},
        watch,
    },
    task::JoinSet,
};

use super::{
    discovery::{Discovery, Served, ServedKinds},
    options::WatchOptions,
    session::{Disconnected, Session, SessionEvent},
};
use crate::{
    client::ClientPool,
    event::{Event, WatchState},
    request::VersionedKind,
    resource::ResourceKind,
};

/// How many session events are queued for the merge.
const SESSION_QUEUE: usize = 64;
/// Session events that are queued are handled together, up to this number.
const MAX_BATCH: usize = 4096;

/// Starts all watches and merges them until the receiver is dropped.
pub(super) async fn run(clients: ClientPool, options: WatchOptions, out: mpsc::Sender<Event>) {
    let (clients, options) = (Arc::new(clients), Arc::new(options));
    let (events, mut incoming) = mpsc::channel(SESSION_QUEUE);
    // Dropping the set at the end of this function stops the tasks.
    let mut tasks = JoinSet::new();
    let check_now = Arc::new(Notify::new());
    let (discovery, served) =
        Discovery::new(Arc::clone(&clients), Arc::clone(&options), Arc::clone(&check_now));
    let kinds: BTreeSet<ResourceKind> =
        ResourceKind::watched().chain(options.services.then_some(ResourceKind::Service)).collect();
    for kind in kinds.iter().copied() {
        let mut session = Session::new(
            VersionedKind::new(kind, kind.versions()[0]),
            Arc::clone(&options),
            Arc::clone(&clients),
            Arc::clone(&check_now),
            events.clone(),
        );
        if kind.is_cluster_wide_policy() {
            tasks.spawn(run_while_served(session, kind, served.clone()));
        } else {
            tasks.spawn(async move {
                session.run().await;
            });
        }
    }
    tasks.spawn(discovery.run());
    drop((events, served));
    let mut merge = Merge { out, not_listed: kinds, cluster: Some(Box::default()) };
    loop {
        let first = tokio::select! {
            first = incoming.recv() => first,
            () = merge.out.closed() => None,
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(more) = incoming.try_recv()
        {
            batch.push(more);
        }
        if merge.handle(batch).await.is_err() {
            return;
        }
    }
}

/// Runs the session of an optional kind while the kind is served, in the version that is served.
async fn run_while_served(mut session: Session, kind: ResourceKind, mut kinds: watch::Receiver<ServedKinds>) {
    loop {
        let served = kinds.borrow_and_update().get(&kind).cloned().unwrap_or(Served::Unknown);
        let result = match served {
            Served::Unknown => Ok(()),
            Served::Failing(error) => session.report_failure(&error).await,
            Served::No => session.remove_all().await,
            Served::At(version) => {
                session.set_version(VersionedKind::new(kind, version));
                // The known objects stay until discovery has confirmed that the kind is absent.
                tokio::select! {
                    Disconnected = session.run() => Err(Disconnected),
                    _ = kinds.wait_for(|kinds| kinds.get(&kind) != Some(&Served::At(version))) => continue,
                }
            }
        };
        if result.is_err() || kinds.changed().await.is_err() {
            return;
        }
    }
}

/// Whether Services can't be read. Policies don't depend on them, so they don't keep the others from being enforced.
fn is_failure_of_services(event: &Event) -> bool {
    matches!(event, Event::Watch { kind: ResourceKind::Service, state: WatchState::Failing { .. } })
}

struct Merge {
    out: mpsc::Sender<Event>,
    /// The kinds that the snapshot waits for: their first list is not complete.
    not_listed: BTreeSet<ResourceKind>,
    /// The cluster so far; `None` once the snapshot has been sent.
    cluster: Option<Box<Cluster>>,
}

/// Changes that have not been sent yet, and when the first was received.
type Pending = Option<(Vec<Change>, Instant)>;

impl Merge {
    /// Sends events on. Changes that follow each other are sent as one event.
    async fn handle(&mut self, batch: Vec<SessionEvent>) -> Result<(), SendError<Event>> {
        let mut pending: Pending = None;
        for event in batch {
            match event {
                SessionEvent::Changes { changes, received } => match (&mut self.cluster, &mut pending) {
                    (Some(cluster), _) => changes.into_iter().for_each(|c| cluster.apply(c)),
                    (None, None) => pending = Some((changes, received)),
                    (None, Some((earlier, _))) => earlier.extend(changes),
                },
                SessionEvent::Forward(event) => {
                    let is_dispensable = is_failure_of_services(&event);
                    self.send_changes(&mut pending).await?;
                    self.out.send(event).await?;
                    if is_dispensable {
                        self.no_longer_awaits(ResourceKind::Service).await?;
                    }
                }
                SessionEvent::Listed(kind) => self.no_longer_awaits(kind).await?,
            }
        }
        self.send_changes(&mut pending).await
    }

    /// Sends the snapshot once no kind is awaited.
    async fn no_longer_awaits(&mut self, kind: ResourceKind) -> Result<(), SendError<Event>> {
        self.not_listed.remove(&kind);
        match self.cluster.take_if(|_| self.not_listed.is_empty()) {
            Some(cluster) => self.out.send(Event::Snapshot(cluster)).await,
            None => Ok(()),
        }
    }

    async fn send_changes(&self, pending: &mut Pending) -> Result<(), SendError<Event>> {
        match pending.take() {
            Some((changes, received)) => self.out.send(Event::Changes { changes, received }).await,
            None => Ok(()),
        }
    }
}

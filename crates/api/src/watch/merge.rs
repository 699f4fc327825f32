//! Merges all watches into one stream of events: first the whole cluster, then each change.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

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
use crate::{client::ClientPool, event::Event, request::VersionedKind, resource::ResourceKind};

/// How many session events are queued for the merge.
const SESSION_QUEUE: usize = 64;
/// Session events that are queued are handled together, up to this number.
const MAX_BATCH: usize = 4096;

/// How long the snapshot waits for Services once all else is there: after a failure that all kinds share, theirs is listed a moment later.
const SERVICES_GRACE: Duration = Duration::from_secs(10);

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
    let mut merge = Merge { out, not_listed: kinds, cluster: Some(Box::default()), deadline: None };
    loop {
        let deadline = merge.deadline;
        let first = tokio::select! {
            first = incoming.recv() => first,
            () = merge.out.closed() => None,
            () = until(deadline) => {
                if merge.no_longer_awaits(ResourceKind::Service).await.is_err() {
                    return;
                }
                continue;
            }
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

/// Waits for a time; forever if there is none.
async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Merge {
    out: mpsc::Sender<Event>,
    /// The kinds that the snapshot waits for: their first list is not complete.
    not_listed: BTreeSet<ResourceKind>,
    /// The cluster so far; `None` once the snapshot has been sent.
    cluster: Option<Box<Cluster>>,
    /// When the snapshot is sent without Services, if these alone are missing.
    deadline: Option<tokio::time::Instant>,
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
                    self.send_changes(&mut pending).await?;
                    self.out.send(event).await?;
                }
                // Policies don't depend on Services, so a missing right doesn't keep policies from being enforced.
                SessionEvent::Refused(ResourceKind::Service) => {
                    self.no_longer_awaits(ResourceKind::Service).await?;
                }
                SessionEvent::Refused(_) => {}
                SessionEvent::Listed(kind) => self.no_longer_awaits(kind).await?,
            }
        }
        self.send_changes(&mut pending).await
    }

    /// Sends the snapshot once no kind is awaited. Services alone are awaited for [`SERVICES_GRACE`].
    async fn no_longer_awaits(&mut self, kind: ResourceKind) -> Result<(), SendError<Event>> {
        self.not_listed.remove(&kind);
        let only_services = self.not_listed.iter().eq([&ResourceKind::Service]);
        self.deadline = only_services.then(|| tokio::time::Instant::now() + SERVICES_GRACE);
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

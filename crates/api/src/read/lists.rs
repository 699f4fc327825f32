//! Lists all kinds concurrently.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::Duration,
};

use futures::{StreamExt as _, future, pin_mut, stream};
use tokio::time::Instant;

use super::{
    reader::{Candidate, ObjectReader},
    served,
    snapshot::{ClusterSnapshot, Missing, Object},
};
use crate::{
    access::{Access, AccessError, ClusterConnection},
    error::{ApiError, ApiErrorKind},
    resource::{NeededFor, ResourceKind},
};

/// How long a request may take unless the user sets another limit.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How many namespaces are read concurrently if a kind can't be listed in all of them at once.
const CONCURRENT_NAMESPACES: usize = 8;

/// Progress is reported after this time.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How to read.
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// The user's namespace, which is read if listing all namespaces is forbidden; `None` for that of the context.
    pub namespace: Option<&'a str>,
    /// Receives the progress if reading takes long.
    pub progress: Option<&'a Progress<'a>>,
}

/// Receives how many objects have been read, and which kinds are still being read.
pub type Progress<'a> = dyn Fn(usize, &BTreeSet<ResourceKind>) + 'a;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no client for a server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The server can't be queried.
    #[error("cannot query the API server {server}{}: {}", in_context(context.as_ref()), error.with_advice())]
    Server {
        /// The server's address.
        server: String,
        /// The context of the kubeconfig.
        context: Option<String>,
        /// The error.
        error: ApiError,
    },
    /// The async runtime can't be started.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
}

fn in_context(context: Option<&String>) -> String {
    context.map(|c| format!(" (context {c})")).unwrap_or_default()
}

/// Reads the objects of a cluster and waits for them.
///
/// # Errors
/// If there is no client for a server, or the server can't be queried. A kind that can't be read is no error: see
/// [`ClusterSnapshot::missing`].
pub fn read_blocking(access: &Access, options: ReadOptions<'_>) -> Result<ClusterSnapshot, ReadError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReadError::Runtime)?;
    let snapshot = runtime
        .block_on(async { read(&access.open().await?, access.timeout.unwrap_or(TIMEOUT), options).await });
    // A name look-up that is still running on a thread would delay the exit.
    runtime.shutdown_background();
    snapshot
}

/// Reads the objects of a cluster. No request may take longer than `timeout`.
///
/// # Errors
/// If the server can't be queried.
pub async fn read(
    connection: &ClusterConnection,
    timeout: Duration,
    options: ReadOptions<'_>,
) -> Result<ClusterSnapshot, ReadError> {
    let reading = Reading {
        received: Cell::new(0),
        in_progress: RefCell::new(BTreeSet::new()),
        own_namespace: options.namespace.unwrap_or(&connection.namespace),
    };
    let reader = ObjectReader { client: &connection.client, timeout, received: &reading.received };
    let everything = reading.everything(&reader);
    pin_mut!(everything);
    let start = Instant::now();
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let result = loop {
        tokio::select! {
            result = &mut everything => break result,
            _ = tick.tick() => {
                if let Some(progress) = options.progress.filter(|_| start.elapsed() > PROGRESS_AFTER) {
                    progress(reading.received.get(), &reading.in_progress.borrow());
                }
            }
        }
    };
    let (server, context) = (connection.server.clone(), connection.context.clone());
    match result {
        Ok(Contents { objects, missing, served }) => Ok(ClusterSnapshot {
            server,
            context,
            namespace: reading.own_namespace.to_owned(),
            objects,
            missing,
            served,
        }),
        Err(error) => Err(ReadError::Server { server, context, error }),
    }
}

/// What a [`ClusterSnapshot`] holds.
struct Contents {
    objects: Vec<Object>,
    missing: Vec<Missing>,
    served: Vec<ResourceKind>,
}

/// The objects of one kind.
type Listed = Result<Vec<Object>, ApiError>;

struct Reading<'a> {
    received: Cell<usize>,
    /// The kinds that are being read.
    in_progress: RefCell<BTreeSet<ResourceKind>>,
    own_namespace: &'a str,
}

impl Reading<'_> {
    async fn everything(&self, reader: &ObjectReader<'_>) -> Result<Contents, ApiError> {
        let candidates = served::served(reader).await?;
        let mut lists: Vec<Listed> =
            future::join_all(candidates.iter().map(|candidate| self.kind(reader, candidate))).await;
        // Credentials that are not accepted affect all kinds.
        let affects_all = |error: &ApiError| {
            error.is_unauthorized() || matches!(error.kind(), ApiErrorKind::Credentials(_))
        };
        if let Some(error) = lists.iter().filter_map(|list| list.as_ref().err()).find(|e| affects_all(e)) {
            return Err(error.clone());
        }
        let mut missing = self.per_namespace(reader, &candidates, &mut lists).await;
        let served: Vec<ResourceKind> = candidates.iter().map(|candidate| candidate.kind).collect();
        let mut objects = Vec::new();
        for (kind, list) in served.iter().copied().zip(lists) {
            match list {
                Ok(list) => objects.extend(list),
                Err(error) => missing.push(Missing { kind, error, only_in: Vec::new() }),
            }
        }
        missing.sort_by_key(|missing| missing.kind);
        Ok(Contents { objects: without_unused_owners(objects), missing, served })
    }

    /// Reads all objects of a kind.
    async fn kind(&self, reader: &ObjectReader<'_>, candidate: &Candidate) -> Listed {
        self.in_progress.borrow_mut().insert(candidate.kind);
        let list = reader.list(candidate, None).await;
        self.in_progress.borrow_mut().remove(&candidate.kind);
        list
    }

    /// Reads each kind whose list is forbidden namespace by namespace. Replaces the forbidden `lists`, and returns the kinds that are
    /// still incomplete.
    async fn per_namespace(
        &self,
        reader: &ObjectReader<'_>,
        candidates: &[Candidate],
        lists: &mut [Listed],
    ) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut namespaces: BTreeSet<String> = BTreeSet::new();
        // Whether `namespaces` has all of them.
        let mut all_namespaces = false;
        let namespace_lists = candidates.iter().zip(lists.iter_mut());
        for (_, list) in namespace_lists.filter(|(candidate, _)| candidate.kind == ResourceKind::Namespace) {
            match list {
                Ok(list) => {
                    all_namespaces = true;
                    namespaces.extend(list.iter().map(|n| n.name.clone()));
                }
                Err(error) if error.is_forbidden() => {
                    let error = error.clone();
                    let own = reader.object(ResourceKind::Namespace, self.own_namespace).await;
                    let only_in = if own.is_ok() { vec![self.own_namespace.to_owned()] } else { Vec::new() };
                    *list = Ok(own.into_iter().collect());
                    missing.push(Missing { kind: ResourceKind::Namespace, error, only_in });
                }
                Err(_) => {}
            }
        }
        namespaces.insert(self.own_namespace.to_owned());
        for (candidate, list) in candidates.iter().zip(lists) {
            let kind = candidate.kind;
            let error = match list {
                Err(error) if error.is_forbidden() && kind.is_namespaced() => error.clone(),
                _ => continue,
            };
            self.in_progress.borrow_mut().insert(kind);
            let one = |namespace: String| async move {
                let list = reader.list(candidate, Some(&namespace)).await;
                (namespace, list)
            };
            let mut results: Vec<(String, Listed)> = stream::iter(namespaces.clone())
                .map(one)
                .buffer_unordered(CONCURRENT_NAMESPACES)
                .collect()
                .await;
            results.sort_by(|a, b| a.0.cmp(&b.0));
            self.in_progress.borrow_mut().remove(&kind);
            let complete = all_namespaces && results.iter().all(|(_, list)| list.is_ok());
            let (mut objects, mut only_in) = (Vec::new(), Vec::new());
            for (namespace, list) in results {
                if let Ok(list) = list {
                    objects.extend(list);
                    only_in.push(namespace);
                }
            }
            // Most users are denied access to most namespaces. If pods can't be read in a namespace, the kinds after them are not tried
            // there. Pods are the first namespaced kind.
            if kind == ResourceKind::Pod && !complete {
                all_namespaces = false;
                namespaces = only_in.iter().cloned().chain([self.own_namespace.to_owned()]).collect();
            }
            *list = Ok(objects);
            if !complete {
                missing.push(Missing { kind, error, only_in });
            }
        }
        missing
    }
}

/// Removes ReplicaSets and Jobs that own no pod: a Deployment keeps ten old ReplicaSets by default.
fn without_unused_owners(objects: Vec<Object>) -> Vec<Object> {
    let mut owners: BTreeSet<(String, String, String)> = BTreeSet::new();
    for pod in objects.iter().filter(|o| o.kind == ResourceKind::Pod) {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&pod.json) else { continue };
        let list = value.pointer("/metadata/ownerReferences").and_then(|l| l.as_array());
        for owner in list.into_iter().flatten() {
            let text = |field: &str| owner.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            owners.insert((text("kind"), pod.namespace.clone(), text("name")));
        }
    }
    let is_used = |o: &Object| {
        o.kind.needed_for() != NeededFor::WorkloadNames
            || owners.contains(&(o.kind.as_str().to_owned(), o.namespace.clone(), o.name.clone()))
    };
    objects.into_iter().filter(is_used).collect()
}

//! Which cluster-wide policy kinds the cluster serves, and in which version.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Request;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::options::WatchOptions;
use crate::{
    api_groups::{ApiGroup, ApiResourceList},
    backoff::{Backoff, jitter},
    client::{ClientPool, PooledClient},
    error::ApiError,
    resource::ResourceKind,
    transport::get_json,
};

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Nothing yet, or it is not confirmed.
    Unknown,
    /// Nothing, since the server can't be queried.
    Failing(ApiError),
    /// It is served in this version, such as `v1beta1`.
    At(&'static str),
    /// It is not served.
    No,
}

/// What is known of each cluster-wide policy kind.
pub(super) type ServedKinds = BTreeMap<ResourceKind, Served>;

/// Queries the server periodically and publishes what changed.
///
/// The policies of an absent kind are removed, which would allow what they deny. An API server that has just started, or has lost its
/// connection to etcd, may not know its CustomResourceDefinitions yet. So absence has to be confirmed: by a server that is ready
/// ([`/readyz`], which includes these definitions), and for a kind that was served, for [`WatchOptions::absent_after`]. When a
/// definition is deleted the regular way its objects are deleted first, one by one, so nothing is delayed by this.
///
/// [`/readyz`]: https://kubernetes.io/docs/reference/using-api/health-checks/
pub(super) struct Discovery {
    clients: Arc<ClientPool>,
    options: Arc<WatchOptions>,
    served: watch::Sender<ServedKinds>,
    /// A session received a 404.
    check_now: Arc<Notify>,
    absent_since: BTreeMap<ResourceKind, Instant>,
}

impl Discovery {
    pub(super) fn new(
        clients: Arc<ClientPool>,
        options: Arc<WatchOptions>,
        check_now: Arc<Notify>,
    ) -> (Self, watch::Receiver<ServedKinds>) {
        let unknown = ResourceKind::cluster_wide_policies().map(|kind| (kind, Served::Unknown)).collect();
        let (served, receiver) = watch::channel(unknown);
        (Self { clients, options, served, check_now, absent_since: BTreeMap::new() }, receiver)
    }

    /// Runs until all receivers are dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.options.initial_backoff, self.options.max_backoff);
        while !self.served.is_closed() {
            let client = self.clients.current().await;
            let pause = match self.check(&client).await {
                Ok(true) => {
                    backoff.reset();
                    jitter(self.options.discovery_interval, 0.75, 1.25)
                }
                Ok(false) => jitter((self.options.absent_after / 4).min(Duration::from_secs(2)), 0.5, 1.0),
                Err(error) => {
                    self.failed(&error);
                    if error.may_need_new_client() {
                        self.clients.renew(&client).await;
                    }
                    backoff.next(error.retry_after())
                }
            };
            // A 404 of a session shortens the pause, but not below the first pause after a failure.
            let least = pause.min(self.options.initial_backoff);
            tokio::time::sleep(least).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(least)) => {}
                () = self.check_now.notified() => {}
                () = self.served.closed() => {}
            }
        }
    }

    /// Queries the server once. Returns whether everything is confirmed.
    async fn check(&mut self, client: &PooledClient) -> Result<bool, ApiError> {
        let found = served_versions(client, self.options.response_timeout).await?;
        let mut readiness = None;
        let mut confirmed = true;
        for kind in ResourceKind::cluster_wide_policies() {
            let served = match found.get(&kind) {
                Some(version) => {
                    self.absent_since.remove(&kind);
                    Served::At(version)
                }
                None => {
                    let readiness = match &readiness {
                        Some(readiness) => *readiness,
                        None => {
                            *readiness.insert(query_readiness(client, self.options.response_timeout).await)
                        }
                    };
                    if !self.is_absent(kind, readiness) {
                        confirmed = false;
                        continue;
                    }
                    Served::No
                }
            };
            self.publish(kind, served);
        }
        Ok(confirmed)
    }

    /// Whether the absence of a kind that the server doesn't list is confirmed.
    fn is_absent(&mut self, kind: ResourceKind, readiness: Readiness) -> bool {
        let since = *self.absent_since.entry(kind).or_insert_with(Instant::now);
        let long_enough = since.elapsed() >= self.options.absent_after;
        let was_served = matches!(self.served.borrow().get(&kind), Some(Served::At(_)));
        match readiness {
            Readiness::NotReady => {
                self.absent_since.remove(&kind);
                false
            }
            Readiness::Ready => long_enough || !was_served,
            Readiness::Unknown => long_enough,
        }
    }

    fn failed(&self, error: &ApiError) {
        for kind in ResourceKind::cluster_wide_policies() {
            let is_unknown =
                matches!(self.served.borrow().get(&kind), None | Some(Served::Unknown | Served::Failing(_)));
            if is_unknown {
                self.publish(kind, Served::Failing(error.clone()));
            }
        }
    }

    fn publish(&self, kind: ResourceKind, served: Served) {
        self.served.send_if_modified(|kinds| {
            let is_new = kinds.get(&kind) != Some(&served);
            kinds.insert(kind, served);
            is_new
        });
    }
}

/// Returns the kinds that the server lists, each with the preferred version among those.
async fn served_versions(
    client: &PooledClient,
    timeout: Duration,
) -> Result<BTreeMap<ResourceKind, &'static str>, ApiError> {
    let mut found = BTreeMap::new();
    // By group and version; `None` if the server doesn't have it.
    let mut groups: BTreeMap<&str, Option<ApiGroup>> = BTreeMap::new();
    let mut lists: BTreeMap<String, Option<ApiResourceList>> = BTreeMap::new();
    for kind in ResourceKind::cluster_wide_policies() {
        if !groups.contains_key(kind.group()) {
            groups.insert(kind.group(), get(client, &format!("/apis/{}", kind.group()), timeout).await?);
        }
        let Some(Some(group)) = groups.get(kind.group()) else { continue };
        for version in kind.versions().iter().copied() {
            if !group.versions.iter().any(|v| v.version == version) {
                continue;
            }
            let api_version = kind.api_version(version);
            if !lists.contains_key(&api_version) {
                let list = get(client, &format!("/apis/{api_version}"), timeout).await?;
                lists.insert(api_version.clone(), list);
            }
            if lists[&api_version].as_ref().is_some_and(|list| list.contains(kind.plural())) {
                found.insert(kind, version);
                break;
            }
        }
    }
    Ok(found)
}

/// Whether the server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
    /// The request is forbidden, or the server doesn't have the endpoint.
    Unknown,
}

async fn query_readiness(client: &PooledClient, timeout: Duration) -> Readiness {
    let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return Readiness::Unknown };
    match client.send(request, timeout).await {
        Ok(_) => Readiness::Ready,
        Err(error) if matches!(error.code(), Some(401 | 403 | 404)) => Readiness::Unknown,
        Err(_) => Readiness::NotReady,
    }
}

/// Returns the document at a path, or `None` if there is none.
async fn get<T: serde::de::DeserializeOwned>(
    client: &PooledClient,
    path: &str,
    timeout: Duration,
) -> Result<Option<T>, ApiError> {
    match get_json(&client.client, path, timeout).await {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

//! Which of the optional kinds the cluster serves, and in which version.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use tokio::sync::{Notify, watch};

use super::{
    WatchOptions,
    doors::{Door, Doors},
    failure::Failure,
    lines::whole,
    message::rubbish,
    pauses::{Pauses, spread},
};
use crate::{
    Kind,
    catalogue::{Group, Resources},
};

/// The group of all optional kinds.
const GROUP: &str = "policy.networking.k8s.io";
/// The kinds and their versions, the one to prefer first.
const VERSIONS: [(&str, &[Kind]); 3] = [
    ("v1beta1", &[Kind::ClusterNetworkPolicy]),
    ("v1alpha2", &[Kind::ClusterNetworkPolicy]),
    ("v1alpha1", &[Kind::AdminNetworkPolicy, Kind::BaselineAdminNetworkPolicy]),
];
/// The optional kinds.
pub(super) const OPTIONAL: [Kind; 3] =
    [Kind::ClusterNetworkPolicy, Kind::AdminNetworkPolicy, Kind::BaselineAdminNetworkPolicy];
/// A list of versions or resources.
const LONGEST_ANSWER: usize = 1 << 20;

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Nothing yet, or not for sure.
    Unknown,
    /// Nothing, since the server can't be asked.
    Failing(Failure),
    /// It is served in this version, such as `v1beta1`.
    At(&'static str),
    /// It is not served.
    Not,
}

/// What is known of each optional kind.
pub(super) type Answers = BTreeMap<Kind, Served>;

/// Asks the server again and again, and says what changed.
///
/// An absent kind takes its policies with it, and a policy that denies would open what it denies. An API server that has
/// just started, or has lost its connection to etcd, may not know its CustomResourceDefinitions yet. So absence must be
/// confirmed: by the server saying that it is ready ([`/readyz`], which includes these definitions), and for a kind that
/// was served by saying so for [`WatchOptions::gone_after`]. Deleting a definition in good order deletes its objects
/// first, one by one, so nobody waits for this.
///
/// [`/readyz`]: https://kubernetes.io/docs/reference/using-api/health-checks/
pub(super) struct Discovery {
    doors: Arc<Doors>,
    options: Arc<WatchOptions>,
    answers: watch::Sender<Answers>,
    /// Somebody got a 404.
    doubt: Arc<Notify>,
    absent_since: BTreeMap<Kind, Instant>,
}

impl Discovery {
    pub(super) fn new(
        doors: Arc<Doors>,
        options: Arc<WatchOptions>,
        doubt: Arc<Notify>,
    ) -> (Self, watch::Receiver<Answers>) {
        let unknown = OPTIONAL.iter().map(|k| (*k, Served::Unknown)).collect();
        let (answers, receiver) = watch::channel(unknown);
        (Self { doors, options, answers, doubt, absent_since: BTreeMap::new() }, receiver)
    }

    /// Runs until nobody listens.
    pub(super) async fn run(mut self) {
        let mut pauses = Pauses::new(self.options.first_pause, self.options.longest_pause);
        while !self.answers.is_closed() {
            let door = self.doors.door().await;
            let pause = match self.round(&door).await {
                Ok(true) => {
                    pauses.reset();
                    spread(self.options.rediscover, 0.75, 1.25)
                }
                Ok(false) => spread((self.options.gone_after / 4).min(Duration::from_secs(2)), 0.5, 1.0),
                Err(failure) => {
                    self.failed(&failure);
                    if failure.wants_new_connection() {
                        self.doors.renew(&door).await;
                    }
                    pauses.next(failure.retry_after())
                }
            };
            // A doubt doesn't hurry what waits for a server that fails, nor asks more often than once in a while.
            let least = pause.min(self.options.first_pause);
            tokio::time::sleep(least).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(least)) => {}
                () = self.doubt.notified() => {}
                () = self.answers.closed() => {}
            }
        }
    }

    /// Asks once. Whether everything is known for sure.
    async fn round(&mut self, door: &Door) -> Result<bool, Failure> {
        let served = served(door, self.options.answer).await?;
        let mut ready = None;
        let mut sure = true;
        for kind in OPTIONAL {
            let answer = match served.get(&kind) {
                Some(version) => {
                    self.absent_since.remove(&kind);
                    Served::At(version)
                }
                None => {
                    let ready = match &ready {
                        Some(ready) => *ready,
                        None => *ready.insert(readiness(door, self.options.answer).await),
                    };
                    if !self.is_gone(kind, ready) {
                        sure = false;
                        continue;
                    }
                    Served::Not
                }
            };
            self.publish(kind, answer);
        }
        Ok(sure)
    }

    /// Whether a kind that the server doesn't name may be taken for absent.
    fn is_gone(&mut self, kind: Kind, ready: Readiness) -> bool {
        let since = *self.absent_since.entry(kind).or_insert_with(Instant::now);
        let long_enough = since.elapsed() >= self.options.gone_after;
        let was_served = matches!(self.answers.borrow().get(&kind), Some(Served::At(_)));
        match ready {
            Readiness::NotYet => {
                self.absent_since.remove(&kind);
                false
            }
            Readiness::Ready => long_enough || !was_served,
            Readiness::Unknown => long_enough,
        }
    }

    fn failed(&self, failure: &Failure) {
        for kind in OPTIONAL {
            let unknown =
                matches!(self.answers.borrow().get(&kind), None | Some(Served::Unknown | Served::Failing(_)));
            if unknown {
                self.publish(kind, Served::Failing(failure.clone()));
            }
        }
    }

    fn publish(&self, kind: Kind, answer: Served) {
        self.answers.send_if_modified(|answers| {
            let is_new = answers.get(&kind) != Some(&answer);
            answers.insert(kind, answer);
            is_new
        });
    }
}

/// The kinds that the server names, each with the version to use.
async fn served(door: &Door, patience: Duration) -> Result<BTreeMap<Kind, &'static str>, Failure> {
    let mut out = BTreeMap::new();
    let Some(group): Option<Group> = get(door, &format!("/apis/{GROUP}"), patience).await? else {
        return Ok(out);
    };
    for (version, kinds) in VERSIONS {
        if !group.versions.iter().any(|v| v.version == version) {
            continue;
        }
        let path = format!("/apis/{GROUP}/{version}");
        let Some(list): Option<Resources> = get(door, &path, patience).await? else { continue };
        for kind in kinds {
            if list.has(kind.plural()) {
                out.entry(*kind).or_insert(version);
            }
        }
    }
    Ok(out)
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotYet,
    /// We may not ask, or it doesn't know the question.
    Unknown,
}

async fn readiness(door: &Door, patience: Duration) -> Readiness {
    let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return Readiness::Unknown };
    match door.ask(request, patience).await {
        Ok(_) => Readiness::Ready,
        Err(Failure::Status { code: 401 | 403 | 404, .. }) => Readiness::Unknown,
        Err(_) => Readiness::NotYet,
    }
}

/// What is at a path; `None` if there is nothing.
async fn get<T: serde::de::DeserializeOwned>(
    door: &Door,
    path: &str,
    patience: Duration,
) -> Result<Option<T>, Failure> {
    let request = Request::get(path).body(Vec::new()).map_err(|e| Failure::Unreachable(e.to_string()))?;
    match door.ask(request, patience).await {
        Ok(body) => {
            let text = whole(body, LONGEST_ANSWER, patience).await?;
            serde_json::from_slice(&text).map(Some).map_err(rubbish)
        }
        Err(failure) if failure.code() == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

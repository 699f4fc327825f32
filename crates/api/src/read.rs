//! Everything that decisions need, read once.
//!
//! All kinds are listed concurrently, in pages. Each list is one state of the server, yet two of them may be moments
//! apart. A kind that the cluster doesn't serve is nothing to read; one that is refused or fails is [`Missing`], and
//! whoever answers from the rest must say so.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future, pin_mut, stream};
use palisade_manifest::Input;

mod list;
mod prune;
mod resource;
mod served;

use crate::{Access, AccessError, Connection, trouble::Trouble};
use list::Asking;
pub use resource::{Bearing, RESOURCES, Resource};

/// How long one request may take unless the user says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// As many objects as `kubectl` asks for at a time.
const PAGE: u32 = 500;

/// How many namespaces are asked at the same time where a kind can't be listed in all of them at once.
const AT_ONCE: usize = 8;

/// How many live objects are handed on in one text.
const TOGETHER: usize = 1000;

/// Reading that takes longer than this is talked about.
const PATIENCE: Duration = Duration::from_secs(2);

/// An object, as much of it as is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub resource: &'static Resource,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It, as JSON.
    pub json: Box<str>,
}

/// A kind that could not be read, or not everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The kind.
    pub resource: &'static Resource,
    /// Why.
    pub why: Trouble,
    /// The namespaces in which it could be read all the same, sorted.
    pub only_in: Vec<String>,
}

/// What a cluster has, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The server's address.
    pub server: String,
    /// The context of the kubeconfig; `None` for a service account.
    pub context: Option<String>,
    /// The namespace of names that have none.
    pub namespace: String,
    /// The objects, by kind in the order of [`RESOURCES`], namespace and name.
    pub objects: Vec<Object>,
    /// What could not be read, in the same order.
    pub missing: Vec<Missing>,
    /// The kinds that the cluster serves, as far as it says.
    pub served: Vec<&'static str>,
}

/// How to read.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The user's own namespace: where he may not list everywhere, it is tried; `None` for that of the context.
    pub namespace: Option<&'a str>,
    /// Told from time to time, where it takes long, how many objects have come and which kinds are still being read.
    pub progress: Option<&'a Progress<'a>>,
}

/// Told how many objects have come, and which kinds are still being read.
pub type Progress<'a> = dyn Fn(usize, &BTreeSet<&'static str>) + 'a;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no way to a server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The server can't be asked anything.
    #[error("cannot ask the API server {server}{}: {trouble}", of_context(context.as_ref()))]
    Server {
        /// Its address.
        server: String,
        /// The context of the kubeconfig.
        context: Option<String>,
        /// Why.
        trouble: Trouble,
    },
    /// This process can't wait for anything.
    #[error("cannot wait for answers")]
    Runtime(#[source] std::io::Error),
}

fn of_context(context: Option<&String>) -> String {
    context.map(|c| format!(" (context {c})")).unwrap_or_default()
}

impl Live {
    /// The objects for the loader, a thousand at a time.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.objects.chunks(TOGETHER).map(|chunk| {
            let items: Vec<&str> = chunk.iter().map(|object| &*object.json).collect();
            let items = items.join(",");
            Input::Cluster(format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#))
        })
    }

    /// The object of this kind, namespace (empty for cluster-scoped kinds) and name.
    #[must_use]
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|o| o.resource.kind == kind && o.namespace == namespace && o.name == name)
    }
}

/// Reads what a cluster has, and waits for it.
///
/// # Errors
/// When there is no way to a server, or it can't be asked anything. A kind that can't be read is no error: see
/// [`Live::missing`].
pub fn read_blocking(access: &Access, options: Options<'_>) -> Result<Live, ReadError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReadError::Runtime)?;
    let live = runtime
        .block_on(async { read(&access.open().await?, access.timeout.unwrap_or(TIMEOUT), options).await });
    // A name being resolved on a thread is nobody's business any longer.
    runtime.shutdown_background();
    live
}

/// Reads what a cluster has; no request may take longer than `timeout`.
///
/// # Errors
/// When the server can't be asked anything.
pub async fn read(
    connection: &Connection,
    timeout: Duration,
    options: Options<'_>,
) -> Result<Live, ReadError> {
    let reading = Reading {
        came: Cell::new(0),
        open: RefCell::new(BTreeSet::new()),
        own: options.namespace.unwrap_or(&connection.namespace),
    };
    let asking = Asking { client: &connection.client, timeout, page: PAGE, came: &reading.came };
    let everything = reading.everything(&asking);
    pin_mut!(everything);
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let read = loop {
        tokio::select! {
            read = &mut everything => break read,
            _ = tick.tick() => {
                if let Some(tell) = options.progress.filter(|_| began.elapsed() > PATIENCE) {
                    tell(reading.came.get(), &reading.open.borrow());
                }
            }
        }
    };
    let (server, context) = (connection.server.clone(), connection.context.clone());
    match read {
        Ok(Found { objects, missing, served }) => {
            Ok(Live { server, context, namespace: reading.own.to_owned(), objects, missing, served })
        }
        Err(trouble) => Err(ReadError::Server { server, context, trouble }),
    }
}

/// What was found.
struct Found {
    objects: Vec<Object>,
    missing: Vec<Missing>,
    served: Vec<&'static str>,
}

/// What one kind came to.
type Outcome = Result<Vec<Object>, Trouble>;

struct Reading<'a> {
    came: Cell<usize>,
    /// The kinds that are being read.
    open: RefCell<BTreeSet<&'static str>>,
    /// The user's own namespace.
    own: &'a str,
}

impl Reading<'_> {
    async fn everything(&self, asking: &Asking<'_>) -> Result<Found, Trouble> {
        let wanted = served::served(asking).await?;
        let each = wanted.iter().map(|(resource, versions)| self.kind(asking, resource, versions));
        let mut outcomes: Vec<(&'static Resource, Outcome)> = future::join_all(each).await;
        // Credentials that nobody accepts are no matter of kinds.
        let hopeless = |t: &Trouble| matches!(t, Trouble::Unauthorized(_) | Trouble::Credentials(_));
        for (_, outcome) in &outcomes {
            if let Err(trouble) = outcome
                && hopeless(trouble)
            {
                return Err(trouble.clone());
            }
        }
        let mut missing = self.piecewise(asking, &wanted, &mut outcomes).await;
        let mut objects = Vec::new();
        for (resource, outcome) in outcomes {
            match outcome {
                Ok(list) => objects.extend(list),
                Err(why) => missing.push(Missing { resource, why, only_in: Vec::new() }),
            }
        }
        let order = |r: &'static Resource| RESOURCES.iter().position(|known| known.kind == r.kind);
        missing.sort_by_key(|m| order(m.resource));
        let served = wanted.iter().map(|(resource, _)| resource.kind).collect();
        Ok(Found { objects: owners_in_use(objects), missing, served })
    }

    /// All objects of a kind.
    async fn kind(
        &self,
        asking: &Asking<'_>,
        resource: &'static Resource,
        versions: &[&'static str],
    ) -> (&'static Resource, Outcome) {
        self.open.borrow_mut().insert(resource.kind);
        let outcome = in_any_version(asking, resource, versions, None).await;
        self.open.borrow_mut().remove(resource.kind);
        (resource, outcome)
    }

    /// Reads namespace by namespace what is refused as a whole. What is missing then still is returned, and `outcomes`
    /// has the rest.
    async fn piecewise(
        &self,
        asking: &Asking<'_>,
        wanted: &[served::Wanted],
        outcomes: &mut [(&'static Resource, Outcome)],
    ) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut namespaces: BTreeSet<String> = BTreeSet::new();
        // Whether these are all there are.
        let mut all = false;
        for (resource, outcome) in outcomes.iter_mut().filter(|(r, _)| r.kind == "Namespace") {
            match outcome {
                Ok(list) => {
                    all = true;
                    namespaces.extend(list.iter().map(|n| n.name.clone()));
                }
                Err(why @ Trouble::Refused(_)) => {
                    let why = why.clone();
                    let own = asking.one(resource, "v1", self.own).await;
                    let only_in = if own.is_ok() { vec![self.own.to_owned()] } else { Vec::new() };
                    *outcome = Ok(own.into_iter().collect());
                    missing.push(Missing { resource, why, only_in });
                }
                Err(_) => {}
            }
        }
        namespaces.insert(self.own.to_owned());
        for (at, (resource, outcome)) in outcomes.iter_mut().enumerate() {
            let Err(why @ Trouble::Refused(_)) = outcome else { continue };
            if !resource.namespaced {
                continue;
            }
            let why = why.clone();
            self.open.borrow_mut().insert(resource.kind);
            let (resource, versions) = (*resource, &wanted[at].1);
            let one = |namespace: String| async move {
                let got = in_any_version(asking, resource, versions, Some(&namespace)).await;
                (namespace, got)
            };
            let mut answers: Vec<(String, Outcome)> =
                stream::iter(namespaces.clone()).map(one).buffer_unordered(AT_ONCE).collect().await;
            answers.sort_by(|a, b| a.0.cmp(&b.0));
            self.open.borrow_mut().remove(resource.kind);
            let whole = all && answers.iter().all(|(_, got)| got.is_ok());
            let (mut objects, mut only_in) = (Vec::new(), Vec::new());
            for (namespace, got) in answers {
                if let Ok(list) = got {
                    objects.extend(list);
                    only_in.push(namespace);
                }
            }
            // Where pods can't be read nothing else is worth asking for: most users are refused nearly everywhere. Pods
            // come first of what lives in namespaces.
            if resource.kind == "Pod" && !whole {
                all = false;
                namespaces = only_in.iter().cloned().chain([self.own.to_owned()]).collect();
            }
            *outcome = Ok(objects);
            if !whole {
                missing.push(Missing { resource, why, only_in });
            }
        }
        missing
    }
}

async fn in_any_version(
    asking: &Asking<'_>,
    resource: &'static Resource,
    versions: &[&'static str],
    namespace: Option<&str>,
) -> Outcome {
    for version in versions {
        match asking.list(resource, version, namespace).await {
            Err(Trouble::NotFound) => {}
            other => return other,
        }
    }
    // Not served in any version, as it turns out. What every API server has must be there.
    if resource.is_optional() { Ok(Vec::new()) } else { Err(Trouble::NotFound) }
}

/// The objects without the ReplicaSets and Jobs that own no pod: each Deployment keeps ten old ones.
fn owners_in_use(objects: Vec<Object>) -> Vec<Object> {
    let mut owners: BTreeSet<(String, String, String)> = BTreeSet::new();
    for pod in objects.iter().filter(|o| o.resource.kind == "Pod") {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&pod.json) else { continue };
        let list = value.pointer("/metadata/ownerReferences").and_then(|l| l.as_array());
        for owner in list.into_iter().flatten() {
            let text = |field: &str| owner.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            owners.insert((text("kind"), pod.namespace.clone(), text("name")));
        }
    }
    let in_use = |o: &Object| {
        o.resource.bearing != Bearing::Names
            || owners.contains(&(o.resource.kind.to_owned(), o.namespace.clone(), o.name.clone()))
    };
    objects.into_iter().filter(in_use).collect()
}

//! The state of the server, and what tests do to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use super::serve::respond;

/// How the server handles `sendInitialEvents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// Streams the list, as Kubernetes 1.34 does.
    Served,
    /// Refuses it with this code, as 1.27 to 1.33 do.
    Refused(u16),
    /// Ignores it and starts an ordinary watch, as 1.18 does.
    Ignored,
}

/// A failure of the next request whose path and query contain a text.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another response: code, headers, body.
    Respond(u16, Vec<(&'static str, String)>, String),
    /// A delayed response.
    Delay(Duration),
    /// The connection is closed after this many bytes of the response.
    Truncate(usize),
}

/// One event of the log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) version: u64,
    pub(super) collection: String,
    pub(super) word: &'static str,
    pub(super) object: Value,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) version: u64,
    /// Versions before this one are expired.
    pub(super) compacted: u64,
    /// By collection (`/api/v1/pods`), by `namespace/name`.
    pub(super) objects: BTreeMap<String, BTreeMap<String, Value>>,
    pub(super) log: Vec<Logged>,
    /// Collections that are served.
    pub(super) served: BTreeSet<String>,
    pub(super) streaming: Option<Streaming>,
    pub(super) faults: Vec<(String, Fault)>,
    /// Collections that may not be read.
    pub(super) forbidden: BTreeSet<String>,
    /// The only token that is accepted.
    pub(super) token: Option<String>,
    pub(super) requests: Vec<String>,
    /// Watches that were started before the last interruption end, after a whole line or in the middle of one.
    pub(super) interruptions: u64,
    pub(super) ends_mid_line: bool,
    /// Lines to send to each running watch of a collection.
    pub(super) injected: Vec<(u64, String, String)>,
    pub(super) ready: Option<bool>,
    /// Events that are sent corrupted once.
    pub(super) corrupted: BTreeSet<u64>,
}

/// The server. Clients reach it through pipes in memory, so that tests can use virtual time. Dropping it closes all connections.
pub(crate) struct Server {
    network: Network,
}

/// The server's state and its connections.
#[derive(Clone)]
struct Network {
    state: Arc<Mutex<State>>,
    /// Changes with each request and each change of the state.
    changes: watch::Sender<u64>,
    /// `None` while the server refuses connections.
    connections: Arc<Mutex<Option<JoinSet<()>>>>,
}

impl Network {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *connections {
            Some(connections) => drop(connections.spawn(task)),
            None => return Err(io::Error::from_raw_os_error(ECONNREFUSED)),
        }
        Ok(())
    }

    /// Serves one connection.
    fn accept(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (state, changes) = (Arc::clone(&self.state), self.changes.clone());
        async move {
            let service = service_fn(|request| respond(request, Arc::clone(&state), changes.clone()));
            // Some tests break connections.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }

    /// Sends a request on a connection of its own.
    async fn send(self, request: Request<kube::client::Body>) -> Result<Response<Incoming>, BoxError> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.spawn(self.accept(far))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const ECONNREFUSED: i32 = 111;
const PIPE_BYTES: usize = 64 << 10;
/// The longest that [`Server::until`] waits.
const TIMEOUT: Duration = Duration::from_secs(600);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    pub(crate) fn start() -> Self {
        let state = State {
            version: 100,
            served: ["/api/v1/namespaces", PODS, "/api/v1/nodes", POLICIES].map(str::to_owned).into(),
            ready: Some(true),
            ..State::default()
        };
        let (changes, _) = watch::channel(0);
        let connections = Arc::new(Mutex::new(Some(JoinSet::new())));
        Self { network: Network { state: Arc::new(Mutex::new(state)), changes, connections } }
    }

    /// Closes all connections and refuses new ones.
    pub(crate) fn stop(&self) {
        *self.network.connections.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Accepts connections again.
    pub(crate) fn restart(&self) {
        *self.network.connections.lock().unwrap_or_else(PoisonError::into_inner) = Some(JoinSet::new());
    }

    /// Listens on 127.0.0.1 as well, for a client that is made from a kubeconfig. Returns the URL.
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = self.network.clone();
        let accept = async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(network.accept(socket));
            }
        };
        self.network.spawn(accept).unwrap();
        format!("http://{address}")
    }

    pub(crate) fn client(&self) -> Client {
        let network = self.network.clone();
        Client::new(tower::service_fn(move |request| network.clone().send(request)), "default")
    }

    /// Waits until a condition holds, checking it after each request and each change.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.network.changes.subscribe();
        let wait = async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(TIMEOUT, wait).await.is_err() {
            panic!("timed out waiting for {what}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.network.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.lock());
        self.network.changes.send_modify(|n| *n += 1);
        out
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        self.change(|s| s.put(collection, object));
    }

    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) -> bool {
        self.change(|s| s.delete(collection, &format!("{namespace}/{name}")))
    }

    pub(crate) fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(collection)?.get(&format!("{namespace}/{name}")).cloned()
    }

    /// All objects of a collection.
    pub(crate) fn objects(&self, collection: &str) -> Vec<Value> {
        self.lock().items(collection)
    }

    /// All objects of served kinds, as one `List`.
    pub(crate) fn everything(&self) -> String {
        let state = self.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(c, _)| state.served.contains(*c))
            .flat_map(|(_, o)| o.values())
            .collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    pub(crate) fn serve(&self, collection: &str) {
        self.change(|s| s.served.insert(collection.to_owned()));
    }

    /// Deletes the definition and its objects.
    pub(crate) fn unserve(&self, collection: &str) {
        self.change(|s| {
            s.served.remove(collection);
            s.objects.remove(collection);
            s.interruptions += 1;
        });
    }

    /// Responds as if the kind were not served, and keeps its objects.
    pub(crate) fn hide(&self, collection: &str) {
        self.change(|s| {
            s.served.remove(collection);
            s.interruptions += 1;
        });
    }

    pub(crate) fn streaming(&self, streaming: Streaming) {
        self.change(|s| s.streaming = Some(streaming));
    }

    pub(crate) fn fault(&self, text: &str, fault: Fault) {
        self.change(|s| s.faults.push((text.to_owned(), fault)));
    }

    pub(crate) fn forbid(&self, collection: &str) {
        self.change(|s| s.forbidden.insert(collection.to_owned()));
    }

    pub(crate) fn allow(&self, collection: &str) {
        self.change(|s| s.forbidden.remove(collection));
    }

    pub(crate) fn token(&self, token: &str) {
        self.change(|s| s.token = Some(token.to_owned()));
    }

    pub(crate) fn ready(&self, ready: Option<bool>) {
        self.change(|s| s.ready = ready);
    }

    /// Ends all watches, after a whole line or in the middle of one.
    pub(crate) fn interrupt(&self, mid_line: bool) {
        self.change(|s| {
            s.interruptions += 1;
            s.ends_mid_line = mid_line;
        });
    }

    /// Expires all versions before the current one.
    pub(crate) fn compact(&self) {
        self.change(|s| {
            s.version += 1;
            s.compacted = s.version;
        });
    }

    /// Sends a line to the running watches of a collection.
    pub(crate) fn inject(&self, collection: &str, line: &str) {
        self.change(|s| {
            s.version += 1;
            s.injected.push((s.version, collection.to_owned(), line.to_owned()));
        });
    }

    /// Creates or replaces an object. The first watch that receives the event receives a corrupted line.
    pub(crate) fn put_corrupted(&self, collection: &str, object: Value) {
        self.change(|s| {
            s.corrupted.insert(s.version + 1);
            s.put(collection, object);
        });
    }

    pub(crate) fn bookmark(&self, collection: &str) {
        let version = self.change(|s| {
            s.version += 10;
            s.version
        });
        self.inject(collection, &bookmark(version, false).to_string());
    }

    /// Returns how many requests contain this in their method, path and query.
    pub(crate) fn requests(&self, text: &str) -> usize {
        self.lock().requests.iter().filter(|r| r.contains(text)).count()
    }

    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }
}

impl State {
    pub(super) fn put(&mut self, collection: &str, mut object: Value) {
        self.version += 1;
        let key = key(&object);
        let objects = self.objects.entry(collection.to_owned()).or_default();
        let before = objects.get(&key);
        let word = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let generation = before.map_or(0, |b| b["metadata"]["generation"].as_i64().unwrap_or(0));
        let same_spec = before.is_some_and(|b| b["spec"] == object["spec"]);
        object["metadata"]["generation"] = json!(generation + i64::from(!same_spec));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = before
                .map_or_else(|| json!(format!("uid-{}", self.version)), |b| b["metadata"]["uid"].clone());
        }
        objects.insert(key, object.clone());
        self.log.push(Logged { version: self.version, collection: collection.to_owned(), word, object });
    }

    pub(super) fn delete(&mut self, collection: &str, key: &str) -> bool {
        let Some(mut object) = self.objects.get_mut(collection).and_then(|o| o.remove(key)) else {
            return false;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push(Logged {
            version: self.version,
            collection: collection.to_owned(),
            word: "DELETED",
            object,
        });
        true
    }

    pub(super) fn items(&self, collection: &str) -> Vec<Value> {
        self.objects.get(collection).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

pub(super) fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

pub(super) fn bookmark(version: u64, ends_list: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if ends_list {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"type": "BOOKMARK", "object": {"metadata": metadata}})
}

pub(super) fn status(code: u16, message: &str) -> String {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
        .to_string()
}

/// A running pod.
pub(crate) fn pod(namespace: &str, name: &str, app: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app},
                     "creationTimestamp": "2026-11-23T00:00:00Z"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// A policy that isolates pods with `app` and allows traffic from pods with `from`.
pub(crate) fn network_policy(namespace: &str, name: &str, app: &str, from: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"],
                 "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}]},
    })
}

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::serve::answer;

/// How the server takes `sendInitialEvents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// As Kubernetes 1.34 does.
    Served,
    /// As 1.27 to 1.33 do: with this code.
    Refused(u16),
    /// As 1.18 does: it doesn't know the word, and begins an ordinary watch.
    Ignored,
}

/// What goes wrong once, with the next request whose path and query contain a word.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This answer instead: code, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// This late.
    Slow(Duration),
    /// After so many bytes of the right answer the connection breaks.
    Cut(usize),
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
    /// Versions before this one are forgotten.
    pub(super) compacted: u64,
    /// By collection (`/api/v1/pods`), by `namespace/name`.
    pub(super) objects: BTreeMap<String, BTreeMap<String, Value>>,
    pub(super) log: Vec<Logged>,
    /// Collections that are served.
    pub(super) served: BTreeSet<String>,
    pub(super) streaming: Option<Streaming>,
    pub(super) faults: Vec<(String, Fault)>,
    /// Collections that nobody may read.
    pub(super) forbidden: BTreeSet<String>,
    /// The only token that is good.
    pub(super) token: Option<String>,
    pub(super) requests: Vec<String>,
    /// Watches that are older than this end at once, whole or in the middle of a line.
    pub(super) era: u64,
    pub(super) ends_in_the_middle: bool,
    /// Lines to send into each running watch of a collection.
    pub(super) injected: Vec<(u64, String, String)>,
    pub(super) ready: Option<bool>,
    /// Events that are sent garbled once.
    pub(super) garbled: BTreeSet<u64>,
}

/// The server. Dropping it closes the door and all connections.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    bell: watch::Sender<u64>,
    pub(crate) address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

impl Server {
    pub(crate) async fn start() -> Self {
        let state = State {
            version: 100,
            served: ["/api/v1/namespaces", PODS, "/api/v1/nodes", POLICIES].map(str::to_owned).into(),
            ready: Some(true),
            ..State::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (bell, _) = watch::channel(0);
        let mut server = Self { state: Arc::new(Mutex::new(state)), bell, address, accepting: None };
        server.accept(listener);
        server
    }

    fn accept(&mut self, listener: TcpListener) {
        let (state, bell) = (Arc::clone(&self.state), self.bell.clone());
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (state, bell) = (Arc::clone(&state), bell.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| answer(request, Arc::clone(&state), bell.subscribe()));
                    // A connection that breaks is part of many tests.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        }));
    }

    /// Nobody answers any longer.
    pub(crate) fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    /// The same server again, at the same address.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        for _ in 0..100 {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return self.accept(listener);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the address is taken");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        let mut config = Config::new(self.url().parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.lock());
        self.bell.send_modify(|n| *n += 1);
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

    /// Everything that it keeps, as one `List`.
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

    /// The definition is gone, and its objects with it.
    pub(crate) fn unserve(&self, collection: &str) {
        self.change(|s| {
            s.served.remove(collection);
            s.objects.remove(collection);
            s.era += 1;
        });
    }

    /// It doesn't say that it serves this, though it does.
    pub(crate) fn deny(&self, collection: &str) {
        self.change(|s| {
            s.served.remove(collection);
            s.era += 1;
        });
    }

    pub(crate) fn streaming(&self, streaming: Streaming) {
        self.change(|s| s.streaming = Some(streaming));
    }

    pub(crate) fn fault(&self, with: &str, fault: Fault) {
        self.change(|s| s.faults.push((with.to_owned(), fault)));
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

    /// Ends all watches, whole or in the middle of a line.
    pub(crate) fn cut(&self, in_the_middle: bool) {
        self.change(|s| {
            s.era += 1;
            s.ends_in_the_middle = in_the_middle;
        });
    }

    /// Forgets all versions before the present.
    pub(crate) fn compact(&self) {
        self.change(|s| {
            s.version += 1;
            s.compacted = s.version;
        });
    }

    /// Sends a line into the running watches of a collection.
    pub(crate) fn inject(&self, collection: &str, line: &str) {
        self.change(|s| {
            s.version += 1;
            s.injected.push((s.version, collection.to_owned(), line.to_owned()));
        });
    }

    /// Creates or replaces an object, and garbles the line that says so to the first who hears it.
    pub(crate) fn put_garbled(&self, collection: &str, object: Value) {
        self.change(|s| {
            s.garbled.insert(s.version + 1);
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

    /// How many requests had this in their path and query.
    pub(crate) fn requests(&self, with: &str) -> usize {
        self.lock().requests.iter().filter(|r| r.contains(with)).count()
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

/// A pod that runs.
pub(crate) fn pod(namespace: &str, name: &str, app: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app},
                     "creationTimestamp": "2026-11-23T00:00:00Z"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// A policy that isolates `app` and allows `from`.
pub(crate) fn network_policy(namespace: &str, name: &str, app: &str, from: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"],
                 "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}]},
    })
}

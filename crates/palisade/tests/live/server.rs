//! An API server on the loopback device that serves given objects as the real one does (discovery, pages, namespaces, metadata
//! only), and whose replies a test can replace.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A request of a client.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What a verb may send other than `GET`: a question about rights, and containers of `test --probe`.
const CHANGES: [&str; 2] = ["/selfsubjectaccessreviews", "/ephemeralcontainers"];

/// A reply set by a test.
pub(crate) enum Reply {
    /// A status and a body.
    Json(u16, Value),
    /// A body of any bytes.
    Text(u16, String),
    /// The beginning of a body, then a closed connection.
    Cut,
    /// No reply until the client gives up.
    Silence,
}

/// Returns the reply to a request, if a test replaces the real one.
type Script = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// Wraps the connection, for instance in TLS.
pub(crate) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}
pub(crate) type Wrap = dyn Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync;

/// A running server.
pub(crate) struct Server {
    address: String,
    request: Arc<Mutex<Vec<Request>>>,
    dir: TempDir,
}

impl Server {
    /// Serves `objects`.
    pub(crate) fn of(objects: Vec<Value>) -> Self {
        Self::with(objects, |_| None)
    }

    /// Serves `objects`, except where `script` returns another reply.
    pub(crate) fn with(
        objects: Vec<Value>,
        script: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::wrapped(objects, Box::new(script), Box::new(|stream| Some(Box::new(stream))))
    }

    /// The same, with a wrapped connection.
    pub(crate) fn wrapped(objects: Vec<Value>, script: Box<Script>, wrap: Box<Wrap>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let request = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new((objects, script, wrap, request.clone()));
        // The threads end with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (objects, script, wrap, request) = &*shared;
                    if let Some(stream) = wrap(stream) {
                        converse(stream, objects, script, request);
                    }
                });
            }
        });
        Self { address, request, dir: TempDir::new().expect("there is room for a file") }
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.request.lock().expect("no thread died").clone()
    }

    /// Writes a kubeconfig for this server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_with(&format!("http://{}", self.address), "token: t", "")
    }

    /// The address and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Writes a kubeconfig with this server, user, and further fields of the cluster.
    pub(crate) fn kubeconfig_with(&self, server: &str, user: &str, cluster: &str) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: c\n  cluster:\n    server: {server}\n{cluster}\
             users:\n- name: u\n  user:\n    {user}\n\
             contexts:\n- name: test\n  context: {{cluster: c, user: u, namespace: shop}}\n\
             - name: elsewhere\n  context: {{cluster: c, user: u, namespace: staging}}\n"
        );
        std::fs::write(&path, text).expect("it can be written");
        path
    }
}

fn converse(mut stream: Box<dyn Stream>, objects: &[Value], script: &Script, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(&mut stream);
    let Some(request) = request(&mut reader) else { return };
    log.lock().expect("no thread died").push(request.clone());
    let reply = script(&request).unwrap_or_else(|| real_reply(&request, objects));
    let (code, body, length) = match reply {
        Reply::Json(code, body) => (code, body.to_string(), None),
        Reply::Text(code, body) => (code, body, None),
        Reply::Cut => (200, r#"{"kind":"PodList","items":["#.to_owned(), Some(100_000)),
        Reply::Silence => {
            // Until the client closes the connection.
            _ = reader.read(&mut [0]);
            return;
        }
    };
    let length = length.unwrap_or(body.len());
    _ = write!(
        stream,
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    _ = stream.flush();
}

fn request(reader: &mut impl std::io::BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let is_expected = method == "GET" || CHANGES.iter().any(|end| path.ends_with(end));
    assert!(is_expected, "nothing is changed in a cluster: {line}");
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Some(Request { method, path: path.to_owned(), query, headers, body })
}

/// The API's error object.
pub(crate) fn status(code: u16, message: &str) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "X", "code": code});
    Reply::Json(code, body)
}

/// An error in RBAC's wording.
pub(crate) fn forbidden(what: &str) -> Reply {
    status(403, &format!("{what} is forbidden: User \"jane\" cannot list resource"))
}

const PLURALS: &[(&str, &str)] = &[
    ("Namespace", "namespaces"),
    ("Node", "nodes"),
    ("Pod", "pods"),
    ("Service", "services"),
    ("NetworkPolicy", "networkpolicies"),
    ("ReplicaSet", "replicasets"),
    ("Job", "jobs"),
    ("Ingress", "ingresses"),
    ("Gateway", "gateways"),
    ("GRPCRoute", "grpcroutes"),
    ("ClusterNetworkPolicy", "clusternetworkpolicies"),
    ("AdminNetworkPolicy", "adminnetworkpolicies"),
    ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies"),
];

/// The versions that every API server serves, by group.
const BUILT_IN: &[(&str, &str)] = &[("apps", "v1"), ("batch", "v1"), ("networking.k8s.io", "v1")];

fn real_reply(request: &Request, objects: &[Value]) -> Reply {
    let versions: Vec<&str> = objects.iter().filter_map(|o| o["apiVersion"].as_str()).collect();
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let all = versions.iter().filter_map(|v| v.split_once('/')).chain(BUILT_IN.iter().copied());
    for (group, version) in all {
        let known = groups.entry(group).or_default();
        if !known.contains(&version) {
            known.push(version);
        }
    }
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let (api_version, rest) = match &parts[..] {
        ["apis"] => {
            let groups: Vec<Value> = groups
                .iter()
                .map(|(name, versions)| {
                    let versions: Vec<Value> = versions.iter().map(|v| json!({"version": v})).collect();
                    json!({"name": name, "versions": versions})
                })
                .collect();
            return Reply::Json(200, json!({"kind": "APIGroupList", "groups": groups}));
        }
        ["api", version, rest @ ..] => ((*version).to_owned(), rest.to_vec()),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest.to_vec()),
        _ => return status(404, "the server could not find the requested resource"),
    };
    let kind_of = |plural: &str| PLURALS.iter().find(|(_, p)| *p == plural).map(|(kind, _)| *kind);
    let of_version = objects.iter().filter(|o| o["apiVersion"] == *api_version);
    match &rest[..] {
        [] => {
            let mut names: Vec<&str> = of_version
                .filter_map(|o| PLURALS.iter().find(|(kind, _)| o["kind"] == **kind).map(|(_, p)| *p))
                .collect();
            names.dedup();
            let resources: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            Reply::Json(200, json!({"kind": "APIResourceList", "resources": resources}))
        }
        ["namespaces", name] => {
            let found = objects.iter().find(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == *name);
            found.map_or_else(|| status(404, "not found"), |o| Reply::Json(200, o.clone()))
        }
        [plural] | ["namespaces", _, plural] => {
            let namespace = (rest.len() == 3).then(|| rest[1]);
            let Some(kind) = kind_of(plural) else { return status(404, "not found") };
            let inside = |o: &&Value| namespace.is_none_or(|n| o["metadata"]["namespace"] == n);
            let all: Vec<Value> = of_version.filter(|o| o["kind"] == kind).filter(inside).cloned().collect();
            page(request, kind, &api_version, &all)
        }
        _ => status(404, "not found"),
    }
}

fn page(request: &Request, kind: &str, api_version: &str, all: &[Value]) -> Reply {
    let number = |name: &str| request.query.get(name).and_then(|n| n.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0);
    let to = number("limit").map_or(all.len(), |limit| all.len().min(from + limit));
    let metadata_only = request.headers["accept"].contains("PartialObjectMetadataList");
    let items: Vec<Value> = all[from..to]
        .iter()
        .map(|object| {
            let mut object = object.clone();
            let fields = object.as_object_mut().expect("objects are objects");
            // As in the API server: items of lists have no kind.
            fields.remove("apiVersion");
            fields.remove("kind");
            if metadata_only {
                fields.retain(|key, _| key == "metadata");
            }
            object
        })
        .collect();
    let list = if metadata_only { "PartialObjectMetadataList".to_owned() } else { format!("{kind}List") };
    let mut metadata = json!({"resourceVersion": "7"});
    if to < all.len() {
        metadata["continue"] = to.to_string().into();
    }
    Reply::Json(200, json!({"kind": list, "apiVersion": api_version, "metadata": metadata, "items": items}))
}

/// Adds metadata that must not be written.
fn junk(metadata: &mut Value) {
    metadata["uid"] = "0b5d".into();
    metadata["resourceVersion"] = "12".into();
    metadata["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
    metadata["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "hunter2"});
}

fn object(api_version: &str, kind: &str, key: &str, rest: Value) -> Value {
    let mut metadata = match key.split_once('/') {
        Some((namespace, name)) => json!({"namespace": namespace, "name": name}),
        None => json!({"name": key}),
    };
    junk(&mut metadata);
    let mut out = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    merge(&mut out, rest);
    out
}

/// Adds the fields of one object to another.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub(crate) fn namespace(name: &str) -> Value {
    let labels = json!({"kubernetes.io/metadata.name": name});
    object("v1", "Namespace", name, json!({"metadata": {"labels": labels}, "status": {"phase": "Active"}}))
}

pub(crate) fn pod(key: &str, app: &str, ip: &str, owner: Option<(&str, &str)>) -> Value {
    let owners: Vec<Value> = owner
        .map(|(kind, name)| json!({"kind": kind, "name": name, "controller": true, "uid": "u"}))
        .into_iter()
        .collect();
    object(
        "v1",
        "Pod",
        key,
        json!({
            "metadata": {"labels": {"app": app, "pod-template-hash": "7d9f"}, "ownerReferences": owners},
            "spec": {
                "nodeName": "n1", "unheardOf": {"by": "this version"},
                "containers": [{
                    "name": "main", "env": [{"name": "PASSWORD", "value": "hunter2"}], "args": ["--key=hunter2"],
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                }],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.1"},
        }),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "the callers write it in place")]
pub(crate) fn policy(key: &str, spec: Value) -> Value {
    object("networking.k8s.io/v1", "NetworkPolicy", key, json!({"spec": spec}))
}

pub(crate) fn other(api_version: &str, kind: &str, key: &str, rest: Value) -> Value {
    object(api_version, kind, key, rest)
}

/// Two namespaces, a node, two Deployments and a Job with their pods, a Service, and a policy.
pub(crate) fn shop() -> Vec<Value> {
    let owned = |kind: &str, key: &str, above: (&str, &str)| {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let owner = json!([{"kind": above.0, "name": above.1, "controller": true}]);
        object(version, kind, key, json!({"metadata": {"ownerReferences": owner}, "spec": {"replicas": 1}}))
    };
    let from_web = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"protocol": "TCP", "port": 8080}]}]});
    vec![
        namespace("shop"),
        namespace("staging"),
        object(
            "v1",
            "Node",
            "n1",
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}),
        ),
        pod("shop/web-7d9f-a", "web", "10.0.0.1", Some(("ReplicaSet", "web-7d9f"))),
        pod("shop/web-7d9f-b", "web", "10.0.0.2", Some(("ReplicaSet", "web-7d9f"))),
        pod("shop/db-x-a", "db", "10.0.0.3", Some(("ReplicaSet", "db-x"))),
        pod("staging/nightly-1-z", "web", "10.0.0.4", Some(("Job", "nightly-1"))),
        owned("ReplicaSet", "shop/web-7d9f", ("Deployment", "web")),
        owned("ReplicaSet", "shop/web-old", ("Deployment", "web")),
        owned("ReplicaSet", "shop/db-x", ("Rollout", "db")),
        owned("Job", "staging/nightly-1", ("CronJob", "nightly")),
        object(
            "v1",
            "Service",
            "shop/db",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"], "selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        ),
        policy("shop/db", from_web),
    ]
}

/// A line for each request, for messages of tests.
pub(crate) fn lines(request: &[Request]) -> String {
    let mut out = String::new();
    for one in request {
        _ = writeln!(out, "{} {:?}", one.path, one.query);
    }
    out
}

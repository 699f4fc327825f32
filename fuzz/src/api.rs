//! The responses of an API server.
//!
//! The product's own client sends its requests to a function. The input is divided into responses and chunks by bytes that
//! occur in no UTF-8 text, so that a seed is a list of plain JSON texts.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use palisade_api::{ClusterConnection, Event, WatchOptions, read, watch};
use palisade_manifest::{LoadOptions, load};
use palisade_policy::{Change, Cluster};
use tokio::runtime::{Builder, Runtime};

/// Ends a chunk of a body.
const CHUNK: u8 = 0xff;
/// Ends a response: the next request gets what follows.
const ANSWER: u8 = 0xfe;
/// Begins an error response: the next byte chooses the status code.
const REFUSED: u8 = 0xfd;
/// Ends a response whose rest never arrives.
const SILENCE: u8 = 0xfc;

/// The status codes that the client handles differently.
const CODES: [u16; 8] = [400, 401, 403, 404, 410, 429, 500, 503];

/// How long a target runs at most, in virtual time.
const LONGEST: Duration = Duration::from_secs(3600);

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct Server {
    answers: Mutex<VecDeque<Vec<u8>>>,
    /// The kind, by its plural, whose requests get the responses; `None`: all kinds.
    plural: Option<&'static str>,
}

impl Server {
    fn new(data: &[u8], plural: Option<&'static str>) -> Arc<Self> {
        let answers = data.split(|byte| *byte == ANSWER).map(<[u8]>::to_vec).collect();
        Arc::new(Self { answers: Mutex::new(answers), plural })
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if let Some(known) = discovery(path) {
            return response(StatusCode::OK, vec![known.into()], false);
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        if self.plural.is_none_or(|it| it == plural) {
            let next = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            return match next {
                Some(answer) => scripted(&answer),
                // The input is used up.
                None => response(StatusCode::OK, Vec::new(), true),
            };
        }
        if query.contains("watch=") {
            let end = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
            return response(StatusCode::OK, vec![[&end[..], b"\n"].concat()], true);
        }
        let empty = br#"{"kind":"List","metadata":{"resourceVersion":"1"},"items":[]}"#;
        response(StatusCode::OK, vec![empty.to_vec()], false)
    }
}

/// The discovery documents of a server with all kinds.
fn discovery(path: &str) -> Option<&'static [u8]> {
    Some(match path {
        "/readyz" => b"ok",
        "/apis" => {
            br#"{"groups":[
                {"name":"policy.networking.k8s.io","versions":[{"version":"v1alpha2"},{"version":"v1alpha1"}]},
                {"name":"gateway.networking.k8s.io","versions":[{"version":"v1"}]}]}"#
        }
        "/apis/policy.networking.k8s.io" => {
            br#"{"name":"policy.networking.k8s.io","versions":[{"version":"v1alpha2"},{"version":"v1alpha1"}]}"#
        }
        "/apis/policy.networking.k8s.io/v1alpha2" => br#"{"resources":[{"name":"clusternetworkpolicies"}]}"#,
        "/apis/policy.networking.k8s.io/v1alpha1" => {
            br#"{"resources":[{"name":"adminnetworkpolicies"},{"name":"baselineadminnetworkpolicies"}]}"#
        }
        "/apis/gateway.networking.k8s.io/v1" => br#"{"resources":[{"name":"gateways"},{"name":"httproutes"}]}"#,
        _ => return None,
    })
}

fn scripted(answer: &[u8]) -> Response<Body> {
    let (code, rest) = match answer {
        [REFUSED, code, rest @ ..] => (CODES[usize::from(*code) % CODES.len()], rest),
        rest => (200, rest),
    };
    let (rest, is_silent) = match rest.split_last() {
        Some((&SILENCE, rest)) => (rest, true),
        _ => (rest, false),
    };
    let chunks = rest.split(|byte| *byte == CHUNK).map(<[u8]>::to_vec).collect();
    response(StatusCode::from_u16(code).unwrap_or_default(), chunks, is_silent)
}

fn response(status: StatusCode, chunks: Vec<Vec<u8>>, is_silent: bool) -> Response<Body> {
    let chunks = stream::iter(chunks).map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    let body = match is_silent {
        true => StreamBody::new(chunks.chain(stream::pending())).boxed_unsync(),
        false => StreamBody::new(chunks).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn client(server: &Arc<Server>) -> kube::Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let response = server.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    kube::Client::new(service, "default")
}

/// A runtime whose clock jumps to the next timer when it is idle.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// A watch of everything, in which one kind is answered with the bytes: lists, pages, watches, refusals, half lines, silence. The first
/// byte chooses the kind. The snapshot is sent once and first, and no change removes an object that was never set.
pub fn watched(data: &[u8]) {
    const PLURALS: [&str; 7] = [
        "pods",
        "networkpolicies",
        "namespaces",
        "nodes",
        "clusternetworkpolicies",
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
    ];
    let Some((kind, data)) = data.split_first() else { return };
    let server = Server::new(data, Some(PLURALS[usize::from(*kind) % PLURALS.len()]));
    runtime().block_on(async {
        let mut events = watch(client(&server), WatchOptions::default());
        let mut cluster: Option<Cluster> = None;
        let follow = async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Snapshot(snapshot) => {
                        assert!(cluster.is_none(), "a second snapshot");
                        cluster = Some(*snapshot);
                    }
                    Event::Changes { changes, .. } => {
                        let cluster = cluster.as_mut().expect("a change before the snapshot");
                        assert!(!changes.is_empty(), "a change of nothing");
                        for change in changes {
                            check(cluster, &change);
                            cluster.apply(change);
                        }
                    }
                    _ => {}
                }
                // Only a watch that waits for bookmarks remains, and it never ends.
                if cluster.is_some() && server.answers.lock().is_ok_and(|answers| answers.is_empty()) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if events.is_empty() {
                        return;
                    }
                }
            }
        };
        _ = tokio::time::timeout(LONGEST, follow).await;
    });
}

fn check(cluster: &Cluster, change: &Change) {
    let known = match change {
        Change::RemovePod(key) => cluster.pods.get(key).is_some(),
        Change::RemoveNode(name) => cluster.nodes.contains_key(name),
        Change::RemoveNamespace(name) => cluster.namespaces.contains_key(name),
        Change::RemovePolicy(key) => cluster.policies.contains_key(key),
        // No object has them.
        Change::SetLearned(_) | Change::RemoveLearned(_) => false,
        _ => true,
    };
    assert!(known, "{change:?} of what was never there");
}

/// The lists that a query reads, each answered with the next piece of the input; then loads what is kept of them.
pub fn listed(data: &[u8]) {
    let server = Server::new(data, None);
    runtime().block_on(async {
        let connection = ClusterConnection {
            client: client(&server),
            server: "https://fuzz".to_owned(),
            context: None,
            namespace: "default".to_owned(),
        };
        let Ok(read) = read::read(&connection, Duration::from_secs(1), read::ReadOptions::default()).await
        else {
            return;
        };
        let inputs: Vec<_> = read.inputs().collect();
        let loaded = load(&inputs, &LoadOptions { max_made_pods: 100, ..LoadOptions::default() });
        let objects: usize = [&loaded.counts.objects, &loaded.counts.rejected, &loaded.counts.passed_over]
            .iter()
            .flat_map(|counts| counts.values())
            .sum();
        assert!(objects <= read.objects.len(), "{objects} objects of {} that were kept", read.objects.len());
    });
}

//! The responses of the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    server::{Fault, State, Streaming, bookmark, key, status},
    write::one,
};

type Body = BoxBody<Bytes, std::io::Error>;

fn whole(code: u16, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

/// Responds to one request.
pub(super) async fn respond(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.to_string();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let (fault, unauthorized) = {
        let mut state = lock();
        state.requests.push(format!("{} {uri}", parts.method));
        let given = parts.headers.get("authorization").and_then(|v| v.to_str().ok());
        let unauthorized = state.token.as_ref().is_some_and(|t| given != Some(&format!("Bearer {t}")));
        let at = state.faults.iter().position(|(text, _)| uri.contains(text.as_str()));
        (at.map(|at| state.faults.remove(at).1), unauthorized)
    };
    changes.send_modify(|n| *n += 1);
    if unauthorized {
        return Ok(whole(401, status(401, "Unauthorized")));
    }
    let mut truncate_at = None;
    match fault {
        Some(Fault::Respond(code, headers, text)) => {
            let mut response = whole(code, text);
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return Ok(response);
        }
        Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Truncate(bytes)) => truncate_at = Some(bytes),
        None => {}
    }
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.replace("%2F", "/")))
        .collect();
    let content_type = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let text = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let written = one(&mut lock(), &parts.method, &path, content_type, &text);
    if let Some((code, text)) = written {
        changes.send_modify(|n| *n += 1);
        return Ok(whole(code, text));
    }
    if path == "/readyz" {
        return Ok(match lock().ready {
            Some(true) => whole(200, "ok".to_owned()),
            Some(false) => whole(500, "[-]poststarthook/crd-informer-synced failed".to_owned()),
            None => whole(403, status(403, "forbidden")),
        });
    }
    if let Some(found) = discovery(&lock(), &path) {
        return Ok(found);
    }
    if lock().forbidden.contains(&path) {
        return Ok(whole(403, status(403, &format!("cannot list resource at {path}"))));
    }
    if !lock().served.contains(&path) {
        return Ok(whole(404, "404 page not found\n".to_owned()));
    }
    if query.get("watch").is_some_and(|w| w == "true") {
        return Ok(watching(&path, &query, state, changes.subscribe()));
    }
    Ok(list(&lock(), &path, &query, truncate_at))
}

fn discovery(state: &State, path: &str) -> Option<Response<Body>> {
    let of_group = path.strip_prefix("/apis/policy.networking.k8s.io")?;
    let prefix = "/apis/policy.networking.k8s.io/";
    let served: Vec<(&str, &str)> =
        state.served.iter().filter_map(|c| c.strip_prefix(prefix)?.split_once('/')).collect();
    let missing = || whole(404, "404 page not found\n".to_owned());
    match of_group.trim_start_matches('/') {
        "" if served.is_empty() => Some(missing()),
        "" => {
            let versions: BTreeSet<&str> = served.iter().map(|(v, _)| *v).collect();
            let versions: Vec<Value> = versions.iter().map(|v| json!({"version": v})).collect();
            Some(whole(200, json!({"kind": "APIGroup", "versions": versions}).to_string()))
        }
        version if !version.contains('/') => {
            let names: Vec<Value> =
                served.iter().filter(|(v, _)| *v == version).map(|(_, n)| json!({"name": n})).collect();
            Some(match names.is_empty() {
                true => missing(),
                false => whole(200, json!({"kind": "APIResourceList", "resources": names}).to_string()),
            })
        }
        _ => None,
    }
}

fn list(
    state: &State,
    path: &str,
    query: &BTreeMap<String, String>,
    truncate_at: Option<usize>,
) -> Response<Body> {
    let limit = query.get("limit").map_or(usize::MAX, |l| l.parse().unwrap());
    // `version:key`, where the page starts after the key.
    let (version, after) = match query.get("continue") {
        Some(token) => {
            let (version, after) = token.split_once("%3A").or_else(|| token.split_once(':')).unwrap();
            (version.parse().unwrap(), after.to_owned())
        }
        None => (state.version, String::new()),
    };
    if version < state.compacted {
        return whole(410, status(410, "The provided continue parameter is too old"));
    }
    // A real server reads at `version`; replaying the log backwards gives the same.
    let mut objects = state.objects.get(path).cloned().unwrap_or_default();
    for event in state.log.iter().rev().take_while(|e| e.version > version).filter(|e| e.collection == path) {
        let key = key(&event.object);
        let before = state
            .log
            .iter()
            .rev()
            .find(|e| e.version < event.version && e.collection == path && self::key(&e.object) == key);
        match before {
            Some(before) if before.word != "DELETED" => objects.insert(key, before.object.clone()),
            _ => objects.remove(&key),
        };
    }
    let rest: Vec<(&String, &Value)> = objects.iter().filter(|(k, _)| **k > after).collect();
    let page: Vec<&Value> = rest.iter().take(limit).map(|(_, v)| *v).collect();
    let next = match rest.len() > limit {
        true => format!("{version}:{}", rest[limit - 1].0),
        false => String::new(),
    };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    let text = json!({"kind": "List", "metadata": metadata, "items": page}).to_string();
    match truncate_at {
        None => whole(200, text),
        Some(bytes) => {
            let part = Bytes::from(text).slice(..bytes);
            let broken = std::io::Error::other("cut");
            streamed(stream::iter([Ok(part), Err(broken)]))
        }
    }
}

fn streamed(
    chunks: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
) -> Response<Body> {
    let frames = futures::StreamExt::map(chunks, |chunk| chunk.map(Frame::data));
    let body = BodyExt::boxed(StreamBody::new(frames));
    Response::builder().status(StatusCode::OK).header("content-type", "application/json").body(body).unwrap()
}

fn watching(
    path: &str,
    query: &BTreeMap<String, String>,
    state: Arc<Mutex<State>>,
    changes: watch::Receiver<u64>,
) -> Response<Body> {
    let mut first = String::new();
    let (position, interruptions);
    {
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        interruptions = state.interruptions;
        let initial = query.contains_key("sendInitialEvents");
        let streaming = state.streaming.unwrap_or(Streaming::Served);
        if let (true, Streaming::Refused(code)) = (initial, streaming) {
            let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                           feature gate is enabled";
            return whole(code, status(code, message));
        }
        let from = query.get("resourceVersion").cloned().unwrap_or_default();
        if from.is_empty() {
            for object in state.items(path) {
                first += &format!("{}\n", json!({"type": "ADDED", "object": object}));
            }
            if initial && streaming == Streaming::Served {
                first += &format!("{}\n", bookmark(state.version, true));
            }
            position = state.version;
        } else {
            position = from.parse().unwrap();
            if position < state.compacted {
                let status: Value = serde_json::from_str(&status(410, "too old resource version")).unwrap();
                return whole(200, format!("{}\n", json!({"type": "ERROR", "object": status})));
            }
        }
    }
    let watch =
        Watch { path: path.to_owned(), position, interruptions, state, changes, first, phase: Phase::Open };
    streamed(stream::unfold(watch, Watch::chunk))
}

/// A running watch.
struct Watch {
    path: String,
    position: u64,
    interruptions: u64,
    state: Arc<Mutex<State>>,
    changes: watch::Receiver<u64>,
    first: String,
    phase: Phase,
}

enum Phase {
    Open,
    Broken,
    Over,
}

impl Watch {
    /// Returns the next lines, as soon as there are any.
    async fn chunk(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        match self.phase {
            Phase::Open => {}
            Phase::Broken => {
                self.phase = Phase::Over;
                return Some((Err(std::io::Error::other("cut")), self));
            }
            Phase::Over => return None,
        }
        let mut text = std::mem::take(&mut self.first);
        loop {
            self.changes.borrow_and_update();
            let end = self.add_events(&mut text);
            if let Some(mid_line) = end {
                self.phase = if mid_line { Phase::Broken } else { Phase::Over };
                if mid_line {
                    text += "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"half";
                }
            }
            if !text.is_empty() || end.is_some() {
                return Some((Ok(Bytes::from(text)), self));
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// Adds the events since the last call. At the end of the watch, returns whether it ends in the middle of a line.
    fn add_events(&mut self, text: &mut String) -> Option<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.interruptions != self.interruptions {
            return Some(state.ends_mid_line);
        }
        let is_new = |version: u64, collection: &str| version > self.position && collection == self.path;
        let logged = state.log.iter().filter(|e| is_new(e.version, &e.collection));
        let logged = logged.map(|e| (e.version, json!({"type": e.word, "object": e.object}).to_string()));
        let injected = state.injected.iter().filter(|(v, c, _)| is_new(*v, c));
        let mut all: Vec<(u64, String)> =
            logged.chain(injected.map(|(v, _, line)| (*v, line.clone()))).collect();
        all.sort_by_key(|(version, _)| *version);
        for (version, line) in all {
            *text += if state.corrupted.remove(&version) { "{\"type\":\"AD\u{fffd}" } else { &line };
            text.push('\n');
        }
        self.position = self.position.max(state.version);
        None
    }
}

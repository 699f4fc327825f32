//! Measures the time and memory to read 150,000 pods of 3 KB each: through the watches, over HTTP from a thread of this process, and
//! for comparison the same texts decoded into `serde_json::Value` and into the client library's `Pod`. Then the latency of single
//! events, from the server's write to the agent's channel.
//!
//! `cargo bench -p palisade-api --bench watch`

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use palisade_api::{Event, WatchOptions, watch};
use tokio::sync::{broadcast, oneshot};

const PODS: usize = 150_000;
/// The number of pods in the comparisons, which would otherwise take all memory.
const COMPARED: usize = 15_000;
const EVENTS: usize = 500;

/// Each part runs in its own process: memory that one part returns to the allocator would hide what the next one uses.
const PARTS: [&str; 3] = ["value", "typed", "watch"];

fn main() {
    let part = std::env::args().find(|a| PARTS.contains(&a.as_str()));
    match part.as_deref() {
        Some("value") => compare::<serde_json::Value>("serde_json::Value"),
        Some("typed") => compare::<k8s_openapi::api::core::v1::Pod>("k8s_openapi Pod"),
        Some(_) => follow_all(),
        None => {
            let this = std::env::current_exe().expect("the path of this program");
            for part in PARTS {
                let status =
                    std::process::Command::new(&this).arg(part).status().expect("this program starts");
                assert!(status.success(), "{part}");
            }
        }
    }
}

fn follow_all() {
    let (events, _) = broadcast::channel(16);
    let address = serve(events.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(follow(address, events));
}

/// Decodes texts and keeps the values.
fn compare<T: serde::de::DeserializeOwned>(what: &str) {
    let texts: Vec<String> = (0..COMPARED).map(|n| pod(n, 0)).collect();
    let before = resident();
    let start = Instant::now();
    let kept: Vec<T> = texts.iter().map(|t| serde_json::from_str(t).expect("a pod")).collect();
    let spent = start.elapsed();
    let each = (resident() - before) / kept.len();
    eprintln!("{what}: {:.0} pods/s from memory, {each} bytes each", kept.len() as f64 / spent.as_secs_f64());
}

async fn follow(address: SocketAddr, events: broadcast::Sender<String>) {
    let config = kube::Config::new(format!("http://{address}").parse().expect("a URL"));
    let client = kube::Client::try_from(config).expect("a client");
    let (before, start, cpu) = (resident(), Instant::now(), cpu());
    let mut receiver = watch(client, WatchOptions::default());
    let cluster = loop {
        if let Some(Event::Snapshot(cluster)) = receiver.recv().await {
            break cluster;
        }
    };
    let (spent, after) = (start.elapsed(), resident());
    eprintln!(
        "watch: {} pods, first request to snapshot in {spent:.2?} ({:.0} pods/s, {:.2?} of CPU with the server's thread), {} \
         bytes each",
        cluster.pods.len(),
        cluster.pods.len() as f64 / spent.as_secs_f64(),
        self::cpu() - cpu,
        (after - before) / PODS,
    );
    let mut times = Vec::new();
    for n in 0..EVENTS {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let sent = Instant::now();
        events.send(pod(n, 1 + n)).expect("the watch is open");
        loop {
            if let Some(Event::Changes { .. }) = receiver.recv().await {
                break;
            }
        }
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    eprintln!(
        "one event, from the server's write to the channel: median {:.0?}, 99th percentile {:.0?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}

/// Starts an API server that generates its objects, on its own thread.
fn serve(events: broadcast::Sender<String>) -> SocketAddr {
    let (sender, address) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("an address")).expect("the receiver exists");
            while let Ok((socket, _)) = listener.accept().await {
                let events = events.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| respond(request, events.clone()));
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await
                });
            }
        });
    });
    address.blocking_recv().expect("the server starts")
}

async fn respond(
    request: Request<Incoming>,
    events: broadcast::Sender<String>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.starts_with("/apis/policy") {
        let body = http_body_util::Full::new(Bytes::from_static(b"404 page not found"));
        return Ok(Response::builder().status(404).body(body.boxed()).expect("a response"));
    }
    if path == "/readyz" {
        return Ok(Response::new(http_body_util::Full::new(Bytes::from_static(b"ok")).boxed()));
    }
    let pods = if path == "/api/v1/pods" { PODS } else { 0 };
    let line = |object: String| format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
    // Several objects in a chunk, as a server writes them.
    let list = stream::iter((0..pods).step_by(8))
        .map(move |n| Bytes::from((n..(n + 8).min(pods)).map(|n| line(pod(n, 0))).collect::<String>()));
    let end = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"900000","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
    let end = stream::iter([Bytes::from(format!("{end}\n"))]);
    let later = stream::unfold(events.subscribe(), move |mut events| async move {
        Some((Bytes::from(line(events.recv().await.ok()?)), events))
    });
    let later = if pods > 0 { later.left_stream() } else { stream::pending().right_stream() };
    let frames = list.chain(end).chain(later).map(|chunk| Ok(Frame::data(chunk)));
    Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
}

/// A pod of a Deployment in a service mesh. Most of its fields are not needed.
fn pod(n: usize, version: usize) -> String {
    let (workload, namespace) = (n / 30, n / 1500);
    let (a, b, c) = (n >> 16 & 255, n >> 8 & 255, n & 255);
    let fields = r#"{"f:metadata":{"f:annotations":{".":{},"f:example.com/config":{}},"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{},"f:team":{},"f:version":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"0e5f0d7c-5b43-4d3c-9f2c-8b7d1c1f2a3b\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:env":{},"f:image":{},"f:livenessProbe":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}},"f:resources":{}}}}}"#;
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"app-{workload}-6d5c7b9f4-{n:06}","generateName":"app-{workload}-6d5c7b9f4-","namespace":"team-{namespace}","uid":"0e5f0d7c-5b43-4d3c-9f2c-{n:012}","resourceVersion":"{rv}","creationTimestamp":"2026-11-23T00:30:04Z","labels":{{"app":"app-{workload}","pod-template-hash":"6d5c7b9f4","team":"team-{namespace}","version":"v{version}"}},"annotations":{{"example.com/config":"{filler}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{workload}-6d5c7b9f4","uid":"u","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-23T00:30:04Z","fieldsType":"FieldsV1","fieldsV1":{fields}}}]}},"spec":{{"volumes":[{{"name":"token","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}}],"defaultMode":420}}}}],"containers":[{{"name":"app","image":"registry.example.com/team/app:1.2.3","ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}},{{"name":"metrics","containerPort":9090,"protocol":"TCP"}}],"env":[{{"name":"A","value":"{filler}"}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}}}},"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080,"scheme":"HTTP"}},"periodSeconds":10}},"imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst","serviceAccountName":"default","nodeName":"node-{node}","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"status":{{"phase":"Running","conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"2026-11-23T00:30:09Z"}},{{"type":"Initialized","status":"True"}},{{"type":"PodScheduled","status":"True"}}],"hostIP":"192.0.2.7","podIP":"10.{a}.{b}.{c}","podIPs":[{{"ip":"10.{a}.{b}.{c}"}},{{"ip":"fd00::{n:x}"}}],"startTime":"2026-11-23T00:30:04Z","containerStatuses":[{{"name":"app","state":{{"running":{{"startedAt":"2026-11-23T00:30:08Z"}}}},"ready":true,"restartCount":0,"imageID":"registry.example.com/team/app@sha256:{filler}","containerID":"containerd://{filler}"}}],"qosClass":"Burstable"}}}}"#,
        rv = 200_000 + n + 1_000_000 * version,
        node = n % 5000,
        filler = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    )
}

/// Returns the resident memory in bytes: the second field of `/proc/self/statm`, in pages of 4 KiB.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc of Linux");
    let pages: usize =
        statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("statm has numbers");
    pages * 4096
}

/// Returns the CPU time of this process: fields 14 and 15 of `/proc/self/stat`, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc of Linux");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * 10)
}

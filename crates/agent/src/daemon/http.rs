//! Metrics and health over HTTP.
//!
//! Each request gets its own connection, which is limited in time, per client and in total, because any host that can reach
//! the port may open connections. Health has a second address that pods can't reach, so that the kubelet's probes succeed
//! whatever happens at the first.

mod limiter;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Response as HttpResponse, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{health::Health, inbox::Inbox};
use crate::{metrics::Metrics, socket::Request};
use limiter::{Admission, ConnectionLimiter, Limits};

/// The head of a request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, whatever its state.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a scrape waits for the worker to update the metrics. After that the last values are served.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Metrics younger than this are served from the cache, because updating them costs the worker thread time.
const CACHE_TIME: Duration = Duration::from_millis(250);
/// How long accepting pauses after a connection was refused or evicted, so that a flood costs little CPU.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// How long accepting pauses after `accept` failed.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// The first interval at which a failed `bind` is retried. It doubles up to [`MAX_BIND_RETRY`].
const BIND_RETRY: Duration = Duration::from_secs(1);
const MAX_BIND_RETRY: Duration = Duration::from_secs(60);
/// The content type that Prometheus requires for OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The state from which pages are rendered.
#[derive(Debug)]
pub(crate) struct HttpState {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    inbox: Arc<Inbox>,
    /// The last rendered metrics, and when they were rendered.
    cached_metrics: Mutex<Option<(Instant, Bytes)>>,
}

impl HttpState {
    pub(crate) fn new(metrics: Arc<Metrics>, health: Arc<Health>, inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self { metrics, health, inbox, cached_metrics: Mutex::default() })
    }
}

/// The pages that an address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Health only, for the kubelet.
    Health,
    /// Metrics and health.
    All,
}

impl Pages {
    fn limits(self) -> Limits {
        match self {
            // All clients are processes of the node, so they count as one peer.
            Self::Health => Limits { total: 32, per_peer: 32 },
            Self::All => Limits { total: 64, per_peer: 8 },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::All => "metrics and health",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Health => "health-listen",
            Self::All => "listen",
        }
    }
}

/// Serves pages at an address; never returns. If the address can't be bound, because another program uses the port or the
/// node doesn't have the address, logs the error and retries: enforcement must not depend on it.
pub(crate) async fn run(address: SocketAddr, pages: Pages, state: Arc<HttpState>) {
    let mut retry = BIND_RETRY;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(err) => {
                tracing::error!(
                    %address, setting = pages.setting(), pages = pages.name(), %err,
                    "cannot listen for HTTP requests, retrying"
                );
                sleep(retry).await;
                retry = (retry * 2).min(MAX_BIND_RETRY);
            }
        }
    };
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %bound, pages = pages.name(), "listening for HTTP requests");
    serve(listener, pages, state).await;
}

async fn serve(listener: TcpListener, pages: Pages, state: Arc<HttpState>) {
    let limiter = ConnectionLimiter::new(pages.limits());
    let is_local = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
    loop {
        match listener.accept().await {
            // With the sysctl route_localnet, packets from other hosts reach loopback addresses too.
            Ok((_, client)) if is_local && !is_loopback(client.ip()) => sleep(FLOOD_PAUSE).await,
            Ok((stream, client)) => match limiter.admit(client.ip()) {
                Some(admission) => {
                    let has_evicted = admission.has_evicted;
                    tokio::spawn(serve_connection(stream, client, admission, pages, Arc::clone(&state)));
                    if has_evicted {
                        sleep(FLOOD_PAUSE).await;
                    }
                }
                None => {
                    tracing::debug!(%client, "refused HTTP connection, too many requests in progress");
                    sleep(FLOOD_PAUSE).await;
                }
            },
            // Usually the process has no file descriptors left, until other connections are closed.
            Err(err) => {
                tracing::warn!(%err, "cannot accept HTTP connections, retrying");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    admission: Admission,
    pages: Pages,
    state: Arc<HttpState>,
) {
    let Admission { slot, eviction, .. } = admission;
    let slot = Arc::new(slot);
    let service = service_fn(move |request| {
        slot.request_received();
        let (state, slot) = (Arc::clone(&state), Arc::clone(&slot));
        async move {
            let response = respond(&request, pages, &state).await;
            drop(slot);
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = timeout(CONNECTION_TIMEOUT, serving) => match served {
            Ok(Ok(())) => {}
            Ok(Err(err)) => tracing::debug!(%client, %err, "HTTP request failed"),
            Err(_) => tracing::debug!(%client, "HTTP request timed out"),
        },
        () = eviction.wait() => tracing::debug!(%client, "closed idle HTTP connection in favor of a new one"),
    }
}

async fn respond(
    request: &HttpRequest<Incoming>,
    pages: Pages,
    state: &HttpState,
) -> HttpResponse<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response =
            plain_text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => health(state.health.alive()),
        "/readyz" => health(state.health.ready()),
        "/metrics" if pages == Pages::All => metrics(state).await,
        _ if pages == Pages::All => not_found("the pages are /metrics, /healthz and /readyz\n"),
        _ => not_found("the pages are /healthz and /readyz; /metrics is at the address of --listen\n"),
    }
}

fn health(state: Result<(), String>) -> HttpResponse<Full<Bytes>> {
    match state {
        Ok(()) => plain_text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => plain_text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn not_found(text: &str) -> HttpResponse<Full<Bytes>> {
    plain_text(StatusCode::NOT_FOUND, text.to_owned())
}

/// Returns the metrics, updated first if the cache is too old. Concurrent requests share one update.
async fn metrics(state: &HttpState) -> HttpResponse<Full<Bytes>> {
    let mut cached = state.cached_metrics.lock().await;
    if let Some((at, text)) = &*cached
        && at.elapsed() < CACHE_TIME
    {
        return response(StatusCode::OK, text.clone(), OPEN_METRICS);
    }
    // After a timeout the slightly older values are served.
    _ = timeout(UPDATE_TIMEOUT, state.inbox.request(Request::UpdateMetrics)).await;
    match state.metrics.text() {
        Ok(text) => {
            let text = Bytes::from(text);
            *cached = Some((Instant::now(), text.clone()));
            response(StatusCode::OK, text, OPEN_METRICS)
        }
        Err(_) => plain_text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n".to_owned()),
    }
}

fn plain_text(status: StatusCode, body: String) -> HttpResponse<Full<Bytes>> {
    response(status, body.into(), "text/plain; charset=utf-8")
}

fn response(status: StatusCode, body: Bytes, content_type: &'static str) -> HttpResponse<Full<Bytes>> {
    let mut response = HttpResponse::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Serves one connection, for [`crate::fuzzing`].
#[cfg(fuzzing)]
pub(crate) async fn fuzz(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let state = HttpState::new(Arc::new(Metrics::new("1.0", "n1")), Arc::default(), Arc::default());
    let client = SocketAddr::from(([192, 0, 2, 1], 1));
    if let Some(admission) = ConnectionLimiter::new(Pages::All.limits()).admit(client.ip()) {
        serve_connection(stream, client, admission, Pages::All, state).await;
    }
}

#[cfg(test)]
mod tests;

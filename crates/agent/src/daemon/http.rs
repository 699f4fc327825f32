//! Metrics and health over HTTP. Small requests, small answers, nothing kept open.
//!
//! Health has an address of its own, which pods don't reach, so that the kubelet gets its answer whatever happens at the
//! other. What is open to the network is limited by peer, in number and in time.

mod room;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{Health, Inbox};
use crate::{metrics::Metrics, socket::Ask};
use room::{Entered, Limits, Room};

/// The head of a request must be there after so long.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A connection is closed after so long, whatever it does.
const LONGEST: Duration = Duration::from_secs(15);
/// The head of a request may be so long.
const HEAD: usize = 8 << 10;
/// How long figures may take to be brought up to date; else the last ones are shown.
const FIGURES: Duration = Duration::from_secs(2);
/// Figures this old are shown again: counting them costs the thread that works on the kernel.
const FRESH: Duration = Duration::from_millis(250);
/// After a connection that found no room the next one waits, so that a flood costs little.
const BREATH: Duration = Duration::from_millis(1);
/// An address that can't be listened on is tried again after so long, and then after twice as long each time.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// What Prometheus wants to see (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Shown {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    inbox: Arc<Inbox>,
    /// The metrics as last shown.
    figures: Mutex<Option<(Instant, Bytes)>>,
}

impl Shown {
    pub(crate) fn new(metrics: Arc<Metrics>, health: Arc<Health>, inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self { metrics, health, inbox, figures: Mutex::default() })
    }
}

/// Which pages an address serves, and to how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Health alone, for the kubelet.
    Health,
    /// Metrics, and health too.
    All,
}

impl Pages {
    fn limits(self) -> Limits {
        match self {
            // All who ask are processes of the node: one peer.
            Self::Health => Limits { overall: 32, of_one: 32 },
            Self::All => Limits { overall: 64, of_one: 8 },
        }
    }

    fn named(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::All => "metrics and health",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Health => "--health-listen",
            Self::All => "--listen",
        }
    }
}

/// Serves at an address, for ever. If it can't be listened on, because another program has the port or the node lacks the
/// address, that is logged and tried again: enforcement must not wait for it.
pub(crate) async fn run(address: SocketAddr, pages: Pages, shown: Arc<Shown>) {
    let mut pause = AGAIN;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::error!(
                    %address,
                    %error,
                    "cannot serve {}: is another program there? Name another address with {}, or off; \
                     policies are enforced all the same, and it is tried again",
                    pages.named(),
                    pages.setting()
                );
                sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AT_MOST);
            }
        }
    };
    let at = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %at, "serving {}", pages.named());
    serve(listener, pages, shown).await;
}

async fn serve(listener: TcpListener, pages: Pages, shown: Arc<Shown>) {
    let room = Room::new(pages.limits());
    let is_local = listener.local_addr().is_ok_and(|at| at.ip().is_loopback());
    loop {
        match listener.accept().await {
            // With the sysctl route_localnet, packets of others reach loopback addresses too.
            Ok((_, from)) if is_local && !is_loopback(from.ip()) => sleep(BREATH).await,
            Ok((stream, from)) => match room.enter(from.ip()) {
                Some(entered) => {
                    let displaced = entered.displaced;
                    tokio::spawn(talk(stream, from, entered, pages, Arc::clone(&shown)));
                    if displaced {
                        sleep(BREATH).await;
                    }
                }
                None => {
                    tracing::debug!(%from, "a connection is refused: too many requests are being answered");
                    sleep(BREATH).await;
                }
            },
            // Out of files, as a rule: others must close some first.
            Err(error) => {
                tracing::warn!(%error, "no request can be taken in");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

async fn talk(stream: TcpStream, from: SocketAddr, entered: Entered, pages: Pages, shown: Arc<Shown>) {
    let Entered { guest, until, .. } = entered;
    let guest = Arc::new(guest);
    let service = service_fn(move |request| {
        guest.settle();
        let (shown, guest) = (Arc::clone(&shown), Arc::clone(&guest));
        async move {
            let response = answer(&request, pages, &shown).await;
            drop(guest);
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD).keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = timeout(LONGEST, serving) => match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%from, %error, "a request failed"),
            Err(_) => tracing::debug!(%from, "a request took too long"),
        },
        () = until.wait() => tracing::debug!(%from, "a silent connection gave way to another"),
    }
}

async fn answer(request: &Request<Incoming>, pages: Pages, shown: &Shown) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => health(shown.health.alive()),
        "/readyz" => health(shown.health.ready()),
        "/metrics" if pages == Pages::All => metrics(shown).await,
        _ if pages == Pages::All => not_found("there is /metrics, /healthz and /readyz\n"),
        _ => not_found("there is /healthz and /readyz; /metrics is at the address of --listen\n"),
    }
}

fn health(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn not_found(what: &str) -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, what.to_owned())
}

/// The metrics, recomputed if they are stale. Concurrent requests share one computation.
async fn metrics(shown: &Shown) -> Response<Full<Bytes>> {
    let mut last = shown.figures.lock().await;
    if let Some((at, figures)) = &*last
        && at.elapsed() < FRESH
    {
        return typed(StatusCode::OK, figures.clone(), OPEN_METRICS);
    }
    // Whether in time or not: figures that are a little old are better than none.
    _ = timeout(FIGURES, shown.inbox.ask(Ask::Figures)).await;
    match shown.metrics.text() {
        Ok(figures) => {
            let figures = Bytes::from(figures);
            *last = Some((Instant::now(), figures.clone()));
            typed(StatusCode::OK, figures, OPEN_METRICS)
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, body.into(), "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, body: Bytes, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;

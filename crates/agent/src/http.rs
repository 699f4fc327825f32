//! Metrics and health over HTTP. Small requests, small answers, nothing kept open.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    daemon::{Health, Inbox},
    metrics::Metrics,
    socket::Ask,
};

/// As many connections at once; the next wait.
const MANY: usize = 32;
/// A connection is closed after so long, whatever it does.
const LONGEST: Duration = Duration::from_secs(15);
/// The head of a request may be so long.
const HEAD: usize = 8 << 10;
/// How long figures may take to be brought up to date; else the last ones are shown.
const FIGURES: Duration = Duration::from_secs(2);
/// What Prometheus wants to see (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) inbox: Arc<Inbox>,
}

/// Answers, for ever.
pub(crate) async fn serve(listener: TcpListener, shown: Arc<Shown>) {
    let room = Arc::new(Semaphore::new(MANY));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let shown = Arc::clone(&shown);
                tokio::spawn(async move {
                    talk(stream, from, shown).await;
                    drop(place);
                });
            }
            // Out of files, as a rule: others must close some first.
            Err(error) => {
                tracing::warn!(%error, "no request can be taken in");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, from: SocketAddr, shown: Arc<Shown>) {
    let service = service_fn(move |request| {
        let shown = Arc::clone(&shown);
        async move { Ok::<_, Infallible>(answer(&request, &shown).await) }
    });
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD).keep_alive(false).header_read_timeout(None);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    match timeout(LONGEST, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "a request failed"),
        Err(_) => tracing::debug!(%from, "a request took too long"),
    }
}

async fn answer(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(shown).await,
        "/healthz" => health(shown.health.alive()),
        "/readyz" => health(shown.health.ready()),
        _ => text(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn health(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(shown: &Shown) -> Response<Full<Bytes>> {
    // Whether in time or not: figures that are a little old are better than none.
    _ = timeout(FIGURES, shown.inbox.ask(Ask::Figures)).await;
    match shown.metrics.text() {
        Ok(figures) => typed(StatusCode::OK, figures, OPEN_METRICS),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, body, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream as Blocking,
        thread,
    };

    use super::*;

    /// Serves until the process ends; the inbox is answered by nobody, as when a long transaction runs.
    fn start() -> (SocketAddr, Arc<Health>) {
        let health = Arc::new(Health::default());
        let shown = Shown {
            metrics: Arc::new(Metrics::new("1.0", "n1")),
            health: Arc::clone(&health),
            inbox: Arc::default(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async { serve(TcpListener::from_std(listener).unwrap(), Arc::new(shown)).await });
        });
        (address, health)
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = Blocking::connect(address).unwrap();
        // The other side may have seen enough before everything is sent.
        _ = stream.write_all(request);
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(address: SocketAddr, path: &str) -> String {
        ask(address, format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n").as_bytes())
    }

    #[test]
    fn health_and_metrics_are_told_also_while_a_transaction_runs() {
        let (address, health) = start();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        let starting = get(address, "/readyz");
        assert!(starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("the agent is starting\n"));
        health.set(None);
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
        let metrics = get(address, "/metrics");
        assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(metrics.contains("# HELP palisade_ready Whether "), "{metrics}");
    }

    #[test]
    fn what_is_no_question_of_ours_is_refused() {
        let (address, _) = start();
        assert!(get(address, "/").starts_with("HTTP/1.1 404 "));
        let post = ask(address, b"POST /metrics HTTP/1.1\r\nHost: n1\r\nContent-Length: 0\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        assert!(ask(address, b"\x16\x03\x01\x02\x00 no http at all\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
        assert!(!ask(address, &endless).contains(" 200 "));
        // Many that say nothing take no room from the others for long, and none at all while there is some.
        let silent: Vec<Blocking> = (0..MANY - 1).map(|_| Blocking::connect(address).unwrap()).collect();
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        drop(silent);
    }
}

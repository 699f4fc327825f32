//! HTTP on 127.0.0.1. A request has a connection of its own, which is limited in size and time; connections are limited in number.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::api::Api;

/// The most connections. More wait to be accepted. A page has one that waits for changes, and some for moments.
const MOST_CONNECTIONS: usize = 64;
/// The head of a request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, whatever its state. Longer than any answer takes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes: names of objects in a URL, and a browser's headers.
const MAX_HEAD: usize = 32 << 10;
/// How long accepting pauses after `accept` failed: usually the process has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Answers requests; never returns.
pub(super) async fn serve(listener: TcpListener, api: Arc<Api>) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) if client.ip().is_loopback() => {
                let api = Arc::clone(&api);
                tokio::spawn(async move {
                    serve_connection(stream, api).await;
                    drop(slot);
                });
            }
            // With the sysctl route_localnet, packets from other hosts reach loopback addresses too.
            Ok(_) => {}
            Err(_) => sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, api: Arc<Api>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.reply(request).await.into_response()) }
    });
    let mut server = http1::Builder::new();
    server
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    // What goes wrong with a connection, the browser reports.
    _ = timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(stream), service)).await;
}

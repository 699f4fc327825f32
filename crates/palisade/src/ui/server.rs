//! HTTP on 127.0.0.1. A request has a connection of its own, which is limited in size and time; connections are limited in number, by how
//! far they have come ([`Places`]).

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    api::Api,
    places::{Place, Places},
};

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
    let places = Places::new();
    loop {
        let stream = accept(&listener, &places).await;
        let api = Arc::clone(&api);
        places.begin(|place| tokio::spawn(serve_connection(stream, api, place)).abort_handle());
        // In a flood there is always one more to accept. Requests that have arrived are read in between, and closed connections freed.
        yield_now().await;
    }
}

/// Waits for a connection of this machine.
async fn accept(listener: &TcpListener, places: &Places) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, client)) if client.ip().is_loopback() => return stream,
            // With the sysctl route_localnet, packets from other hosts reach loopback addresses too.
            Ok(_) => {}
            // One that sends nothing makes room, so that a low limit of descriptors keeps no one out.
            Err(_) if places.close_oldest() => yield_now().await,
            Err(_) => sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, api: Arc<Api>, place: Place) {
    let place = Arc::new(place);
    let service = service_fn(|request: Request<Incoming>| {
        let (api, place) = (Arc::clone(&api), Arc::clone(&place));
        async move {
            if api.knows(&request) {
                place.with_token().await;
            } else {
                place.without_token();
            }
            Ok::<_, Infallible>(api.reply(request).await.into_response())
        }
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

//! HTTP on 127.0.0.1. A request has a connection of its own, which is limited in size and time; connections are limited in number. If there
//! are too many, the oldest without the token is closed: other users of this machine can connect too.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::api::Api;

/// The most connections. If all have the token, one more waits to be served, and others to be accepted. A page has one that waits for
/// changes, and some for moments.
const MOST_CONNECTIONS: usize = 64;
/// The head of a request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, whatever its state. Longer than any answer takes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes: names of objects in a URL, and a browser's headers.
const MAX_HEAD: usize = 32 << 10;
/// How long accepting pauses after `accept` failed: usually the process has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// The connections whose request has not shown the token, by their number. The first is the oldest.
#[derive(Clone, Default)]
struct Strangers(Arc<Mutex<BTreeMap<u64, AbortHandle>>>);

impl Strangers {
    /// Ignores poisoning: each change is a single one.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the oldest, if there is one.
    fn close_oldest(&self) {
        if let Some((_, connection)) = self.lock().pop_first() {
            connection.abort();
        }
    }
}

/// A place among the connections.
struct Place {
    number: u64,
    strangers: Strangers,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The connection has shown the token: it is not closed for others.
    fn keep(&self) {
        self.strangers.lock().remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep();
    }
}

/// Answers requests; never returns.
pub(super) async fn serve(listener: TcpListener, api: Arc<Api>) {
    let (slots, strangers) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), Strangers::default());
    for number in 0.. {
        let stream = accept(&listener).await;
        if slots.available_permits() == 0 {
            strangers.close_oldest();
        }
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&slots).acquire_owned().await else { return };
        let place = Place { number, strangers: strangers.clone(), _permit: permit };
        // The lock is held until the connection is known, whenever it begins.
        let mut known = strangers.lock();
        let connection = tokio::spawn(serve_connection(stream, Arc::clone(&api), place));
        known.insert(number, connection.abort_handle());
    }
}

/// Waits for a connection of this machine.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, client)) if client.ip().is_loopback() => return stream,
            // With the sysctl route_localnet, packets from other hosts reach loopback addresses too.
            Ok(_) => {}
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
                place.keep();
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

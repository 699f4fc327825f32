//! Lists and watches one kind for as long as it is served.
//!
//! `kube_runtime::watcher` does nearly this, and is not used for four reasons. After a line that it can't decode it continues with the
//! next one, and the event is lost until the next list. If the server responds with 410 to the request for a watch, it requests the same
//! version again, forever. It hides the resource version that it has reached, so replacing it means to list everything again. And it
//! requires the whole `ObjectMeta` of each object. The requests, the connection and the credentials are those of `kube`.
//!
//! Invariant: all events up to `position` have been sent, in order. So a watch that is interrupted is resumed from there. The list is
//! read again only if the server no longer has that version (410), and the objects that it lacks are sent as removed at its end, not
//! before.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use kube::client::Body;
use palisade_policy::Change;
use tokio::sync::{Notify, mpsc};

use super::{
    advice,
    lines::Lines,
    message::{Message, bookmark, message},
    options::WatchOptions,
    store::{Store, StoreUpdate},
};
use crate::{
    backoff::Backoff,
    client::{ClientPool, PooledClient},
    error::{ApiError, ApiErrorKind},
    event::{Event, WatchState},
    list::{ListReader, PAGE_SIZE},
    request::VersionedKind,
    resource::ResourceKind,
    transport::error_status,
};

/// How many changes of a list are sent together.
const LIST_BATCH: usize = 512;
/// The server ends a watch after this many seconds at the earliest and twice as many at the latest, as client-go requests it.
const WATCH_SECONDS: u32 = 300;
/// A streamed list that pauses for longer is an ordinary watch.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// After this many failures in a row to continue from one version, the list is read again.
const FAILURES_BEFORE_LIST: u32 = 4;

/// What a session sends.
pub(super) enum SessionEvent {
    /// Changes, never empty.
    Changes { changes: Vec<Change>, received: Instant },
    /// An event to forward as it is.
    Forward(Event),
    /// The first list is complete, or the kind is not served.
    Listed(ResourceKind),
    /// The server refuses the first list: a right is missing.
    Refused(ResourceKind),
}

/// How lists are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMode {
    /// As the start of a watch. Tried first.
    Streamed,
    /// In pages: the server doesn't stream lists.
    Paged,
    /// In one response: pages expired before they were read.
    Unpaged,
}

/// The receiver was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disconnected;

/// The watch of one kind.
pub(super) struct Session {
    resource: VersionedKind,
    options: Arc<WatchOptions>,
    clients: Arc<ClientPool>,
    /// Notified of a 404 of an optional kind.
    check_discovery: Arc<Notify>,
    out: mpsc::Sender<SessionEvent>,
    /// Events to send, in order. What the store counts as sent is sent or in this queue, so a session that is canceled at any await can
    /// be run again.
    unsent: VecDeque<SessionEvent>,
    store: Store,
    /// The resource version up to which all events have been sent.
    position: Option<String>,
    list_mode: ListMode,
    backoff: Backoff,
    /// Failures since the last success.
    failures: u32,
    state: Option<WatchState>,
    /// Whether a list has been complete.
    listed: bool,
}

/// What ends one request.
#[derive(Debug)]
enum Stop {
    Error(ApiError),
    Disconnected,
}

impl<E: Into<ApiError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Session {
    pub(super) fn new(
        resource: VersionedKind,
        options: Arc<WatchOptions>,
        clients: Arc<ClientPool>,
        check_discovery: Arc<Notify>,
        out: mpsc::Sender<SessionEvent>,
    ) -> Self {
        Self {
            store: Store::new(resource.kind),
            backoff: Backoff::new(options.initial_backoff, options.max_backoff),
            resource,
            options,
            clients,
            check_discovery,
            out,
            unsent: VecDeque::new(),
            position: None,
            list_mode: ListMode::Streamed,
            failures: 0,
            state: None,
            listed: false,
        }
    }

    /// Switches to another version. The known objects stay until the list in that version is complete.
    pub(super) fn set_version(&mut self, resource: VersionedKind) {
        if self.resource != resource {
            self.resource = resource;
            self.position = None;
        }
    }

    /// Lists and watches until the receiver is dropped. A 404 is retried like other failures; for an optional kind discovery finds out
    /// what it means and stops the session. May be canceled at any await and run again.
    pub(super) async fn run(&mut self) -> Disconnected {
        if self.flush().await.is_err() {
            return Disconnected;
        }
        loop {
            let client = self.clients.current().await;
            let result = match self.position.clone() {
                None => self.list(&client).await,
                Some(position) => self.resume(&client, &position).await,
            };
            let error = match result {
                Ok(()) => continue,
                Err(Stop::Disconnected) => return Disconnected,
                Err(Stop::Error(error)) => error,
            };
            if error.is_not_found() && self.resource.kind.is_optional() {
                self.position = None;
                self.check_discovery.notify_one();
            }
            if self.back_off(&client, error).await.is_err() {
                return Disconnected;
            }
        }
    }

    /// Reports the error, waits, and decides whether to list again or to replace the client.
    async fn back_off(&mut self, client: &PooledClient, error: ApiError) -> Result<(), Stop> {
        self.failures = self.failures.saturating_add(1);
        if error.is_expired() {
            self.position = None;
        } else if error.is_not_found() && self.resource.kind.is_optional() && self.listed {
            // Discovery finds out whether the definition was deleted or the server is starting.
            self.set_state(WatchState::Disappeared).await?;
        } else {
            let service = self.options.service_address.as_deref();
            let why = advice::describe(&error, self.resource.kind, self.listed, service);
            self.set_state(WatchState::Failing { why }).await?;
            if error.is_forbidden() && !self.listed {
                self.send(SessionEvent::Refused(self.resource.kind)).await?;
            }
            let is_undecodable = matches!(
                error.kind(),
                ApiErrorKind::Malformed(_) | ApiErrorKind::TooLarge(_) | ApiErrorKind::WatchClosed
            );
            if is_undecodable && self.failures >= FAILURES_BEFORE_LIST {
                self.position = None;
            }
        }
        if error.may_need_new_client() {
            self.clients.renew(client).await;
        }
        tokio::time::sleep(self.backoff.next(error.retry_after())).await;
        Ok(())
    }

    /// Reads the list, streamed or in pages. A streamed list continues as a watch.
    async fn list(&mut self, client: &PooledClient) -> Result<(), Stop> {
        if self.list_mode == ListMode::Streamed {
            match self.list_streamed(client).await {
                Err(Stop::Error(error)) if is_refusal_of_streaming(&error) => {
                    tracing::debug!(kind = %self.resource.kind, err = %error, "server does not stream lists, reading pages");
                    self.list_mode = ListMode::Paged;
                }
                other => return other,
            }
        }
        self.list_paged(client).await
    }

    async fn list_streamed(&mut self, client: &PooledClient) -> Result<(), Stop> {
        let body = self.send_request(client, self.resource.watch(None, watch_seconds())?).await?;
        self.set_state(WatchState::Listing).await?;
        self.store.begin_list();
        let mut lines = Lines::new(body);
        loop {
            let received = match lines.fill(self.options.response_timeout.min(STREAM_IDLE_TIMEOUT)).await {
                Ok(Some(received)) => received,
                // A server that doesn't know `sendInitialEvents` ignores it and starts an ordinary watch.
                Err(error) if matches!(error.kind(), ApiErrorKind::TimedOut(_)) => {
                    return Err(not_streamed("the list does not end").into());
                }
                Ok(None) => {
                    return Err(ApiErrorKind::ConnectionLost("the list is incomplete".to_owned()).into());
                }
                Err(error) => return Err(error.into()),
            };
            let (mut update, mut complete) = (StoreUpdate::default(), None);
            while let Some(line) = lines.next() {
                match message(line)? {
                    Message::Set(object) => {
                        self.store.apply(&self.resource.api_version, object, &mut update)?;
                    }
                    Message::Deleted(object) => {
                        self.store.delete(object, &mut update)?;
                    }
                    Message::Bookmark(object) => match bookmark(object)? {
                        (version, true) => {
                            complete = Some(version);
                            break;
                        }
                        (_, false) => return Err(not_streamed("a bookmark within the list").into()),
                    },
                    Message::Error(object) => return Err(error_status(object.as_bytes(), 500, None).into()),
                }
            }
            if complete.is_some() {
                self.store.end_list(&mut update);
            }
            self.send_update(update, received).await?;
            if let Some(version) = complete {
                self.list_complete(version).await?;
                return self.watch(lines, true).await;
            }
        }
    }

    async fn list_paged(&mut self, client: &PooledClient) -> Result<(), Stop> {
        let resource = self.resource.clone();
        let page_size = (self.list_mode != ListMode::Unpaged).then_some(PAGE_SIZE);
        let mut list = ListReader::new(&resource, None, page_size);
        self.store.begin_list();
        loop {
            let text = match list.fetch(&client.client, self.options.response_timeout).await {
                Err(error) if error.is_expired() && list.is_continued() => {
                    self.list_mode = ListMode::Unpaged;
                    return Err(error.into());
                }
                other => other?,
            };
            self.set_state(WatchState::Listing).await?;
            let received = Instant::now();
            let mut update = StoreUpdate::default();
            for object in list.decode(&text)? {
                self.store.apply(&resource.api_version, object.get(), &mut update)?;
                if update.changes.len() >= LIST_BATCH {
                    self.send_update(std::mem::take(&mut update), received).await?;
                }
            }
            let Some(version) = list.resource_version() else {
                self.send_update(update, received).await?;
                continue;
            };
            if version.is_empty() {
                return Err(ApiError::malformed("a list without resourceVersion").into());
            }
            self.store.end_list(&mut update);
            self.send_update(update, received).await?;
            return self.list_complete(version.to_owned()).await;
        }
    }

    async fn list_complete(&mut self, version: String) -> Result<(), Stop> {
        self.position = Some(version);
        self.failures = 0;
        if self.list_mode == ListMode::Unpaged {
            self.list_mode = ListMode::Paged;
        }
        self.set_state(WatchState::Watching).await?;
        self.first_list_complete().await
    }

    async fn first_list_complete(&mut self) -> Result<(), Stop> {
        if self.listed {
            return Ok(());
        }
        self.listed = true;
        self.send(SessionEvent::Listed(self.resource.kind)).await
    }

    /// Continues the watch from the position.
    async fn resume(&mut self, client: &PooledClient, position: &str) -> Result<(), Stop> {
        let request = self.resource.watch(Some(position), watch_seconds())?;
        let body = self.send_request(client, request).await?;
        self.watch(Lines::new(body), false).await
    }

    /// Sends the events of a watch until it ends. `Ok`: resume from the position without a pause. `useful`: the connection has already
    /// delivered data.
    async fn watch(&mut self, mut lines: Lines, mut useful: bool) -> Result<(), Stop> {
        let start = tokio::time::Instant::now();
        loop {
            // A watch that failed counts as working again once it has delivered an event, or has been open for a while.
            let was_failing =
                matches!(self.state, Some(WatchState::Failing { .. } | WatchState::Disappeared) | None);
            let trial = self.options.initial_backoff * 4;
            let timeout = if was_failing { trial } else { self.options.idle_timeout };
            let received = match lines.fill(timeout).await {
                Err(error) if matches!(error.kind(), ApiErrorKind::TimedOut(_)) => {
                    if was_failing {
                        self.set_working().await?;
                        continue;
                    }
                    // Not even a bookmark: the connection is dead, or the server is too old for bookmarks.
                    return Ok(());
                }
                other => other,
            };
            match received {
                Ok(Some(received)) => {
                    self.handle_lines(&mut lines, received).await?;
                    useful = true;
                    self.set_working().await?;
                }
                // Servers end watches and connections are lost. That is a failure only if the watch never worked.
                _ if useful || start.elapsed() > self.options.initial_backoff * 8 => return Ok(()),
                Ok(None) => return Err(ApiErrorKind::WatchClosed.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Handles the received lines. The events before a malformed line are sent.
    async fn handle_lines(&mut self, lines: &mut Lines, received: Instant) -> Result<(), Stop> {
        let mut update = StoreUpdate::default();
        let mut result = Ok(());
        while let Some(line) = lines.next() {
            match self.handle_line(line, &mut update) {
                Ok(version) => self.position = Some(version),
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            }
        }
        self.send_update(update, received).await?;
        result
    }

    /// Returns the resource version of the line.
    fn handle_line(&mut self, line: &[u8], update: &mut StoreUpdate) -> Result<String, ApiError> {
        let version = match message(line)? {
            Message::Set(object) => self.store.apply(&self.resource.api_version, object, update)?,
            Message::Deleted(object) => self.store.delete(object, update)?,
            Message::Bookmark(object) => bookmark(object)?.0,
            Message::Error(object) => return Err(error_status(object.as_bytes(), 500, None)),
        };
        if version.is_empty() {
            return Err(ApiError::malformed("a watch event without resourceVersion"));
        }
        Ok(version)
    }

    async fn set_working(&mut self) -> Result<(), Stop> {
        self.failures = 0;
        self.backoff.reset();
        self.set_state(WatchState::Watching).await
    }

    async fn send_request(&self, client: &PooledClient, request: Request<Vec<u8>>) -> Result<Body, ApiError> {
        client.send(request, self.options.response_timeout).await
    }

    async fn send_update(&mut self, update: StoreUpdate, received: Instant) -> Result<(), Stop> {
        if update.is_empty() {
            return Ok(());
        }
        let StoreUpdate { changes, findings } = update;
        if !changes.is_empty() {
            self.unsent.push_back(SessionEvent::Changes { changes, received });
        }
        let findings = findings.into_iter().map(|(object, findings)| Event::Findings { object, findings });
        self.unsent.extend(findings.map(SessionEvent::Forward));
        self.flush().await
    }

    /// Removes all objects: the kind is not served.
    pub(super) async fn remove_all(&mut self) -> Result<(), Disconnected> {
        let mut update = StoreUpdate::default();
        self.store.clear(&mut update);
        self.position = None;
        let sent = async {
            self.send_update(update, Instant::now()).await?;
            self.set_state(WatchState::NotServed).await?;
            self.first_list_complete().await
        };
        sent.await.map_err(|_: Stop| Disconnected)
    }

    /// Reports that discovery fails, so that it is unknown whether the kind is served.
    pub(super) async fn report_failure(&mut self, error: &ApiError) -> Result<(), Disconnected> {
        let service = self.options.service_address.as_deref();
        let why = advice::describe(error, self.resource.kind, self.listed, service);
        self.set_state(WatchState::Failing { why }).await.map_err(|_| Disconnected)
    }

    /// Sends the state of the watch if it changed.
    async fn set_state(&mut self, state: WatchState) -> Result<(), Stop> {
        if self.state.as_ref() == Some(&state) {
            return Ok(());
        }
        self.state = Some(state.clone());
        self.send(SessionEvent::Forward(Event::Watch { kind: self.resource.kind, state })).await
    }

    async fn send(&mut self, event: SessionEvent) -> Result<(), Stop> {
        self.unsent.push_back(event);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        while !self.unsent.is_empty() {
            let permit = self.out.reserve().await.map_err(|_| Stop::Disconnected)?;
            if let Some(event) = self.unsent.pop_front() {
                permit.send(event);
            }
        }
        Ok(())
    }
}

/// Returns a random time, so that the watches of thousands of agents don't end together.
fn watch_seconds() -> u32 {
    WATCH_SECONDS + fastrand::u32(0..WATCH_SECONDS)
}

/// Whether the server does not stream lists. Servers before 1.27 reject `resourceVersionMatch` on a watch, or ignore parameters that they
/// don't know; later ones reject `sendInitialEvents` if the feature is off.
fn is_refusal_of_streaming(error: &ApiError) -> bool {
    error.code().is_some_and(|c| (400..500).contains(&c) && ![401, 403, 404, 408, 429].contains(&c))
}

fn not_streamed(reason: &str) -> ApiError {
    ApiError::status(400, &format!("the server does not stream lists: {reason}"), None)
}

//! One kind, listed and watched for as long as it is served.
//!
//! `kube_runtime::watcher` does nearly this, and was not taken for four reasons. After a line that it can't read it goes on
//! with the next, and what the line said is lost until the next list. When the server answers 410 to the request for a
//! watch it asks again for the same version, forever. It hides the version that it has reached, so that leaving it means
//! to list everything anew. And it wants each object with its whole `ObjectMeta`. The requests, the connection, the
//! credentials are its sister crate's.
//!
//! What holds at any moment: everything up to `position` has been told, in order. So a watch that breaks is resumed from
//! there; only when the server has forgotten that version (410) the list is read anew, and then what it doesn't name
//! is told as removed at its end, not before.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use kube::client::Body;
use tokio::sync::{Notify, mpsc};

use super::{
    Told, WatchOptions,
    doors::{Door, Doors},
    failure::Failure,
    lines::{Lines, whole},
    message::{Message, Page, bookmark, message, rubbish, status},
    pauses::Pauses,
    resource::Resource,
    store::{News, Store},
};
use crate::{Event, WatchState};

/// A page holds at most 500 objects; most are of a few KiB.
const LONGEST_PAGE: usize = 1 << 30;
/// How many objects of a list go on together.
const LIST_BATCH: usize = 512;
/// The server ends a watch after this many seconds at the earliest, twice as many at the latest: as client-go asks for.
const WATCH_SECONDS: u32 = 300;
/// A streamed list that pauses for longer is none.
const STREAM_SILENCE: Duration = Duration::from_secs(10);
/// After so many failures in a row to go on from one version, the list is read anew.
const FAILURES_BEFORE_LIST: u32 = 4;

/// Whether the server streams lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lists {
    /// As far as we know.
    Streamed,
    /// It doesn't: pages.
    Paged,
    /// Pages expire before they are read: all at once.
    Whole,
}

/// Nobody listens any longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deaf;

/// The watch of one kind.
pub(super) struct Session {
    resource: Resource,
    options: Arc<WatchOptions>,
    doors: Arc<Doors>,
    /// Where a 404 of an optional kind is told.
    doubt: Arc<Notify>,
    out: mpsc::Sender<Told>,
    /// What is to be told, first first. What the store believes told is here at least, so a session that is stopped at any
    /// moment can be run again.
    untold: VecDeque<Told>,
    store: Store,
    /// The version up to which everything has been told.
    position: Option<String>,
    lists: Lists,
    pauses: Pauses,
    /// Failures since something was told.
    failures: u32,
    state: Option<WatchState>,
    /// Whether a list has been complete.
    listed: bool,
}

/// What ends one request. `Failure` where it is worth a pause.
#[derive(Debug)]
enum Stop {
    Failure(Failure),
    Deaf,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Session {
    pub(super) fn new(
        resource: Resource,
        options: Arc<WatchOptions>,
        doors: Arc<Doors>,
        doubt: Arc<Notify>,
        out: mpsc::Sender<Told>,
    ) -> Self {
        Self {
            store: Store::new(resource.kind),
            pauses: Pauses::new(options.first_pause, options.longest_pause),
            resource,
            options,
            doors,
            doubt,
            out,
            untold: VecDeque::new(),
            position: None,
            lists: Lists::Streamed,
            failures: 0,
            state: None,
            listed: false,
        }
    }

    /// From now on in this version. What is known stays until the list in that version is complete.
    pub(super) fn use_version(&mut self, resource: Resource) {
        if self.resource != resource {
            self.resource = resource;
            self.position = None;
        }
    }

    /// Lists and watches until nobody listens. A 404 is a failure like others; of an optional kind discovery finds out what
    /// it means, and has this stopped.
    /// May be stopped at any moment and run again.
    pub(super) async fn run(&mut self) -> Deaf {
        if self.flush().await.is_err() {
            return Deaf;
        }
        loop {
            let door = self.doors.door().await;
            let stop = match self.position.clone() {
                None => self.list(&door).await,
                Some(position) => self.follow(&door, &position).await,
            };
            let failure = match stop {
                Ok(()) => continue,
                Err(Stop::Deaf) => return Deaf,
                Err(Stop::Failure(failure)) => failure,
            };
            let not_found = failure.code() == Some(404) && self.resource.kind.is_optional();
            if not_found {
                self.position = None;
                self.doubt.notify_one();
            }
            if self.cope(&door, failure).await.is_err() {
                return Deaf;
            }
        }
    }

    /// Says what is wrong, waits, and thinks of another way.
    async fn cope(&mut self, door: &Door, failure: Failure) -> Result<(), Stop> {
        self.failures = self.failures.saturating_add(1);
        if failure == Failure::Expired {
            self.position = None;
        } else {
            let why = failure.why(self.resource.kind, self.listed);
            self.say(WatchState::Failing { why }).await?;
            let unreadable = matches!(failure, Failure::Rubbish(_) | Failure::TooLong(_) | Failure::Ended);
            if unreadable && self.failures >= FAILURES_BEFORE_LIST {
                self.position = None;
            }
        }
        if failure.wants_new_connection() {
            self.doors.renew(door).await;
        }
        tokio::time::sleep(self.pauses.next(failure.retry_after())).await;
        Ok(())
    }

    /// Reads everything, streamed or in pages; a streamed list goes on as a watch.
    async fn list(&mut self, door: &Door) -> Result<(), Stop> {
        if self.lists == Lists::Streamed {
            match self.list_streamed(door).await {
                Err(Stop::Failure(failure)) if is_refusal_of_streaming(&failure) => {
                    tracing::debug!(kind = %self.resource.kind, %failure, "the server streams no lists; reading pages");
                    self.lists = Lists::Paged;
                }
                other => return other,
            }
        }
        self.list_pages(door).await
    }

    async fn list_streamed(&mut self, door: &Door) -> Result<(), Stop> {
        let body = self.ask(door, self.resource.watch(None, watch_seconds())?).await?;
        self.say(WatchState::Listing).await?;
        self.store.begin();
        let mut lines = Lines::new(body);
        loop {
            let received = match lines.fill(self.options.answer.min(STREAM_SILENCE)).await {
                Ok(Some(received)) => received,
                // A server that doesn't know streamed lists begins an ordinary watch and falls silent.
                Err(Failure::Silent(_)) => return Err(no_streaming("it fell silent").into()),
                Ok(None) => return Err(Failure::Broken("in the middle of a list".to_owned()).into()),
                Err(failure) => return Err(failure.into()),
            };
            let (mut news, mut complete) = (News::default(), None);
            while let Some(line) = lines.next() {
                match message(line)? {
                    Message::Set(object) => {
                        self.store.set(&self.resource.api_version, object, &mut news)?;
                    }
                    Message::Gone(object) => {
                        self.store.remove(object, &mut news)?;
                    }
                    Message::Bookmark(object) => match bookmark(object)? {
                        (version, true) => {
                            complete = Some(version);
                            break;
                        }
                        (_, false) => return Err(no_streaming("it sent a bookmark within the list").into()),
                    },
                    Message::Error(object) => return Err(status(object.as_bytes(), 500, None).into()),
                }
            }
            if complete.is_some() {
                self.store.end(&mut news);
            }
            self.tell(news, received).await?;
            if let Some(version) = complete {
                self.complete(version).await?;
                return self.watch(lines, true).await;
            }
        }
    }

    async fn list_pages(&mut self, door: &Door) -> Result<(), Stop> {
        let mut next: Option<String> = None;
        self.store.begin();
        loop {
            let request = self.resource.list(next.as_deref(), self.lists == Lists::Whole)?;
            let body = match self.ask(door, request).await {
                Err(Stop::Failure(Failure::Expired)) if next.is_some() => {
                    self.lists = Lists::Whole;
                    return Err(Failure::Expired.into());
                }
                other => other?,
            };
            self.say(WatchState::Listing).await?;
            let text = whole(body, LONGEST_PAGE, self.options.answer).await?;
            let received = Instant::now();
            let page: Page<'_> = serde_json::from_slice(&text).map_err(rubbish)?;
            let mut news = News::default();
            for object in page.items.iter().flatten() {
                self.store.set(&self.resource.api_version, object.get(), &mut news)?;
                if news.changes.len() >= LIST_BATCH {
                    self.tell(std::mem::take(&mut news), received).await?;
                }
            }
            if page.metadata.next.is_empty() {
                if page.metadata.resource_version.is_empty() {
                    return Err(Failure::Rubbish("a list without resourceVersion".to_owned()).into());
                }
                self.store.end(&mut news);
                self.tell(news, received).await?;
                return self.complete(page.metadata.resource_version.to_string()).await;
            }
            self.tell(news, received).await?;
            next = Some(page.metadata.next.to_string());
        }
    }

    /// A list has been told whole.
    async fn complete(&mut self, version: String) -> Result<(), Stop> {
        self.position = Some(version);
        self.failures = 0;
        if self.lists == Lists::Whole {
            self.lists = Lists::Paged;
        }
        self.say(WatchState::Watching).await?;
        self.first_list().await
    }

    /// The kind is known now, if it was not before.
    async fn first_list(&mut self) -> Result<(), Stop> {
        if self.listed {
            return Ok(());
        }
        self.listed = true;
        self.send(Told::Listed(self.resource.kind)).await
    }

    /// Goes on from where we are.
    async fn follow(&mut self, door: &Door, position: &str) -> Result<(), Stop> {
        let body = self.ask(door, self.resource.watch(Some(position), watch_seconds())?).await?;
        self.watch(Lines::new(body), false).await
    }

    /// Tells what a watch says until it ends. `Ok`: go on from the position that was reached, without a pause.
    /// `useful`: it has said something already.
    async fn watch(&mut self, mut lines: Lines, mut useful: bool) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            // One that failed before is trusted again when it has said something, or has held for a while.
            let failing = matches!(self.state, Some(WatchState::Failing { .. }) | None);
            let trial = self.options.first_pause * 4;
            let patience = if failing { trial } else { self.options.silence };
            let ended = match lines.fill(patience).await {
                Err(Failure::Silent(_)) if failing => {
                    self.worked().await?;
                    continue;
                }
                // Nothing, not even a bookmark: the connection is dead, or the server is too old for bookmarks.
                Err(Failure::Silent(_)) => return Ok(()),
                Err(failure) => Err(failure),
                Ok(None) => Ok(None),
                Ok(Some(received)) => Ok(Some(received)),
            };
            match ended {
                Ok(Some(received)) => {
                    self.take(&mut lines, received).await?;
                    useful = true;
                    self.worked().await?;
                }
                // Servers end watches, connections break: no failure where it had worked, unless it can't be resumed.
                _ if useful || began.elapsed() > self.options.first_pause * 8 => return Ok(()),
                Ok(None) => return Err(Failure::Ended.into()),
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Takes in the lines that have arrived. What stood before a line that can't be read is told.
    async fn take(&mut self, lines: &mut Lines, received: Instant) -> Result<(), Stop> {
        let mut news = News::default();
        let mut result = Ok(());
        while let Some(line) = lines.next() {
            match self.line(line, &mut news) {
                Ok(version) => self.position = Some(version),
                Err(failure) => {
                    result = Err(failure.into());
                    break;
                }
            }
        }
        self.tell(news, received).await?;
        result
    }

    fn line(&mut self, line: &[u8], news: &mut News) -> Result<String, Failure> {
        let version = match message(line)? {
            Message::Set(object) => self.store.set(&self.resource.api_version, object, news)?,
            Message::Gone(object) => self.store.remove(object, news)?,
            Message::Bookmark(object) => bookmark(object)?.0,
            Message::Error(object) => return Err(status(object.as_bytes(), 500, None)),
        };
        if version.is_empty() {
            return Err(Failure::Rubbish("a watch event without resourceVersion".to_owned()));
        }
        Ok(version)
    }

    async fn worked(&mut self) -> Result<(), Stop> {
        self.failures = 0;
        self.pauses.reset();
        self.say(WatchState::Watching).await
    }

    /// Sends a request, and gives the body of the answer if it is one that was asked for.
    async fn ask(&self, door: &Door, request: Request<Vec<u8>>) -> Result<Body, Stop> {
        Ok(door.ask(request, self.options.answer).await?)
    }

    async fn tell(&mut self, news: News, received: Instant) -> Result<(), Stop> {
        if news.is_empty() {
            return Ok(());
        }
        let News { changes, findings } = news;
        if !changes.is_empty() {
            self.untold.push_back(Told::Changes { changes, received });
        }
        let findings = findings.into_iter().map(|(object, findings)| Event::Findings { object, findings });
        self.untold.extend(findings.map(Told::Event));
        self.flush().await
    }

    /// The kind is not served: nothing of it is known any longer.
    pub(super) async fn vanish(&mut self) -> Result<(), Deaf> {
        let mut news = News::default();
        self.store.clear(&mut news);
        self.position = None;
        let told = async {
            self.tell(news, Instant::now()).await?;
            self.say(WatchState::NotServed).await?;
            self.first_list().await
        };
        told.await.map_err(|_: Stop| Deaf)
    }

    /// Nobody can tell whether the kind is served.
    pub(super) async fn doubt(&mut self, failure: &Failure) -> Result<(), Deaf> {
        let why = failure.why(self.resource.kind, self.listed);
        self.say(WatchState::Failing { why }).await.map_err(|_| Deaf)
    }

    /// Says how the watch fares, if that is new.
    async fn say(&mut self, state: WatchState) -> Result<(), Stop> {
        if self.state.as_ref() == Some(&state) {
            return Ok(());
        }
        self.state = Some(state.clone());
        self.send(Told::Event(Event::Watch { kind: self.resource.kind, state })).await
    }

    async fn send(&mut self, told: Told) -> Result<(), Stop> {
        self.untold.push_back(told);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        while !self.untold.is_empty() {
            let place = self.out.reserve().await.map_err(|_| Stop::Deaf)?;
            if let Some(told) = self.untold.pop_front() {
                place.send(told);
            }
        }
        Ok(())
    }
}

/// Spread, so that the watches of thousands of agents don't end together.
fn watch_seconds() -> u32 {
    WATCH_SECONDS + fastrand::u32(0..WATCH_SECONDS)
}

/// Servers before 1.27 refuse `resourceVersionMatch` on a watch, or ignore what they don't know; later ones refuse
/// `sendInitialEvents` where the feature is off.
fn is_refusal_of_streaming(failure: &Failure) -> bool {
    failure.code().is_some_and(|c| (400..500).contains(&c) && ![401, 403, 404, 408, 429].contains(&c))
}

fn no_streaming(why: &str) -> Failure {
    Failure::status(400, &format!("the server streams no lists: {why}"), None)
}

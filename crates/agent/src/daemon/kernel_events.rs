//! Threads that read kernel events: denied packets, and changes of our table by other programs.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use palisade_nft::{
    conntrack::{ConnectionEvent, ConnectionEvents, Events},
    drift::{Drift, Watcher},
    drops::{DropEvent, DropEventReader},
};

use super::{
    error::DaemonError,
    inbox::{Inbox, TableChange},
};
use crate::{
    connections::{Connection, SeenConnections, Sum},
    error_chain,
    metrics::Metrics,
};

/// How long a thread blocks if no event arrives. The threads end with the process.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the kernel's setting for announcements of connections is looked at, and the pause after a failure.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(10);
/// The most announcements that are read at once, and the pause afterwards: at most 20,000 in a second, whatever pods do. The kernel drops
/// what does not fit into the buffer meanwhile, which costs it little.
const MAX_EVENTS: usize = 400;
const EVENTS_PAUSE: Duration = Duration::from_millis(20);
/// The pause after a read failed.
const RETRY: Duration = Duration::from_secs(5);

/// Starts a thread that reads denied packets from an nflog group.
pub(super) fn read_denied_packets(group: u16, inbox: Arc<Inbox>) -> Result<(), DaemonError> {
    let mut reader = DropEventReader::open(group)?;
    spawn("palisade-drops", move || {
        loop {
            let read = reader.wait(READ_TIMEOUT).and_then(|_| {
                while let Some(event) = reader.read()? {
                    match event {
                        DropEvent::Dropped(packet) => inbox.add_denied_packet((&packet).into()),
                        // The kernel's counters include them.
                        DropEvent::Unreadable(_) | DropEvent::Lost(_) => {}
                    }
                }
                Ok(())
            });
            pause_after_failure("denied packets", &read);
        }
    })
}

/// Starts a thread that reads the kernel's announcements of connections, as soon as the kernel makes some.
pub(super) fn read_connections(
    events: Events,
    seen: Arc<SeenConnections>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
) -> Result<(), DaemonError> {
    spawn("palisade-connections", move || {
        loop {
            match ConnectionEvents::are_enabled() {
                Ok(()) => {
                    let error = read_until_disabled(events, &seen, &inbox, &metrics);
                    set_problem(&error, &seen, &metrics);
                }
                Err(why) => set_problem(&why, &seen, &metrics),
            }
            thread::sleep(CONNECTIONS_RETRY);
        }
    })
}

/// Reads connections. Returns why that ended.
fn read_until_disabled(events: Events, seen: &SeenConnections, inbox: &Inbox, metrics: &Metrics) -> String {
    let mut reader = match ConnectionEvents::open(events) {
        Ok(reader) => reader,
        Err(error) => return error_chain::with_causes(&error),
    };
    tracing::info!("recording new connections");
    metrics.connection_events.set(1);
    seen.set_problem(None);
    let mut checked = Instant::now();
    loop {
        let read = reader.wait(CONNECTIONS_RETRY).and_then(|_| {
            for _ in 0..MAX_EVENTS {
                let Some(event) = reader.read()? else { break };
                let (connection, sum) = match event {
                    ConnectionEvent::New(entry) => (Connection::of(&entry, false), Sum::of_new()),
                    ConnectionEvent::Ended(entry, end) => (Connection::of(&entry, true), Sum::of_end(end)),
                    ConnectionEvent::Lost => {
                        seen.add_overrun();
                        inbox.note_connections();
                        continue;
                    }
                };
                if seen.add(connection, sum) {
                    inbox.note_connections();
                }
            }
            Ok(())
        });
        if let Err(error) = read {
            return error_chain::with_causes(&error);
        }
        if checked.elapsed() >= CONNECTIONS_RETRY {
            checked = Instant::now();
            if let Err(why) = ConnectionEvents::are_enabled() {
                return why;
            }
        }
        thread::sleep(EVENTS_PAUSE);
    }
}

fn set_problem(why: &str, seen: &SeenConnections, metrics: &Metrics) {
    metrics.connection_events.set(0);
    if seen.set_problem(Some(why.to_owned())) {
        tracing::warn!(why, "cannot record new connections, trying again");
    }
}

/// Starts a thread that reads nftables notifications about our table.
pub(super) fn read_table_changes(mut watcher: Watcher, inbox: Arc<Inbox>) -> Result<(), DaemonError> {
    spawn("palisade-drift", move || {
        loop {
            let read = watcher.wait(READ_TIMEOUT).map(drop);
            let read = hand_over_table_changes(read, || watcher.read(), &inbox);
            pause_after_failure("nftables notifications", &read);
        }
    })
}

/// Reads notifications until there are no more. After an error, whichever it is, some may be missing: the table is then compared, as after
/// an overrun.
fn hand_over_table_changes(
    waited: Result<(), palisade_nft::Error>,
    mut next: impl FnMut() -> Result<Option<Drift>, palisade_nft::Error>,
    inbox: &Inbox,
) -> Result<(), palisade_nft::Error> {
    let read = waited.and_then(|()| {
        while let Some(drift) = next()? {
            match drift {
                Drift::Overrun => inbox.add_lost_notifications(),
                Drift::Changed { .. } => inbox.add_table_change(TableChange {
                    description: drift.to_string(),
                    removed_table: drift.is_gone(),
                }),
            }
        }
        Ok(())
    });
    if read.is_err() {
        inbox.add_lost_notifications();
    }
    read
}

fn pause_after_failure(events: &str, read: &Result<(), palisade_nft::Error>) {
    if let Err(error) = read {
        let err = error_chain::with_causes(error);
        tracing::warn!(events, err, "reading kernel events failed, retrying");
        thread::sleep(RETRY);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DaemonError> {
    let spawned: io::Result<_> = thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(DaemonError::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> palisade_nft::Error {
        palisade_nft::Error::Socket { doing: "reading", source: io::Error::from(io::ErrorKind::OutOfMemory) }
    }

    /// Reads what `results` has. Returns whether that was an error, and whether the table is to be compared.
    fn handed_over(
        waited: Result<(), palisade_nft::Error>,
        results: Vec<Result<Option<Drift>, palisade_nft::Error>>,
    ) -> (bool, bool) {
        let (inbox, mut results) = (Inbox::default(), results.into_iter());
        let read = hand_over_table_changes(waited, || results.next().unwrap_or(Ok(None)), &inbox);
        // So that there is something to take.
        inbox.note_connections();
        (read.is_err(), inbox.take(Duration::ZERO).lost_notifications)
    }

    #[test]
    fn any_error_of_reading_is_a_loss_of_notifications() {
        assert_eq!(handed_over(Ok(()), vec![]), (false, false));
        assert_eq!(handed_over(Ok(()), vec![Ok(Some(Drift::Overrun))]), (false, true));
        assert_eq!(handed_over(Ok(()), vec![Err(failed())]), (true, true));
        assert_eq!(handed_over(Err(failed()), vec![]), (true, true));
    }
}

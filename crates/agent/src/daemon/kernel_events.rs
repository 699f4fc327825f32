//! Threads that read kernel events: denied packets, and changes of our table by other programs.

use std::{io, sync::Arc, thread, time::Duration};

use palisade_nft::{
    drift::{Drift, Watcher},
    drops::{DropEvent, DropEventReader},
};

use super::{
    error::DaemonError,
    inbox::{Inbox, TableChange},
};
use crate::{drops::DeniedPacket, error_chain};

/// How long a thread blocks if no event arrives. The threads end with the process.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
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
                        DropEvent::Dropped(drop) => inbox.add_denied_packet(DeniedPacket {
                            direction: drop.direction,
                            audited: drop.audited,
                            source: drop.headers.source,
                            destination: drop.headers.destination,
                            protocol: drop.headers.protocol,
                            port: drop.port().unwrap_or(0),
                        }),
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

/// Starts a thread that reads nftables notifications about our table.
pub(super) fn read_table_changes(mut watcher: Watcher, inbox: Arc<Inbox>) -> Result<(), DaemonError> {
    spawn("palisade-drift", move || {
        loop {
            let read = watcher.wait(READ_TIMEOUT).and_then(|_| {
                while let Some(drift) = watcher.read()? {
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
            pause_after_failure("nftables notifications", &read);
        }
    })
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

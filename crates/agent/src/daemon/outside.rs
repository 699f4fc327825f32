//! What the kernel tells unasked: packets that were denied, and changes of our table by others. A thread each.

use std::{io, sync::Arc, thread, time::Duration};

use palisade_nft::{
    drift::{Drift, Watcher},
    drops::{Event, Reader},
};

use super::{DaemonError, Inbox, inbox::Drifted};
use crate::drops::Dropped;

/// How long a thread sleeps when nothing comes. It ends with the process.
const PATIENCE: Duration = Duration::from_secs(60);
/// A socket that fails is tried again after so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Hears of denied packets.
pub(super) fn hear_drops(group: u16, inbox: Arc<Inbox>) -> Result<(), DaemonError> {
    let mut reader = Reader::open(group)?;
    spawn("palisade-drops", move || {
        loop {
            let heard = reader.wait(PATIENCE).and_then(|_| {
                while let Some(event) = reader.read()? {
                    match event {
                        Event::Dropped(drop) => inbox.dropped(Dropped {
                            direction: drop.direction,
                            source: drop.headers.source,
                            destination: drop.headers.destination,
                            protocol: drop.headers.protocol,
                            port: drop.port().unwrap_or(0),
                        }),
                        // The kernel's own counters know of them.
                        Event::Unreadable(_) | Event::Lost(_) => {}
                    }
                }
                Ok(())
            });
            pause_after("denied packets", &heard);
        }
    })
}

/// Hears of changes of our table by others.
pub(super) fn hear_drift(mut watcher: Watcher, inbox: Arc<Inbox>) -> Result<(), DaemonError> {
    spawn("palisade-drift", move || {
        loop {
            let heard = watcher.wait(PATIENCE).and_then(|_| {
                while let Some(drift) = watcher.read()? {
                    match drift {
                        Drift::Overrun => inbox.overrun(),
                        Drift::Touched { .. } => {
                            inbox.drifted(Drifted { what: drift.to_string(), gone: drift.is_gone() });
                        }
                    }
                }
                Ok(())
            });
            pause_after("changes by others", &heard);
        }
    })
}

fn pause_after(what: &str, heard: &Result<(), palisade_nft::Error>) {
    if let Err(error) = heard {
        let why = crate::words::with_causes(error);
        tracing::warn!(why, "the kernel's socket for {what} fails; it is tried again");
        thread::sleep(PAUSE);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DaemonError> {
    let spawned: io::Result<_> = thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(DaemonError::Start)
}

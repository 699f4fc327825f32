//! Lists connections on a thread of its own, beside the thread that programs the kernel.
//!
//! A listing walks the kernel's whole connection-tracking table, and copies and parses what matches: tens to hundreds of milliseconds
//! on a node with many connections. The thread has its own sockets, so changes are committed meanwhile. It only reads. Once the data
//! plane is dropped, the thread finishes its current listing, if any, and ends; no other thread joins it.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread,
};

use palisade_nft::{
    Error, Kernel,
    conntrack::{self, ConntrackEntry},
};

use crate::ReviewScope;

type Listed = Result<Vec<ConntrackEntry>, Error>;

/// A thread that lists connections, one listing after the other.
#[derive(Debug)]
pub(super) struct Lister {
    requests: Sender<ReviewScope>,
    results: Receiver<Listed>,
}

/// Why a listing can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListerError {
    #[error(transparent)]
    Kernel(#[from] Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("the thread that lists connections has ended")]
    Ended,
}

impl Lister {
    /// Opens the sockets in the calling thread's network namespace, and starts the thread.
    pub(super) fn start() -> Result<Self, ListerError> {
        let mut kernel = Kernel::open()?;
        let (requests, incoming) = mpsc::channel::<ReviewScope>();
        let (outgoing, results) = mpsc::channel();
        let run = move || {
            for scope in incoming {
                if outgoing.send(list(&mut kernel, &scope)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("palisade-conns".to_owned()).spawn(run).map_err(ListerError::Thread)?;
        Ok(Self { requests, results })
    }

    /// Begins a listing.
    pub(super) fn begin(&self, scope: ReviewScope) -> Result<(), ListerError> {
        self.requests.send(scope).map_err(|_| ListerError::Ended)
    }

    /// Returns the next result, if a listing is complete.
    pub(super) fn listed(&self) -> Option<Result<Vec<ConntrackEntry>, ListerError>> {
        match self.results.try_recv() {
            Ok(listed) => Some(listed.map_err(ListerError::Kernel)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ListerError::Ended)),
        }
    }
}

fn list(kernel: &mut Kernel, scope: &ReviewScope) -> Listed {
    if !scope.labelled {
        return conntrack::list(kernel, &scope.ends);
    }
    match conntrack::list_with_revoked(kernel, &scope.ends) {
        // Without connection tracking, no entry can have a label.
        Err(Error::NoConntrack(_)) if scope.ends.is_empty() => Ok(Vec::new()),
        listed => listed,
    }
}

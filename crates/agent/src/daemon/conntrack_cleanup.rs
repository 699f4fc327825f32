//! Deletes the connections that are older than the pods that start, on a thread of its own.
//!
//! ```text
//!   Worker ── start, addresses ──► thread: delete_older, once for all that wait ── RuntimeEvent::Cleaned ──► Inbox ──► Worker
//! ```
//!
//! Listing connections walks the kernel's whole table, which takes about ten milliseconds, and longer if it is full. The pods have started, and
//! changes are programmed meanwhile.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use palisade_nft::{Error, Kernel, conntrack::ConnectionCleaner};

use super::{inbox::Inbox, runtime_event::RuntimeEvent};
use crate::error_chain;

/// What is wanted for a start.
struct Request {
    start: u64,
    addresses: Vec<IpAddr>,
}

/// The thread, as the worker uses it. It is started with the first request, and ends with this value.
#[derive(Debug)]
pub(super) struct ConntrackCleanup {
    inbox: Arc<Inbox>,
    requests: Option<Sender<Request>>,
}

impl ConntrackCleanup {
    pub(super) fn new(inbox: &Arc<Inbox>) -> Self {
        Self { inbox: Arc::clone(inbox), requests: None }
    }

    /// Begins to delete the older connections with the addresses of a pod. [`RuntimeEvent::Cleaned`] follows, with this number.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn begin(&mut self, start: u64, addresses: &[IpAddr]) -> Result<(), String> {
        let request = Request { start, addresses: addresses.to_vec() };
        let request = match &self.requests {
            Some(requests) => match requests.send(request) {
                Ok(()) => return Ok(()),
                // The thread has ended: a listing panicked.
                Err(unsent) => unsent.0,
            },
            None => request,
        };
        let (requests, incoming) = mpsc::channel();
        let inbox = Arc::clone(&self.inbox);
        thread::Builder::new()
            .name("palisade-clean".to_owned())
            .spawn(move || serve(&incoming, &inbox))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        requests.send(request).map_err(|_| "the thread that deletes connections has ended".to_owned())?;
        self.requests = Some(requests);
        Ok(())
    }
}

fn serve(incoming: &Receiver<Request>, inbox: &Inbox) {
    let mut cleaner = None;
    while let Ok(first) = incoming.recv() {
        // One walk of the table is enough for all that wait for one.
        let requests: Vec<Request> = [first].into_iter().chain(incoming.try_iter()).collect();
        let addresses = requests.iter().flat_map(|request| &request.addresses).copied().collect();
        let result = delete_older(&mut cleaner, &addresses).map_err(|error| error_chain::with_causes(&error));
        let starts = requests.iter().map(|request| request.start).collect();
        inbox.add_runtime(RuntimeEvent::Cleaned { starts, result });
    }
}

fn delete_older(
    cleaner: &mut Option<ConnectionCleaner>,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, Error> {
    let open = match cleaner {
        Some(open) => open,
        none => none.insert(ConnectionCleaner::new(Kernel::open()?)),
    };
    match open.delete_older(addresses) {
        // Reviews say so, and the agent isn't ready: pods start as without this.
        Err(Error::NoConntrack(_)) => Ok(0),
        done => done,
    }
}

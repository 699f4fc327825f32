//! Numbered datagrams from one pod to another, at a fixed rate.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::namespace::Namespace;
use palisade_policy::Family;

use crate::testbed::{Testbed, place};

/// The source ports of the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// One port: all datagrams are one flow.
    Same,
    /// A new port each time: every datagram starts a flow.
    Fresh,
}

/// A running sender and receiver of datagrams.
#[derive(Debug)]
pub(crate) struct Flood {
    pub(crate) name: String,
    record: Arc<Record>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Record {
    stop: AtomicBool,
    /// The time at which each number was sent, and whether it has arrived.
    numbers: Mutex<Vec<(Instant, bool)>>,
}

impl Flood {
    /// Starts to send one datagram each `pause`, or as many as possible if it is zero.
    pub(crate) fn start(
        testbed: &Testbed,
        (from, to): (&str, &str),
        family: Family,
        ports: Ports,
        pause: Duration,
    ) -> Result<Self, Failed> {
        let address = testbed.address(to, family)?;
        let server = testbed.within(to, || UdpSocket::bind((address, 0)))??;
        server.set_read_timeout(Some(Duration::from_millis(20)))?;
        let target = server.local_addr()?;
        let source = SocketAddr::new(testbed.address(from, family)?, 0);
        let namespace = testbed.lab.namespace(&place(from)).ok_or("no such place")?.try_clone()?;
        let record = Arc::new(Record::default());
        let (sender, receiver) = (record.clone(), record.clone());
        let threads = vec![
            thread::spawn(move || sender.send(&namespace, source, target, ports, pause)),
            thread::spawn(move || receiver.receive(&server)),
        ];
        Ok(Self { name: format!("{from} to {to}, {family:?}, {ports:?} ports"), record, threads })
    }

    /// Of the datagrams sent in a period, returns how many have arrived and how many there were.
    pub(crate) fn arrived(&self, from: Instant, to: Instant) -> (usize, usize) {
        let numbers = self.record.numbers();
        let sent = numbers.iter().filter(|(at, _)| (from..to).contains(at));
        let (arrived, all) = sent.fold((0, 0), |(a, n), (_, arrived)| (a + usize::from(*arrived), n + 1));
        (arrived, all)
    }

    /// Returns the send time of the last datagram that arrived, of those sent after `since`.
    pub(crate) fn last_arrived(&self, since: Instant) -> Option<Instant> {
        let numbers = self.record.numbers();
        numbers.iter().rev().find(|(at, arrived)| *arrived && *at >= since).map(|(at, _)| *at)
    }
}

impl Record {
    fn numbers(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, bool)>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(
        &self,
        namespace: &Namespace,
        source: SocketAddr,
        target: SocketAddr,
        ports: Ports,
        pause: Duration,
    ) {
        let open = || UdpSocket::bind(source);
        let Ok(mut socket) = namespace.enter().and_then(|()| open()) else { return };
        while !self.stop.load(Ordering::Relaxed) {
            if ports == Ports::Fresh {
                let Ok(fresh) = open() else { return };
                socket = fresh;
            }
            let number = {
                let mut numbers = self.numbers();
                numbers.push((Instant::now(), false));
                numbers.len() as u64 - 1
            };
            // An ICMP error for an earlier datagram is ignored: the receiver records what arrives.
            _ = socket.send_to(&number.to_be_bytes(), target);
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
    }

    fn receive(&self, server: &UdpSocket) {
        let mut buffer = [0; 8];
        while !self.stop.load(Ordering::Relaxed) {
            if server.recv(&mut buffer).is_ok_and(|length| length == 8) {
                let number = usize::try_from(u64::from_be_bytes(buffer)).unwrap_or(usize::MAX);
                if let Some(entry) = self.numbers().get_mut(number) {
                    entry.1 = true;
                }
            }
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
    }
}

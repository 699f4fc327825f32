//! The records of this node's flows, for `palisade flows`: the latest ones, in a bounded number of bytes.
//!
//! Senders have fair shares: when the buffer is full, it evicts the oldest record of the sender with the most bytes. A pod that is denied all
//! the time evicts its own records, and not those of its neighbors. Senders that are not pods share one place per receiving
//! pod, because their addresses can be forged. Forwarded connections, of which there are many more, have half of the buffer, and denied
//! packets the other half; either uses what the other does not need. Every loss is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
pub use palisade_flow::{FlowPage, FlowRequest};
use palisade_flow::{Record, Verdict};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

use crate::{flow_file::FlowFile, metrics::Metrics, otlp::Otlp};

/// The most records of a page.
const MAX_PAGE: usize = 500;
/// About the most bytes of a page.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// The longest wait for a record: connections that don't ask are closed somewhat later.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The most requests that wait at once. The socket serves others too, such as the start of pods.
const MAX_WAITING: usize = 4;

/// The buffer.
#[derive(Debug)]
pub(crate) struct FlowStore {
    capacity: usize,
    /// Where records are written too.
    file: Option<FlowFile>,
    /// Where records are sent too.
    otlp: Option<Otlp>,
    started: Timestamp,
    metrics: Arc<Metrics>,
    buffer: Mutex<Buffer>,
    /// The id of the last record.
    last: watch::Sender<u64>,
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct Buffer {
    last_id: u64,
    records: BTreeMap<u64, (Arc<Record>, usize)>,
    /// What dropped and audited packets hold.
    denied: Shares,
    forwarded: Shares,
    evicted: u64,
    unrecorded: u64,
    connections_unrecorded: u64,
    connection_overruns: u64,
}

/// What has no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets that the limits left without one.
    pub packets: u64,
    /// Connections that the limits left without one, and losses of announcements, of which each is of at least one connection.
    pub connections: u64,
    /// Records that made room for others before they were taken.
    pub evicted: u64,
}

/// The shares of senders.
#[derive(Debug, Default)]
struct Shares {
    held: HashMap<Share, Held>,
    /// The shares by their bytes.
    sizes: BTreeSet<(usize, Share)>,
    bytes: usize,
}

/// Whose share a record takes.
type Share = Arc<str>;

/// What a share holds.
#[derive(Debug, Default)]
struct Held {
    /// The records, oldest first, with their bytes.
    records: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl FlowStore {
    /// Makes a buffer of `capacity` bytes; of 0, it keeps nothing.
    pub(crate) fn new(capacity: usize, file: Option<FlowFile>, metrics: Arc<Metrics>) -> Self {
        Self {
            capacity,
            file,
            otlp: None,
            started: Timestamp::now(),
            metrics,
            buffer: Mutex::default(),
            last: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// Sends records to an endpoint too.
    pub(crate) fn with_otlp(self, otlp: Option<Otlp>) -> Self {
        Self { otlp, ..self }
    }

    /// Adds a record, whose id is set here. `O(log records)`.
    pub(crate) fn add(&self, mut record: Record) {
        if !self.is_on() {
            return;
        }
        let share = share(&record);
        let mut buffer = self.lock();
        buffer.last_id += 1;
        record.id = buffer.last_id;
        let id = record.id;
        // What it takes as text: in memory, a record takes about as much again.
        let text = serde_json::to_vec(&record).unwrap_or_default();
        let record = Arc::new(record);
        let evicted = match self.capacity {
            0 => 0,
            capacity => buffer.insert(Arc::clone(&record), &share, text.len(), capacity),
        };
        drop(buffer);
        if let Some(otlp) = &self.otlp {
            otlp.add(&record);
        }
        if let Some(file) = &self.file {
            file.add(text);
        }
        self.metrics.flow_records.inc();
        self.metrics.flow_records_evicted.inc_by(evicted);
        self.last.send_replace(id);
    }

    /// Returns whether records go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.capacity > 0 || self.file.is_some() || self.otlp.is_some()
    }

    /// Counts packets that get no record.
    pub(crate) fn lose(&self, packets: u64) {
        if self.is_on() && packets > 0 {
            self.lock().unrecorded += packets;
            self.metrics.flow_packets_unrecorded.inc_by(packets);
        }
    }

    /// Counts forwarded connections that get no record.
    pub(crate) fn lose_connections(&self, connections: u64) {
        if self.is_on() && connections > 0 {
            self.lock().connections_unrecorded += connections;
            self.metrics.flow_connections_unrecorded.inc_by(connections);
        }
    }

    /// Counts losses of announcements of connections, of which each is of at least one connection.
    pub(crate) fn lose_announcements(&self, overruns: u64) {
        if self.is_on() && overruns > 0 {
            self.lock().connection_overruns += overruns;
            self.metrics.flow_connection_overruns.inc_by(overruns);
        }
    }

    /// Answers a request, which waits here for a record if it asks to. Walks over the buffer.
    pub(crate) async fn page(&self, request: &FlowRequest) -> Result<FlowPage, String> {
        if self.capacity == 0 {
            return Err("flows are not recorded: the setting flow-buffer is 0".to_owned());
        }
        let deadline = Instant::now() + Duration::from_millis(request.wait_milliseconds).min(MAX_WAIT);
        let mut last = self.last.subscribe();
        // Without a place to wait the answer is that there is nothing yet.
        let place = self.waiting.try_acquire();
        let mut after = request.after;
        loop {
            last.mark_unchanged();
            let page = self.lock().page(after, request);
            let page = FlowPage { started: self.started, now: Some(Timestamp::now()), ..page };
            if !page.records.is_empty() || request.wait_milliseconds == 0 || place.is_err() {
                return Ok(page);
            }
            after = page.next;
            if timeout_at(deadline, last.changed()).await.is_err() {
                return Ok(page);
            }
        }
    }

    /// Takes the records out of the buffer, oldest first.
    pub(crate) fn drain(&self) -> Vec<Record> {
        let mut buffer = self.lock();
        (buffer.denied, buffer.forwarded) = (Shares::default(), Shares::default());
        let records = mem::take(&mut buffer.records);
        drop(buffer);
        records.into_values().map(|(record, _)| Arc::unwrap_or_clone(record)).collect()
    }

    /// Returns how many packets, and how many connections at least, have no record: those that found no place, and records that were evicted.
    pub(crate) fn losses(&self) -> Losses {
        let buffer = self.lock();
        Losses {
            packets: buffer.unrecorded,
            connections: buffer.connections_unrecorded + buffer.connection_overruns,
            evicted: buffer.evicted,
        }
    }

    /// Ignores poisoning: after a panic at most the accounting of one record is off.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Inserts a record, and returns how many made room for it.
    fn insert(&mut self, record: Arc<Record>, share: &Share, bytes: usize, capacity: usize) -> u64 {
        let id = record.id;
        let shares = match record.verdict {
            Verdict::Forwarded => &mut self.forwarded,
            Verdict::Dropped | Verdict::Audited => &mut self.denied,
        };
        shares.add(share, id, bytes);
        self.records.insert(id, (record, bytes));
        let mut evicted = 0;
        while self.denied.bytes + self.forwarded.bytes > capacity {
            let over =
                if self.forwarded.bytes > capacity / 2 { &mut self.forwarded } else { &mut self.denied };
            let Some(oldest) = over.evict() else { break };
            self.records.remove(&oldest);
            evicted += 1;
        }
        self.evicted += evicted;
        evicted
    }

    fn page(&self, after: u64, request: &FlowRequest) -> FlowPage {
        let later = || self.records.range(after.saturating_add(1)..).map(|(_, kept)| kept);
        let first = request.last.map_or(0, |last| {
            let matching = later().rev().filter(|(record, ..)| request.filter.matches(record));
            let first = matching.take(last.min(self.records.len())).last();
            first.map_or(u64::MAX, |(record, ..)| record.id)
        });
        let mut page = FlowPage {
            next: self.last_id,
            evicted: self.evicted,
            unrecorded: self.unrecorded,
            connections_unrecorded: self.connections_unrecorded,
            connection_overruns: self.connection_overruns,
            ..FlowPage::default()
        };
        let mut bytes = 0;
        for (record, size) in later() {
            if record.id < first || !request.filter.matches(record) {
                continue;
            }
            if page.records.len() == MAX_PAGE || bytes > MAX_PAGE_BYTES {
                page.next = page.records.last().map_or(after, |record| record.id);
                page.more = true;
                break;
            }
            bytes += size;
            page.records.push(Record::clone(record));
        }
        page
    }
}

impl Shares {
    fn add(&mut self, share: &Share, id: u64, bytes: usize) {
        self.bytes += bytes;
        self.resize(share, |held| {
            held.records.push_back((id, bytes));
            held.bytes += bytes;
        });
    }

    /// Evicts the oldest record of the largest share, and returns its id.
    fn evict(&mut self) -> Option<u64> {
        let (_, largest) = self.sizes.last().cloned()?;
        let (id, bytes) = self.held.get(&largest)?.records.front().copied()?;
        self.bytes -= bytes;
        self.resize(&largest, |held| {
            held.records.pop_front();
            held.bytes -= bytes;
        });
        Some(id)
    }

    /// Changes what a share holds, and keeps the order of the shares.
    fn resize(&mut self, share: &Share, change: impl FnOnce(&mut Held)) {
        let held = self.held.entry(Arc::clone(share)).or_default();
        self.sizes.remove(&(held.bytes, Arc::clone(share)));
        change(held);
        if held.records.is_empty() {
            self.held.remove(share);
        } else {
            self.sizes.insert((held.bytes, Arc::clone(share)));
        }
    }
}

/// The sending pod, else the receiving pod's other senders.
fn share(record: &Record) -> Share {
    match (&record.source.pod, &record.destination.pod) {
        (Some(pod), _) => format!("{pod}").into(),
        (None, Some(pod)) => format!("to {pod}").into(),
        (None, None) => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use palisade_flow::{Direction, End, Object, Verdict};

    use super::*;

    fn store(capacity: usize) -> FlowStore {
        FlowStore::new(capacity, None, Arc::new(Metrics::new("1", "n1")))
    }

    fn end(pod: Option<&str>) -> End {
        End {
            address: [10, 0, 0, 1].into(),
            pod: pod.map(|name| Object {
                kind: "Pod".to_owned(),
                namespace: Some("x".to_owned()),
                name: name.to_owned(),
            }),
            workload: None,
            labels: BTreeMap::new(),
            node: None,
            names: Vec::new(),
        }
    }

    fn record(from: Option<&str>, port: u16) -> Record {
        Record {
            id: 0,
            time: Timestamp::UNIX_EPOCH,
            node: "n1".to_owned(),
            verdict: Verdict::Dropped,
            direction: Direction::Ingress,
            source: end(from),
            destination: end(Some("db")),
            opened_to: None,
            protocol: "TCP".to_owned(),
            port: Some(port),
            policies: Vec::new(),
            rule: None,
            reason: Vec::new(),
            generation: 1,
            count: 1,
            ended: None,
        }
    }

    async fn all(store: &FlowStore) -> Vec<(String, u16)> {
        let (mut out, mut request) = (Vec::new(), FlowRequest::default());
        loop {
            let page = store.page(&request).await.unwrap();
            out.extend(page.records.iter().map(|r| (r.source.to_string(), r.port.unwrap_or(0))));
            request.after = page.next;
            if !page.more {
                return out;
            }
        }
    }

    #[tokio::test]
    async fn a_flood_from_one_pod_pushes_out_its_own_records() {
        let store = store(20_000);
        for port in 1..=5 {
            store.add(record(Some("quiet"), port));
            store.add(record(None, port));
        }
        for port in 1..=5_000 {
            store.add(record(Some("flood"), port));
        }
        let kept = all(&store).await;
        let of = |name: &str| -> Vec<u16> {
            kept.iter().filter(|(from, _)| from == name).map(|(_, port)| *port).collect()
        };
        assert_eq!(of("x/quiet"), [1, 2, 3, 4, 5]);
        assert_eq!(of("10.0.0.1").len(), 5);
        assert_eq!(of("x/flood").last(), Some(&5_000), "the latest stay");
        let buffer = store.lock();
        let Shares { held, sizes, bytes } = &buffer.denied;
        assert!(*bytes <= 20_000 && buffer.evicted > 4_000, "{bytes} {}", buffer.evicted);
        assert_eq!(*bytes, held.values().map(|held| held.bytes).sum::<usize>());
        assert_eq!(sizes.len(), held.len());
        assert_eq!(store.metrics.flow_records_evicted.get(), buffer.evicted);
    }

    #[tokio::test]
    async fn forwarded_connections_and_denied_packets_have_half_of_the_buffer_each_if_both_need_it() {
        let store = store(20_000);
        let forwarded = |port| Record { verdict: Verdict::Forwarded, ..record(Some("web"), port) };
        for port in 1..=30 {
            store.add(record(Some("web"), port));
        }
        for port in 1_001..=3_000 {
            store.add(forwarded(port));
        }
        let kept: Vec<u16> = all(&store).await.into_iter().map(|(_, port)| port).collect();
        assert_eq!(kept[..30], (1..=30).collect::<Vec<u16>>(), "the drops of the pod stay");
        assert_eq!(kept.last(), Some(&3_000));
        assert!(kept.len() > 50, "the rest of the buffer is used: {}", kept.len());
        for port in 1..=2_000 {
            store.add(record(Some("web"), port));
        }
        let buffer = store.lock();
        let (denied, forwarded) = (buffer.denied.bytes, buffer.forwarded.bytes);
        assert!(denied + forwarded <= 20_000 && forwarded >= 9_000, "{denied} {forwarded}");
    }

    #[tokio::test]
    async fn records_are_taken_once_and_make_room() {
        let store = store(4_000);
        for port in 1..=100 {
            store.add(record(Some("web"), port));
        }
        let evicted = store.losses().evicted;
        let ports: Vec<u16> = store.drain().iter().filter_map(|record| record.port).collect();
        assert!(evicted > 0 && ports.len() as u64 == 100 - evicted, "{ports:?}, {evicted}");
        assert_eq!(ports.last(), Some(&100));
        assert!(store.drain().is_empty() && all(&store).await.is_empty());
        store.add(record(Some("web"), 101));
        assert_eq!(all(&store).await.len(), 1);
        assert_eq!(store.losses().evicted, evicted, "there is room again");
    }

    #[tokio::test]
    async fn lost_connections_are_in_the_page_and_in_the_metrics() {
        let store = store(1 << 20);
        store.lose_connections(3);
        store.lose_announcements(2);
        let page = store.page(&FlowRequest::default()).await.unwrap();
        assert_eq!((page.connections_unrecorded, page.connection_overruns, page.unrecorded), (3, 2, 0));
        assert_eq!(store.metrics.flow_connections_unrecorded.get(), 3);
        assert_eq!(store.metrics.flow_connection_overruns.get(), 2);
    }

    #[tokio::test]
    async fn pages_continue_and_the_latest_can_be_asked_for() {
        let store = store(1 << 20);
        for port in 1..=1_200 {
            store.add(record(Some("web"), port));
        }
        assert_eq!(all(&store).await.len(), 1_200);
        let mut request = FlowRequest { last: Some(3), ..FlowRequest::default() };
        let ports = |page: &FlowPage| page.records.iter().filter_map(|r| r.port).collect::<Vec<_>>();
        let page = store.page(&request).await.unwrap();
        assert_eq!((ports(&page), page.more, page.next), (vec![1_198, 1_199, 1_200], false, 1_200));
        request.filter.ports = vec!["7".parse().unwrap(), "9".parse().unwrap()];
        assert_eq!(ports(&store.page(&request).await.unwrap()), [7, 9]);
        request.last = Some(0);
        assert_eq!(ports(&store.page(&request).await.unwrap()), [0_u16; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_record_that_matches() {
        let store = Arc::new(store(1 << 20));
        let mut request = FlowRequest { wait_milliseconds: 60_000, ..FlowRequest::default() };
        request.filter.ports = vec!["80".parse().unwrap()];
        let begin = Instant::now();
        assert_eq!(store.page(&request).await.unwrap().records, []);
        assert_eq!(begin.elapsed(), MAX_WAIT, "bounded");
        let follower = tokio::spawn({
            let (store, request) = (Arc::clone(&store), request.clone());
            async move { store.page(&request).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.add(record(Some("web"), 443));
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.add(record(Some("web"), 80));
        let page = follower.await.unwrap();
        assert_eq!((page.records.len(), page.records[0].port, page.next), (1, Some(80), 2));
        // Those who find no place to wait are answered.
        let waiting = (0..MAX_WAITING).map(|_| store.waiting.try_acquire().unwrap()).collect::<Vec<_>>();
        request.after = 2;
        let begin = Instant::now();
        assert_eq!(store.page(&request).await.unwrap().next, 2);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        drop(waiting);
    }

    #[tokio::test]
    async fn a_buffer_of_no_size_says_so_and_counts_nothing() {
        let store = store(0);
        store.add(record(None, 1));
        store.lose(5);
        assert!(store.page(&FlowRequest::default()).await.unwrap_err().contains("flow-buffer"));
        assert_eq!(store.metrics.flow_packets_unrecorded.get(), 0);
    }

    #[tokio::test]
    async fn a_record_larger_than_the_buffer_is_lost_and_counted() {
        let store = store(100);
        store.add(record(Some("web"), 1));
        store.lose(2);
        let page = store.page(&FlowRequest::default()).await.unwrap();
        assert_eq!((page.records.len(), page.evicted, page.unrecorded), (0, 1, 2));
    }
}

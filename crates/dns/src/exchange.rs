//! Queries that wait for their answers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
};

use palisade_policy::ObjectKey;

use crate::{Answer, BadAnswer, BadQuery, Query, rate::Bucket};

/// The bounds of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// The most queries of all pods that wait for an answer. One beyond takes the place of one of a pod that has more.
    pub waiting: usize,
    /// The most queries of one pod that wait for an answer.
    pub waiting_of_pod: usize,
    /// The most queries of one pod in a second, on average.
    pub rate_of_pod: u32,
    /// The most queries of one pod at once.
    pub burst_of_pod: u32,
    /// After how many milliseconds a query is given up. Clients wait for 5 s by default.
    pub timeout: u64,
}

/// How many of the oldest queries or connections are looked at to make room for a pod that has fewer. If pods with many fill the limit, these are theirs.
pub(crate) const LOOKED_AT: usize = 64;

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self {
            waiting: 20_000,
            waiting_of_pod: 500,
            rate_of_pod: 1_000,
            burst_of_pod: 1_000,
            timeout: 10_000,
        }
    }
}

/// The ends of an exchange of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// The pod's address and port.
    pub client: SocketAddr,
    /// The server's, as the pod has it: before a Service's address is translated.
    pub server: SocketAddr,
    /// Whether they use TCP; else UDP.
    pub tcp: bool,
}

impl Ends {
    /// Ends that use UDP.
    #[must_use]
    pub fn udp(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, tcp: false }
    }

    /// Ends that use TCP.
    #[must_use]
    pub fn tcp(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, tcp: true }
    }
}

/// The queries that wait for an answer: at most one for each client address, server, transport and id.
///
/// Times are milliseconds of any clock that doesn't go back.
#[derive(Debug)]
pub struct Exchanges {
    limits: ExchangeLimits,
    trusted: HashSet<SocketAddr>,
    waiting: HashMap<Key, Asked>,
    /// By the time at which they are given up.
    by_deadline: BTreeSet<(u64, Key)>,
    pods: BTreeMap<ObjectKey, PodLoad>,
}

/// The ends and the id, which the header of an answer repeats.
type Key = (Ends, u16);

/// A query that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The pod that asks.
    pub pod: ObjectKey,
    /// The query.
    pub query: Query,
    deadline: u64,
}

#[derive(Debug)]
struct PodLoad {
    waiting: usize,
    bucket: Bucket,
}

/// Why a query is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server isn't one whose answers are believed: a pod could run it itself, and open any address by its answers.
    #[error("{0} is not a trusted DNS server")]
    Untrusted(SocketAddr),
    /// It is no query.
    #[error(transparent)]
    BadQuery(#[from] BadQuery),
    /// The pod has too many queries without an answer, or sends too many.
    #[error("the pod sends too many queries")]
    PodLimit,
    /// All pods together have too many queries without an answer.
    #[error("too many queries wait for an answer")]
    Limit,
}

impl Exchanges {
    /// Makes an empty set for answers of these servers.
    #[must_use]
    pub fn new(limits: ExchangeLimits, trusted: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            limits,
            trusted: trusted.into_iter().collect(),
            waiting: HashMap::new(),
            by_deadline: BTreeSet::new(),
            pods: BTreeMap::new(),
        }
    }

    /// Replaces the servers whose answers are believed. What waits for another one is given up.
    pub fn trust(&mut self, trusted: impl IntoIterator<Item = SocketAddr>) {
        self.trusted = trusted.into_iter().collect();
        let given_up: Vec<Key> =
            self.waiting.keys().filter(|(ends, _)| !self.trusted.contains(&ends.server)).copied().collect();
        for key in given_up {
            self.remove(&key);
        }
    }

    /// Notes a query of `pod`. On success the message is to be forwarded as it is. A query that is sent again replaces the first.
    ///
    /// # Errors
    /// [`Refused`]: the message is not to be forwarded.
    pub fn ask(&mut self, pod: &ObjectKey, ends: Ends, message: &[u8], now: u64) -> Result<(), Refused> {
        if !self.trusted.contains(&ends.server) {
            return Err(Refused::Untrusted(ends.server));
        }
        self.expire(now);
        let limits = self.limits;
        // Before the message is read: reading costs more than counting.
        let load = self
            .pods
            .entry(pod.clone())
            .or_insert_with(|| PodLoad { waiting: 0, bucket: Bucket::full(limits.burst_of_pod, now) });
        let cost = cost(message).saturating_add(1);
        if !load.bucket.take(cost, (limits.rate_of_pod, limits.burst_of_pod), now) {
            return Err(Refused::PodLimit);
        }
        let query = Query::read(message)?;
        let key = (ends, query.id);
        self.remove(&key);
        if self.waiting.len() >= limits.waiting && !self.make_room(pod) {
            return Err(Refused::Limit);
        }
        let Some(load) = self.pods.get_mut(pod).filter(|load| load.waiting < limits.waiting_of_pod) else {
            return Err(Refused::PodLimit);
        };
        load.waiting += 1;
        let deadline = now.saturating_add(limits.timeout);
        self.by_deadline.insert((deadline, key));
        self.waiting.insert(key, Asked { pod: pod.clone(), query, deadline });
        Ok(())
    }

    /// Gives up one of the oldest queries, if its pod has more than `pod` will have with one more. Returns whether there was one.
    fn make_room(&mut self, pod: &ObjectKey) -> bool {
        let of = |pod: &ObjectKey| self.pods.get(pod).map_or(0, |load| load.waiting);
        let own = of(pod);
        let is_of_larger = |key: &&Key| self.waiting.get(*key).is_some_and(|asked| of(&asked.pod) > own + 1);
        let found = self.by_deadline.iter().take(LOOKED_AT).map(|(_, key)| key).find(is_of_larger).copied();
        found.is_some_and(|key| self.remove(&key).is_some())
    }

    /// Returns the query that a message from the server to the client answers, and its answer. The query no longer waits.
    /// `None` if no query waits for it, in which case it is dropped: it may be a second answer, a late one or a forgery.
    ///
    /// # Errors
    /// [`BadAnswer`]: the message is dropped, and the query still waits, since the right answer may follow a forged one.
    pub fn answer(
        &mut self,
        ends: Ends,
        message: &[u8],
        now: u64,
    ) -> Result<Option<(Asked, Answer)>, BadAnswer> {
        self.expire(now);
        let Some(id) = message.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else {
            return Err(BadAnswer::Malformed("shorter than an id".to_owned()));
        };
        let key = (ends, id);
        let Some(asked) = self.waiting.get(&key) else { return Ok(None) };
        let limits = self.limits;
        let load = self.pods.get_mut(&asked.pod);
        let rate = (limits.rate_of_pod, limits.burst_of_pod);
        if load.is_some_and(|load| !load.bucket.take(cost(message), rate, now)) {
            return Err(BadAnswer::PodLimit);
        }
        let answer = Answer::read(message, &asked.query)?;
        Ok(self.remove(&key).map(|asked| (asked, answer)))
    }

    /// Gives up the queries whose time is over. Called by the other methods; needed besides only to free memory. `O(log n)`
    /// for each query that is given up.
    pub fn expire(&mut self, now: u64) {
        while let Some((deadline, key)) = self.by_deadline.first().copied()
            && deadline <= now
        {
            self.by_deadline.pop_first();
            self.remove(&key);
        }
    }

    /// Forgets pods that have no query waiting and whose rate is not limited. `O(pods)`; call it now and then.
    pub fn forget_idle_pods(&mut self, now: u64) {
        let ExchangeLimits { rate_of_pod, burst_of_pod, .. } = self.limits;
        self.pods.retain(|_, load| load.waiting > 0 || !load.bucket.is_full(rate_of_pod, burst_of_pod, now));
    }

    /// Forgets a pod that is gone, and its queries. `O(queries that wait)`.
    pub fn remove_pod(&mut self, pod: &ObjectKey) {
        let own: Vec<Key> = self.waiting.iter().filter(|(_, a)| a.pod == *pod).map(|(key, _)| *key).collect();
        for key in own {
            self.remove(&key);
        }
        self.pods.remove(pod);
    }

    /// Returns how many queries wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn remove(&mut self, key: &Key) -> Option<Asked> {
        let Entry::Occupied(entry) = self.waiting.entry(*key) else { return None };
        let asked = entry.remove();
        self.by_deadline.remove(&(asked.deadline, *key));
        if let Some(load) = self.pods.get_mut(&asked.pod) {
            load.waiting -= 1;
        }
        Some(asked)
    }
}

/// How many queries a message costs besides: reading it, and what it teaches, cost as much as its size. Answers are seldom longer than a unit.
fn cost(message: &[u8]) -> u32 {
    /// The longest message on UDP without EDNS (RFC 1035, section 4.2.1).
    const UNIT: usize = 512;
    u32::try_from(message.len().saturating_sub(1) / UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Message,
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    use super::*;
    use crate::query::tests::query;

    const LIMITS: ExchangeLimits =
        ExchangeLimits { waiting: 5, waiting_of_pod: 3, rate_of_pod: 100, burst_of_pod: 20, timeout: 1000 };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn server() -> SocketAddr {
        at("10.96.0.10:53")
    }

    fn message(id: u16) -> Message {
        let mut message = query("a.io.", RecordType::A);
        message.metadata.id = id;
        message
    }

    fn bytes(message: &Message) -> Vec<u8> {
        message.to_vec().unwrap()
    }

    fn answer(id: u16) -> Message {
        let mut message = message(id).into_response();
        let data = RData::A(A::new(198, 51, 100, 1));
        message.add_answer(Record::from_rdata(Name::from_ascii("a.io.").unwrap(), 60, data));
        message
    }

    fn pod(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn an_answer_belongs_to_one_query_of_one_client_to_one_server() {
        let (mut exchanges, client) = (Exchanges::new(LIMITS, [server()]), at("10.244.1.2:4000"));
        exchanges.ask(&pod("web"), Ends::udp(client, server()), &bytes(&message(1)), 0).unwrap();
        let mut got = |client: &str, server: &str, id| {
            exchanges.answer(Ends::udp(at(client), at(server)), &bytes(&answer(id)), 1).unwrap()
        };
        assert_eq!(got("10.244.1.2:4001", "10.96.0.10:53", 1), None, "another port");
        assert_eq!(got("10.244.1.2:4000", "10.96.0.11:53", 1), None, "another server");
        assert_eq!(got("10.244.1.2:4000", "10.96.0.10:53", 2), None, "another id");
        let (asked, read) = got("10.244.1.2:4000", "10.96.0.10:53", 1).unwrap();
        assert_eq!((asked.pod, read.addresses.len()), (pod("web"), 1));
        assert_eq!(got("10.244.1.2:4000", "10.96.0.10:53", 1), None, "it was answered");
    }

    #[test]
    fn after_a_forged_answer_the_right_one_is_still_taken() {
        let (mut exchanges, client) = (Exchanges::new(LIMITS, [server()]), at("10.244.1.2:4000"));
        exchanges.ask(&pod("web"), Ends::udp(client, server()), &bytes(&message(1)), 0).unwrap();
        let mut forged = answer(1);
        forged.queries[0].name = Name::from_ascii("b.io.").unwrap();
        assert_eq!(
            exchanges.answer(Ends::udp(client, server()), &bytes(&forged), 1),
            Err(BadAnswer::Question)
        );
        assert!(exchanges.answer(Ends::udp(client, server()), &[0], 1).is_err());
        assert!(exchanges.answer(Ends::udp(client, server()), &bytes(&answer(1)), 1).unwrap().is_some());
    }

    #[test]
    fn only_trusted_servers_are_asked() {
        let mut exchanges = Exchanges::new(LIMITS, [server()]);
        let own = at("10.244.1.9:53");
        let ask = |exchanges: &mut Exchanges, to| {
            exchanges.ask(&pod("web"), Ends::udp(at("10.244.1.2:4000"), to), &bytes(&message(1)), 0)
        };
        assert_eq!(ask(&mut exchanges, own), Err(Refused::Untrusted(own)));
        ask(&mut exchanges, server()).unwrap();
        exchanges.trust([own]);
        assert_eq!(exchanges.waiting(), 0, "the server is no longer trusted");
        assert_eq!(ask(&mut exchanges, server()), Err(Refused::Untrusted(server())));
    }

    #[test]
    fn a_pod_that_floods_is_bounded_and_takes_nothing_from_others() {
        let mut exchanges = Exchanges::new(LIMITS, [server()]);
        let mut ask = |name: &str, id: u16, now| {
            exchanges.ask(&pod(name), Ends::udp(at("10.244.1.2:4000"), server()), &bytes(&message(id)), now)
        };
        let taken = (0..100).filter(|id| ask("flood", *id, 0).is_ok()).count();
        assert_eq!(taken, LIMITS.waiting_of_pod);
        assert_eq!(ask("flood", 100, 5), Err(Refused::PodLimit), "its rate");
        assert_eq!((ask("web", 201, 5), ask("web", 202, 5)), (Ok(()), Ok(())));
        // Three of `flood` and two of `web` are as many as there may be: the pod with the most makes room, and those with as many don't.
        assert_eq!(ask("db", 203, 5), Ok(()));
        assert_eq!(ask("web", 204, 5), Err(Refused::Limit));
        assert_eq!(ask("db", 205, 5), Err(Refused::Limit));
        // Unanswered queries are given up.
        assert_eq!(ask("db", 203, 2000), Ok(()));
        assert_eq!(exchanges.waiting(), 1);
        exchanges.remove_pod(&pod("db"));
        exchanges.forget_idle_pods(60_000);
        assert_eq!((exchanges.waiting(), exchanges.pods.len(), exchanges.by_deadline.len()), (0, 0, 0));
    }

    /// The owner of a zone decides how long answers are, and a pod how often it asks.
    #[test]
    fn long_answers_are_a_part_of_the_rate_of_their_pod() {
        let limits = ExchangeLimits { rate_of_pod: 100, burst_of_pod: 500, ..ExchangeLimits::default() };
        let mut exchanges = Exchanges::new(limits, [server()]);
        let mut ends = Ends::tcp(at("10.244.1.2:4000"), server());
        let mut asks = |name: &str, port, extra: u8, now| {
            ends.client.set_port(port);
            exchanges.ask(&pod(name), ends, &bytes(&message(1)), now)?;
            let mut long = answer(1);
            for n in 0..=u16::from(extra) * 16 {
                let data = RData::A(A::new(198, 51, (n >> 8) as u8, n as u8));
                long.add_answer(Record::from_rdata(Name::from_ascii("a.io.").unwrap(), 60, data));
            }
            let answer = exchanges.answer(ends, &bytes(&long), now);
            Ok::<bool, Refused>(answer == Err(BadAnswer::PodLimit))
        };
        let refused = (0..100).filter(|n| asks("flood", 4000 + n, 60, 0) != Ok(false)).count();
        assert!((80..99).contains(&refused), "{refused} of 100 answers of 15 kB");
        assert!((0..100).all(|n| asks("web", 5000 + n, 0, 0) == Ok(false)), "others have their own");
        assert_eq!(asks("flood", 6000, 60, 5_000), Ok(false), "later it goes on");
    }

    #[test]
    fn a_query_that_is_sent_again_waits_once() {
        let mut exchanges = Exchanges::new(LIMITS, [server()]);
        for now in 0..10 {
            exchanges
                .ask(&pod("web"), Ends::udp(at("10.244.1.2:4000"), server()), &bytes(&message(1)), now)
                .unwrap();
        }
        assert_eq!((exchanges.waiting(), exchanges.by_deadline.len()), (1, 1));
    }
}

//! TCP connections of pods to DNS servers, followed segment by segment.
//!
//! ```text
//!  pod ── segment ──► from_client ──► Messages: queries, noted ──► on its way, always
//!  pod ◄─ segment ◄── from_server ◄── server
//!             │ it completes an answer with new addresses: hold, until release
//!             │ it carries bytes of a held segment, or lies too far ahead: dropped, and sent again by the server
//!             └ what it belongs to is not known, or is no answer: a reset, so that the pod connects again
//! ```
//!
//! Only the segment that completes an answer has to wait: without it the pod can't read the answer, whatever arrives before or after. The
//! server sends the same bytes when it repeats a segment, so bytes are read once, in the order of their sequence numbers, from the server's
//! first segment on. What begins in the middle is not read: a part of a message could look like another message.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use palisade_policy::ObjectKey;

use crate::{
    Ends, MAX_MESSAGE,
    exchange::LOOKED_AT,
    stream::{Stream, Taken},
};

/// The longest query on TCP. One with all options that are in use is shorter than 1 kB.
const MAX_QUERY: usize = 4096;
/// The most segments of a connection that wait for a commit.
const MAX_HELD: usize = 16;

/// The bounds of the connections that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The most connections of all pods. One beyond takes the place of one of a pod that has more.
    pub connections: usize,
    /// The most connections of one pod.
    pub connections_of_pod: usize,
    /// The most bytes of all pods that are kept until messages are complete.
    pub bytes: usize,
    /// The most bytes of one pod.
    pub bytes_of_pod: usize,
    /// After how many milliseconds without a segment a connection is forgotten.
    pub idle: u64,
    /// The same for one on which no message was complete yet.
    pub idle_at_first: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_of_pod: 256,
            bytes: 16 << 20,
            bytes_of_pod: 512 << 10,
            // Servers close idle connections after 8 s (CoreDNS) to two minutes (RFC 7766, section 6.2.3).
            idle: 120_000,
            idle_at_first: 10_000,
        }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The sequence number of the first byte, or of SYN.
    pub sequence: u32,
    /// The acknowledgement number, if it has the flag ACK.
    pub acknowledged: Option<u32>,
    /// The flag SYN.
    pub syn: bool,
    /// The flag FIN.
    pub fin: bool,
    /// The flag RST.
    pub reset: bool,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// The sequence number of the first byte of the payload.
    fn first(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(self.syn))
    }

    /// The sequence number behind the payload.
    fn end(&self) -> u32 {
        self.first().wrapping_add(self.payload.len() as u32)
    }
}

/// What happens to a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It continues.
    Pass,
    /// It is dropped, and will be sent again.
    Drop,
    /// A reset of the connection takes its place.
    Reset,
    /// It completes these messages. It continues once they are dealt with.
    Messages(Vec<Vec<u8>>),
}

/// The connections that are followed.
///
/// Times are milliseconds of any clock that doesn't go back.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    connections: HashMap<Ends, Connection>,
    /// By the time at which they are forgotten.
    by_deadline: BTreeSet<(u64, Ends)>,
    /// The connections and bytes of each pod that has a connection.
    pods: HashMap<ObjectKey, (usize, usize)>,
    bytes: usize,
    /// The connections of the packets that wait.
    holding: HashMap<u32, Ends>,
}

#[derive(Debug)]
struct Connection {
    pod: ObjectKey,
    queries: Stream,
    /// Known once the server has accepted the connection.
    answers: Option<Stream>,
    /// The segments that wait: what they carry, by offset, and the packet.
    held: Vec<(Range<i64>, u32)>,
    /// Whether its answers can't be learned any more, so that none may pass.
    broken: bool,
    has_messages: bool,
    client_is_done: bool,
    /// The offset behind the server's last byte.
    server_end: Option<i64>,
    bytes: usize,
    deadline: u64,
}

impl Connections {
    /// Makes an empty set.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            connections: HashMap::new(),
            by_deadline: BTreeSet::new(),
            pods: HashMap::new(),
            bytes: 0,
            holding: HashMap::new(),
        }
    }

    /// Takes a segment of a pod. [`Step::Messages`] are queries, in order; [`Connections::refuse`] the connection if one can't be noted.
    pub fn from_client(&mut self, pod: &ObjectKey, ends: Ends, segment: &Segment<'_>, now: u64) -> Step {
        self.expire(now);
        if segment.syn && segment.acknowledged.is_none() && !segment.reset {
            let is_known = self.connections.get(&ends).is_some_and(|c| c.queries.start() == segment.first());
            if !is_known && !self.open(pod, ends, segment.first(), now) {
                return Step::Drop;
            }
        }
        let Some(connection) = self.connections.get_mut(&ends) else { return Step::Pass };
        if segment.reset {
            if connection.queries.is_near(segment.sequence) {
                self.remove(&ends);
            }
            return Step::Pass;
        }
        let step = match connection.queries.take(segment.first(), segment.payload) {
            Taken::Old => Step::Pass,
            // What is sent before the server can be asked again is of no use.
            Taken::TooFar => return Step::Drop,
            Taken::Bad => {
                connection.broken = true;
                Step::Pass
            }
            Taken::New(queries) if queries.is_empty() => Step::Pass,
            Taken::New(queries) => Step::Messages(queries),
        };
        connection.client_is_done |= segment.fin;
        if let (Some(answers), Some(acknowledged)) = (&connection.answers, segment.acknowledged) {
            // Segments passed that were not read here, such as while no agent ran. What comes next may be the rest of an answer that was not learned.
            connection.broken |= answers.has_missed(acknowledged);
        }
        if connection.is_over(segment) {
            self.remove(&ends);
            return Step::Pass;
        }
        self.touch(&ends, now, matches!(step, Step::Messages(_)));
        step
    }

    /// Takes a segment of a server to a pod. [`Step::Messages`] are answers, in order: [`Connections::hold`] the segment if they have to
    /// wait, and [`Connections::refuse`] the connection if one must not pass.
    pub fn from_server(&mut self, ends: Ends, segment: &Segment<'_>, now: u64) -> Step {
        self.expire(now);
        let has_payload = !segment.payload.is_empty();
        let unknown = if has_payload && !segment.reset { Step::Reset } else { Step::Pass };
        let Some(connection) = self.connections.get_mut(&ends) else { return unknown };
        if segment.reset {
            let is_near = match &connection.answers {
                Some(answers) => answers.is_near(segment.sequence),
                // It refuses the connection.
                None => segment.acknowledged.is_some_and(|ack| connection.queries.is_near(ack)),
            };
            return if is_near {
                self.remove(&ends);
                Step::Pass
            } else {
                Step::Drop
            };
        }
        if segment.syn && !connection.accept(segment) {
            return Step::Drop;
        }
        let Some(step) = connection.take_answers(segment) else { return unknown };
        self.touch(&ends, now, matches!(step, Step::Messages(_)));
        step
    }

    /// Lets nothing more pass from the server on a connection: a message can't be learned from. Its next segment becomes a reset.
    pub fn refuse(&mut self, ends: &Ends) {
        if let Some(connection) = self.connections.get_mut(ends) {
            connection.broken = true;
        }
    }

    /// Notes that the segment of the server that was taken last waits as this packet.
    pub fn hold(&mut self, ends: Ends, segment: &Segment<'_>, packet: u32) {
        let Some(connection) = self.connections.get_mut(&ends) else { return };
        let Some(answers) = &connection.answers else { return };
        connection.held.push((answers.offset(segment.first())..answers.offset(segment.end()), packet));
        self.holding.insert(packet, ends);
    }

    /// A packet no longer waits: its answers are in the kernel, or with `committed` false it was dropped, and its connection can't go on.
    /// A packet that isn't one of a connection is nothing.
    pub fn release(&mut self, packet: u32, committed: bool) {
        let Some(ends) = self.holding.remove(&packet) else { return };
        if let Some(connection) = self.connections.get_mut(&ends) {
            connection.held.retain(|(_, held)| *held != packet);
            connection.broken |= !committed;
        }
    }

    /// Forgets the connections whose time is over. Called by the other methods; needed besides only to free memory.
    pub fn expire(&mut self, now: u64) {
        while let Some((deadline, ends)) = self.by_deadline.first().copied()
            && deadline <= now
        {
            self.by_deadline.pop_first();
            self.remove(&ends);
        }
    }

    /// Forgets the connections of a pod that is gone. `O(connections)`.
    pub fn remove_pod(&mut self, pod: &ObjectKey) {
        let own: Vec<Ends> =
            self.connections.iter().filter(|(_, c)| c.pod == *pod).map(|(ends, _)| *ends).collect();
        own.iter().for_each(|ends| self.remove(ends));
    }

    /// Returns how many connections are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns whether none is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Begins to follow a connection. Returns whether the bounds allow it.
    fn open(&mut self, pod: &ObjectKey, ends: Ends, first: u32, now: u64) -> bool {
        self.remove(&ends);
        let of_pod = self.pods.get(pod).map_or(0, |(connections, _)| *connections);
        if of_pod >= self.limits.connections_of_pod
            || (self.connections.len() >= self.limits.connections && !self.make_room(of_pod))
        {
            return false;
        }
        self.pods.entry(pod.clone()).or_default().0 += 1;
        let deadline = now.saturating_add(self.limits.idle_at_first);
        self.by_deadline.insert((deadline, ends));
        let connection = Connection {
            pod: pod.clone(),
            queries: Stream::new(first, MAX_QUERY),
            answers: None,
            held: Vec::new(),
            broken: false,
            has_messages: false,
            client_is_done: false,
            server_end: None,
            bytes: 0,
            deadline,
        };
        self.connections.insert(ends, connection);
        true
    }

    /// Forgets one of the connections that would be forgotten first, if its pod has more than another with `of_pod` will have with one more. The next
    /// answer on it becomes a reset. Returns whether there was one.
    fn make_room(&mut self, of_pod: usize) -> bool {
        let is_of_larger = |ends: &&Ends| {
            let pod = self.connections.get(*ends).map(|connection| &connection.pod);
            pod.and_then(|pod| self.pods.get(pod)).is_some_and(|(connections, _)| *connections > of_pod + 1)
        };
        let found = self.by_deadline.iter().take(LOOKED_AT).map(|(_, ends)| ends).find(is_of_larger).copied();
        if let Some(ends) = found {
            self.remove(&ends);
        }
        found.is_some()
    }

    /// Extends the time of a connection after a segment, and counts the bytes that it keeps.
    fn touch(&mut self, ends: &Ends, now: u64, has_messages: bool) {
        let Some(connection) = self.connections.get_mut(ends) else { return };
        connection.has_messages |= has_messages;
        if connection.has_messages {
            self.by_deadline.remove(&(connection.deadline, *ends));
            connection.deadline = now.saturating_add(self.limits.idle);
            self.by_deadline.insert((connection.deadline, *ends));
        }
        let kept = connection.queries.buffered() + connection.answers.as_ref().map_or(0, Stream::buffered);
        let before = std::mem::replace(&mut connection.bytes, kept);
        self.bytes = self.bytes - before + kept;
        let Some((_, of_pod)) = self.pods.get_mut(&connection.pod) else { return };
        *of_pod = *of_pod - before + kept;
        if kept > before && (self.bytes > self.limits.bytes || *of_pod > self.limits.bytes_of_pod) {
            // The pod's next answer on it becomes a reset.
            self.remove(ends);
        }
    }

    fn remove(&mut self, ends: &Ends) {
        let Some(connection) = self.connections.remove(ends) else { return };
        self.by_deadline.remove(&(connection.deadline, *ends));
        self.bytes -= connection.bytes;
        for (_, packet) in connection.held {
            self.holding.remove(&packet);
        }
        if let Some((connections, bytes)) = self.pods.get_mut(&connection.pod) {
            *connections -= 1;
            *bytes -= connection.bytes;
            if *connections == 0 {
                self.pods.remove(&connection.pod);
            }
        }
    }
}

impl Connection {
    /// Notes where the server's bytes begin. Returns whether the segment accepts this connection, and no other.
    fn accept(&mut self, segment: &Segment<'_>) -> bool {
        // Data that the client sent with SYN may be acknowledged, too. A forger would have to guess the number.
        let is_for_this = segment.acknowledged.is_some_and(|ack| self.queries.has_read_up_to(ack));
        match &self.answers {
            Some(answers) => is_for_this && answers.start() == segment.first(),
            None if is_for_this => {
                self.answers = Some(Stream::new(segment.first(), MAX_MESSAGE));
                true
            }
            None => false,
        }
    }

    /// Takes a segment of the server. `None` if the server hasn't accepted the connection.
    fn take_answers(&mut self, segment: &Segment<'_>) -> Option<Step> {
        let answers = self.answers.as_ref()?;
        let carried = answers.offset(segment.first())..answers.offset(segment.end());
        if segment.fin {
            self.server_end = Some(carried.end);
        }
        if segment.payload.is_empty() {
            return Some(Step::Pass);
        }
        if self.broken {
            return Some(Step::Reset);
        }
        if self.must_wait(&carried) {
            return Some(Step::Drop);
        }
        Some(match self.answers.as_mut()?.take(segment.first(), segment.payload) {
            Taken::Old => Step::Pass,
            Taken::TooFar => Step::Drop,
            Taken::Bad => {
                self.broken = true;
                Step::Reset
            }
            Taken::New(messages) if messages.is_empty() => Step::Pass,
            Taken::New(messages) => Step::Messages(messages),
        })
    }

    /// Whether the server has to send a segment again: its bytes are those of one that waits, or too many wait.
    fn must_wait(&self, carried: &Range<i64>) -> bool {
        let overlaps = |held: &Range<i64>| held.start < carried.end && carried.start < held.end;
        self.held.len() >= MAX_HELD || self.held.iter().any(|(held, _)| overlaps(held))
    }

    /// Whether both ends are done and the client has everything, so that nothing is sent again.
    fn is_over(&self, segment: &Segment<'_>) -> bool {
        let (Some(answers), Some(end), Some(acknowledged)) =
            (&self.answers, self.server_end, segment.acknowledged)
        else {
            return false;
        };
        self.client_is_done && self.held.is_empty() && answers.offset(acknowledged) > end
    }
}

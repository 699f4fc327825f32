//! One direction of a TCP connection: its segments in order, as messages.

use std::collections::BTreeMap;

use crate::Frames;

/// The most bytes that a segment may lie ahead of those that were read, so that memory is bounded. A sender sends more only if segments
/// before were lost, and then it sends these again.
const AHEAD: u64 = 64 << 10;
/// The most segments that are kept because one before them is missing.
const SEGMENTS_AHEAD: usize = 128;

/// Puts the segments of one direction in order.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The sequence number of the first byte.
    start: u32,
    /// How many bytes were read in order.
    next: u64,
    /// The longest message.
    max_message: usize,
    frames: Frames,
    /// What arrived before a segment that precedes it, by offset.
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_bytes: usize,
}

/// What a segment brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing that wasn't read before.
    Old,
    /// Bytes that were noted, and the messages that they complete.
    New(Vec<Vec<u8>>),
    /// It lies too far ahead. It was not noted, and has to be sent again.
    TooFar,
    /// The bytes are no messages, or one is too long.
    Bad,
}

impl Stream {
    /// Makes a stream whose first byte has the sequence number `start`, with messages of at most `max_message` bytes.
    pub(crate) fn new(start: u32, max_message: usize) -> Self {
        let (frames, ahead) = (Frames::default(), BTreeMap::new());
        Self { start, next: 0, max_message, frames, ahead, ahead_bytes: 0 }
    }

    pub(crate) fn start(&self) -> u32 {
        self.start
    }

    /// Returns the offset of a sequence number, which is negative before the first byte.
    ///
    /// Numbers wrap, so it is the offset within 2 GiB of what was read.
    pub(crate) fn offset(&self, sequence: u32) -> i64 {
        let expected = self.start.wrapping_add(self.next as u32);
        self.next as i64 + i64::from(sequence.wrapping_sub(expected) as i32)
    }

    /// Whether a sequence number is one that the receiver may expect.
    pub(crate) fn is_near(&self, sequence: u32) -> bool {
        (self.offset(sequence) - self.next as i64).unsigned_abs() <= AHEAD
    }

    /// Whether a sequence number is the first, or one right behind a byte that was read.
    pub(crate) fn has_read_up_to(&self, sequence: u32) -> bool {
        (0..=self.next as i64).contains(&self.offset(sequence))
    }

    /// Whether the receiver has bytes that were not read here, by the number that it acknowledges.
    pub(crate) fn has_missed(&self, acknowledged: u32) -> bool {
        // The end of the stream counts as one.
        self.offset(acknowledged) > self.next as i64 + 1
    }

    /// How many bytes are kept.
    pub(crate) fn buffered(&self) -> usize {
        self.frames.buffered() + self.ahead_bytes
    }

    /// Takes a segment. `O(segment + what it completes)`.
    pub(crate) fn take(&mut self, sequence: u32, payload: &[u8]) -> Taken {
        let begin = self.offset(sequence);
        let Ok(end) = u64::try_from(begin + payload.len() as i64) else { return Taken::Old };
        if end <= self.next {
            return Taken::Old;
        }
        let known = (self.next as i64 - begin).max(0) as usize;
        let (at, fresh) = ((begin + known as i64) as u64, payload.get(known..).unwrap_or_default());
        if at > self.next {
            return self.keep(at, fresh);
        }
        let mut messages = Vec::new();
        if !self.read(fresh, &mut messages) {
            return Taken::Bad;
        }
        while let Some((at, bytes)) = self.ahead.pop_first() {
            if at > self.next {
                self.ahead.insert(at, bytes);
                break;
            }
            self.ahead_bytes -= bytes.len();
            let fresh = bytes.get((self.next - at) as usize..).unwrap_or_default();
            if !self.read(fresh, &mut messages) {
                return Taken::Bad;
            }
        }
        Taken::New(messages)
    }

    /// Keeps a segment until those before it have arrived.
    fn keep(&mut self, at: u64, bytes: &[u8]) -> Taken {
        let replaced = self.ahead.get(&at).map_or(0, Vec::len);
        if replaced >= bytes.len() {
            return Taken::New(Vec::new());
        }
        let most = AHEAD.min(2 * self.max_message as u64);
        let held = self.ahead_bytes - replaced + bytes.len();
        let is_full = replaced == 0 && self.ahead.len() >= SEGMENTS_AHEAD;
        if at + bytes.len() as u64 > self.next + most || held as u64 > most || is_full {
            return Taken::TooFar;
        }
        self.ahead_bytes = held;
        self.ahead.insert(at, bytes.to_vec());
        Taken::New(Vec::new())
    }

    /// Reads the next bytes. Returns whether they can be messages.
    fn read(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>) -> bool {
        self.next += bytes.len() as u64;
        if self.frames.push(bytes).is_err() {
            return false;
        }
        loop {
            match self.frames.next_message() {
                Ok(Some(message)) if message.len() <= self.max_message => messages.push(message),
                Ok(None) => return self.frames.buffered() <= self.max_message + 2,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{MAX_MESSAGE, frame};

    fn messages_of(stream: &mut Stream, segments: &[(u32, &[u8])]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for (sequence, bytes) in segments {
            if let Taken::New(messages) = stream.take(*sequence, bytes) {
                out.extend(messages);
            }
        }
        out
    }

    proptest! {
        /// However segments are cut, repeated, merged and mixed, and wherever sequence numbers wrap, the messages are the same, once each.
        #[test]
        fn messages_are_the_same_however_segments_arrive(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8),
            start in prop_oneof![any::<u32>(), (u32::MAX - 300)..=u32::MAX],
            order in prop::collection::vec((any::<prop::sample::Index>(), 1usize..90), 0..60),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|m| frame(m).unwrap()).collect();
            let mut segments: Vec<(u32, &[u8])> = Vec::new();
            for (at, length) in &order {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + length);
                segments.push((start.wrapping_add(at as u32), &bytes[at..end]));
            }
            // At last everything is sent again, in order.
            for (index, part) in bytes.chunks(7).enumerate() {
                segments.push((start.wrapping_add(7 * index as u32), part));
            }
            let mut stream = Stream::new(start, MAX_MESSAGE);
            prop_assert_eq!(messages_of(&mut stream, &segments), messages);
            prop_assert_eq!((stream.buffered(), stream.ahead.len()), (0, 0));
        }
    }

    #[test]
    fn the_longest_message_arrives_in_segments_in_any_order() {
        let longest = vec![7; MAX_MESSAGE];
        let bytes = frame(&longest).unwrap();
        let mut segments: Vec<(u32, &[u8])> =
            bytes.chunks(1448).enumerate().map(|(index, part)| (9 + 1448 * index as u32, part)).collect();
        let seen = messages_of(&mut Stream::new(9, MAX_MESSAGE), &segments);
        assert_eq!(seen, std::slice::from_ref(&longest));
        segments[1..].reverse();
        segments.rotate_left(1);
        let mut stream = Stream::new(9, MAX_MESSAGE);
        let mut seen = messages_of(&mut stream, &segments);
        // What lay too far ahead is sent again.
        seen.extend(messages_of(&mut stream, &segments));
        assert_eq!(seen, [longest]);
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_kept() {
        let mut stream = Stream::new(0, 100);
        assert_eq!(stream.take(201, b"x"), Taken::TooFar);
        assert_eq!(stream.take(u32::MAX - 5, b"xyz"), Taken::Old, "before the first byte");
        for at in 1..=SEGMENTS_AHEAD as u32 {
            assert_eq!(stream.take(at, b"x"), Taken::New(Vec::new()));
        }
        assert_eq!(stream.take(150, b"x"), Taken::TooFar, "too many segments");
        let mut stream = Stream::new(0, MAX_MESSAGE);
        assert_eq!(stream.take(1, &[0; 60_000]), Taken::New(Vec::new()));
        assert_eq!(stream.take(2, &[0; 60_000]), Taken::TooFar, "too many bytes");
        assert!(stream.buffered() <= 60_000);
    }

    #[test]
    fn messages_that_are_empty_or_too_long_are_bad() {
        assert_eq!(Stream::new(0, 100).take(0, &[0, 0]), Taken::Bad);
        assert_eq!(Stream::new(0, 100).take(0, &frame(&[1; 101]).unwrap()), Taken::Bad);
        let mut stream = Stream::new(0, 100);
        let long = frame(&[1; 200]).unwrap();
        assert_eq!(stream.take(0, &long[..102]), Taken::New(Vec::new()));
        assert_eq!(stream.take(102, &long[102..104]), Taken::Bad, "it never ends");
    }
}

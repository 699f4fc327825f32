use proptest::prelude::*;

use super::*;
use crate::frame;

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 4,
    connections_of_pod: 2,
    bytes: 3000,
    bytes_of_pod: 2000,
    idle: 1000,
    idle_at_first: 100,
};
/// The sequence numbers of the first bytes wrap soon.
const CLIENT: u32 = u32::MAX - 3;
const SERVER: u32 = u32::MAX - 9;

fn ends(port: u16) -> Ends {
    Ends::tcp(([10, 244, 1, 2], port).into(), ([10, 96, 0, 10], 53).into())
}

fn pod(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn query(at: u32, payload: &[u8]) -> Segment<'_> {
    Segment { sequence: CLIENT.wrapping_add(at), acknowledged: Some(SERVER), payload, ..Segment::default() }
}

fn answer(at: u32, payload: &[u8]) -> Segment<'_> {
    Segment { sequence: SERVER.wrapping_add(at), acknowledged: Some(CLIENT), payload, ..Segment::default() }
}

fn syn() -> Segment<'static> {
    Segment { syn: true, acknowledged: None, ..query(u32::MAX, b"") }
}

fn accepted() -> Segment<'static> {
    Segment { syn: true, ..answer(u32::MAX, b"") }
}

fn opened(limits: ConnectionLimits, port: u16) -> Connections {
    let mut connections = Connections::new(limits);
    assert_eq!(connections.from_client(&pod("web"), ends(port), &syn(), 0), Step::Pass);
    assert_eq!(connections.from_server(ends(port), &accepted(), 0), Step::Pass);
    connections
}

fn messages(of: &[&[u8]]) -> Step {
    Step::Messages(of.iter().map(|m| m.to_vec()).collect())
}

fn assert_is_clean(connections: &Connections) {
    let Connections { connections, by_deadline, pods, bytes, holding, .. } = connections;
    assert_eq!(
        (connections.len(), by_deadline.len(), pods.len(), *bytes, holding.len()),
        (0, 0, 0, 0, 0),
        "nothing is left over"
    );
}

#[test]
fn a_segment_that_completes_an_answer_waits_and_is_not_overtaken() {
    let mut c = opened(LIMITS, 1);
    let (question, reply) = (frame(b"question").unwrap(), frame(b"answer").unwrap());
    assert_eq!(c.from_client(&pod("web"), ends(1), &query(0, &question), 1), messages(&[b"question"]));
    assert_eq!(c.from_server(ends(1), &answer(0, &reply[..3]), 2), Step::Pass, "a part");
    let last = answer(3, &reply[3..]);
    assert_eq!(c.from_server(ends(1), &last, 2), messages(&[b"answer"]));
    c.hold(ends(1), &last, 77);
    assert_eq!(c.from_server(ends(1), &last, 3), Step::Drop, "sent again");
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 3), Step::Drop, "merged with the part before");
    assert_eq!(c.from_server(ends(1), &answer(0, &reply[..3]), 3), Step::Pass, "the part before");
    assert_eq!(c.from_server(ends(1), &answer(8, b"\0\x05next"), 3), Step::Pass, "the next one's part");
    c.release(77, true);
    assert_eq!(c.from_server(ends(1), &last, 4), Step::Pass);
    // Both close, and the last acknowledgement ends it.
    let fin = Segment { fin: true, ..answer(14, b"") };
    assert_eq!(c.from_client(&pod("web"), ends(1), &Segment { fin: true, ..query(10, b"") }, 5), Step::Pass);
    assert_eq!(c.from_server(ends(1), &fin, 5), Step::Pass);
    assert_eq!(c.len(), 1, "the server may have to send its bytes again");
    let all = Segment { acknowledged: Some(SERVER.wrapping_add(15)), ..query(11, b"") };
    assert_eq!(c.from_client(&pod("web"), ends(1), &all, 6), Step::Pass);
    assert_is_clean(&c);
}

#[test]
fn answers_of_a_connection_that_is_not_known_from_its_beginning_become_resets() {
    let mut c = Connections::new(LIMITS);
    let reply = frame(b"answer").unwrap();
    assert_eq!(c.from_client(&pod("web"), ends(1), &query(0, b"\0\x01x"), 0), Step::Pass);
    assert_eq!(c.from_server(ends(1), &accepted(), 0), Step::Pass);
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), Step::Reset);
    assert_eq!(c.from_server(ends(1), &answer(0, b""), 0), Step::Pass, "no bytes");
    // The server has not accepted it, or another one.
    c.from_client(&pod("web"), ends(1), &syn(), 0);
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), Step::Reset);
    for wrong in [CLIENT.wrapping_add(1), CLIENT.wrapping_sub(1)] {
        let forged = Segment { acknowledged: Some(wrong), ..accepted() };
        assert_eq!(c.from_server(ends(1), &forged, 0), Step::Drop);
    }
    assert_eq!(c.from_server(ends(1), &accepted(), 0), Step::Pass);
    let other = Segment { sequence: SERVER.wrapping_add(5), ..accepted() };
    assert_eq!(c.from_server(ends(1), &other, 0), Step::Drop, "another beginning");
    assert_eq!(c.from_server(ends(1), &accepted(), 0), Step::Pass, "sent again");
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), messages(&[b"answer"]));
}

#[test]
fn what_is_refused_damaged_or_not_committed_ends_in_a_reset() {
    let reply = frame(b"answer").unwrap();
    let mut c = opened(LIMITS, 1);
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), messages(&[b"answer"]));
    c.refuse(&ends(1));
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), Step::Reset);
    let mut c = opened(LIMITS, 1);
    assert_eq!(c.from_server(ends(1), &answer(0, &[0, 0]), 0), Step::Reset, "a message of no bytes");
    let mut c = opened(LIMITS, 1);
    assert_eq!(c.from_client(&pod("web"), ends(1), &query(0, &[0xff; 4200]), 0), Step::Pass, "no query");
    assert_eq!(c.from_server(ends(1), &answer(0, &reply), 0), Step::Reset);
    let mut c = opened(LIMITS, 1);
    let missed = Segment { acknowledged: Some(SERVER.wrapping_add(3)), ..query(0, b"") };
    c.from_client(&pod("web"), ends(1), &missed, 0);
    assert_eq!(c.from_server(ends(1), &answer(3, &reply[3..]), 0), Step::Reset, "the rest of an answer");
    let mut c = opened(LIMITS, 1);
    let segment = answer(0, &reply);
    c.from_server(ends(1), &segment, 0);
    c.hold(ends(1), &segment, 5);
    c.release(5, false);
    assert_eq!(c.from_server(ends(1), &segment, 0), Step::Reset);
}

#[test]
fn a_reset_ends_a_connection_only_if_its_number_is_near() {
    let reset = |segment: Segment<'static>, at: u32| Segment {
        reset: true,
        sequence: segment.sequence.wrapping_add(at),
        ..segment
    };
    let mut c = opened(LIMITS, 1);
    assert_eq!(c.from_server(ends(1), &reset(answer(0, b""), 1 << 20), 0), Step::Drop);
    c.from_client(&pod("web"), ends(1), &reset(query(0, b""), 1 << 20), 0);
    assert_eq!(c.len(), 1);
    assert_eq!(c.from_server(ends(1), &reset(answer(0, b""), 0), 0), Step::Pass);
    assert_is_clean(&c);
    let mut c = opened(LIMITS, 1);
    c.from_client(&pod("web"), ends(1), &reset(query(0, b""), 0), 0);
    assert_is_clean(&c);
    // A server that isn't there.
    let mut c = Connections::new(LIMITS);
    c.from_client(&pod("web"), ends(1), &syn(), 0);
    assert_eq!(c.from_server(ends(1), &Segment { sequence: 0, ..reset(answer(0, b""), 0) }, 0), Step::Pass);
    assert_is_clean(&c);
}

#[test]
fn connections_bytes_and_time_are_bounded() {
    let mut c = Connections::new(LIMITS);
    let mut open = |name: &str, port, now| c.from_client(&pod(name), ends(port), &syn(), now);
    assert_eq!(
        (open("web", 1, 0), open("web", 2, 0), open("web", 3, 0)),
        (Step::Pass, Step::Pass, Step::Drop)
    );
    assert_eq!(open("web", 2, 0), Step::Pass, "sent again");
    assert_eq!((open("db", 4, 0), open("db", 5, 0)), (Step::Pass, Step::Pass));
    // A pod with more makes room, until all have as many.
    assert_eq!((open("x", 6, 0), open("y", 7, 0), open("z", 8, 0)), (Step::Pass, Step::Pass, Step::Drop));
    assert_eq!((open("web", 9, 0), open("db", 9, 0)), (Step::Drop, Step::Drop), "they can't take it back");
    assert_eq!(open("z", 8, 100), Step::Pass, "nothing was asked on the others");
    c.remove_pod(&pod("z"));
    assert_is_clean(&c);

    // Parts of messages that never end.
    let mut c = opened(LIMITS, 1);
    let long = frame(&[1; 9000]).unwrap();
    assert_eq!(c.from_server(ends(1), &answer(0, &long[..1900]), 0), Step::Pass);
    assert_eq!(c.bytes, 1900);
    c.from_server(ends(1), &answer(1900, &long[1900..2100]), 0);
    assert_eq!(c.from_server(ends(1), &answer(2100, &long[2100..]), 0), Step::Reset);
    assert_is_clean(&c);

    // One with an exchange stays longer.
    let mut c = opened(LIMITS, 1);
    c.from_client(&pod("web"), ends(1), &query(0, b"\0\x01x"), 50);
    c.expire(1049);
    assert_eq!(c.len(), 1);
    c.expire(1050);
    assert_is_clean(&c);
}

#[test]
fn at_most_some_segments_of_a_connection_wait() {
    let mut c = opened(LIMITS, 1);
    for number in 0..MAX_HELD as u32 {
        let segment = answer(3 * number, b"\0\x01x");
        assert_eq!(c.from_server(ends(1), &segment, 0), messages(&[b"x"]));
        c.hold(ends(1), &segment, number);
    }
    let next = answer(3 * MAX_HELD as u32, b"\0\x01y");
    assert_eq!(c.from_server(ends(1), &next, 0), Step::Drop);
    c.release(3, true);
    assert_eq!(c.from_server(ends(1), &next, 0), messages(&[b"y"]));
}

proptest! {
    /// However segments are cut, lost, repeated and mixed, and whenever commits end, a pod never has a whole message that is not
    /// committed, and in the end it has all.
    #[test]
    fn a_pod_never_has_a_message_that_is_not_committed(
        lengths in prop::collection::vec(1usize..50, 1..8),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 1usize..80, any::<bool>()), 0..80),
    ) {
        let mut bytes = Vec::new();
        let mut message_ends = Vec::new();
        for length in &lengths {
            bytes.extend(frame(&vec![1; *length]).unwrap());
            message_ends.push(bytes.len());
        }
        let mut c = opened(ConnectionLimits::default(), 1);
        // What the pod has, the segments that wait with the number of messages that they complete, and the messages committed.
        let mut has = vec![false; bytes.len()];
        let mut waiting: Vec<(u32, usize, usize, usize)> = Vec::new();
        let (mut seen, mut committed, mut packet) = (0, 0, 0);
        let whole = |has: &[bool]| {
            let in_order = has.iter().take_while(|byte| **byte).count();
            message_ends.iter().filter(|end| **end <= in_order).count()
        };
        let all = (0..bytes.len()).step_by(20).map(|at| (at, 20, true));
        let random = steps.iter().map(|(at, length, commit)| (at.index(bytes.len()), *length, *commit));
        for (at, length, commit) in random.chain(all.clone()).chain(all) {
            let end = bytes.len().min(at + length);
            let segment = answer(at as u32, &bytes[at..end]);
            packet += 1;
            match c.from_server(ends(1), &segment, 0) {
                Step::Pass => has[at..end].fill(true),
                Step::Drop => {}
                Step::Reset => prop_assert!(false, "a reset"),
                Step::Messages(messages) => {
                    seen += messages.len();
                    c.hold(ends(1), &segment, packet);
                    waiting.push((packet, at, end, seen));
                }
            }
            if commit && !waiting.is_empty() {
                // In the order in which they were learned.
                let (packet, at, end, number) = waiting.remove(0);
                committed = number;
                c.release(packet, true);
                has[at..end].fill(true);
            }
            prop_assert!(whole(&has) <= committed, "{} of {committed}", whole(&has));
        }
        for (packet, at, end, number) in std::mem::take(&mut waiting) {
            committed = number;
            c.release(packet, true);
            has[at..end].fill(true);
        }
        for at in (0..bytes.len()).step_by(20) {
            let end = bytes.len().min(at + 20);
            prop_assert_eq!(c.from_server(ends(1), &answer(at as u32, &bytes[at..end]), 0), Step::Pass);
            has[at..end].fill(true);
        }
        prop_assert_eq!((seen, committed, whole(&has)), (lengths.len(), lengths.len(), lengths.len()));
    }
}

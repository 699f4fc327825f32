//! What the DNS proxy reads: queries of pods, answers of servers, the file of learned names.

use std::{collections::BTreeMap, net::SocketAddr};

use palisade_dns::{
    BadState, ConnectionLimits, Connections, Ends, ExchangeLimits, Exchanges, Frames, LearnLimits, Learnable,
    LearnedNames, Patterns, Query, Segment, Step, decode, encode,
};
use palisade_policy::{Change, DomainPattern, ObjectKey};

/// A stream of messages with their lengths before them, as on TCP: a query, then answers. At most one answer is taken. What is
/// learned from it is of the name in the query, is within the bounds, may be learned, and survives a restart.
pub fn exchange(data: &[u8]) {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for part in data.chunks(65_537) {
        if frames.push(part).is_err() {
            return;
        }
        while let Ok(Some(message)) = frames.next_message() {
            messages.push(message);
        }
    }
    let Some((query, answers)) = messages.split_first() else { return };
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let (client, server) = (address("10.244.1.2:4000"), address("10.96.0.10:53"));
    let ends = Ends::tcp(client, server);
    let pod = ObjectKey::new("shop", "web");
    let mut exchanges = Exchanges::new(ExchangeLimits::default(), [server]);
    let asked = exchanges.ask(&pod, ends, query, 0).is_ok();
    assert_eq!(asked, Query::read(query).is_ok(), "a first query that can be read is asked");
    assert_eq!(exchanges.waiting(), usize::from(asked));
    let name = Query::read(query).ok().and_then(|query| query.name());
    // Every name with two labels, and one by itself.
    let mut patterns: Vec<DomainPattern> =
        ["com", "net", "org", "io"].map(|top| DomainPattern::new(&format!("*.{top}"))).into();
    patterns.extend(name.iter().filter_map(|name| name.patterns().next()));
    let (patterns, learnable): (Patterns, _) = (patterns.into_iter().collect(), Learnable::default());
    let mut learned = LearnedNames::new(LearnLimits { addresses_of_name: 100, ..LearnLimits::default() });
    let mut taken = 0;
    for message in answers {
        let Ok(Some((asked, answer))) = exchanges.answer(ends, message, 1) else { continue };
        taken += 1;
        let Some(name) = asked.query.name() else { continue };
        let outcome = learned.learn(&name, &pod, &answer.addresses, (&patterns, &learnable), 1_000);
        assert!(outcome.refused.iter().all(|(address, why)| learnable.check(*address) == Err(*why)));
    }
    assert!(taken <= usize::from(asked), "a query has one answer");
    for change in learned.take_changes() {
        let Change::SetLearned(set) = change else { panic!("nothing was learned before: {change:?}") };
        assert_eq!(Some(&set.name), name.as_ref(), "only the name that was asked for");
        assert!(
            set.addresses.len() <= 100
                && set.addresses.iter().all(|address| learnable.check(address).is_ok())
        );
    }
    let file = encode(&learned, 0).expect("JSON");
    let again = decode(&file, *learned.limits(), 1_000).expect("what was written");
    assert_eq!(again.all_changes(), learned.all_changes(), "written and read again");
}

/// Segments of three pods and a server, in any order and with any numbers and flags. The bounds hold, and a pod never has a whole answer
/// of a connection that was not released, if the server's bytes at one number are always the same.
pub fn connections(data: &[u8]) {
    const START: u32 = u32::MAX - 100;
    let limits = ConnectionLimits {
        connections: 3,
        connections_of_pod: 2,
        bytes: 3_000,
        ..ConnectionLimits::default()
    };
    let mut connections = Connections::new(limits);
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let (server, clients) =
        (address("10.96.0.10:53"), ["10.244.1.2:1", "10.244.1.2:2", "10.244.1.3:1", "10.244.1.4:1"]);
    // The server's bytes are messages of 1 to 40 bytes.
    let mut stream = Vec::new();
    let mut ends_of_messages = Vec::new();
    for length in (1..=40).cycle().take(200) {
        stream.extend([0, length]);
        stream.extend(vec![length; usize::from(length)]);
        ends_of_messages.push(stream.len());
    }
    // By client: what it has since the server accepted, how many messages may have been released, and the segments that wait.
    let mut pods: BTreeMap<usize, (Vec<bool>, usize, Vec<(u32, usize, usize, usize)>, usize)> =
        BTreeMap::new();
    let (mut now, mut packet) = (0, 0);
    for step in data.chunks_exact(6) {
        let [what, who, flags, at, more, length] = [0, 1, 2, 3, 4, 5].map(|index| step[index]);
        let who = usize::from(who) % clients.len();
        let ends = Ends::tcp(address(clients[who]), server);
        let pod = ObjectKey::new("shop", &*ends.client.ip().to_string());
        let at = usize::from(at) + usize::from(more) * 8;
        let (syn, fin, reset) = (flags & 1 != 0, flags & 2 != 0, flags & 28 == 28);
        packet += 1;
        match what % 8 {
            0 => {
                let bytes = vec![flags; usize::from(length)];
                let acknowledged = (!syn).then_some(START.wrapping_add(1 + u32::from(length)));
                let segment = Segment { sequence: START, acknowledged, syn, fin, reset, payload: &bytes };
                let was_followed = is_followed(&mut connections, ends, now);
                connections.from_client(&pod, ends, &segment, now);
                if !was_followed && is_followed(&mut connections, ends, now) {
                    // What the pod has of an earlier connection is of no use.
                    pods.remove(&who);
                }
            }
            1 => {
                let segment = Segment {
                    sequence: START,
                    acknowledged: Some(START.wrapping_add(1)),
                    syn: true,
                    ..Segment::default()
                };
                connections.from_server(ends, &segment, now);
            }
            2 => {
                if let Some((has, released, waiting, _)) = pods.get_mut(&who)
                    && !waiting.is_empty()
                {
                    let (packet, at, end, number) = waiting.remove(0);
                    connections.release(packet, true);
                    has[at..end].fill(true);
                    *released = number;
                }
            }
            3 => {
                now += u64::from(length) * 50;
                connections.expire(now);
            }
            _ => {
                let end = stream.len().min(at + usize::from(length));
                let at = at.min(end);
                let sequence = START.wrapping_add(1 + at as u32);
                let segment = Segment {
                    sequence,
                    acknowledged: Some(START.wrapping_add(1)),
                    fin,
                    reset,
                    syn: false,
                    payload: &stream[at..end],
                };
                let (has, released, waiting, seen) =
                    pods.entry(who).or_insert_with(|| (vec![false; stream.len()], 0, Vec::new(), 0));
                match connections.from_server(ends, &segment, now) {
                    Step::Pass if !reset => has[at..end].fill(true),
                    Step::Pass | Step::Drop | Step::Reset => {}
                    Step::Messages(messages) => {
                        assert!(messages.iter().all(|m| m.iter().all(|byte| usize::from(*byte) == m.len())));
                        *seen += messages.len();
                        connections.hold(ends, &segment, packet);
                        waiting.push((packet, at, end, *seen));
                    }
                }
                let in_order = has.iter().take_while(|byte| **byte).count();
                let whole = ends_of_messages.iter().filter(|end| **end <= in_order).count();
                assert!(whole <= *released, "{whole} messages of {released}");
            }
        }
        assert!(connections.len() <= 3);
    }
    connections.expire(u64::MAX);
    assert!(connections.is_empty());
}

/// Whether a connection is followed. Their number doesn't tell: a new one may take the place of another one.
fn is_followed(connections: &mut Connections, ends: Ends, now: u64) -> bool {
    // A reset that can't be of the connection is dropped, and without one it passes.
    let far = Segment { sequence: 1 << 30, reset: true, ..Segment::default() };
    connections.from_server(ends, &far, now) == Step::Drop
}

/// A file, and its content with a right checksum, so that the content is reached. What is read is within the bounds and is
/// written as it was read.
pub fn state(data: &[u8]) {
    let limits = LearnLimits { names: 50, addresses: 200, ..LearnLimits::default() };
    let check = |file: &[u8]| {
        let Ok(learned) = decode(file, limits, 1_000) else { return };
        assert!(learned.names() <= 50 && learned.addresses() <= 200);
        let again = decode(&encode(&learned, 0).expect("JSON"), limits, 1_000);
        assert_eq!(
            again.map(|again| again.all_changes()),
            Ok(learned.all_changes()),
            "written and read again"
        );
    };
    check(data);
    if let Ok(text) = std::str::from_utf8(data) {
        check(&with_checksum(text));
    }
}

fn with_checksum(body: &str) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let sum: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = format!("palisade-dns 1 {sum}\n{body}").into_bytes();
    assert_ne!(
        decode(&file, LearnLimits::default(), 0).err(),
        Some(BadState::Damaged),
        "the checksum is right"
    );
    file
}

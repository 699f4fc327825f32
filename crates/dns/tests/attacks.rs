//! What the owner of a zone, a forger or a pod may send: messages as bytes, which no library would build.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use palisade_dns::{
    Answer, BadAnswer, BadQuery, Ends, ExchangeLimits, Exchanges, LearnLimits, Learnable, LearnedNames,
    MAX_MESSAGE, NotLearnable, Patterns, Query,
};
use palisade_policy::{DomainName, DomainPattern, ObjectKey};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const DNAME: u16 = 39;
const OPT: u16 = 41;
const HTTPS: u16 = 65;
/// A pointer to the name of the question.
const ASKED: [u8; 2] = [0xc0, 12];

/// A message on its way.
#[derive(Clone)]
struct Message(Vec<u8>);

impl Message {
    /// A query, or with records an answer, in which `counts` are the numbers of its sections.
    fn new(flags: u16, counts: [u16; 4], question: &[u8]) -> Self {
        let mut out: Vec<u8> = [7, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect();
        out.extend(question);
        Self(out)
    }

    fn query(name: &str, kind: u16) -> Self {
        Self::new(0x0100, [1, 0, 0, 0], &question(name, kind))
    }

    fn answer(name: &str, kind: u16, records: &[Vec<u8>]) -> Self {
        let mut out = Self::new(0x8180, [1, records.len() as u16, 0, 0], &question(name, kind));
        out.0.extend(records.concat());
        out
    }
}

fn wire(name: &str) -> Vec<u8> {
    let labels =
        name.split_terminator('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    [&wire(name)[..], &kind.to_be_bytes(), &[0, 1]].concat()
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let head = [kind.to_be_bytes(), [0, 1]].concat();
    [owner, &head, &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}

fn address(owner: &[u8], text: &str, ttl: u32) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => record(owner, A, ttl, &v4.octets()),
        IpAddr::V6(v6) => record(owner, AAAA, ttl, &v6.octets()),
    }
}

fn read(asked: &Message, answer: &Message) -> Result<Answer, BadAnswer> {
    Answer::read(&answer.0, &Query::read(&asked.0).unwrap())
}

/// The addresses of an answer for `www.a.io`, with their times.
fn addresses(records: &[Vec<u8>]) -> Vec<String> {
    let answer = read(&Message::query("www.a.io", A), &Message::answer("www.a.io", A, records)).unwrap();
    answer.addresses.iter().map(|(address, ttl)| format!("{address} {ttl}")).collect()
}

#[test]
fn names_that_are_loops_too_long_or_of_an_unknown_kind_are_refused() {
    let long: Vec<u8> = (0..4).flat_map(|_| [&[63][..], &[b'a'; 63]].concat()).chain([0]).collect();
    let names: [&[u8]; 8] = [
        // A pointer to itself, to what follows, and to the end; a label that reaches behind the end.
        &[0xc0, 12],
        &[1, b'a', 0xc0, 12],
        &[0xc0, 40, 0, 0, 0, 0, 0, 0],
        &[0xff, 0xff],
        &[63, b'a', 0],
        // Label types that are not in use.
        &[0x41, b'a', 0],
        &[0x81, b'a', 0],
        &long,
    ];
    for name in names {
        let bytes = [name, &[0, 1, 0, 1]].concat();
        let query = Query::read(&Message::new(0x0100, [1, 0, 0, 0], &bytes).0);
        assert!(matches!(query, Err(BadQuery::Malformed(_))), "{name:?}: {query:?}");
        let mut answer = Message::answer("www.a.io", A, &[address(&ASKED, "198.51.100.1", 60)]);
        answer.0[7] = 2;
        answer.0.extend(record(name, A, 60, &[198, 51, 100, 2]));
        let found = read(&Message::query("www.a.io", A), &answer);
        // A pointer backwards is a name, whatever it is of.
        let is_name = name.ends_with(&[0xc0, 12]);
        assert_eq!(found.is_ok(), is_name, "{name:?}: {found:?}");
    }
}

#[test]
fn the_longest_name_is_learned_and_all_names_are_bounded() {
    let label = "a".repeat(61);
    let longest = format!("{label}.{label}.{label}.{}.a.io", "b".repeat(253 - 3 * 62 - 5));
    assert_eq!(longest.len(), 253);
    let query = Query::read(&Message::query(&longest, A).0).unwrap();
    assert_eq!(query.name().unwrap().as_str(), longest);
    // What is no host name is never that of a rule. A wildcard that is asked for is a name like any other.
    let is_host = |name: &str| Query::read(&Message::query(name, A).0).unwrap().name();
    assert_eq!(is_host("b\u{fc}cher.a.io"), None);
    assert_eq!(is_host("a b.a.io"), None);
    assert_eq!(is_host("a\0.a.io"), None);
    assert_eq!(is_host("XN--Bcher-Kva.A.io").unwrap().as_str(), "xn--bcher-kva.a.io");
    let patterns: Patterns = [DomainPattern::new("*.a.io")].into_iter().collect();
    assert!(!patterns.matches(&DomainName::new("a.io").unwrap()));
}

#[test]
fn a_message_that_claims_or_holds_too_much_costs_little() {
    let begin = Instant::now();
    for section in 0..4 {
        let mut counts = [1, 0, 0, 0];
        counts[section] = u16::MAX;
        for flags in [0x0100, 0x8180] {
            let message = Message::new(flags, counts, &question("www.a.io", A));
            assert!(Query::read(&message.0).is_err());
            assert!(read(&Message::query("www.a.io", A), &message).is_err());
        }
    }
    // As many records as fit, each with a name of 127 labels that a pointer stands for.
    let deep = vec!["a"; 126].join(".");
    let asked = Message::query(&deep, A);
    let one = address(&ASKED, "198.51.100.1", 60);
    let number = (MAX_MESSAGE - asked.0.len()) / one.len();
    let full = Message::answer(&deep, A, &vec![one; number]);
    assert!(number > 4_000);
    assert_eq!(read(&asked, &full).unwrap().addresses.len(), 1);
    let alias = record(&ASKED, CNAME, 60, &ASKED);
    let loops = Message::answer(&deep, A, &vec![alias; number]);
    assert!(matches!(read(&asked, &loops), Err(BadAnswer::Records(_))));
    // Less than a second of a processor, which others may need.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn options_of_edns_are_read_and_may_be_there_once() {
    let option = [&[0][..], &OPT.to_be_bytes(), &[0x10, 0, 0, 0, 0x80, 0, 0, 0]].concat();
    let with = |message: &Message, options: usize| {
        let mut out = message.clone();
        out.0[11] = options as u8;
        (0..options).for_each(|_| out.0.extend(&option));
        out
    };
    let (query, answer) = (Message::query("www.a.io", A), Message::answer("www.a.io", A, &[]));
    assert!(Query::read(&with(&query, 1).0).unwrap().asks_for_addresses());
    assert!(matches!(Query::read(&with(&query, 2).0), Err(BadQuery::Malformed(_))));
    assert!(read(&query, &with(&answer, 1)).is_ok());
    assert!(read(&query, &with(&answer, 2)).is_err());
}

#[test]
fn a_subtree_that_is_elsewhere_leads_to_addresses_by_the_alias_that_stands_for_it() {
    let moved = record(&wire("a.io"), DNAME, 300, &wire("b.net"));
    let alias = record(&ASKED, CNAME, 30, &wire("www.b.net"));
    let there = address(&wire("www.b.net"), "198.51.100.1", 60);
    assert_eq!(addresses(&[moved.clone(), alias, there.clone()]), ["198.51.100.1 30"]);
    assert!(addresses(&[moved, there]).is_empty(), "no client follows it without the alias");
}

#[test]
fn times_are_bounded_whatever_an_answer_says() {
    assert_eq!(addresses(&[address(&ASKED, "198.51.100.1", u32::MAX)]), ["198.51.100.1 4294967295"]);
    let alias = record(&ASKED, CNAME, 0, &wire("b.net"));
    assert_eq!(addresses(&[alias, address(&wire("b.net"), "198.51.100.1", 1 << 31)]), ["198.51.100.1 0"]);
    let mut learned = LearnedNames::new(LearnLimits::default());
    let patterns: Patterns = [DomainPattern::new("*.io")].into_iter().collect();
    for (ttl, expected) in [(0, 1_035), (1, 1_035), (60, 1_090), (1 << 31, 605_830), (u32::MAX, 605_830)] {
        let name = DomainName::new(&format!("t{ttl}.io")).unwrap();
        let of_answer = [(IpAddr::from([198, 51, 100, 1]), ttl)];
        let rules = (&patterns, &Learnable::default());
        learned.learn(&name, &ObjectKey::new("shop", "web"), &of_answer, rules, 1_000);
        assert_eq!(learned.next_expiry(), Some(expected), "{ttl}");
        learned.expire(expected, |_| false);
    }
}

/// By an alias, a hint or a translator.
#[test]
fn no_way_leads_to_addresses_within() {
    let cluster = ["203.0.113.0/24".parse().unwrap()].into();
    let learnable = Learnable::new(Vec::new(), cluster, BTreeSet::new());
    let within = [
        ("127.0.0.1", NotLearnable::Loopback),
        ("10.96.0.1", NotLearnable::Private),
        ("203.0.113.7", NotLearnable::Cluster),
        ("169.254.169.254", NotLearnable::LinkLocal),
        ("100.100.100.200", NotLearnable::Private),
        ("192.0.0.192", NotLearnable::Private),
        ("168.63.129.16", NotLearnable::Platform),
        ("0.0.0.0", NotLearnable::Special),
        ("::ffff:169.254.169.254", NotLearnable::LinkLocal),
        ("64:ff9b::a9fe:a9fe", NotLearnable::LinkLocal),
        ("64:ff9b::10.0.0.1", NotLearnable::Private),
        ("64:ff9b:1::169.254.169.254", NotLearnable::LinkLocal),
        ("2002:a9fe:a9fe::1", NotLearnable::LinkLocal),
        ("fd00:ec2::254", NotLearnable::Private),
        ("fd20:ce::254", NotLearnable::Private),
    ];
    let (mut learned, pod) = (LearnedNames::new(LearnLimits::default()), ObjectKey::new("shop", "web"));
    let patterns: Patterns = [DomainPattern::new("*.a.io")].into_iter().collect();
    for (text, why) in within {
        let target = wire("gateway.internal");
        let by_alias = vec![record(&ASKED, CNAME, 60, &target), address(&target, text, 60)];
        // A service without name, with one hint.
        let (key, octets) = match text.parse().unwrap() {
            IpAddr::V4(v4) => (4, v4.octets().to_vec()),
            IpAddr::V6(v6) => (6, v6.octets().to_vec()),
        };
        let by_hint =
            record(&ASKED, HTTPS, 60, &[&[0, 1, 0, 0, key, 0, octets.len() as u8], &octets[..]].concat());
        for (kind, records) in [(A, by_alias.clone()), (AAAA, by_alias), (HTTPS, vec![by_hint])] {
            let answer = Message::answer("www.a.io", kind, &records);
            let answer = read(&Message::query("www.a.io", kind), &answer).unwrap();
            let name = DomainName::new("www.a.io").unwrap();
            let outcome = learned.learn(&name, &pod, &answer.addresses, (&patterns, &learnable), 0);
            assert_eq!(outcome.refused, [(text.parse().unwrap(), why)], "{text}");
        }
    }
    assert_eq!((learned.names(), learned.addresses()), (0, 0));
}

/// Who forges answers guesses ids and ports. None that is wrong is taken, and the right one still is.
#[test]
fn an_answer_survives_any_number_of_forgeries() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (client, server) = (at("10.244.1.2:40000"), at("10.96.0.10:53"));
    let mut exchanges = Exchanges::new(ExchangeLimits::default(), [server]);
    let pod = ObjectKey::new("shop", "web");
    exchanges.ask(&pod, Ends::udp(client, server), &Message::query("www.a.io", A).0, 0).unwrap();
    let right = Message::answer("www.a.io", A, &[address(&ASKED, "198.51.100.1", 60)]);
    for id in (0..=u16::MAX).filter(|id| *id != 7) {
        let mut forged = right.clone();
        forged.0[..2].copy_from_slice(&id.to_be_bytes());
        assert_eq!(exchanges.answer(Ends::udp(client, server), &forged.0, 1), Ok(None));
    }
    for port in (1..=u16::MAX).filter(|port| *port != client.port()) {
        let ends = Ends::udp(SocketAddr::new(client.ip(), port), server);
        assert_eq!(exchanges.answer(ends, &right.0, 1), Ok(None));
    }
    // The id and the port are right, and the question is another: another name, kind or class, or none.
    let mut class = right.clone();
    class.0[12 + 10 + 3] = 3;
    let mut none = Message::new(0x8180, [0, 1, 0, 0], &[]);
    none.0.extend(address(&wire("www.a.io"), "198.51.100.9", 60));
    let wrong = [
        Message::answer("wwx.a.io", A, &[address(&ASKED, "198.51.100.9", 60)]),
        Message::answer("www.a.io", AAAA, &[address(&ASKED, "198.51.100.9", 60)]),
        class,
        none,
    ];
    for forged in wrong.iter().cycle().take(4_000) {
        assert_eq!(exchanges.answer(Ends::udp(client, server), &forged.0, 1), Err(BadAnswer::Question));
    }
    // The case of letters is no part of the name: some resolvers mix it.
    let mixed = Message::answer("wWw.A.iO", A, &[address(&ASKED, "198.51.100.1", 60)]);
    let (asked, answer) = exchanges.answer(Ends::udp(client, server), &mixed.0, 2).unwrap().unwrap();
    assert_eq!((asked.query.name().unwrap().as_str(), answer.addresses.len()), ("www.a.io", 1));
    assert_eq!(exchanges.answer(Ends::udp(client, server), &right.0, 3), Ok(None), "once");
}

//! What the DNS proxy reads: queries of pods, answers of servers, the file of learned names.

use std::net::SocketAddr;

use palisade_dns::{
    BadState, ExchangeLimits, Exchanges, Frames, LearnLimits, Learnable, LearnedNames, Patterns, Query,
    decode, encode,
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
    let pod = ObjectKey::new("shop", "web");
    let mut exchanges = Exchanges::new(ExchangeLimits::default(), [server]);
    let asked = exchanges.ask(&pod, client, server, query, 0).is_ok();
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
        let Ok(Some((asked, answer))) = exchanges.answer(client, server, message, 1) else { continue };
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
    let file = encode(&learned).expect("JSON");
    let again = decode(&file, *learned.limits(), 1_000).expect("what was written");
    assert_eq!(again.all_changes(), learned.all_changes(), "written and read again");
}

/// A file, and its content with a right checksum, so that the content is reached. What is read is within the bounds and is
/// written as it was read.
pub fn state(data: &[u8]) {
    let limits = LearnLimits { names: 50, addresses: 200, ..LearnLimits::default() };
    let check = |file: &[u8]| {
        let Ok(learned) = decode(file, limits, 1_000) else { return };
        assert!(learned.names() <= 50 && learned.addresses() <= 200);
        assert!(learned.next_expiry().is_none_or(|next| next > 1_000));
        let again = decode(&encode(&learned).expect("JSON"), limits, 1_000);
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

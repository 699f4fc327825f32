//! The messages of the lab's DNS servers.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NULL},
    },
};
use palisade_policy::{DomainName, Family};

use super::zones::{Forgery, Resolved, ZoneName, Zones};

/// The longest answer over UDP to clients that don't ask for more (RFC 1035, section 4.2.1).
const MAX_UDP: usize = 512;

/// What a server sends for one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// How long it waits before.
    pub(super) delay: Duration,
    /// Forged answers that it sends first, over UDP.
    pub(super) forged: Vec<(Forgery, Vec<u8>)>,
    /// The answer.
    pub(super) answer: Vec<u8>,
    /// Whether the answer has an address, so that the next one has the next address.
    pub(super) has_turn: bool,
}

/// Returns the reply to a query, the `turn`th of its client for its name. `None` if servers don't answer it.
pub(super) fn reply(zones: &Zones, query: &[u8], turn: usize, over_tcp: bool) -> Option<Reply> {
    let query = Message::from_vec(query).ok().filter(|m| m.metadata.message_type == MessageType::Query)?;
    let [question] = &query.queries[..] else { return None };
    let question = question.clone();
    let name = domain_name(&question.name)?;
    let family = match question.query_type {
        RecordType::A => Some(Family::V4),
        RecordType::AAAA => Some(Family::V6),
        _ => None,
    };
    let zone = zones.zone_of(&name);
    let resolved = family.map(|family| zones.resolve(&name, family)).unwrap_or_default();
    if resolved.silent {
        return None;
    }
    let ttl = zone.map_or(1, |zone| zone.ttl);
    let mut answer = query.into_response();
    answer.metadata.recursion_available = true;
    let is_truncated = zone.is_some_and(|zone| zone.truncated) && !over_tcp;
    if is_truncated {
        answer.metadata.truncation = true;
    } else {
        add_records(&mut answer, &resolved, turn, ttl)?;
    }
    let mut bytes = answer.to_vec().ok()?;
    if bytes.len() > MAX_UDP && !over_tcp {
        answer.answers.clear();
        answer.metadata.truncation = true;
        bytes = answer.to_vec().ok()?;
    }
    let has_turn = !answer.metadata.truncation && !resolved.addresses.is_empty();
    let forged = zone.filter(|_| !over_tcp).map(|zone| forged(zone, &answer, &question));
    let delay = zone.map_or(Duration::ZERO, |zone| zone.delay);
    Some(Reply { delay, forged: forged.unwrap_or_default(), answer: bytes, has_turn })
}

/// Returns whether clients have to ask over TCP.
pub(super) fn is_truncated(zones: &Zones, name: &DomainName, family: Family) -> bool {
    let kind = if family == Family::V4 { RecordType::A } else { RecordType::AAAA };
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    let Some(wire) = wire_name(name) else { return false };
    message.add_query(Query::query(wire, kind));
    let answer = message.to_vec().ok().and_then(|query| reply(zones, &query, 0, false));
    let answer = answer.and_then(|reply| Message::from_vec(&reply.answer).ok());
    answer.is_some_and(|answer| answer.metadata.truncation)
}

fn add_records(answer: &mut Message, resolved: &Resolved, turn: usize, ttl: u32) -> Option<()> {
    if resolved.missing {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    for (of, target, subtree) in &resolved.aliases {
        if let Some(subtree) = subtree {
            answer.add_answer(dname(subtree, of, target, ttl)?);
        }
        let data = RData::CNAME(CNAME(wire_name(target)?));
        answer.add_answer(Record::from_rdata(wire_name(of)?, ttl, data));
    }
    if let Some((end, ttl)) = &resolved.end {
        let all = &resolved.addresses;
        let chosen: Vec<IpAddr> = match all.len() {
            0 => Vec::new(),
            count if resolved.rotate => vec![all[turn % count]],
            // Every answer begins with another one.
            count => all.iter().cycle().skip(turn % count).take(count).copied().collect(),
        };
        for address in chosen {
            answer.add_answer(address_record(wire_name(end)?, *ttl, address));
        }
    }
    Some(())
}

/// Returns the record of a subtree in which `of` is another name for `target`.
fn dname(subtree: &DomainName, of: &DomainName, target: &DomainName, ttl: u32) -> Option<Record> {
    let below = of.as_str().strip_suffix(subtree.as_str())?;
    let target = wire_name(&DomainName::new(target.as_str().strip_prefix(below)?)?)?;
    // Uncompressed (RFC 6672, section 2.5): labels with their lengths, and the root.
    let mut bytes = Vec::new();
    for label in &target {
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label);
    }
    bytes.push(0);
    let data = RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(bytes) };
    Some(Record::from_rdata(wire_name(subtree)?, ttl, data))
}

fn address_record(name: Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name, ttl, data)
}

/// Returns the forged answers of a name: as the right one, but with the forged addresses.
fn forged(zone: &ZoneName, answer: &Message, question: &Query) -> Vec<(Forgery, Vec<u8>)> {
    let message = |forgery: &Forgery| {
        let mut forged = answer.clone();
        forged.metadata.truncation = false;
        forged.metadata.response_code = ResponseCode::NoError;
        let mut name = question.name.clone();
        match forgery {
            Forgery::WrongId => forged.metadata.id = forged.metadata.id.wrapping_add(1),
            Forgery::OtherQuestion => {
                name = name.prepend_label("other").ok()?;
                forged.queries[0].name = name.clone();
            }
            Forgery::OtherSource => {}
        }
        let is_asked = |address: &&IpAddr| address.is_ipv4() == (question.query_type == RecordType::A);
        let addresses = zone.forged_addresses.iter().filter(is_asked);
        forged.answers = addresses.map(|address| address_record(name.clone(), 600, *address)).collect();
        Some((*forgery, forged.to_vec().ok()?))
    };
    zone.forged.iter().filter_map(message).collect()
}

/// Returns a name of a message as a host name; `None` if it is none.
pub(super) fn domain_name(name: &Name) -> Option<DomainName> {
    DomainName::new(&name.to_ascii())
}

/// Returns a host name as a message has it.
pub(super) fn wire_name(name: &DomainName) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::zones::Records, *};

    fn name(text: &str) -> DomainName {
        DomainName::new(text).unwrap()
    }

    fn query(text: &str) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(text).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn zones() -> Zones {
        let addresses = |texts: &[&str], rotate| Records::Addresses {
            addresses: texts.iter().map(|text| text.parse().unwrap()).collect(),
            rotate,
        };
        let big: Vec<String> = (0..60).map(|n| format!("192.0.2.{n}")).collect();
        let big: Vec<&str> = big.iter().map(String::as_str).collect();
        let liar = ZoneName {
            forged: Forgery::ALL.into(),
            forged_addresses: vec!["192.0.2.66".parse().unwrap()],
            ..ZoneName::new(addresses(&["192.0.2.1"], false))
        };
        let names = [
            ("turn.io", ZoneName::new(addresses(&["192.0.2.1", "192.0.2.2"], true))),
            ("old.io", ZoneName::new(Records::Subtree(name("new.example")))),
            ("a.new.example", ZoneName::new(addresses(&["192.0.2.3"], false))),
            ("big.io", ZoneName::new(addresses(&big, false))),
            ("liar.io", liar),
            ("silent.io", ZoneName::new(Records::Silence)),
        ];
        Zones { names: names.map(|(of, zone)| (name(of), zone)).into(), ..Zones::default() }
    }

    fn answered(of: &str, turn: usize, over_tcp: bool) -> Message {
        Message::from_vec(&reply(&zones(), &query(of), turn, over_tcp).unwrap().answer).unwrap()
    }

    #[test]
    fn addresses_take_turns() {
        let data = |turn| answered("turn.io.", turn, false).answers[0].data.to_string();
        assert_eq!([data(0), data(1), data(2)], ["192.0.2.1", "192.0.2.2", "192.0.2.1"]);
    }

    #[test]
    fn a_subtree_comes_with_the_alias_that_it_stands_for() {
        let answer = answered("A.old.io.", 0, false);
        let kinds: Vec<String> = answer.answers.iter().map(|r| r.record_type().to_string()).collect();
        assert_eq!(kinds, ["DNAME", "CNAME", "A"]);
        let RData::Unknown { rdata, .. } = &answer.answers[0].data else { panic!("{answer}") };
        assert_eq!(rdata.anything, b"\x03new\x07example\x00");
        assert_eq!(answer.answers[2].name.to_ascii(), "a.new.example.");
    }

    #[test]
    fn an_answer_that_is_too_long_for_udp_is_truncated() {
        let (udp, tcp) = (answered("big.io.", 0, false), answered("big.io.", 0, true));
        assert!(udp.metadata.truncation && udp.answers.is_empty());
        assert!(!tcp.metadata.truncation && tcp.answers.len() == 60);
        assert_eq!(answered("none.io.", 0, false).metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply(&zones(), &query("silent.io."), 0, false), None);
    }

    #[test]
    fn forged_answers_differ_from_the_right_one_as_they_say() {
        let reply = reply(&zones(), &query("liar.io."), 0, false).unwrap();
        let forged: Vec<Message> = reply.forged.iter().map(|(_, m)| Message::from_vec(m).unwrap()).collect();
        assert_eq!(forged.iter().map(|m| m.metadata.id).collect::<Vec<_>>(), [8, 7, 7]);
        assert_eq!(forged[1].queries[0].name.to_ascii(), "other.liar.io.");
        assert!(forged.iter().all(|m| m.answers[0].data.to_string() == "192.0.2.66"));
    }
}

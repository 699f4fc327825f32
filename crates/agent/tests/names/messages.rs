//! DNS messages.

use std::net::IpAddr;

/// Makes a query for the addresses of a name: A for family 0, else AAAA.
pub(crate) fn query(id: [u8; 2], name: &str, family: usize) -> Vec<u8> {
    let mut query = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, if family == 0 { 1 } else { 28 }, 0, 1]);
    query
}

/// Returns the family that a query asks for.
pub(crate) fn family(query: &[u8]) -> usize {
    usize::from(query[query.len() - 3] == 28)
}

/// Whether the first label begins with `big`: the answer doesn't fit into UDP.
pub(crate) fn is_big(query: &[u8]) -> bool {
    query[13..].starts_with(b"big")
}

/// Makes an answer to a query that says it didn't fit.
pub(crate) fn truncated(query: &[u8]) -> Vec<u8> {
    [&query[..2], &[0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], &query[12..]].concat()
}

/// Makes an answer whose last record has the address and a time to live of one second. A big one has 60 kB of other records before.
pub(crate) fn answer(query: &[u8], address: IpAddr) -> Vec<u8> {
    let texts: u16 = if is_big(query) { 225 } else { 0 };
    let count = (texts + 1).to_be_bytes();
    let mut out = [&query[..2], &[0x81, 0x80, 0, 1], &count, &[0, 0, 0, 0], &query[12..]].concat();
    for _ in 0..texts {
        out.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 1, 1, 0, 255]);
        out.extend([b'x'; 255]);
    }
    out.extend([0xc0, 12, 0, if address.is_ipv4() { 1 } else { 28 }, 0, 1, 0, 0, 0, 1, 0]);
    match address {
        IpAddr::V4(a) => out.extend([&[4][..], &a.octets()].concat()),
        IpAddr::V6(a) => out.extend([&[16][..], &a.octets()].concat()),
    }
    out
}

/// Returns the address in the last record of an answer; `None` if it is truncated.
pub(crate) fn address(answer: &[u8], family: usize) -> Option<IpAddr> {
    if answer[2] & 2 != 0 {
        return None;
    }
    Some(match family {
        0 => IpAddr::from(*answer.last_chunk::<4>().unwrap()),
        _ => IpAddr::from(*answer.last_chunk::<16>().unwrap()),
    })
}

//! nf_tables messages. Numbers are those of `linux/netfilter/nfnetlink.h` and `nf_tables.h`.

use std::{borrow::Cow, net::IpAddr};

use palisade_policy::{Family, address};
use sha2::{Digest, Sha256};

use super::{attributes::Attributes, expressions};
use crate::{
    conntrack::{OPENER_COMMENT, REMEMBERED, REMEMBERED_MOST},
    ruleset::{Element, Key, Message, Rule, Set, TABLE},
};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NFPROTO_INET`, `NFPROTO_BRIDGE`.
const INET: u8 = 1;
const BRIDGE: u8 = 7;

/// `NLM_F_*`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;

/// `NFT_MSG_*`.
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const DELOBJ: u16 = 20;
const DELFLOWTABLE: u16 = 24;

/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_ELEM_INTERVAL_END`.
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
/// `NFT_SET_TIMEOUT | NFT_SET_EVAL`: elements expire, and the set is no part of the plan.
const SET_DYNAMIC: u32 = 0x10 | 0x20;
const INTERVAL_END: u32 = 1;

/// `NFT_DATA_VERDICT`: the data type of a verdict map.
const VERDICT_DATA: u32 = 0xffff_ff00;

/// What the `nft` program writes beside a table, chain or set to remember what the kernel has no field for
/// (libnftnl `udata.h`): the comment of a table or chain, the byte order of a set's keys.
const COMMENT: u8 = 0;
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// `NFT_USERDATA_MAXLEN` is 256; the `nft` program stops at 128.
const LONGEST_COMMENT: usize = 120;

/// How often the kernel walks a set for expired elements. Its default, a second, is for time-outs of seconds.
const GC_INTERVAL_MS: u32 = 60_000;

/// A message as bytes, still without its sequence number.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    /// What it is about.
    pub(crate) message: Message,
}

impl Encoded {
    /// How many bytes it takes in a batch.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends it to a batch.
    pub(crate) fn append(&self, batch: &mut Vec<u8>, sequence: u32, acknowledge: bool) {
        let start = batch.len();
        batch.extend_from_slice(&self.bytes);
        batch[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        if acknowledge {
            let flags = u16::from_ne_bytes([batch[start + 6], batch[start + 7]]) | ACK;
            batch[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// Encodes one message about our table.
pub(crate) fn encode(message: Message) -> Encoded {
    encode_in(TABLE, message)
}

/// Encodes one message about a table of the family `inet`, or `bridge` where the message says so, with this name.
pub(crate) fn encode_in(table: &str, message: Message) -> Encoded {
    let family = if matches!(message, Message::Bridged(_)) { BRIDGE } else { INET };
    let (kind, flags) = kind_and_flags(&message);
    let mut out = header((NFTABLES << 8) | kind, REQUEST | flags, family, 0);
    body(&mut out, table, &message);
    Encoded { bytes: finish(out), message }
}

fn kind_and_flags(message: &Message) -> (u16, u16) {
    match message {
        Message::CreateTable => (NEWTABLE, CREATE),
        Message::WakeTable => (NEWTABLE, 0),
        Message::DeleteTable => (DELTABLE, 0),
        Message::CreateSet(_) => (NEWSET, CREATE | EXCLUSIVE),
        Message::DeleteSet(_) => (DELSET, 0),
        Message::AddElements(..) => (NEWSETELEM, CREATE),
        Message::RemoveElements(..) => (DELSETELEM, 0),
        Message::CreateChain(_) => (NEWCHAIN, CREATE | EXCLUSIVE),
        Message::AddRule(..) => (NEWRULE, CREATE | APPEND),
        Message::FlushChain(_) => (DELRULE, 0),
        Message::DeleteChain(_) => (DELCHAIN, 0),
        Message::DeleteObject(..) => (DELOBJ, 0),
        Message::DeleteFlowTable(_) => (DELFLOWTABLE, 0),
        Message::Bridged(message) => kind_and_flags(message),
    }
}

/// `NFNL_MSG_BATCH_BEGIN`.
pub(crate) fn batch_begin(sequence: u32) -> Vec<u8> {
    limit(0x10, sequence)
}

/// `NFNL_MSG_BATCH_END`.
pub(crate) fn batch_end(sequence: u32) -> Vec<u8> {
    limit(0x11, sequence)
}

fn limit(kind: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = finish(header(kind, REQUEST, 0, NFTABLES));
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// A netlink header whose length is still to be written, and the `nfgenmsg` behind it.
pub(crate) fn header(kind: u16, flags: u16, family: u8, resource: u16) -> Attributes {
    let mut out = Attributes::default();
    out.raw(&[0; 4]).raw(&kind.to_ne_bytes()).raw(&flags.to_ne_bytes()).raw(&[0; 8]);
    out.raw(&[family, 0]).raw(&resource.to_be_bytes());
    out
}

/// Writes the length into the header.
pub(crate) fn finish(out: Attributes) -> Vec<u8> {
    let mut bytes = out.into_bytes();
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

/// The kernel expressions of a rule, as a list of attributes.
pub(crate) fn rule_expressions(rule: &Rule) -> Vec<u8> {
    let mut out = Attributes::default();
    expressions::rule(&mut out, rule);
    out.into_bytes()
}

/// The attributes of a message, for the reader to compare with what the kernel lists.
pub(crate) fn attributes_of(message: &Message) -> Vec<u8> {
    let mut out = Attributes::default();
    body(&mut out, TABLE, message);
    out.into_bytes()
}

/// A digest of what rules say: chains are named by it. Stable as long as the encoding of the rules is. Each rule goes in
/// behind its length, so different rules are different inputs; 128 bits of a SHA-256 leave a collision out of reach, and
/// [`crate::registry`] compares what has one name.
pub(crate) fn rules_digest(rules: &[Rule]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for rule in rules {
        let mut out = Attributes::default();
        out.nest(1, |e| expressions::rule(e, rule));
        hash.update(out.into_bytes());
    }
    first_half(hash)
}

/// The first 128 bits of a digest.
pub(crate) fn first_half(hash: Sha256) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

fn body(out: &mut Attributes, table: &str, message: &Message) {
    // NFTA_*_TABLE and NFTA_TABLE_NAME are all 1.
    out.text(1, table);
    body_after_table(out, message);
}

fn body_after_table(out: &mut Attributes, message: &Message) {
    match message {
        Message::CreateTable => {
            out.put(6, &user_data(COMMENT, crate::base::TABLE_COMMENT));
        }
        Message::WakeTable => {
            // NFTA_TABLE_FLAGS: none.
            out.number(2, 0);
        }
        Message::DeleteTable => {}
        Message::CreateSet(set) => create_set(out, set),
        Message::DeleteSet(name) => {
            out.text(2, name);
        }
        Message::AddElements(set, elements) => {
            out.text(2, &set.name).nest(3, |list| elements.iter().for_each(|e| element(list, e, true)));
        }
        Message::RemoveElements(set, elements) => {
            out.text(2, &set.name).nest(3, |list| elements.iter().for_each(|e| element(list, e, false)));
        }
        Message::CreateChain(chain) => {
            out.text(3, &chain.name);
            if let Some(hook) = chain.hook {
                // NFTA_CHAIN_HOOK { HOOKNUM, PRIORITY }, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE
                out.nest(4, |h| {
                    h.number(1, crate::base::hook_number(hook));
                    h.put(2, &crate::base::hook_priority(hook).to_be_bytes());
                });
                out.number(5, 1).text(7, "filter");
            }
            if let Some(comment) = &chain.comment {
                out.put(12, &user_data(COMMENT, comment));
            }
        }
        Message::AddRule(chain, index) => {
            out.text(2, &chain.name).nest(4, |list| expressions::rule(list, &chain.rules[*index]));
        }
        Message::FlushChain(name) => {
            out.text(2, name);
        }
        Message::DeleteChain(name) => {
            out.text(3, name);
        }
        Message::Bridged(message) => body_after_table(out, message),
        Message::DeleteObject(kind, name) => {
            out.text(2, name).number(3, *kind);
        }
        Message::DeleteFlowTable(name) => {
            out.text(2, name);
        }
    }
}

fn create_set(out: &mut Attributes, set: &Set) {
    /// nftables' own numbers of the types, kept by the kernel for it (`datatype.h`); a pair is two of six bits each.
    const IPV4: u32 = 7;
    const IPV6: u32 = 8;
    const PROTOCOL: u32 = 12;
    const SERVICE: u32 = 13;
    const MARK: u32 = 19;
    const INTERFACE: u32 = 20;
    let (kind, length, order) = match set.key {
        Key::Address(Family::V4) => (IPV4, 4, NETWORK_ORDER),
        Key::Address(Family::V6) => (IPV6, 16, NETWORK_ORDER),
        Key::Pair(Family::V4) => ((IPV4 << 6) | IPV4, 8, NETWORK_ORDER),
        Key::Pair(Family::V6) => ((IPV6 << 6) | IPV6, 32, NETWORK_ORDER),
        Key::ThreeTuple(Family::V4) => ((((IPV4 << 6) | IPV4) << 6) | PROTOCOL, 12, NETWORK_ORDER),
        Key::ThreeTuple(Family::V6) => ((((IPV6 << 6) | IPV6) << 6) | PROTOCOL, 36, NETWORK_ORDER),
        Key::FiveTuple(Family::V4) => {
            ((((((((IPV4 << 6) | IPV4) << 6) | PROTOCOL) << 6) | SERVICE) << 6) | SERVICE, 20, NETWORK_ORDER)
        }
        Key::FiveTuple(Family::V6) => {
            ((((((((IPV6 << 6) | IPV6) << 6) | PROTOCOL) << 6) | SERVICE) << 6) | SERVICE, 44, NETWORK_ORDER)
        }
        Key::Port => (SERVICE, 2, NETWORK_ORDER),
        Key::Number => (MARK, 4, HOST_ORDER),
        Key::Interface => (INTERFACE, 4, HOST_ORDER),
        Key::InterfacePair => ((INTERFACE << 6) | INTERFACE, 8, HOST_ORDER),
        Key::Protocol => (PROTOCOL, 1, NETWORK_ORDER),
    };
    let mut flags = if set.intervals { SET_INTERVAL } else { 0 } | if set.verdicts { SET_MAP } else { 0 };
    if set.content.expires() {
        flags |= SET_DYNAMIC;
    }
    out.text(2, &set.name).number(3, flags).number(4, kind).number(5, length);
    if set.verdicts {
        out.number(6, VERDICT_DATA);
    }
    if set.content.expires() {
        // NFTA_SET_DESC { NFTA_SET_DESC_SIZE }, NFTA_SET_TIMEOUT and NFTA_SET_GC_INTERVAL in milliseconds.
        out.nest(9, |d| {
            d.number(1, REMEMBERED_MOST);
        });
        out.put(11, &(REMEMBERED.as_millis() as u64).to_be_bytes()).number(12, GC_INTERVAL_MS);
    }
    // The kernel wants an id even where nothing refers to it.
    out.number(10, 1);
    let mut data = vec![KEY_BYTE_ORDER, 4];
    data.extend_from_slice(&order.to_ne_bytes());
    out.put(13, &data);
}

/// A comment as the kernel gets it.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_COMMENT {
        return text.into();
    }
    let end = (0..=LONGEST_COMMENT - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end]).into()
}

fn user_data(kind: u8, text: &str) -> Vec<u8> {
    let text = shortened(text);
    let mut out = vec![kind, text.len() as u8 + 1];
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out
}

/// One element; the data of a map element is left out where it is removed.
fn element(list: &mut Attributes, element: &Element, with_data: bool) {
    match element {
        Element::Address(a) => key(list, &octets(*a), false),
        Element::Itself(a) => key(list, &[octets(*a), octets(*a)].concat(), false),
        Element::Revoked(tuple, is_opener) => {
            list.nest(expressions::LIST_ELEMENT, |e| {
                e.nest(1, |k| {
                    k.put(expressions::DATA_VALUE, &tuple.key());
                });
                if with_data && *is_opener {
                    // NFTA_SET_ELEM_USERDATA
                    e.put(6, &user_data(COMMENT, OPENER_COMMENT));
                }
            });
        }
        Element::Number(n) | Element::Interface(n) => key(list, &n.to_ne_bytes(), false),
        Element::SameInterface(n) => key(list, &n.to_ne_bytes().repeat(2), false),
        Element::Port(port) => key(list, &port.to_be_bytes(), false),
        Element::Protocol(number) => key(list, &[*number], false),
        Element::Ports(first, last) => {
            key(list, &first.to_be_bytes(), false);
            if let Some(after) = last.checked_add(1) {
                key(list, &after.to_be_bytes(), true);
            }
        }
        Element::Range(range) => {
            key(list, &octets(range.first), false);
            // An interval ends at a marker behind its last address; one that reaches the end of the space has none.
            let (family, last) = (Family::of(range.last), address::to_number(range.last));
            if last < address::max_number(family) {
                key(list, &octets(address::from_number(family, last + 1)), true);
            }
        }
        Element::Jump(a, chain) => jump(list, &octets(*a), chain, with_data),
        Element::JumpItself(a, chain) => jump(list, &[octets(*a), octets(*a)].concat(), chain, with_data),
    }
}

fn jump(list: &mut Attributes, key: &[u8], chain: &str, with_data: bool) {
    list.nest(expressions::LIST_ELEMENT, |e| {
        e.nest(1, |k| {
            k.put(expressions::DATA_VALUE, key);
        });
        if with_data {
            e.nest(2, |d| expressions::jump(d, chain));
        }
    });
}

fn key(list: &mut Attributes, bytes: &[u8], end: bool) {
    list.nest(expressions::LIST_ELEMENT, |e| {
        if end {
            e.number(3, INTERVAL_END);
        }
        e.nest(1, |k| {
            k.put(expressions::DATA_VALUE, bytes);
        });
    });
}

fn octets(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Which element of an encoded element message lies at `offset` bytes from the start of its netlink header.
pub(crate) fn element_at(message: &Message, offset: usize) -> Option<usize> {
    let message = if let Message::Bridged(inner) = message { inner } else { message };
    let (Message::AddElements(set, elements) | Message::RemoveElements(set, elements)) = message else {
        return None;
    };
    let with_data = matches!(message, Message::AddElements(..));
    let mut out = header(0, 0, 0, 0);
    out.text(1, TABLE).text(2, &set.name).raw(&[0; 4]);
    let mut end = out.into_bytes().len();
    for (index, e) in elements.iter().enumerate() {
        let mut one = Attributes::default();
        element(&mut one, e, with_data);
        end += one.into_bytes().len();
        if offset < end {
            return Some(index);
        }
    }
    None
}

//! Encodes nf_tables messages.

use std::borrow::Cow;

use palisade_policy::{Family, IpRange, address};
use sha2::{Digest, Sha256};

use super::{attributes::AttributeWriter, expressions};
use crate::{
    octets::octets,
    ruleset::{Element, Key, Message, OPENER_COMMENT, Rule, Set, TABLE, TABLE_COMMENT},
    uapi::{
        netfilter::{NF_ACCEPT, NFPROTO_BRIDGE, NFPROTO_INET},
        netlink::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST},
        nf_tables::*,
        nfnetlink::{NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, message_type},
        nftables::{
            BYTEORDER_BIG_ENDIAN, BYTEORDER_HOST_ENDIAN, BYTEORDER_INVALID, NFTNL_UDATA_CHAIN_COMMENT,
            NFTNL_UDATA_SET_ELEM_COMMENT, NFTNL_UDATA_SET_KEYBYTEORDER, NFTNL_UDATA_TABLE_COMMENT,
            TYPE_ETHERADDR, TYPE_IFINDEX, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE, TYPE_INTEGER, TYPE_IP6ADDR,
            TYPE_IPADDR, TYPE_MARK, TYPEOF_CONNECTION4, TYPEOF_CONNECTION6, TYPEOF_INTERFACE_TARGET,
            TYPEOF_TARGET, concatenation,
        },
    },
};

/// The longest comment. `NFT_USERDATA_MAXLEN` is 256, but the `nft` program stops at 128.
const LONGEST_COMMENT: usize = 120;

/// How often the kernel searches a set for expired elements. Its default of one second is for short timeouts.
const GC_INTERVAL_MS: u32 = 60_000;

/// An encoded message without its sequence number.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    /// The message.
    pub(crate) message: Message,
}

impl Encoded {
    /// Returns its size in a batch, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the message to a batch.
    pub(crate) fn append(&self, batch: &mut Vec<u8>, sequence: u32, acknowledge: bool) {
        let start = batch.len();
        batch.extend_from_slice(&self.bytes);
        batch[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        if acknowledge {
            let flags = u16::from_ne_bytes([batch[start + 6], batch[start + 7]]) | NLM_F_ACK;
            batch[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// Encodes a message about the agent's table.
pub(crate) fn encode(message: Message) -> Encoded {
    encode_in(TABLE, message)
}

/// Encodes a message about the table with this name, of the family `inet` or, for [`Message::Bridged`], `bridge`.
pub(crate) fn encode_in(table: &str, message: Message) -> Encoded {
    let family = if matches!(message, Message::Bridged(_)) { NFPROTO_BRIDGE } else { NFPROTO_INET };
    let (kind, flags) = kind_and_flags(&message);
    let mut out = header(message_type(NFNL_SUBSYS_NFTABLES, kind), NLM_F_REQUEST | flags, family, 0);
    body(&mut out, table, &message);
    Encoded { bytes: finish(out), message }
}

fn kind_and_flags(message: &Message) -> (u16, u16) {
    match message {
        Message::CreateTable => (NFT_MSG_NEWTABLE, NLM_F_CREATE),
        Message::WakeTable => (NFT_MSG_NEWTABLE, 0),
        Message::DeleteTable => (NFT_MSG_DELTABLE, 0),
        Message::CreateSet(_) => (NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL),
        Message::DeleteSet(_) => (NFT_MSG_DELSET, 0),
        Message::AddElements(..) => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
        Message::RemoveElements(..) | Message::FlushSet(_) => (NFT_MSG_DELSETELEM, 0),
        Message::CreateChain(_) => (NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL),
        Message::AddRule(..) => (NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND),
        Message::FlushChain(_) => (NFT_MSG_DELRULE, 0),
        Message::DeleteChain(_) => (NFT_MSG_DELCHAIN, 0),
        Message::DeleteObject(..) => (NFT_MSG_DELOBJ, 0),
        Message::DeleteFlowTable(_) => (NFT_MSG_DELFLOWTABLE, 0),
        Message::Bridged(message) => kind_and_flags(message),
    }
}

/// Returns the message that begins a batch.
pub(crate) fn batch_begin(sequence: u32) -> Vec<u8> {
    batch_limit(NFNL_MSG_BATCH_BEGIN, sequence)
}

/// Returns the message that ends a batch.
pub(crate) fn batch_end(sequence: u32) -> Vec<u8> {
    batch_limit(NFNL_MSG_BATCH_END, sequence)
}

fn batch_limit(kind: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = finish(header(kind, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES));
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// Starts a message with a netlink header, whose length [`finish`] writes, and the `nfgenmsg` behind it.
pub(crate) fn header(kind: u16, flags: u16, family: u8, resource: u16) -> AttributeWriter {
    let mut out = AttributeWriter::default();
    out.raw(&[0; 4]).raw(&kind.to_ne_bytes()).raw(&flags.to_ne_bytes()).raw(&[0; 8]);
    out.raw(&[family, 0]).raw(&resource.to_be_bytes());
    out
}

/// Writes the length of the message into its header.
pub(crate) fn finish(out: AttributeWriter) -> Vec<u8> {
    let mut bytes = out.into_bytes();
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

/// Encodes the kernel expressions of a rule as a list of attributes.
pub(crate) fn rule_expressions(rule: &Rule) -> Vec<u8> {
    let mut out = AttributeWriter::default();
    expressions::rule(&mut out, rule);
    out.into_bytes()
}

/// Encodes the attributes of a message, to compare them with what the kernel lists.
pub(crate) fn attributes_of(message: &Message) -> Vec<u8> {
    let mut out = AttributeWriter::default();
    body(&mut out, TABLE, message);
    out.into_bytes()
}

/// Returns a digest of rules, by which chains are named.
///
/// It is stable as long as the encoding of the rules is. The length of each rule is part of the input, so different lists
/// of rules are different inputs. A collision of 128 bits of SHA-256 is out of reach, and [`crate::registry`] compares
/// objects of the same name.
pub(crate) fn rules_digest(rules: &[Rule]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for rule in rules {
        let mut out = AttributeWriter::default();
        out.nest(NFTA_LIST_ELEM, |e| expressions::rule(e, rule));
        hash.update(out.into_bytes());
    }
    first_half(hash)
}

/// Returns the first 128 bits of a digest.
pub(crate) fn first_half(hash: Sha256) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

fn body(out: &mut AttributeWriter, table: &str, message: &Message) {
    // The attribute is the same for every kind of object: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, and so on.
    out.text(NFTA_TABLE_NAME, table);
    body_after_table(out, message);
}

fn body_after_table(out: &mut AttributeWriter, message: &Message) {
    match message {
        Message::CreateTable => {
            out.put(NFTA_TABLE_USERDATA, &user_data(NFTNL_UDATA_TABLE_COMMENT, TABLE_COMMENT));
        }
        Message::WakeTable => {
            out.number(NFTA_TABLE_FLAGS, 0);
        }
        Message::DeleteTable => {}
        Message::CreateSet(set) => create_set(out, set),
        Message::DeleteSet(name) => {
            out.text(NFTA_SET_NAME, name);
        }
        Message::AddElements(set, elements) => change_elements(out, set, elements, true),
        Message::RemoveElements(set, elements) => change_elements(out, set, elements, false),
        Message::FlushSet(name) => {
            out.text(NFTA_SET_ELEM_LIST_SET, name);
        }
        Message::CreateChain(chain) => {
            out.text(NFTA_CHAIN_NAME, &chain.name);
            if let Some(hook) = chain.hook {
                out.nest(NFTA_CHAIN_HOOK, |h| {
                    h.number(NFTA_HOOK_HOOKNUM, hook.number());
                    h.put(NFTA_HOOK_PRIORITY, &hook.priority().to_be_bytes());
                });
                out.number(NFTA_CHAIN_POLICY, NF_ACCEPT as u32).text(NFTA_CHAIN_TYPE, "filter");
            }
            if let Some(comment) = &chain.comment {
                out.put(NFTA_CHAIN_USERDATA, &user_data(NFTNL_UDATA_CHAIN_COMMENT, comment));
            }
        }
        Message::AddRule(chain, index) => {
            out.text(NFTA_RULE_CHAIN, &chain.name);
            out.nest(NFTA_RULE_EXPRESSIONS, |list| expressions::rule(list, &chain.rules[*index]));
        }
        Message::FlushChain(name) => {
            out.text(NFTA_RULE_CHAIN, name);
        }
        Message::DeleteChain(name) => {
            out.text(NFTA_CHAIN_NAME, name);
        }
        Message::Bridged(message) => body_after_table(out, message),
        Message::DeleteObject(kind, name) => {
            out.text(NFTA_OBJ_NAME, name).number(NFTA_OBJ_TYPE, *kind);
        }
        Message::DeleteFlowTable(name) => {
            out.text(NFTA_FLOWTABLE_NAME, name);
        }
    }
}

fn create_set(out: &mut AttributeWriter, set: &Set) {
    const IPV4: u32 = TYPE_IPADDR;
    const IPV6: u32 = TYPE_IP6ADDR;
    const PROTOCOL: u32 = TYPE_INET_PROTOCOL;
    const SERVICE: u32 = TYPE_INET_SERVICE;
    let (key_type, length) = match set.key {
        Key::Address(Family::V4) => (IPV4, 4),
        Key::Address(Family::V6) => (IPV6, 16),
        Key::Pair(Family::V4) => (concatenation(&[IPV4, IPV4]), 8),
        Key::Pair(Family::V6) => (concatenation(&[IPV6, IPV6]), 32),
        Key::ThreeTuple(Family::V4) => (concatenation(&[IPV4, IPV4, PROTOCOL]), 12),
        Key::ThreeTuple(Family::V6) => (concatenation(&[IPV6, IPV6, PROTOCOL]), 36),
        Key::FiveTuple(Family::V4) => (concatenation(&[IPV4, IPV4, PROTOCOL, SERVICE, SERVICE]), 20),
        Key::FiveTuple(Family::V6) => (concatenation(&[IPV6, IPV6, PROTOCOL, SERVICE, SERVICE]), 44),
        Key::Port => (SERVICE, 2),
        Key::Number => (TYPE_MARK, 4),
        Key::Interface => (TYPE_IFINDEX, 4),
        Key::InterfacePair => (concatenation(&[TYPE_IFINDEX, TYPE_IFINDEX]), 8),
        Key::Protocol => (PROTOCOL, 1),
        Key::Hardware => (TYPE_ETHERADDR, 6),
        Key::Target => (TYPE_INTEGER, 16),
        Key::Connection(Family::V4) => (concatenation(&[IPV4, TYPE_INTEGER]), 8),
        Key::Connection(Family::V6) => (concatenation(&[IPV6, TYPE_INTEGER]), 20),
        Key::InterfaceAddress(Family::V4) => (concatenation(&[TYPE_IFINDEX, IPV4]), 8),
        Key::InterfaceAddress(Family::V6) => (concatenation(&[TYPE_IFINDEX, IPV6]), 20),
        // Each part fills whole words of four bytes.
        Key::InterfaceHardware => (concatenation(&[TYPE_IFINDEX, TYPE_ETHERADDR]), 12),
        Key::InterfaceSender(Family::V4) => (concatenation(&[TYPE_IFINDEX, IPV4, TYPE_ETHERADDR]), 16),
        Key::InterfaceSender(Family::V6) => (concatenation(&[TYPE_IFINDEX, IPV6, TYPE_ETHERADDR]), 28),
        Key::InterfaceTarget => (concatenation(&[TYPE_IFINDEX, TYPE_INTEGER]), 20),
    };
    let byte_order = match set.key {
        Key::Number | Key::Interface | Key::InterfacePair => BYTEORDER_HOST_ENDIAN,
        Key::InterfaceAddress(_)
        | Key::InterfaceHardware
        | Key::InterfaceSender(_)
        | Key::Connection(_)
        | Key::InterfaceTarget => BYTEORDER_INVALID,
        _ => BYTEORDER_BIG_ENDIAN,
    };
    let fields = ranged_fields(set);
    let mut flags =
        if set.intervals { NFT_SET_INTERVAL } else { 0 } | if set.verdicts { NFT_SET_MAP } else { 0 };
    if !fields.is_empty() {
        flags |= NFT_SET_CONCAT;
    }
    if set.content.expires() {
        // `NFT_SET_EVAL` marks the set as changing without transactions.
        flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
    }
    out.text(NFTA_SET_NAME, &set.name).number(NFTA_SET_FLAGS, flags);
    out.number(NFTA_SET_KEY_TYPE, key_type).number(NFTA_SET_KEY_LEN, length);
    if set.verdicts {
        out.number(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
    }
    if let Some((timeout, size)) = set.content.expiry() {
        out.nest(NFTA_SET_DESC, |d| {
            d.number(NFTA_SET_DESC_SIZE, size);
        });
        out.put(NFTA_SET_TIMEOUT, &(timeout.as_millis() as u64).to_be_bytes());
        out.number(NFTA_SET_GC_INTERVAL, GC_INTERVAL_MS);
    }
    if !fields.is_empty() {
        out.nest(NFTA_SET_DESC, |description| {
            description.nest(NFTA_SET_DESC_CONCAT, |list| {
                for length in fields {
                    list.nest(NFTA_LIST_ELEM, |field| {
                        field.number(NFTA_SET_FIELD_LEN, *length);
                    });
                }
            });
        });
    }
    // The kernel requires an id, although nothing refers to it.
    out.number(NFTA_SET_ID, 1);
    let mut data = vec![NFTNL_UDATA_SET_KEYBYTEORDER, 4];
    data.extend_from_slice(&byte_order.to_ne_bytes());
    match set.key {
        Key::Target => data.extend_from_slice(&TYPEOF_TARGET),
        Key::Connection(Family::V4) => data.extend_from_slice(&TYPEOF_CONNECTION4),
        Key::Connection(Family::V6) => data.extend_from_slice(&TYPEOF_CONNECTION6),
        Key::InterfaceTarget => data.extend_from_slice(&TYPEOF_INTERFACE_TARGET),
        _ => {}
    }
    out.put(NFTA_SET_USERDATA, &data);
}

/// Returns the lengths of the parts of a set's key, if its elements are ranges of a key with several parts.
fn ranged_fields(set: &Set) -> &'static [u32] {
    match set.key {
        Key::InterfaceAddress(Family::V4) if set.intervals => &[4, 4],
        Key::InterfaceAddress(Family::V6) | Key::InterfaceTarget if set.intervals => &[4, 16],
        _ => &[],
    }
}

fn change_elements(out: &mut AttributeWriter, set: &Set, elements: &[Element], with_data: bool) {
    out.text(NFTA_SET_ELEM_LIST_SET, &set.name);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| elements.iter().for_each(|e| element(list, e, with_data)));
}

/// Shortens a comment to what the kernel and the `nft` program accept.
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

/// Writes one element. A map element is removed by its key alone, without its data.
fn element(list: &mut AttributeWriter, element: &Element, with_data: bool) {
    match element {
        Element::Address(a) => key(list, &octets(*a)),
        Element::SelfPair(a) => key(list, &octets(*a).repeat(2)),
        Element::Revoked(tuple, is_opener) => {
            list.nest(NFTA_LIST_ELEM, |e| {
                write_key(e, &tuple.key());
                if with_data && *is_opener {
                    let comment = user_data(NFTNL_UDATA_SET_ELEM_COMMENT, OPENER_COMMENT);
                    e.put(NFTA_SET_ELEM_USERDATA, &comment);
                }
            });
        }
        Element::Number(n) | Element::Interface(n) => key(list, &n.to_ne_bytes()),
        Element::InterfacePair(n) => key(list, &n.to_ne_bytes().repeat(2)),
        Element::Port(port) => key(list, &port.to_be_bytes()),
        Element::Protocol(number) => key(list, &[*number]),
        Element::Hardware(mac) => key(list, mac),
        Element::Target(a) => key(list, &a.octets()),
        Element::InterfaceAddress(..)
        | Element::InterfaceHardware(..)
        | Element::InterfaceSender(..)
        | Element::InterfaceTarget(..) => {
            key(list, &port_key(element));
        }
        Element::InterfaceRange(..) => {
            let [first, last] = port_range_keys(element);
            list.nest(NFTA_LIST_ELEM, |e| {
                write_key(e, &first);
                e.nest(NFTA_SET_ELEM_KEY_END, |k| {
                    k.put(NFTA_DATA_VALUE, &last);
                });
            });
        }
        Element::Ports(first, last) => {
            key(list, &first.to_be_bytes());
            if let Some(after) = last.checked_add(1) {
                interval_end(list, &after.to_be_bytes());
            }
        }
        Element::Range(range) => {
            key(list, &octets(range.first));
            // A marker behind its last address ends an interval. One that reaches the end of the address space has none.
            let (family, last) = (Family::of(range.last), address::to_number(range.last));
            if last < address::max_number(family) {
                interval_end(list, &octets(address::from_number(family, last + 1)));
            }
        }
        Element::Jump(a, chain) => jump(list, &octets(*a), chain, with_data),
        Element::SelfPairJump(a, chain) => jump(list, &octets(*a).repeat(2), chain, with_data),
        Element::LinkJump(_, _, chain) => jump(list, &port_key(element), chain, with_data),
    }
}

/// Returns the key of an element that begins with a port: each part fills whole words of four bytes.
pub(crate) fn port_key(element: &Element) -> Vec<u8> {
    match element {
        Element::InterfaceAddress(port, address) => [&port.to_ne_bytes()[..], &octets(*address)].concat(),
        Element::InterfaceHardware(port, mac) | Element::LinkJump(port, mac, _) => {
            [&port.to_ne_bytes()[..], mac, &[0; 2]].concat()
        }
        Element::InterfaceSender(port, address, mac) => {
            [&port.to_ne_bytes()[..], &octets(*address), mac, &[0; 2]].concat()
        }
        Element::InterfaceTarget(port, target) => [&port.to_ne_bytes()[..], &target.octets()].concat(),
        _ => Vec::new(),
    }
}

/// Returns the first and the last key of an element that begins with a port, in network byte order, and ends with a range.
pub(crate) fn port_range_keys(element: &Element) -> [Vec<u8>; 2] {
    let Element::InterfaceRange(port, IpRange { first, last }) = element else { return Default::default() };
    [first, last].map(|address| [&port.to_be_bytes()[..], &octets(*address)].concat())
}

fn jump(list: &mut AttributeWriter, key: &[u8], chain: &str, with_data: bool) {
    list.nest(NFTA_LIST_ELEM, |e| {
        write_key(e, key);
        if with_data {
            e.nest(NFTA_SET_ELEM_DATA, |d| expressions::jump(d, chain));
        }
    });
}

fn key(list: &mut AttributeWriter, bytes: &[u8]) {
    list.nest(NFTA_LIST_ELEM, |e| write_key(e, bytes));
}

fn interval_end(list: &mut AttributeWriter, bytes: &[u8]) {
    list.nest(NFTA_LIST_ELEM, |e| {
        e.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        write_key(e, bytes);
    });
}

fn write_key(element: &mut AttributeWriter, bytes: &[u8]) {
    element.nest(NFTA_SET_ELEM_KEY, |k| {
        k.put(NFTA_DATA_VALUE, bytes);
    });
}

/// Returns the index of the element at `offset` bytes from the netlink header of an encoded message.
pub(crate) fn element_at(message: &Message, offset: usize) -> Option<usize> {
    let message = if let Message::Bridged(inner) = message { inner } else { message };
    let (Message::AddElements(set, elements) | Message::RemoveElements(set, elements)) = message else {
        return None;
    };
    let with_data = matches!(message, Message::AddElements(..));
    let mut out = header(0, 0, 0, 0);
    out.text(NFTA_SET_ELEM_LIST_TABLE, TABLE).text(NFTA_SET_ELEM_LIST_SET, &set.name).raw(&[0; 4]);
    let mut end = out.into_bytes().len();
    for (index, e) in elements.iter().enumerate() {
        let mut one = AttributeWriter::default();
        element(&mut one, e, with_data);
        end += one.into_bytes().len();
        if offset < end {
            return Some(index);
        }
    }
    None
}

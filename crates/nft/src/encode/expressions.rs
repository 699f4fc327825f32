//! Matches and statements as kernel expressions. Numbers are those of `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use palisade_policy::{Direction, Family};

use super::attributes::Attributes;
use crate::{
    conntrack::label_bytes,
    ruleset::{Expression, Flood, HasPorts, Outcome, Rule},
};

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEMENT: u16 = 1;

/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`.
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// `NFT_REG_VERDICT`, then the two registers that keys are built in. The second half of an IPv4 pair follows the first
/// in the 32-bit view (`NFT_REG32_01`), that of an IPv6 pair in the 128-bit view (`NFT_REG_2`).
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const SECOND_V4: u32 = 9;
const SECOND_V6: u32 = 2;

/// The registers of protocol, source port and destination port of a tuple, behind its addresses. The kernel tells
/// a 32-bit register that begins a 128-bit one by the name of that, so it is written like this, too: `NFT_REG32_02`,
/// `NFT_REG32_03`, `NFT_REG_2`; and `NFT_REG_3`, `NFT_REG32_09`, `NFT_REG32_10`.
const BEHIND_V4: [u32; 3] = [10, 11, 2];
const BEHIND_V6: [u32; 3] = [3, 17, 18];

/// FIN, SYN, RST and ACK in byte 13 of the TCP header, and SYN alone: the packet that begins a connection.
const TCP_FLAGS: u8 = 0x01 | 0x02 | 0x04 | 0x10;
const SYN: u8 = 0x02;

/// Payload bases.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `meta` keys.
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;

const META_IIF: u32 = 4;
const META_OIF: u32 = 5;

/// `fib`: the outgoing interface of the route, looked up by source address and incoming interface; asked for no more than
/// its being there (`NFT_FIB_RESULT_OIF`, `NFTA_FIB_F_SADDR | IIF | PRESENT`).
const FIB_OIF: u32 = 1;
const FIB_WAY_BACK: u32 = 1 | 8 | 32;

/// Where the type stands in the Ethernet header.
const ETHER_TYPE: u32 = 12;

/// Where the hop limit stands in the IPv6 header.
const HOP_LIMIT: u32 = 7;

/// `PACKET_BROADCAST`, `PACKET_MULTICAST`.
const BROADCAST: u8 = 1;
const MULTICAST: u8 = 2;

/// fe80::/10.
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LINK_LOCAL_MASK: [u8; 16] = [0xff, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `ct` keys.
const CT_STATE: u32 = 0;
const CT_LABELS: u32 = 13;

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `NF_CT_STATE_INVALID_BIT | NF_CT_STATE_BIT(IP_CT_NEW)`.
const INVALID_OR_NEW: u32 = 1 | 8;

/// `cmp` operators.
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const GTE: u32 = 5;

/// The list of kernel expressions of a rule (the payload of `NFTA_RULE_EXPRESSIONS`).
pub(super) fn rule(out: &mut Attributes, rule: &Rule) {
    for expression in rule {
        write(out, expression);
    }
}

fn write(out: &mut Attributes, expression: &Expression) {
    match expression {
        Expression::Family(family) => {
            meta(out, META_NFPROTO);
            cmp(out, EQ, &[if *family == Family::V4 { 2 } else { 10 }]);
        }
        Expression::Protocol(number) => {
            meta(out, META_L4PROTO);
            cmp(out, EQ, &[*number]);
        }
        Expression::ProtocolIn(set) => {
            meta(out, META_L4PROTO);
            lookup(out, set, false);
        }
        Expression::InterfaceIn { set, inverted } => {
            meta(out, META_IIF);
            if *inverted {
                lookup_not(out, set);
            } else {
                lookup(out, set, false);
            }
        }
        Expression::LeavesBy(set) => {
            meta(out, META_OIF);
            lookup(out, set, false);
        }
        Expression::TurnsBack { set, inverted } => {
            meta(out, META_IIF);
            // The second half of the key, in the 32-bit view.
            kernel_expression(out, "meta", |d| {
                d.number(2, META_OIF).number(1, SECOND_V4);
            });
            if *inverted {
                lookup_not(out, set);
            } else {
                lookup(out, set, false);
            }
        }
        Expression::EtherType(kind) => {
            payload(out, REGISTER, LINK, ETHER_TYPE, 2);
            cmp(out, EQ, &kind.to_be_bytes());
        }
        Expression::NoWayBack => {
            // NFTA_FIB_DREG, _RESULT, _FLAGS
            kernel_expression(out, "fib", |d| {
                d.number(1, REGISTER).number(2, FIB_OIF).number(3, FIB_WAY_BACK);
            });
            cmp(out, EQ, &[0; 4]);
        }
        Expression::HopLimit(hops) => {
            payload(out, REGISTER, NETWORK, HOP_LIMIT, 1);
            cmp(out, EQ, &[*hops]);
        }
        Expression::NoneOf(numbers) => {
            for number in numbers {
                meta(out, META_L4PROTO);
                cmp(out, NEQ, &[*number]);
            }
        }
        Expression::Port(first, last) => {
            payload(out, REGISTER, TRANSPORT, 2, 2);
            range(out, &first.to_be_bytes(), &last.to_be_bytes());
        }
        Expression::PortIn(set) => {
            payload(out, REGISTER, TRANSPORT, 2, 2);
            lookup(out, set, false);
        }
        Expression::SourcePort(first, last) => {
            payload(out, REGISTER, TRANSPORT, 0, 2);
            range(out, &first.to_be_bytes(), &last.to_be_bytes());
        }
        Expression::SourcePortIn(set) => {
            payload(out, REGISTER, TRANSPORT, 0, 2);
            lookup(out, set, false);
        }
        Expression::Midstream => {
            payload(out, REGISTER, TRANSPORT, 13, 1);
            mask(out, &[TCP_FLAGS], &[0]);
            cmp(out, NEQ, &[SYN]);
        }
        Expression::TupleIn(family, has_ports, set) => {
            tuple(out, *family, *has_ports);
            lookup(out, set, false);
        }
        Expression::PeerIn(direction, family, set) => {
            address(out, REGISTER, *family, *direction == Direction::Ingress);
            lookup(out, set, false);
        }
        Expression::PairIn(family, set) => {
            pair(out, *family);
            lookup(out, set, false);
        }
        Expression::PairDispatch(family, map) => {
            pair(out, *family);
            lookup(out, map, true);
        }
        Expression::Dispatch(direction, family, map) => {
            address(out, REGISTER, *family, *direction == Direction::Egress);
            lookup(out, map, true);
        }
        Expression::From(source) => {
            address(out, REGISTER, Family::of(*source), true);
            match source {
                IpAddr::V4(a) => cmp(out, EQ, &a.octets()),
                IpAddr::V6(a) => cmp(out, EQ, &a.octets()),
            }
        }
        Expression::LinkLocal { source } => {
            address(out, REGISTER, Family::V6, *source);
            mask(out, &LINK_LOCAL_MASK, &[0; 16]);
            cmp(out, EQ, &LINK_LOCAL);
        }
        Expression::Flooded(flood) => {
            meta(out, META_PKTTYPE);
            cmp(out, EQ, &[if *flood == Flood::Broadcast { BROADCAST } else { MULTICAST }]);
        }
        Expression::Icmpv6(first, last) => {
            payload(out, REGISTER, TRANSPORT, 0, 1);
            range(out, &[*first], &[*last]);
        }
        Expression::Established => state(out, ESTABLISHED_OR_RELATED),
        Expression::Unestablished => state(out, INVALID_OR_NEW),
        Expression::Revoked => {
            ct(out, CT_LABELS, 1);
            mask(out, &label_bytes(), &[0; 16]);
            cmp(out, NEQ, &[0; 16]);
        }
        Expression::SetRevoked => {
            immediate(out, REGISTER, |data| {
                data.put(DATA_VALUE, &label_bytes());
            });
            // NFTA_CT_KEY, NFTA_CT_SREG
            kernel_expression(out, "ct", |d| {
                d.number(2, CT_LABELS).number(4, REGISTER);
            });
        }
        Expression::Limit { rate, burst } => kernel_expression(out, "limit", |d| {
            // NFTA_LIMIT_RATE, _UNIT (a second), _BURST, _TYPE (NFT_LIMIT_PKTS), _FLAGS
            d.put(1, &rate.to_be_bytes()).put(2, &1u64.to_be_bytes());
            d.number(3, *burst).number(4, 0).number(5, 0);
        }),
        Expression::Log(group, prefix) => kernel_expression(out, "log", |d| {
            d.put(1, &group.to_be_bytes()).text(2, prefix);
        }),
        Expression::Counter => kernel_expression(out, "counter", |_| {}),
        Expression::Then(outcome) => immediate(out, VERDICT, |data| verdict(data, outcome)),
    }
}

fn kernel_expression(out: &mut Attributes, name: &str, data: impl FnOnce(&mut Attributes)) {
    out.nest(LIST_ELEMENT, |e| {
        e.text(1, name).nest(2, data);
    });
}

fn meta(out: &mut Attributes, key: u32) {
    meta_into(out, key, REGISTER);
}

fn meta_into(out: &mut Attributes, key: u32, register: u32) {
    kernel_expression(out, "meta", |d| {
        d.number(2, key).number(1, register);
    });
}

/// `ct state` has one of these bits.
fn state(out: &mut Attributes, bits: u32) {
    ct(out, CT_STATE, 1);
    // Registers hold the state in host order.
    mask(out, &bits.to_ne_bytes(), &[0; 4]);
    cmp(out, NEQ, &[0; 4]);
}

fn ct(out: &mut Attributes, key: u32, register: u32) {
    kernel_expression(out, "ct", |d| {
        d.number(2, key).number(1, register);
    });
}

fn payload(out: &mut Attributes, register: u32, base: u32, offset: u32, length: u32) {
    kernel_expression(out, "payload", |d| {
        d.number(1, register).number(2, base).number(3, offset).number(4, length);
    });
}

/// Source or destination address of the IP header.
fn address(out: &mut Attributes, register: u32, family: Family, source: bool) {
    let (offset, length) = match (family, source) {
        (Family::V4, true) => (12, 4),
        (Family::V4, false) => (16, 4),
        (Family::V6, true) => (8, 16),
        (Family::V6, false) => (24, 16),
    };
    payload(out, register, NETWORK, offset, length);
}

/// Source and destination address, one behind the other.
fn pair(out: &mut Attributes, family: Family) {
    address(out, REGISTER, family, true);
    address(out, if family == Family::V4 { SECOND_V4 } else { SECOND_V6 }, family, false);
}

/// What a connection is known by: source and destination address and protocol, and ports where it has some.
fn tuple(out: &mut Attributes, family: Family, has_ports: HasPorts) {
    pair(out, family);
    let [protocol, source_port, port] = if family == Family::V4 { BEHIND_V4 } else { BEHIND_V6 };
    meta_into(out, META_L4PROTO, protocol);
    if has_ports == HasPorts::Yes {
        payload(out, source_port, TRANSPORT, 0, 2);
        payload(out, port, TRANSPORT, 2, 2);
    }
}

fn cmp(out: &mut Attributes, operator: u32, value: &[u8]) {
    kernel_expression(out, "cmp", |d| {
        d.number(1, REGISTER).number(2, operator).nest(3, |v| {
            v.put(DATA_VALUE, value);
        });
    });
}

/// One comparison where one is enough.
fn range(out: &mut Attributes, first: &[u8], last: &[u8]) {
    if first == last {
        cmp(out, EQ, first);
    } else {
        cmp(out, GTE, first);
        cmp(out, LTE, last);
    }
}

fn mask(out: &mut Attributes, mask: &[u8], xor: &[u8]) {
    kernel_expression(out, "bitwise", |d| {
        d.number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, mask.len() as u32)
            .nest(4, |v| {
                v.put(DATA_VALUE, mask);
            })
            .nest(5, |v| {
                v.put(DATA_VALUE, xor);
            });
    });
}

fn lookup(out: &mut Attributes, set: &str, verdicts: bool) {
    kernel_expression(out, "lookup", |d| {
        d.text(1, set).number(2, REGISTER);
        if verdicts {
            d.number(3, VERDICT);
        }
    });
}

fn lookup_not(out: &mut Attributes, set: &str) {
    /// `NFT_LOOKUP_F_INV`.
    const INVERTED: u32 = 1;
    kernel_expression(out, "lookup", |d| {
        d.text(1, set).number(2, REGISTER).number(5, INVERTED);
    });
}

fn immediate(out: &mut Attributes, register: u32, data: impl FnOnce(&mut Attributes)) {
    kernel_expression(out, "immediate", |d| {
        d.number(1, register).nest(2, data);
    });
}

fn verdict(out: &mut Attributes, outcome: &Outcome) {
    match outcome {
        Outcome::Drop => code(out, 0, None),
        Outcome::Accept => code(out, 1, None),
        Outcome::Goto(chain) => code(out, -4, Some(chain)),
        Outcome::Jump(chain) => code(out, -3, Some(chain)),
        Outcome::Return => code(out, -5, None),
    }
}

/// `jump` to a chain, as the data of a map element.
pub(super) fn jump(out: &mut Attributes, chain: &str) {
    code(out, -3, Some(chain));
}

fn code(out: &mut Attributes, code: i32, chain: Option<&str>) {
    out.nest(DATA_VERDICT, |v| {
        v.put(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            v.text(2, chain);
        }
    });
}

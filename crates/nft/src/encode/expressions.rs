//! Encodes matches and statements as kernel expressions.

use std::net::IpAddr;

use ipnet::IpNet;
use palisade_policy::{Direction, Family};

use super::attributes::AttributeWriter;
use crate::{
    conntrack::label_bytes,
    octets::octets,
    ruleset::{Answer, Expression, HasPorts, Outcome, PacketType, Rule, SenderField, SourceRoute},
    uapi::{
        if_ether::ARPHRD_ETHER,
        if_packet::{PACKET_BROADCAST, PACKET_MULTICAST},
        netfilter::{NF_ACCEPT, NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6},
        nf_conntrack::{
            IPS_CONFIRMED, NF_CT_STATE_ESTABLISHED_BIT, NF_CT_STATE_INVALID_BIT, NF_CT_STATE_NEW_BIT,
            NF_CT_STATE_RELATED_BIT,
        },
        nf_tables::*,
    },
};

/// The register in which keys are built.
const KEY: u32 = NFT_REG_1;

/// The registers of the second half of a pair, right behind the first half: an IPv4 address fills one 32-bit register, an
/// IPv6 address one 128-bit register.
const SECOND_V4: u32 = NFT_REG32_01;
const SECOND_V6: u32 = NFT_REG_2;

/// The registers of protocol, source port and destination port, behind the addresses of a tuple. The kernel lists a
/// 32-bit register that begins a 128-bit one under the name of the latter, so it is written in the same way.
const BEHIND_V4: [u32; 3] = [NFT_REG32_02, NFT_REG32_03, NFT_REG_2];
const BEHIND_V6: [u32; 3] = [NFT_REG_3, NFT_REG32_09, NFT_REG32_10];

/// FIN, SYN, RST and ACK in the flags byte of the TCP header, and SYN alone: the packet that opens a connection.
const TCP_FLAGS: u8 = 0x01 | 0x02 | 0x04 | 0x10;
const SYN: u8 = 0x02;

/// Offsets in the Ethernet, ARP, IPv6, TCP and other transport headers.
const ETHERNET_DESTINATION: u32 = 0;
const ETHERNET_SOURCE: u32 = 6;
const ETHERNET_TYPE: u32 = 12;
/// Behind hardware type, protocol type, two lengths, operation, and a hardware address of six bytes.
const ARP_SOURCE: u32 = 14;
/// Offsets of the addresses in the headers of IPv4 and IPv6 (RFC 791, RFC 8200).
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
/// The first octet of IP headers: the version, and for IPv4 the length of the header in words, which is 5 without options.
const IP_VERSION: u32 = 0;
const IP_VERSION_MASK: u8 = 0xf0;
const IPV4_VERSION: u8 = 0x40;
const IPV4_LENGTH_MASK: u8 = 0x0f;
const IPV4_LENGTH_WITHOUT_OPTIONS: u8 = 5;
const IPV6_HOP_LIMIT: u32 = 7;
const TCP_FLAGS_BYTE: u32 = 13;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
const ICMP_TYPE: u32 = 0;
/// Behind type, code, checksum and flags (RFC 4861, sections 4.3 and 4.4).
const ND_TARGET: u32 = 8;

/// A reverse path lookup: by source address and incoming interface, and only for whether a route exists.
const REVERSE_PATH: u32 = NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT;

/// What the addresses of the groups that bridges reserve for themselves begin with (IEEE 802.1Q, tables 8-1 and 10-1).
const RESERVED_GROUPS: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

/// Types of IPv4 options and of IPv6 extension headers.
const IPOPT_LSRR: u8 = 131;
const IPOPT_SSRR: u8 = 137;
const NEXTHDR_ROUTING: u8 = 43;

/// fe80::/10.
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LINK_LOCAL_MASK: [u8; 16] = [0xff, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes the kernel expressions of a rule: the payload of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn rule(out: &mut AttributeWriter, rule: &Rule) {
    for expression in rule {
        write(out, expression);
    }
}

fn write(out: &mut AttributeWriter, expression: &Expression) {
    match expression {
        Expression::Family(family) => {
            meta(out, NFT_META_NFPROTO);
            cmp(out, NFT_CMP_EQ, &[if *family == Family::V4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]);
        }
        Expression::Protocol(number) => {
            meta(out, NFT_META_L4PROTO);
            cmp(out, NFT_CMP_EQ, &[*number]);
        }
        Expression::ProtocolIn(set) => {
            meta(out, NFT_META_L4PROTO);
            lookup(out, set, Lookup::In);
        }
        Expression::InterfaceIn { set, inverted } => {
            meta(out, NFT_META_IIF);
            lookup(out, set, if *inverted { Lookup::NotIn } else { Lookup::In });
        }
        Expression::InterfaceIs(index) => {
            meta(out, NFT_META_IIF);
            cmp(out, NFT_CMP_EQ, &index.to_ne_bytes());
        }
        Expression::OutInterfaceIn(set) => {
            meta(out, NFT_META_OIF);
            lookup(out, set, Lookup::In);
        }
        Expression::InterfacePairIn { set, inverted } => {
            meta(out, NFT_META_IIF);
            meta_into(out, NFT_META_OIF, SECOND_V4);
            lookup(out, set, if *inverted { Lookup::NotIn } else { Lookup::In });
        }
        Expression::SenderIn { field, by_port, ranges, set, inverted } => {
            if *by_port {
                meta(out, NFT_META_IIF);
            }
            if *by_port && *ranges {
                to_network_byte_order(out);
            }
            // An interface index fills the first register.
            sender(out, if *by_port { SECOND_V4 } else { KEY }, *field);
            lookup(out, set, if *inverted { Lookup::NotIn } else { Lookup::In });
        }
        Expression::ReceiverIn { family, ranges, set } => {
            meta(out, NFT_META_OIF);
            if *ranges {
                to_network_byte_order(out);
            }
            address(out, SECOND_V4, *family, false);
            lookup(out, set, Lookup::In);
        }
        Expression::ReceiverInNetwork(network) => {
            let offset = if network.addr().is_ipv4() { IPV4_DESTINATION } else { IPV6_DESTINATION };
            in_network(out, Some(offset), *network, |out| {
                address(out, KEY, Family::of(network.addr()), false);
            });
        }
        Expression::PortSenderIn(family, set) => {
            meta(out, NFT_META_IIF);
            sender(out, SECOND_V4, SenderField::Source(*family));
            let third = if *family == Family::V4 { NFT_REG32_02 } else { NFT_REG32_05 };
            sender(out, third, SenderField::Hardware);
            lookup(out, set, Lookup::In);
        }
        Expression::SenderInNetwork(field, network) => sender_in(out, *field, *network),
        Expression::ArpSourceIs(source) => {
            sender(out, KEY, SenderField::ArpSource);
            cmp(out, NFT_CMP_EQ, &source.octets());
        }
        Expression::LinkLocalTarget => {
            transport(out, KEY, ND_TARGET, 2);
            mask(out, &LINK_LOCAL_MASK[..2], &[0; 2]);
            cmp(out, NFT_CMP_EQ, &LINK_LOCAL[..2]);
        }
        Expression::Ethernet => {
            meta(out, NFT_META_IIFTYPE);
            cmp(out, NFT_CMP_EQ, &ARPHRD_ETHER.to_ne_bytes());
        }
        Expression::ToReservedGroup => {
            payload(out, KEY, NFT_PAYLOAD_LL_HEADER, ETHERNET_DESTINATION, RESERVED_GROUPS.len() as u32);
            cmp(out, NFT_CMP_EQ, &RESERVED_GROUPS);
        }
        Expression::IsIpv4 => {
            // Four octets: the kernel masks nothing shorter without a call.
            payload(out, KEY, NFT_PAYLOAD_NETWORK_HEADER, IP_VERSION, 4);
            mask(out, &[IP_VERSION_MASK, 0, 0, 0], &[0; 4]);
            cmp(out, NFT_CMP_EQ, &[IPV4_VERSION, 0, 0, 0]);
        }
        Expression::PlainIpv4 => {
            payload(out, KEY, NFT_PAYLOAD_NETWORK_HEADER, IP_VERSION, 1);
            cmp(out, NFT_CMP_EQ, &[IPV4_VERSION | IPV4_LENGTH_WITHOUT_OPTIONS]);
        }
        Expression::HasIpv4Options => {
            payload(out, KEY, NFT_PAYLOAD_NETWORK_HEADER, IP_VERSION, 1);
            mask(out, &[IPV4_LENGTH_MASK], &[0]);
            cmp(out, NFT_CMP_NEQ, &[IPV4_LENGTH_WITHOUT_OPTIONS]);
        }
        Expression::SourceRoute(kind) => {
            let option = match kind {
                SourceRoute::Loose => IPOPT_LSRR,
                SourceRoute::Strict => IPOPT_SSRR,
            };
            header_exists(out, NFT_EXTHDR_OP_IPV4, option);
        }
        Expression::RoutingHeader => header_exists(out, NFT_EXTHDR_OP_IPV6, NEXTHDR_ROUTING),
        Expression::LinkDispatch(map) => {
            meta(out, NFT_META_IIF);
            sender(out, SECOND_V4, SenderField::Hardware);
            lookup(out, map, Lookup::Verdict);
        }
        Expression::EtherType(kind) => {
            payload(out, KEY, NFT_PAYLOAD_LL_HEADER, ETHERNET_TYPE, 2);
            cmp(out, NFT_CMP_EQ, &kind.to_be_bytes());
        }
        Expression::NoReverseRoute => {
            kernel_expression(out, "fib", |d| {
                d.number(NFTA_FIB_DREG, KEY).number(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
                d.number(NFTA_FIB_FLAGS, REVERSE_PATH);
            });
            cmp(out, NFT_CMP_EQ, &[0; 4]);
        }
        Expression::HopLimit(hops) => {
            payload(out, KEY, NFT_PAYLOAD_NETWORK_HEADER, IPV6_HOP_LIMIT, 1);
            cmp(out, NFT_CMP_EQ, &[*hops]);
        }
        Expression::ProtocolNotIn(numbers) => {
            for number in numbers {
                meta(out, NFT_META_L4PROTO);
                cmp(out, NFT_CMP_NEQ, &[*number]);
            }
        }
        Expression::Port(first, last) => {
            transport(out, KEY, DESTINATION_PORT, 2);
            range(out, &first.to_be_bytes(), &last.to_be_bytes());
        }
        Expression::PortIn(set) => {
            transport(out, KEY, DESTINATION_PORT, 2);
            lookup(out, set, Lookup::In);
        }
        Expression::SourcePort(first, last) => {
            transport(out, KEY, SOURCE_PORT, 2);
            range(out, &first.to_be_bytes(), &last.to_be_bytes());
        }
        Expression::SourcePortIn(set) => {
            transport(out, KEY, SOURCE_PORT, 2);
            lookup(out, set, Lookup::In);
        }
        Expression::TcpNotSyn => {
            transport(out, KEY, TCP_FLAGS_BYTE, 1);
            mask(out, &[TCP_FLAGS], &[0]);
            cmp(out, NFT_CMP_NEQ, &[SYN]);
        }
        Expression::TupleIn(family, has_ports, set) => {
            tuple(out, *family, *has_ports);
            lookup(out, set, Lookup::In);
        }
        Expression::PeerIn(direction, family, set) => {
            address(out, KEY, *family, *direction == Direction::Ingress);
            lookup(out, set, Lookup::In);
        }
        Expression::PairIn(family, set) => {
            pair(out, *family);
            lookup(out, set, Lookup::In);
        }
        Expression::PairDispatch(family, map) => {
            pair(out, *family);
            lookup(out, map, Lookup::Verdict);
        }
        Expression::Dispatch(direction, family, map) => {
            address(out, KEY, *family, *direction == Direction::Egress);
            lookup(out, map, Lookup::Verdict);
        }
        Expression::SourceIs(source) => {
            address(out, KEY, Family::of(*source), true);
            match source {
                IpAddr::V4(a) => cmp(out, NFT_CMP_EQ, &a.octets()),
                IpAddr::V6(a) => cmp(out, NFT_CMP_EQ, &a.octets()),
            }
        }
        Expression::LinkLocal { source } => {
            address(out, KEY, Family::V6, *source);
            mask(out, &LINK_LOCAL_MASK, &[0; 16]);
            cmp(out, NFT_CMP_EQ, &LINK_LOCAL);
        }
        Expression::PacketType(kind) => {
            meta(out, NFT_META_PKTTYPE);
            cmp(
                out,
                NFT_CMP_EQ,
                &[if *kind == PacketType::Broadcast { PACKET_BROADCAST } else { PACKET_MULTICAST }],
            );
        }
        Expression::Icmpv6(first, last) => {
            transport(out, KEY, ICMP_TYPE, 1);
            range(out, &[*first], &[*last]);
        }
        Expression::Established => state(out, NF_CT_STATE_ESTABLISHED_BIT),
        Expression::Related => state(out, NF_CT_STATE_RELATED_BIT),
        Expression::EstablishedOrRelated => {
            state(out, NF_CT_STATE_ESTABLISHED_BIT | NF_CT_STATE_RELATED_BIT);
        }
        Expression::New => state(out, NF_CT_STATE_NEW_BIT),
        Expression::InvalidOrNew => state(out, NF_CT_STATE_INVALID_BIT | NF_CT_STATE_NEW_BIT),
        Expression::Confirmed => {
            ct(out, NFT_CT_STATUS);
            // In host byte order.
            mask(out, &IPS_CONFIRMED.to_ne_bytes(), &[0; 4]);
            cmp(out, NFT_CMP_NEQ, &[0; 4]);
        }
        Expression::ConnectionNotIn { family, source, set } => {
            connection(out, *family, *source);
            lookup(out, set, Lookup::NotIn);
        }
        Expression::AddConnection { family, source, set } => {
            connection(out, *family, *source);
            kernel_expression(out, "dynset", |d| {
                d.text(NFTA_DYNSET_SET_NAME, set).number(NFTA_DYNSET_OP, NFT_DYNSET_OP_ADD);
                d.number(NFTA_DYNSET_SREG_KEY, KEY);
            });
        }
        Expression::Revoked => {
            ct(out, NFT_CT_LABELS);
            mask(out, &label_bytes(), &[0; 16]);
            cmp(out, NFT_CMP_NEQ, &[0; 16]);
        }
        Expression::SetRevoked => {
            immediate(out, KEY, |data| {
                data.put(NFTA_DATA_VALUE, &label_bytes());
            });
            kernel_expression(out, "ct", |d| {
                d.number(NFTA_CT_KEY, NFT_CT_LABELS).number(NFTA_CT_SREG, KEY);
            });
        }
        Expression::Limit { rate, burst } => kernel_expression(out, "limit", |d| limit(d, *rate, *burst)),
        Expression::LimitEach { family, source, set, rate, burst } => {
            address(out, KEY, *family, *source);
            kernel_expression(out, "dynset", |d| {
                d.text(NFTA_DYNSET_SET_NAME, set).number(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
                d.number(NFTA_DYNSET_SREG_KEY, KEY).nest(NFTA_DYNSET_EXPR, |e| {
                    e.text(NFTA_EXPR_NAME, "limit").nest(NFTA_EXPR_DATA, |d| limit(d, *rate, *burst));
                });
            });
        }
        Expression::Reject(answer) => kernel_expression(out, "reject", |d| {
            match answer {
                Answer::Reset => d.number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST),
                Answer::Prohibited => d
                    .number(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH)
                    .put(NFTA_REJECT_ICMP_CODE, &[NFT_REJECT_ICMPX_ADMIN_PROHIBITED]),
            };
        }),
        Expression::Log(group, prefix) => kernel_expression(out, "log", |d| {
            d.put(NFTA_LOG_GROUP, &group.to_be_bytes()).text(NFTA_LOG_PREFIX, prefix);
        }),
        Expression::Counter => kernel_expression(out, "counter", |_| {}),
        Expression::Queue { number, bypass, by_target: false } => kernel_expression(out, "queue", |d| {
            let flags = if *bypass { NFT_QUEUE_FLAG_BYPASS } else { 0 };
            d.put(NFTA_QUEUE_NUM, &number.to_be_bytes()).put(NFTA_QUEUE_FLAGS, &flags.to_be_bytes());
        }),
        Expression::Queue { number, bypass, by_target: true } => kernel_expression(out, "target", |d| {
            // `struct xt_NFQ_info_v3`: the number, how many queues, and flags (`NFQ_FLAG_BYPASS` is 1); aligned to 8 bytes.
            let flags = u16::from(*bypass);
            let info = [number.to_ne_bytes(), 1u16.to_ne_bytes(), flags.to_ne_bytes(), [0; 2]].concat();
            d.text(NFTA_TARGET_NAME, "NFQUEUE").number(NFTA_TARGET_REV, 3).put(NFTA_TARGET_INFO, &info);
        }),
        Expression::Verdict(outcome) => immediate(out, NFT_REG_VERDICT, |data| verdict(data, outcome)),
    }
}

/// Puts the number in the key's first register into network byte order, as ranges of keys with several parts need it.
fn to_network_byte_order(out: &mut AttributeWriter) {
    kernel_expression(out, "byteorder", |d| {
        d.number(NFTA_BYTEORDER_SREG, KEY).number(NFTA_BYTEORDER_DREG, KEY);
        d.number(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON);
        d.number(NFTA_BYTEORDER_LEN, 4).number(NFTA_BYTEORDER_SIZE, 4);
    });
}

/// Writes a limit of packets per second.
fn limit(out: &mut AttributeWriter, rate: u64, burst: u32) {
    out.put(NFTA_LIMIT_RATE, &rate.to_be_bytes()).put(NFTA_LIMIT_UNIT, &1u64.to_be_bytes());
    out.number(NFTA_LIMIT_BURST, burst).number(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
    out.number(NFTA_LIMIT_FLAGS, 0);
}

fn kernel_expression(out: &mut AttributeWriter, name: &str, data: impl FnOnce(&mut AttributeWriter)) {
    out.nest(NFTA_LIST_ELEM, |e| {
        e.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data);
    });
}

fn meta(out: &mut AttributeWriter, key: u32) {
    meta_into(out, key, KEY);
}

fn meta_into(out: &mut AttributeWriter, key: u32, register: u32) {
    kernel_expression(out, "meta", |d| {
        d.number(NFTA_META_KEY, key).number(NFTA_META_DREG, register);
    });
}

/// Matches if `ct state` has one of these bits.
fn state(out: &mut AttributeWriter, bits: u32) {
    ct(out, NFT_CT_STATE);
    // The state is in host byte order.
    mask(out, &bits.to_ne_bytes(), &[0; 4]);
    cmp(out, NFT_CMP_NEQ, &[0; 4]);
}

fn ct(out: &mut AttributeWriter, key: u32) {
    ct_into(out, key, KEY);
}

fn ct_into(out: &mut AttributeWriter, key: u32, register: u32) {
    kernel_expression(out, "ct", |d| {
        d.number(NFTA_CT_KEY, key).number(NFTA_CT_DREG, register);
    });
}

/// Loads an address of the packet, and what connection tracking calls its connection.
fn connection(out: &mut AttributeWriter, family: Family, source: bool) {
    address(out, KEY, family, source);
    ct_into(out, NFT_CT_ID, if family == Family::V4 { SECOND_V4 } else { SECOND_V6 });
}

fn payload(out: &mut AttributeWriter, register: u32, base: u32, offset: u32, length: u32) {
    kernel_expression(out, "payload", |d| {
        d.number(NFTA_PAYLOAD_DREG, register).number(NFTA_PAYLOAD_BASE, base);
        d.number(NFTA_PAYLOAD_OFFSET, offset).number(NFTA_PAYLOAD_LEN, length);
    });
}

/// Matches if the packet has an IPv4 option or an IPv6 extension header of a type.
fn header_exists(out: &mut AttributeWriter, operation: u32, kind: u8) {
    kernel_expression(out, "exthdr", |d| {
        d.number(NFTA_EXTHDR_DREG, KEY).put(NFTA_EXTHDR_TYPE, &[kind]);
        d.number(NFTA_EXTHDR_OFFSET, 0).number(NFTA_EXTHDR_LEN, 1);
        d.number(NFTA_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT).number(NFTA_EXTHDR_OP, operation);
    });
    cmp(out, NFT_CMP_EQ, &[1]);
}

/// Loads a part of the transport header.
fn transport(out: &mut AttributeWriter, register: u32, offset: u32, length: u32) {
    payload(out, register, NFT_PAYLOAD_TRANSPORT_HEADER, offset, length);
}

/// Loads the source or destination address of the IP header.
fn address(out: &mut AttributeWriter, register: u32, family: Family, source: bool) {
    let (offset, length) = match (family, source) {
        (Family::V4, true) => (IPV4_SOURCE, 4),
        (Family::V4, false) => (IPV4_DESTINATION, 4),
        (Family::V6, true) => (IPV6_SOURCE, 16),
        (Family::V6, false) => (IPV6_DESTINATION, 16),
    };
    payload(out, register, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
}

/// Loads what a frame says of its sender.
fn sender(out: &mut AttributeWriter, register: u32, field: SenderField) {
    match field {
        SenderField::Hardware => payload(out, register, NFT_PAYLOAD_LL_HEADER, ETHERNET_SOURCE, 6),
        SenderField::Source(family) => address(out, register, family, true),
        SenderField::ArpSource => payload(out, register, NFT_PAYLOAD_NETWORK_HEADER, ARP_SOURCE, 4),
        SenderField::Target => transport(out, register, ND_TARGET, 16),
    }
}

/// Compares what a packet says of its sender, an address, with a network.
fn sender_in(out: &mut AttributeWriter, field: SenderField, network: IpNet) {
    let offset = match field {
        SenderField::Source(Family::V4) => Some(IPV4_SOURCE),
        SenderField::Source(Family::V6) => Some(IPV6_SOURCE),
        SenderField::ArpSource => Some(ARP_SOURCE),
        _ => None,
    };
    in_network(out, offset, network, |out| sender(out, KEY, field));
}

/// Compares an address with a network. As the program `nft` does it: without a mask if the network's prefix is whole octets of a header's field, which
/// has this offset.
fn in_network(
    out: &mut AttributeWriter,
    offset: Option<u32>,
    network: IpNet,
    load: impl FnOnce(&mut AttributeWriter),
) {
    let (wanted, bits) = (octets(network.network()), network.prefix_len());
    if let (Some(offset), true) = (offset, bits.is_multiple_of(8)) {
        payload(out, KEY, NFT_PAYLOAD_NETWORK_HEADER, offset, u32::from(bits / 8));
        cmp(out, NFT_CMP_EQ, &wanted[..usize::from(bits / 8)]);
        return;
    }
    load(out);
    mask(out, &octets(network.netmask()), &vec![0; wanted.len()]);
    cmp(out, NFT_CMP_EQ, &wanted);
}

/// Loads source and destination address, one behind the other.
fn pair(out: &mut AttributeWriter, family: Family) {
    address(out, KEY, family, true);
    address(out, if family == Family::V4 { SECOND_V4 } else { SECOND_V6 }, family, false);
}

/// Loads what identifies a connection: source and destination address, protocol, and ports if the protocol has any.
fn tuple(out: &mut AttributeWriter, family: Family, has_ports: HasPorts) {
    pair(out, family);
    let [protocol, source_port, port] = if family == Family::V4 { BEHIND_V4 } else { BEHIND_V6 };
    meta_into(out, NFT_META_L4PROTO, protocol);
    if has_ports == HasPorts::Yes {
        transport(out, source_port, SOURCE_PORT, 2);
        transport(out, port, DESTINATION_PORT, 2);
    }
}

fn cmp(out: &mut AttributeWriter, operator: u32, value: &[u8]) {
    kernel_expression(out, "cmp", |d| {
        d.number(NFTA_CMP_SREG, KEY).number(NFTA_CMP_OP, operator).nest(NFTA_CMP_DATA, |v| {
            v.put(NFTA_DATA_VALUE, value);
        });
    });
}

/// Matches an inclusive range, with one comparison if it is a single value.
fn range(out: &mut AttributeWriter, first: &[u8], last: &[u8]) {
    if first == last {
        cmp(out, NFT_CMP_EQ, first);
    } else {
        cmp(out, NFT_CMP_GTE, first);
        cmp(out, NFT_CMP_LTE, last);
    }
}

fn mask(out: &mut AttributeWriter, mask: &[u8], xor: &[u8]) {
    kernel_expression(out, "bitwise", |d| {
        d.number(NFTA_BITWISE_SREG, KEY)
            .number(NFTA_BITWISE_DREG, KEY)
            .number(NFTA_BITWISE_LEN, mask.len() as u32)
            .nest(NFTA_BITWISE_MASK, |v| {
                v.put(NFTA_DATA_VALUE, mask);
            })
            .nest(NFTA_BITWISE_XOR, |v| {
                v.put(NFTA_DATA_VALUE, xor);
            });
    });
}

/// What a lookup does with the element that it finds.
#[derive(Clone, Copy)]
enum Lookup {
    /// Matches if there is one.
    In,
    /// Matches if there is none.
    NotIn,
    /// Applies the element's verdict.
    Verdict,
}

fn lookup(out: &mut AttributeWriter, set: &str, lookup: Lookup) {
    kernel_expression(out, "lookup", |d| {
        d.text(NFTA_LOOKUP_SET, set).number(NFTA_LOOKUP_SREG, KEY);
        match lookup {
            Lookup::In => {}
            Lookup::NotIn => drop(d.number(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV)),
            Lookup::Verdict => drop(d.number(NFTA_LOOKUP_DREG, NFT_REG_VERDICT)),
        }
    });
}

fn immediate(out: &mut AttributeWriter, register: u32, data: impl FnOnce(&mut AttributeWriter)) {
    kernel_expression(out, "immediate", |d| {
        d.number(NFTA_IMMEDIATE_DREG, register).nest(NFTA_IMMEDIATE_DATA, data);
    });
}

fn verdict(out: &mut AttributeWriter, outcome: &Outcome) {
    match outcome {
        Outcome::Drop => code(out, NF_DROP, None),
        Outcome::Accept => code(out, NF_ACCEPT, None),
        Outcome::Goto(chain) => code(out, NFT_GOTO, Some(chain)),
        Outcome::Jump(chain) => code(out, NFT_JUMP, Some(chain)),
        Outcome::Return => code(out, NFT_RETURN, None),
    }
}

/// Writes a jump to a chain, as the data of a map element.
pub(super) fn jump(out: &mut AttributeWriter, chain: &str) {
    code(out, NFT_JUMP, Some(chain));
}

fn code(out: &mut AttributeWriter, code: i32, chain: Option<&str>) {
    out.nest(NFTA_DATA_VERDICT, |v| {
        v.put(NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            v.text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

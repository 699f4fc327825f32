//! The service rules of a node as one nf_tables transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_nft::uapi::{
    netfilter::{
        NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST,
        NF_IP_PRI_NAT_SRC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
    },
    netlink::{
        NLA_F_NESTED, NLA_HDRLEN, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ALIGNTO,
        NLMSG_HDRLEN,
    },
    nf_conntrack::IPS_DST_NAT,
    nf_tables::{
        NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CT_STATUS, NFT_DATA_VERDICT, NFT_GOTO, NFT_META_L4PROTO,
        NFT_META_NFPROTO, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
        NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFT_NAT_DNAT, NFT_NG_RANDOM, NFT_PAYLOAD_NETWORK_HEADER,
        NFT_PAYLOAD_TRANSPORT_HEADER, NFT_REG_VERDICT, NFT_REG32_00, NFT_REG32_01, NFT_REG32_04,
        NFT_REJECT_ICMPX_PORT_UNREACH, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_TCP_RST, NFT_SET_MAP,
        NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_SREG, NFTA_BITWISE_XOR,
        NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_CMP_DATA, NFTA_CMP_OP, NFTA_CMP_SREG,
        NFTA_CT_DREG, NFTA_CT_KEY, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME,
        NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_IMMEDIATE_DATA, NFTA_IMMEDIATE_DREG, NFTA_LIST_ELEM,
        NFTA_LOOKUP_DREG, NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_META_DREG, NFTA_META_KEY, NFTA_NAT_FAMILY,
        NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_TYPE, NFTA_NG_DREG, NFTA_NG_MODULUS,
        NFTA_NG_OFFSET, NFTA_NG_TYPE, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_LEN,
        NFTA_PAYLOAD_OFFSET, NFTA_REJECT_ICMP_CODE, NFTA_REJECT_TYPE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS,
        NFTA_SET_DATA_TYPE, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
        NFTA_SET_ELEM_LIST_SET, NFTA_SET_FLAGS, NFTA_SET_ID, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE,
        NFTA_SET_NAME, NFTA_TABLE_NAME, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE,
    },
    nfnetlink::{NFGENMSG_LEN, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, message_type},
    nftables::{TYPE_INET_PROTOCOL, TYPE_INET_SERVICE, TYPE_IP6ADDR, TYPE_IPADDR, concatenation},
};
use palisade_policy::{Family, Protocol};

use crate::services::Frontend;

/// The table that holds the translation on every node.
pub const TABLE: &str = "palisade-lab-services";

/// What a node's kernel must hold: the backends of each frontend.
pub(super) type Rules = BTreeMap<Frontend, BTreeSet<(IpAddr, u16)>>;

/// Elements in one message: an attribute holds at most 64 KiB, an element at most about 100 bytes.
const ELEMENTS_AT_ONCE: usize = 400;

/// The chain that rejects packets to services without backends.
const REFUSE: &str = "refuse";

/// The base chains: name, type, hook number, priority. `refuse-…` run before filter chains of other programs (priority 0), as
/// those of kube-proxy do.
const BASE: [(&str, &str, u32, i32); 5] = [
    ("prerouting", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST),
    ("output", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST),
    ("postrouting", "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC),
    ("refuse-forward", "filter", NF_INET_FORWARD, -10),
    ("refuse-output", "filter", NF_INET_LOCAL_OUT, -10),
];

/// A buffer of netlink attributes.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.0.extend(((payload.len() + NLA_HDRLEN) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(NLMSG_ALIGNTO), 0);
        self
    }

    fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.0)
    }

    /// Appends one expression of a rule.
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest(NFTA_LIST_ELEM, |e| {
            e.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        })
    }
}

/// A transaction under construction.
pub(super) struct Batch {
    bytes: Vec<u8>,
    texts: Vec<String>,
    last: usize,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), texts: Vec::new(), last: 0 };
        batch.message(NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES, &[], "begin a transaction");
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8], text: &str) {
        self.last = self.bytes.len();
        self.bytes.extend(((NLMSG_HDRLEN + NFGENMSG_LEN + attributes.len()) as u32).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // The sequence number is the index of the message; port 0 is the kernel.
        self.bytes.extend((self.texts.len() as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        self.texts.push(text.to_owned());
    }

    fn object(&mut self, kind: u16, flags: u16, text: &str, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        // The attribute of the table's name has this number for every object.
        attributes.text(NFTA_TABLE_NAME, TABLE);
        fill(&mut attributes);
        self.message(message_type(NFNL_SUBSYS_NFTABLES, kind), flags, NFPROTO_INET, 0, &attributes.0, text);
    }

    fn chain(&mut self, name: &str, base: Option<(&str, u32, i32)>) {
        self.object(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &format!("add chain {name}"), |a| {
            a.text(NFTA_CHAIN_NAME, name);
            if let Some((kind, hook, priority)) = base {
                a.nest(NFTA_CHAIN_HOOK, |h| {
                    h.number(NFTA_HOOK_HOOKNUM, hook).number(NFTA_HOOK_PRIORITY, priority as u32);
                });
                a.text(NFTA_CHAIN_TYPE, kind);
            }
        });
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Attributes)) {
        self.object(
            NFT_MSG_NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            &format!("add a rule to chain {chain}"),
            |a| {
                a.text(NFTA_RULE_CHAIN, chain).nest(NFTA_RULE_EXPRESSIONS, fill);
            },
        );
    }

    fn set(&mut self, name: &str, id: u32, key: (u32, u32), is_map: bool) {
        self.object(NFT_MSG_NEWSET, NLM_F_CREATE, &format!("add set {name}"), |a| {
            a.text(NFTA_SET_NAME, name)
                .number(NFTA_SET_FLAGS, if is_map { NFT_SET_MAP } else { 0 })
                .number(NFTA_SET_KEY_TYPE, key.0)
                .number(NFTA_SET_KEY_LEN, key.1);
            if is_map {
                a.number(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
            }
            a.number(NFTA_SET_ID, id);
        });
    }

    fn elements<T>(&mut self, set: &str, elements: &[T], write: impl Fn(&mut Attributes, &T)) {
        for chunk in elements.chunks(ELEMENTS_AT_ONCE) {
            self.object(NFT_MSG_NEWSETELEM, NLM_F_CREATE, &format!("add elements to set {set}"), |a| {
                a.text(NFTA_SET_ELEM_LIST_SET, set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for element in chunk {
                        list.nest(NFTA_LIST_ELEM, |e| write(e, element));
                    }
                });
            });
        }
    }

    /// Ends the transaction. Requests an acknowledgement of its last message.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        let flags = self.last + 6..self.last + 8;
        let with_ack = u16::from_ne_bytes([self.bytes[flags.start], self.bytes[flags.start + 1]]) | NLM_F_ACK;
        self.bytes[flags].copy_from_slice(&with_ack.to_ne_bytes());
        self.message(NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES, &[], "end a transaction");
        (self.bytes, self.texts)
    }
}

/// The names, numbers and sizes that differ between IPv4 and IPv6.
struct FamilyLayout {
    family: Family,
    /// The protocol family.
    number: u8,
    /// The offsets of source and destination address in the header, and their length.
    source: u32,
    destination: u32,
    length: u32,
    /// The type number of an address.
    address_type: u32,
    /// The register after an address in [`FIRST`].
    after: u32,
}

const FAMILIES: [FamilyLayout; 2] = [
    FamilyLayout {
        family: Family::V4,
        number: NFPROTO_IPV4,
        source: 12,
        destination: 16,
        length: 4,
        address_type: TYPE_IPADDR,
        after: NFT_REG32_01,
    },
    FamilyLayout {
        family: Family::V6,
        number: NFPROTO_IPV6,
        source: 8,
        destination: 24,
        length: 16,
        address_type: TYPE_IP6ADDR,
        after: NFT_REG32_04,
    },
];

impl FamilyLayout {
    fn name(&self, set: &str) -> String {
        format!("{set}{}", if self.family == Family::V4 { 4 } else { 6 })
    }

    fn is_family(&self, rule: &mut Attributes) {
        rule.expression("meta", |m| {
            m.number(NFTA_META_DREG, FIRST).number(NFTA_META_KEY, NFT_META_NFPROTO);
        });
        compare(rule, FIRST, NFT_CMP_EQ, &[self.number]);
    }

    /// Looks destination address, protocol and destination port up in a verdict map.
    fn dispatch(&self, rule: &mut Attributes, map: &str) {
        self.is_family(rule);
        payload(rule, FIRST, NFT_PAYLOAD_NETWORK_HEADER, self.destination, self.length);
        rule.expression("meta", |m| {
            m.number(NFTA_META_DREG, self.after).number(NFTA_META_KEY, NFT_META_L4PROTO);
        });
        // The destination port is at offset 2 of TCP, UDP and SCTP headers.
        payload(rule, self.after + 1, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
        rule.expression("lookup", |l| {
            l.text(NFTA_LOOKUP_SET, map)
                .number(NFTA_LOOKUP_SREG, FIRST)
                .number(NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
        });
    }

    fn masquerade_hairpin(&self, rule: &mut Attributes, set: &str) {
        self.is_family(rule);
        // Connection tracking stores its status in host order.
        let destination_nat = IPS_DST_NAT.to_ne_bytes();
        rule.expression("ct", |c| {
            c.number(NFTA_CT_DREG, FIRST).number(NFTA_CT_KEY, NFT_CT_STATUS);
        });
        rule.expression("bitwise", |b| {
            b.number(NFTA_BITWISE_SREG, FIRST).number(NFTA_BITWISE_DREG, FIRST).number(NFTA_BITWISE_LEN, 4);
            b.nest(NFTA_BITWISE_MASK, |d| {
                d.put(NFTA_DATA_VALUE, &destination_nat);
            });
            b.nest(NFTA_BITWISE_XOR, |d| {
                d.put(NFTA_DATA_VALUE, &[0; 4]);
            });
        });
        compare(rule, FIRST, NFT_CMP_NEQ, &[0; 4]);
        payload(rule, FIRST, NFT_PAYLOAD_NETWORK_HEADER, self.source, self.length);
        payload(rule, self.after, NFT_PAYLOAD_NETWORK_HEADER, self.destination, self.length);
        rule.expression("lookup", |l| {
            l.text(NFTA_LOOKUP_SET, set).number(NFTA_LOOKUP_SREG, FIRST);
        });
        rule.expression("masq", |_| {});
    }
}

/// The register of an address.
const FIRST: u32 = NFT_REG32_00;
/// The register after the longest address.
const PORT_REGISTER: u32 = NFT_REG32_04;

fn compare(rule: &mut Attributes, register: u32, operator: u32, value: &[u8]) {
    rule.expression("cmp", |c| {
        c.number(NFTA_CMP_SREG, register).number(NFTA_CMP_OP, operator).nest(NFTA_CMP_DATA, |d| {
            d.put(NFTA_DATA_VALUE, value);
        });
    });
}

fn payload(rule: &mut Attributes, register: u32, base: u32, offset: u32, length: u32) {
    rule.expression("payload", |p| {
        p.number(NFTA_PAYLOAD_DREG, register)
            .number(NFTA_PAYLOAD_BASE, base)
            .number(NFTA_PAYLOAD_OFFSET, offset)
            .number(NFTA_PAYLOAD_LEN, length);
    });
}

fn immediate(rule: &mut Attributes, register: u32, value: &[u8]) {
    rule.expression("immediate", |i| {
        i.number(NFTA_IMMEDIATE_DREG, register).nest(NFTA_IMMEDIATE_DATA, |d| {
            d.put(NFTA_DATA_VALUE, value);
        });
    });
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Returns the key of a frontend. Every part of a concatenated key is padded to 32-bit registers.
fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = octets(frontend.address);
    key.extend([frontend.protocol.number(), 0, 0, 0]);
    key.extend(frontend.port.to_be_bytes());
    key.extend([0, 0]);
    key
}

/// Appends the translation to one backend with probability 1/`left`. All backends are equally likely if `left` counts down.
fn to_backend(rule: &mut Attributes, layout: &FamilyLayout, (address, port): (IpAddr, u16), left: u32) {
    if left > 1 {
        rule.expression("numgen", |n| {
            n.number(NFTA_NG_DREG, FIRST)
                .number(NFTA_NG_MODULUS, left)
                .number(NFTA_NG_TYPE, NFT_NG_RANDOM)
                .number(NFTA_NG_OFFSET, 0);
        });
        compare(rule, FIRST, NFT_CMP_EQ, &[0; 4]);
    }
    immediate(rule, FIRST, &octets(address));
    immediate(rule, PORT_REGISTER, &port.to_be_bytes());
    rule.expression("nat", |n| {
        n.number(NFTA_NAT_TYPE, NFT_NAT_DNAT)
            .number(NFTA_NAT_FAMILY, u32::from(layout.number))
            .number(NFTA_NAT_REG_ADDR_MIN, FIRST)
            .number(NFTA_NAT_REG_PROTO_MIN, PORT_REGISTER);
    });
}

/// Returns the transaction that replaces the whole table.
pub(super) fn program(rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    // The table is added first, since deleting a missing table is an error.
    batch.object(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add the table", |_| {});
    batch.object(NFT_MSG_DELTABLE, 0, "delete the old table", |_| {});
    batch.object(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add the table", |_| {});
    for (name, kind, hook, priority) in BASE {
        batch.chain(name, Some((kind, hook, priority)));
    }
    batch.chain(REFUSE, None);
    // TCP is rejected by a reset: the kernel drops an ICMP error that arrives while connect(2) holds the socket.
    batch.rule(REFUSE, |r| {
        r.expression("meta", |m| {
            m.number(NFTA_META_DREG, FIRST).number(NFTA_META_KEY, NFT_META_L4PROTO);
        });
        compare(r, FIRST, NFT_CMP_EQ, &[Protocol::Tcp.number()]);
        r.expression("reject", |e| {
            e.number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST).put(NFTA_REJECT_ICMP_CODE, &[0]);
        });
    });
    batch.rule(REFUSE, |r| {
        r.expression("reject", |e| {
            e.number(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH)
                .put(NFTA_REJECT_ICMP_CODE, &[NFT_REJECT_ICMPX_PORT_UNREACH]);
        });
    });
    for layout in &FAMILIES {
        let of_family: Vec<_> =
            rules.iter().filter(|(f, _)| Family::of(f.address) == layout.family).collect();
        family_program(&mut batch, layout, &of_family);
    }
    batch
}

fn family_program(batch: &mut Batch, layout: &FamilyLayout, rules: &[(&Frontend, &BTreeSet<(IpAddr, u16)>)]) {
    let id = u32::from(layout.number) * 10;
    let key_type = concatenation(&[layout.address_type, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE]);
    let [served, refused, hairpin] = ["services", "refused", "hairpin"].map(|s| layout.name(s));
    batch.set(&served, id, (key_type, layout.length + 8), true);
    batch.set(&refused, id + 1, (key_type, layout.length + 8), true);
    batch.set(&hairpin, id + 2, (concatenation(&[layout.address_type; 2]), 2 * layout.length), false);
    let (with, without): (Vec<_>, Vec<_>) = rules.iter().partition(|(_, backends)| !backends.is_empty());
    let chains: Vec<(&Frontend, String)> =
        with.iter().enumerate().map(|(i, (f, _))| (*f, layout.name(&format!("service-{i}-v")))).collect();
    for ((_, name), (_, backends)) in chains.iter().zip(&with) {
        batch.chain(name, None);
        for (i, backend) in backends.iter().enumerate() {
            batch.rule(name, |r| to_backend(r, layout, *backend, (backends.len() - i) as u32));
        }
    }
    let verdict = |e: &mut Attributes, frontend: &Frontend, chain: &str| {
        e.nest(NFTA_SET_ELEM_KEY, |k| {
            k.put(NFTA_DATA_VALUE, &key(frontend));
        });
        e.nest(NFTA_SET_ELEM_DATA, |d| {
            d.nest(NFTA_DATA_VERDICT, |v| {
                v.number(NFTA_VERDICT_CODE, NFT_GOTO as u32).text(NFTA_VERDICT_CHAIN, chain);
            });
        });
    };
    batch.elements(&served, &chains, |e, (frontend, chain)| verdict(e, frontend, chain));
    batch.elements(&refused, &without, |e, (frontend, _)| verdict(e, frontend, REFUSE));
    let pods: Vec<IpAddr> =
        rules.iter().flat_map(|(_, b)| b.iter().map(|b| b.0)).collect::<BTreeSet<_>>().into_iter().collect();
    batch.elements(&hairpin, &pods, |e, address| {
        e.nest(NFTA_SET_ELEM_KEY, |k| {
            k.put(NFTA_DATA_VALUE, &octets(*address).repeat(2));
        });
    });
    for (chain, map) in [
        ("prerouting", &served),
        ("output", &served),
        ("refuse-forward", &refused),
        ("refuse-output", &refused),
    ] {
        batch.rule(chain, |r| layout.dispatch(r, map));
    }
    batch.rule("postrouting", |r| layout.masquerade_hairpin(r, &hairpin));
}

//! The service rules of a node as one nf_tables transaction. Numbers are from `linux/netfilter/nf_tables.h`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::Family;

use crate::services::Frontend;

/// The table that holds the translation on every node.
pub const TABLE: &str = "palisade-lab-services";

/// What a node's kernel must hold: the backends of each frontend.
pub(super) type Rules = BTreeMap<Frontend, BTreeSet<(IpAddr, u16)>>;

/// `NFPROTO_INET`, `NFNL_SUBSYS_NFTABLES`.
const INET: u8 = 1;
const NFTABLES: u16 = 10;

/// `NFNL_MSG_BATCH_*` and `NFT_MSG_*`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = NFTABLES << 8;
const DELTABLE: u16 = NEWTABLE + 2;
const NEWCHAIN: u16 = NEWTABLE + 3;
const NEWRULE: u16 = NEWTABLE + 6;
const NEWSET: u16 = NEWTABLE + 9;
const NEWSETELEM: u16 = NEWTABLE + 12;

/// `NLM_F_*`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_LIST_ELEM`, `NLA_F_NESTED`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const ELEMENT: u16 = 1;
const NESTED: u16 = 1 << 15;

/// `NFT_GOTO`.
const GOTO: u32 = -4i32 as u32;

/// `NFT_SET_MAP`, `NFT_DATA_VERDICT`.
const MAP: u32 = 8;
const VERDICT_DATA: u32 = 0xffff_ff00;

/// Type numbers of the `nft` program. In a concatenation each takes six bits (`datatype.h`).
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

/// Elements in one message: an attribute holds at most 64 KiB, an element at most about 100 bytes.
const ELEMENTS_AT_ONCE: usize = 400;

/// The chain that rejects packets to services without backends.
const REFUSE: &str = "refuse";

/// The base chains: name, type, hook number, priority. `refuse-…` run before filter chains of other programs (priority 0), as
/// those of kube-proxy do.
const BASE: [(&str, &str, u32, i32); 5] = [
    ("prerouting", "nat", 0, -100),
    ("output", "nat", 3, -100),
    ("postrouting", "nat", 4, 100),
    ("refuse-forward", "filter", 2, -10),
    ("refuse-output", "filter", 3, -10),
];

/// A buffer of netlink attributes.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.0.extend(((payload.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
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
        self.put(kind | NESTED, &inner.0)
    }

    /// Appends one expression of a rule.
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest(ELEMENT, |e| {
            e.text(1, name).nest(2, fill);
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
        batch.message(BATCH_BEGIN, 0, 0, NFTABLES, &[], "begin a transaction");
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8], text: &str) {
        self.last = self.bytes.len();
        self.bytes.extend((20 + attributes.len() as u32).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
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
        attributes.text(1, TABLE);
        fill(&mut attributes);
        self.message(kind, flags, INET, 0, &attributes.0, text);
    }

    fn chain(&mut self, name: &str, base: Option<(&str, u32, i32)>) {
        self.object(NEWCHAIN, CREATE, &format!("add chain {name}"), |a| {
            a.text(3, name);
            if let Some((kind, hook, priority)) = base {
                a.nest(4, |h| {
                    h.number(1, hook).number(2, priority as u32);
                });
                a.text(7, kind);
            }
        });
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Attributes)) {
        self.object(NEWRULE, CREATE | APPEND, &format!("add a rule to chain {chain}"), |a| {
            a.text(2, chain).nest(4, fill);
        });
    }

    fn set(&mut self, name: &str, id: u32, key: (u32, u32), is_map: bool) {
        self.object(NEWSET, CREATE, &format!("add set {name}"), |a| {
            a.text(2, name).number(3, if is_map { MAP } else { 0 }).number(4, key.0).number(5, key.1);
            if is_map {
                a.number(6, VERDICT_DATA);
            }
            a.number(10, id);
        });
    }

    fn elements<T>(&mut self, set: &str, elements: &[T], write: impl Fn(&mut Attributes, &T)) {
        for chunk in elements.chunks(ELEMENTS_AT_ONCE) {
            self.object(NEWSETELEM, CREATE, &format!("add elements to set {set}"), |a| {
                a.text(2, set).nest(3, |list| {
                    for element in chunk {
                        list.nest(ELEMENT, |e| write(e, element));
                    }
                });
            });
        }
    }

    /// Ends the transaction. Requests an acknowledgement of its last message.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        let flags = self.last + 6..self.last + 8;
        let with_ack = u16::from_ne_bytes([self.bytes[flags.start], self.bytes[flags.start + 1]]) | ACK;
        self.bytes[flags].copy_from_slice(&with_ack.to_ne_bytes());
        self.message(BATCH_END, 0, 0, NFTABLES, &[], "end a transaction");
        (self.bytes, self.texts)
    }
}

/// The names, numbers and sizes that differ between IPv4 and IPv6.
struct FamilyLayout {
    family: Family,
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    number: u8,
    /// The offsets of source and destination address in the header, and their length.
    source: u32,
    destination: u32,
    length: u32,
    /// The type number of an address.
    address_type: u32,
    /// `NFT_REG32_xx` after an address in `NFT_REG32_00`.
    after: u32,
}

const FAMILIES: [FamilyLayout; 2] = [
    FamilyLayout {
        family: Family::V4,
        number: 2,
        source: 12,
        destination: 16,
        length: 4,
        address_type: 7,
        after: 9,
    },
    FamilyLayout {
        family: Family::V6,
        number: 10,
        source: 8,
        destination: 24,
        length: 16,
        address_type: 8,
        after: 12,
    },
];

impl FamilyLayout {
    fn name(&self, set: &str) -> String {
        format!("{set}{}", if self.family == Family::V4 { 4 } else { 6 })
    }

    fn is_family(&self, rule: &mut Attributes) {
        rule.expression("meta", |m| {
            m.number(1, FIRST).number(2, 15);
        });
        compare(rule, FIRST, 0, &[self.number]);
    }

    /// Looks destination address, protocol and destination port up in a verdict map.
    fn dispatch(&self, rule: &mut Attributes, map: &str) {
        self.is_family(rule);
        payload(rule, FIRST, 1, self.destination, self.length);
        rule.expression("meta", |m| {
            m.number(1, self.after).number(2, 16);
        });
        payload(rule, self.after + 1, 2, 2, 2);
        rule.expression("lookup", |l| {
            l.text(1, map).number(2, FIRST).number(3, 0);
        });
    }

    fn masquerade_hairpin(&self, rule: &mut Attributes, set: &str) {
        self.is_family(rule);
        // `NFT_CT_STATUS` and its bit `IPS_DST_NAT`. Numbers of connection tracking are in host order.
        let destination_nat = 0x20u32.to_ne_bytes();
        rule.expression("ct", |c| {
            c.number(1, FIRST).number(2, 2);
        });
        rule.expression("bitwise", |b| {
            b.number(1, FIRST).number(2, FIRST).number(3, 4);
            b.nest(4, |d| {
                d.put(VALUE, &destination_nat);
            });
            b.nest(5, |d| {
                d.put(VALUE, &[0; 4]);
            });
        });
        compare(rule, FIRST, 1, &[0; 4]);
        payload(rule, FIRST, 1, self.source, self.length);
        payload(rule, self.after, 1, self.destination, self.length);
        rule.expression("lookup", |l| {
            l.text(1, set).number(2, FIRST);
        });
        rule.expression("masq", |_| {});
    }
}

/// `NFT_REG32_00`.
const FIRST: u32 = 8;
/// `NFT_REG32_04`, after the longest address.
const PORT_REGISTER: u32 = 12;

fn compare(rule: &mut Attributes, register: u32, operator: u32, value: &[u8]) {
    rule.expression("cmp", |c| {
        c.number(1, register).number(2, operator).nest(3, |d| {
            d.put(VALUE, value);
        });
    });
}

fn payload(rule: &mut Attributes, register: u32, base: u32, offset: u32, length: u32) {
    rule.expression("payload", |p| {
        p.number(1, register).number(2, base).number(3, offset).number(4, length);
    });
}

fn immediate(rule: &mut Attributes, register: u32, value: &[u8]) {
    rule.expression("immediate", |i| {
        i.number(1, register).nest(2, |d| {
            d.put(VALUE, value);
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
            // `NFT_NG_RANDOM`.
            n.number(1, FIRST).number(2, left).number(3, 1).number(4, 0);
        });
        compare(rule, FIRST, 0, &[0; 4]);
    }
    immediate(rule, FIRST, &octets(address));
    immediate(rule, PORT_REGISTER, &port.to_be_bytes());
    rule.expression("nat", |n| {
        // `NFT_NAT_DNAT`.
        n.number(1, 1).number(2, u32::from(layout.number)).number(3, FIRST).number(5, PORT_REGISTER);
    });
}

/// Returns the transaction that replaces the whole table.
pub(super) fn program(rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    // The table is added first, since deleting a missing table is an error.
    batch.object(NEWTABLE, CREATE, "add the table", |_| {});
    batch.object(DELTABLE, 0, "delete the old table", |_| {});
    batch.object(NEWTABLE, CREATE, "add the table", |_| {});
    for (name, kind, hook, priority) in BASE {
        batch.chain(name, Some((kind, hook, priority)));
    }
    batch.chain(REFUSE, None);
    // TCP is rejected by a reset: the kernel drops an ICMP error that arrives while connect(2) holds the socket.
    batch.rule(REFUSE, |r| {
        r.expression("meta", |m| {
            m.number(1, FIRST).number(2, 16);
        });
        compare(r, FIRST, 0, &[6]);
        // `NFT_REJECT_TCP_RST`.
        r.expression("reject", |e| {
            e.number(1, 1).put(2, &[0]);
        });
    });
    batch.rule(REFUSE, |r| {
        // `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
        r.expression("reject", |e| {
            e.number(1, 2).put(2, &[1]);
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
    let key_type = layout.address_type << 12 | TYPE_PROTOCOL << 6 | TYPE_PORT;
    let [served, refused, hairpin] = ["services", "refused", "hairpin"].map(|s| layout.name(s));
    batch.set(&served, id, (key_type, layout.length + 8), true);
    batch.set(&refused, id + 1, (key_type, layout.length + 8), true);
    batch.set(&hairpin, id + 2, (layout.address_type << 6 | layout.address_type, 2 * layout.length), false);
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
        e.nest(1, |k| {
            k.put(VALUE, &key(frontend));
        });
        e.nest(2, |d| {
            d.nest(VERDICT, |v| {
                v.number(1, GOTO).text(2, chain);
            });
        });
    };
    batch.elements(&served, &chains, |e, (frontend, chain)| verdict(e, frontend, chain));
    batch.elements(&refused, &without, |e, (frontend, _)| verdict(e, frontend, REFUSE));
    let pods: Vec<IpAddr> =
        rules.iter().flat_map(|(_, b)| b.iter().map(|b| b.0)).collect::<BTreeSet<_>>().into_iter().collect();
    batch.elements(&hairpin, &pods, |e, address| {
        e.nest(1, |k| {
            k.put(VALUE, &octets(*address).repeat(2));
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

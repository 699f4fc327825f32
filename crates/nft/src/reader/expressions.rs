//! Reads the kernel expressions of a rule.

use std::fmt;

use super::attributes::Attributes;
use crate::uapi::{
    netfilter::{NF_ACCEPT, NF_DROP},
    nf_tables::*,
};

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The packet passes this hook.
    Accept,
    /// The packet is dropped.
    Drop,
    /// Back to the rule after the last jump.
    Return,
    /// To a chain, and back at its end.
    Jump(String),
    /// To a chain, without coming back.
    Goto(String),
    /// Another verdict code.
    Other(i32),
}

/// One kernel expression. Registers have the numbers of the kernel's user API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are documented in linux/netfilter/nf_tables.h")]
pub enum Operation {
    /// `meta load`.
    Meta { key: u32, register: u32 },
    /// `ct load`.
    Ct { key: u32, register: u32 },
    /// `ct set`.
    CtSet { key: u32, register: u32 },
    /// `payload load`.
    Payload { base: u32, offset: u32, length: u32, register: u32 },
    /// `cmp`.
    Compare { register: u32, operator: u32, value: Vec<u8> },
    /// `byteorder` of a number of four bytes, from that of the host to that of the network.
    ToNetworkOrder { source: u32, register: u32 },
    /// `bitwise`, the boolean form.
    Bitwise { source: u32, register: u32, mask: Vec<u8>, xor: Vec<u8> },
    /// `lookup`. With a destination register, the data of the element goes there.
    Lookup { set: String, register: u32, into: Option<u32>, inverted: bool },
    /// `immediate` with a verdict.
    Verdict(Target),
    /// `immediate` with a value.
    Immediate { register: u32, value: Vec<u8> },
    /// `counter`, with the packets and bytes so far.
    Counter { packets: u64, bytes: u64 },
    /// `limit` of packets per number of seconds.
    Limit { rate: u64, seconds: u64, burst: u32, inverted: bool },
    /// `dynset` that refreshes an element of a set, or adds one, and applies the element's own statements.
    SetUpdate { set: String, register: u32, milliseconds: u64, statements: Vec<Operation> },
    /// `reject`. The code is that of an ICMP message, 0 with a TCP reset.
    Reject { kind: u32, code: u8 },
    /// `log`.
    Log { group: Option<u16>, prefix: String },
    /// `fib`.
    Fib { result: u32, flags: u32, register: u32 },
    /// `exthdr` that tells whether a packet has an IPv4 option or IPv6 extension header.
    HeaderExists { operation: u32, kind: u8, register: u32 },
    /// An expression that the agent never sends.
    Unknown(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Other(code) => write!(f, "verdict {code}"),
        }
    }
}

/// Formats the expression similarly to `nft --debug=netlink`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match self {
            Self::Meta { key, .. } => write!(f, "meta key {key}"),
            Self::Ct { key, .. } => write!(f, "ct key {key}"),
            Self::CtSet { key, .. } => write!(f, "ct key {key} set"),
            Self::Payload { base, offset, length, .. } => {
                write!(f, "payload {length} bytes at {base}+{offset}")
            }
            Self::Compare { operator, value, .. } => {
                let sign = ["==", "!=", "<", "<=", ">", ">="].get(*operator as usize).unwrap_or(&"?");
                write!(f, "{sign} 0x{}", hex(value))
            }
            Self::ToNetworkOrder { .. } => f.write_str("hton"),
            Self::Bitwise { mask, xor, .. } => write!(f, "& 0x{} ^ 0x{}", hex(mask), hex(xor)),
            Self::Lookup { set, into, inverted, .. } => {
                let (not, map) =
                    (if *inverted { "not " } else { "" }, if into.is_some() { "map " } else { "" });
                write!(f, "{not}in {map}{set}")
            }
            Self::Verdict(target) => write!(f, "{target}"),
            Self::Immediate { value, .. } => write!(f, "value 0x{}", hex(value)),
            Self::Counter { .. } => f.write_str("counter"),
            Self::Limit { rate, seconds, burst, inverted } => {
                let over = if *inverted { "over " } else { "" };
                write!(f, "limit {over}{rate} in {seconds} s burst {burst}")
            }
            Self::SetUpdate { set, milliseconds, statements, .. } => {
                let statements: Vec<String> = statements.iter().map(ToString::to_string).collect();
                write!(f, "update {set} for {milliseconds} ms with {}", statements.join(", "))
            }
            Self::Reject { kind, code } => write!(f, "reject kind {kind} code {code}"),
            Self::Log { group, prefix } => {
                write!(f, "log {prefix:?}")?;
                group.map_or(Ok(()), |group| write!(f, " group {group}"))
            }
            Self::Fib { result, flags, .. } => write!(f, "fib result {result} flags {flags}"),
            Self::HeaderExists { kind, .. } => write!(f, "exthdr {kind} exists"),
            Self::Unknown(name) => f.write_str(name),
        }
    }
}

/// Reads the list of expressions of a rule.
pub(crate) fn operations(list: Attributes<'_>) -> Vec<Operation> {
    list.map(|(_, element)| one(Attributes(element))).collect()
}

/// Reads one expression.
fn one(element: Attributes<'_>) -> Operation {
    let name = element.text(NFTA_EXPR_NAME).unwrap_or_default();
    let data = element.nested(NFTA_EXPR_DATA).unwrap_or(Attributes(&[]));
    operation(&name, data).unwrap_or(Operation::Unknown(name))
}

fn operation(name: &str, data: Attributes<'_>) -> Option<Operation> {
    Some(match name {
        "meta" => {
            Operation::Meta { key: data.number(NFTA_META_KEY)?, register: data.number(NFTA_META_DREG)? }
        }
        "ct" => {
            let key = data.number(NFTA_CT_KEY)?;
            match data.number(NFTA_CT_SREG) {
                Some(register) => Operation::CtSet { key, register },
                None => Operation::Ct { key, register: data.number(NFTA_CT_DREG)? },
            }
        }
        "payload" => Operation::Payload {
            register: data.number(NFTA_PAYLOAD_DREG)?,
            base: data.number(NFTA_PAYLOAD_BASE)?,
            offset: data.number(NFTA_PAYLOAD_OFFSET)?,
            length: data.number(NFTA_PAYLOAD_LEN)?,
        },
        "cmp" => Operation::Compare {
            register: data.number(NFTA_CMP_SREG)?,
            operator: data.number(NFTA_CMP_OP)?,
            value: data.nested(NFTA_CMP_DATA)?.get(NFTA_DATA_VALUE)?.to_vec(),
        },
        "byteorder"
            if data.number(NFTA_BYTEORDER_OP) == Some(NFT_BYTEORDER_HTON)
                && [NFTA_BYTEORDER_LEN, NFTA_BYTEORDER_SIZE].iter().all(|k| data.number(*k) == Some(4)) =>
        {
            Operation::ToNetworkOrder {
                source: data.number(NFTA_BYTEORDER_SREG)?,
                register: data.number(NFTA_BYTEORDER_DREG)?,
            }
        }
        "bitwise" => Operation::Bitwise {
            source: data.number(NFTA_BITWISE_SREG)?,
            register: data.number(NFTA_BITWISE_DREG)?,
            mask: data.nested(NFTA_BITWISE_MASK)?.get(NFTA_DATA_VALUE)?.to_vec(),
            xor: data.nested(NFTA_BITWISE_XOR)?.get(NFTA_DATA_VALUE)?.to_vec(),
        },
        "fib" => Operation::Fib {
            register: data.number(NFTA_FIB_DREG)?,
            result: data.number(NFTA_FIB_RESULT)?,
            flags: data.number(NFTA_FIB_FLAGS)?,
        },
        // With this flag the kernel doesn't use offset and length.
        "exthdr" if data.number(NFTA_EXTHDR_FLAGS) == Some(NFT_EXTHDR_F_PRESENT) => Operation::HeaderExists {
            operation: data.number(NFTA_EXTHDR_OP)?,
            kind: *data.get(NFTA_EXTHDR_TYPE)?.first()?,
            register: data.number(NFTA_EXTHDR_DREG)?,
        },
        "lookup" => Operation::Lookup {
            set: data.text(NFTA_LOOKUP_SET)?,
            register: data.number(NFTA_LOOKUP_SREG)?,
            into: data.number(NFTA_LOOKUP_DREG),
            inverted: data.number(NFTA_LOOKUP_FLAGS).unwrap_or(0) & NFT_LOOKUP_F_INV != 0,
        },
        "immediate" => {
            let content = data.nested(NFTA_IMMEDIATE_DATA)?;
            match content.nested(NFTA_DATA_VERDICT) {
                Some(v) => Operation::Verdict(target(v)?),
                None => Operation::Immediate {
                    register: data.number(NFTA_IMMEDIATE_DREG)?,
                    value: content.get(NFTA_DATA_VALUE)?.to_vec(),
                },
            }
        }
        // A counter in a request has no numbers yet.
        "counter" => Operation::Counter {
            bytes: data.get(NFTA_COUNTER_BYTES).and_then(be64).unwrap_or(0),
            packets: data.get(NFTA_COUNTER_PACKETS).and_then(be64).unwrap_or(0),
        },
        // Of packets, not of bytes.
        "limit" if data.number(NFTA_LIMIT_TYPE).unwrap_or(0) == NFT_LIMIT_PKTS => Operation::Limit {
            rate: be64(data.get(NFTA_LIMIT_RATE)?)?,
            seconds: be64(data.get(NFTA_LIMIT_UNIT)?)?,
            burst: data.number(NFTA_LIMIT_BURST)?,
            inverted: data.number(NFTA_LIMIT_FLAGS).unwrap_or(0) & NFT_LIMIT_F_INV != 0,
        },
        // The agent never sends another operation, data, a flag, or more than one statement.
        "dynset"
            if data.number(NFTA_DYNSET_OP) == Some(NFT_DYNSET_OP_UPDATE)
                && data.number(NFTA_DYNSET_FLAGS).unwrap_or(0) & NFT_DYNSET_F_INV == 0
                && [NFTA_DYNSET_SREG_DATA, NFTA_DYNSET_EXPRESSIONS]
                    .iter()
                    .all(|k| data.get(*k).is_none()) =>
        {
            Operation::SetUpdate {
                set: data.text(NFTA_DYNSET_SET_NAME)?,
                register: data.number(NFTA_DYNSET_SREG_KEY)?,
                milliseconds: data.get(NFTA_DYNSET_TIMEOUT).and_then(be64).unwrap_or(0),
                statements: data.nested(NFTA_DYNSET_EXPR).map(one).into_iter().collect(),
            }
        }
        "reject" => Operation::Reject {
            kind: data.number(NFTA_REJECT_TYPE)?,
            code: data.get(NFTA_REJECT_ICMP_CODE).and_then(|code| code.first().copied()).unwrap_or(0),
        },
        // The agent never sets these options.
        "log" if (NFTA_LOG_SNAPLEN..=NFTA_LOG_FLAGS).any(|kind| data.get(kind).is_some()) => {
            Operation::Unknown("log with options".to_owned())
        }
        "log" => Operation::Log {
            group: data
                .get(NFTA_LOG_GROUP)
                .and_then(|g| Some(u16::from_be_bytes(g.get(..2)?.try_into().ok()?))),
            prefix: data.text(NFTA_LOG_PREFIX).unwrap_or_default(),
        },
        _ => return None,
    })
}

/// Reads the attributes of a verdict.
pub(super) fn target(verdict: Attributes<'_>) -> Option<Target> {
    Some(match verdict.number(NFTA_VERDICT_CODE)? as i32 {
        NF_DROP => Target::Drop,
        NF_ACCEPT => Target::Accept,
        NFT_JUMP => Target::Jump(verdict.text(NFTA_VERDICT_CHAIN)?),
        NFT_GOTO => Target::Goto(verdict.text(NFTA_VERDICT_CHAIN)?),
        NFT_RETURN => Target::Return,
        other => Target::Other(other),
    })
}

fn be64(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(..8)?.try_into().ok()?))
}

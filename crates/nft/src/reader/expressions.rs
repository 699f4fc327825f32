//! Kernel expressions of a rule.

use std::fmt;

use super::attributes::Attributes;

/// Where a verdict leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The packet passes this hook.
    Accept,
    /// It is dropped.
    Drop,
    /// Back to the rule behind the last jump.
    Return,
    /// To a chain, and back.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
    /// Some other verdict code.
    Other(i32),
}

/// One kernel expression. Registers are numbered as the kernel's uapi numbers them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of linux/netfilter/nf_tables.h, by their names there")]
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
    /// `bitwise`, the boolean form.
    Bitwise { source: u32, register: u32, mask: Vec<u8>, xor: Vec<u8> },
    /// `lookup`; with a register, the data of the element goes there.
    Lookup { set: String, register: u32, into: Option<u32>, inverted: bool },
    /// `immediate` verdict.
    Verdict(Target),
    /// `immediate` value.
    Immediate { register: u32, value: Vec<u8> },
    /// `counter`, with packets and bytes so far.
    Counter { packets: u64, bytes: u64 },
    /// `limit`, of packets in so many seconds.
    Limit { rate: u64, seconds: u64, burst: u32, inverted: bool },
    /// `log`.
    Log { group: Option<u16>, prefix: String },
    /// `fib`.
    Fib { result: u32, flags: u32, register: u32 },
    /// Anything that we never send.
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

/// Close to what `nft --debug=netlink` prints.
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
            Self::Log { group, prefix } => {
                write!(f, "log {prefix:?}")?;
                group.map_or(Ok(()), |group| write!(f, " group {group}"))
            }
            Self::Fib { result, flags, .. } => write!(f, "fib result {result} flags {flags}"),
            Self::Unknown(name) => f.write_str(name),
        }
    }
}

/// Reads the list of expressions of a rule.
pub(crate) fn operations(list: Attributes<'_>) -> Vec<Operation> {
    list.map(|(_, element)| {
        let element = Attributes(element);
        let name = element.text(1).unwrap_or_default();
        let data = element.nested(2).unwrap_or(Attributes(&[]));
        operation(&name, data).unwrap_or(Operation::Unknown(name))
    })
    .collect()
}

fn operation(name: &str, data: Attributes<'_>) -> Option<Operation> {
    Some(match name {
        "meta" => Operation::Meta { key: data.number(2)?, register: data.number(1)? },
        "ct" => match data.number(4) {
            Some(register) => Operation::CtSet { key: data.number(2)?, register },
            None => Operation::Ct { key: data.number(2)?, register: data.number(1)? },
        },
        "payload" => Operation::Payload {
            register: data.number(1)?,
            base: data.number(2)?,
            offset: data.number(3)?,
            length: data.number(4)?,
        },
        "cmp" => Operation::Compare {
            register: data.number(1)?,
            operator: data.number(2)?,
            value: data.nested(3)?.get(1)?.to_vec(),
        },
        "bitwise" => Operation::Bitwise {
            source: data.number(1)?,
            register: data.number(2)?,
            mask: data.nested(4)?.get(1)?.to_vec(),
            xor: data.nested(5)?.get(1)?.to_vec(),
        },
        "fib" => {
            Operation::Fib { register: data.number(1)?, result: data.number(2)?, flags: data.number(3)? }
        }
        "lookup" => Operation::Lookup {
            set: data.text(1)?,
            register: data.number(2)?,
            into: data.number(3),
            inverted: data.number(5).unwrap_or(0) & 1 == 1,
        },
        "immediate" => {
            let content = data.nested(2)?;
            match content.nested(2) {
                Some(v) => Operation::Verdict(target(v)?),
                None => Operation::Immediate { register: data.number(1)?, value: content.get(1)?.to_vec() },
            }
        }
        // One that is to be made has no numbers yet.
        "counter" => Operation::Counter {
            bytes: data.get(1).and_then(be64).unwrap_or(0),
            packets: data.get(2).and_then(be64).unwrap_or(0),
        },
        // NFTA_LIMIT_TYPE 0: packets, not bytes.
        "limit" if data.number(4).unwrap_or(0) == 0 => Operation::Limit {
            rate: be64(data.get(1)?)?,
            seconds: be64(data.get(2)?)?,
            burst: data.number(3)?,
            inverted: data.number(5).unwrap_or(0) & 1 == 1,
        },
        // NFTA_LOG_SNAPLEN to NFTA_LOG_FLAGS: nothing that we ask for.
        "log" if (3..=6).any(|kind| data.get(kind).is_some()) => {
            Operation::Unknown("log with options".to_owned())
        }
        "log" => Operation::Log {
            group: data.get(1).and_then(|g| Some(u16::from_be_bytes(g.get(..2)?.try_into().ok()?))),
            prefix: data.text(2).unwrap_or_default(),
        },
        _ => return None,
    })
}

/// Reads `NFTA_VERDICT_*`.
pub(super) fn target(verdict: Attributes<'_>) -> Option<Target> {
    Some(match verdict.number(1)? as i32 {
        0 => Target::Drop,
        1 => Target::Accept,
        -3 => Target::Jump(verdict.text(2)?),
        -4 => Target::Goto(verdict.text(2)?),
        -5 => Target::Return,
        other => Target::Other(other),
    })
}

fn be64(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(..8)?.try_into().ok()?))
}

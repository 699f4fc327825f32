//! Where kernel and plan differ.

use std::fmt;

use palisade_policy::Verdict;

use crate::ruleset::TABLE;

/// The result of [`verify`](crate::verify()).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The differences between kernel and plan. Empty if they agree.
    pub differences: Vec<Difference>,
    /// The transaction number in the kernel. `None` if there is no table.
    pub generation: Option<u32>,
    /// The number of chains compared.
    pub chains: usize,
    /// The number of rules compared.
    pub rules: usize,
    /// The number of sets and maps compared.
    pub sets: usize,
    /// The number of elements compared.
    pub elements: usize,
    /// The number of packets evaluated.
    pub flows: usize,
}

impl Verification {
    /// Returns whether kernel and plan agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A difference between kernel and plan. `Display` formats it as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A table is missing: without `inet` nothing is enforced, without `bridge` frames of bridged pods other than plain IP
    /// pass.
    NoTable {
        /// `inet` or `bridge`.
        family: &'static str,
    },
    /// There is a table that the node's links don't need.
    ExtraTable {
        /// `bridge`.
        family: &'static str,
    },
    /// The table belongs to another program, or has another format.
    OtherTable {
        /// Its comment.
        comment: Option<String>,
    },
    /// The table is dormant: the kernel skips its rules.
    Dormant,
    /// The table belongs to another program's socket, and the kernel refuses changes by all others.
    Owned {
        /// The netlink port of the socket.
        port: u32,
    },
    /// A property of the table, a chain, a rule or a set differs: a flag, a size, a timeout, a comment.
    Attribute {
        /// The object: `set self4`.
        object: String,
        /// The property: `size`.
        attribute: &'static str,
        /// Its expected value. `None`: not set.
        expected: Option<String>,
        /// In the kernel.
        found: Option<String>,
    },
    /// There is an object of a kind that the agent doesn't use: a counter, a helper, a flow table.
    ExtraObject {
        /// Its kind and name.
        object: String,
    },
    /// A chain is missing.
    MissingChain {
        /// Its name.
        chain: String,
    },
    /// There is a chain that the plan doesn't need.
    ExtraChain {
        /// Its name.
        chain: String,
    },
    /// A base chain has another hook, priority or policy.
    Hook {
        /// Its name.
        chain: String,
        /// The expected hook number, priority and policy. `None`: not a base chain.
        expected: Option<(u32, i32, u32)>,
        /// In the kernel.
        found: Option<(u32, i32, u32)>,
    },
    /// A rule differs, is missing (`found` is `None`), or is extra (`expected` is `None`).
    Rule {
        /// Its chain.
        chain: String,
        /// Its position in the expected chain, from 0.
        position: usize,
        /// The expected rule, as `nft` prints it.
        expected: Option<String>,
        /// The rule in the kernel, as its expressions.
        found: Option<String>,
    },
    /// A set or map is missing.
    MissingSet {
        /// Its name.
        set: String,
    },
    /// There is a set or map that the plan doesn't need.
    ExtraSet {
        /// Its name.
        set: String,
    },
    /// A set has another type of keys, or is a map instead of a set, or the reverse.
    OtherSet {
        /// Its name.
        set: String,
    },
    /// The elements of a set or map differ.
    Elements {
        /// Its name.
        set: String,
        /// What it holds.
        about: String,
        /// The missing elements, as `nft` prints them.
        missing: Vec<String>,
        /// The extra elements.
        extra: Vec<String>,
    },
    /// The rules as read back decide about a new connection differently than the plan.
    Decision {
        /// The connection.
        flow: String,
        /// The verdict of the plan.
        plan: Verdict,
        /// The verdict of the rules, or why they are invalid.
        kernel: Result<Verdict, String>,
    },
    /// The rules as read back answer the sender of a denied packet, and the plan only drops it, or the reverse.
    Refusal {
        /// The connection.
        flow: String,
        /// Whether the plan refuses it.
        plan: bool,
    },
    /// The rules as read back record a new connection as one that policies in audit mode would deny, and the plan doesn't, or
    /// the reverse.
    Audit {
        /// The connection.
        flow: String,
        /// Whether the plan would deny it if every policy were enforced.
        plan: bool,
    },
}

impl Difference {
    /// Returns a stable name of the kind of difference.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoTable { .. } => "no-table",
            Self::ExtraTable { .. } => "extra-table",
            Self::OtherTable { .. } => "other-table",
            Self::Dormant => "dormant",
            Self::Owned { .. } => "owned",
            Self::Attribute { .. } => "attribute",
            Self::ExtraObject { .. } => "extra-object",
            Self::MissingChain { .. } => "missing-chain",
            Self::ExtraChain { .. } => "extra-chain",
            Self::Hook { .. } => "hook",
            Self::Rule { .. } => "rule",
            Self::MissingSet { .. } => "missing-set",
            Self::ExtraSet { .. } => "extra-set",
            Self::OtherSet { .. } => "other-set",
            Self::Elements { .. } => "elements",
            Self::Decision { .. } => "decision",
            Self::Refusal { .. } => "refusal",
            Self::Audit { .. } => "audit",
        }
    }
}

/// The most elements that a line lists.
const LISTED: usize = 3;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable { family: "inet" } => {
                write!(f, "there is no table inet {TABLE}: nothing is enforced")
            }
            Self::NoTable { family } => write!(
                f,
                "there is no table {family} {TABLE}: frames of bridged pods other than plain IP and ARP pass"
            ),
            Self::ExtraTable { family } => write!(f, "table {family} {TABLE} is unexpected"),
            Self::OtherTable { comment: Some(comment) } => {
                write!(f, "table inet {TABLE} has another version: its comment is {comment:?}")
            }
            Self::OtherTable { comment: None } => {
                write!(f, "table inet {TABLE} belongs to another program: it has no comment")
            }
            Self::Dormant => {
                write!(f, "table inet {TABLE} is dormant: none of its rules are enforced")
            }
            Self::Owned { port } => {
                write!(
                    f,
                    "table inet {TABLE} belongs to another program (netlink port {port}), and only that program can change it"
                )
            }
            Self::Attribute { object, attribute, expected, found } => match (found, expected) {
                (Some(found), Some(expected)) => {
                    write!(f, "{object} has {attribute} {found} instead of {expected}")
                }
                (Some(found), None) => write!(f, "{object} has unexpected {attribute} {found}"),
                (None, expected) => {
                    let expected = expected.as_deref().unwrap_or_default();
                    write!(f, "{object} lacks {attribute} {expected}")
                }
            },
            Self::ExtraObject { object } => write!(f, "{object} is unexpected"),
            Self::MissingChain { chain } => write!(f, "chain {chain} is missing"),
            Self::ExtraChain { chain } => write!(f, "chain {chain} is unexpected"),
            Self::Hook { chain, expected, found } => {
                let describe = |base: &Option<(u32, i32, u32)>| match base {
                    Some((hook, priority, policy)) => {
                        format!(
                            "on hook {hook} with priority {priority} and policy {}",
                            if *policy == 1 { "accept" } else { "drop" }
                        )
                    }
                    None => "on no hook".to_owned(),
                };
                write!(f, "chain {chain} is {} instead of {}", describe(found), describe(expected))
            }
            Self::Rule { chain, position, expected, found } => match (expected, found) {
                (Some(expected), Some(found)) => {
                    write!(f, "rule {position} of chain {chain} is [{found}] instead of `{expected}`")
                }
                (Some(expected), None) => {
                    write!(f, "rule {position} of chain {chain} is missing: `{expected}`")
                }
                (_, found) => {
                    let found = found.as_deref().unwrap_or_default();
                    write!(f, "rule {position} of chain {chain} is unexpected: [{found}]")
                }
            },
            Self::MissingSet { set } => write!(f, "set {set} is missing"),
            Self::ExtraSet { set } => write!(f, "set {set} is unexpected"),
            Self::OtherSet { set } => write!(f, "set {set} has keys or data of another type"),
            Self::Elements { set, about, missing, extra } => {
                write!(f, "set {set} ({about})")?;
                let mut list = |verb: &str, elements: &[String]| {
                    let Some(first) = elements.get(..elements.len().min(LISTED)).filter(|e| !e.is_empty())
                    else {
                        return Ok(());
                    };
                    write!(f, " {verb} {}", first.join(", "))?;
                    match elements.len() - first.len() {
                        0 => Ok(()),
                        more => write!(f, " and {more} more"),
                    }
                };
                list("lacks", missing)?;
                list(if missing.is_empty() { "has unexpected" } else { "and has unexpected" }, extra)
            }
            Self::Decision { flow, plan, kernel: Ok(kernel) } => {
                write!(f, "{flow}: {plan} by the plan, {kernel} by the kernel's rules")
            }
            Self::Refusal { flow, plan } => {
                let (by_plan, by_rules) = if *plan { ("refused", "dropped") } else { ("dropped", "refused") };
                write!(f, "{flow}: {by_plan} by the plan, {by_rules} by the kernel's rules")
            }
            Self::Audit { flow, plan } => {
                let (by_plan, by_rules) = if *plan { ("", " not") } else { (" not", "") };
                write!(
                    f,
                    "{flow}: audit would{by_plan} deny it by the plan, but{by_rules} by the kernel's rules"
                )
            }
            Self::Decision { flow, plan, kernel: Err(error) } => {
                write!(f, "{flow}: {plan} by the plan, but the kernel's rules are invalid ({error})")
            }
        }
    }
}

//! Whether the kernel holds what a plan says, and where not.
//!
//! The table is read back by the independent reader ([`crate::reader`]). Sets, elements, chains and rules are compared one
//! by one with what the plan needs; and packets are taken through the rules as read, and their fate compared with
//! [`NodePlan::decide`], so that rules which are all in place and mean something else are found too.

mod decisions;
pub(crate) mod structure;

use std::fmt;

use palisade_policy::{NodePlan, Verdict};

use crate::{
    Error, Kernel, Options, Surroundings, program::Program, reader::Ruleset, restart, ruleset::TABLE,
};

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Where kernel and plan differ; empty if they agree.
    pub differences: Vec<Difference>,
    /// The transaction number in the kernel; none where there is no table.
    pub generation: Option<u32>,
    /// How many chains were compared.
    pub chains: usize,
    /// How many rules.
    pub rules: usize,
    /// How many sets and maps.
    pub sets: usize,
    /// How many elements of them.
    pub elements: usize,
    /// How many packets were taken through the rules.
    pub flows: usize,
}

impl Verification {
    /// Whether kernel and plan agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One way in which kernel and plan differ. `Display` says it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is no table of ours: without `inet` nothing is enforced, without `bridge` frames of bridged pods that are no
    /// plain IP pass.
    NoTable {
        /// `inet` or `bridge`.
        family: &'static str,
    },
    /// There is a table of ours that the node's links do without.
    ExtraTable {
        /// `bridge`.
        family: &'static str,
    },
    /// The table says that it is not ours, or of another format.
    OtherTable {
        /// The comment beside it.
        comment: Option<String>,
    },
    /// The table is dormant: the kernel asks none of its rules.
    Dormant,
    /// The table belongs to another program's socket, and the kernel refuses all others.
    Owned {
        /// The netlink port of the socket.
        port: u32,
    },
    /// Something that is said of the table, a chain or a set differs: a flag, a size, a time-out, a comment.
    Attribute {
        /// Of what: `set self4`.
        object: String,
        /// What: `size`.
        attribute: &'static str,
        /// As it should be; none: not set.
        wanted: Option<String>,
        /// As it is.
        found: Option<String>,
    },
    /// There is an object of a kind of which we make none: a counter, a helper, a flow table.
    ExtraObject {
        /// Its kind and name.
        object: String,
    },
    /// A chain is missing.
    MissingChain {
        /// Its name.
        chain: String,
    },
    /// There is a chain that the plan does without.
    ExtraChain {
        /// Its name.
        chain: String,
    },
    /// A chain hangs on another hook than it should, or has another priority or policy.
    Hook {
        /// Its name.
        chain: String,
        /// Hook number, priority, policy: as it should be; none: on no hook.
        wanted: Option<(u32, i32, u32)>,
        /// As it is.
        found: Option<(u32, i32, u32)>,
    },
    /// A rule differs. Where both are given, the one stands in the other's place.
    Rule {
        /// Its chain.
        chain: String,
        /// Its place in the chain as it should be, from 0.
        position: usize,
        /// The rule that should be there, as `nft` prints it.
        wanted: Option<String>,
        /// The rule that is there, as the kernel has it.
        found: Option<String>,
    },
    /// A set or map is missing.
    MissingSet {
        /// Its name.
        set: String,
    },
    /// There is a set or map that the plan does without.
    ExtraSet {
        /// Its name.
        set: String,
    },
    /// A set holds keys of another type, or is a map and should not be, or the reverse.
    OtherSet {
        /// Its name.
        set: String,
    },
    /// The elements of a set or map differ.
    Elements {
        /// Its name.
        set: String,
        /// What fills it, in words.
        about: String,
        /// Those that should be there and are not, as `nft` prints them.
        missing: Vec<String>,
        /// Those that are there and should not be.
        extra: Vec<String>,
    },
    /// The rules as read back decide a new connection otherwise than the plan.
    Decision {
        /// The connection in words.
        flow: String,
        /// What the plan says.
        plan: Verdict,
        /// What the rules do with it; an error where they make no sense.
        kernel: Result<Verdict, String>,
    },
}

impl Difference {
    /// A stable name of the way in which they differ.
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
        }
    }
}

/// How many elements a line names.
const NAMED: usize = 3;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable { family: "inet" } => {
                write!(f, "there is no table inet {TABLE}: nothing is enforced")
            }
            Self::NoTable { family } => write!(
                f,
                "there is no table {family} {TABLE}: frames of bridged pods that are no plain IP or ARP pass"
            ),
            Self::ExtraTable { family } => write!(f, "table {family} {TABLE} does not belong there"),
            Self::OtherTable { comment: Some(comment) } => {
                write!(f, "table inet {TABLE} is of another version: its comment is {comment:?}")
            }
            Self::OtherTable { comment: None } => {
                write!(f, "table inet {TABLE} was made by somebody else: it has no comment")
            }
            Self::Dormant => {
                write!(f, "table inet {TABLE} is dormant: nothing of it is enforced")
            }
            Self::Owned { port } => {
                write!(
                    f,
                    "table inet {TABLE} belongs to another program (netlink port {port}), which alone may change it"
                )
            }
            Self::Attribute { object, attribute, wanted, found } => match (found, wanted) {
                (Some(found), Some(wanted)) => write!(f, "{object} has {attribute} {found}, not {wanted}"),
                (Some(found), None) => write!(f, "{object} has {attribute} {found} and should have none"),
                (None, wanted) => {
                    let wanted = wanted.as_deref().unwrap_or_default();
                    write!(f, "{object} has no {attribute} and should have {wanted}")
                }
            },
            Self::ExtraObject { object } => write!(f, "{object} does not belong there"),
            Self::MissingChain { chain } => write!(f, "chain {chain} is missing"),
            Self::ExtraChain { chain } => write!(f, "chain {chain} does not belong there"),
            Self::Hook { chain, wanted, found } => {
                let words = |base: &Option<(u32, i32, u32)>| match base {
                    Some((hook, priority, policy)) => {
                        format!(
                            "on hook {hook} with priority {priority} and policy {}",
                            if *policy == 1 { "accept" } else { "drop" }
                        )
                    }
                    None => "on no hook".to_owned(),
                };
                write!(f, "chain {chain} is {}, not {}", words(found), words(wanted))
            }
            Self::Rule { chain, position, wanted, found } => match (wanted, found) {
                (Some(wanted), Some(found)) => {
                    write!(f, "rule {position} of chain {chain} is [{found}], not `{wanted}`")
                }
                (Some(wanted), None) => write!(f, "rule {position} of chain {chain} is missing: `{wanted}`"),
                (_, found) => {
                    let found = found.as_deref().unwrap_or_default();
                    write!(f, "a rule at place {position} of chain {chain} does not belong there: [{found}]")
                }
            },
            Self::MissingSet { set } => write!(f, "set {set} is missing"),
            Self::ExtraSet { set } => write!(f, "set {set} does not belong there"),
            Self::OtherSet { set } => write!(f, "set {set} has keys or data of another type"),
            Self::Elements { set, about, missing, extra } => {
                write!(f, "set {set} ({about})")?;
                let mut list = |word: &str, elements: &[String]| {
                    let Some(first) = elements.get(..elements.len().min(NAMED)).filter(|e| !e.is_empty())
                    else {
                        return Ok(());
                    };
                    write!(f, " {word} {}", first.join(", "))?;
                    match elements.len() - first.len() {
                        0 => Ok(()),
                        more => write!(f, " and {more} more"),
                    }
                };
                list("lacks", missing)?;
                list(if missing.is_empty() { "should not hold" } else { "and should not hold" }, extra)
            }
            Self::Decision { flow, plan, kernel: Ok(kernel) } => {
                write!(f, "{flow}: the plan says {plan}, the kernel's rules {kernel}")
            }
            Self::Decision { flow, plan, kernel: Err(error) } => {
                write!(f, "{flow}: the plan says {plan}, the kernel's rules make no sense ({error})")
            }
        }
    }
}

/// Compares the kernel's table with what `plan`, `options` and `surroundings` need. Reads the whole table: `O(plan)`, for an operator's
/// question or a rare look, not for every change.
///
/// # Errors
/// What the kernel refuses, and a plan that contradicts itself.
pub fn verify(
    kernel: &mut Kernel,
    options: &Options,
    surroundings: &Surroundings,
    plan: &NodePlan,
) -> Result<Verification, Error> {
    let empty = NodePlan::default();
    let mut program = Program::new(options.clone(), surroundings.clone());
    program.change(&empty, &empty.delta_to(plan))?;
    let mut out = Verification::default();
    let Some(found) = Ruleset::read(kernel)? else {
        out.differences.push(Difference::NoTable { family: "inet" });
        return Ok(out);
    };
    out.generation = restart::number_in(&found);
    structure::compare(&found, &program, plan, &mut out);
    structure::compare_bridge(Ruleset::read_bridge(kernel)?.as_ref(), &program, plan, &mut out);
    decisions::compare(&found, options, surroundings, plan, &mut out);
    Ok(out)
}

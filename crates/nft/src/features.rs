//! What a kernel may lack without keeping policies from being enforced. It is tried, and leaves nothing: a transaction that
//! must fail at its last message changes nothing, and says whether anything before that was refused.

use std::sync::Arc;

use palisade_policy::NodePlan;

use crate::{
    Error, Kernel, Options, Surroundings,
    base::hooked,
    bridge::{Bridge, bridged},
    encode::{Encoded, encode_in},
    next::Next,
    program::Step,
    ruleset::{Expression, Hook, Message, Outcome},
};

/// Something that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The reverse path look-up in the forward hook, for the check of source addresses.
    SourceCheck,
    /// Tables of the family `bridge`, for frames that are no plain IP.
    Bridge,
}

/// What of it was asked for, and is there or not. Each is tried once.
#[derive(Debug, Default)]
pub(crate) struct Features {
    source_check: Option<bool>,
    bridge: Option<bool>,
}

impl Features {
    /// These options, less what this kernel can't do.
    pub(crate) fn possible_options(
        &mut self,
        kernel: &mut Kernel,
        options: Options,
    ) -> Result<Options, Error> {
        if !options.source_check {
            return Ok(options);
        }
        let source_check = match self.source_check {
            Some(known) => known,
            None => *self.source_check.insert(has_source_check(kernel)?),
        };
        Ok(Options { source_check, ..options })
    }

    /// These surroundings, less what this kernel can't do anything about.
    pub(crate) fn possible_surroundings(
        &mut self,
        kernel: &mut Kernel,
        surroundings: &Surroundings,
    ) -> Result<Surroundings, Error> {
        let mut out = surroundings.clone();
        if out.has_pod_ports() {
            let has_bridge = match self.bridge {
                Some(known) => known,
                None => *self.bridge.insert(has_bridge(kernel)?),
            };
            if !has_bridge {
                out.pod_ports.clear();
            }
        }
        Ok(out)
    }

    /// What was asked for and is not there.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = Feature> {
        let all = [(Feature::SourceCheck, self.source_check), (Feature::Bridge, self.bridge)];
        all.into_iter().filter(|(_, found)| *found == Some(false)).map(|(feature, _)| feature)
    }
}

/// The table in which it is tried: nobody's, whoever may own ours.
const TABLE: &str = "palisade_trial";

/// Nobody has a chain of this name, so its removal fails.
const NO_CHAIN: &str = "palisade_no_such_chain";

/// Whether `fib saddr . iif` works in the forward hook: from 5.19 on, with `CONFIG_NFT_FIB_INET`.
fn has_source_check(kernel: &mut Kernel) -> Result<bool, Error> {
    let rule = vec![Expression::NoWayBack, Expression::Then(Outcome::Drop)];
    let mut chain = hooked(Hook::Forward, vec![rule]);
    chain.name = "palisade_probe".into();
    let chain = Arc::new(chain);
    takes(
        kernel,
        vec![
            Message::CreateTable,
            Message::CreateChain(chain.clone()),
            Message::AddRule(chain, 0),
            Message::DeleteChain(NO_CHAIN.into()),
        ],
    )
}

/// Whether there can be tables of the family `bridge` (`CONFIG_NF_TABLES_BRIDGE`).
fn has_bridge(kernel: &mut Kernel) -> Result<bool, Error> {
    let (plan, delta) = (NodePlan::default(), palisade_policy::Delta::default());
    let mut step = Bridge::new().whole(&Surroundings::default(), &Next { plan: &plan, delta: &delta }, true);
    step.extend(bridged(vec![Message::DeleteChain(NO_CHAIN.into())]));
    takes(kernel, step)
}

/// Whether the kernel refuses nothing but the last of these messages.
fn takes(kernel: &mut Kernel, step: Step) -> Result<bool, Error> {
    let messages: Vec<Encoded> = step.into_iter().map(|m| encode_in(TABLE, m)).collect();
    let last = messages.last().map(|m| m.message.about()).unwrap_or_default();
    match kernel.transaction(&messages.iter().collect::<Vec<_>>()) {
        Err(Error::Refused { about, more: 0, .. }) => Ok(about == last),
        // More than the last, or the whole family.
        Err(Error::Refused { .. } | Error::NoNftables(_)) => Ok(false),
        Err(other) => Err(other),
        Ok(_) => Ok(false),
    }
}

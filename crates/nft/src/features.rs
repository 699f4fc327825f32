//! Optional kernel features: enforcement works without them.
//!
//! Each is probed with a transaction whose last message must fail. Such a transaction changes nothing, and its errors show
//! whether the kernel refused any earlier message.

use std::sync::Arc;

use palisade_policy::{Delta, NodePlan};

use crate::{
    EnforcerOptions, Error, Kernel, NodeLinks, SourceCheck,
    bridge::{Bridge, bridged},
    encode::{Encoded, encode_in},
    next_plan::NextPlan,
    phases::Step,
    refusal,
    ruleset::{Chain, Expression, Hook, Message, Outcome, Rule},
};

/// An optional kernel feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The reverse path lookup, for the check of source addresses.
    SourceCheck,
    /// Tables of the family `bridge`, for frames other than plain IP.
    Bridge,
    /// Answers to senders of what pods refuse.
    Refusals,
}

/// The features that were needed so far, and whether the kernel has them. Each is probed once.
#[derive(Debug, Default)]
pub(crate) struct Features {
    source_check: Option<bool>,
    bridge: Option<bool>,
    refusals: Option<bool>,
}

impl Features {
    /// Returns the options without what this kernel lacks.
    pub(crate) fn supported_options(
        &mut self,
        kernel: &mut Kernel,
        options: EnforcerOptions,
    ) -> Result<EnforcerOptions, Error> {
        let refusals = match self.refusals {
            Some(known) => known,
            None => *self.refusals.insert(has_refusals(kernel)?),
        };
        let options = EnforcerOptions { refusals: options.refusals && refusals, ..options };
        if !options.source_check.is_on() || !(options.reverse_route || options.early_reverse_route) {
            return Ok(options);
        }
        let source_check = match self.source_check {
            Some(known) => known,
            None => *self.source_check.insert(has_source_check(kernel)?),
        };
        let reverse_route = options.reverse_route && source_check;
        let early_reverse_route = options.early_reverse_route && source_check;
        Ok(EnforcerOptions { reverse_route, early_reverse_route, ..options })
    }

    /// Returns the options to try next after the kernel refused a transaction because of a hook that may not look up routes. `None` if they
    /// look up none.
    pub(crate) fn without_refused_route(&mut self, options: &EnforcerOptions) -> Option<EnforcerOptions> {
        if !options.source_check.is_on() {
            return None;
        }
        let EnforcerOptions { reverse_route, early_reverse_route, .. } = *options;
        if early_reverse_route && reverse_route {
            return Some(EnforcerOptions { reverse_route: false, ..options.clone() });
        }
        self.source_check = Some(false);
        (early_reverse_route || reverse_route).then(|| EnforcerOptions {
            reverse_route: false,
            early_reverse_route: false,
            ..options.clone()
        })
    }

    /// Returns the node links without those for which this kernel has no rules.
    pub(crate) fn supported_links(
        &mut self,
        kernel: &mut Kernel,
        node_links: &NodeLinks,
    ) -> Result<NodeLinks, Error> {
        let mut out = node_links.clone();
        if out.has_pod_ports() {
            let has_bridge = match self.bridge {
                Some(known) => known,
                None => *self.bridge.insert(has_bridge(kernel)?),
            };
            if !has_bridge {
                out.pod_ports.clear();
                // Nothing keeps pods on a bridge from sending with each other's hardware address.
                out.senders.retain(|(interface, _), _| !node_links.pod_bridges.contains(interface));
            }
        }
        Ok(out)
    }

    /// Returns the features that were needed and that the kernel lacks.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Feature> {
        let all = [
            (Feature::SourceCheck, self.source_check),
            (Feature::Bridge, self.bridge),
            (Feature::Refusals, self.refusals),
        ];
        all.into_iter().filter(|(_, found)| *found == Some(false)).map(|(feature, _)| feature)
    }
}

/// The table of the probes. Not the agent's table, which another program may own.
const TABLE: &str = "palisade_trial";

/// No chain has this name, so deleting it fails.
const NO_CHAIN: &str = "palisade_no_such_chain";

/// Returns whether the kernel has `fib saddr . iif` (`CONFIG_NFT_FIB_INET`). Whether hooks behind prerouting may use it, as Linux 5.19
/// and later allow, is only known when a transaction is committed: see [`Features::without_refused_route`].
fn has_source_check(kernel: &mut Kernel) -> Result<bool, Error> {
    accepts_rules(kernel, vec![vec![Expression::NoReverseRoute, Expression::Verdict(Outcome::Drop)]])
}

/// Returns whether the kernel has `reject` (`CONFIG_NFT_REJECT_INET`).
fn has_refusals(kernel: &mut Kernel) -> Result<bool, Error> {
    accepts_rules(kernel, refusal::answers())
}

/// Returns whether the kernel accepts these rules in a base chain.
fn accepts_rules(kernel: &mut Kernel, rules: Vec<Rule>) -> Result<bool, Error> {
    let chain = Arc::new(Chain { name: "palisade_probe".into(), ..Chain::base(Hook::Forward, rules) });
    let mut step = vec![Message::CreateTable];
    step.extend(Message::create_chain(&chain));
    step.push(Message::DeleteChain(NO_CHAIN.into()));
    accepts(kernel, step)
}

/// Returns whether the kernel has tables of the family `bridge` (`CONFIG_NF_TABLES_BRIDGE`).
fn has_bridge(kernel: &mut Kernel) -> Result<bool, Error> {
    let next = NextPlan { plan: &NodePlan::default(), delta: &Delta::default() };
    let options = EnforcerOptions { source_check: SourceCheck::Strict, ..EnforcerOptions::default() };
    let mut step = Bridge::new(&options).create(&NodeLinks::default(), &next, true);
    step.extend(bridged(vec![Message::DeleteChain(NO_CHAIN.into())]));
    accepts(kernel, step)
}

/// Returns whether the kernel refuses only the last of these messages.
fn accepts(kernel: &mut Kernel, step: Step) -> Result<bool, Error> {
    let messages: Vec<Encoded> = step.into_iter().map(|m| encode_in(TABLE, m)).collect();
    let last = messages.last().map(|m| m.message.describe()).unwrap_or_default();
    match kernel.transaction(&messages.iter().collect::<Vec<_>>()) {
        Err(Error::Refused { object, more: 0, .. }) => Ok(object == last),
        // Refused more than the last message, or the whole family.
        Err(Error::Refused { .. } | Error::NoNftables(_)) => Ok(false),
        Err(other) => Err(other),
        Ok(_) => Ok(false),
    }
}

//! The chains that give each local pod a share of what denied packets may cost: of the log, and of the answers to senders.
//!
//! ```text
//!   row, closed chain, … ─► NAME ─► NAME_senders ───┐     from a local pod: a share for each source
//!                            ├────► NAME_receivers ─┤     else to a local pod: a share for each destination
//!                            └──────────────────────┴─► NAME_total    one share for all the rest, and the bound of all shares together
//! ```
//!
//! A flood by one pod leaves the shares of its neighbors alone. Addresses that are not those of local pods can be forged, so that each packet would
//! be a new sender: they have a share for each pod that receives. So the sets have an element for each local pod at most, and are never
//! full. The total keeps many pods that flood at once from costing the node more than it can afford; it is the last to be asked, so that
//! what exceeds a share takes nothing from it.

use palisade_policy::{Direction, Family};

use crate::{
    base_sets::BaseSets,
    ruleset::{Chain, Expression, NodeSet, Outcome, Rule, Shared},
};

/// What is shared, and how much of it.
pub(crate) struct Shares {
    pub(crate) of: Shared,
    /// The name of the chain that packets enter, and the prefix of the others.
    pub(crate) name: &'static str,
    /// What the comments of the chains say is shared: `the log`.
    pub(crate) what: &'static str,
    /// Packets per second of each share.
    pub(crate) rate: u64,
    /// Packets at once of each share after an idle time.
    pub(crate) burst: u32,
}

impl Shares {
    /// Returns the chains, each after the chains that its rules use. `total` are the rules for a packet within its share, with the limit of all
    /// shares together. Without them the chains are empty, and packets return to the rule after the jump.
    pub(crate) fn chains(&self, sets: &BaseSets, total: Vec<Rule>) -> [Chain; 4] {
        let is_on = !total.is_empty();
        let [senders, receivers, all] =
            ["senders", "receivers", "total"].map(|of| format!("{}_{of}", self.name));
        let within = || Expression::Verdict(Outcome::Goto(all.as_str().into()));
        let share = |family: Family, source: bool| -> Rule {
            let set = sets.shares(self.of, source, family).name.clone();
            let limit = Expression::LimitEach { family, source, set, rate: self.rate, burst: self.burst };
            vec![Expression::Family(family), limit, within()]
        };
        let shares = |source: bool| -> Vec<Rule> {
            if is_on { Family::BOTH.map(|family| share(family, source)).into() } else { Vec::new() }
        };
        let by_end =
            |source: bool, chain: &str| Family::BOTH.map(|family| to_share(sets, family, source, chain));
        let rest = vec![Expression::Limit { rate: self.rate, burst: self.burst }, within()];
        let entry = by_end(true, &senders).into_iter().chain(by_end(false, &receivers)).chain([rest]);
        let entry = if is_on { entry.collect() } else { Vec::new() };
        let what = self.what;
        [
            Chain::regular(all.as_str(), format!("{what}, within the bound of all shares"), total),
            Chain::regular(senders.as_str(), format!("a share of {what} for each source"), shares(true)),
            Chain::regular(
                receivers.as_str(),
                format!("a share of {what} for each destination"),
                shares(false),
            ),
            Chain::regular(self.name, format!("{what}, within the share of the sender"), entry),
        ]
    }
}

/// Returns the rule for packets from local pods, or to them.
fn to_share(sets: &BaseSets, family: Family, source: bool, chain: &str) -> Rule {
    let end = if source { Direction::Ingress } else { Direction::Egress };
    let local = sets.node(NodeSet::Local(family)).name.clone();
    let goto = Expression::Verdict(Outcome::Goto(chain.into()));
    vec![Expression::Family(family), Expression::PeerIn(end, family, local), goto]
}

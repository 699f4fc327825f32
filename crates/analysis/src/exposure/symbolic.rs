//! Takes all pods that may exist through the tiers at once.

use palisade_policy::{
    Action, Direction, Peer, Policy, Rule, Tier, Verdict,
    tiers::{self, Carrier},
};

use super::{
    cover::{Cover, Piece},
    pod_set::{Overflow, PodSet, World},
    pod_traffic::Ports,
};

/// Returns the traffic that these policies allow with each pod that may exist. The policies are those that select one
/// subject, in order of precedence.
pub(crate) fn allowed(
    policies: &[&Policy],
    direction: Direction,
    ports: &Ports<'_>,
    world: &World,
) -> Result<Cover, Overflow> {
    let mut carrier = AllPods {
        policies,
        direction,
        ports,
        world,
        open: Cover::everywhere(ports.all()),
        passed: Cover::default(),
        allowed: Cover::default(),
        overflow: false,
    };
    tiers::fold(&mut carrier);
    if carrier.overflow { Err(Overflow) } else { Ok(carrier.allowed) }
}

/// All pods on their way through the tiers, with all traffic.
struct AllPods<'a> {
    policies: &'a [&'a Policy],
    direction: Direction,
    ports: &'a Ports<'a>,
    world: &'a World,
    /// What no rule has denied or passed yet. What rules have accepted stays in it: it is allowed in any case, and the
    /// sets stay as large as the rules state them.
    open: Cover,
    /// What rules of the current tier passed.
    passed: Cover,
    allowed: Cover,
    overflow: bool,
}

impl<'a> AllPods<'a> {
    fn rules(&self, tier: Tier) -> Vec<&'a Rule> {
        let of_tier = self.policies.iter().filter(|p| p.tier == tier);
        of_tier.filter_map(|p| p.rules(self.direction)).flatten().collect()
    }

    /// Stores a result, or that there are too many pieces; then nothing else is computed.
    fn checked(&mut self, result: Result<Cover, Overflow>) -> Cover {
        self.overflow |= result.is_err();
        result.unwrap_or_default()
    }
}

/// Returns the pods and the traffic that a rule matches.
pub(crate) fn region(rule: &Rule, ports: &Ports<'_>, world: &World) -> Vec<Piece> {
    let traffic = ports.of(rule);
    let sets: Vec<PodSet> = match &rule.peers {
        None => vec![PodSet::default()],
        Some(peers) => {
            let sets = peers.iter().filter_map(|entry| match &entry.peer {
                Peer::Pods(choice) => PodSet::of(choice),
                Peer::Block(block) => PodSet::of_block(block),
                // Pods with an address of a node are no pods to policies (G-4).
                Peer::Nodes(_) => None,
                // Nothing was learned for pods that don't exist yet.
                Peer::DomainName(_) => None,
            });
            sets.filter_map(|set| world.normal(set)).collect()
        }
    };
    sets.into_iter().map(|set| Piece { set, traffic: traffic.clone() }).collect()
}

impl<'a> Carrier for AllPods<'a> {
    type Rule = &'a Rule;
    type Traffic = Cover;

    fn ordered_rules(&mut self, tier: Tier) -> Vec<(Action, &'a Rule)> {
        self.rules(tier).into_iter().map(|rule| (rule.action, rule)).collect()
    }

    fn isolating_rules(&mut self) -> Option<Vec<&'a Rule>> {
        let mut isolating = self.policies.iter().filter(|p| p.tier == Tier::Developer);
        isolating.any(|p| p.rules(self.direction).is_some()).then(|| self.rules(Tier::Developer))
    }

    fn take(&mut self, rule: &&'a Rule) -> Cover {
        if self.overflow {
            return Cover::default();
        }
        let mut matched = Cover::default();
        for piece in region(rule, self.ports, self.world) {
            let added = matched.add(piece, self.world);
            self.overflow |= added.is_err();
        }
        let taken = self.open.intersection(&matched, self.world);
        if rule.action != Action::Accept {
            let open = std::mem::take(&mut self.open).difference(&matched, self.world);
            self.open = self.checked(open);
        }
        self.checked(taken)
    }

    fn decide(&mut self, taken: Cover, verdict: Verdict, _: &&'a Rule) {
        if verdict.is_allow() {
            self.overflow |= self.allowed.add_all(taken, self.world).is_err();
        }
    }

    fn pass(&mut self, taken: Cover, _: &&'a Rule) {
        self.overflow |= self.passed.add_all(taken, self.world).is_err();
    }

    fn end_tier(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        self.overflow |= self.open.add_all(passed, self.world).is_err();
    }

    fn decide_isolated(&mut self) {
        self.open = Cover::default();
    }

    fn decide_rest(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.overflow |= self.allowed.add_all(open, self.world).is_err();
    }
}

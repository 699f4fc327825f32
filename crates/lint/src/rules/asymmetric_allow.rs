//! `asymmetric-allow`: finds rules that allow what the policies of the other end deny.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::admits::{Other, allowed, ports};
use crate::context::Class;
use crate::index::Profile;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, Pod, Policy, Rule, Tier, Traffic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL033",
    name: "asymmetric-allow",
    level: Level::Warning,
    what: "Finds rules that allow what the policies of the other end deny.",
    why: "Both ends must allow a connection: the egress of the client and the ingress of the server. The policies of the other end deny everything that this rule allows, for all pods that exist, so the rule has no effect. With very many different pods at both ends, not all of them are compared, and nothing is found.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress: []
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: db
    ports:
    - port: 8080
      protocol: TCP
"#
);

/// How many pairs of pods are compared for a rule.
const MOST_PAIRS: usize = 500;
/// How many pairs of pods are compared for all rules.
const MOST_OF_ALL: usize = 200_000;
/// How many label sets of the other end are looked at for a rule.
const MOST_OTHERS: usize = 5_000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    let mut left = MOST_OF_ALL;
    let mut admitted = Admitted::default();
    for (policy, direction, rule) in cx.rules().filter(|(policy, ..)| policy.tier == Tier::Developer) {
        if let Some(other) = denying(cx, policy, direction, rule, &mut left, &mut admitted) {
            let (what, end) = match direction {
                Direction::Ingress => ("egress", "clients"),
                Direction::Egress => ("ingress", "servers"),
            };
            let message = format!(
                "the rule has no effect: the policies of the {end}, such as {}, deny their {what} with these pods",
                other.key
            );
            out.push(Found::of(&policy.key, rule.origin.as_ref(), message));
        }
    }
    out
}

/// Returns a policy of the other end, if the policies there deny all that a rule allows.
fn denying<'a>(
    cx: &Context<'a>,
    policy: &'a Policy,
    direction: Direction,
    rule: &'a Rule,
    left: &mut usize,
    admitted: &mut Admitted,
) -> Option<&'a Policy> {
    let peers = rule.peers.as_ref()?;
    let mut others: Vec<&Class<'_>> = Vec::new();
    let mut known = HashSet::new();
    let mut looked_at = 0;
    for entry in peers {
        let Peer::Pods(choice) = &entry.peer else { return None };
        for class in cx.matching(choice).filter(|class| !class.host_network) {
            let profile = cx.profile(class);
            // What isn't isolated denies nothing, and pods with the same policies deny the same.
            looked_at += 1;
            if profile.is_empty() || others.len() > MOST_PAIRS || looked_at > MOST_OTHERS {
                return None;
            }
            if known.insert(Rc::as_ptr(&profile)) {
                others.push(class);
            }
        }
    }
    let mut pairs = 0;
    let mut some = None;
    for subject in cx.selected(policy) {
        for other in &others {
            let more = subject.by_ports.len().max(other.by_ports.len());
            pairs += more;
            *left = left.checked_sub(more)?;
            if pairs > MOST_PAIRS || admitted.meets(cx, subject, other, direction, rule) {
                return None;
            }
            some = some.or(Some(*other));
        }
    }
    let profile = cx.profile(some?);
    let of_namespaces = cx.in_profile(&profile).filter(|p| p.rules(direction.opposite()).is_some());
    of_namespaces.into_iter().next()
}

/// What policies of the other ends allow, computed once for all rules that ask: many policies select the same pods.
#[derive(Default)]
struct Admitted(HashMap<Asked, Rc<Traffic>>);

/// The policies of one end, a pod at the other, the direction of the policies, and the pod whose port names count.
type Asked = (*const [u32], *const Pod, Direction, *const Pod);

impl Admitted {
    /// Whether the policies of the other end allow some of what a rule allows.
    fn meets(
        &mut self,
        cx: &Context<'_>,
        subject: &Class<'_>,
        other: &Class<'_>,
        direction: Direction,
        rule: &Rule,
    ) -> bool {
        let profile = cx.profile(other);
        let destinations = if direction == Direction::Ingress { subject } else { other };
        destinations.by_ports.iter().any(|pod| {
            let admitted = self.of(cx, &profile, direction.opposite(), subject.pods[0], pod);
            !admitted.intersection(&ports(rule, Some(pod))).is_none()
        })
    }

    /// Returns what the policies of a profile allow between their pods and another one. A profile and a pod are told by
    /// their place: both stay where they are while the context exists.
    fn of(
        &mut self,
        cx: &Context<'_>,
        profile: &Profile,
        direction: Direction,
        from: &Pod,
        destination: &Pod,
    ) -> Rc<Traffic> {
        let asked = (Rc::as_ptr(profile), &raw const *from, direction, &raw const *destination);
        let known = self.0.entry(asked).or_insert_with(|| {
            Rc::new(allowed(cx, profile, direction, Other::of(cx, from), Some(destination)))
        });
        Rc::clone(known)
    }
}

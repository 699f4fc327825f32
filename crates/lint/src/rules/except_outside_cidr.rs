//! `except-outside-cidr`: finds exceptions that are outside their block.

use crate::diagnostics::{about_policies, last};
use crate::written::{Written, WrittenExcept};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use ipnet::IpNet;
use palisade_manifest::{Diagnostic, OTHER_FAMILY, cidr::Cidr};
use palisade_policy::{Peer, PolicyKey};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL009",
    name: "except-outside-cidr",
    level: Level::Error,
    what: "Finds exceptions that are outside their block, that lie within another exception, or that leave nothing of the block.",
    why: "An exception can only take addresses out of the block that it belongs to. The API server rejects the policy, so its pods are not isolated. An exception within another one is accepted and changes nothing: a warning.",
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
    - ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}
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
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    let is_mixed = d.help.as_ref().is_some_and(|help| *help == OTHER_FAMILY);
    last(d) == "except" && d.message.contains("strict subset") && !is_mixed
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = about_policies(
        cx,
        fits,
        |_| "the API server rejects the policy, and what it should isolate stays open",
    );
    for (written, key) in cx.written() {
        for excepts in &written.excepts {
            swallowed(cx, (written, key), excepts, &mut out);
        }
    }
    for (policy, _, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten() {
            if matches!(&entry.peer, Peer::Block(block) if block.ranges().is_empty()) {
                let message =
                    "the exceptions take every address out of the block, so the peer allows nothing";
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message.to_owned()));
            }
        }
    }
    out
}

/// Finds the exceptions of a block that lie within another one of it. Of two that are equal, it is the second.
fn swallowed(
    cx: &Context<'_>,
    (written, key): (&Written, &PolicyKey),
    excepts: &[WrittenExcept],
    out: &mut Vec<Found>,
) {
    let mut all: Vec<(IpNet, &WrittenExcept)> =
        excepts.iter().filter_map(|e| Some((Cidr::parse(&e.text)?.canonical(), e))).collect();
    // A net sorts right after those that contain it, so the last one that was kept is the only candidate.
    all.sort_by_key(|(net, except)| (*net, except.start));
    let mut outer: Option<IpNet> = None;
    for (net, except) in all {
        match outer {
            Some(outer) if outer.contains(&net) => {
                let message = format!(
                    "{} lies within the exception {outer} of the same block, and changes nothing",
                    except.text
                );
                let found = Found::of(key, cx.origin(&written.file, except.start).as_ref(), message);
                out.push(found.at_level(Level::Warning));
            }
            _ => outer = Some(net),
        }
    }
}

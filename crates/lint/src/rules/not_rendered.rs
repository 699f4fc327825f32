//! `not-rendered`: finds files that another program has to process before they are applied.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::Diagnostic;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL057",
    name: "not-rendered",
    level: Level::Error,
    what: "Finds templates, kustomizations, encrypted files, pointers of Git LFS and markers of merge conflicts.",
    why: "What is written there is not what is applied, so nothing can be said about it. Render the input first, or let Palisade do it with -k or --helm. The exit code is 2 as long as there are such files.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: "${NAMESPACE}"}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
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
"#
);

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    d.is_unrendered()
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let found = |d: &Diagnostic| {
        let parts = [d.path.as_deref(), Some(&*d.message), d.help.as_deref()];
        Found {
            origin: d.origin.clone(),
            object: d.object.clone(),
            message: parts.into_iter().flatten().collect::<Vec<_>>().join(": "),
            ..Found::default()
        }
    };
    cx.loaded.diagnostics.iter().filter(|d| fits(d)).map(found).collect()
}

//! `deprecated-api`: finds objects in versions of the API that are no longer served, or have a successor.

use crate::diagnostics::about;
use crate::finding::{Fix, TextEdit};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};
use palisade_policy::Tier;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL014",
    name: "deprecated-api",
    level: Level::Error,
    what: "Finds objects in versions of the API that are no longer served, or have a successor.",
    why: "The API server refuses versions that it no longer serves, such as extensions/v1beta1 since Kubernetes 1.16: the policy doesn't exist. AdminNetworkPolicy and BaselineAdminNetworkPolicy of v1alpha1 still work where they are installed. Their successor is ClusterNetworkPolicy of v1alpha2, so these are notes, and warnings where both are used together, since the API doesn't define their order.",
    fix: Some(
        "Writes networking.k8s.io/v1 in place of another version of NetworkPolicy, whose fields are the same.",
    ),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: extensions/v1beta1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
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

/// What begins the help of the loader.
const USE: &str = "use apiVersion: ";

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    // Versions of routes are passed over with a warning; another program may still read them.
    let is_of_version = [Code::UnknownVersion, Code::NotEvaluated].contains(&d.code);
    d.code == Code::MixedApis || (is_of_version && served(d).is_some())
}

/// The version to use instead.
fn served(d: &Diagnostic) -> Option<&str> {
    d.help.as_deref()?.strip_prefix(USE)
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let fitting: Vec<&Diagnostic> = cx.loaded.diagnostics.iter().filter(|d| fits(d)).collect();
    let mut out = about(cx, fits, |d| match d.code {
        Code::MixedApis => "which of them decides may differ between implementations",
        _ => "the API server refuses it, so nothing applies it",
    });
    for (found, d) in out.iter_mut().zip(&fitting) {
        found.fix = fix(cx, d);
    }
    let mixed = fitting.iter().any(|d| d.code == Code::MixedApis);
    let old = cx.policies().filter(|p| p.tier != Tier::Developer && &*p.key.kind != "ClusterNetworkPolicy");
    out.extend(old.filter(|_| !mixed).map(|policy| {
        let message =
            format!("{} of v1alpha1 has a successor: ClusterNetworkPolicy of v1alpha2", policy.key.kind);
        Found::of(&policy.key, policy.origin.as_ref(), message).at_level(Level::Note)
    }));
    out
}

fn fix(cx: &Context<'_>, d: &Diagnostic) -> Option<Fix> {
    let version = served(d).filter(|version| *version == "networking.k8s.io/v1")?;
    if !d.object.as_ref()?.starts_with("NetworkPolicy ") {
        return None;
    }
    let file = &d.origin.as_ref()?.file;
    let span = d.span.as_ref()?;
    let range = span.start as usize..span.end as usize;
    let written = cx.lines.get(&**file)?.text.get(range.clone())?;
    // A place without a value of its own is not replaced.
    let is_version = written.trim_matches(['"', '\'']).contains("/v") && !written.contains('\n');
    is_version.then(|| Fix {
        text: format!("write apiVersion: {version}"),
        edits: vec![TextEdit { file: file.clone(), range, text: version.to_owned() }],
    })
}

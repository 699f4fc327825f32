//! `kind-or-group-misspelt`: finds objects of kinds that don't exist, and fields of lists that hold no objects.

use crate::diagnostics::about;
use crate::finding::{Fix, TextEdit};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_manifest::{Code, Diagnostic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL056",
    name: "kind-or-group-misspelt",
    level: Level::Error,
    what: "Finds objects whose kind or API group doesn't exist, and lists whose objects are in another field than items.",
    why: "The API server has no such kind and refuses the object, and of a list without items kubectl applies nothing. So a policy that is written like this isolates no pod.",
    fix: Some("Writes the kind and version that were probably meant, or the field items."),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking/v1
kind: networkpolicy
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

/// The help of the loader for the field of a list.
const ITEMS: &str = "did you mean `items`?";

/// Returns whether this is what the loader found.
pub(crate) fn fits(d: &Diagnostic) -> bool {
    if d.is_unrendered() {
        return false;
    }
    match d.code {
        Code::UnknownVersion => !super::deprecated_api::fits(d),
        Code::UnknownField => d.help.as_deref() == Some(ITEMS),
        Code::NotAnObject => {
            d.message.starts_with("not a Kubernetes object: ") && d.message.ends_with(" is not set")
        }
        _ => false,
    }
}

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = about(cx, fits, |_| "it can't be applied, so whatever it should isolate stays open");
    let fitting = cx.loaded.diagnostics.iter().filter(|d| fits(d));
    for (found, d) in out.iter_mut().zip(fitting) {
        found.level = Some(Level::Error);
        found.fix = fix(cx, d);
    }
    out
}

fn fix(cx: &Context<'_>, d: &Diagnostic) -> Option<Fix> {
    let file = &d.origin.as_ref()?.file;
    let text = cx.lines.get(&**file)?.text;
    let span = d.span.as_ref()?;
    let range = span.start as usize..span.end as usize;
    let edit = |range, text: &str| TextEdit { file: file.clone(), range, text: text.to_owned() };
    if d.help.as_deref() == Some(ITEMS) {
        let is_plain = text.get(range.clone())?.bytes().all(|b| b.is_ascii_alphabetic());
        let fix = Fix { text: "write `items`".to_owned(), edits: vec![edit(range, "items")] };
        return is_plain.then_some(fix);
    }
    let meant = d.help.as_deref()?.strip_prefix("did you mean ")?.strip_suffix('?')?;
    let (version, kind) = meant.split_once(' ')?;
    let header = cx.header(file, range.start)?;
    let mut edits = Vec::new();
    for (range, word) in [(header.api_version.clone(), version), (header.kind.clone(), kind)] {
        let written = text.get(range.clone())?;
        if written.contains('\n') {
            return None;
        }
        if written != word {
            edits.push(edit(range, word));
        }
    }
    (!edits.is_empty()).then(|| Fix { text: format!("write apiVersion {version} and kind {kind}"), edits })
}

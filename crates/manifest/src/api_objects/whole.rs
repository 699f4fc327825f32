//! Decodes objects of kinds that are few and complex: as manifests, with all fields.

use palisade_policy::{Interner, Name, ObjectKey, Origin};

use super::Decoded;
use crate::{
    declared::Declaration,
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    kinds,
    meta::{Meta, Object},
    options::{Admission, Channel},
    scalar::Scalar,
    text::Text,
    tree::{At, Documents, Limits, Tree, Value},
};

/// Reads an object from its JSON text, and takes from what it declares. `take` also gets the number of findings before it was decoded.
pub(super) fn read<T>(
    names: &Interner,
    object: String,
    take: impl FnOnce(&mut Context<'_>, &Object<'_>, Option<Declaration>, usize) -> Option<T>,
) -> Decoded<Option<T>> {
    let text = Text::of_cluster(object);
    let mut found = Vec::new();
    let mut cx = Context {
        text: &text,
        names,
        found: &mut found,
        strict: false,
        strict_cidr: false,
        channel: Channel::Experimental,
        admission: Admission::Passed,
        learns_names: false,
        object: None,
        errors: 0,
    };
    let value = match Documents::new(text.as_str(), Limits::default()).next() {
        Some(Ok(tree)) => of_tree(&mut cx, &tree, take),
        Some(Err(problems)) => {
            for problem in problems {
                cx.report_span(0..0, Diagnostic::new(Severity::Error, Code::NotAnObject, problem.message));
            }
            None
        }
        None => None,
    };
    for finding in &mut found {
        (finding.origin, finding.span, finding.excerpt) = (None, None, None);
    }
    Decoded { value, findings: found }
}

fn of_tree<T>(
    cx: &mut Context<'_>,
    tree: &Tree<'_>,
    take: impl FnOnce(&mut Context<'_>, &Object<'_>, Option<Declaration>, usize) -> Option<T>,
) -> Option<T> {
    let root = tree.root();
    let (kind, version) = (text_at(&root, &["kind"]), text_at(&root, &["apiVersion"]));
    let name = text_at(&root, &["metadata", "name"]).filter(|n| !n.is_empty())?;
    let namespace = text_at(&root, &["metadata", "namespace"]).unwrap_or_default();
    let (kind, version) = (kind.unwrap_or_default(), version.unwrap_or_default());
    let key = ObjectKey { namespace: cx.names.name(&namespace), name: cx.names.name(&name) };
    cx.object = Some(if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {key}") });
    let meta = Meta {
        key,
        labels: palisade_policy::Labels::default(),
        owner: None,
        created: 0,
        uid: palisade_policy::Uid::UNKNOWN,
        origin: Origin { file: Name::from(""), line: 0, column: 0 },
    };
    let version = version.rsplit('/').next().unwrap_or_default();
    let kind = kinds::named(&kind)?;
    let object = Object { kind: kind.name, version, meta, fields: Fields { at: &root } };
    let before = cx.found.len();
    let declared = (kind.decode)(cx, &object);
    take(cx, &object, declared, before)
}

/// Returns the string at a path, if there is one.
fn text_at(at: &At<'_>, path: &[&str]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return match at.value() {
            Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
            _ => None,
        };
    };
    text_at(&at.get(first)?, rest)
}

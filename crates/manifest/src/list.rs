//! Lists of objects, as `kubectl get -o yaml` writes them.
//!
//! kubectl takes any object with a field `items` for a list, and any other for a single object. A list whose field is
//! misspelled would therefore be an object without meaning, and its elements would vanish. Of a list, every field is
//! checked.

use crate::{
    decode::{Context, distance},
    diagnostic::{Code, Diagnostic, Severity},
    kinds::{self, ResourceKind},
    scalar::Scalar,
    tree::{At, Value},
};

const ITEMS: &str = "items";

/// Returns whether an object is a list: it has `items`, or its kind is that of a list of known objects.
pub(crate) fn is_list(cx: &Context<'_>, at: &At<'_>, api_version: &str, kind: &str) -> bool {
    if let Some(items) = at.get(ITEMS) {
        // A custom resource may have a field of this name that holds no objects.
        return kind.ends_with("List") || (holds_objects(&items) && !kinds::is_read(api_version, kind));
    }
    !cx.text.is_of_cluster() && is_kind_of_list(api_version, kind)
}

/// Returns whether the kind is `List`, or the list of a kind that is read.
fn is_kind_of_list(api_version: &str, kind: &str) -> bool {
    match kind.strip_suffix("List") {
        Some("") => true,
        Some(element) => kinds::is_read(api_version, element),
        None => false,
    }
}

/// Returns the list that is meant by a kind which doesn't exist, such as `v1 List`.
pub(crate) fn meant(api_version: &str, kind: &str) -> Option<String> {
    let lower = kind.to_ascii_lowercase();
    let element = lower.strip_suffix('s').unwrap_or(&lower).strip_suffix("list")?;
    if element.is_empty() {
        // Only Kubernetes has kinds in a group without a dot.
        return (!api_version.contains('.')).then(|| "v1 List".to_owned());
    }
    let element = kinds::meant(api_version, kind.get(..element.len())?)?;
    Some(format!("{element}List"))
}

/// Returns what may be elements of a broken list: those of unknown fields, and with `items` those of the right one, if
/// the list's kind is wrong.
pub(crate) fn hidden_elements<'a>(at: &'a At<'a>, items: bool) -> Vec<At<'a>> {
    let is_hidden = |name: &str, value: &At<'_>| match name {
        "apiVersion" | "kind" | "metadata" => false,
        // A single object in place of the list.
        ITEMS => items || matches!(value.value(), Value::Mapping(_)),
        _ => true,
    };
    at.entries().filter(|(name, _, at)| is_hidden(name, at)).map(|(_, _, at)| at).collect()
}

/// Returns the kind of an element of a list, by its own fields or the list's.
pub(crate) fn kind_of_element(
    element: &At<'_>,
    api_version: &str,
    list: &str,
) -> Option<&'static ResourceKind> {
    let text = |field| match element.get(field)?.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        _ => None,
    };
    let implied = list.get(..list.len().checked_sub("list".len())?)?;
    let kind = text("kind").unwrap_or_else(|| implied.to_owned());
    kinds::meant(&text("apiVersion").unwrap_or_else(|| api_version.to_owned()), &kind)
}

fn holds_objects(items: &At<'_>) -> bool {
    items.items().any(|item| item.get("apiVersion").is_some() && item.get("kind").is_some())
}

/// Returns the elements of a list, and reports fields that it doesn't have.
pub(crate) fn items<'a>(
    cx: &mut Context<'_>,
    at: &'a At<'a>,
    api_version: &str,
    kind: &str,
) -> Option<At<'a>> {
    let known = is_kind_of_list(api_version, kind);
    for (name, place, value) in at.entries() {
        if ["apiVersion", "kind", "metadata", ITEMS].contains(&name) {
            continue;
        }
        let is_items = distance(name, ITEMS).is_some();
        // Objects in an unknown field would be passed over.
        let holds_elements = matches!(value.value(), Value::Sequence(n) if n > 0);
        if known && (is_items || holds_elements || cx.strict) {
            let message = format!("unknown field \"{name}\" of {kind}");
            let help = is_items.then(|| format!("did you mean `{ITEMS}`?"));
            let diagnostic = Diagnostic::new(Severity::Error, Code::UnknownField, message);
            cx.report(&place, Diagnostic { help, ..diagnostic });
        }
    }
    let items = at.get(ITEMS);
    if items.is_none() && cx.errors == 0 {
        cx.missing(at, ITEMS, Code::Required, "Required value: a list without items has no objects");
    }
    items
}

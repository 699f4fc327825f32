//! What happens to what policies deny, as namespaces set it ([`palisade_policy::DENY_KEY`]).

use palisade_policy::{DENY_KEY, Deny};

use crate::{decode::Context, diagnostic::Code, meta::Object, scalar::Scalar, tree::Value};

/// Returns what the annotation of a namespace sets. A value that is unknown or no text drops, with a warning.
pub(crate) fn of_annotation(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Deny> {
    let metadata = object.fields.at.get("metadata")?;
    let annotations = metadata.get("annotations")?;
    let at = annotations.get(DENY_KEY).filter(|at| !at.is_null())?;
    let text = match at.value() {
        Value::Scalar(Scalar::Str(text)) => text.to_string(),
        // The API server refuses anything else.
        _ => return Some(Deny::Drop),
    };
    if let Some(message) = problem(&text) {
        cx.warn(&at, Code::Ambiguous, message);
    }
    Some(Deny::of_value(&text))
}

/// Returns what is wrong with a value, if anything is.
pub(crate) fn problem(value: &str) -> Option<String> {
    let effect = "what policies of its pods deny is dropped";
    let message = || format!("{DENY_KEY}: {value:?} is neither \"drop\" nor \"reject\"; {effect}");
    Deny::parse(value).is_none().then(message)
}

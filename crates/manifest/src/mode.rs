//! The audit mode of policies and namespaces ([`palisade_policy::MODE_KEY`]).

use palisade_policy::{MODE_KEY, Mode};

use crate::{
    decode::Context,
    diagnostic::Code,
    meta::Object,
    scalar::Scalar,
    tree::{At, Value},
};

/// Returns the mode that the annotation of a policy sets. A value that is unknown or no text enforces, with a warning.
pub(crate) fn of_annotation(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Mode> {
    let metadata = object.fields.at.get("metadata")?;
    read(cx, &metadata.get("annotations")?, "the policy is enforced")
}

/// Warns of a label of a namespace that sets no known mode.
pub(crate) fn check_label(cx: &mut Context<'_>, object: &Object<'_>) {
    if let Some(metadata) = object.fields.at.get("metadata")
        && let Some(labels) = metadata.get("labels")
    {
        read(cx, &labels, "policies of the namespace are enforced");
    }
}

/// Returns what is wrong with a value, if anything is.
pub(crate) fn problem(value: &str, effect: &str) -> Option<String> {
    let message = || format!("{MODE_KEY}: {value:?} is neither \"enforce\" nor \"audit\"; {effect}");
    Mode::parse(value).is_none().then(message)
}

fn read(cx: &mut Context<'_>, map: &At<'_>, effect: &str) -> Option<Mode> {
    let at = map.get(MODE_KEY).filter(|at| !at.is_null())?;
    let text = match at.value() {
        Value::Scalar(Scalar::Str(text)) => text.to_string(),
        // The API server refuses anything else.
        _ => return Some(Mode::Enforce),
    };
    if let Some(message) = problem(&text, effect) {
        cx.warn(&at, Code::Ambiguous, message);
    }
    Some(Mode::of_value(&text))
}

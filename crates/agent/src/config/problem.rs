//! What is wrong with the text of a settings file, in one line.

use serde_saphyr::{Error, UserMessageFormatter};

/// Returns where the error is, if that is known, and what is wrong: `:2:1: unknown key …`. It follows the name of the file.
pub(super) fn described(error: &Error) -> String {
    let error = error.without_snippet();
    let place = error.location().filter(|place| place.line() > 0);
    let place = place.map(|place| format!(":{}:{}", place.line(), place.column())).unwrap_or_default();
    let what = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("`{variant}` is not one of {}", expected.join(", "))
        }
        Error::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => "not a whole number".to_owned(),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            // It ends with the place.
            text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message).to_owned()
        }
    };
    format!("{place}: {what}")
}

fn unknown_key(key: &str, known: &[&'static str]) -> String {
    let near = palisade_names::near(key, known.iter().map(|known| (*known, format!("`{known}`"))));
    if near.is_empty() {
        format!("unknown key `{key}`; `palisade agent --print-config` prints all settings")
    } else {
        format!("unknown key `{key}`; did you mean {}?", near.join(" or "))
    }
}

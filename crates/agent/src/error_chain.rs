//! Formats errors with their causes.

use std::error::Error;

/// Returns an error and all its causes on one line, without repeating a text that is already there.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !out.contains(&text) {
            out += &format!(": {text}");
        }
        cause = error.source();
    }
    out
}

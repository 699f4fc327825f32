//! Errors in words.

use std::error::Error;

/// An error with all its causes on one line, each said once.
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

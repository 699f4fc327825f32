//! Unified diffs of files, as `patch -p0` and `git apply -p0` read them.

use std::{borrow::Cow, path::Path};

use similar::TextDiff;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Returns the diff of a file; empty if nothing changes. A new file has no text before.
pub(crate) fn diff(file: &str, before: Option<&str>, after: &str) -> String {
    let new = header(file);
    let old = if before.is_some() { new.clone() } else { Cow::Borrowed("/dev/null") };
    let diff = TextDiff::from_lines(before.unwrap_or_default(), after);
    diff.unified_diff().context_radius(CONTEXT).header(&old, &new).to_string()
}

/// Returns a path as patches need it: `git apply` and `patch` reject absolute paths, and `git apply` rejects paths that begin
/// with a dot.
pub(crate) fn shown(file: &str) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|dir| Path::new(file).strip_prefix(dir).ok().map(|p| p.display().to_string()));
    below.as_deref().unwrap_or(file).trim_start_matches("./").to_owned()
}

/// Returns a path for the first lines. `patch` ends a name with spaces at the first one, unless a tab stands behind it, where
/// dates may be.
fn header(file: &str) -> Cow<'_, str> {
    if file.contains(char::is_whitespace) { format!("{file}\t").into() } else { file.into() }
}

//! Corrects files. A file is only changed if what it becomes is read with no more errors than before.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use palisade_lint::{Fix, Level, LintReport, fixed};
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::Name;

use crate::{
    inputs::{Gathered, texts},
    unified,
};

/// A corrected file.
pub(super) struct Change {
    file: String,
    before: String,
    after: String,
    /// How many findings it corrects.
    count: usize,
}

/// Returns the corrected files. Findings below a level are not shown, and so they are not corrected.
pub(super) fn changes(report: &LintReport, gathered: &Gathered, least: Level) -> Vec<Change> {
    let mut by_file: BTreeMap<&Name, Vec<&Fix>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.level >= least) {
        let Some(fix) = &finding.fix else { continue };
        let Some(edit) = fix.edits.first() else { continue };
        by_file.entry(&edit.file).or_default().push(fix);
    }
    let is_on_disk = |file: &Name| {
        !gathered.files.iter().any(|i| matches!(i, Input::Text { name, .. } if **name == **file))
    };
    let of_files = by_file.into_iter().filter(|(file, _)| is_on_disk(file));
    of_files.filter_map(|(file, fixes)| change(file, &fixes, &gathered.options)).collect()
}

fn change(file: &Name, fixes: &[&Fix], options: &LoadOptions) -> Option<Change> {
    let before = texts::of_file(file, options.max_file_bytes)?;
    // Positions don't count a byte order mark, which would be lost.
    if fs::read(Path::new(&**file)).ok()? != before.as_bytes() {
        return None;
    }
    let errors = |text: &str| {
        let input = Input::Text { name: file.to_string(), text: text.to_owned() };
        let loaded = load(&[input], &LoadOptions { addresses: None, ..options.clone() });
        (loaded.tally().0, loaded.counts.documents)
    };
    let known = errors(&before);
    let is_sound = |after: &str| {
        let (found, documents) = errors(after);
        found <= known.0 && documents == known.1
    };
    let (mut after, mut count) = fixed(&before, fixes.iter().copied());
    if !is_sound(&after) {
        // One of them doesn't fit; each is tried alone, and the first sound one is made.
        let alone = fixes.iter().map(|fix| fixed(&before, [*fix])).find(|(text, _)| is_sound(text));
        (after, count) = alone?;
    }
    (after != before).then(|| Change { file: file.to_string(), before, after, count })
}

/// Returns the changes as unified diffs.
pub(super) fn diff(changes: &[Change]) -> String {
    let one =
        |change: &Change| unified::diff(&unified::shown(&change.file), Some(&change.before), &change.after);
    changes.iter().map(one).collect()
}

/// Writes the changes. Returns how many findings they correct.
///
/// # Errors
/// When a file can't be written.
pub(super) fn write(changes: &[Change]) -> Result<usize> {
    for change in changes {
        fs::write(&change.file, &change.after).with_context(|| format!("can't write {}", change.file))?;
    }
    Ok(changes.iter().map(|change| change.count).sum())
}

//! Corrects files. A file is only changed if what it becomes is read with no more errors than before.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use palisade_lint::{Fix, Level, LintReport, fixed};
use palisade_manifest::{Input, LoadOptions, load};
use palisade_policy::Name;
use tempfile::NamedTempFile;

use crate::{
    inputs::{Gathered, texts},
    line_ends, unified,
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
    let text = texts::of_file(file, options.max_file_bytes)?;
    let before = fs::read_to_string(Path::new(&**file)).ok()?;
    // Positions don't count a byte order mark.
    if !before.ends_with(&text) {
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
    let fixed = |fixes: &[&Fix]| {
        let (after, count) = fixed(&text, fixes.iter().copied());
        (line_ends::kept(&before, &after), count)
    };
    let (mut after, mut count) = fixed(fixes);
    if !is_sound(&after) {
        // One of them doesn't fit; each is tried alone, and the first sound one is made.
        let alone = fixes.iter().map(|fix| fixed(&[*fix])).find(|(text, _)| is_sound(text));
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

/// Writes the changes. Returns how many findings they correct. Each file is replaced at once, with its permissions; a link stays one.
///
/// # Errors
/// When a file can't be written. Unless it happens while files are renamed, no file is changed then.
pub(super) fn write(changes: &[Change]) -> Result<usize> {
    let written: Vec<_> = changes.iter().map(beside).collect::<Result<_>>()?;
    for (change, (new, path)) in changes.iter().zip(written) {
        new.persist(path).with_context(|| format!("can't write {}", change.file))?;
    }
    Ok(changes.iter().map(|change| change.count).sum())
}

/// Writes a changed file beside the one that it will replace.
fn beside(change: &Change) -> Result<(NamedTempFile, PathBuf)> {
    let write = || -> io::Result<_> {
        let path = fs::canonicalize(&change.file)?;
        let mut new = NamedTempFile::new_in(path.parent().unwrap_or(&path))?;
        new.write_all(change.after.as_bytes())?;
        new.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
        Ok((new, path))
    };
    write().with_context(|| format!("can't write {}", change.file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_together_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let change = |name: &str| Change {
            file: file(name),
            before: "old".to_owned(),
            after: "new".to_owned(),
            count: 1,
        };
        let text = |name: &str| fs::read_to_string(file(name)).expect("the file");
        fs::write(file("a.yaml"), "old").expect("written");
        assert!(write(&[change("a.yaml"), change("gone.yaml")]).is_err());
        assert_eq!(text("a.yaml"), "old");

        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt as _, symlink};
            fs::set_permissions(file("a.yaml"), fs::Permissions::from_mode(0o640)).expect("permissions");
            symlink("a.yaml", file("link.yaml")).expect("a link");
            assert_eq!(write(&[change("link.yaml")]).expect("written"), 1);
            assert_eq!((text("a.yaml"), text("link.yaml")), ("new".to_owned(), "new".to_owned()));
            assert!(fs::symlink_metadata(file("link.yaml")).expect("the link").is_symlink());
            assert_eq!(fs::metadata(file("a.yaml")).expect("the file").permissions().mode() & 0o777, 0o640);
        }
        let left = fs::read_dir(dir.path()).expect("the directory").count();
        assert_eq!(left, if cfg!(unix) { 2 } else { 1 }, "nothing temporary is left");
    }
}

//! Assertions on both sides of a change: whose result changes, and which are added, removed or edited.
//!
//! Each side is checked with its own assertions. One that is removed or edited is also checked as it was before against what
//! the manifests are now: so an assertion that is weakened together with what it protects is seen.

use anyhow::{Result, bail};
use palisade_manifest::Note;
use palisade_policy::Cluster;

use super::{
    check::{self, Status, TestResult},
    file::{self, Written},
    same_name,
};

/// A file with assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssertionFile {
    /// Its name in messages.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// What the assertions of one side are checked against.
pub(crate) struct AssertionSide<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) files: &'a [AssertionFile],
    /// Its name in messages.
    pub(crate) name: &'a str,
}

/// What happened to an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// It says the same.
    Unchanged,
    Added,
    Removed,
    /// It says something else under the same name.
    Edited,
}

/// An assertion on both sides.
#[derive(Debug)]
pub(crate) struct AssertionChange {
    pub(crate) name: String,
    pub(crate) edit: Edit,
    pub(crate) before: Option<Status>,
    pub(crate) after: Option<TestResult>,
    /// The result of what it said before, after the change, if it is removed or edited.
    pub(crate) as_before: Option<TestResult>,
}

/// Whether a text is a file of assertions, by its schema.
pub(crate) fn is_assertion_file(text: &str) -> bool {
    let bare = |word: &str| word.trim().trim_matches(['"', '\'']).to_owned();
    let is_schema = |line: &str| {
        let Some((key, value)) = line.split_once(':') else { return false };
        !line.starts_with([' ', '\t']) && bare(key) == "schema" && bare(value).starts_with("palisade.test/")
    };
    text.lines().any(is_schema) || (text.trim_start().starts_with('{') && text.contains("\"palisade.test/"))
}

/// Checks the assertions of both sides, and compares them by name. Files of the side before that can't be read are a note,
/// and their assertions count as added.
///
/// # Errors
/// When a file of the side after can't be read, or two of its assertions have the same name.
pub(crate) fn changes(
    sides: [AssertionSide<'_>; 2],
    namespace: &str,
) -> Result<(Vec<AssertionChange>, Vec<Note>)> {
    let [before, after] = sides;
    let new = read(after.files)?;
    let (old, notes) = match read(before.files) {
        Ok(old) => (old, Vec::new()),
        Err(error) => {
            let text =
                format!("the assertions of {} can't be read, so all count as new: {error:#}", before.name);
            (Vec::new(), vec![Note::new("assertions-before", text)])
        }
    };
    let edit_of = |one: &Written| match new.iter().find(|other| other.name == one.name) {
        None => Edit::Removed,
        Some(other) if other.says_the_same(one) => Edit::Unchanged,
        Some(_) => Edit::Edited,
    };
    let lost = old.iter().filter(|one| edit_of(one) != Edit::Unchanged).cloned().collect();
    let mut lost = check::all(after.cluster, lost, namespace);
    let mut take = |name: &str| {
        let at = lost.iter().position(|result| result.written.name == name)?;
        Some(lost.swap_remove(at))
    };
    let before = check::all(before.cluster, old, namespace);
    let status = |name: &str| before.iter().find(|result| result.written.name == name);
    let mut out: Vec<AssertionChange> = Vec::new();
    for result in check::all(after.cluster, new, namespace) {
        let name = result.written.name.clone();
        let edit = match status(&name) {
            None => Edit::Added,
            Some(old) if old.written.says_the_same(&result.written) => Edit::Unchanged,
            Some(_) => Edit::Edited,
        };
        let before = status(&name).map(|old| old.status);
        out.push(AssertionChange { as_before: take(&name), name, edit, before, after: Some(result) });
    }
    for old in &before {
        let name = &old.written.name;
        if !out.iter().any(|change| change.name == *name) {
            let as_before = take(name);
            let before = Some(old.status);
            out.push(AssertionChange {
                name: name.clone(),
                edit: Edit::Removed,
                before,
                after: None,
                as_before,
            });
        }
    }
    Ok((out, notes))
}

fn read(files: &[AssertionFile]) -> Result<Vec<Written>> {
    let mut out = Vec::new();
    for file in files {
        out.extend(file::parse(&file.name, &file.text)?);
    }
    if let Some((a, b)) = same_name(&out) {
        bail!("{b}: the name is that of an assertion at {a}");
    }
    Ok(out)
}

impl AssertionChange {
    /// The status after the change.
    pub(crate) fn status(&self) -> Option<Status> {
        self.after.as_ref().map(|result| result.status)
    }

    /// Whether it fails, and didn't before.
    pub(crate) fn fails_now(&self) -> bool {
        self.status() == Some(Status::Fails) && self.before != Some(Status::Fails)
    }

    /// Whether it can't be decided or checked after the change.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status(), Some(Status::Undecided | Status::Error))
    }

    /// Whether a reader should know: another result, another assertion, or none.
    pub(crate) fn is_shown(&self) -> bool {
        match self.edit {
            Edit::Unchanged => self.before != self.status() || self.is_open(),
            Edit::Added => self.status() != Some(Status::Holds),
            Edit::Removed | Edit::Edited => true,
        }
    }

    /// Says what changed: `fails; held before`.
    pub(crate) fn words(&self) -> String {
        let now = self.status().map_or("", Status::word);
        let as_before = self.as_before.as_ref().map_or("", |result| would(result.status));
        match self.edit {
            Edit::Unchanged if self.before == self.status() => format!("{now}, as before"),
            Edit::Unchanged => format!("{now}; {}", self.before.map_or("", was)),
            Edit::Added => format!("{now}; new"),
            Edit::Removed => format!("removed; {as_before}"),
            Edit::Edited => format!("{now}; edited, and as it was before, {as_before}"),
        }
    }

    /// The result that explains it: of the assertion as it is now, unless that holds.
    pub(crate) fn explained(&self) -> Option<&TestResult> {
        let broken = |result: &&TestResult| result.status != Status::Holds;
        self.after.as_ref().filter(broken).or(self.as_before.as_ref().filter(broken))
    }
}

const fn was(status: Status) -> &'static str {
    match status {
        Status::Holds => "held before",
        Status::Fails => "failed before",
        Status::Undecided => "was undecided before",
        Status::Error => "was an error before",
    }
}

const fn would(status: Status) -> &'static str {
    match status {
        Status::Holds => "it would hold",
        Status::Fails => "it would fail",
        Status::Undecided => "it would be undecided",
        Status::Error => "it would be an error",
    }
}

#[cfg(test)]
mod tests {
    use super::is_assertion_file;

    #[test]
    fn files_are_recognized_by_their_schema() {
        for yes in [
            "schema: palisade.test/v1\nassertions: []",
            "# tests\n\"schema\": 'palisade.test/v2'",
            "{\"schema\": \"palisade.test/v1\"}",
        ] {
            assert!(is_assertion_file(yes), "{yes}");
        }
        for no in ["", "schema: other/v1", "data:\n  schema: palisade.test/v1", "# schema: palisade.test/v1"]
        {
            assert!(!is_assertion_file(no), "{no}");
        }
    }
}

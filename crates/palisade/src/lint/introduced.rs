//! `--git`: the manifests before and after a range of revisions, and what the range introduced.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use palisade_lint::{Finding, Level, LintOptions, LintReport, LintRule, lint, locate};
use palisade_manifest::{Input, LoadOptions, Loaded, Note};

use crate::{
    diff::git,
    inputs::{InputArguments, texts},
};

/// Returns the manifests on both sides of a range, and what could not be read. A file is called what it is called in the
/// working tree.
///
/// # Errors
/// When there is not exactly one path, or git can't read it.
pub(super) fn sides(sources: &InputArguments, range: &str) -> Result<([Vec<Input>; 2], Vec<Note>)> {
    let [path] = &sources.files[..] else { bail!("--git takes one path: give it with -f") };
    if !sources.render.is_empty() {
        bail!("--git reads manifests as they are committed, without rendering: give them with -f");
    }
    if path == "-" {
        bail!("--git requires a path: standard input has no revisions");
    }
    let sides = git::inputs(range, path, None)?;
    let mut unread = git::Unread::default();
    unread.add(&sides);
    let [before, after] = git::without_revisions(sides);
    if after.is_empty() {
        bail!("nothing is left at {path} after the range");
    }
    Ok(([before, after], unread.notes()))
}

/// What a change of manifests introduced.
pub(crate) struct Introduced {
    /// The findings of the level that is shown, or above.
    pub(crate) findings: Vec<Finding>,
    /// How many are less severe.
    pub(crate) below: usize,
    /// How many of the level that is shown, or above, were there before.
    pub(crate) older: usize,
    /// How many are suppressed, before and after.
    pub(crate) suppressed: [usize; 2],
    /// What was found after the change.
    pub(crate) report: LintReport,
}

/// Compares the findings of two sides, which were read from these inputs.
pub(crate) fn introduced(
    sides: [(&[Input], &Loaded); 2],
    rules: &[&'static LintRule],
    least: Level,
    namespace: &str,
    strict: bool,
) -> Introduced {
    let limit = LoadOptions::default().max_file_bytes;
    let options = LintOptions { default_namespace: namespace, plugin: None };
    let [(_, before), (texts, mut report)] = sides.map(|(inputs, loaded)| {
        let texts = texts::texts(inputs, loaded, limit);
        let report = lint(loaded, &texts, rules, &options);
        (texts, report)
    });
    if strict {
        report.findings.iter_mut().for_each(Finding::make_strict);
    }
    let known = known(&before.findings, &report.findings);
    let new: Vec<&Finding> = report.findings.iter().filter(|f| !known.contains(&*f.fingerprint)).collect();
    let shown = report.findings.iter().filter(|f| f.level >= least).count();
    let mut findings: Vec<Finding> = new.iter().filter(|f| f.level >= least).map(|f| (*f).clone()).collect();
    locate(&mut findings, &texts);
    Introduced {
        below: new.len() - findings.len(),
        older: shown - findings.len(),
        suppressed: [before.suppressed, report.suppressed],
        findings,
        report,
    }
}

/// Returns the fingerprints of what was there before. A finding whose file was renamed has another one afterwards: it stands
/// for one of the same rule, object and line that is gone.
pub(crate) fn known(before: &[Finding], after: &[Finding]) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = before.iter().map(|f| f.fingerprint.clone()).collect();
    let left: BTreeSet<&str> = after.iter().map(|f| &*f.fingerprint).collect();
    let essence = |f: &Finding| (f.rule.code, f.object.clone(), f.line.clone());
    let mut gone: BTreeMap<_, usize> = BTreeMap::new();
    for finding in before.iter().filter(|f| !left.contains(&*f.fingerprint)) {
        *gone.entry(essence(finding)).or_default() += 1;
    }
    for finding in after {
        if !known.contains(&finding.fingerprint)
            && let Some(count) = gone.get_mut(&essence(finding)).filter(|count| **count > 0)
        {
            *count -= 1;
            known.insert(finding.fingerprint.clone());
        }
    }
    known
}

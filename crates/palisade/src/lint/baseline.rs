//! Findings that are known, by fingerprint.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use palisade_lint::Finding;
use serde::{Deserialize, Serialize};

use crate::inputs::texts::bounded;

/// The schema of the file.
const SCHEMA: &str = "palisade.lint-baseline/v1";

/// The largest file. A finding takes some hundred bytes.
const LARGEST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Baseline {
    schema: String,
    /// What each fingerprint is, for people.
    #[serde(default)]
    findings: BTreeMap<String, String>,
}

/// Reads a baseline.
///
/// # Errors
/// When the file can't be read or is no baseline of this version.
pub(super) fn read(file: &Path) -> Result<BTreeSet<String>> {
    let shown = file.display();
    let text = bounded(file, LARGEST).context("can't use the baseline")?;
    let read: Baseline = serde_json::from_str(&text)
        .with_context(|| format!("{shown} is not a baseline; make one with --write-baseline"))?;
    if read.schema != SCHEMA {
        bail!("{shown} is a baseline of another version, {:?}; make one with --write-baseline", read.schema);
    }
    Ok(read.findings.into_keys().collect())
}

/// Writes a baseline.
///
/// # Errors
/// When the file can't be written.
pub(super) fn write(file: &Path, findings: &[Finding]) -> Result<()> {
    let what = |f: &Finding| {
        let place = f.origin.as_ref().map_or_else(String::new, |o| format!(" {}", o.file));
        format!("{} {}{place} {}", f.rule.code, f.rule.name, f.object.as_deref().unwrap_or_default())
    };
    let findings = findings.iter().map(|f| (f.fingerprint.clone(), what(f))).collect();
    let baseline = Baseline { schema: SCHEMA.to_owned(), findings };
    let mut text = serde_json::to_string_pretty(&baseline)?;
    text.push('\n');
    fs::write(file, text).with_context(|| format!("can't write the baseline {}", file.display()))
}

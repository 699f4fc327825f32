//! The YAML of one policy: its document in the file that was read, or what a cluster sent.

use anyhow::{Context as _, Result};
use palisade_lint::SourceText;
use palisade_policy::{MODE_KEY, Mode, Policy, PolicyKey};
use serde::Serialize;
use serde_json::Value;

use super::world::World;
use crate::{explain::manifest, report::LiveText};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.policy/v1";

/// A policy as it can be edited.
#[derive(Serialize)]
pub(super) struct JsonPolicyText {
    schema: &'static str,
    name: String,
    /// The file in which the text stands; `None` if it stands in none.
    file: Option<String>,
    /// The line of the file with which the text begins.
    line: Option<usize>,
    text: String,
}

/// A document of a file: its lines, and the file's text.
pub(super) struct Document<'a> {
    pub(super) source: &'a SourceText,
    /// The numbers of its first line and of the line after its last, from zero.
    pub(super) lines: std::ops::Range<usize>,
}

/// Returns the YAML of the policy with this name, as answers write it.
///
/// # Errors
/// When there is none.
pub(super) fn policy_text(world: &World, name: &str) -> Result<JsonPolicyText> {
    let policy = find(world, name)?;
    let document = document(world, policy);
    let text = match &document {
        Some(document) => document.text(),
        None => live(world, &policy.key).unwrap_or_else(|| written(policy)),
    };
    Ok(JsonPolicyText {
        schema: SCHEMA,
        name: policy.key.to_string(),
        file: document.as_ref().map(|document| document.source.file().to_string()),
        line: document.as_ref().map(|document| document.lines.start + 1),
        text,
    })
}

/// Returns the policy with this name.
///
/// # Errors
/// When there is none.
pub(super) fn find<'a>(world: &'a World, name: &str) -> Result<&'a Policy> {
    let mut all = world.inputs.loaded.cluster.policies.values();
    let policy = all.find(|policy| policy.key.to_string() == name);
    policy.map(|policy| &**policy).context("there is no such policy")
}

/// Returns the document that is this policy and nothing else. `None` if there is no such document: the policy is of a
/// cluster, or an item of a list, or is written as JSON.
pub(super) fn document<'a>(world: &'a World, policy: &Policy) -> Option<Document<'a>> {
    let origin = policy.origin.as_ref()?;
    let first = usize::try_from(origin.line()?).ok()?.checked_sub(1)?;
    let source = world.texts.iter().find(|text| *text.file() == origin.file && !text.file().is_empty())?;
    let all: Vec<&str> = source.text().lines().collect();
    let is_field = all.get(first)?.starts_with(|c: char| c.is_ascii_alphabetic());
    if origin.column != 1 || !is_field {
        return None;
    }
    let is_marker = |line: &&str| line.starts_with("---") || line.starts_with("...");
    let start = all[..first].iter().rposition(is_marker).map_or(0, |at| at + 1);
    let end = all[first..].iter().position(is_marker).map_or(all.len(), |at| first + at);
    Some(Document { source, lines: start..end })
}

impl Document<'_> {
    pub(super) fn text(&self) -> String {
        self.source.text().split_inclusive('\n').skip(self.lines.start).take(self.lines.len()).collect()
    }

    /// Returns the text of the file with another document in the place of this one.
    pub(super) fn replaced(&self, text: &str) -> String {
        let all: Vec<&str> = self.source.text().split_inclusive('\n').collect();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        [all[..self.lines.start].concat().as_str(), text, end, &all[self.lines.end..].concat()].concat()
    }
}

/// Returns what the cluster sent, without the fields that decide nothing.
fn live(world: &World, key: &PolicyKey) -> Option<String> {
    let object = world.inputs.live.as_ref()?.object(&key.kind, &key.namespace, &key.name)?;
    let value: Value = serde_json::from_str(&object.json).ok()?;
    Some(LiveText::new(&value).text)
}

/// Returns a policy as it was understood.
fn written(policy: &Policy) -> String {
    let mut value = manifest::policy(policy);
    if let Some(mode) = policy.mode {
        let word = if mode == Mode::Audit { "audit" } else { "enforce" };
        value["metadata"]["annotations"][MODE_KEY] = word.into();
    }
    manifest::yaml(&value)
}

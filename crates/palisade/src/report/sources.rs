//! The lines of manifests that decide, each passage once.

use std::collections::HashMap;

use palisade_lint::SourceText;
use palisade_policy::Origin;
use serde::Serialize;

use crate::escape;

/// The most lines of a passage, and the most characters of a line.
const MOST: (usize, usize) = (24, 160);

/// Lines of a manifest.
#[derive(Serialize)]
pub(super) struct JsonSource {
    pub(super) file: String,
    /// The number of the first line.
    pub(super) line: u32,
    pub(super) lines: Vec<String>,
    /// Whether the passage goes on.
    pub(super) cut: bool,
}

/// Finds passages in the texts that were read.
pub(super) struct Sources<'a> {
    texts: HashMap<&'a str, Vec<&'a str>>,
    known: HashMap<(String, u32), usize>,
    pub(super) found: Vec<JsonSource>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(texts: &'a [SourceText]) -> Self {
        let lines = |text: &'a SourceText| (&*text.file, text.text.lines().collect());
        Self { texts: texts.iter().map(lines).collect(), known: HashMap::new(), found: Vec::new() }
    }

    /// Returns the index of the passage that begins at a position: the line and those below it that are indented more.
    /// `None` if there is no text, as for objects of a running cluster.
    pub(super) fn at(&mut self, origin: Option<&Origin>) -> Option<usize> {
        let origin = origin?;
        let line = origin.line()?;
        let key = (origin.file.to_string(), line);
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let all = self.texts.get(&*origin.file)?;
        let first = all.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let inside = |line: &&&str| {
            let is_end = line.starts_with("---") || line.starts_with("...");
            !is_end && (line.trim().is_empty() || indent(line) > indent(first))
        };
        let rest = all[usize::try_from(line).ok()?..].iter();
        // Fields of an object that begins without indentation are as far left as its first line.
        let document = indent(first) == 0 && !first.starts_with("- ");
        let inside_document = |line: &&&str| !line.starts_with("---") && !line.starts_with("...");
        let passage: Vec<&str> = match document {
            true => rest.take_while(inside_document).take(MOST.0).copied().collect(),
            false => rest.take_while(inside).take(MOST.0).copied().collect(),
        };
        let cut = passage.len() >= MOST.0;
        let mut passage: Vec<&str> = std::iter::once(*first).chain(passage).take(MOST.0).collect();
        while passage.len() > 1 && passage.last().is_some_and(|line| line.trim().is_empty()) {
            passage.pop();
        }
        let least = passage.iter().filter(|l| !l.trim().is_empty()).map(|l| indent(l)).min().unwrap_or(0);
        let shown = |line: &&str| -> String {
            let line: String = line.get(least..).unwrap_or_default().chars().take(MOST.1).collect();
            escape::plain(&line.replace('\t', "    ")).into_owned()
        };
        let lines = passage.iter().map(shown).collect();
        self.found.push(JsonSource { file: key.0.clone(), line, lines, cut });
        self.known.insert(key, self.found.len() - 1);
        Some(self.found.len() - 1)
    }
}

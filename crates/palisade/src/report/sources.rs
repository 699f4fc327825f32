//! The lines of manifests that decide, each passage once.

use std::collections::HashMap;

use palisade_api::ClusterSnapshot;
use palisade_lint::SourceText;
use palisade_policy::Origin;
use serde::Serialize;

use super::live::LiveText;
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

/// Finds passages in the texts that were read, and in objects of a running cluster.
pub(super) struct Sources<'a> {
    texts: HashMap<&'a str, Vec<&'a str>>,
    live: Option<&'a ClusterSnapshot>,
    /// The objects of the cluster by kubectl's name, as far as they were asked for.
    objects: HashMap<String, Option<LiveText>>,
    known: HashMap<(String, u32), usize>,
    pub(super) found: Vec<JsonSource>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(texts: &'a [SourceText], live: Option<&'a ClusterSnapshot>) -> Self {
        let lines = |text: &'a SourceText| (&**text.file(), text.text().lines().collect());
        Self {
            texts: texts.iter().map(lines).collect(),
            live,
            objects: HashMap::new(),
            known: HashMap::new(),
            found: Vec::new(),
        }
    }

    /// Returns the index of the passage that begins at a position: the line and those below it that are indented more.
    /// `None` if there is no text.
    pub(super) fn at(&mut self, origin: Option<&Origin>) -> Option<usize> {
        let origin = origin?;
        let Some(line) = origin.line() else { return self.at_object(origin) };
        let key = (origin.file.to_string(), line);
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let passage = passage(self.texts.get(&*origin.file)?, line)?;
        Some(self.add(key, passage))
    }

    /// Returns the index of the passage of a field of an object of the cluster.
    fn at_object(&mut self, origin: &Origin) -> Option<usize> {
        let live = self.live?;
        let (name, field) = origin.file.split_once(' ').unwrap_or((&origin.file, ""));
        let object = self.objects.entry(name.to_owned()).or_insert_with(|| LiveText::of(live, name));
        let object = object.as_ref()?;
        let line = object.line(field)?;
        let key = (name.to_owned(), line);
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let passage = passage(&object.text.lines().collect::<Vec<_>>(), line)?;
        Some(self.add(key, passage))
    }

    fn add(&mut self, key: (String, u32), (lines, cut): (Vec<String>, bool)) -> usize {
        self.found.push(JsonSource { file: key.0.clone(), line: key.1, lines, cut });
        self.known.insert(key, self.found.len() - 1);
        self.found.len() - 1
    }
}

/// Returns the passage that begins at a line, and whether it goes on.
fn passage(all: &[&str], line: u32) -> Option<(Vec<String>, bool)> {
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
    Some((passage.iter().map(shown).collect(), cut))
}

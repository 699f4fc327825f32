//! Which field a finding is about, found by its position.

use std::collections::BTreeMap;

use palisade_manifest::tree::{At, Documents, Limits, Tree, Value};
use palisade_policy::Name;

use crate::{report::Finding, text::SourceText};

/// The key that holds the objects of a `List`.
const ITEMS: &str = "items";

/// The findings of a text by the byte of their position, and whether something begins there.
type Wanted<'f> = BTreeMap<u32, Vec<(&'f mut Finding, bool)>>;

/// Sets the field of findings that come from these texts. Parses each text that has one once: `O(length of these texts)`.
pub fn locate(findings: &mut [Finding], sources: &[SourceText]) {
    let mut by_file: BTreeMap<Name, Vec<&mut Finding>> = BTreeMap::new();
    for finding in findings {
        if let Some(origin) = &finding.origin {
            by_file.entry(origin.file.clone()).or_default().push(finding);
        }
    }
    for source in sources {
        if let Some(findings) = by_file.remove(source.file()) {
            of_text(findings, source);
        }
    }
}

fn of_text(findings: Vec<&mut Finding>, source: &SourceText) {
    let lines = source.lines();
    let mut wanted = Wanted::new();
    for finding in findings {
        let at = finding.origin.as_ref().and_then(|origin| lines.offset(origin));
        if let Some(at) = at.and_then(|at| u32::try_from(at).ok()) {
            wanted.entry(at).or_default().push((finding, false));
        }
    }
    // A document that can't be read has no fields.
    for tree in Documents::new(source.text(), Limits::default()).flatten() {
        of_tree(&tree, &mut wanted);
    }
}

fn of_tree(tree: &Tree<'_>, wanted: &mut Wanted<'_>) {
    let root = tree.root();
    let span = root.span();
    if wanted.range(span.start..=span.end).next().is_none() {
        return;
    }
    // Paths of an element of a List begin at the element.
    match root.get(ITEMS) {
        Some(items) => items.items().for_each(|item| of_object(&item.as_root(), wanted)),
        None => of_object(&root, wanted),
    }
}

fn of_object(object: &At<'_>, wanted: &mut Wanted<'_>) {
    object.visit(&mut |at, key| {
        let mut is_at = |start: u32, is_key: bool| {
            for (finding, is_found) in wanted.get_mut(&start).into_iter().flatten() {
                // A mapping and its first field begin at the same byte. Only a rule about keys means the field.
                if !*is_found || (is_key && finding.rule.is_about_keys()) {
                    *is_found = true;
                    finding.field = Some(at.path()).filter(|path| !path.is_empty());
                }
            }
        };
        if let Some(key) = key {
            is_at(key.span().start, true);
        }
        // A list begins where its first item does, and the item is meant.
        if !matches!(at.value(), Value::Sequence(1..)) {
            is_at(at.span().start, false);
        }
    });
}

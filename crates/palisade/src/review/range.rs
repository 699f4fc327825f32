//! Reads the manifests and the assertions of both sides of a range.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use palisade_manifest::{Input, LoadOptions, Note, files};

use super::Review;
use crate::{
    assertions::{AssertionFile, is_assertion_file},
    connection_ends::abbreviated,
    diff::{DiffInputs, git},
};

/// Both sides of a range.
pub(super) struct Range {
    pub(super) inputs: DiffInputs,
    /// The assertion files of both sides.
    pub(super) files: [Vec<AssertionFile>; 2],
    /// How many of them are among the manifests.
    pub(super) below: [usize; 2],
    /// What to know about the range.
    pub(super) notes: Vec<Note>,
    /// Whether something that changes could not be read.
    pub(super) unread: bool,
}

/// Reads both sides. Files are called as in the working tree, so that what is on both sides is recognized.
///
/// # Errors
/// When git can't read them, or a path has nothing on either side.
pub(super) fn read(arguments: &Review) -> Result<Range> {
    let nothing = arguments.files.is_empty() && arguments.render.is_empty();
    let here = [".".to_owned()];
    let paths = if nothing { &here[..] } else { &arguments.files[..] };
    let mut sides: [Vec<Input>; 2] = Default::default();
    let mut found: [BTreeMap<String, String>; 2] = Default::default();
    let mut unread = git::Unread::default();
    let mut revisions: Option<(String, [Option<String>; 2])> = None;
    for path in paths {
        let both = inside(arguments, path, None)?;
        unread.add(&both);
        revisions.get_or_insert_with(|| (path.clone(), both.each_ref().map(|side| side.revision.clone())));
        for (side, inputs) in git::without_revisions(both).into_iter().enumerate() {
            found[side].extend(assertions(&inputs, false)?);
            sides[side].extend(inputs);
        }
    }
    let namespace = Some(&*arguments.namespace);
    for rendered in arguments.render.each() {
        let render = |path: &str, _: &str| rendered.input(path, namespace);
        let both = inside(arguments, rendered.path(), Some(&render))?;
        let path = rendered.path().to_owned();
        revisions.get_or_insert_with(|| (path, both.each_ref().map(|side| side.revision.clone())));
        for (side, inputs) in git::without_revisions(both).into_iter().enumerate() {
            sides[side].extend(inputs);
        }
    }
    let below = found.each_ref().map(BTreeMap::len);
    for path in &arguments.tests {
        let both = inside(arguments, path, None)?;
        unread.add(&both);
        let mut any = false;
        for (side, inputs) in git::without_revisions(both).into_iter().enumerate() {
            let of_side = assertions(&inputs, true)?;
            any |= !of_side.is_empty();
            found[side].extend(of_side);
        }
        if !any {
            bail!("{path} has no assertions: files with `schema: palisade.test/v1`");
        }
    }
    let mut notes = Vec::new();
    if let Some((path, [Some(a), Some(b)])) = &revisions {
        notes.extend(settings(&git::changed(path, [a, b], "palisade.toml")?));
    }
    let unread = unread.notes();
    notes.extend(unread.iter().cloned());
    let [before, after] = sides;
    let inputs = DiffInputs {
        before,
        after,
        names: revisions.context("there is nothing to review")?.1.map(named),
        namespace: arguments.namespace.clone(),
        missing: Vec::new(),
        live: false,
        // Warnings about policies are findings of lint, and the others are printed once.
        quiet: [true, true],
        same_names: true,
        unread: Vec::new(),
    };
    let files =
        found.map(|files| files.into_iter().map(|(name, text)| AssertionFile { name, text }).collect());
    Ok(Range { inputs, files, below, notes, unread: !unread.is_empty() })
}

fn inside(arguments: &Review, path: &str, render: Option<git::Render<'_>>) -> Result<[git::RangeSide; 2]> {
    if path == "-" {
        bail!("standard input (-) has no revisions: give a path");
    }
    git::inputs(&arguments.git, path, render)
}

/// The name of a side.
fn named(revision: Option<String>) -> String {
    revision.unwrap_or_else(|| "the working tree".to_owned())
}

/// Says that settings change. They are read as they are now, and may hide what the range introduces.
fn settings(changed: &[String]) -> Option<Note> {
    let text = "settings change in the range, and may hide findings; this review has them as they are now";
    let names = abbreviated(changed, Clone::clone);
    (!changed.is_empty()).then(|| Note::new("settings-changed", format!("{text}: {names}")))
}

/// Returns the assertion files among what is at a path, by name. A file that the user `named` is one, whatever it has.
fn assertions(inputs: &[Input], named: bool) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let mut add = |name: &str, bytes: &[u8], named: bool| -> Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) if named || is_assertion_file(text) => {
                drop(out.insert(name.to_owned(), text.to_owned()));
            }
            Err(_) if named => bail!("{name} is not UTF-8"),
            _ => {}
        }
        Ok(())
    };
    for input in inputs {
        match input {
            Input::Text { name, text } => add(name, text.as_bytes(), named)?,
            Input::Directory(files) => {
                for file in files {
                    add(&file.path, &file.bytes, false)?;
                }
            }
            Input::Path(path) => {
                let options = LoadOptions::default();
                for file in files(path, &options) {
                    if let Some(bytes) = bytes(&file, options.max_file_bytes, named)? {
                        add(&file.display().to_string(), &bytes, named && file == *path)?;
                    }
                }
            }
            Input::Stdin | Input::Cluster(_) => {}
        }
    }
    Ok(out)
}

/// Reads a file, unless it is too large. What can't be read is an error of the manifests, too, unless the user named it.
fn bytes(file: &Path, most: u64, named: bool) -> Result<Option<Vec<u8>>> {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= most => {}
        _ if named => bail!("{shown} is no file of at most {most} bytes"),
        _ => return Ok(None),
    }
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if named => Err(error).with_context(|| format!("can't read {shown}")),
        Err(_) => Ok(None),
    }
}

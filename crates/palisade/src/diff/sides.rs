//! Reads the two sides of a comparison.

use anyhow::{Context as _, Result, bail};
use palisade_api::{Missing, ResourceKind};
use palisade_manifest::{Input, LoadOptions, Loaded, Note, assign_addresses, files};

use super::{Diff, git};
use crate::{
    addresses::{self, AddressArguments},
    cluster::{self, Need},
    inputs::{self, ReadingArguments, texts::bounded_from},
};

/// The two sides of a comparison.
pub(crate) struct Sides {
    /// Before and after.
    pub(crate) sides: [Loaded; 2],
    /// The namespace of names without one.
    pub(crate) namespace: String,
    /// The kinds of the cluster that could not be read.
    pub(crate) missing: Vec<Missing>,
    pub(crate) notes: Vec<Note>,
    /// What could not be read of a range of revisions.
    pub(crate) unread: Vec<Note>,
}

/// The two sets of inputs to compare.
pub(crate) struct DiffInputs {
    pub(crate) before: Vec<Input>,
    pub(crate) after: Vec<Input>,
    /// Their names in messages.
    pub(crate) names: [String; 2],
    pub(crate) namespace: String,
    pub(crate) missing: Vec<Missing>,
    /// Whether one side is a cluster.
    pub(crate) live: bool,
    /// The sides about which only errors are reported.
    pub(crate) quiet: [bool; 2],
    /// Whether files are called the same on both sides, so that errors have to name the side.
    pub(crate) same_names: bool,
    /// As in [`Sides`].
    pub(crate) unread: Vec<Note>,
}

/// Reads both sides, with the IP families that one of them shows.
///
/// # Errors
/// As [`inputs::load_inputs`], and when both sides are empty.
pub(crate) fn load(arguments: &Diff) -> Result<Sides> {
    read(&diff_inputs(arguments)?, &arguments.reading, &arguments.addresses)
}

/// Reads both sides of these inputs.
///
/// # Errors
/// As [`load`].
pub(crate) fn read(
    given: &DiffInputs,
    reading: &ReadingArguments,
    addresses: &AddressArguments,
) -> Result<Sides> {
    let DiffInputs { before, after, names, namespace, missing, live, quiet, same_names, unread } = given;
    let (namespace, missing, live) = (namespace.clone(), missing.clone(), *live);
    let options = LoadOptions {
        default_namespace: namespace.clone(),
        all_namespaces: missing.iter().all(|m| m.kind != ResourceKind::Namespace),
        addresses: None,
        ..LoadOptions::default()
    };
    let [a_name, b_name] = names;
    let empty = [before, after].map(|inputs| !live && is_empty(inputs, &options));
    let mut notes = Vec::new();
    match empty {
        [true, true] => bail!("{a_name} and {b_name} have no manifests: nothing can be compared"),
        [false, false] => {}
        [before, _] => {
            let name = if before { a_name } else { b_name };
            let text = format!("{name} has no manifests: compared as empty");
            notes.push(Note::new("empty-side", text));
        }
    }
    let nothing = Loaded::default();
    let side = |side: usize, inputs: &[Input], before: &Loaded| {
        if empty[side] {
            return Ok(Loaded::default());
        }
        let name = &names[side];
        let loaded = inputs::load_later(inputs, name, reading, &options, quiet[side], before);
        if *same_names { loaded.with_context(|| format!("in {name}")) } else { loaded }
    };
    let mut before = side(0, before, &nothing)?;
    // Files that are called the same have most of their problems on both sides.
    let mut after = side(1, after, if *same_names { &before } else { &nothing })?;
    assign_addresses(&mut [&mut before, &mut after], &addresses.plan()?);
    let assumed = addresses::notes(&before).into_iter().chain(addresses::notes(&after));
    for note in assumed {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(Sides { sides: [before, after], namespace, missing, notes, unread: unread.clone() })
}

/// Returns the inputs to compare.
fn diff_inputs(arguments: &Diff) -> Result<DiffInputs> {
    let namespace = arguments.namespace.clone();
    if !arguments.is_live() {
        let mut unread = git::Unread::default();
        let [(before, a), (after, b)] = file_inputs(arguments, &mut unread)?;
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let (names, missing, quiet) = ([a, b], Vec::new(), [false; 2]);
        return Ok(DiffInputs {
            before,
            after,
            names,
            namespace,
            missing,
            live: false,
            quiet,
            same_names: false,
            unread: unread.notes(),
        });
    }
    let [path] = &arguments.paths[..] else { bail!("--live takes one path, but two were given") };
    if arguments.git.is_some() {
        bail!("--git can't be combined with --context or --kubeconfig");
    }
    let live = arguments.cluster.read(namespace.as_deref(), "or give two paths to compare")?;
    let release = namespace.as_deref().unwrap_or(&live.namespace);
    let rendered = arguments.render.input(path, path, Some(release))?;
    let files = vec![rendered.unwrap_or_else(|| Input::of_argument(path))];
    cluster::warn(&live.missing, Need::Everything);
    Ok(DiffInputs {
        before: live.inputs().collect(),
        after: inputs::overlay(&live, files),
        names: ["the cluster".to_owned(), path.clone()],
        namespace: namespace.unwrap_or(live.namespace),
        missing: cluster::needed(&live.missing, Need::Everything),
        live: true,
        // Problems of the cluster's own objects are reported once.
        quiet: [true, false],
        same_names: false,
        unread: Vec::new(),
    })
}

/// Returns the inputs of each side with their name in messages, and adds what could not be read.
fn file_inputs(arguments: &Diff, unread: &mut git::Unread) -> Result<[(Vec<Input>, String); 2]> {
    let here = |path: &String| -> Result<(Vec<Input>, String)> {
        if let Some(rendered) = arguments.render.input(path, path, arguments.namespace.as_deref())? {
            return Ok((vec![rendered], path.clone()));
        }
        let input = match Input::of_argument(path) {
            // Whether it is empty has to be known before it is read as manifests.
            Input::Stdin => {
                let limit = arguments.reading.options(LoadOptions::default()).max_file_bytes;
                let text = bounded_from(std::io::stdin().lock(), "standard input", limit)?;
                Input::Text { name: "-".to_owned(), text }
            }
            input => input,
        };
        Ok((vec![input], path.clone()))
    };
    match (&arguments.git, &arguments.paths[..]) {
        (None, [a, b]) if a == "-" && b == "-" => {
            bail!("standard input (-) can be given only once")
        }
        (None, [a, b]) => Ok([here(a)?, here(b)?]),
        (None, _) => bail!(
            "two paths are required; with one path, use --git REV..REV to compare revisions, or --live to compare with the cluster"
        ),
        (Some(_), [path]) if path == "-" => bail!("--git requires a path: standard input has no revisions"),
        (Some(revisions), [path]) => {
            let render = |path: &str, shown: &str| {
                let rendered = arguments.render.input(path, shown, arguments.namespace.as_deref())?;
                Ok(rendered.unwrap_or_else(|| Input::of_argument(path)))
            };
            let sides = git::inputs(revisions, path, arguments.render.is_set().then_some(&render))?;
            unread.add(&sides);
            Ok(sides.map(|side| (side.name(), side)).map(|(name, side)| (side.inputs, name)))
        }
        (Some(_), _) => bail!("--git takes one path, but two were given"),
    }
}

/// Returns whether there is nothing to read: no files, or files with nothing but comments. A path that doesn't exist is
/// not empty, since it may be misspelled.
fn is_empty(inputs: &[Input], options: &LoadOptions) -> bool {
    inputs.iter().all(|input| match input {
        Input::Text { text, .. } => is_blank(text),
        Input::Directory(files) => {
            files.iter().all(|file| std::str::from_utf8(&file.bytes).is_ok_and(is_blank))
        }
        Input::Path(path) => {
            let is_blank_file = |file: &std::path::PathBuf| {
                let is_small = file.metadata().is_ok_and(|m| m.is_file() && m.len() < MAX_BLANK_FILE);
                is_small && std::fs::read_to_string(file).is_ok_and(|text| is_blank(&text))
            };
            path.exists() && files(path, options).iter().all(is_blank_file)
        }
        Input::Stdin | Input::Cluster(_) => false,
    })
}

/// The size from which a file is not read only to see whether it has anything but comments.
const MAX_BLANK_FILE: u64 = 1 << 20;

/// Returns whether a text has nothing but comments and document markers.
fn is_blank(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_markers_are_nothing() {
        assert!(is_blank(""));
        assert!(is_blank("# a comment\n---\n\n  # another\n..."));
        assert!(!is_blank("# a comment\nkind: Pod\n"));
        assert!(!is_blank("{}"));
    }
}

//! `--git`: the manifests before and after a range of revisions, with the same names, so that findings are recognized.

use anyhow::{Result, bail};
use palisade_manifest::{DirectoryFile, Input};

use crate::{diff::git, inputs::InputArguments};

/// Returns the manifests on both sides of a range. A file is called what it is called in the working tree.
///
/// # Errors
/// When there is not exactly one path, or git can't read it.
pub(super) fn sides(sources: &InputArguments, range: &str) -> Result<[Vec<Input>; 2]> {
    let [path] = &sources.files[..] else { bail!("--git takes one path: give it with -f") };
    if !sources.render.is_empty() {
        bail!("--git reads manifests as they are committed, without rendering: give them with -f");
    }
    if path == "-" {
        bail!("--git requires a path: standard input has no revisions");
    }
    let sides = git::inputs(range, path, None)?;
    let [before, after] = sides.map(|(inputs, name)| {
        // Messages name the file of a revision `REV:PATH`.
        let revision = name.split_once(':').map_or("", |(revision, _)| revision);
        inputs.into_iter().map(|input| renamed(input, revision)).collect::<Vec<_>>()
    });
    if after.is_empty() {
        bail!("nothing is left at {path} after the range");
    }
    Ok([before, after])
}

fn renamed(input: Input, revision: &str) -> Input {
    let short = |name: String| {
        let rest = name.strip_prefix(revision).and_then(|rest| rest.strip_prefix(':'));
        rest.map_or_else(|| name.clone(), |rest| rest.strip_prefix("./").unwrap_or(rest).to_owned())
    };
    match input {
        Input::Text { name, text } => Input::Text { name: short(name), text },
        Input::Directory(files) => Input::Directory(
            files
                .into_iter()
                .map(|file| DirectoryFile { path: short(file.path), bytes: file.bytes })
                .collect(),
        ),
        other => other,
    }
}

//! The texts of what was read, for positions and corrections.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use palisade_lint::SourceText;
use palisade_manifest::{Input, Loaded};
use palisade_policy::Name;

/// Reads standard input once, so that it can be read again.
///
/// # Errors
/// When it can't be read, is too large, or is not UTF-8.
pub(crate) fn take_standard_input(inputs: &mut [Input], limit: u64) -> Result<()> {
    for input in inputs.iter_mut().filter(|input| **input == Input::Stdin) {
        let mut bytes = Vec::new();
        io::stdin().lock().take(limit + 1).read_to_end(&mut bytes).context("can't read standard input")?;
        if bytes.len() as u64 > limit {
            bail!("standard input is larger than the limit of {limit} bytes");
        }
        let text = String::from_utf8(bytes).ok().context("standard input is not UTF-8")?;
        *input = Input::Text { name: "-".to_owned(), text };
    }
    Ok(())
}

/// Returns the texts of the inputs.
pub(crate) fn texts(inputs: &[Input], loaded: &Loaded, limit: u64) -> Vec<SourceText> {
    let mut texts = Vec::new();
    let mut known: BTreeSet<Name> = BTreeSet::new();
    for input in inputs {
        match input {
            Input::Text { name, text } => {
                known.insert(name.as_str().into());
                texts.push(SourceText::new(name.as_str(), text.as_str()));
            }
            Input::Directory(files) => {
                for file in files {
                    let Ok(text) = std::str::from_utf8(&file.bytes) else { continue };
                    // Positions don't count a byte order mark.
                    let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
                    known.insert(file.path.as_str().into());
                    texts.push(SourceText::new(file.path.as_str(), text));
                }
            }
            Input::Cluster(text) => texts.push(SourceText::new("", text.as_str())),
            _ => {}
        }
    }
    let of_policies = loaded.cluster.policies.values().filter_map(|p| p.origin.as_ref());
    let of_findings = loaded.diagnostics.iter().filter_map(|d| d.origin.as_ref());
    // Findings may be about any object.
    let all = of_policies.chain(of_findings).chain(loaded.origins.values());
    let files: BTreeSet<&Name> = all.map(|origin| &origin.file).collect();
    for file in files.into_iter().filter(|file| !file.is_empty() && !known.contains(*file)) {
        texts.extend(of_file(file, limit).map(|text| SourceText::new(file.clone(), text)));
    }
    texts
}

/// Returns the text of a regular file.
pub(crate) fn of_file(file: &str, limit: u64) -> Option<String> {
    let is_small = |m: fs::Metadata| m.is_file() && m.len() <= limit;
    let text = fs::metadata(Path::new(file)).is_ok_and(is_small).then(|| fs::read_to_string(file).ok())??;
    // Positions don't count a byte order mark.
    Some(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

/// Reads a text of at most so many bytes, from whatever the path is: a device has no end.
///
/// # Errors
/// When it can't be read, is larger, or is not UTF-8.
pub(crate) fn bounded(path: &Path, most: u64) -> Result<String> {
    let name = path.display().to_string();
    let file = fs::File::open(path).with_context(|| format!("can't read {name}"))?;
    bounded_from(file, &name, most)
}

/// As [`bounded`], from an open file or a stream, which is called `name` in messages.
///
/// # Errors
/// As [`bounded`].
pub(crate) fn bounded_from(from: impl io::Read, name: &str, most: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let length = from.take(most + 1).read_to_end(&mut bytes).with_context(|| format!("can't read {name}"))?;
    if length as u64 > most {
        bail!("{name} is larger than the limit of {} MiB", most >> 20);
    }
    String::from_utf8(bytes).with_context(|| format!("can't read {name}"))
}

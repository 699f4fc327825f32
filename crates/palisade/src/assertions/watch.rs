//! `--watch`: checks again whenever a file changes.

use std::{path::Path, thread};

use anyhow::{Result, bail};

use super::{Test, once};
use crate::{
    exit::Outcome,
    inputs::stamp::{PERIOD, Stamp},
    output::{self, Style, styled},
};

/// Checks until interrupted. An error doesn't end it: files are often broken while they are edited.
pub(super) fn run(arguments: &Test) -> Result<Outcome> {
    let sources = &arguments.sources;
    if sources.files.is_empty() || sources.files.iter().any(|file| file == "-") {
        bail!("--watch follows files: give the manifests with -f PATH");
    }
    let mut last = None;
    loop {
        let given = arguments.sources.files.iter().map(Path::new);
        let now = Stamp::of(arguments.paths.iter().map(|path| &**path).chain(given));
        if last.as_ref() != Some(&now) {
            last = Some(now);
            if let Err(error) = once(arguments) {
                output::note(&format!("{} {error:#}\n", styled(Style::Bad, "error:")));
            }
            output::note("waiting for changes (Ctrl-C ends)\n");
        }
        thread::sleep(PERIOD);
    }
}

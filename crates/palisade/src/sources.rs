//! Reading the manifests that a verb works on, and telling what is wrong with them.

use anyhow::{Result, bail};
use clap::Args;
use palisade_manifest::{Diagnostic, Input, Loaded, Options, Severity, Style, render};

use crate::output;

/// Where the manifests are, for verbs that take them with `-f`.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// Manifests: a file, a directory with everything below it, or - for standard input; may be repeated
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

impl Sources {
    /// Reads what was named with `-f`; objects without a namespace go into `namespace`. Warnings not if `quiet`.
    ///
    /// # Errors
    /// As [`load`], and when nothing was named.
    pub(crate) fn load(&self, namespace: &str, quiet: bool) -> Result<Loaded> {
        if self.files.is_empty() {
            bail!(
                "no manifests given: say where policies and pods are with -f PATH (a file, a directory, or - for standard input)"
            );
        }
        let options = Options { default_namespace: namespace.to_owned(), ..Options::default() };
        load(&self.files, &self.reading, &options, quiet)
    }
}

/// How strictly manifests are read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Reading {
    /// Go on with the rest when some documents are broken
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Take fields that the API doesn't have for errors, not warnings
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Reads manifests and reports what is wrong with them on standard error; warnings not if `quiet`.
///
/// # Errors
/// When something is broken and the user doesn't want to go on with the rest, or when there is nothing at all.
pub(crate) fn load(files: &[String], reading: &Reading, options: &Options, quiet: bool) -> Result<Loaded> {
    let inputs: Vec<Input> = files.iter().map(|f| Input::of_argument(f)).collect();
    if inputs.iter().filter(|i| **i == Input::Stdin).count() > 1 {
        bail!("standard input (-) is given twice, and can be read once");
    }
    load_inputs(&inputs, &files.join(", "), reading, options, quiet)
}

/// As [`load`], for inputs that messages call `names`.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_inputs(
    inputs: &[Input],
    names: &str,
    reading: &Reading,
    options: &Options,
    quiet: bool,
) -> Result<Loaded> {
    let options = Options { strict: reading.strict, ..options.clone() };
    let loaded = palisade_manifest::load(inputs, &options);
    report(&loaded, quiet);
    let (errors, _) = loaded.tally();
    if errors > 0 && !reading.keep_going {
        let them = if errors == 1 { "it" } else { "them" };
        bail!(
            "{errors} {} in the manifests; correct {them}, or go on without with --keep-going",
            plural(errors, "error")
        );
    }
    if loaded.counts.objects.is_empty() {
        match (loaded.counts.files, loaded.counts.documents) {
            (0, _) => bail!("{names}: no manifests there (files named *.yaml, *.yml or *.json)"),
            (_, 0) => bail!("{names}: the manifests are empty"),
            _ => bail!(
                "{names}: nothing that matters to network policies: no pods, workloads, policies, services or nodes"
            ),
        }
    }
    Ok(loaded)
}

/// As many findings as anybody reads; the number of the others is told.
const SHOWN: usize = 50;

/// Prints what is wrong, errors first; warnings not if `quiet`.
pub(crate) fn report(loaded: &Loaded, quiet: bool) {
    let of = |severity| loaded.diagnostics.iter().filter(move |d| d.severity == severity);
    let warnings = of(Severity::Warning).filter(|_| !quiet);
    let all: Vec<&Diagnostic> = of(Severity::Error).chain(warnings).collect();
    for diagnostic in all.iter().take(SHOWN) {
        // Colour is stripped on the way out where it doesn't belong.
        let text = render(diagnostic, Style { colour: true, width: output::width() });
        output::note(&format!("{text}\n\n"));
    }
    if all.len() > SHOWN {
        output::note(&format!("… and {} more\n\n", all.len() - SHOWN));
    }
}

/// `1 error`, `2 errors`: the noun alone.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { noun.to_owned() } else { format!("{noun}s") }
}

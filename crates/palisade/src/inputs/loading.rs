//! Reads inputs, and decides whether what was read can be answered from.

use anyhow::{Result, bail};
use palisade_api::ClusterSnapshot;
use palisade_manifest::{Code, Diagnostic, Input, LoadOptions, Loaded, Note, Severity};

use super::{
    messages::{plural, report_new},
    reading::ReadingArguments,
    refused,
};

/// Returns a cluster's objects followed by the manifests that replace some of them.
pub(crate) fn overlay(live: &ClusterSnapshot, files: Vec<Input>) -> Vec<Input> {
    live.inputs().chain(files).collect()
}

/// Returns the inputs that `-f` selects.
pub(crate) fn inputs(files: &[String]) -> Result<Vec<Input>> {
    let inputs: Vec<Input> = files.iter().map(|f| Input::of_argument(f)).collect();
    if inputs.iter().filter(|i| **i == Input::Stdin).count() > 1 {
        bail!("standard input (-) can be given only once");
    }
    Ok(inputs)
}

/// Reads inputs that are called `names` in messages, and reports problems in them on standard error, without warnings and
/// notes if `quiet`.
///
/// # Errors
/// When a document is invalid and `--keep-going` is not set, or when there is no object.
pub(crate) fn load_inputs(
    inputs: &[Input],
    names: &str,
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Loaded> {
    load_later(inputs, names, reading, options, quiet, &Loaded::default())
}

/// As [`load_inputs`], of files that were read before in another version: a problem that was reported then is not reported again.
///
/// # Errors
/// As [`load_inputs`].
pub(crate) fn load_later(
    inputs: &[Input],
    names: &str,
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
    before: &Loaded,
) -> Result<Loaded> {
    let options = reading.options(options.clone());
    let mut loaded = palisade_manifest::load(inputs, &options);
    let live = inputs.iter().filter(|i| matches!(i, Input::Cluster(_))).count();
    // A cluster has the pods themselves.
    if live == 0 {
        loaded.notes.extend(loaded.pod_makers.note().map(|text| Note::new("pods-elsewhere", text)));
    }
    report_new(&loaded, before, quiet);
    let (errors, _) = loaded.tally();
    if errors > 0 && !reading.keep_going {
        let is_unrendered = |d: &&Diagnostic| d.severity == Severity::Error && d.code == Code::NotRendered;
        if loaded.diagnostics.iter().filter(is_unrendered).count() == errors {
            bail!("{names}: the manifests have to be rendered first");
        }
        let place = match (live, inputs.len() - live) {
            (0, _) => "in the manifests",
            (_, 0) => "in the cluster",
            _ => "in the cluster and the manifests",
        };
        bail!(
            "{errors} {} {place}; correct {}, or use --keep-going for an incomplete answer without {}",
            plural(errors, "error"),
            if errors == 1 { "it" } else { "them" },
            if errors == 1 { "that object" } else { "those objects" },
        );
    }
    refused::report_new(&loaded, before);
    // Manifests applied to a cluster must have objects too.
    let counts = &loaded.counts;
    let nothing = match live {
        0 => counts.objects.is_empty(),
        _ => live < inputs.len() && loaded.origins.values().all(|at| at.line().is_none()),
    };
    if nothing {
        match (counts.files - live, counts.documents - live) {
            (0, _) => bail!("{names}: no manifests found (files named *.yaml, *.yml or *.json)"),
            (_, 0) => bail!("{names}: the manifests are empty"),
            _ => bail!("{names}: the manifests have no pods, workloads, policies, services or nodes"),
        }
    }
    Ok(loaded)
}

/// As [`load_inputs`], for what `-f` selects.
///
/// # Errors
/// As [`load_inputs`].
#[cfg(all(target_os = "linux", feature = "lab"))]
pub(crate) fn load(
    files: &[String],
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Loaded> {
    load_inputs(&inputs(files)?, &files.join(", "), reading, options, quiet)
}

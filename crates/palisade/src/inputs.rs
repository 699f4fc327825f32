//! Reads the manifests or the cluster that a verb works on, and reports problems in them.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use palisade_api::{ClusterSnapshot, Missing, ResourceKind};
use palisade_manifest::{Channel, Diagnostic, Input, LoadOptions, Loaded, Severity, Style, render};

use crate::{
    cluster::{self, JsonMissing, Need},
    exit::Outcome,
    output,
};

/// The options that select a verb's objects: from manifests, a cluster, or a cluster with manifests applied to it.
#[derive(Debug, Args)]
pub(crate) struct InputArguments {
    /// Read manifests from a file, a directory (recursively), or - for standard input; may be repeated. Without -f, the cluster
    /// of the kubeconfig's current context is read
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    /// Apply the manifests to the objects read from the cluster; implied by --context and --kubeconfig
    #[arg(long, requires = "files", help_heading = cluster::HEADING)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) cluster: cluster::ClusterArguments,
}

/// The objects that a verb works on.
pub(crate) struct LoadedInputs {
    /// The objects.
    pub(crate) loaded: Loaded,
    /// The namespace of names that have none.
    pub(crate) namespace: String,
    /// The cluster's objects, if one was read.
    pub(crate) live: Option<ClusterSnapshot>,
    /// The kinds that could not be read and without which the answer may be wrong.
    missing: Vec<Missing>,
    allow_incomplete: bool,
}

impl LoadedInputs {
    /// Returns the kinds that could not be read, as JSON values.
    pub(crate) fn incomplete(&self) -> Vec<JsonMissing<'_>> {
        self.missing.iter().map(Into::into).collect()
    }

    /// Returns the outcome of a verb: `Incomplete` if the answer may be wrong, unless the user accepts that.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.missing.is_empty() || self.allow_incomplete { outcome } else { Outcome::Incomplete }
    }

    /// Returns where names were looked up, for messages.
    pub(crate) fn place(&self) -> &'static str {
        if self.live.is_some() { "cluster" } else { "manifests" }
    }
}

impl InputArguments {
    /// Reads the objects and reports problems in them, without warnings if `quiet`. Names and objects without a namespace are
    /// in `namespace`, else in that of the context.
    ///
    /// # Errors
    /// As [`load`], and when a cluster is needed and none is configured.
    pub(crate) fn load(&self, namespace: Option<&str>, quiet: bool, need: Need) -> Result<LoadedInputs> {
        let overlay = self.live || self.cluster.is_named();
        let read = if self.files.is_empty() || overlay {
            Some(self.cluster.read(
                namespace,
                "or use -f PATH to read manifests (a file, a directory, or - for standard input)",
            )?)
        } else {
            None
        };
        self.load_with(read, namespace, quiet, need)
    }

    fn load_with(
        &self,
        read: Option<ClusterSnapshot>,
        namespace: Option<&str>,
        quiet: bool,
        need: Need,
    ) -> Result<LoadedInputs> {
        let namespace = match (namespace, &read) {
            (Some(namespace), _) => namespace.to_owned(),
            (None, Some(live)) => live.namespace.clone(),
            (None, None) => "default".to_owned(),
        };
        let missing = read.as_ref().map_or(&[][..], |live| &live.missing);
        let options = LoadOptions {
            default_namespace: namespace.clone(),
            all_namespaces: missing.iter().all(|m| m.kind != ResourceKind::Namespace),
            ..LoadOptions::default()
        };
        cluster::warn(missing, need);
        let missing = cluster::needed(missing, need);
        let loaded = match &read {
            None => load(&self.files, &self.reading, &options, quiet)?,
            Some(live) => {
                let files = inputs(&self.files)?;
                load_inputs(&overlay(live, files), &self.files.join(", "), &self.reading, &options, quiet)?
            }
        };
        let allow_incomplete = self.cluster.allow_incomplete;
        Ok(LoadedInputs { loaded, namespace, live: read, missing, allow_incomplete })
    }
}

/// Returns a cluster's objects followed by the manifests that replace some of them.
pub(crate) fn overlay(live: &ClusterSnapshot, files: Vec<Input>) -> Vec<Input> {
    live.inputs().chain(files).collect()
}

/// The options for reading manifests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReadingArguments {
    /// Skip invalid documents and continue with the rest
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Report unknown fields as errors instead of warnings
    #[arg(long)]
    pub(crate) strict: bool,
    /// Release channel of the cluster-wide policy CRDs, which determines the fields that manifests may use
    #[arg(
        long,
        value_enum,
        value_name = "CHANNEL",
        default_value_t,
        env = "PALISADE_CHANNEL",
        hide_env_values = true
    )]
    pub(crate) channel: ReleaseChannel,
}

/// `--channel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReleaseChannel {
    /// Without experimental fields, which the API server prunes
    Standard,
    /// All fields
    #[default]
    Experimental,
}

impl ReadingArguments {
    /// Returns `options` with these settings.
    pub(crate) fn options(&self, options: LoadOptions) -> LoadOptions {
        let channel = match self.channel {
            ReleaseChannel::Standard => Channel::Standard,
            ReleaseChannel::Experimental => Channel::Experimental,
        };
        LoadOptions { strict: self.strict, channel, ..options }
    }
}

/// Reads manifests and reports problems in them on standard error, without warnings if `quiet`.
///
/// # Errors
/// When a document is invalid and `--keep-going` is not set, or when there is no object.
pub(crate) fn load(
    files: &[String],
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Loaded> {
    load_inputs(&inputs(files)?, &files.join(", "), reading, options, quiet)
}

/// Returns the inputs that `-f` selects.
pub(crate) fn inputs(files: &[String]) -> Result<Vec<Input>> {
    let inputs: Vec<Input> = files.iter().map(|f| Input::of_argument(f)).collect();
    if inputs.iter().filter(|i| **i == Input::Stdin).count() > 1 {
        bail!("standard input (-) can be given only once");
    }
    Ok(inputs)
}

/// As [`load`], for inputs that are called `names` in messages.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_inputs(
    inputs: &[Input],
    names: &str,
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Loaded> {
    let options = reading.options(options.clone());
    let loaded = palisade_manifest::load(inputs, &options);
    report(&loaded, quiet);
    let (errors, _) = loaded.tally();
    let live = inputs.iter().filter(|i| matches!(i, Input::Cluster(_))).count();
    if errors > 0 && !reading.keep_going {
        let place = match (live, inputs.len() - live) {
            (0, _) => "in the manifests",
            (_, 0) => "in the cluster",
            _ => "in the cluster and the manifests",
        };
        bail!("{errors} {} {place}; use --keep-going to skip invalid documents", plural(errors, "error"));
    }
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

/// The most diagnostics to print; of the others, the number is printed.
const MAX_PRINTED: usize = 50;

/// Prints diagnostics, errors first, without warnings if `quiet`.
pub(crate) fn report(loaded: &Loaded, quiet: bool) {
    let of = |severity| loaded.diagnostics.iter().filter(move |d| d.severity == severity);
    let warnings = of(Severity::Warning).filter(|_| !quiet);
    let all: Vec<&Diagnostic> = of(Severity::Error).chain(warnings).collect();
    for diagnostic in all.iter().take(MAX_PRINTED) {
        // The writer strips colors where they don't belong.
        let text = render(diagnostic, Style { colour: true, width: output::width() });
        output::note(&format!("{text}\n\n"));
    }
    if all.len() > MAX_PRINTED {
        output::note(&format!("… and {} more\n\n", all.len() - MAX_PRINTED));
    }
}

/// Returns the noun in singular or plural, without the number.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { noun.to_owned() } else { format!("{noun}s") }
}

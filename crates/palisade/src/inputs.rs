//! Reading the manifests or the cluster that a verb works on, and telling what is wrong with them.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use palisade_api::{ClusterSnapshot, Missing, ResourceKind};
use palisade_manifest::{Channel, Diagnostic, Input, LoadOptions, Loaded, Severity, Style, render};

use crate::{
    cluster::{self, JsonMissing, Need},
    exit::Outcome,
    output,
};

/// Where a verb's objects are: in manifests, in a cluster, or in a cluster with manifests laid over it.
#[derive(Debug, Args)]
pub(crate) struct InputArguments {
    /// Manifests: a file, a directory with everything below it, or - for standard input; may be repeated. Without any, the
    /// cluster of the kubeconfig's current context is asked
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    /// Lay the manifests over what is in the cluster; --context and --kubeconfig do it too
    #[arg(long, requires = "files", help_heading = cluster::HEADING)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) cluster: cluster::ClusterArguments,
}

/// What a verb works on.
pub(crate) struct LoadedInputs {
    /// The objects.
    pub(crate) loaded: Loaded,
    /// The namespace of names that have none.
    pub(crate) namespace: String,
    /// What the cluster has, if one was asked.
    pub(crate) live: Option<ClusterSnapshot>,
    /// The kinds without which an answer may be wrong.
    missing: Vec<Missing>,
    allow_incomplete: bool,
}

impl LoadedInputs {
    /// What could not be read, for programs.
    pub(crate) fn incomplete(&self) -> Vec<JsonMissing<'_>> {
        self.missing.iter().map(Into::into).collect()
    }

    /// How a verb ends: an answer that may be wrong is none, unless the user takes it for one.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.missing.is_empty() || self.allow_incomplete { outcome } else { Outcome::Incomplete }
    }

    /// Where names were looked up, for messages.
    pub(crate) fn place(&self) -> &'static str {
        if self.live.is_some() { "cluster" } else { "manifests" }
    }
}

impl InputArguments {
    /// Reads what was named, and says what is wrong with it; warnings not if `quiet`. Names and objects without a namespace
    /// are in `namespace`, else in that of the context.
    ///
    /// # Errors
    /// As [`load`], and when there is no cluster where one must be asked.
    pub(crate) fn load(&self, namespace: Option<&str>, quiet: bool, need: Need) -> Result<LoadedInputs> {
        let overlay = self.live || self.cluster.is_named();
        let read = if self.files.is_empty() || overlay {
            Some(self.cluster.read(
                namespace,
                "or say where manifests are with -f PATH (a file, a directory, or - for standard input)",
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
                load_inputs(&over(live, files), &self.files.join(", "), &self.reading, &options, quiet)?
            }
        };
        let allow_incomplete = self.cluster.allow_incomplete;
        Ok(LoadedInputs { loaded, namespace, live: read, missing, allow_incomplete })
    }
}

/// Manifests over what a cluster has.
pub(crate) fn over(live: &ClusterSnapshot, files: Vec<Input>) -> Vec<Input> {
    live.inputs().chain(files).collect()
}

/// How strictly manifests are read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReadingArguments {
    /// Go on with the rest when some documents are broken
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Take fields that the API doesn't have for errors, not warnings
    #[arg(long)]
    pub(crate) strict: bool,
    /// The release channel of the cluster-wide policies' definitions: which of their fields a file may use
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
    /// Without the experimental fields: the API server drops them before it looks at the rest
    Standard,
    /// All fields
    #[default]
    Experimental,
}

impl ReadingArguments {
    /// How to read, in what it says.
    pub(crate) fn options(&self, options: LoadOptions) -> LoadOptions {
        let channel = match self.channel {
            ReleaseChannel::Standard => Channel::Standard,
            ReleaseChannel::Experimental => Channel::Experimental,
        };
        LoadOptions { strict: self.strict, channel, ..options }
    }
}

/// Reads manifests and reports what is wrong with them on standard error; warnings not if `quiet`.
///
/// # Errors
/// When something is broken and the user doesn't want to go on with the rest, or when there is nothing at all.
pub(crate) fn load(
    files: &[String],
    reading: &ReadingArguments,
    options: &LoadOptions,
    quiet: bool,
) -> Result<Loaded> {
    load_inputs(&inputs(files)?, &files.join(", "), reading, options, quiet)
}

/// What `-f` names.
pub(crate) fn inputs(files: &[String]) -> Result<Vec<Input>> {
    let inputs: Vec<Input> = files.iter().map(|f| Input::of_argument(f)).collect();
    if inputs.iter().filter(|i| **i == Input::Stdin).count() > 1 {
        bail!("standard input (-) is given twice, and can be read once");
    }
    Ok(inputs)
}

/// As [`load`], for inputs that messages call `names`.
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
        let them = if errors == 1 { "it" } else { "them" };
        let place = match (live, inputs.len() - live) {
            (0, _) => "in the manifests",
            (_, 0) => "in the cluster",
            _ => "in the cluster and the manifests",
        };
        bail!(
            "{errors} {} {place}; correct {them}, or go on without with --keep-going",
            plural(errors, "error")
        );
    }
    // Where manifests lie over a cluster, they must say something themselves.
    let counts = &loaded.counts;
    let nothing = match live {
        0 => counts.objects.is_empty(),
        _ => live < inputs.len() && loaded.origins.values().all(|at| at.line().is_none()),
    };
    if nothing {
        match (counts.files - live, counts.documents - live) {
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

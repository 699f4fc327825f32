//! `palisade diff`: the connections that a change of manifests opens and closes.

mod comparison;
mod git;
mod json;
mod text;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_api::{Missing, ResourceKind};
use palisade_manifest::{Input, LoadOptions, assign_addresses, keep_addresses};

use crate::{
    cluster::{self, Need},
    exit::Outcome,
    inputs::{self, ReadingArguments},
    output::{self, Encoding},
};
use comparison::Comparison;

pub(crate) const HELP: &str = "\
A and B are files, directories (read recursively), or - for standard input. With --git there is one PATH, which is read in each revision with the `git` program: REV..REV compares two revisions, REV...REV compares their merge base with the second, and REV compares a revision with the current files.

With --live, the result is what applying PATH would change: objects of PATH replace those of the cluster, and all others stay. A workload keeps its existing pods, with the labels and ports of PATH. Defaults and merges of the API server are not predicted; to include them, run `kubectl apply --dry-run=server -o yaml -f PATH | palisade diff --live -`.

Made-up addresses of pods without one are the same on both sides, so that a new pod changes nothing for the others.

Examples:
  palisade diff examples/shop examples/shop-two-rules
  palisade diff --git main..HEAD deploy/
  palisade diff --git origin/main...HEAD deploy/ -o md > comment.md
  helm template chart | palisade diff rendered/ -
  palisade diff --live deploy/

Exit codes: 0 no connection changes, 1 connections change, 2 error.";

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Manifests before and after; with --git or --live, a single path
    #[arg(value_name = "PATH", required = true, num_args = 1..=2)]
    paths: Vec<String>,
    /// Compare revisions of PATH
    #[arg(long, value_name = "REV..REV")]
    git: Option<String>,
    /// Compare the cluster with the result of applying PATH; implied by --context and --kubeconfig
    #[arg(long, conflicts_with = "git", help_heading = cluster::HEADING)]
    live: bool,
    #[command(flatten)]
    cluster: cluster::ClusterArguments,
    /// Namespace of manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Include connections with nodes
    #[arg(long)]
    nodes: bool,
    #[command(flatten)]
    reading: ReadingArguments,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Text
    #[default]
    Text,
    /// JSON; the `schema` field has the version
    Json,
    /// The same as YAML
    Yaml,
    /// Markdown, for a comment on a pull request
    Md,
}

/// The two sets of inputs to compare.
struct DiffInputs {
    before: Vec<Input>,
    after: Vec<Input>,
    /// Their names in messages.
    names: [String; 2],
    namespace: String,
    /// The kinds of the cluster that could not be read.
    missing: Vec<Missing>,
}

/// Prints the difference.
pub(crate) fn run(arguments: &Diff) -> Result<Outcome> {
    let sides = diff_inputs(arguments)?;
    let options = LoadOptions {
        default_namespace: sides.namespace,
        all_namespaces: sides.missing.iter().all(|m| m.kind != ResourceKind::Namespace),
        ..LoadOptions::default()
    };
    let [a_name, b_name] = &sides.names;
    let live = arguments.is_live();
    // Problems of the cluster's own objects are reported once.
    let before = inputs::load_inputs(&sides.before, a_name, &arguments.reading, &options, live)?;
    let without = LoadOptions { addresses: None, ..options.clone() };
    let mut after = inputs::load_inputs(&sides.after, b_name, &arguments.reading, &without, false)?;
    keep_addresses(&mut after.cluster, &before.cluster, &after.unaddressed);
    if let Some(plan) = &options.addresses {
        let found = assign_addresses(&mut after.cluster, plan, &after.unaddressed);
        if let Some(first) = found.first() {
            bail!("{first}");
        }
    }
    let difference = palisade_analysis::diff(&before.cluster, &after.cluster, arguments.nodes);
    let same = difference.changes.is_empty();
    let complete = sides.missing.is_empty() || arguments.cluster.allow_incomplete;
    let comparison = Comparison { before, after, difference, missing: sides.missing };
    let text = match arguments.output {
        OutputFormat::Text => text::text(&comparison),
        OutputFormat::Json => json::document(&comparison, Encoding::Json)?,
        OutputFormat::Yaml => json::document(&comparison, Encoding::Yaml)?,
        OutputFormat::Md => text::markdown(&comparison),
    };
    output::print(&text).context("can't write the answer")?;
    Ok(if complete { Outcome::of(same) } else { Outcome::Incomplete })
}

impl Diff {
    /// Whether the cluster is one side of the comparison.
    /// Whether the cluster is one side of the comparison.
    fn is_live(&self) -> bool {
        self.live || self.cluster.is_named()
    }
}

/// Returns the inputs to compare.
fn diff_inputs(arguments: &Diff) -> Result<DiffInputs> {
    let namespace = arguments.namespace.clone();
    if !arguments.is_live() {
        let [(before, a), (after, b)] = file_inputs(arguments)?;
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        return Ok(DiffInputs { before, after, names: [a, b], namespace, missing: Vec::new() });
    }
    let [path] = &arguments.paths[..] else { bail!("--live takes one path, but two were given") };
    if arguments.git.is_some() {
        bail!("--git can't be combined with --context or --kubeconfig");
    }
    let files = vec![Input::of_argument(path)];
    let live = arguments.cluster.read(namespace.as_deref(), "or give two paths to compare")?;
    cluster::warn(&live.missing, Need::Everything);
    Ok(DiffInputs {
        before: live.inputs().collect(),
        after: inputs::overlay(&live, files),
        names: ["the cluster".to_owned(), path.clone()],
        namespace: namespace.unwrap_or(live.namespace),
        missing: cluster::needed(&live.missing, Need::Everything),
    })
}

/// Returns the inputs of each side with their name in messages.
fn file_inputs(arguments: &Diff) -> Result<[(Vec<Input>, String); 2]> {
    let here = |path: &String| (vec![Input::of_argument(path)], path.clone());
    match (&arguments.git, &arguments.paths[..]) {
        (None, [a, b]) if a == "-" && b == "-" => {
            bail!("standard input (-) can be given only once")
        }
        (None, [a, b]) => Ok([here(a), here(b)]),
        (None, _) => bail!(
            "two paths are required; with one path, use --git REV..REV to compare revisions, or --live to compare with the cluster"
        ),
        (Some(_), [path]) if path == "-" => bail!("--git requires a path: standard input has no revisions"),
        (Some(revisions), [path]) => git::inputs(revisions, path),
        (Some(_), _) => bail!("--git takes one path, but two were given"),
    }
}

//! `palisade diff`: what a change of manifests opens and closes.

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
    output,
};
use comparison::Comparison;

pub(crate) const HELP: &str = "\
A and B are files, directories with everything below them, or - for standard input. With --git there is one PATH, read as it is in each revision; the `git` program is run to read them. REV..REV compares two revisions, REV...REV the second with where both branched off, and REV alone with the files as they are now.

With --live it is what applying PATH would change: the objects of PATH over those of the cluster. What is in the cluster and not in PATH stays. A workload's pods are those that it has, with the labels and ports of PATH. What the server itself would add or merge is known to the server alone: `kubectl apply --dry-run=server -o yaml -f PATH | palisade diff --live -` asks it.

Made-up addresses of pods without one are the same on both sides, so that a new pod changes nothing for the others.

Examples:
  palisade diff examples/shop examples/shop-two-rules
  palisade diff --git main..HEAD deploy/
  palisade diff --git origin/main...HEAD deploy/ -o md > comment.md
  helm template chart | palisade diff rendered/ -
  palisade diff --live deploy/

Exit codes: 0 the same connections, 1 different ones, 2 error.";

/// What `diff` is asked.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The manifests before and after; with --git or --live, the one path
    #[arg(value_name = "PATH", required = true, num_args = 1..=2)]
    paths: Vec<String>,
    /// Compare revisions of PATH
    #[arg(long, value_name = "REV..REV")]
    git: Option<String>,
    /// Compare what is in the cluster with what it would be with PATH applied; --context and --kubeconfig do it too
    #[arg(long, conflicts_with = "git", help_heading = cluster::HEADING)]
    live: bool,
    #[command(flatten)]
    cluster: cluster::ClusterArguments,
    /// The namespace of objects in the manifests that have none; else that of the context, or default
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Compare connections with nodes too
    #[arg(long)]
    nodes: bool,
    #[command(flatten)]
    reading: ReadingArguments,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Form,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    #[default]
    Text,
    /// For programs; the `schema` field names the version
    Json,
    /// A comment for a pull request
    Md,
}

/// Two sides to read.
struct DiffInputs {
    before: Vec<Input>,
    after: Vec<Input>,
    /// What messages call them.
    names: [String; 2],
    namespace: String,
    /// The kinds of the cluster that could not be read.
    missing: Vec<Missing>,
}

/// Answers.
pub(crate) fn run(arguments: &Diff) -> Result<Outcome> {
    let sides = diff_inputs(arguments)?;
    let options = LoadOptions {
        default_namespace: sides.namespace,
        all_namespaces: sides.missing.iter().all(|m| m.kind != ResourceKind::Namespace),
        ..LoadOptions::default()
    };
    let [a_name, b_name] = &sides.names;
    let live = arguments.is_live();
    // What is wrong with the cluster's own objects is said once.
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
        Form::Text => text::text(&comparison),
        Form::Json => json::json(&comparison)?,
        Form::Md => text::markdown(&comparison),
    };
    output::print(&text).context("can't write the answer")?;
    Ok(if complete { Outcome::of(same) } else { Outcome::Incomplete })
}

impl Diff {
    fn is_live(&self) -> bool {
        self.live || self.cluster.is_named()
    }
}

/// What to read.
fn diff_inputs(arguments: &Diff) -> Result<DiffInputs> {
    let namespace = arguments.namespace.clone();
    if !arguments.is_live() {
        let [(before, a), (after, b)] = file_inputs(arguments)?;
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        return Ok(DiffInputs { before, after, names: [a, b], namespace, missing: Vec::new() });
    }
    let [path] = &arguments.paths[..] else {
        bail!("two paths are given; --live compares the cluster with one applied to it")
    };
    if arguments.git.is_some() {
        bail!(
            "--git compares revisions of manifests, and --context and --kubeconfig name a cluster: use one of them"
        );
    }
    let files = vec![Input::of_argument(path)];
    let live = arguments.cluster.read(namespace.as_deref(), "or compare two paths")?;
    cluster::warn(&live.missing, Need::Everything);
    Ok(DiffInputs {
        before: live.inputs().collect(),
        after: inputs::over(&live, files),
        names: ["the cluster".to_owned(), path.clone()],
        namespace: namespace.unwrap_or(live.namespace),
        missing: cluster::needed(&live.missing, Need::Everything),
    })
}

/// What to read on each side, and what messages call it.
fn file_inputs(arguments: &Diff) -> Result<[(Vec<Input>, String); 2]> {
    let here = |path: &String| (vec![Input::of_argument(path)], path.clone());
    match (&arguments.git, &arguments.paths[..]) {
        (None, [a, b]) if a == "-" && b == "-" => {
            bail!("standard input (-) is given twice, and can be read once")
        }
        (None, [a, b]) => Ok([here(a), here(b)]),
        (None, _) => bail!(
            "one path is given; say two, or compare revisions of it with --git REV..REV, or the cluster with --live"
        ),
        (Some(_), [path]) if path == "-" => bail!("standard input has no revisions; name a path with --git"),
        (Some(revisions), [path]) => git::inputs(revisions, path),
        (Some(_), _) => bail!("two paths are given; --git compares two revisions of one"),
    }
}

//! `palisade diff`: what a change of manifests opens and closes.

mod git;
mod json;
mod text;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::Diff as Difference;
use palisade_manifest::{Input, Loaded, Options, assign_addresses, keep_addresses};

use crate::{
    exit::Outcome,
    output,
    sources::{self, Reading},
};

pub(crate) const HELP: &str = "\
A and B are files, directories with everything below them, or - for standard input. With --git there is one PATH, read as it is in each revision; the `git` program is run to read them. REV..REV compares two revisions, REV...REV the second with where both branched off, and REV alone with the files as they are now.

Made-up addresses of pods without one are the same on both sides, so that a new pod changes nothing for the others.

Examples:
  palisade diff examples/shop examples/shop-two-rules
  palisade diff --git main..HEAD deploy/
  palisade diff --git origin/main...HEAD deploy/ -o md > comment.md
  helm template chart | palisade diff rendered/ -

Exit codes: 0 the same connections, 1 different ones, 2 error.";

/// What `diff` is asked.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The manifests before and after; with --git, the one path
    #[arg(value_name = "PATH", required = true, num_args = 1..=2)]
    paths: Vec<String>,
    /// Compare revisions of PATH
    #[arg(long, value_name = "REV..REV")]
    git: Option<String>,
    /// The namespace of objects in the manifests that have none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Compare connections with nodes too
    #[arg(long)]
    nodes: bool,
    #[command(flatten)]
    reading: Reading,
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

/// What is compared.
pub(crate) struct Compared {
    pub(crate) before: Loaded,
    pub(crate) after: Loaded,
    pub(crate) difference: Difference,
}

/// Answers.
pub(crate) fn run(arguments: &Diff) -> Result<Outcome> {
    let [(a, a_name), (b, b_name)] = inputs(arguments)?;
    let options = Options { default_namespace: arguments.namespace.clone(), ..Options::default() };
    let before = sources::load_inputs(&a, &a_name, &arguments.reading, &options, false)?;
    let without = Options { addresses: None, ..options.clone() };
    let mut after = sources::load_inputs(&b, &b_name, &arguments.reading, &without, false)?;
    keep_addresses(&mut after.cluster, &before.cluster, &after.unaddressed);
    if let Some(plan) = &options.addresses {
        let found = assign_addresses(&mut after.cluster, plan, &after.unaddressed);
        if let Some(first) = found.first() {
            bail!("{first}");
        }
    }
    let difference = palisade_analysis::diff(&before.cluster, &after.cluster, arguments.nodes);
    let same = difference.changes.is_empty();
    let compared = Compared { before, after, difference };
    let text = match arguments.output {
        Form::Text => text::text(&compared),
        Form::Json => json::json(&compared)?,
        Form::Md => text::markdown(&compared),
    };
    output::print(&text).context("can't write the answer")?;
    Ok(Outcome::of(same))
}

/// What to read on each side, and what messages call it.
fn inputs(arguments: &Diff) -> Result<[(Vec<Input>, String); 2]> {
    let here = |path: &String| (vec![Input::of_argument(path)], path.clone());
    match (&arguments.git, &arguments.paths[..]) {
        (None, [a, b]) if a == "-" && b == "-" => {
            bail!("standard input (-) is given twice, and can be read once")
        }
        (None, [a, b]) => Ok([here(a), here(b)]),
        (None, _) => bail!("one path is given; say two, or compare revisions of it with --git REV..REV"),
        (Some(_), [path]) if path == "-" => bail!("standard input has no revisions; name a path with --git"),
        (Some(revisions), [path]) => git::inputs(revisions, path),
        (Some(_), _) => bail!("two paths are given; --git compares two revisions of one"),
    }
}

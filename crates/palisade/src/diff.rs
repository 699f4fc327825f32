//! `palisade diff`: the connections that a change of manifests opens and closes.

mod comparison;
#[cfg(feature = "ui")]
mod consequences;
mod folded;
pub(crate) mod git;
mod graph;
mod groups;
mod json;
pub(crate) mod markdown;
mod page;
mod picture;
mod sides;
mod summary;
pub(crate) mod text;
mod wording;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
#[cfg(feature = "ui")]
use palisade_analysis::diff::diff_while;
use palisade_analysis::{ControllerRoutes, DiffSide, UndecidedChange, diff::diff_with_future_pods};
use palisade_manifest::{Code, Loaded, Note};

use crate::{
    addresses::{self, AddressArguments},
    cluster,
    connection_ends::abbreviated,
    entrances::ControllerArguments,
    escape,
    exit::Outcome,
    inputs::{ReadingArguments, RenderSidesArguments},
    output::{self, Encoding},
};
pub(crate) use comparison::Comparison;
#[cfg(feature = "ui")]
pub(crate) use consequences::{JsonConsequences, consequences};
pub(crate) use folded::folded;
pub(crate) use groups::groups;
pub(crate) use json::{JsonDiff, document};
pub(crate) use sides::{DiffInputs, Sides, read};
pub(crate) use summary::Summary;
pub(crate) use wording::ends;

pub(crate) const HELP: &str = "\
A and B are files, directories (read recursively), or - for standard input. With --git there is one PATH, which is read in each revision with the `git` program: REV..REV compares two revisions, REV...REV compares their merge base with the second, and REV compares a revision with the current files.

With --live, the result is what applying PATH would change: objects of PATH replace those of the cluster, and all others stay. A workload keeps its existing pods, with the labels and ports of PATH. Defaults and merges of the API server are not predicted; to include them, run `kubectl apply --dry-run=server -o yaml -f PATH | palisade diff --live -`.

The first line is a summary. Then follow the changes, grouped by what causes them: an edited policy, a label of a namespace, of pods or of a node, a Service, an Ingress. Undoing the causes of a change undoes the change. Workloads that are new or gone are listed with what they may reach. A side without manifests, such as a new directory, counts as empty.

Examples:
  palisade diff examples/shop examples/shop-two-rules
  palisade diff --git main..HEAD deploy/
  palisade diff --git origin/main...HEAD deploy/ -o md > comment.md
  palisade diff --git HEAD deploy/ -o html > diff.html
  palisade diff --git main..HEAD deploy/ -o mermaid
  palisade diff -k overlays/staging overlays/production
  palisade diff --helm chart-1.0 chart-1.1 --values values.yaml
  helm template chart | palisade diff rendered/ -
  palisade diff --live deploy/

Exit codes: 0 no connection changes, 1 connections change or workloads are new or gone, 2 error, or the inputs can't be compared.";

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Manifests before and after; with --git or --live, a single path
    #[arg(value_name = "PATH", required = true, num_args = 1..=2)]
    pub(crate) paths: Vec<String>,
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
    /// Nodes are always included; accepted for scripts that set it
    #[arg(long, hide = true)]
    nodes: bool,
    #[command(flatten)]
    controller: ControllerArguments,
    #[command(flatten)]
    reading: ReadingArguments,
    #[command(flatten)]
    addresses: AddressArguments,
    #[command(flatten)]
    render: RenderSidesArguments,
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
    /// The same data as YAML
    Yaml,
    /// Markdown, for a comment on a pull request
    Md,
    /// A Mermaid graph, which pull requests and wikis show as a picture
    Mermaid,
    /// An SVG image of a matrix
    Svg,
    /// An HTML page with a matrix and a table for each cause
    Html,
}

/// Prints the difference.
pub(crate) fn run(arguments: &Diff) -> Result<Outcome> {
    let sides = sides::load(arguments)?;
    let routes = routes(&arguments.controller, &sides)?;
    let allowed = arguments.cluster.allow_incomplete;
    let comparison = compared(sides, &routes);
    let text = match arguments.output {
        OutputFormat::Text => text::text(&comparison),
        OutputFormat::Json => Encoding::Json.encode(&document(&comparison))?,
        OutputFormat::Yaml => Encoding::Yaml.encode(&document(&comparison))?,
        OutputFormat::Md => markdown::markdown(&comparison),
        OutputFormat::Mermaid => graph::mermaid(&comparison),
        OutputFormat::Svg => picture::page(&comparison),
        OutputFormat::Html => page::page(&comparison),
    };
    match arguments.output {
        OutputFormat::Text => output::print_wrapped(&text),
        _ => output::print(&text),
    }
    .context("can't write the answer")?;
    if arguments.output == OutputFormat::Text {
        let blocked = wording::blocked(&comparison);
        let notes = comparison.notes.iter().map(|note| &note.text);
        notes.chain(&blocked).for_each(|text| output::note(&format!("note: {text}\n")));
        comparison.undecided.iter().for_each(|why| output::note(&format!("undecided: {}\n", why.text)));
    }
    let complete = (comparison.is_complete() || allowed) && comparison.difference.undecided.is_empty();
    Ok(if complete { comparison.outcome() } else { Outcome::Incomplete })
}

/// Compares two sides.
pub(crate) fn compared(sides: Sides, routes: &[ControllerRoutes; 2]) -> Comparison {
    let side = |side: usize| DiffSide { cluster: &sides.sides[side].cluster, routes: Some(&routes[side]) };
    let difference =
        output::with_progress("comparing all connections", || diff_with_future_pods(side(0), side(1)));
    judged(sides, difference)
}

/// As [`compared`], for as long as the result is wanted: see [`diff_while`].
#[cfg(feature = "ui")]
pub(crate) fn compared_while(
    sides: Sides,
    routes: &[ControllerRoutes; 2],
    is_wanted: &dyn Fn() -> bool,
) -> Option<Comparison> {
    let side = |side: usize| DiffSide { cluster: &sides.sides[side].cluster, routes: Some(&routes[side]) };
    let difference = diff_while(side(0), side(1), is_wanted)?;
    Some(judged(sides, difference))
}

/// Returns a difference with what could not be decided.
fn judged(sides: Sides, difference: palisade_analysis::Diff) -> Comparison {
    let Sides { sides, missing, mut notes, unread, .. } = sides;
    let complete = unread.is_empty();
    notes.extend(unread);
    if sides.iter().all(|side| side.cluster.pods.is_empty()) && !difference.is_same() {
        let text =
            "neither side has pods or workloads: compared by what policies allow to pods that may exist";
        notes.push(Note::new("no-pods", text));
    }
    let mut undecided = undecided(&sides, &difference);
    undecided.extend(by_addresses(&difference.undecided));
    undecided.extend(not_evaluated(&sides));
    Comparison { sides, difference, missing, complete, undecided, notes }
}

/// Returns the routes of both sides, with the pods that `--ingress-controller` names. A workload that is new or gone is
/// named on one side only.
///
/// # Errors
/// When a name has no pod with an address on either side.
pub(crate) fn routes(controller: &ControllerArguments, given: &Sides) -> Result<[ControllerRoutes; 2]> {
    let Sides { sides, namespace, .. } = given;
    let of = |side: usize| controller.entrances(&sides[side], namespace);
    let without =
        |side: usize| ControllerRoutes { routes: sides[side].routes.clone(), ..ControllerRoutes::default() };
    match [of(0), of(1)] {
        [Ok(a), Ok(b)] => Ok([a, b]),
        [Ok(a), Err(_)] => Ok([a, without(1)]),
        [Err(_), Ok(b)] => Ok([without(0), b]),
        [_, Err(error)] => Err(error),
    }
}

/// Returns why the inputs could not be compared, or not fully.
fn undecided(sides: &[Loaded; 2], difference: &palisade_analysis::Diff) -> Vec<Note> {
    let mut out = Vec::new();
    let nothing_seen = difference.is_same() && !difference.policies.is_empty();
    let nothing_to_see = sides.iter().all(|side| side.cluster.policies.is_empty());
    if sides.iter().all(|side| side.cluster.pods.is_empty()) && (nothing_seen || nothing_to_see) {
        let text = "neither side has pods or workloads, so no connection can be compared; add the manifests of the workloads \
                    that the policies select, or use --live";
        out.push(Note::new("no-pods", text));
    }
    if difference.exposure.iter().any(|change| !change.exact) {
        let text = "for pods that don't exist yet: rules distinguish too many sets of pods";
        out.push(Note::new("too-many-sets", text));
    }
    out
}

/// Returns the objects that affect connections, are not evaluated, and are in one side only.
fn not_evaluated(sides: &[Loaded; 2]) -> Option<Note> {
    let [before, after] = [0, 1].map(|side: usize| -> BTreeSet<&str> {
        let found = sides[side].diagnostics.iter().filter(|found| found.code == Code::NotEvaluated);
        found.filter_map(|found| found.object.as_deref()).collect()
    });
    let names: Vec<&str> = before.symmetric_difference(&after).copied().collect();
    if names.is_empty() {
        return None;
    }
    let text = format!(
        "{} on one side only, and not evaluated: {}",
        if names.len() == 1 { "an object is" } else { "objects are" },
        abbreviated(&names, |name| escape::plain(name).into_owned())
    );
    Some(Note::new("not-evaluated", text))
}

/// Returns why it is not known whether some connections change, if that depends on addresses.
fn by_addresses(pairs: &[UndecidedChange]) -> Option<Note> {
    let questions = pairs.iter().flat_map(|pair| &pair.questions);
    let text = addresses::undecided_text(pairs.len(), questions)?;
    Some(Note::new("pod-addresses", text))
}

impl Diff {
    /// Whether the cluster is one side of the comparison.
    fn is_live(&self) -> bool {
        self.live || self.cluster.is_named()
    }
}

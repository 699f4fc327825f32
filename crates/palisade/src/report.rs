//! `palisade report`: everything about a cluster's policies in one file, for people who have no command line.
//!
//! ```text
//! manifests ─► overview, folded connections with their reasons, exposure, policies, findings ─► Document ─► JSON
//!                                                                                                   └────► HTML with the JSON in it
//! ```

mod document;
mod ends;
mod html;
mod links;
mod live;
mod policies;
mod sources;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use palisade_analysis::GroupBy;

use crate::{
    cluster::Need,
    entrances::ControllerArguments,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Encoding},
};

pub(crate) use document::Question;
#[cfg(feature = "ui")]
pub(crate) use live::LiveText;

pub(crate) const HELP: &str = "\
The report has an overview by namespace, the workloads with the unprotected ones first and with what they are exposed to, a matrix of all connections with the rules that decide each cell, what each policy contributes, and what `palisade lint` finds.

The HTML page is one file: it loads nothing, sends nothing, and needs no server. Without JavaScript it has the tables, without the matrix of workloads.

Examples:
  palisade report -f examples/shop > shop.html
  palisade report > cluster.html             the cluster of the kubeconfig's current context
  palisade report --helm chart --values production.yaml > production.html
  palisade report -f examples/shop -o json | jq '.policies[] | select(.connections == 0)'

Exit codes: 0 done, 2 error, or a report that may be wrong.";

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    #[command(flatten)]
    sources: InputArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Namespace of manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Include nodes and their host-network pods
    #[arg(long)]
    nodes: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// An HTML page
    #[default]
    Html,
    /// What the page shows, as JSON; the `schema` field has the version
    Json,
    /// The same data as YAML
    Yaml,
}

/// Prints the report.
pub(crate) fn run(arguments: &ReportArguments) -> Result<Outcome> {
    let (world, texts) =
        arguments.sources.load_with_texts(arguments.namespace.as_deref(), Need::Everything)?;
    if world.loaded.cluster.pods.is_empty() {
        bail!("the {} have no pods, so there is nothing to report on", world.place());
    }
    let routes = arguments.controller.entrances(&world.loaded, &world.namespace)?;
    let question = Question {
        world: &world,
        texts: &texts,
        routes,
        nodes: arguments.nodes,
        group_by: GroupBy::Workload,
    };
    let document = output::with_progress("computing the report", || document::Document::new(&question));
    match arguments.output {
        OutputFormat::Html => output::stream(|out| out.write_all(html::page(&document).as_bytes())),
        OutputFormat::Json => output::print(&Encoding::Json.encode(&document)?),
        OutputFormat::Yaml => output::print(&Encoding::Yaml.encode(&document)?),
    }
    .context("can't write the report")?;
    Ok(world.outcome(if document.is_undecided() { Outcome::Incomplete } else { Outcome::Yes }))
}

/// Returns a report as JSON, as `-o json` prints it.
///
/// # Errors
/// As [`Encoding::encode`].
#[cfg(feature = "ui")]
pub(crate) fn json(question: &Question<'_>) -> Result<String> {
    Encoding::Json.encode(&document::Document::new(question))
}

//! `palisade overview`: a cluster at a glance.

mod json;
mod text;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_analysis::{Overview, overview::Extent};
use palisade_policy::Name;

use crate::{
    cluster::Need,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Format},
};

pub(crate) use json::{JsonWorkload, workload as json_workload};
pub(crate) use text::workload_cells;

pub(crate) const HELP: &str = "\
For each namespace: how many of its workloads are isolated, whether they reach DNS, whether the public internet may reach them, and whether they may reach the internet. Below the table: the workloads that no policy protects, those that can't reach DNS, and the policies that select no pod.

  isolated    NetworkPolicies select it: only what they allow is allowed
  restricted  only rules of cluster-wide policies apply to it
  open        no policy applies: everything is allowed
  undecided   depends on pod addresses that are not known
  partly      some ports, addresses or one IP family only
  1 of 2      the number of workloads to which it applies at least partly

Examples:
  palisade overview                          the cluster of the kubeconfig's current context
  palisade overview -f examples/tiers
  palisade overview shop staging -f examples/shop
  palisade overview -f examples/shop -o json

Exit codes: 0 done, 2 error, or an overview that may be wrong.";

/// Arguments of `overview`.
#[derive(Debug, Args)]
pub(crate) struct OverviewArguments {
    /// Only these namespaces
    #[arg(value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Prints the overview.
pub(crate) fn run(arguments: &OverviewArguments) -> Result<Outcome> {
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    let cluster = &world.loaded.cluster;
    if cluster.pods.is_empty() {
        bail!("the {} have no pods, so there is nothing to show an overview of", world.place());
    }
    let mut overview =
        output::with_progress("computing all connections", || palisade_analysis::overview(cluster));
    select(&mut overview, &arguments.namespaces)?;
    let text = match arguments.output.encoding() {
        None => text::text(&overview, &world.loaded),
        Some(encoding) => json::document(&overview, &world, encoding)?,
    };
    output::print_wrapped(&text).context("can't write the answer")?;
    let workloads = overview.namespaces.iter().flat_map(|n| &n.workloads);
    let is_undecided = workloads.into_iter().any(|w| w.dns == Some(Extent::Undecided));
    Ok(world.outcome(if is_undecided { Outcome::Incomplete } else { Outcome::Yes }))
}

/// Keeps only these namespaces, and what concerns them; all of them if none is given.
fn select(overview: &mut Overview, namespaces: &[String]) -> Result<()> {
    if namespaces.is_empty() {
        return Ok(());
    }
    let is_selected = |name: &Name| namespaces.iter().any(|n| **n == **name);
    for name in namespaces {
        if !overview.namespaces.iter().any(|n| *n.name == **name) {
            let known: Vec<&str> = overview.namespaces.iter().map(|n| &*n.name).collect();
            bail!("there is no namespace `{name}`; there are {}", known.join(", "));
        }
    }
    overview.namespaces.retain(|namespace| is_selected(&namespace.name));
    overview.idle_policies.retain(|key| is_selected(&key.namespace));
    Ok(())
}

/// Returns the overview as JSON, as `-o json` prints it.
///
/// # Errors
/// As [`output::Encoding::encode`].
#[cfg(feature = "ui")]
pub(crate) fn json(world: &crate::inputs::LoadedInputs) -> Result<String> {
    json::document(&palisade_analysis::overview(&world.loaded.cluster), world, output::Encoding::Json)
}

//! `palisade describe`: the policies, peers and exposure of a workload.

mod exposure;
mod json;
mod text;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_policy::Endpoint;

use crate::{
    can::{Spec, ends},
    cluster::Need,
    entrances::ControllerArguments,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
WORKLOAD is [NAMESPACE/][KIND/]NAME of a pod or workload, svc/NAME for the pods behind a service, or a pod's address. If policies treat its pods differently, the workload is described in parts.

For each direction it shows the policies that apply, with what each allows and for which peers; the peers that remain when the policies of the other side are evaluated too; and the exposure to the public internet, to any pod of the cluster regardless of its labels, and to pods that rules select, even if no such pod exists yet.

Examples:
  palisade describe shop/backend -f examples/shop
  palisade describe deploy/backend -n shop -f examples/shop -o json

Exit codes: 0 done, 2 error.";

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The workload
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    #[command(flatten)]
    sources: InputArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Prints the description.
pub(crate) fn run(arguments: &Describe) -> Result<Outcome> {
    let what = || format!("`{}`", arguments.workload);
    let spec: Spec = arguments.workload.parse().with_context(what)?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("{}: all ports are described; omit the port", what());
    }
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    let loaded = &world.loaded;
    let ends = ends::endpoints(&loaded.cluster, &spec.endpoint, &world.namespace).with_context(what)?;
    let mut pods = BTreeSet::new();
    for end in ends {
        match end {
            Endpoint::Pod { key, .. } => drop(pods.insert(key)),
            Endpoint::Node { name, .. } => {
                bail!(
                    "{}: policies do not apply to it, because it uses the host network of node {name}",
                    what()
                )
            }
            Endpoint::External(_) => {
                bail!("{}: policies do not apply to it, because it is not a pod", what())
            }
        }
    }
    let entrances = arguments.controller.entrances(loaded, &world.namespace)?;
    let description = palisade_analysis::describe(&loaded.cluster, &pods, &entrances);
    let text = match arguments.output.encoding() {
        None => text::text(&description, loaded),
        Some(encoding) => json::document(&description, &world, encoding)?,
    };
    output::print_wrapped(&text).context("can't write the answer")?;
    Ok(world.outcome(Outcome::Yes))
}

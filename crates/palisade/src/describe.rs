//! `palisade describe`: one workload, from all sides.

mod json;
mod text;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_policy::Endpoint;

use crate::{
    can::{Spec, question},
    cluster::Need,
    entrances::ControllerArguments,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
WORKLOAD is [NAMESPACE/][KIND/]NAME of a pod or workload, svc/NAME for the pods behind a service, or a pod's address. A workload whose pods are not all treated alike is described in parts.

For each direction: the policies that act, each with what it allows and to or from whom; who may be reached or may reach it in the end, when the other side's policies are asked too; and the exposure to the public internet, to any pod of the cluster whatever its labels, and to pods that rules name, whether there are such pods yet or not.

Examples:
  palisade describe shop/backend -f examples/shop
  palisade describe deploy/backend -n shop -f examples/shop -o json

Exit codes: 0 answered, 2 error.";

/// What `describe` is asked.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Whom to describe
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    #[command(flatten)]
    sources: InputArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// The namespace of names, and of objects in the manifests, that have none; else that of the context, or default
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
}

/// Answers.
pub(crate) fn run(arguments: &Describe) -> Result<Outcome> {
    let what = || format!("`{}`", arguments.workload);
    let spec: Spec = arguments.workload.parse().with_context(what)?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("{}: all ports are described; leave the port away", what());
    }
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    let loaded = &world.loaded;
    let ends = question::endpoints(&loaded.cluster, &spec.who, &world.namespace).with_context(what)?;
    let mut pods = BTreeSet::new();
    for end in ends {
        match end {
            Endpoint::Pod { key, .. } => drop(pods.insert(key)),
            Endpoint::Node { name, .. } => {
                bail!("{}: it uses the network of node {name}, where no policy acts on it", what())
            }
            Endpoint::External(_) => bail!("{}: it is no pod, and no policy acts on it", what()),
        }
    }
    let entrances = arguments.controller.entrances(loaded, &world.namespace)?;
    let description = palisade_analysis::describe(&loaded.cluster, &pods, &entrances);
    let text = match arguments.output {
        Format::Text => text::text(&description, loaded),
        Format::Json => json::json(&description, &world)?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(world.outcome(Outcome::Yes))
}

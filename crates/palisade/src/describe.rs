//! `palisade describe`: the policies, peers and exposure of a workload; what a policy does; a namespace.

mod exposure;
mod idle;
mod json;
mod namespace;
mod namespace_picture;
mod picture;
mod policy;
mod policy_picture;
mod sentence;
mod target;
mod text;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::describe::{describe_namespace, describe_policy};
use palisade_policy::Endpoint;

use crate::{
    can::{Spec, ends},
    cluster::Need,
    diagram::{self, Diagram},
    entrances::ControllerArguments,
    exit::Outcome,
    inputs::{InputArguments, LoadedInputs},
    output::{self, Encoding},
};
pub(crate) use exposure::rows as exposure_rows;
pub(crate) use idle::text as idle_text;
pub(crate) use sentence::sentence;
use target::Target;

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.describe/v2";

pub(crate) const HELP: &str = "\
WHAT is one of:

  a workload  [NAMESPACE/][KIND/]NAME of a pod or workload, svc/NAME for the pods behind a
              service, or a pod's address. If policies treat its pods differently, it is
              described in parts
  a policy    [NAMESPACE/]netpol/NAME, cnp/NAME, anp/NAME or banp/NAME
  a namespace ns/NAME

For a workload, it shows in each direction the policies that apply, with what each allows and for which peers; the peers that remain when the policies of the other side are evaluated too; and the exposure: to the public internet, to any pod of the cluster regardless of its labels, and to each set of pods that rules can tell apart, whether such pods exist or not. A pod gets the sum of all rows that match it.

For a policy, it shows in one sentence what it does, which pods it selects, which parts of it do nothing and why, and what would change without it.

For a namespace, it shows its workloads, the policies that apply to them, and the connections that cross its border.

Examples:
  palisade describe shop/backend -f examples/shop
  palisade describe shop/netpol/backend-egress -f examples/shop
  palisade describe cnp/guardrails -f examples/tiers
  palisade describe ns/shop -f examples/tiers
  palisade describe deploy/backend -n shop -f examples/shop -o json
  palisade describe shop/backend -f examples/shop -o svg > backend.svg

Exit codes: 0 done, 2 error or undecided.";

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The workload, policy (netpol/NAME, cnp/NAME) or namespace (ns/NAME)
    #[arg(value_name = "WHAT")]
    what: String,
    #[command(flatten)]
    sources: InputArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Text
    #[default]
    Text,
    /// JSON; the `schema` field has the version
    Json,
    /// The same data as YAML
    Yaml,
    /// An SVG image: WHAT between its neighbors
    Svg,
    /// The same as a Mermaid graph
    Mermaid,
}

impl OutputFormat {
    /// Renders an answer as text, for programs, or as a picture, whose notes on what it sums up are printed, too.
    fn render(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce(Encoding) -> Result<String>,
        picture: impl FnOnce() -> (Diagram, Vec<String>),
    ) -> Result<String> {
        let draw = |render: fn(&Diagram) -> String| {
            let (diagram, said) = picture();
            said.iter().for_each(|text| output::note(&format!("note: {text}\n")));
            render(&diagram)
        };
        Ok(match self {
            Self::Text => text(),
            Self::Json => document(Encoding::Json)?,
            Self::Yaml => document(Encoding::Yaml)?,
            Self::Svg => draw(diagram::svg),
            Self::Mermaid => draw(diagram::mermaid),
        })
    }
}

/// Prints the description.
pub(crate) fn run(arguments: &Describe) -> Result<Outcome> {
    // What is misspelled is reported before a cluster is read.
    if target::parse(&arguments.what, "").is_none() {
        pods_spec(&arguments.what)?;
    }
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    let Describe { what, controller, output, .. } = arguments;
    let (text, undecided) = answer(&Question { what, controller, output: *output }, &world)?;
    match arguments.output {
        OutputFormat::Text => output::print_wrapped(&text),
        _ => output::print(&text),
    }
    .context("can't write the answer")?;
    Ok(world.outcome(if undecided { Outcome::Incomplete } else { Outcome::Yes }))
}

/// What is to be described, and how.
pub(crate) struct Question<'a> {
    pub(crate) what: &'a str,
    pub(crate) controller: &'a ControllerArguments,
    pub(crate) output: OutputFormat,
}

/// Returns the description, and whether some of it depends on addresses that are not known.
///
/// # Errors
/// When what is to be described doesn't exist, or policies do not apply to it.
pub(crate) fn answer(question: &Question<'_>, world: &LoadedInputs) -> Result<(String, bool)> {
    // Whether it is an object doesn't depend on the default namespace.
    if target::parse(question.what, "").is_some() {
        return object(question, world);
    }
    workload(question, &pods_spec(question.what)?, world)
}

/// Describes a policy or a namespace. Returns whether some of it depends on addresses that are not known.
fn object(arguments: &Question<'_>, world: &LoadedInputs) -> Result<(String, bool)> {
    let cluster = &world.loaded.cluster;
    match target::parse(arguments.what, &world.namespace) {
        Some(Target::Policy(key)) => {
            target::find_policy(cluster, &key, world.place())?;
            let description = output::with_progress("comparing the cluster with and without it", || {
                describe_policy(cluster, &key)
            })
            .context("the policy is in the input")?;
            let text = arguments.output.render(
                || policy::text(&description, &world.loaded),
                |encoding| policy::document(&description, world, encoding),
                || policy_picture::of_policy(&description, world),
            )?;
            Ok((text, policy::undecided(&description).is_some()))
        }
        Some(Target::Namespace(name)) => {
            let entrances = arguments.controller.entrances(&world.loaded, &world.namespace)?;
            let description = output::with_progress("computing connections", || {
                describe_namespace(cluster, &name, &entrances)
            });
            let Some(description) = description else {
                bail!(target::no_namespace(cluster, &name, world.place()));
            };
            let text = arguments.output.render(
                || namespace::text(&description, &world.loaded),
                |encoding| namespace::document(&description, world, encoding),
                || namespace_picture::of_namespace(&description, world),
            )?;
            Ok((text, !namespace::undecided(&description).is_empty()))
        }
        None => bail!("`{}` is no policy and no namespace", arguments.what),
    }
}

fn pods_spec(text: &str) -> Result<Spec> {
    let spec: Spec = text.parse().with_context(|| format!("`{text}`"))?;
    if spec.port.is_some() || spec.protocol.is_some() {
        bail!("`{text}`: all ports are described; omit the port");
    }
    Ok(spec)
}

/// Describes pods by workload. Returns whether some of it depends on addresses that are not known.
fn workload(arguments: &Question<'_>, spec: &Spec, world: &LoadedInputs) -> Result<(String, bool)> {
    let what = || format!("`{}`", arguments.what);
    let loaded = &world.loaded;
    let ends = ends::endpoints(&loaded.cluster, &spec.endpoint, &world.namespace).with_context(what)?;
    let (mut pods, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for end in ends {
        match end {
            Endpoint::Pod { key, .. } => drop(pods.insert(key)),
            Endpoint::Node { name, .. } => drop(nodes.insert(name)),
            Endpoint::External(_) => {
                bail!("{}: policies do not apply to it, because it is not a pod", what())
            }
        }
    }
    if let Some(name) = nodes.first() {
        let node = if nodes.len() == 1 { format!(" of node {name}") } else { String::new() };
        bail!("{}: policies do not apply to it, because it uses the host network{node}", what());
    }
    let entrances = arguments.controller.entrances(loaded, &world.namespace)?;
    let description = output::with_progress("computing connections and exposure", || {
        palisade_analysis::describe(&loaded.cluster, &pods, &entrances)
    });
    let undecided = description.parts.iter().flat_map(|part| &part.sides).any(|s| !s.undecided.is_empty());
    let text = arguments.output.render(
        || text::text(&description, loaded),
        |encoding| json::document(&description, world, encoding),
        || picture::of_workload(&description, world),
    )?;
    Ok((text, undecided))
}

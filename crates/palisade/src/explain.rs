//! `palisade explain`: the whole walk through the policies in both directions, and what to edit to have it otherwise.

mod answer;
mod json;
mod kubectl;
mod manifest;
mod patch;
mod suggest;
mod suggestion;
mod tree;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    can::Spec,
    cluster::Need,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Format},
};

use suggestion::EditTarget;

pub(crate) const HELP: &str = "\
SRC and DST are spelt as for `palisade can`. Without a port the answer is for every port of every protocol at once.

The tree has every policy that acts, in the order in which it is asked, with each rule, peer and port and whether it matches. With a port, what is denied comes with the smallest edit that allows it, as a patch where the policy's file can be patched; --to-deny asks for the smallest edit that denies what is allowed. Every edit has been tried: with it the answer is the wanted one.

Examples:
  palisade explain shop/frontend shop/backend -f examples/shop
  palisade explain staging/frontend shop/backend:8080 -f examples/shop
  palisade explain shop/frontend shop/backend:8080 --to-deny -f examples/shop
  palisade explain shop/backend internet:443 -f examples/shop -o json

Exit codes: 0 all of it is allowed, 1 some is denied, 2 error.";

/// What `explain` is asked.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Who opens the connection
    #[arg(value_name = "SRC")]
    source: String,
    /// Who is called
    #[arg(value_name = "DST[:PORT[/PROTO]]")]
    destination: String,
    #[command(flatten)]
    sources: InputArguments,
    /// The namespace of names, and of objects in the manifests, that have none; else that of the context, or default
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Say what to edit to deny what is allowed, instead of the reverse
    #[arg(long)]
    to_deny: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
}

/// Answers.
pub(crate) fn run(arguments: &Explain) -> Result<Outcome> {
    let parse = |what: &str, text: &str| text.parse::<Spec>().with_context(|| format!("{what} `{text}`"));
    let source = parse("source", &arguments.source)?;
    let destination = parse("destination", &arguments.destination)?;
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)?;
    let mut answer = answer::answer(&world.loaded.cluster, &source, &destination, &world.namespace)?;
    let place = EditTarget {
        cluster: &world.loaded.cluster,
        namespace: &world.namespace,
        reading: &arguments.sources.reading,
        live: world.live.as_ref(),
        context: arguments.sources.cluster.context.as_deref(),
    };
    suggest::add(&mut answer, place, arguments.to_deny);
    let text = match arguments.output {
        Format::Text => tree::text(&answer, arguments.to_deny),
        Format::Json => json::json(&answer, &world.incomplete())?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(world.outcome(Outcome::of(answer.is_allowed())))
}

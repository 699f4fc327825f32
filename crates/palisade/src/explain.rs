//! `palisade explain`: the evaluation of all policies in both directions, and how to change the result.

mod answer;
mod json;
mod kubectl;
mod layout;
pub(crate) mod manifest;
mod patch;
mod splice;
pub(crate) mod suggest;
mod suggestion;
mod tokens;
mod tree;

#[cfg(feature = "ui")]
use std::borrow::Cow;

#[cfg(feature = "ui")]
use anyhow::bail;
use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    can::{Spec, lookup, made_up, question::Lookup},
    cluster::Need,
    exit::Outcome,
    inputs::{InputArguments, LoadedInputs},
    output::{self, Format},
};

#[cfg(feature = "ui")]
use crate::can::EndpointSpec;
use suggestion::EditTarget;

pub(crate) const HELP: &str = "\
SRC and DST have the syntax of `palisade can`. Without a port, the result covers every port of every protocol.

The tree shows every policy that applies, in evaluation order, with each rule, peer and port and whether it matches. If the connection is denied, edits that allow it are shown, the best one as a patch; without a port, they allow the ports that the destination declares. --to-deny shows edits that deny an allowed connection. What else an edit opens or closes is listed. Every edit is verified: with it, the verdict is the requested one.

Examples:
  palisade explain shop/frontend shop/backend -f examples/shop
  palisade explain staging/frontend shop/backend:8080 -f examples/shop
  palisade explain shop/frontend shop/backend:8080 --to-deny -f examples/shop
  palisade explain shop/backend internet:443 -f examples/shop -o json

Exit codes: 0 everything is allowed, 1 something is denied, 2 error or undecided.";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Source of the connection
    #[arg(value_name = "SRC")]
    source: String,
    /// Destination
    #[arg(value_name = "DST[:PORT[/PROTO]]")]
    destination: String,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Show how to deny an allowed connection, instead of how to allow a denied one
    #[arg(long)]
    to_deny: bool,
    /// Ask this machine's resolver for the addresses of a host outside the cluster, and explain these
    #[arg(long)]
    resolve: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// A question whose explanation is wanted as a value.
#[cfg(feature = "ui")]
pub(crate) struct Question<'a> {
    pub(crate) source: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) to_deny: bool,
}

/// Returns an explanation as JSON, as `-o json` prints it. `sources` are the options with which `world` was read.
///
/// # Errors
/// When an end does not exist, or is a pod that is made up: it would have to be added to the cluster.
#[cfg(feature = "ui")]
pub(crate) fn json(
    question: &Question<'_>,
    world: &LoadedInputs,
    sources: &InputArguments,
) -> Result<String> {
    let parse = |what: &str, text: &str| {
        let spec = text.parse::<Spec>().with_context(|| format!("{what} `{text}`"))?;
        if matches!(spec.endpoint, EndpointSpec::MadeUp { .. }) {
            bail!("{what} `{text}`: `palisade explain` answers questions about pods that don't exist");
        }
        Ok(spec)
    };
    let (source, destination) =
        (parse("source", question.source)?, parse("destination", question.destination)?);
    let asked = answer::resolve(&world.loaded.cluster, &source, &destination, &world.namespace, None)?;
    let mut world = Cow::Borrowed(world);
    if let Some(learned) = &asked.learned {
        world.to_mut().loaded.cluster.learned.insert(learned.name.clone(), learned.clone());
    }
    let mut answer = answer::answer(&world.loaded.cluster, asked);
    suggest::add(&mut answer, edit_target(&world, sources), question.to_deny);
    json::document(&answer, &world, output::Encoding::Json)
}

/// Returns what edits are rendered for.
fn edit_target<'a>(world: &'a LoadedInputs, sources: &'a InputArguments) -> EditTarget<'a> {
    EditTarget {
        loaded: &world.loaded,
        namespace: &world.namespace,
        reading: &sources.reading,
        files: &sources.files,
        live: world.live.as_ref(),
        context: sources.cluster.context.as_deref(),
    }
}

/// Prints the explanation.
pub(crate) fn run(arguments: &Explain) -> Result<Outcome> {
    let parse = |what: &str, text: &str| text.parse::<Spec>().with_context(|| format!("{what} `{text}`"));
    let mut source = parse("source", &arguments.source)?.within(arguments.namespace.as_deref());
    let mut destination =
        parse("destination", &arguments.destination)?.within(arguments.namespace.as_deref());
    let mut world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)?;
    made_up::add(&mut world.loaded.cluster, [&mut source, &mut destination], &world.namespace)?;
    let lookup = arguments.resolve.then_some(lookup::addresses as Lookup);
    let asked = answer::resolve(&world.loaded.cluster, &source, &destination, &world.namespace, lookup)?;
    // Edits are judged in the same cluster.
    let learned = asked.learned.iter().map(|learned| (learned.name.clone(), learned.clone()));
    world.loaded.cluster.learned.extend(learned);
    let mut answer = answer::answer(&world.loaded.cluster, asked);
    let place = edit_target(&world, &arguments.sources);
    output::with_progress("comparing all connections with and without each edit", || {
        suggest::add(&mut answer, place, arguments.to_deny);
    });
    let text = match arguments.output.encoding() {
        None => tree::text(&answer, arguments.to_deny, world.is_incomplete()),
        Some(encoding) => json::document(&answer, &world, encoding)?,
    };
    output::print(&text).context("can't write the answer")?;
    Ok(world.outcome(answer.conclusion().outcome()))
}

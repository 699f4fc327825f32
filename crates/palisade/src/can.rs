//! `palisade can`: whether a connection is allowed, and why.

pub(crate) mod alike;
pub(crate) mod answer;
pub(crate) mod domain_names;
pub(crate) mod ends;
pub(crate) mod hints;
pub(crate) mod host;
pub(crate) mod json;
mod json_end;
pub(crate) mod lookup;
pub(crate) mod made_up;
mod names;
mod not_found;
pub(crate) mod note;
pub(crate) mod notes;
mod pairs;
pub(crate) mod question;
pub(crate) mod render;
mod spec;
mod targets;

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_manifest::Loaded;
use palisade_policy::Workload;

use crate::{
    cluster::Need,
    exit::Outcome,
    inputs::InputArguments,
    output::{self, Format},
};
pub(crate) use answer::endpoint_name;
pub(crate) use json_end::JsonEnd;
pub(crate) use question::QuestionFlow;
pub(crate) use spec::{EndpointSpec, ProtocolSpec, Spec, canonical};

/// Arguments of `can`.
#[derive(Debug, Args)]
pub(crate) struct Can {
    /// Source of the connection
    #[arg(value_name = "SRC")]
    source: String,
    /// Destination, with port and protocol (default: TCP)
    #[arg(value_name = "DST[:PORT[/PROTO]]")]
    destination: String,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Ask this machine's resolver for the addresses of a host outside the cluster, and decide about these
    #[arg(long)]
    resolve: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Print nothing; only set the exit code
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

/// Returns the error for a workload that exists but has no pods.
fn without_pods(loaded: &Loaded, specs: &[&Spec], namespace: &str) -> Option<anyhow::Error> {
    let named = |spec: &EndpointSpec| match spec {
        EndpointSpec::Named { namespace: own, kind, name } => {
            let kind = kind.map(|k| k.to_string());
            let fits = |w: &Workload| {
                kind.as_ref().is_none_or(|k| w.kind.eq_ignore_ascii_case(k)) && *w.name == **name
            };
            let at = own.as_deref().unwrap_or(namespace);
            loaded
                .workloads
                .iter()
                .find(|((n, w), pods)| **n == *at && fits(w) && pods.is_empty())
                .map(|(key, _)| key)
        }
        _ => None,
    };
    let (namespace, workload) = specs.iter().find_map(|s| named(&s.endpoint))?;
    let kind = workload.kind.to_ascii_lowercase();
    Some(anyhow::anyhow!(
        "{kind} {namespace}/{} has no pods, so there are no connections to or from it",
        workload.name
    ))
}

/// Answers the question and prints the answer.
pub(crate) fn run(arguments: &Can) -> Result<Outcome> {
    let parse = |what: &str, text: &str| text.parse::<Spec>().with_context(|| format!("{what} `{text}`"));
    let mut source = parse("source", &arguments.source)?.within(arguments.namespace.as_deref());
    let mut destination =
        parse("destination", &arguments.destination)?.within(arguments.namespace.as_deref());
    let mut world =
        arguments.sources.load(arguments.namespace.as_deref(), arguments.quiet, Need::Verdicts)?;
    if let Some(error) = without_pods(&world.loaded, &[&source, &destination], &world.namespace) {
        return Err(error);
    }
    made_up::add(&mut world.loaded.cluster, [&mut source, &mut destination], &world.namespace)?;
    let (cluster, namespace) = (&world.loaded.cluster, &*world.namespace);
    let lookup = arguments.resolve.then_some(lookup::addresses as question::Lookup);
    let question = question::resolve(cluster, &source, &destination, namespace, lookup)?;
    let mut answer = answer::answer(cluster, question);
    let headline = world.conclusion(answer.verdict);
    // If something could not be read, what seems to be denied, such as DNS, may be allowed.
    if !arguments.quiet && headline == answer.verdict {
        let for_people = arguments.output.encoding().is_none();
        let command = || hints::explain_command(&arguments.source, &arguments.destination);
        answer.hints = hints::of(cluster, &answer, &destination, || for_people.then(command));
    }
    let text = match arguments.output.encoding() {
        _ if arguments.quiet => String::new(),
        None => render::text(&answer, headline),
        Some(encoding) => json::document(&answer, headline, &world.loaded, &world.incomplete(), encoding)?,
    };
    output::print_wrapped(&text).context("can't write the answer")?;
    Ok(world.outcome(answer.verdict.outcome()))
}

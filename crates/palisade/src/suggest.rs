//! `palisade suggest`: NetworkPolicies that allow recorded connections.
//!
//! ```text
//! records ─► flows of the cluster ─► palisade_analysis::suggest ─► YAML with comments ─► read again and compared ─► printed
//! (replay)      (seen, replies)                                       (document)              (read_back)
//! ```

mod document;
mod json;
mod notes;
mod read_back;
mod replies;
mod seen;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::suggest::{SuggestQuestion, SuggestStyle, suggest};
use palisade_policy::Name;

use crate::{
    cluster::Need, escape, exit::Outcome, explain::suggest::declared, inputs::InputArguments, output,
    replay::recording,
};

pub(crate) const HELP: &str = "\
FILE has one record a line, in the formats of `palisade replay`: the JSON of `palisade flows -o json`, that of `hubble observe -o jsonpb`, or CSV whose first line names its columns. Connections that were dropped are left out, unless --include-dropped is given.

Each namespace gets a policy that denies everything, one that allows DNS, and one for each workload (or for all its pods) that allows what was recorded: by the labels of pods and the names of namespaces, by the names of ports where the pods have them, and by CIDRs for other addresses. Comments say which connections each rule stands for. Namespaces of the system get policies only with -n.

Whatever is in the records is allowed, whoever caused it: review the comments. What is printed was read again, and every recorded connection was decided by it; what else it allows is counted on standard error.

Examples:
  palisade suggest --flows flows.json                    for the cluster's pods
  palisade suggest --flows flows.json -n shop            for one namespace
  palisade suggest --flows flows.csv -f manifests/ > policies.yaml
  hubble observe -o jsonpb | palisade suggest --flows - --style per-namespace
  palisade replay --flows flows.json --with policies.yaml   what they would break

Exit codes: 0 all that was recorded is allowed, 1 some is not, 2 error or undecided.";

/// Arguments of `suggest`.
#[derive(Debug, Args)]
pub(crate) struct Suggest {
    /// Recorded connections, or - for standard input
    #[arg(long, value_name = "FILE")]
    flows: String,
    /// What a policy selects
    #[arg(long, value_enum, value_name = "STYLE", default_value_t)]
    style: Style,
    /// Allow also what was dropped
    #[arg(long)]
    include_dropped: bool,
    #[command(flatten)]
    sources: InputArguments,
    /// Suggest policies for this namespace only; it is also that of manifests without one
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: SuggestFormat,
}

/// `--style`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Style {
    /// The pods of one workload
    #[default]
    PerWorkload,
    /// All pods of a namespace
    PerNamespace,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SuggestFormat {
    /// Policies for kubectl, with comments
    #[default]
    Yaml,
    /// JSON with the policies, and what each rule stands for; the `schema` field has the version
    Json,
}

/// Prints policies.
pub(crate) fn run(mut arguments: Suggest) -> Result<Outcome> {
    let sources = &mut arguments.sources;
    // The cluster alone is what is read without manifests.
    sources.live &= !(sources.files.is_empty() && sources.render.is_empty());
    let sources = &arguments.sources;
    if arguments.flows == "-" && sources.files.iter().any(|path| path == "-") {
        bail!("standard input (-) can be given only once");
    }
    let recording = recording::read(&arguments.flows, sources.reading.keep_going)?;
    let world = sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)?;
    let seen = seen::seen(&recording, &world.loaded.cluster, arguments.include_dropped)?;
    let workloads = declared(&world.loaded);
    let namespace: Option<Name> = arguments.namespace.as_deref().map(Name::from);
    let question = SuggestQuestion {
        cluster: &seen.cluster,
        workloads: &workloads,
        flows: &seen.flows,
        style: match arguments.style {
            Style::PerWorkload => SuggestStyle::PerWorkload,
            Style::PerNamespace => SuggestStyle::PerNamespace,
        },
        namespace: namespace.as_ref(),
    };
    let suggestion = output::with_progress("comparing what the policies allow", || suggest(&question));
    if suggestion.policies.is_empty() {
        notes::print(&suggestion, &seen, &recording, &world.loaded.cluster);
        match &arguments.namespace {
            Some(name) => bail!("no recorded connection has an end in namespace {}", escape::plain(name)),
            None => bail!("no recorded connection has an end in a namespace that gets policies"),
        }
    }
    let text = document::text(&suggestion);
    read_back::check(&text, &suggestion)?;
    match arguments.output {
        SuggestFormat::Yaml => output::print(&text),
        SuggestFormat::Json => {
            output::print(&json::document(&suggestion, &seen, &recording, world.incomplete())?)
        }
    }
    .context("can't write the answer")?;
    notes::print(&suggestion, &seen, &recording, &world.loaded.cluster);
    Ok(if recording.malformed > 0 || !seen.undecided.is_empty() {
        Outcome::Incomplete
    } else {
        world.outcome(Outcome::of(suggestion.denied.is_empty()))
    })
}

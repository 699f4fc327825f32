//! `palisade replay`: recorded connections against today's policies, and against those of a candidate.

mod candidate;
mod csv;
mod hubble;
mod json;
pub(crate) mod learned;
pub(crate) mod line;
pub(crate) mod names;
mod ours;
mod outcome;
pub(crate) mod recording;
mod source;
pub(crate) mod text;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    cluster::Need,
    exit::Outcome,
    inputs::{InputArguments, incomplete},
    output::{self, Format},
};

pub(crate) const HELP: &str = "\
FILE has one record a line: the JSON of `palisade flows -o json`, that of `hubble observe -o jsonpb`, or CSV whose first line names its columns (source, destination, protocol, port, and optionally verdict, count and destination_name; all others are ignored). A record of CSV without a verdict passed. Replies must not be in it.

Without --with, each record is compared with today's policies: those of the cluster, or of the manifests of -f. With --with, today's policies are compared with those after CANDIDATE is applied: its objects replace those with the same name, and all others stay.

A recorded pod is looked up by its name, else by its workload, else by the labels in the record. What can't be evaluated is undecided, with the reason: an address of a pod that is gone, a namespace whose labels are not known.

Examples:
  palisade replay --flows flows.json                   compare with the cluster's policies
  palisade replay --flows flows.json --with policies/  compare these with policies/ applied
  palisade replay --flows hubble.json -f manifests/    before Cilium is replaced
  hubble observe -o jsonpb | palisade replay --flows - -f manifests/ --with new.yaml

Exit codes: 0 nothing would newly be dropped, 1 something would be, 2 error or undecided.";

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Recorded connections, or - for standard input
    #[arg(long, value_name = "FILE")]
    flows: String,
    /// Manifests to apply to today's objects: a file or a directory, or - for standard input
    #[arg(long = "with", value_name = "CANDIDATE")]
    candidate: Option<String>,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Prints what would become of the recorded connections.
pub(crate) fn run(mut arguments: Replay) -> Result<Outcome> {
    let sources = &mut arguments.sources;
    // The cluster alone is what is read without manifests.
    sources.live &= !(sources.files.is_empty() && sources.render.is_empty());
    let sources = &arguments.sources;
    let candidate = arguments.candidate.as_deref();
    let inputs = [Some(&*arguments.flows), candidate].into_iter().flatten();
    if inputs.chain(sources.files.iter().map(String::as_str)).filter(|path| *path == "-").count() > 1 {
        bail!("standard input (-) can be given only once");
    }
    let recording = recording::read(&arguments.flows, sources.reading.keep_going)?;
    let mut world = sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)?;
    world.loaded.cluster.learned = learned::names(&recording, &world.loaded.cluster);
    let today = &world.loaded.cluster;
    let candidate = candidate
        .map(|path| candidate::read(path, &world.namespace, &sources.reading, &sources.addresses))
        .transpose()?;
    let after = candidate.as_ref().map(|candidate| candidate::applied(today, candidate));
    let replay = output::with_progress("judging all recorded connections", || {
        outcome::replay(&recording, today, after.as_ref())
    });
    let text = match arguments.output.encoding() {
        None => text::text(&replay, &recording),
        Some(encoding) => {
            let of_candidate = candidate.iter().flat_map(incomplete);
            json::document(
                &replay,
                &recording,
                world.incomplete().into_iter().chain(of_candidate).collect(),
                encoding,
            )?
        }
    };
    match arguments.output {
        Format::Text => output::print_wrapped(&text),
        Format::Json | Format::Yaml => output::print(&text),
    }
    .context("can't write the answer")?;
    if arguments.output == Format::Text {
        text::notes(&replay, &recording).iter().for_each(|note| output::note(&format!("{note}\n")));
    }
    let candidate_has_errors = candidate.is_some_and(|candidate| candidate.has_errors());
    let unread = recording.malformed > 0 || candidate_has_errors;
    Ok(if unread || !replay.undecided.is_empty() {
        Outcome::Incomplete
    } else {
        world.outcome(Outcome::of(replay.dropped.is_empty()))
    })
}

//! `palisade suggest`: NetworkPolicies that allow recorded connections, or those that manifests show to be needed.
//!
//! ```text
//! records ─► flows of the cluster ─► palisade_analysis::suggest ─► YAML with comments ─► read again and compared ─► printed
//! (replay)      (seen, replies)                                       (document)              (read_back)
//! manifests ─► flows with evidence ─►
//!              (needs)
//! ```

mod basis;
mod document;
mod json;
mod needs;
mod notes;
mod read_back;
mod replies;
mod seen;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::suggest::{
    SeenFlow, SuggestBasis, SuggestQuestion, SuggestStyle, Suggestion, suggest,
};
use palisade_policy::{Cluster, Name};

use crate::{
    cluster::Need,
    entrances::ControllerArguments,
    escape,
    exit::Outcome,
    explain::suggest::declared,
    inputs::{InputArguments, LoadedInputs},
    output,
    replay::{learned, recording},
};
use basis::Basis;

pub(crate) const HELP: &str = "\
FILE has one record per line, in the formats of `palisade replay`: the JSON of `palisade flows -o json`, that of `hubble observe -o jsonpb`, or CSV whose first line names its columns. Connections that were dropped are left out, unless --include-dropped is given.

With --from-services, no records are needed: the manifests show which workloads connect to which, by the Services that environment variables, arguments and ConfigMaps name, by Ingresses and routes, and by monitors. Comments have the file and line that shows it. What the manifests don't show is listed, and denied.

Each namespace gets a policy that denies everything, one that allows DNS, and one for each workload (or for all its pods) that allows what was recorded: by the labels of pods and the names of namespaces, by the names of ports where the pods have them, and by CIDRs for other addresses. Comments say which connections each rule stands for. With --domains, destinations outside the cluster of which the records have names (`destination.names` of Palisade, `destination_names` of Hubble, the column `destination_name`) are allowed by a ClusterNetworkPolicy for each workload, which agents enforce with --domain-names=on. System namespaces get policies only with -n.

Everything in the records is allowed, including the connections of an attacker: review the comments. Before the policies are printed, every recorded connection is evaluated with them; what else they allow is counted on standard error.

Examples:
  palisade suggest --flows flows.json                    for the cluster's pods
  palisade suggest --flows flows.json -n shop            for one namespace
  palisade suggest --flows flows.csv -f manifests/ > policies.yaml
  palisade suggest --flows flows.json --domains -n shop  hosts outside by name
  hubble observe -o jsonpb | palisade suggest --flows - --style per-namespace
  palisade suggest --from-services -f manifests/ > policies.yaml
  palisade replay --flows flows.json --with policies.yaml   what they would break

Exit codes: 0 all that was recorded is allowed, 1 some is not, 2 error or undecided.";

/// Arguments of `suggest`.
#[derive(Debug, Args)]
pub(crate) struct Suggest {
    /// Recorded connections, or - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "from_services")]
    flows: Option<String>,
    /// Use manifests instead of records: the Services that environment variables, arguments and ConfigMaps name, routes,
    /// and monitors
    #[arg(long, conflicts_with_all = ["flows", "include_dropped", "domains"])]
    from_services: bool,
    /// What a policy selects
    #[arg(long, value_enum, value_name = "STYLE", default_value_t)]
    style: Style,
    /// Also allow connections that were dropped
    #[arg(long)]
    include_dropped: bool,
    /// Allow destinations outside the cluster by their host names in the records, with ClusterNetworkPolicies
    #[arg(long)]
    domains: bool,
    #[command(flatten)]
    controller: ControllerArguments,
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
    match arguments.flows.clone() {
        Some(flows) => from_records(&arguments, &flows),
        None => from_manifests(&arguments),
    }
}

fn from_records(arguments: &Suggest, flows: &str) -> Result<Outcome> {
    let sources = &arguments.sources;
    if arguments.controller.is_given() {
        bail!("--ingress-controller needs --from-services: records say which pods connect");
    }
    if flows == "-" && sources.files.iter().any(|path| path == "-") {
        bail!("standard input (-) can be given only once");
    }
    let recording = recording::read(flows, sources.reading.keep_going)?;
    let mut world = sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)?;
    world.loaded.cluster.learned = learned::names(&recording, &world.loaded.cluster);
    let wanted = seen::Wanted { dropped: arguments.include_dropped, by_name: arguments.domains };
    let seen = seen::seen(&recording, &world.loaded.cluster, wanted)?;
    let today = &world.loaded.cluster;
    let suggestion = arguments.suggestion(&world, &seen.cluster, &seen.flows, SuggestBasis::Records);
    let only: Option<Name> = arguments.namespace.as_deref().map(Name::from);
    let none = needs::without_policies(&world.loaded, &suggestion, only.as_ref());
    if suggestion.policies.is_empty() {
        notes::print(&suggestion, &seen, &recording, &none, today);
        match &arguments.namespace {
            Some(name) => bail!("no recorded connection has an end in namespace {}", escape::plain(name)),
            None => bail!("no recorded connection has an end in a namespace that gets policies"),
        }
    }
    let text = document::text(&suggestion, Basis::Records, &[]);
    read_back::check(&text, &suggestion)?;
    arguments.print(text, || {
        let rest = json::Rest::of_records(&seen, &recording);
        json::document(&suggestion, Basis::Records, rest, world.incomplete())
    })?;
    notes::print(&suggestion, &seen, &recording, &none, today);
    Ok(if recording.malformed > 0 || !seen.undecided.is_empty() {
        Outcome::Incomplete
    } else {
        world.outcome(Outcome::of(suggestion.denied.is_empty()))
    })
}

fn from_manifests(arguments: &Suggest) -> Result<Outcome> {
    let sources = &arguments.sources;
    if sources.files.is_empty() && sources.render.is_empty() {
        bail!(
            "--from-services needs manifests (-f, -k or --helm): settings are not read from a cluster, because they may have \
             passwords"
        );
    }
    let world = sources.load_with_references(arguments.namespace.as_deref(), Need::Everything)?;
    let loaded = &world.loaded;
    let entrances = arguments.controller.entrances(loaded, &world.namespace)?;
    let needs = needs::needs(loaded, &entrances)?;
    let suggestion = arguments.suggestion(&world, &loaded.cluster, &needs.flows, SuggestBasis::Needs);
    let basis = Basis::Needs(&needs.evidence);
    let closed = needs::closed(loaded, &needs, &suggestion);
    let only: Option<Name> = arguments.namespace.as_deref().map(Name::from);
    let none = needs::without_policies(loaded, &suggestion, only.as_ref());
    let notes = || notes::print_needs(&suggestion, &needs, &closed, &none, &loaded.cluster);
    if suggestion.policies.is_empty() {
        notes();
        bail!("the manifests show no connection of a pod in a namespace that gets policies");
    }
    let text = document::text(&suggestion, basis, &closed);
    read_back::check(&text, &suggestion)?;
    arguments.print(text, || {
        json::document(&suggestion, basis, json::Rest::of_needs(&needs, &closed), world.incomplete())
    })?;
    notes();
    Ok(match needs.undecided.is_empty() {
        true => world.outcome(Outcome::of(suggestion.denied.is_empty())),
        false => Outcome::Incomplete,
    })
}

impl Suggest {
    fn suggestion(
        &self,
        world: &LoadedInputs,
        cluster: &Cluster,
        flows: &[SeenFlow],
        basis: SuggestBasis,
    ) -> Suggestion {
        let workloads = declared(&world.loaded);
        let namespace: Option<Name> = self.namespace.as_deref().map(Name::from);
        let style = match self.style {
            Style::PerWorkload => SuggestStyle::PerWorkload,
            Style::PerNamespace => SuggestStyle::PerNamespace,
        };
        let namespace = namespace.as_ref();
        let question = SuggestQuestion { cluster, workloads: &workloads, flows, style, basis, namespace };
        output::with_progress("comparing what the policies allow", || suggest(&question))
    }

    fn print(&self, yaml: String, json: impl FnOnce() -> Result<String>) -> Result<()> {
        let text = match self.output {
            SuggestFormat::Yaml => yaml,
            SuggestFormat::Json => json()?,
        };
        output::print(&text).context("can't write the answer")
    }
}

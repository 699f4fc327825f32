//! `palisade connections`: the allowed connections within a cluster and with external addresses.

mod csv;
mod filter;
mod folded;
mod graph;
mod grid;
mod html;
mod json;
mod lines;
mod matrix;
mod reasons;
mod report;
mod sets;
mod svg;
mod table;
mod wrap;

use std::io::{self, Write};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::{
    AddressQuestion, ConnectionEnd, Connections as Answer, ConnectionsOptions, EndFilter, GroupBy, Questions,
    Reasoner, UndecidedEdge,
};

use crate::{
    addresses,
    cluster::{JsonMissing, Need},
    entrances::{self, ControllerArguments},
    escape,
    exit::Outcome,
    inputs::{self, InputArguments},
    output,
};
pub(crate) use reasons::words as decider_words;
use report::{Explains, Report};

pub(crate) const HELP: &str = "\
--from and --to have the syntax of SRC and DST in `palisade can`, and also take:
  namespace/NAME           everything in a namespace
  10.0.0.0/8, 2001:db8::/32
                           external addresses, split at the edges of the range
  api.example.com          a host outside, with --to also by rules that have it among their
                           domainNames
  {ingress-controller}     the pods that forward connections into the cluster

A workload is split into parts if policies treat its pods differently. External addresses are split exactly where a policy distinguishes them. Listed are new connections, after translation of service addresses. Connections of a pod to itself are always allowed and not listed.

{ingress-controller} stands for the pods that forward connections for Ingresses, Gateway API routes and OpenShift Routes. These objects do not name the pods. Well-known controllers are recognized by their labels, and --ingress-controller names others; otherwise, a pod without labels in a new namespace is assumed. Connections that routes request and policies deny are reported.

Examples:
  palisade connections -f examples/shop
  palisade connections -k overlays/production
  palisade connections --helm chart --values production.yaml -n shop
  palisade connections -f examples/shop --to shop/backend --port 8080
  palisade connections -f examples/shop --only-denied --from namespace/shop
  palisade connections -f examples/shop --explain
  palisade connections -f examples/shop -o matrix
  palisade connections -f examples/shop --group-by namespace -o md
  palisade connections -f examples/shop -o html > shop.html
  palisade connections -f examples/shop -o mermaid
  palisade connections -f examples/ingress --from '{ingress-controller}'
  palisade list -f examples/shop -o json | jq -c '.connections[] | select(.all)'

Exit codes: 0 done, 2 error.";

/// Arguments of `connections`.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    sources: InputArguments,
    /// List only connections from or to this namespace, which is also that of names and manifests without one
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// List connections of all namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What an end of a connection represents [default: workload, and in large graphs namespace]
    #[arg(long, value_enum, value_name = "WHAT")]
    group_by: Option<Grouping>,
    /// List only connections from this end; may be repeated
    #[arg(long, value_name = "END")]
    from: Vec<String>,
    /// List only connections to this end; may be repeated
    #[arg(long, value_name = "END")]
    to: Vec<String>,
    /// List only these destination ports: 443, 8000-8100/TCP, 53/UDP, ICMP; may be repeated
    #[arg(long, value_name = "PORT[/PROTO]")]
    port: Vec<String>,
    /// List denied instead of allowed connections
    #[arg(long)]
    only_denied: bool,
    /// Name the rules and policies that allow or deny each connection, in tables, JSON and YAML
    #[arg(long)]
    explain: bool,
    /// List each pair of ends by itself, in tables, JSON and YAML
    #[arg(long, visible_alias = "all")]
    no_fold: bool,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Include nodes and their host-network pods
    #[arg(long)]
    nodes: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

/// `--group-by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Grouping {
    /// A workload, split if its pods are treated differently
    #[default]
    Workload,
    /// A pod
    Pod,
    /// A namespace, with what any of its pods may use
    Namespace,
    /// All pods that are treated alike, across workloads
    Class,
}

impl From<Grouping> for GroupBy {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Workload => Self::Workload,
            Grouping::Pod => Self::Pod,
            Grouping::Namespace => Self::Namespace,
            Grouping::Class => Self::Class,
        }
    }
}

impl Grouping {
    fn word(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::Class => "class",
        }
    }
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// One line for ends with the same connections
    #[default]
    Table,
    /// One line per connection, with IP families and the file and line of each end
    Wide,
    /// Rows are sources, columns are destinations, cells are ports
    Matrix,
    /// JSON as described in docs/connections-schema.json
    Json,
    /// The same data as YAML
    Yaml,
    /// CSV with one line per connection and protocol
    Csv,
    /// A Markdown table
    Md,
    /// A Graphviz graph
    Dot,
    /// A Mermaid graph
    Mermaid,
    /// An SVG image of a matrix
    Svg,
    /// An HTML page with a matrix and a searchable table
    Html,
}

/// The most edges of a graph of workloads, unless these are asked for. More can't be read.
const MOST_GRAPH_EDGES: usize = 200;

impl Connections {
    fn grouping(&self) -> Grouping {
        self.group_by.unwrap_or_default()
    }

    /// Returns an error if `--explain` is given with what it can't be combined with.
    fn check_explain(&self) -> Result<()> {
        if !self.explain {
            return Ok(());
        }
        if self.grouping() == Grouping::Namespace {
            bail!(
                "--explain: the pods of a namespace have different reasons; use --group-by workload, pod or class"
            );
        }
        match self.output {
            OutputFormat::Json | OutputFormat::Yaml => Ok(()),
            OutputFormat::Table if !self.no_fold => Ok(()),
            OutputFormat::Table => bail!("--explain with --no-fold needs -o json or yaml"),
            _ => bail!("--explain needs -o table, json or yaml"),
        }
    }
}

/// Prints the connections.
pub(crate) fn run(arguments: &Connections) -> Result<Outcome> {
    let mut world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    if let Some(learned) =
        filter::learned(&world.loaded.cluster, &arguments.to, &world.namespace).context("--to")?
    {
        output::note(&format!(
            "note: {} may have any public address, and is shown as if it were resolved to the addresses listed\n",
            learned.name
        ));
        world.loaded.cluster.learned.insert(learned.name.clone(), learned);
    }
    let (loaded, namespace) = (&world.loaded, &*world.namespace);
    let cluster = &loaded.cluster;
    if cluster.pods.is_empty() {
        bail!("the {} have no pods, so there are no connections to list", world.place());
    }
    if let Some(name) = arguments.namespace.as_deref().filter(|n| !cluster.namespaces.contains_key(*n)) {
        bail!("namespace `{name}` not found in the {}", world.place());
    }
    let end_filter = |words: &[String], option: &str| -> Result<Option<EndFilter>> {
        if words.is_empty() {
            return Ok(None);
        }
        filter::filter(cluster, words, namespace).with_context(|| option.to_owned()).map(Some)
    };
    let (from, to) = (end_filter(&arguments.from, "--from")?, end_filter(&arguments.to, "--to")?);
    let asked_for_nodes = [&from, &to].into_iter().flatten().any(|f| !f.nodes.is_empty());
    let mut options = ConnectionsOptions {
        group_by: arguments.grouping().into(),
        traffic: filter::traffic(&arguments.port).context("--port")?,
        only_denied: arguments.only_denied,
        nodes: arguments.nodes || asked_for_nodes,
        controller_routes: arguments.controller.entrances(loaded, namespace)?,
        from,
        to,
    };
    arguments.check_explain()?;
    let compute =
        |options: &_| output::with_progress("computing all connections", || Answer::new(cluster, options));
    let mut answer = compute(&options);
    let mut grouping = arguments.grouping();
    let only = arguments.namespace.as_deref();
    let is_graph = matches!(arguments.output, OutputFormat::Dot | OutputFormat::Mermaid);
    let mut summed_up = None;
    if is_graph && arguments.group_by.is_none() {
        let edges = Report::new(&answer, loaded, only, &options, grouping.word()).edges().count();
        if edges > MOST_GRAPH_EDGES {
            grouping = Grouping::Namespace;
            options.group_by = grouping.into();
            answer = compute(&options);
            summed_up = Some(format!(
                "{edges} edges between workloads are drawn by namespace; --group-by workload draws each"
            ));
        }
    }
    let reasoner = arguments.explain.then(|| Reasoner::new(cluster, &answer, options.only_denied));
    let mut report = Report::new(&answer, loaded, only, &options, grouping.word());
    report.summed_up = summed_up;
    let mut asking = Questions::new(cluster, &answer);
    let undecided: Vec<Undecided> = report
        .undecided()
        .into_iter()
        .map(|edge| {
            let questions = asking.of(&edge);
            (edge, questions)
        })
        .collect();
    report.reasoner = reasoner.as_ref().map(|reasoner| reasoner as &dyn Explains);
    let fold = !arguments.no_fold;
    let written = match arguments.output {
        OutputFormat::Table if fold => output::print(&folded::text(&report, output::answer_width())),
        OutputFormat::Matrix => output::print(&matrix::text(&report, output::answer_width())?),
        format => output::stream(|out| write(&report, format, fold, &undecided, world.incomplete(), out)),
    };
    written.context("can't write the answer")?;
    if is_graph {
        graph::report_size(&report);
    }
    bystanders(&report);
    blocked(&report);
    addresses::report_undecided(undecided.len(), undecided.iter().flat_map(|(_, questions)| questions));
    Ok(world.outcome(if undecided.is_empty() { Outcome::Yes } else { Outcome::Incomplete }))
}

/// Traffic that depends on addresses that are not known, and the rules that ask for them.
type Undecided = (UndecidedEdge, Vec<AddressQuestion>);

/// Writes the answer in a format.
fn write(
    report: &Report<'_>,
    format: OutputFormat,
    fold: bool,
    undecided: &[Undecided],
    incomplete: Vec<JsonMissing<'_>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        OutputFormat::Table | OutputFormat::Matrix => table::text(report, false, out),
        OutputFormat::Wide => table::text(report, true, out),
        OutputFormat::Json => json::json(report, fold, undecided, incomplete, out),
        OutputFormat::Yaml => json::yaml(report, fold, undecided, incomplete, out),
        OutputFormat::Csv => csv::csv(report, out),
        OutputFormat::Md => table::markdown(report, out),
        OutputFormat::Dot => graph::dot(report, out),
        OutputFormat::Mermaid => graph::mermaid(report, out),
        OutputFormat::Svg => svg::page(report, out),
        OutputFormat::Html => html::page(report, out),
    }
}

/// Warns about connections that routes request and policies deny.
fn blocked(report: &Report<'_>) {
    for blocked in report.blocked() {
        let routes = &report.loaded.routes;
        let end = escape::plain(report.id(blocked.to)).into_owned();
        let named =
            report.answer.ends().any(|e| matches!(e, ConnectionEnd::IngressController(c) if !c.is_empty()));
        output::note(&entrances::blocked(&end, &blocked.traffic, &blocked.through, routes, named));
    }
}

/// Notes the pods to which policies do not apply.
fn bystanders(report: &Report<'_>) {
    let all = report.answer.unaffected_pods();
    if all.is_empty() {
        return;
    }
    let names = crate::connection_ends::abbreviated(all, |b| b.pod.to_string());
    let pods = inputs::plural(all.len(), "pod");
    output::note(&format!(
        "note: policies do not apply to {} {pods} on the host network or without an address: {names}\n",
        all.len()
    ));
}

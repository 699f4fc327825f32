//! `palisade connections`: every connection that is allowed in a cluster, and with the outside.

mod csv;
mod filter;
mod graph;
mod grid;
mod html;
mod json;
mod report;
mod svg;
mod table;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_analysis::{ConnectionEnd, Connections as Answer, ConnectionsOptions, EndFilter, GroupBy};

use crate::{
    cluster::Need,
    entrances::{self, ControllerArguments},
    escape,
    exit::Outcome,
    inputs::{self, InputArguments},
    output,
};
use report::Report;

pub(crate) const HELP: &str = "\
--from and --to take what `palisade can` takes as SRC and DST, and also:
  namespace/NAME           everything in a namespace
  10.0.0.0/8, 2001:db8::/32
                           outside addresses: ends are cut at the edges of the range
  {ingress-controller}     what forwards connections into the cluster

A workload whose pods are not all treated alike is shown in parts. Outside addresses are split exactly where some policy tells them apart. What is shown is the network's part: new connections, after the translation of service addresses. A pod reaches itself always; that isn't shown.

{ingress-controller} stands for what forwards connections as Ingresses, routes of the Gateway API and OpenShift's Routes ask for. Which pods that is, these objects don't say: unless --ingress-controller names it, it may open what a pod without labels in a new namespace may. What they ask for and policies deny is reported.

Examples:
  palisade connections -f examples/shop
  palisade connections -f examples/shop --to shop/backend --port 8080
  palisade connections -f examples/shop --only-denied --from namespace/shop
  palisade connections -f examples/shop --group-by namespace -o md
  palisade connections -f examples/shop -o html > shop.html
  palisade connections -f examples/ingress --from '{ingress-controller}'
  palisade list -f examples/shop -o json | jq '.connections[] | select(.all)'

Exit codes: 0 answered, 2 error.";

/// What `connections` is asked.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    sources: InputArguments,
    /// Only connections from or to this namespace; also that of names, and of objects in the manifests, that have none
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Connections of all namespaces, as without -n
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What one end stands for
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    group_by: Grouping,
    /// Only connections from here; may be repeated
    #[arg(long, value_name = "END")]
    from: Vec<String>,
    /// Only connections to here; may be repeated
    #[arg(long, value_name = "END")]
    to: Vec<String>,
    /// Only these destination ports: 443, 8000-8100/TCP, 53/UDP, ICMP; may be repeated
    #[arg(long, value_name = "PORT[/PROTO]")]
    port: Vec<String>,
    /// Show what is denied instead of what is allowed
    #[arg(long)]
    only_denied: bool,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Show nodes too, with the pods that share their network
    #[arg(long)]
    nodes: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t)]
    output: Form,
}

/// `--group-by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Grouping {
    /// A workload, in parts where its pods differ
    #[default]
    Workload,
    /// A pod
    Pod,
    /// A namespace: what some pod of it may use
    Namespace,
    /// All pods that are treated alike, of whatever workload
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
enum Form {
    /// A line for each connection
    #[default]
    Table,
    /// The same with families, and file and line of each end
    Wide,
    /// For programs: docs/connections-schema.json describes it
    Json,
    /// The same in YAML
    Yaml,
    /// For spreadsheets: a line for each connection and protocol
    Csv,
    /// A Markdown table
    Md,
    /// A graph for Graphviz
    Dot,
    /// A graph for Mermaid
    Mermaid,
    /// A matrix as a picture
    Svg,
    /// A page with a matrix and a table that can be searched
    Html,
}

/// Answers.
pub(crate) fn run(arguments: &Connections) -> Result<Outcome> {
    let world = arguments.sources.load(arguments.namespace.as_deref(), false, Need::Everything)?;
    let (loaded, namespace) = (&world.loaded, &*world.namespace);
    let cluster = &loaded.cluster;
    if let Some(name) = arguments.namespace.as_deref().filter(|n| !cluster.namespaces.contains_key(*n)) {
        bail!("there is no namespace `{name}` in the {}", world.place());
    }
    let end_filter = |words: &[String], option: &str| -> Result<Option<EndFilter>> {
        if words.is_empty() {
            return Ok(None);
        }
        filter::filter(cluster, words, namespace).with_context(|| option.to_owned()).map(Some)
    };
    let (from, to) = (end_filter(&arguments.from, "--from")?, end_filter(&arguments.to, "--to")?);
    let asked_for_nodes = [&from, &to].into_iter().flatten().any(|f| !f.nodes.is_empty());
    let options = ConnectionsOptions {
        group_by: arguments.group_by.into(),
        traffic: filter::traffic(&arguments.port).context("--port")?,
        only_denied: arguments.only_denied,
        nodes: arguments.nodes || asked_for_nodes,
        controller_routes: arguments.controller.entrances(loaded, namespace)?,
        from,
        to,
    };
    let answer = Answer::new(cluster, &options);
    let report =
        Report::new(&answer, loaded, arguments.namespace.as_deref(), &options, arguments.group_by.word());
    output::stream(|out| match arguments.output {
        Form::Table => table::text(&report, false, out),
        Form::Wide => table::text(&report, true, out),
        Form::Json => json::json(&report, world.incomplete(), out),
        Form::Yaml => json::yaml(&report, world.incomplete(), out),
        Form::Csv => csv::csv(&report, out),
        Form::Md => table::markdown(&report, out),
        Form::Dot => graph::dot(&report, out),
        Form::Mermaid => graph::mermaid(&report, out),
        Form::Svg => svg::page(&report, out),
        Form::Html => html::page(&report, out),
    })
    .context("can't write the answer")?;
    bystanders(&report);
    blocked(&report);
    Ok(world.outcome(Outcome::Yes))
}

/// Tells what Ingresses and routes ask for in vain.
fn blocked(report: &Report<'_>) {
    for blocked in report.blocked() {
        let routes = &report.loaded.routes;
        let end = escape::plain(report.id(blocked.to)).into_owned();
        let named =
            report.answer.ends().any(|e| matches!(e, ConnectionEnd::IngressController(c) if !c.is_empty()));
        output::note(&entrances::blocked(&end, &blocked.traffic, &blocked.through, routes, named));
    }
}

/// Tells those who read the answer on a terminal whom it leaves out.
fn bystanders(report: &Report<'_>) {
    let all = report.answer.unaffected_pods();
    if all.is_empty() {
        return;
    }
    let names = crate::connection_ends::abbreviated(all, |b| b.pod.to_string());
    let them = inputs::plural(all.len(), "pod");
    let verb = if all.len() == 1 { "is" } else { "are" };
    output::note(&format!(
        "note: no policy acts on {} {them} that {verb} on a node's network or without address: {names}\n",
        all.len()
    ));
}

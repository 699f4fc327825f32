//! `palisade lab run`: builds a cluster, probes it and compares the outcomes with the engine.

use std::{fmt::Write as _, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use palisade_lab::{
    Lab, Layout, Sandbox,
    dns::{LookupResult, NamePlan},
    probe::{self, Expected, Mismatch, Outcome as ProbeOutcome, Plan, ProbeOptions, Report, Target},
};
use palisade_policy::{Direction, Flow, reference};
use serde::Serialize;

use super::{
    by_name::{self, ByName},
    flow_file::FlowFile,
    hosts,
    layout_arguments::{LayoutArguments, load_options},
    matrix::{Matrix, draw},
    wording::verdict_lines,
    zones,
};
use crate::{
    exit::Outcome,
    inputs::{self, ReadingArguments, RenderArguments},
    output::{self, Encoding, Format, Style, styled},
    reasons,
};

pub(crate) const HELP: &str = "\
The matrix and the mismatches are written to standard output, which is the same for the same manifests; counts and times are written to standard error.

Examples:
  palisade lab run examples/shop
  palisade lab run examples/shop --nodes 3 --bridge --family 4
  palisade lab run examples/shop -o json | jq .mismatches
  palisade lab run examples/egress-by-name --hosts examples/egress-by-name/hosts
  palisade lab run examples/egress-by-name --zones examples/egress-by-name.zones.yaml
  palisade lab run examples/shop --flow-file flows.json
  palisade lab run examples/shop --dry-run | diff examples/shop/expected.txt -

Exit codes: 0 kernel and engine agree, 1 they disagree, 2 error.";

/// How many connections are open at a time if they are recorded: agents explain at most 50 denied flows of one sender a second.
const RECORDED_IN_FLIGHT: usize = 16;

/// Arguments of `lab run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Manifests: files, directories (read recursively), or - for standard input
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    layout: LayoutArguments,
    #[command(flatten)]
    reading: ReadingArguments,
    #[command(flatten)]
    render: RenderArguments,
    /// Maximum number of connections to probe, chosen at random
    #[arg(long, value_name = "N")]
    max_probes: Option<usize>,
    /// Seed of the random choice
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Addresses of host names outside, in the format of /etc/hosts: nodes treat them as learned, for domainNames of policies
    #[arg(long, value_name = "FILE")]
    hosts: Option<String>,
    /// What the lab's DNS servers answer (YAML): every pod asks for every name and connects to what is answered, at once
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    zones: Option<String>,
    /// Write the nodes' records of flows to this file as JSON lines, as agents with --flows=new do: connections that passed, and packets that were dropped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "zones"])]
    flow_file: Option<PathBuf>,
    /// Print the engine's verdicts only, without a kernel or packets
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Runs the lab.
pub(crate) fn run(arguments: &Run) -> Result<Outcome> {
    if arguments.paths.is_empty() && arguments.render.is_empty() {
        bail!("there is nothing to read: give the manifests as PATH, or with -k or --helm");
    }
    let mut files = inputs::inputs(&arguments.paths)?;
    files.extend(arguments.render.inputs(None, false)?);
    let names = [arguments.paths.clone(), arguments.render.names()].concat().join(", ");
    let reading = load_options(arguments.hosts.is_some() || arguments.zones.is_some());
    let mut loaded = inputs::load_inputs(&files, &names, &arguments.reading, &reading, false)?;
    let mut layout_options = arguments.layout.options();
    if let Some(path) = &arguments.hosts {
        let hosts = hosts::read(path).context("--hosts")?;
        layout_options.outside.extend(hosts::addresses(&hosts));
        loaded.cluster.learned = hosts;
    }
    let (by_name, layout) = match &arguments.zones {
        Some(path) => {
            let (by_name, layout) = ByName::read(path, &loaded.cluster, &layout_options)?;
            (Some(by_name), layout)
        }
        None => (None, Layout::of(&loaded.cluster, &layout_options)?),
    };
    let mut options =
        ProbeOptions { max_probes: arguments.max_probes, seed: arguments.seed, ..Default::default() };
    if arguments.flow_file.is_some() {
        options.first.in_flight = RECORDED_IN_FLIGHT;
    }
    if arguments.dry_run {
        dry_run(&layout, &options, by_name.as_ref(), arguments.output)?;
        return Ok(if loaded.has_errors() { Outcome::Incomplete } else { Outcome::Yes });
    }
    let flow_file = arguments.flow_file.as_deref().map(FlowFile::create).transpose()?;
    let run = Performed::of(layout, &options, by_name.as_ref(), flow_file.as_ref())?;
    let text = match arguments.output.encoding() {
        None => run.text(),
        Some(encoding) => run.document(encoding)?,
    };
    output::print(&text).context("can't write the result")?;
    output::note(&summary(&run.report, run.built));
    if let Some((plan, results)) = &run.names {
        by_name::note_not_probed(plan);
        output::note(&by_name::summary(results));
    }
    if let Some(file) = flow_file {
        file.write()?;
    }
    // Agreement about a part of the manifests is not agreement about them.
    Ok(if run.agrees() && loaded.has_errors() { Outcome::Incomplete } else { Outcome::of(run.agrees()) })
}

/// Returns the probes by address.
fn plan(layout: &Layout, options: &ProbeOptions, by_name: Option<&ByName>) -> Plan {
    let mut plan = Plan::of(layout, options);
    if let Some(by_name) = by_name {
        by_name.remove_probes_of_servers(&mut plan);
    }
    plan
}

/// What came of a run.
struct Performed {
    lab: Lab,
    built: std::time::Duration,
    report: Report,
    /// The lookups, if there are zones.
    names: Option<(NamePlan, Vec<LookupResult>)>,
}

impl Performed {
    /// Builds the lab and probes it, by address and then by name.
    fn of(
        layout: Layout,
        options: &ProbeOptions,
        by_name: Option<&ByName>,
        flow_file: Option<&FlowFile>,
    ) -> Result<Self> {
        let sandbox = Sandbox::enter()?;
        let began = Instant::now();
        output::note(&format!(
            "building {} nodes, {} pods and {} outside addresses …\n",
            layout.nodes.len(),
            layout.pods.len(),
            layout.outside.len()
        ));
        let agents = match (by_name, flow_file) {
            (Some(by_name), _) => by_name.agents(),
            (None, Some(file)) => file.enforcers(),
            (None, None) => palisade_lab::agent::palisade(),
        };
        let mut lab = Lab::build(&sandbox, layout, agents)?;
        let built = began.elapsed();
        let plan = plan(lab.layout(), options, by_name);
        let bar = progress_bar(plan.probes.len());
        let report = probe::run(&lab, &plan, options, |done, _| bar.set_position(done as u64));
        bar.finish_and_clear();
        let report = report.context("the probes could not be run")?;
        let names = match by_name {
            Some(by_name) => {
                let plan = by_name.plan(lab.layout());
                let results = by_name.run(&mut lab, &plan)?;
                Some((plan, results))
            }
            None => None,
        };
        Ok(Self { lab, built, report, names })
    }

    fn agrees(&self) -> bool {
        self.report.agrees() && self.lookups().iter().all(LookupResult::agrees)
    }

    fn lookups(&self) -> &[LookupResult] {
        self.names.as_ref().map_or(&[], |(_, results)| results)
    }

    fn text(&self) -> String {
        let layout = self.lab.layout();
        let direct = self.report.probes.iter().filter(|t| matches!(t.probe.target, Target::Direct(_)));
        let flows = direct.filter_map(|t| Some((&t.probe.flows.first()?.0, passed(&t.outcome))));
        let named =
            self.names.as_ref().map_or_else(Vec::new, |(plan, results)| by_name::flows(plan, results));
        let mut out = draw::text(&Matrix::of(&layout.cluster, flows, named), draw::WIDTH);
        out.push_str(&hosts::legend(&layout.cluster));
        if let Some((plan, _)) = &self.names {
            out.push_str(&zones::legend(&plan.lookups));
        }
        if !self.agrees() {
            _ = writeln!(out, "\n{}", styled(Style::Bad, "kernel and engine disagree:"));
            for mismatch in &self.report.mismatches {
                out.push_str(&mismatch_text(mismatch));
            }
            out.push_str(&by_name::mismatches(self.lookups()));
        }
        out
    }

    fn document(&self, encoding: Encoding) -> Result<String> {
        let layout = self.lab.layout();
        let run = JsonRun {
            schema: "palisade.lab-run/v1",
            agrees: self.agrees(),
            nodes: layout.nodes.len(),
            pods: layout.pods.len(),
            outside: &layout.outside,
            report: &self.report,
            lookups: self.names.as_ref().map(|(_, results)| &**results),
        };
        encoding.encode(&run)
    }
}

pub(crate) fn progress_bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    // The template is constant and valid.
    if let Ok(style) = ProgressStyle::with_template("probing {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Whether the outcome of a probe counts as allowed.
pub(crate) fn passed(outcome: &ProbeOutcome) -> bool {
    matches!(outcome, ProbeOutcome::Connected { .. })
}

fn target_text(target: &Target) -> String {
    match target {
        Target::Direct(end) => end.to_string(),
        Target::Service { key, address } => format!("service {key} ({address})"),
    }
}

pub(super) fn mismatch_text(mismatch: &Mismatch) -> String {
    let probe = &mismatch.result.probe;
    let expected = expected_word(probe.expected());
    let port = reasons::port_text(probe.protocol, probe.port);
    let mut out = format!(
        "  {} → {}  {port}: {}, expected: {expected}\n",
        probe.source,
        target_text(&probe.target),
        mismatch.result.outcome
    );
    for decision in &mismatch.decisions {
        for (direction, side) in
            [(Direction::Egress, &decision.egress), (Direction::Ingress, &decision.ingress)]
        {
            for line in verdict_lines(side, direction) {
                _ = writeln!(out, "    {direction}: {line}");
            }
        }
    }
    out
}

pub(crate) fn expected_word(expected: Expected) -> &'static str {
    match expected {
        Expected::Allowed => "allowed",
        Expected::Denied => "denied",
        Expected::Either => "allowed or denied, by backend",
        Expected::NoBackend => "no backend",
    }
}

fn summary(report: &Report, built: std::time::Duration) -> String {
    let counts = &report.counts;
    let mut out = String::new();
    for note in &report.not_probed {
        _ = writeln!(out, "not probed: {} ({})", note.what, note.why);
    }
    let mismatches =
        format!("{} {}", counts.mismatches, if counts.mismatches == 1 { "mismatch" } else { "mismatches" });
    let style = if report.agrees() { Style::Good } else { Style::Bad };
    _ = writeln!(
        out,
        "{} probes: {} answered, {} dropped, {} otherwise; {}; built in {}, probed in {}",
        counts.probed,
        counts.connected,
        counts.dropped,
        counts.other,
        styled(style, &mismatches),
        output::duration(built),
        output::duration(report.durations.total),
    );
    out
}

#[derive(Serialize)]
struct JsonRun<'a> {
    schema: &'static str,
    agrees: bool,
    nodes: usize,
    pods: usize,
    outside: &'a [std::net::IpAddr],
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    lookups: Option<&'a [LookupResult]>,
}

/// Prints the engine's matrix.
fn dry_run(layout: &Layout, options: &ProbeOptions, by_name: Option<&ByName>, form: Format) -> Result<()> {
    let plan = plan(layout, options, by_name);
    let direct = plan.probes.iter().filter(|p| matches!(p.target, Target::Direct(_)));
    let flows: Vec<(&Flow, bool)> =
        direct.filter_map(|p| p.flows.first()).map(|(flow, verdict)| (flow, verdict.is_allow())).collect();
    let text = match form.encoding() {
        None => {
            let names = by_name.map(|by_name| by_name.plan(layout));
            let named = names.as_ref().map_or_else(Vec::new, |plan| by_name::expected_flows(plan, layout));
            let matrix = Matrix::of(&layout.cluster, flows, named);
            let names = names.as_ref().map_or_else(String::new, |plan| zones::legend(&plan.lookups));
            draw::text(&matrix, draw::WIDTH) + &hosts::legend(&layout.cluster) + &names
        }
        Some(encoding) => dry_document(layout, &flows, encoding)?,
    };
    output::print(&text).context("can't write the result")
}

#[derive(Serialize)]
struct JsonDryRun<'a> {
    schema: &'static str,
    flows: Vec<JsonFlow<'a>>,
}

#[derive(Serialize)]
struct JsonFlow<'a> {
    source: crate::can::JsonEnd,
    destination: crate::can::JsonEnd,
    protocol: String,
    port: u16,
    verdict: &'a str,
    egress: reasons::JsonSide,
    ingress: reasons::JsonSide,
}

fn dry_document(layout: &Layout, flows: &[(&Flow, bool)], encoding: Encoding) -> Result<String> {
    let flow = |(flow, _): &(&Flow, bool)| {
        let decision = reference::decide(&layout.cluster, flow);
        JsonFlow {
            source: crate::can::JsonEnd::new(&flow.source, &layout.cluster),
            destination: crate::can::JsonEnd::new(&flow.destination, &layout.cluster),
            protocol: flow.protocol.to_string(),
            port: flow.port,
            verdict: reasons::verdict_word(decision.verdict()),
            egress: (&decision.egress).into(),
            ingress: (&decision.ingress).into(),
        }
    };
    let run = JsonDryRun { schema: "palisade.lab-dry-run/v1", flows: flows.iter().map(flow).collect() };
    encoding.encode(&run)
}

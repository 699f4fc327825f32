//! The part of `lab run` that is by name: pods ask the lab's DNS servers and connect to what is answered.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::{Context as _, Result};
use palisade_lab::{
    Lab, Layout, LayoutOptions,
    agent::palisade_with_names,
    dns::{self, ExpectedLookup, Lookup, LookupOutcome, LookupResult, NamePlan, NameServers, Zones},
    enforce::MakeEnforcer,
    probe::{Expected, NotProbed, Plan, Probe, ProbeResult},
};
use palisade_policy::{Cluster, Endpoint, ObjectKey, Protocol};

use super::{matrix::FlowByName, run, zones};
use crate::output::{self, Style, styled};

/// The zones of a lab and its DNS servers.
pub(super) struct ByName {
    zones: Zones,
    servers: NameServers,
}

impl ByName {
    /// Reads zones, and lays out a lab with their addresses.
    pub(super) fn read(path: &str, cluster: &Cluster, options: &LayoutOptions) -> Result<(Self, Layout)> {
        let zones = zones::read(path).context("--zones")?;
        let (layout, servers) = dns::layout(cluster, options, &zones)?;
        Ok((Self { zones, servers }, layout))
    }

    /// Returns the constructor of agents that learn from these servers.
    pub(super) fn agents(&self) -> MakeEnforcer {
        palisade_with_names(dns::settings(&self.servers))
    }

    /// Removes the probes of pods at the DNS servers: they send what is no DNS message, which agents drop. The lookups ask there.
    pub(super) fn remove_probes_of_servers(&self, plan: &mut Plan) {
        let is_question = |probe: &Probe| {
            matches!(probe.source, Endpoint::Pod { .. })
                && matches!(probe.protocol, Protocol::Tcp | Protocol::Udp)
                && self.servers.ask.contains(&SocketAddr::new(probe.target.address(), probe.port))
        };
        plan.probes.retain(|probe| !is_question(probe));
        plan.not_probed.push(NotProbed {
            what: "DNS servers by packets that are no DNS messages".to_owned(),
            why: "agents drop them; pods ask for names instead".to_owned(),
        });
    }

    /// Returns the lookups that the engine expects.
    pub(super) fn plan(&self, layout: &Layout) -> NamePlan {
        NamePlan::of(layout, &self.zones, &self.servers)
    }

    /// Starts the servers.
    pub(super) fn serve(&self, lab: &mut Lab) -> Result<()> {
        Ok(lab.serve_names(self.zones.clone(), self.servers.clone())?)
    }

    /// Starts the servers, and lets every pod ask for every name.
    pub(super) fn run(&self, lab: &mut Lab, plan: &NamePlan) -> Result<Vec<LookupResult>> {
        self.serve(lab)?;
        let bar = run::progress_bar(plan.lookups.len());
        let results = dns::run(lab, plan, |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        results.context("the names could not be asked for")
    }
}

/// Returns the expected flows of lookups.
pub(super) fn expected_flows<'a>(plan: &'a NamePlan, layout: &Layout) -> Vec<FlowByName<'a>> {
    let mut out = Vec::new();
    for lookup in &plan.lookups {
        if let ExpectedLookup::Addresses(addresses) = &lookup.expected {
            let probes = plan.connections(layout, lookup, addresses);
            for probe in probes.iter().filter(|probe| addresses.contains(&probe.target.address())) {
                let allowed = probe.flows.first().is_some_and(|(_, verdict)| verdict.is_allow());
                add(&mut out, lookup, [(probe.protocol, probe.port, allowed)]);
            }
        } else if lookup.expected == ExpectedLookup::NoAnswer {
            add(&mut out, lookup, plan.ports().map(|(protocol, port)| (protocol, port, false)));
        }
    }
    out
}

/// Returns the flows as the kernel let them pass.
pub(super) fn flows<'a>(plan: &NamePlan, results: &'a [LookupResult]) -> Vec<FlowByName<'a>> {
    let mut out = Vec::new();
    for result in results {
        let lookup = &result.lookup;
        let answered = |connection: &&ProbeResult| {
            result.outcomes.iter().any(|outcome| match outcome {
                LookupOutcome::Addresses(all) => all.contains(&connection.probe.target.address()),
                _ => false,
            })
        };
        for connection in result.connections.iter().filter(answered) {
            let probe = &connection.probe;
            add(&mut out, lookup, [(probe.protocol, probe.port, run::passed(&connection.outcome))]);
        }
        if result.outcomes.contains(&LookupOutcome::NoAnswer) && result.connections.is_empty() {
            add(&mut out, lookup, plan.ports().map(|(protocol, port)| (protocol, port, false)));
        }
    }
    out
}

fn add<'a>(
    out: &mut Vec<FlowByName<'a>>,
    lookup: &'a Lookup,
    flows: impl IntoIterator<Item = (Protocol, u16, bool)>,
) {
    let Some(source) = pod(&lookup.source) else { return };
    out.extend(flows.into_iter().map(|(protocol, port, allowed)| FlowByName {
        source,
        name: &lookup.name,
        what: (lookup.family, protocol, port),
        allowed,
    }));
}

fn pod(end: &Endpoint) -> Option<&ObjectKey> {
    match end {
        Endpoint::Pod { key, .. } => Some(key),
        _ => None,
    }
}

/// Formats what is wrong.
pub(super) fn mismatches(results: &[LookupResult]) -> String {
    let mut out = String::new();
    for result in results.iter().filter(|result| !result.agrees()) {
        let Lookup { source, name, server, expected, .. } = &result.lookup;
        if let Some(outcome) = result.wrong_outcome() {
            _ = writeln!(out, "  {source} asked {server} for {name}: {outcome}, expected: {expected}");
        }
        for mismatch in &result.mismatches {
            _ = writeln!(out, "  {source} asked for {name}:");
            out.push_str(&run::mismatch_text(mismatch));
        }
    }
    out
}

/// Formats the numbers.
pub(super) fn summary(results: &[LookupResult]) -> String {
    let count = |test: &dyn Fn(&LookupOutcome) -> bool| {
        results.iter().flat_map(|result| &result.outcomes).filter(|outcome| test(outcome)).count()
    };
    let all = count(&|_| true);
    let answered = count(&|outcome| !matches!(outcome, LookupOutcome::NoAnswer | LookupOutcome::Failed(_)));
    let connections: Vec<&ProbeResult> = results.iter().flat_map(|result| &result.connections).collect();
    let allowed = connections.iter().filter(|connection| run::passed(&connection.outcome)).count();
    let either = connections.iter().filter(|c| c.probe.expected() == Expected::Either).count();
    let wrong = results.iter().filter(|result| !result.agrees()).count();
    let style = if wrong == 0 { Style::Good } else { Style::Bad };
    let lookups = if wrong == 1 { "lookup" } else { "lookups" };
    let mut out = format!(
        "{all} lookups: {answered} answered; {} connections at once: {allowed} answered; {}\n",
        connections.len(),
        styled(style, &format!("{wrong} {lookups} with a mismatch")),
    );
    if either > 0 {
        _ = writeln!(
            out,
            "{either} of these connections are to an address that several names share: allowed once any of them is learned"
        );
    }
    out
}

/// Prints what is not asked for.
pub(super) fn note_not_probed(plan: &NamePlan) {
    for note in &plan.not_probed {
        output::note(&format!("not probed: {} ({})\n", note.what, note.why));
    }
}

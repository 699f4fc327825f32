//! An overview as text.

use std::fmt::Write as _;

use palisade_analysis::{
    Overview,
    overview::{Extent, NamespaceOverview, Protection, WorkloadOverview},
};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Mode};

use crate::{
    escape,
    inputs::plural,
    output::{Style, styled},
};

/// The most workloads or policies that a list has. JSON has all of them.
const LISTED: usize = 20;

const HEADINGS: [&str; 7] =
    ["NAMESPACE", "WORKLOADS", "INGRESS", "EGRESS", "DNS", "INTERNET IN", "INTERNET OUT"];

/// Renders the overview, with colors; the writer strips them where they don't belong.
pub(crate) fn text(overview: &Overview, loaded: &Loaded) -> String {
    let workloads: Vec<&WorkloadOverview> = overview.namespaces.iter().flat_map(|n| &n.workloads).collect();
    let mut out = counts(overview, &workloads, loaded);
    out.push('\n');
    table(overview, &mut out);
    list(
        "open: no policy applies to what they receive",
        workloads.iter().filter(|w| w.ingress == Protection::None).map(|w| w.pods.to_string()),
        &mut out,
    );
    list(
        "no DNS: policies deny UDP or TCP 53",
        workloads.iter().filter(|w| matches!(w.dns, Some(Extent::Nothing | Extent::Some))).map(|w| {
            let some = if w.dns == Some(Extent::Some) { " (partly)" } else { "" };
            format!("{}{some}", w.pods)
        }),
        &mut out,
    );
    list(
        "DNS undecided: depends on pod addresses; give --pod-cidr or status.podIPs",
        workloads.iter().filter(|w| w.dns == Some(Extent::Undecided)).map(|w| w.pods.to_string()),
        &mut out,
    );
    let policies = overview.idle_policies.iter().map(|key| {
        let origin = loaded.cluster.policies.get(key).and_then(|p| p.origin.as_ref());
        format!("{key}{}", origin.map(|at| format!(" ({at})")).unwrap_or_default())
    });
    list("policies that select no pod", policies, &mut out);
    if overview.dns_servers.is_empty() {
        out.push_str(
            "\nnote: no DNS server is in the input; DNS means pods k8s-app=kube-dns in namespace kube-system\n",
        );
    }
    out
}

fn counts(overview: &Overview, workloads: &[&WorkloadOverview], loaded: &Loaded) -> String {
    let pods: usize = workloads.iter().map(|w| w.pods.pods.len()).sum();
    let parts = [(overview.namespaces.len(), "namespace"), (workloads.len(), "workload"), (pods, "pod")];
    let parts = parts.map(|(count, what)| format!("{count} {}", plural(count, what)));
    let policies = loaded.cluster.policies.len();
    let noun = if policies == 1 { "policy" } else { "policies" };
    let audited = match audited_policies(loaded) {
        0 => String::new(),
        some => format!(" ({some} in audit mode: not enforced)"),
    };
    format!("{}, {policies} {noun}{audited}\n", parts.join(", "))
}

/// Returns how many policies are in audit mode.
pub(super) fn audited_policies(loaded: &Loaded) -> usize {
    let cluster = &loaded.cluster;
    cluster.policies.values().filter(|policy| cluster.mode_of(policy) == Mode::Audit).count()
}

fn table(overview: &Overview, out: &mut String) {
    let rows: Vec<[Cell; 7]> = overview.namespaces.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].text.chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let headings = HEADINGS.map(|text| Cell { text: text.to_owned(), style: Some(Style::Strong) });
    for row in std::iter::once(&headings).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.text.chars().count() + 2);
            let text = cell.style.map_or_else(|| cell.text.clone(), |style| styled(style, &cell.text));
            line += &format!("{text}{padding}");
        }
        _ = writeln!(out, "{}", line.trim_end());
    }
}

struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: None }
    }
}

fn row(namespace: &NamespaceOverview) -> [Cell; 7] {
    let all = &namespace.workloads[..];
    [
        Cell::plain(escape::plain(&namespace.name)),
        Cell::plain(all.len().to_string()),
        protection(all, Direction::Ingress),
        protection(all, Direction::Egress),
        extents(all.iter().filter_map(|w| w.dns)),
        extents(all.iter().map(|w| w.internet_in)),
        extents(all.iter().map(|w| w.internet_out)),
    ]
}

/// Says how many workloads policies isolate or restrict.
fn protection(workloads: &[WorkloadOverview], direction: Direction) -> Cell {
    let of = |w: &WorkloadOverview| if direction == Direction::Ingress { w.ingress } else { w.egress };
    let count = |protection| workloads.iter().filter(|w| of(w) == protection).count();
    let (isolated, restricted, all) =
        (count(Protection::Isolated), count(Protection::Restricted), workloads.len());
    match (isolated, restricted) {
        _ if all == 0 => Cell::plain("-"),
        (0, 0) => {
            Cell { text: "open".into(), style: (direction == Direction::Ingress).then_some(Style::Bad) }
        }
        (n, _) if n == all => Cell { text: "isolated".into(), style: Some(Style::Good) },
        (_, n) if n == all => Cell::plain("restricted"),
        (n, 0) => Cell::plain(format!("{n} of {all} isolated")),
        (0, n) => Cell::plain(format!("{n} of {all} restricted")),
        (n, m) => Cell::plain(format!("{n} of {all} isolated, {m} restricted")),
    }
}

/// Says to how many workloads something applies.
fn extents(extents: impl Iterator<Item = Extent>) -> Cell {
    let extents: Vec<Extent> = extents.collect();
    let some = extents.iter().filter(|e| matches!(e, Extent::Some | Extent::Everything)).count();
    Cell::plain(match (extents.first(), extents.iter().all(|e| Some(e) == extents.first())) {
        (None, _) => "-".to_owned(),
        (Some(Extent::Undecided), true) => "undecided".to_owned(),
        (Some(Extent::Nothing), true) => "no".to_owned(),
        (Some(Extent::Some), true) => "partly".to_owned(),
        (Some(Extent::Everything), true) => "yes".to_owned(),
        (Some(_), false) => format!("{some} of {}", extents.len()),
    })
}

/// Returns the words for a single workload: ingress, egress, DNS, internet in and out.
pub(crate) fn workload_cells(workload: &WorkloadOverview) -> [&'static str; 5] {
    let protection = |protection| match protection {
        Protection::None => "open",
        Protection::Restricted => "restricted",
        Protection::Isolated => "isolated",
    };
    let extent = |extent| match extent {
        Extent::Undecided => "undecided",
        Extent::Nothing => "no",
        Extent::Some => "partly",
        Extent::Everything => "yes",
    };
    [
        protection(workload.ingress),
        protection(workload.egress),
        workload.dns.map_or("-", extent),
        extent(workload.internet_in),
        extent(workload.internet_out),
    ]
}

/// Lists items below a heading, if there are any.
fn list(heading: &str, items: impl Iterator<Item = String>, out: &mut String) {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return;
    }
    _ = writeln!(out, "\n{}", styled(Style::Strong, &format!("{heading}:")));
    for item in items.iter().take(LISTED) {
        _ = writeln!(out, "  {}", escape::plain(item));
    }
    if items.len() > LISTED {
        _ = writeln!(out, "  and {} more; -o json lists all", items.len() - LISTED);
    }
}

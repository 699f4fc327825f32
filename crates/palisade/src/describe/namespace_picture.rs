//! A namespace as a picture: the connections that cross its border.

use palisade_analysis::{
    ConnectionEnd,
    describe::{Crossing, NamespaceDescription},
    overview::Protection,
};

use super::{namespace, picture};
use crate::{
    connection_ends::{abbreviated, name},
    diagram::{Diagram, Look, MOST_ROWS, Neighbor, Side, Subject},
    inputs::{LoadedInputs, plural},
    traffic::{VisibleTraffic, family_names},
};

/// The most workloads that are listed in the box.
const LISTED: usize = 20;

/// Draws a namespace.
pub(super) fn of_namespace(
    description: &NamespaceDescription,
    world: &LoadedInputs,
) -> (Diagram, Vec<String>) {
    let workloads = &description.workloads;
    let mut details: Vec<String> = workloads.iter().take(LISTED).map(namespace::short_name).collect();
    if workloads.len() > LISTED {
        details.push(format!("and {} more workloads", workloads.len() - LISTED));
    }
    if workloads.is_empty() {
        details.push("no running pods".to_owned());
    }
    // The analysis returns egress first.
    let [egress, ingress] = &description.crossing;
    let protected = |of: fn(&palisade_analysis::overview::WorkloadOverview) -> Protection| {
        let count = workloads.iter().filter(|w| of(w) != Protection::None).count();
        format!("{count} of {} {} protected", workloads.len(), plural(workloads.len(), "workload"))
    };
    let mut said = Vec::new();
    let sides = [
        (format!("ingress from outside: {}", protected(|w| w.ingress)), ingress, true),
        (format!("egress to outside: {}", protected(|w| w.egress)), egress, false),
    ];
    let sides = sides.map(|(heading, rows, inwards)| {
        let mut neighbors: Vec<Neighbor> =
            rows.iter().map(|row| neighbor(description, row, inwards)).collect();
        if neighbors.is_empty() {
            neighbors.push(Neighbor::nothing("nothing"));
        }
        if rows.len() > MOST_ROWS {
            said.push(format!(
                "{MOST_ROWS} of {} groups of connections are drawn; -o json lists each",
                rows.len()
            ));
        }
        Side { heading, neighbors }
    });
    let subject = Subject { name: format!("namespace {}", description.name), details, sides };
    let title = format!("Connections that cross the border of namespace {}", description.name);
    let mut notes = picture::incomplete(world);
    notes.extend(namespace::undecided(description).into_iter().map(|text| format!("undecided: {text}")));
    (Diagram { title, subjects: vec![subject], notes }, said)
}

fn neighbor(description: &NamespaceDescription, row: &Crossing, inwards: bool) -> Neighbor {
    let external = |end: &ConnectionEnd| matches!(end, ConnectionEnd::External(_));
    let families = match (row.families.v4 && row.families.v6) || row.outside.iter().any(external) {
        true => String::new(),
        false => format!(" ({})", family_names(row.families).join("")),
    };
    let traffic = VisibleTraffic::of(&row.traffic);
    let workloads = description.workloads.len();
    let own = match row.inside.len() == workloads {
        true if workloads > 1 => "each workload".to_owned(),
        _ => abbreviated(&row.inside, |end| within(description, end)),
    };
    let way = if inwards { "to" } else { "from" };
    Neighbor {
        group: None,
        lines: vec![namespace::outside_text(&row.outside)],
        label: format!("{}{families} {way} {own}", traffic.text()),
        look: if traffic.is_all() { Look::Everything } else { Look::Allowed },
    }
}

fn within(description: &NamespaceDescription, end: &ConnectionEnd) -> String {
    let name = name(end);
    let rest = name.strip_prefix(&*description.name).and_then(|rest| rest.strip_prefix('/'));
    rest.map_or(name.clone(), ToOwned::to_owned)
}

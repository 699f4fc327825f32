//! The sentences of a difference, shared by text, Markdown and HTML.

use palisade_analysis::{
    ConnectionEnd, Families,
    diff::{Edit, EndChange, EndTraffic, FutureChange, FuturePods, Labeled, Presence},
    exposure::{PodSet, Reached},
};
use palisade_policy::{Direction, PodMatch, PolicyKey};

use super::{
    comparison::{Comparison, EditWord},
    groups::{Group, Row},
};
use crate::{
    connection_ends::{abbreviated, name},
    entrances, escape,
    future_pods::{pods_text, traffic_text},
    traffic::{VisibleTraffic, family_names},
};

/// The cause if no edit of a policy, label, port, service or route explains a change.
pub(crate) const OTHER_CAUSE: &str = "other properties of the pods or nodes";

/// Formats an edit: `NetworkPolicy shop/web edited (a.yaml:3 → b.yaml:3)`, `Namespace shop: team=shop → store (b.yaml:2)`.
pub(crate) fn edit(comparison: &Comparison, edit: &Edit) -> String {
    let object = comparison.object(edit);
    let name = object.name();
    let what = match edit {
        Edit::Label { object, key, before, after } => {
            let pods =
                if matches!(object, Labeled::Pods(w) if &*w.kind != "Pod") { "pod label " } else { "" };
            let label = match (before, after) {
                (Some(before), Some(after)) => format!("{key}={before} → {after}"),
                (Some(before), None) => format!("label {key}={before} removed"),
                (None, Some(after)) => format!("label {key}={after} added"),
                (None, None) => key.to_string(),
            };
            let label =
                if pods.is_empty() { label } else { format!("{pods}{}", label.trim_start_matches("label ")) };
            format!("{name}: {}", escape::plain(&label))
        }
        Edit::Ports(_) => format!("{name}: other ports"),
        Edit::Addresses(_) => format!("{name}: other pod addresses"),
        Edit::Policy(_) if object.change == EditWord::Renamed => {
            let old = object.keys[0].map_or("", |(_, name)| name);
            format!("{name} renamed from {}", escape::plain(old))
        }
        _ => format!("{name} {}", object.change.word()),
    };
    // A label is where the object is after the change.
    let place = match edit {
        Edit::Label { object: labeled, .. } => {
            let at = comparison.labels_origin(labeled).or(object.origins[1]).or(object.origins[0]);
            at.map(|at| escape::plain(&at.to_string()).into_owned())
        }
        Edit::Ports(_) => {
            object.origins[1].or(object.origins[0]).map(|at| escape::plain(&at.to_string()).into_owned())
        }
        _ => object.place(),
    };
    place.map_or(what.clone(), |place| format!("{what} ({place})"))
}

/// Formats the ends of a row or a list: the first few, and how many more there are.
pub(crate) fn ends(ends: &[&ConnectionEnd]) -> String {
    let (outside, inside): (Vec<&ConnectionEnd>, Vec<&ConnectionEnd>) =
        ends.iter().copied().partition(|end| matches!(end, ConnectionEnd::External(_)));
    let (internet, other): (Vec<&ConnectionEnd>, Vec<&ConnectionEnd>) =
        outside.into_iter().partition(|end| end.is_internet());
    let mut parts = Vec::new();
    if !inside.is_empty() {
        parts.push(abbreviated(&inside, |end| name(end)));
    }
    if !internet.is_empty() {
        parts.push(format!("internet ({})", abbreviated(&internet, |end| name(end))));
    }
    if !other.is_empty() {
        parts.push(abbreviated(&other, |end| name(end)));
    }
    escape::plain(&parts.join(", ")).into_owned()
}

/// Formats the traffic of a row, with the family if the ends don't show it.
pub(crate) fn traffic(row: &Row<'_>) -> String {
    let families = row.families.map(families).unwrap_or_default();
    format!("{}{families}", VisibleTraffic::of(row.traffic).text())
}

fn families(families: Families) -> String {
    format!(" ({})", family_names(families).join(" and "))
}

/// A row of an answer, in words.
pub(crate) struct RowText {
    pub(crate) opened: bool,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) traffic: String,
}

/// Returns the rows of a group in words. With `fold`, sources with the same destinations share a row.
pub(crate) fn rows(group: &Group<'_>, fold: bool) -> Vec<RowText> {
    let rows = group.rows(fold).into_iter().map(|row| RowText {
        opened: row.opened,
        from: ends(&row.from),
        to: ends(&row.to),
        traffic: traffic(&row),
    });
    rows.chain(group.future.iter().flat_map(|change| future(change))).collect()
}

/// Formats a change for pods that don't exist yet: `pods app=x of every namespace (none yet)`, `data/pod/redis`.
pub(crate) fn future(change: &FutureChange) -> Vec<RowText> {
    let own = subjects(&change.subjects);
    let row = |peer: String, traffic: String| {
        let (from, to) = match change.direction {
            Direction::Egress => (own.clone(), peer),
            Direction::Ingress => (peer, own.clone()),
        };
        RowText { opened: change.opened, from, to, traffic }
    };
    let mut out = Vec::new();
    if !change.any_pod.is_none() {
        out.push(row("every pod of every namespace".to_owned(), traffic_text(&change.any_pod)));
    }
    for of_set in &change.sets {
        let none = if of_set.exists { "" } else { " (none yet)" };
        let Reached { all, some } = &of_set.reached;
        let some_only = if all == some { "" } else { " with some of them" };
        // Of a set that sums up several, some pods may see no change.
        let is_sum = change.rows.iter().all(|row| row.set != of_set.set);
        let part = if is_sum { " (some of them)" } else { "" };
        let depends = if of_set.set.addresses.is_some() { " (depends on pod addresses)" } else { "" };
        out.push(row(
            format!("{}{none}{part}", pods_text(&of_set.set)),
            format!("{}{some_only}{depends}", traffic_text(some)),
        ));
    }
    for EndTraffic { ends: peers, families: of, traffic } in &change.ends {
        let peers: Vec<&ConnectionEnd> = peers.iter().collect();
        let outside = peers.iter().all(|end| matches!(end, ConnectionEnd::External(_)));
        let of = if outside || (of.v4 && of.v6) { String::new() } else { families(*of) };
        out.push(row(ends(&peers), format!("{}{of}", VisibleTraffic::of(traffic).text())));
    }
    out
}

fn subjects(subjects: &[FuturePods]) -> String {
    let mut existing: Vec<&ConnectionEnd> = Vec::new();
    let mut selected: Vec<String> = Vec::new();
    for subject in subjects {
        match subject {
            FuturePods::Existing(end) => existing.push(end),
            FuturePods::Selected(choice) => selected.push(selected_pods(choice)),
        }
    }
    let existing = (!existing.is_empty()).then(|| ends(&existing));
    existing.into_iter().chain(selected).collect::<Vec<_>>().join(", ")
}

/// Formats pods that a selector selects and that don't exist.
pub(crate) fn selected_pods(choice: &PodMatch) -> String {
    let text = PodSet::of(choice).map_or_else(|| "no pod".to_owned(), |set| pods_text(&set));
    format!("{text} (none yet)")
}

/// Formats the heading of an end that was added or removed: `new workload shop/deployment/web (web.yaml:3)`.
pub(crate) fn end_change(comparison: &Comparison, end: &EndChange) -> String {
    let removed = end.change == Presence::Removed;
    let kind = match end.end {
        ConnectionEnd::Workload(_) => "workload ",
        _ => "",
    };
    let word = if removed { "removed" } else { "new" };
    let at = comparison.origin_of(&end.end, removed).map(|at| format!(" ({at})")).unwrap_or_default();
    escape::plain(&format!("{word} {kind}{}{at}", name(&end.end))).into_owned()
}

/// Formats the connections of an end in one direction: `may reach data/statefulset/db on TCP 5432`.
pub(crate) fn reach(end: &EndChange, direction: Direction) -> Vec<String> {
    let (all, verb) = match (direction, end.change) {
        (Direction::Egress, Presence::Added) => (&end.sends, "may reach"),
        (Direction::Egress, Presence::Removed) => (&end.sends, "could reach"),
        (Direction::Ingress, Presence::Added) => (&end.receives, "may be reached from"),
        (Direction::Ingress, Presence::Removed) => (&end.receives, "could be reached from"),
    };
    if all.is_empty() {
        let nothing = if direction == Direction::Egress { "nothing" } else { "nowhere" };
        return vec![format!("{verb} {nothing}")];
    }
    all.iter()
        .map(|EndTraffic { ends: peers, families: of, traffic }| {
            let peers: Vec<&ConnectionEnd> = peers.iter().collect();
            let outside = peers.iter().all(|end| matches!(end, ConnectionEnd::External(_)));
            let of = if outside || (of.v4 && of.v6) { String::new() } else { families(*of) };
            format!("{verb} {}: {}{of}", ends(&peers), VisibleTraffic::of(traffic).text())
        })
        .collect()
}

/// Formats the workloads that gain or lose DNS; `None` if there are none.
pub(crate) fn dns(comparison: &Comparison, opened: bool) -> Option<String> {
    let found = comparison.difference.dns.iter().filter(|dns| dns.opened == opened);
    let found: Vec<&ConnectionEnd> = found.map(|dns| &dns.end).collect();
    let verb = if opened { "opens" } else { "closes" };
    (!found.is_empty()).then(|| format!("{verb} DNS for {}", ends(&found)))
}

/// Formats a policy that changed without effect: `NetworkPolicy shop/idle added (b.yaml:3), selects no pod`.
pub(crate) fn idle(comparison: &Comparison, key: &PolicyKey) -> String {
    let selects = comparison.difference.policies.get(key).map_or(1, |edit| edit.pods[0].max(edit.pods[1]));
    let suffix = if selects == 0 { ": it selects no pod" } else { "" };
    format!("{}{suffix}", edit(comparison, &Edit::Policy(key.clone())))
}

/// Formats a policy that only has another name.
pub(crate) fn renamed(comparison: &Comparison, key: &PolicyKey) -> String {
    edit(comparison, &Edit::Policy(key.clone()))
}

/// Returns the traffic that routes require and policies deny since the change.
pub(crate) fn blocked(comparison: &Comparison) -> Vec<String> {
    let after = &comparison.sides[1];
    let all = comparison.difference.blocked.iter().map(|blocked| {
        let routes = entrances::routes(&blocked.through, &after.routes);
        let verb = if blocked.through.len() == 1 { "leads" } else { "lead" };
        let text = format!(
            "{routes} {verb} to {} on {}, but policies deny it to the ingress controller",
            name(&blocked.to),
            VisibleTraffic::of(&blocked.traffic).text()
        );
        escape::plain(&text).into_owned()
    });
    let mut all: Vec<String> = all.collect();
    all.dedup();
    all
}

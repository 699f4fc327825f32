//! The summary of a difference: counts, and one line that fits a commit message.

use std::collections::HashSet;

use palisade_analysis::{
    ConnectionEnd,
    diff::{ConnectionChange, PolicyChange, Presence},
};
use serde::Serialize;

use super::{comparison::Comparison, wording};
use crate::{inputs::plural, traffic::VisibleTraffic};

/// The counts of a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// The line.
    text: String,
    pub(crate) opened: Counts,
    pub(crate) closed: Counts,
    new_workloads: usize,
    removed_workloads: usize,
    other_new_ends: usize,
    other_removed_ends: usize,
    opened_for_future_pods: usize,
    closed_for_future_pods: usize,
    dns_opened: usize,
    dns_closed: usize,
    policies_without_effect: usize,
    policies_renamed: usize,
}

/// The number of opened or closed connections: pairs of ends, whatever the ports. The addresses of both families are one
/// end: the internet, or other addresses outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    total: usize,
    to_internet: usize,
    from_internet: usize,
    from_ingress_controller: usize,
}

/// An end as it is counted.
#[derive(PartialEq, Eq, Hash)]
enum Counted<'a> {
    End(&'a ConnectionEnd),
    Internet,
    Outside,
}

fn counted(end: &ConnectionEnd) -> Counted<'_> {
    match end {
        ConnectionEnd::External(_) if end.is_internet() => Counted::Internet,
        ConnectionEnd::External(_) => Counted::Outside,
        end => Counted::End(end),
    }
}

impl Counts {
    fn new<'a>(changes: impl Iterator<Item = &'a ConnectionChange>) -> Self {
        let mut out = Self::default();
        let pairs: HashSet<(Counted<'_>, Counted<'_>)> =
            changes.map(|change| (counted(&change.from), counted(&change.to))).collect();
        for (from, to) in &pairs {
            out.total += 1;
            out.to_internet += usize::from(*to == Counted::Internet);
            out.from_internet += usize::from(*from == Counted::Internet);
            let controller = matches!(from, Counted::End(ConnectionEnd::IngressController(_)));
            out.from_ingress_controller += usize::from(controller);
        }
        out
    }

    /// Formats them: `3 opened, 1 of them to the internet`; `None` if there are none.
    fn text(&self, word: &str) -> Option<String> {
        let mut parts = vec![format!("{} {word}", self.total)];
        let places = [
            (self.to_internet, "to the internet"),
            (self.from_internet, "from the internet"),
            (self.from_ingress_controller, "from the ingress controller"),
        ];
        for (count, place) in places.into_iter().filter(|(count, _)| *count > 0) {
            let which = if parts.len() == 1 { " of them" } else { "" };
            parts.push(format!("{count}{which} {place}"));
        }
        (self.total > 0).then(|| parts.join(", "))
    }
}

impl Summary {
    pub(crate) fn new(comparison: &Comparison) -> Self {
        let difference = &comparison.difference;
        let changes = || difference.changes.iter();
        let ends = |change: Presence, workload: bool| {
            let is = |end: &&palisade_analysis::diff::EndChange| {
                end.change == change && matches!(end.end, ConnectionEnd::Workload(_)) == workload
            };
            difference.ends.iter().filter(is).count()
        };
        let dns = |opened: bool| difference.dns.iter().filter(|dns| dns.opened == opened).count();
        let future = |opened: bool| {
            let changes = difference.exposure.iter().filter(|c| c.opened == opened && c.exact);
            changes.map(|change| wording::future(change).len()).sum()
        };
        let renamed = difference.policies.values().filter(|edit| edit.change == PolicyChange::Renamed);
        let mut out = Self {
            text: String::new(),
            opened: Counts::new(changes().filter(|c| !VisibleTraffic::of(&c.opened).is_none())),
            closed: Counts::new(changes().filter(|c| !VisibleTraffic::of(&c.closed).is_none())),
            new_workloads: ends(Presence::Added, true),
            removed_workloads: ends(Presence::Removed, true),
            other_new_ends: ends(Presence::Added, false),
            other_removed_ends: ends(Presence::Removed, false),
            opened_for_future_pods: future(true),
            closed_for_future_pods: future(false),
            dns_opened: dns(true),
            dns_closed: dns(false),
            policies_without_effect: difference.policies_without_effect().count(),
            policies_renamed: renamed.count(),
        };
        out.text = out.line();
        out
    }

    /// Returns one line.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn line(&self) -> String {
        let counted = |count: usize, before: &str, noun: &str, after: &str| {
            (count > 0).then(|| format!("{before}{count} {}{after}", plural(count, noun)))
        };
        let future = |count: usize, word: &str| {
            (count > 0).then(|| format!("{count} {word} for pods that don't exist yet"))
        };
        let changes = [
            self.opened.text("opened"),
            self.closed.text("closed"),
            future(self.opened_for_future_pods, "opened"),
            future(self.closed_for_future_pods, "closed"),
            counted(self.dns_closed, "closes DNS for ", "workload", ""),
            counted(self.dns_opened, "opens DNS for ", "workload", ""),
            counted(self.new_workloads, "", "new workload", ""),
            counted(self.removed_workloads, "", "workload", " removed"),
            counted(self.other_new_ends, "", "new group", " of nodes"),
            counted(self.other_removed_ends, "", "group", " of nodes removed"),
        ];
        let mut parts: Vec<String> = changes.into_iter().flatten().collect();
        if parts.is_empty() {
            parts.push("no connection changes".to_owned());
        }
        let policies = |count: usize, after: &str| {
            (count > 0).then(|| format!("{count} {} {after}", if count == 1 { "policy" } else { "policies" }))
        };
        parts.extend(policies(self.policies_without_effect, "without effect"));
        parts.extend(policies(self.policies_renamed, "renamed"));
        parts.join("; ")
    }
}

//! What every form of the answer shows: the ends with their names, and the edges between them.

use palisade_analysis::{BlockedTraffic, ConnectionEnd, Connections, ConnectionsOptions, Edge, Families};
use palisade_manifest::Loaded;
use palisade_policy::{Family, Traffic};

use crate::{
    connection_ends::{self, NamedEnd},
    entrances,
    traffic::{VisibleTraffic, family_names},
};

/// An answer, ready to be shown.
pub(crate) struct Report<'a> {
    pub(crate) answer: &'a Connections,
    pub(crate) loaded: &'a Loaded,
    /// All ends, by the numbers that edges use.
    pub(crate) ends: Vec<NamedEnd<'a>>,
    /// What one end stands for, in a word.
    pub(crate) grouping: &'static str,
    /// Whether what is denied is shown.
    pub(crate) denied: bool,
    /// Only edges with an end in this namespace.
    namespace: Option<&'a str>,
    /// Whether some edges were not asked for, so that ends without any would mislead.
    filtered: bool,
    /// The families of the cluster's pods: where there is but one, naming it at each edge would say nothing.
    families: Families,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        answer: &'a Connections,
        loaded: &'a Loaded,
        namespace: Option<&'a str>,
        options: &ConnectionsOptions,
        grouping: &'static str,
    ) -> Self {
        let has = |family| loaded.cluster.pods.values().any(|pod| pod.address(family).is_some());
        Self {
            answer,
            loaded,
            ends: connection_ends::name_ends(answer.ends(), loaded),
            grouping,
            denied: options.only_denied,
            namespace,
            filtered: namespace.is_some()
                || options.from.is_some()
                || options.to.is_some()
                || options.traffic.is_some(),
            families: Families { v4: has(Family::V4), v6: has(Family::V6) },
        }
    }

    /// The edges that were asked for, in order.
    pub(crate) fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.answer.edges().filter(|edge| self.is_wanted(edge) && !is_port_0_alone(edge.traffic))
    }

    fn is_wanted(&self, edge: &Edge<'_>) -> bool {
        self.is_inside(edge.from) || self.is_inside(edge.to)
    }

    /// Whether an end has pods in the namespace that was asked for, if one was.
    fn is_inside(&self, end: usize) -> bool {
        let Some(namespace) = self.namespace else { return true };
        match self.ends[end].endpoint {
            ConnectionEnd::Class(all) => all.iter().any(|w| &*w.namespace == namespace),
            endpoint => endpoint.namespace().is_some_and(|n| &**n == namespace),
        }
    }

    /// What routes ask for and policies deny, of ends in the namespace that was asked for.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = &BlockedTraffic> {
        self.answer.blocked().iter().filter(|b| self.is_inside(b.to))
    }

    /// The ends to show: as callers, as called, and either way. Without a filter all that could be.
    pub(crate) fn visible_ends(&self) -> VisibleEnds {
        let mut callers = vec![!self.filtered; self.ends.len()];
        let mut called: Vec<bool> =
            self.ends.iter().map(|end| !self.filtered && is_called(end.endpoint)).collect();
        if self.filtered {
            for edge in self.edges() {
                callers[edge.from] = true;
                called[edge.to] = true;
            }
        }
        let numbers = |flags: &[bool]| (0..flags.len()).filter(|i| flags[*i]).collect::<Vec<_>>();
        let any: Vec<bool> = callers.iter().zip(&called).map(|(a, b)| *a || *b).collect();
        VisibleEnds { callers: numbers(&callers), called: numbers(&called), any: numbers(&any) }
    }

    /// The name of an end.
    pub(crate) fn id(&self, end: usize) -> &str {
        &self.ends[end].id
    }

    /// The traffic of an edge in words, with the family where it is not plain from the ends.
    pub(crate) fn traffic(&self, edge: &Edge<'_>) -> String {
        let words = VisibleTraffic::of(edge.traffic).text();
        let outside = |end: usize| matches!(self.ends[end].endpoint, ConnectionEnd::External(_));
        let mut out = words;
        if edge.families != self.families && !outside(edge.from) && !outside(edge.to) {
            out = format!("{out} ({})", family_names(edge.families).join(" and "));
        }
        if !edge.exact {
            out += " (some pods)";
        }
        out
    }

    /// The routes that lead to an edge, with their places; `None` if it isn't one of the controller.
    pub(crate) fn through(&self, edge: &Edge<'_>) -> Option<String> {
        (!edge.through.is_empty()).then(|| entrances::routes(edge.through, &self.loaded.routes))
    }

    /// What the edges are.
    pub(crate) fn title(&self) -> &'static str {
        if self.denied { "Denied connections" } else { "Allowed connections" }
    }
}

/// The numbers of the ends to show.
pub(crate) struct VisibleEnds {
    pub(crate) callers: Vec<usize>,
    pub(crate) called: Vec<usize>,
    pub(crate) any: Vec<usize>,
}

/// Whether connections to such an end are listed.
fn is_called(end: &ConnectionEnd) -> bool {
    !matches!(end, ConnectionEnd::OwnNode(_) | ConnectionEnd::IngressController(_))
}

fn is_port_0_alone(traffic: &Traffic) -> bool {
    let only_0 = |ports: &palisade_policy::PortSet| ports.ranges().iter().all(|r| *r == (0, 0));
    !traffic.other && only_0(&traffic.tcp) && only_0(&traffic.udp) && only_0(&traffic.sctp)
}

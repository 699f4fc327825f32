//! What every output format shows: named ends, and the edges between them.

use std::{collections::BTreeSet, rc::Rc};

use palisade_analysis::{
    BlockedTraffic, ConnectionEnd, Connections, ConnectionsOptions, Edge, EdgeLabels, EdgeReasons, Families,
    FoldSelection, FoldedConnections, Reasoner, UndecidedEdge,
};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Family, ObjectKey, Traffic};

use crate::{
    connection_ends::{self, JsonObject, NamedEnd},
    entrances,
    traffic::{VisibleTraffic, family_names},
};

/// Works out the reasons for edges. A trait, because the lifetime of a [`Reasoner`] can't be shortened.
pub(crate) trait Explains: EdgeLabels {
    /// As [`Reasoner::reasons`].
    fn reasons(&self, label: u32) -> Rc<EdgeReasons>;
    /// As [`Reasoner::is_unselected`].
    fn is_unselected(&self, end: usize, direction: Direction) -> bool;
}

impl Explains for Reasoner<'_> {
    fn reasons(&self, label: u32) -> Rc<EdgeReasons> {
        Reasoner::reasons(self, label)
    }

    fn is_unselected(&self, end: usize, direction: Direction) -> bool {
        Reasoner::is_unselected(self, end, direction)
    }
}

/// An answer, ready to be rendered.
pub(crate) struct Report<'a> {
    pub(crate) answer: &'a Connections,
    pub(crate) loaded: &'a Loaded,
    /// All ends, in the order that edges refer to.
    pub(crate) ends: Vec<NamedEnd<'a>>,
    /// What an end represents: the value of `--group-by`.
    pub(crate) grouping: &'static str,
    /// Whether denied connections are shown.
    pub(crate) denied: bool,
    /// Works out reasons, if they were asked for.
    pub(crate) reasoner: Option<&'a (dyn Explains + 'a)>,
    /// What a graph says about workloads that it shows by namespace.
    pub(crate) summed_up: Option<String>,
    /// If set, only edges with an end in this namespace are shown.
    namespace: Option<&'a str>,
    /// Whether some edges are filtered out. Ends without edges are then hidden.
    filtered: bool,
    /// The IP families of the cluster's pods. Edges with exactly these do not show families.
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
            reasoner: None,
            summed_up: None,
            namespace,
            filtered: namespace.is_some()
                || options.from.is_some()
                || options.to.is_some()
                || options.traffic.is_some(),
            families: Families { v4: has(Family::V4), v6: has(Family::V6) },
        }
    }

    /// Returns the edges that pass the filters, factored.
    pub(crate) fn folded(&self) -> FoldedConnections<'_> {
        let selection = FoldSelection {
            traffic: &|traffic| !traffic.is_none() && !is_port_0_alone(traffic),
            touching: &|end| self.is_inside(end),
            labels: self.reasoner.map(|reasoner| reasoner as &dyn EdgeLabels),
        };
        self.answer.folded(&selection)
    }

    /// Whether an end of pods is not isolated in a direction. With reasons, policies that allow everything are reasons.
    pub(crate) fn is_free(&self, end: usize, direction: Direction) -> bool {
        self.answer.is_unrestricted(end, direction)
            && self.reasoner.is_none_or(|reasoner| reasoner.is_unselected(end, direction))
    }

    /// Whether filters hide some edges.
    pub(crate) fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Returns the edges that pass the filters, in order.
    pub(crate) fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.answer.edges().filter(|edge| self.shows(edge))
    }

    /// Whether an edge passes the filters.
    pub(crate) fn shows(&self, edge: &Edge<'_>) -> bool {
        self.is_selected(edge) && !edge.traffic.is_none() && !is_port_0_alone(edge.traffic)
    }

    /// Returns the pairs whose traffic depends on addresses that are not known, as far as they pass the filters.
    pub(crate) fn undecided(&self) -> Vec<UndecidedEdge> {
        let mut all = self.answer.undecided();
        all.retain(|edge| {
            (self.is_inside(edge.from) || self.is_inside(edge.to)) && !is_port_0_alone(&edge.traffic)
        });
        all
    }

    fn is_selected(&self, edge: &Edge<'_>) -> bool {
        self.is_inside(edge.from) || self.is_inside(edge.to)
    }

    /// Whether an end has pods in the selected namespace, if there is one.
    fn is_inside(&self, end: usize) -> bool {
        let Some(namespace) = self.namespace else { return true };
        match self.ends[end].endpoint {
            ConnectionEnd::Class(all) => all.iter().any(|w| &*w.namespace == namespace),
            endpoint => endpoint.namespace().is_some_and(|n| &**n == namespace),
        }
    }

    /// Returns the connections that routes request and policies deny, to ends in the selected namespace.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = &BlockedTraffic> {
        self.answer.blocked().iter().filter(|b| self.is_inside(b.to))
    }

    /// Returns the ends to show as sources, as destinations, and as either. Without a filter, all possible ones.
    pub(crate) fn visible_ends(&self) -> VisibleEnds {
        let mut sources = vec![!self.filtered; self.ends.len()];
        let mut destinations: Vec<bool> =
            self.ends.iter().map(|end| !self.filtered && is_destination(end.endpoint)).collect();
        if self.filtered {
            for edge in self.edges() {
                sources[edge.from] = true;
                destinations[edge.to] = true;
            }
        }
        let numbers = |flags: &[bool]| (0..flags.len()).filter(|i| flags[*i]).collect::<Vec<_>>();
        let any: Vec<bool> = sources.iter().zip(&destinations).map(|(a, b)| *a || *b).collect();
        VisibleEnds { sources: numbers(&sources), destinations: numbers(&destinations), any: numbers(&any) }
    }

    /// Returns the ends to show with folded edges. Without a filter, all of them.
    pub(crate) fn visible_ends_of(&self, folded: &FoldedConnections<'_>) -> Vec<usize> {
        if !self.filtered {
            return (0..self.ends.len()).collect();
        }
        let ends: BTreeSet<usize> = folded.sets.iter().flatten().copied().collect();
        ends.into_iter().collect()
    }

    /// Returns an object of the input.
    pub(crate) fn object<'b>(
        &'b self,
        kind: &'b str,
        namespace: Option<&'b str>,
        name: &'b str,
    ) -> JsonObject<'b> {
        let key = ObjectKey::new(namespace.unwrap_or_default(), name);
        let at = connection_ends::origin_of_object(kind, &key, self.loaded);
        JsonObject::new(kind, namespace, name, at)
    }

    /// Returns the name of an end.
    pub(crate) fn id(&self, end: usize) -> &str {
        &self.ends[end].id
    }

    /// Formats the traffic of an edge, with the IP family if the ends do not show it.
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

    /// Formats the routes of an edge from the ingress controller with their origins. `None` for other edges.
    pub(crate) fn through(&self, edge: &Edge<'_>) -> Option<String> {
        (!edge.through.is_empty()).then(|| entrances::routes(edge.through, &self.loaded.routes))
    }

    /// Returns the title.
    pub(crate) fn title(&self) -> &'static str {
        if self.denied { "Denied connections" } else { "Allowed connections" }
    }
}

/// The indices of the ends to show.
pub(crate) struct VisibleEnds {
    pub(crate) sources: Vec<usize>,
    pub(crate) destinations: Vec<usize>,
    pub(crate) any: Vec<usize>,
}

/// Whether such an end can be a destination.
fn is_destination(end: &ConnectionEnd) -> bool {
    !matches!(end, ConnectionEnd::OwnNode(_) | ConnectionEnd::IngressController(_))
}

fn is_port_0_alone(traffic: &Traffic) -> bool {
    let only_0 = |ports: &palisade_policy::PortSet| ports.ranges().iter().all(|r| *r == (0, 0));
    !traffic.other && only_0(&traffic.tcp) && only_0(&traffic.udp) && only_0(&traffic.sctp)
}

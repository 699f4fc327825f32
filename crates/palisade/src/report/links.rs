//! All connections between sets of ends, with what decides them.

use std::collections::HashMap;

use palisade_analysis::{Connections, EdgeLabels, FoldSelection, FoldedEdge, Reasoner};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, PolicyKey, Traffic, walk::Decider};
use serde::Serialize;

use super::sources::Sources;
use crate::{
    connections::decider_words,
    entrances, escape,
    traffic::{VisibleTraffic, family_names},
};

/// Connections between each end of one set and each of another.
#[derive(Serialize)]
pub(super) struct JsonLink {
    /// Indexes into `sets`.
    pub(super) from: usize,
    pub(super) to: usize,
    /// An index into `traffics`.
    pub(super) traffic: usize,
    /// The IP family, if it is not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) families: Vec<String>,
    /// An index into `reasons`.
    pub(super) reasons: usize,
    /// The routes for which the ingress controller forwards them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) through: Option<String>,
    /// How many pairs they are.
    pub(super) pairs: usize,
}

/// Ports, and their text.
#[derive(Serialize)]
pub(super) struct JsonTraffic {
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) ports: crate::traffic::JsonTraffic,
}

/// What decides in each direction: indexes into `deciders`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct JsonReasons {
    pub(super) egress: Vec<usize>,
    pub(super) ingress: Vec<usize>,
}

/// What decides.
#[derive(Serialize)]
pub(super) struct JsonDecider {
    /// `NetworkPolicy shop/web, ingress[0] (shop.yaml:7)`, `not isolated`.
    pub(super) text: String,
    /// The policies, as they are named in `policies`.
    pub(super) policies: Vec<String>,
    /// Whether a rule of the policy decides; else the policies isolate, and no rule matches.
    pub(super) rule: bool,
    /// Indexes into `sources`: the rule, or the policies that isolate.
    pub(super) sources: Vec<usize>,
}

/// Collects links. Sets, traffic and deciders are written once.
#[derive(Default)]
pub(super) struct Links {
    pub(super) sets: Vec<Vec<[usize; 2]>>,
    pub(super) traffics: Vec<JsonTraffic>,
    pub(super) reasons: Vec<JsonReasons>,
    pub(super) deciders: Vec<JsonDecider>,
    known_sets: HashMap<Vec<usize>, usize>,
    known_traffics: HashMap<VisibleTraffic, usize>,
    known_reasons: HashMap<JsonReasons, usize>,
    known_deciders: HashMap<(String, Direction), usize>,
}

/// The most policies whose lines are shown for a pod that they isolate.
const MOST_SOURCES: usize = 4;

impl Links {
    /// Adds the edges of an answer; returns the links.
    pub(super) fn add(
        &mut self,
        answer: &Connections,
        loaded: &Loaded,
        reasoner: &Reasoner<'_>,
        sources: &mut Sources<'_>,
    ) -> Vec<JsonLink> {
        let visible = |traffic: &Traffic| !VisibleTraffic::of(traffic).is_none();
        let folded = answer.folded(&FoldSelection {
            traffic: &visible,
            touching: &|_| true,
            labels: Some(reasoner as &dyn EdgeLabels),
        });
        let sets: Vec<usize> = folded.sets.iter().map(|set| self.set(set)).collect();
        let mut labels: HashMap<u32, usize> = HashMap::new();
        let mut link = |edge: &FoldedEdge<'_>| {
            let reasons = *labels
                .entry(edge.label)
                .or_insert_with(|| self.reasons_of(&reasoner.reasons(edge.label), loaded, sources));
            JsonLink {
                from: sets[edge.from],
                to: sets[edge.to],
                traffic: self.traffic(edge.traffic),
                families: match (edge.families.v4, edge.families.v6) {
                    (true, true) => Vec::new(),
                    _ => family_names(edge.families),
                },
                reasons,
                through: (!edge.through.is_empty())
                    .then(|| escape::plain(&entrances::routes(edge.through, &loaded.routes)).into_owned()),
                pairs: folded.count(edge),
            }
        };
        folded.edges.iter().map(&mut link).collect()
    }

    /// Returns whether anything decides a link.
    pub(super) fn has_reasons(&self, link: &JsonLink) -> bool {
        let JsonReasons { egress, ingress } = &self.reasons[link.reasons];
        !egress.is_empty() || !ingress.is_empty()
    }

    fn set(&mut self, ends: &[usize]) -> usize {
        if let Some(known) = self.known_sets.get(ends) {
            return *known;
        }
        let runs = ends.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some([*run.first()?, *run.last()?]));
        self.sets.push(runs.collect());
        self.known_sets.insert(ends.to_vec(), self.sets.len() - 1);
        self.sets.len() - 1
    }

    fn traffic(&mut self, traffic: &Traffic) -> usize {
        let visible = VisibleTraffic::of(traffic);
        if let Some(known) = self.known_traffics.get(&visible) {
            return *known;
        }
        self.traffics.push(JsonTraffic { text: visible.text(), ports: traffic.into() });
        self.known_traffics.insert(visible, self.traffics.len() - 1);
        self.traffics.len() - 1
    }

    fn reasons_of(
        &mut self,
        reasons: &palisade_analysis::EdgeReasons,
        loaded: &Loaded,
        sources: &mut Sources<'_>,
    ) -> usize {
        let mut all = |deciders: &[Decider], direction| -> Vec<usize> {
            deciders.iter().map(|decider| self.decider(decider, direction, loaded, sources)).collect()
        };
        let egress = all(&reasons.egress, Direction::Egress);
        let ingress = all(&reasons.ingress, Direction::Ingress);
        let reasons = JsonReasons { egress, ingress };
        if let Some(known) = self.known_reasons.get(&reasons) {
            return *known;
        }
        self.reasons.push(reasons.clone());
        self.known_reasons.insert(reasons, self.reasons.len() - 1);
        self.reasons.len() - 1
    }

    fn decider(
        &mut self,
        decider: &Decider,
        direction: Direction,
        loaded: &Loaded,
        sources: &mut Sources<'_>,
    ) -> usize {
        let policies: Vec<&PolicyKey> = decider.policies().collect();
        // The text of many policies names only some.
        let key = format!("{}\n{policies:?}", decider_words(decider, direction));
        if let Some(known) = self.known_deciders.get(&(key.clone(), direction)) {
            return *known;
        }
        let found = match decider {
            Decider::Rule(rule) => sources.at(rule.origin.as_ref()).into_iter().collect(),
            _ => policies
                .iter()
                .take(MOST_SOURCES)
                .filter_map(|key| sources.at(loaded.cluster.policies.get(*key)?.origin.as_ref()))
                .collect(),
        };
        self.deciders.push(JsonDecider {
            text: escape::plain(&decider_words(decider, direction)).into_owned(),
            policies: policies.iter().map(|key| escape::plain(&key.to_string()).into_owned()).collect(),
            rule: matches!(decider, Decider::Rule(_)),
            sources: found,
        });
        self.known_deciders.insert((key, direction), self.deciders.len() - 1);
        self.deciders.len() - 1
    }
}

//! Names for sets of ends: `shop/*`, `every workload except shop/deployment/db`, `outside`.

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::ConnectionEnd;
use palisade_policy::Family;

use crate::connection_ends::NamedEnd;

/// The most ends that a name leaves out with `except`.
const MOST_EXCEPTIONS: usize = 3;
/// A set is named by what it leaves out if it has this many times more ends.
const FEW: usize = 2;

/// The ends of an answer by what they have in common.
pub(crate) struct SetNames<'a> {
    ends: &'a [NamedEnd<'a>],
    /// What an end of pods represents, in the singular.
    word: &'static str,
    pods: BTreeSet<usize>,
    by_namespace: BTreeMap<&'a str, BTreeSet<usize>>,
    external: [BTreeSet<usize>; 2],
}

impl<'a> SetNames<'a> {
    pub(crate) fn new(ends: &'a [NamedEnd<'a>], word: &'static str) -> Self {
        let mut out = Self {
            ends,
            word,
            pods: BTreeSet::new(),
            by_namespace: BTreeMap::new(),
            external: Default::default(),
        };
        for (number, end) in ends.iter().enumerate() {
            if end.endpoint.is_pods() {
                out.pods.insert(number);
                let in_namespace = !matches!(end.endpoint, ConnectionEnd::Namespace(_));
                if let Some(namespace) = end.endpoint.namespace().filter(|_| in_namespace) {
                    out.by_namespace.entry(namespace).or_default().insert(number);
                }
            }
            if let ConnectionEnd::External(external) = end.endpoint {
                out.external[usize::from(external.family == Family::V6)].insert(number);
            }
        }
        out
    }

    /// Returns the names that together mean a set of ends.
    pub(crate) fn terms(&self, set: &[usize]) -> Vec<String> {
        let mut rest: BTreeSet<usize> = set.iter().copied().collect();
        let mut out = Vec::new();
        self.take(&mut rest, &self.pods, &|| format!("every {}", self.word), &mut out);
        for (namespace, all) in &self.by_namespace {
            self.take(&mut rest, all, &|| format!("{namespace}/*"), &mut out);
            for end in all.intersection(&rest.clone()) {
                out.push(self.ends[*end].id.clone());
                rest.remove(end);
            }
        }
        let outside: BTreeSet<usize> = self.external.iter().flatten().copied().collect();
        let mut last = Vec::new();
        self.take(&mut rest, &outside, &|| "outside".to_owned(), &mut last);
        for (all, family) in self.external.iter().zip(Family::BOTH) {
            self.take(&mut rest, all, &|| format!("outside ({family})"), &mut last);
        }
        out.extend(rest.iter().map(|end| self.ends[*end].id.clone()));
        out.extend(last);
        out
    }

    /// If `rest` has all or nearly all of several ends, moves them to a name.
    fn take(
        &self,
        rest: &mut BTreeSet<usize>,
        all: &BTreeSet<usize>,
        name: &dyn Fn() -> String,
        out: &mut Vec<String>,
    ) {
        let missing: Vec<&usize> = all.difference(rest).collect();
        let present = all.len() - missing.len();
        if all.len() < 2 || present < 2 || missing.len() > MOST_EXCEPTIONS || present <= FEW * missing.len() {
            // Two ends without the third are shorter by their names.
            return;
        }
        let mut text = name();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|end| &*self.ends[**end].id).collect();
            text = format!("{text} except {}", names.join(" and "));
        }
        rest.retain(|end| !all.contains(end));
        out.push(text);
    }
}

/// Returns a short name for a set, which no end has.
pub(crate) fn short(terms: &[String]) -> String {
    format!("{{{}}}", crate::connection_ends::abbreviated(terms, Clone::clone))
}

//! Names for sets of ends: `shop/*`, `every workload except shop/deployment/db`, `outside`.

use std::collections::BTreeMap;

use palisade_analysis::ConnectionEnd;
use palisade_policy::Family;

use crate::connection_ends::NamedEnd;

/// The most ends that a name leaves out with `except`.
const MOST_EXCEPTIONS: usize = 3;
/// A set is named by what it leaves out if it has this many times more ends.
const FEW: usize = 2;

/// The ends of an answer by what they have in common. Lists of ends are sorted.
pub(crate) struct SetNames<'a> {
    ends: &'a [NamedEnd<'a>],
    /// What an end of pods represents, in the singular.
    word: &'static str,
    pods: Vec<usize>,
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    external: [Vec<usize>; 2],
}

impl<'a> SetNames<'a> {
    pub(crate) fn new(ends: &'a [NamedEnd<'a>], word: &'static str) -> Self {
        let mut out = Self {
            ends,
            word,
            pods: Vec::new(),
            by_namespace: BTreeMap::new(),
            external: Default::default(),
        };
        for (number, end) in ends.iter().enumerate() {
            if end.endpoint.is_pods() {
                out.pods.push(number);
                if let Some(namespace) = out.namespace(number) {
                    out.by_namespace.entry(namespace).or_default().push(number);
                }
            }
            if let ConnectionEnd::External(external) = end.endpoint {
                out.external[usize::from(external.family == Family::V6)].push(number);
            }
        }
        out
    }

    /// Returns the namespace of an end that is a part of one.
    fn namespace(&self, end: usize) -> Option<&'a str> {
        let end = self.ends[end].endpoint;
        end.namespace().map(|name| &**name).filter(|_| !matches!(end, ConnectionEnd::Namespace(_)))
    }

    /// Returns the names that together mean a set of ends, which is sorted. `O(ends)`.
    pub(crate) fn terms(&self, set: &[usize]) -> Vec<String> {
        let part = |is: &dyn Fn(&ConnectionEnd) -> bool| -> Vec<usize> {
            set.iter().copied().filter(|end| is(self.ends[*end].endpoint)).collect()
        };
        let pods = part(&ConnectionEnd::is_pods);
        let outside = part(&|end| matches!(end, ConnectionEnd::External(_)));
        let others = part(&|end| !end.is_pods() && !matches!(end, ConnectionEnd::External(_)));
        let mut out = Vec::new();
        match self.nearly_all(&self.pods, &pods, &format!("every {}", self.word)) {
            Some(name) => out.push(name),
            None => {
                for part in pods.chunk_by(|a, b| self.namespace(*a) == self.namespace(*b)) {
                    let namespace = self.namespace(part[0]);
                    let all = namespace.and_then(|name| self.by_namespace.get(name));
                    let name = format!("{}/*", namespace.unwrap_or_default());
                    out.extend(self.names(all.map_or(&[][..], |all| all), part, &name));
                }
            }
        }
        out.extend(self.ids(&others));
        let all: Vec<usize> = self.external.concat();
        match self.nearly_all(&all, &outside, "outside") {
            Some(name) => out.push(name),
            None => {
                for (all, family) in self.external.iter().zip(Family::BOTH) {
                    let part: Vec<usize> =
                        outside.iter().copied().filter(|end| all.binary_search(end).is_ok()).collect();
                    out.extend(self.names(all, &part, &format!("outside ({family})")));
                }
            }
        }
        out
    }

    fn ids(&self, ends: &[usize]) -> Vec<String> {
        ends.iter().map(|end| self.ends[*end].id.clone()).collect()
    }

    /// Returns the name of nearly all of some ends, or else their own names.
    fn names(&self, all: &[usize], part: &[usize], name: &str) -> Vec<String> {
        self.nearly_all(all, part, name).map_or_else(|| self.ids(part), |name| vec![name])
    }

    /// Returns `name`, with exceptions, if a part of `all` has all or nearly all of several ends.
    fn nearly_all(&self, all: &[usize], part: &[usize], name: &str) -> Option<String> {
        let missing = all.len().saturating_sub(part.len());
        // Two ends without the third are shorter by their names.
        if part.len() < 2
            || part.len() > all.len()
            || missing > MOST_EXCEPTIONS
            || part.len() <= FEW * missing
        {
            return None;
        }
        if missing == 0 {
            return Some(name.to_owned());
        }
        let missing: Vec<usize> =
            all.iter().copied().filter(|end| part.binary_search(end).is_err()).collect();
        Some(format!("{name} except {}", self.ids(&missing).join(" and ")))
    }
}

/// Returns a short name for a set, which no end has.
pub(crate) fn short(terms: &[String]) -> String {
    format!("{{{}}}", crate::connection_ends::abbreviated(terms, Clone::clone))
}

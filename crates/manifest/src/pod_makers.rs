//! Objects whose controllers make pods that no manifest describes, such as a HelmRelease or a Prometheus.

use std::collections::BTreeMap;

use palisade_policy::Name;

use crate::kinds::foreign::Cure;

/// The number of such objects by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMakers {
    /// By kind, group, and how to get the pods.
    counts: BTreeMap<(Name, Name, Cure), usize>,
}

impl PodMakers {
    pub(crate) fn add(&mut self, group: Name, kind: Name, cure: Cure) {
        *self.counts.entry((kind, group, cure)).or_default() += 1;
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns what these objects mean for an answer, in one paragraph; `None` if there are none.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let kinds: Vec<String> = self
            .counts
            .iter()
            .map(|((kind, group, _), n)| match &**group {
                "" => format!("{n} {kind}"),
                group => format!("{n} {kind} ({group})"),
            })
            .collect();
        let total: usize = self.counts.values().sum();
        let (objects, make) = if total == 1 { ("object", "makes") } else { ("objects", "make") };
        let mut programs: Vec<&str> = self.counts.keys().filter_map(|(_, _, cure)| cure.program()).collect();
        programs.sort_unstable();
        programs.dedup();
        let render = match &programs[..] {
            [] => String::new(),
            programs => format!("render them ({}), or ", programs.join(", ")),
        };
        Some(format!(
            "{total} {objects} {make} pods that are not in these files, so answers are without them: {}; {render}add \
             the objects of a cluster in which they run (`palisade snapshot`)",
            kinds.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_note_counts_the_kinds_and_names_the_cures() {
        let mut makers = PodMakers::default();
        assert_eq!(makers.note(), None);
        makers.add("monitoring.coreos.com".into(), "Prometheus".into(), Cure::Snapshot);
        assert_eq!(
            makers.note().as_deref(),
            Some(
                "1 object makes pods that are not in these files, so answers are without them: 1 Prometheus \
                 (monitoring.coreos.com); add the objects of a cluster in which they run (`palisade snapshot`)"
            )
        );
        for _ in 0..2 {
            makers.add("helm.toolkit.fluxcd.io".into(), "HelmRelease".into(), Cure::Render("helm template"));
        }
        assert_eq!(
            makers.note().as_deref(),
            Some(
                "3 objects make pods that are not in these files, so answers are without them: 2 HelmRelease \
                 (helm.toolkit.fluxcd.io), 1 Prometheus (monitoring.coreos.com); render them (helm template), or add \
                 the objects of a cluster in which they run (`palisade snapshot`)"
            )
        );
    }
}

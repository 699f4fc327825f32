//! Reports pods that may not use the sources that they ask for by annotation: log, metric, and an Event for each pod.

use std::collections::BTreeMap;

use palisade_api::{ObjectRef, Reporter, ResourceKind};
use palisade_policy::{Name, ObjectKey};

use super::error_log::ErrorLog;
use crate::{Reconciler, metrics::Metrics};

/// The most pods that are logged at once: a tenant may have many.
const LOGGED: usize = 10;

/// What was reported last.
#[derive(Debug, Default)]
pub(super) struct RefusedSources {
    /// The number of [`Reconciler::pod_sources`].
    version: u64,
    pods: BTreeMap<ObjectKey, String>,
}

impl RefusedSources {
    /// Reports what has changed. `O(1)` if nothing has.
    pub(super) fn update(
        &mut self,
        node: &Name,
        reconciler: &Reconciler,
        metrics: &Metrics,
        reporter: Option<&Reporter>,
        errors: &mut ErrorLog,
    ) {
        let (sources, version) = reconciler.pod_sources();
        if self.version == version {
            return;
        }
        self.version = version;
        metrics.refused_source_pods.set(sources.refused.len() as i64);
        let new = sources.refused.iter().filter(|(pod, why)| self.pods.get(pod) != Some(why));
        let new: Vec<(&ObjectKey, &String)> = new.collect();
        for (pod, why) in new.iter().take(LOGGED) {
            tracing::warn!(%pod, why, "pod is not allowed to use a source that it requests");
            errors.record("allow-source", format!("{pod}: {why}"));
        }
        if new.len() > LOGGED {
            tracing::warn!(
                pods = new.len() - LOGGED,
                "further pods are not allowed to use sources that they request"
            );
        }
        self.pods.clone_from(&sources.refused);
        if let Some(reporter) = reporter {
            let pods = reconciler.cluster();
            let note = |(key, why): (&ObjectKey, &String)| {
                let object = ObjectRef {
                    kind: ResourceKind::Pod,
                    namespace: Some(key.namespace.clone()),
                    name: key.name.clone(),
                    uid: pods.pods.get(key).map(|pod| pod.uid.to_string()).unwrap_or_default().into(),
                    generation: 0,
                };
                (object, format!("on node {node}, {why}"))
            };
            reporter.refused_sources(self.pods.iter().map(note).collect());
        }
    }
}

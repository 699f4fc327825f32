//! What the pages show: the objects that were read, and the report about them.

use std::{path::Path, time::SystemTime};

use anyhow::{Result, bail};
use hyper::body::Bytes;
use palisade_analysis::{ControllerRoutes, GroupBy};
use palisade_lint::SourceText;
use palisade_manifest::{Diagnostic, Loaded, Severity};

use super::UiArguments;
use crate::{
    cluster::Need,
    inputs::{LoadedInputs, stamp::Stamp},
    output, report,
};

/// The most workloads that the pages show one by one. The matrix of 2,000 workloads has four million pairs, and a browser needs
/// 12 bytes for each.
const MOST_WORKLOADS: usize = 2_000;

/// From where the objects are read.
pub(super) struct Source {
    pub(super) arguments: UiArguments,
}

/// Objects that were read, and the report about them.
pub(super) struct World {
    pub(super) inputs: LoadedInputs,
    pub(super) texts: Vec<SourceText>,
    /// The report as JSON: every page needs it, so it is made once.
    pub(super) report: Bytes,
    /// What an end of the report stands for.
    pub(super) group_by: GroupBy,
    pub(super) read: SystemTime,
    /// The files as they were before they were read: what changed while they were read is seen as a change.
    pub(super) stamp: Stamp,
}

impl Source {
    pub(super) fn new(arguments: UiArguments) -> Self {
        Self { arguments }
    }

    /// Whether a cluster is read.
    pub(super) fn is_cluster(&self) -> bool {
        let sources = &self.arguments.sources;
        let nothing = sources.files.is_empty() && sources.render.is_empty();
        nothing || sources.live || sources.cluster.is_named()
    }

    /// Whether it can be read again: standard input can't, and a chart is rendered by a program, which is not run unasked.
    pub(super) fn is_repeatable(&self) -> bool {
        let sources = &self.arguments.sources;
        sources.render.is_empty() && sources.files.iter().all(|file| file != "-")
    }

    /// Looks at the files.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::of(self.arguments.sources.files.iter().map(Path::new))
    }

    /// Reads the objects, and makes the report about them.
    ///
    /// # Errors
    /// As other verbs: when a document is invalid, or the cluster can't be reached.
    pub(super) fn read(&self) -> Result<World> {
        let arguments = &self.arguments;
        let stamp = self.stamp();
        let (inputs, texts) =
            arguments.sources.load_with_texts(arguments.namespace.as_deref(), Need::Everything)?;
        if inputs.loaded.cluster.pods.is_empty() {
            bail!("the {} have no pods, so there is nothing to show", inputs.place());
        }
        let routes = arguments.controller.entrances(&inputs.loaded, &inputs.namespace)?;
        let group_by = granularity(&inputs.loaded);
        let report =
            output::with_progress("computing the report", || self.report(&inputs, &texts, routes, group_by))?;
        Ok(World { inputs, texts, report, group_by, read: SystemTime::now(), stamp })
    }

    fn report(
        &self,
        world: &LoadedInputs,
        texts: &[SourceText],
        routes: ControllerRoutes,
        group_by: GroupBy,
    ) -> Result<Bytes> {
        let nodes = self.arguments.nodes;
        Ok(report::json(&report::Question { world, texts, routes, nodes, group_by })?.into())
    }

    /// Reads the files again for what is wrong with them.
    pub(super) fn errors(&self) -> Vec<Diagnostic> {
        let arguments = &self.arguments;
        if self.is_cluster() || !self.is_repeatable() {
            return Vec::new();
        }
        let Ok(gathered) = arguments.sources.gather(arguments.namespace.as_deref(), Need::Everything) else {
            return Vec::new();
        };
        let loaded = palisade_manifest::load(&gathered.files, &gathered.options);
        loaded.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect()
    }
}

/// Returns what an end stands for, so that the matrix has a bounded size.
fn granularity(loaded: &Loaded) -> GroupBy {
    let workloads = loaded.workloads.values().filter(|pods| !pods.is_empty()).count();
    let alone = loaded.cluster.pods.iter().filter(|(_, pod)| pod.workload.is_none()).count();
    if workloads + alone > MOST_WORKLOADS { GroupBy::Namespace } else { GroupBy::Workload }
}

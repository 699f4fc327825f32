//! What reading manifests results in.

use std::collections::BTreeMap;

use palisade_names::Route;
use palisade_policy::{Cluster, Name, ObjectKey, Origin, Workload};

use crate::{
    addresses::Unaddressed,
    diagnostic::{Diagnostic, Severity},
};

/// What was read, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Files, standard input and texts.
    pub files: usize,
    /// Documents that are not empty, broken ones included.
    pub documents: usize,
    /// Objects taken in, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Objects of known kinds that were refused, by kind.
    pub rejected: BTreeMap<String, usize>,
    /// Objects that don't matter to policies or are not evaluated, by kind.
    pub passed_over: BTreeMap<String, usize>,
}

/// What manifests say.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The cluster. What was refused is not in it.
    pub cluster: Cluster,
    /// Everything that is wrong, in the order in which it was found.
    pub diagnostics: Vec<Diagnostic>,
    /// What was read.
    pub counts: Counts,
    /// The pods of each workload, in each namespace, sorted; workloads without pods have an empty list.
    pub workloads: BTreeMap<(Name, Workload), Vec<ObjectKey>>,
    /// Where each object begins, by kind and key; cluster-scoped ones have an empty namespace.
    pub origins: BTreeMap<(Name, ObjectKey), Origin>,
    /// What leads into the cluster through a controller, by kind and key. A backend that leads nowhere is left out.
    pub routes: Vec<Route>,
    /// What was left, or is meant to be left, without address.
    pub unaddressed: Unaddressed,
}

impl Loaded {
    /// Whether something was not taken in.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// How many errors and warnings there are.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.diagnostics.len() - errors)
    }
}

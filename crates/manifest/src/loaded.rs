//! The result of reading manifests.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_names::Route;
use palisade_policy::{Cluster, Direction, Labels, Name, ObjectKey, Origin, PolicyKey, Rule, Workload};

use crate::{
    addresses::{AddressEvidence, FamilySource},
    callers::Caller,
    diagnostic::{Diagnostic, Severity},
    note::Note,
    pod_makers::PodMakers,
    references::References,
    refused::RefusedPolicy,
};

/// How much was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Files, standard input and texts.
    pub files: usize,
    /// Documents that are not empty, including broken ones.
    pub documents: usize,
    /// Objects that were read, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Objects of known kinds that were rejected, by kind.
    pub rejected: BTreeMap<String, usize>,
    /// Objects of other kinds, which don't affect policies or are not evaluated, by kind.
    pub passed_over: BTreeMap<String, usize>,
}

/// What the manifest of a workload declares about labels, for suggestions: policies only match those of its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadLabels {
    /// `spec.selector.matchLabels`; empty if there are none.
    pub selector: Labels,
    /// The labels of the object itself.
    pub object: Labels,
    /// The labels of the Jobs that it makes, if it is a CronJob.
    pub jobs: Labels,
    /// The labels of its pod template.
    pub template: Labels,
    /// Where the pod template begins.
    pub template_origin: Option<Origin>,
    /// Where the metadata of the template begins.
    pub metadata_origin: Option<Origin>,
    /// Where the labels of the template begin.
    pub labels_origin: Option<Origin>,
}

/// The cluster that manifests describe, and what was found on the way.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The cluster, without what was rejected. Rejected policies stay, without what they allow.
    pub cluster: Cluster,
    /// All errors and warnings, in the order in which they were found.
    pub diagnostics: Vec<Diagnostic>,
    /// What is worth knowing about the input.
    pub notes: Vec<Note>,
    /// How much was read.
    pub counts: Counts,
    /// The pods of each workload by namespace, sorted. Workloads without pods have an empty list.
    pub workloads: BTreeMap<(Name, Workload), Vec<ObjectKey>>,
    /// The declared labels of workloads by namespace.
    pub workload_labels: BTreeMap<(Name, Workload), WorkloadLabels>,
    /// The rules that policies have for directions that their `policyTypes` don't name (SEMANTICS A6).
    pub ignored_rules: BTreeMap<(PolicyKey, Direction), Vec<Rule>>,
    /// Where each object begins, by kind and key. Cluster-scoped objects have an empty namespace.
    pub origins: BTreeMap<(Name, ObjectKey), Origin>,
    /// Where the labels of namespaces, nodes, pods and pod templates begin, by kind and key, if they come from a file.
    pub label_origins: BTreeMap<(Name, ObjectKey), Origin>,
    /// Ingresses and routes, by kind and key. Backends that don't exist are left out.
    pub routes: Vec<Route>,
    /// What the manifests say about addresses that objects don't report.
    pub evidence: AddressEvidence,
    /// Where the families of the cluster come from.
    pub families_from: FamilySource,
    /// Whether host-network pods are on a made-up node, because there is no Node object.
    pub made_up_node: bool,
    /// Objects whose controllers make pods that are not in the manifests.
    pub pod_makers: PodMakers,
    /// Objects that say who connects to pods, in the order of their documents.
    pub callers: Vec<Caller>,
    /// The hosts that the settings of workloads name, if they were read ([`LoadOptions::references`](crate::LoadOptions)).
    pub references: References,
    /// The name servers of `dnsConfig` of pods whose `dnsPolicy` is `None` or `Default`: they don't ask the DNS of the
    /// cluster, unless it is among these.
    pub own_dns: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// The labels of Services that have any. No policy matches them.
    pub service_labels: BTreeMap<ObjectKey, Labels>,
    /// Policies with errors, and what stands for each in the cluster, in the order of their documents.
    pub refused: Vec<RefusedPolicy>,
}

impl Loaded {
    /// Returns whether anything was left out because of an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// Returns the number of errors and warnings.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.diagnostics.len() - errors)
    }
}

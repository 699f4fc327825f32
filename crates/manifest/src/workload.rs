//! Objects that make pods: how many, and what they are called.

use palisade_policy::{Name, ObjectKey, Origin, Workload};

use crate::{
    decode::{Context, Fields},
    meta::Meta,
    names,
    pod::{Template, template},
    tree::At,
};

/// How many pods a workload makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// This many, numbered from `first`.
    Count { first: u32, count: u32 },
    /// One for each node whose labels fit the template's node selector; one if no node is known.
    PerNode,
}

/// A Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job or CronJob.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredWorkload {
    pub(crate) kind: Name,
    pub(crate) key: ObjectKey,
    pub(crate) owner: Option<Workload>,
    pub(crate) replicas: Replicas,
    pub(crate) template: Template,
    pub(crate) created: i64,
    pub(crate) source: Origin,
    /// A Job whose pods carry their index as a label.
    pub(crate) indexed: bool,
    /// It is one of a live cluster, where pods are made by others.
    pub(crate) live: bool,
}

const DEPLOYMENT: &[&str] = &[
    "minReadySeconds",
    "paused",
    "progressDeadlineSeconds",
    "replicas",
    "revisionHistoryLimit",
    "selector",
    "strategy",
    "template",
];
const STATEFUL_SET: &[&str] = &[
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "podManagementPolicy",
    "replicas",
    "revisionHistoryLimit",
    "selector",
    "serviceName",
    "template",
    "updateStrategy",
    "volumeClaimTemplates",
];
const DAEMON_SET: &[&str] =
    &["minReadySeconds", "revisionHistoryLimit", "selector", "template", "updateStrategy"];
const REPLICA_SET: &[&str] = &["minReadySeconds", "replicas", "selector", "template"];
const JOB: &[&str] = &[
    "activeDeadlineSeconds",
    "backoffLimit",
    "backoffLimitPerIndex",
    "completionMode",
    "completions",
    "managedBy",
    "manualSelector",
    "maxFailedIndexes",
    "parallelism",
    "podFailurePolicy",
    "podReplacementPolicy",
    "selector",
    "successPolicy",
    "suspend",
    "template",
    "ttlSecondsAfterFinished",
];
const CRON_JOB: &[&str] = &[
    "concurrencyPolicy",
    "failedJobsHistoryLimit",
    "jobTemplate",
    "schedule",
    "startingDeadlineSeconds",
    "successfulJobsHistoryLimit",
    "suspend",
    "timeZone",
];

/// Reads a workload of this kind. `None` if `kind` is none.
pub(crate) fn workload(
    cx: &mut Context<'_>,
    object: &Fields<'_>,
    kind: &str,
    meta: &Meta,
) -> Option<DeclaredWorkload> {
    let known = match kind {
        "Deployment" => DEPLOYMENT,
        "StatefulSet" => STATEFUL_SET,
        "DaemonSet" => DAEMON_SET,
        "ReplicaSet" | "ReplicationController" => REPLICA_SET,
        "Job" => JOB,
        "CronJob" => CRON_JOB,
        _ => return None,
    };
    let spec_at = object.get("spec");
    let spec = spec_at.as_ref().and_then(|at| cx.fields(at, known));
    let mut indexed = false;
    let replicas = match (kind, spec) {
        ("DaemonSet", _) => Replicas::PerNode,
        ("Job", Some(spec)) => {
            indexed = spec.string(cx, "completionMode") == Some("Indexed");
            Replicas::Count { first: 0, count: job_pods(cx, &spec) }
        }
        ("CronJob", _) | (_, None) => Replicas::Count { first: 0, count: 1 },
        (_, Some(spec)) => Replicas::Count {
            first: first_ordinal(cx, &spec),
            count: count(cx, &spec, "replicas").unwrap_or(1),
        },
    };
    let template = match kind {
        "CronJob" => cron_template(cx, spec),
        _ => {
            let at = spec.and_then(|s| s.get("template"));
            template(cx, at.as_ref())
        }
    };
    Some(DeclaredWorkload {
        kind: cx.names.name(kind),
        key: meta.key.clone(),
        owner: meta.owner.clone(),
        replicas,
        template,
        created: meta.created,
        source: meta.source.clone(),
        indexed,
        live: cx.text.is_of_cluster(),
    })
}

fn count(cx: &mut Context<'_>, spec: &Fields<'_>, field: &str) -> Option<u32> {
    let at = spec.get(field)?;
    let number = cx.int32(&at)?;
    match u32::try_from(number) {
        Ok(number) => Some(number),
        Err(_) => {
            cx.invalid(&at, ["must be greater than or equal to 0"]);
            None
        }
    }
}

/// A Job runs `parallelism` pods at a time, never more than it needs completions; none while suspended.
fn job_pods(cx: &mut Context<'_>, spec: &Fields<'_>) -> u32 {
    let parallelism = count(cx, spec, "parallelism").unwrap_or(1);
    let completions = count(cx, spec, "completions").unwrap_or(u32::MAX);
    if spec.bool(cx, "suspend") { 0 } else { parallelism.min(completions) }
}

fn first_ordinal(cx: &mut Context<'_>, spec: &Fields<'_>) -> u32 {
    let Some(ordinals) = spec.get("ordinals") else { return 0 };
    let fields = cx.fields(&ordinals, &["start"]);
    fields.and_then(|f| count(cx, &f, "start")).unwrap_or(0)
}

fn cron_template(cx: &mut Context<'_>, spec: Option<Fields<'_>>) -> Template {
    let job_template = spec.and_then(|s| s.get("jobTemplate"));
    let fields = job_template.as_ref().and_then(|at| cx.fields(at, &["metadata", "spec"]));
    let job_spec = fields.and_then(|f| f.get("spec"));
    let job = job_spec.as_ref().and_then(|at| cx.fields(at, JOB));
    let at: Option<At<'_>> = job.and_then(|j| j.get("template"));
    template(cx, at.as_ref())
}

impl DeclaredWorkload {
    /// Its identity as pods carry it.
    pub(crate) fn identity(&self) -> Workload {
        Workload { kind: self.kind.clone(), name: self.key.name.clone() }
    }

    /// The labels that its controller adds to pod number `n`, called `name`.
    pub(crate) fn added_labels(&self, n: u32, name: &str) -> Vec<(&'static str, String)> {
        // Label values end at 63 bytes: the controllers leave longer ones out.
        let fits = |value: &str| names::label_value(value).is_empty();
        let mut added = Vec::new();
        match &*self.kind {
            "StatefulSet" => {
                if fits(name) {
                    added.push(("statefulset.kubernetes.io/pod-name", name.to_owned()));
                }
                added.push(("apps.kubernetes.io/pod-index", n.to_string()));
            }
            "Job" => {
                if fits(&self.key.name) {
                    added.push(("job-name", self.key.name.to_string()));
                    added.push(("batch.kubernetes.io/job-name", self.key.name.to_string()));
                }
                if self.indexed {
                    added.push(("batch.kubernetes.io/job-completion-index", n.to_string()));
                }
            }
            _ => {}
        }
        added
    }
}

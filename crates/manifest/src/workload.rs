//! Objects that make pods: how many, and with which names.

use palisade_policy::Labels;

use crate::{
    declared::{Declaration, DeclaredWorkload, PodTemplate, Replicas},
    decode::{Context, Fields},
    diagnostic::Code,
    meta::{self, Object},
    names,
    pod::template,
    scalar::Scalar,
    tree::{At, Value},
};

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

/// The label that a Deployment's ReplicaSets put on their pods. Its value is the suffix of the ReplicaSet's name.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Decodes a Deployment.
pub(crate) fn deployment(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    replicated(cx, object, DEPLOYMENT)
}

/// Decodes a StatefulSet.
pub(crate) fn stateful_set(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    replicated(cx, object, STATEFUL_SET)
}

/// Decodes a ReplicaSet or a ReplicationController.
pub(crate) fn replica_set(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    replicated(cx, object, REPLICA_SET)
}

/// A workload with `spec.replicas`.
fn replicated(cx: &mut Context<'_>, object: &Object<'_>, known: &[&str]) -> Option<Declaration> {
    let spec_at = object.get("spec");
    let spec = spec_at.as_ref().and_then(|at| cx.fields(at, known));
    let first = spec.map_or(0, |spec| first_ordinal(cx, &spec));
    let count = spec.and_then(|spec| count(cx, &spec, "replicas")).unwrap_or(1);
    let template = pod_template(cx, spec);
    let workload = declared(cx, object, Replicas::Count { first, count }, template);
    if has_template(cx, object, spec, "spec.template") {
        check_selector(cx, object, &workload);
    }
    Some(declaration(workload))
}

/// Decodes a DaemonSet.
pub(crate) fn daemon_set(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec_at = object.get("spec");
    let spec = spec_at.as_ref().and_then(|at| cx.fields(at, DAEMON_SET));
    let template = pod_template(cx, spec);
    let workload = declared(cx, object, Replicas::PerNode, template);
    if has_template(cx, object, spec, "spec.template") {
        check_selector(cx, object, &workload);
    }
    Some(declaration(workload))
}

/// Decodes a Job. A finished one makes no more pods; those that it left are of no effect either (SEMANTICS A48).
pub(crate) fn job(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec_at = object.get("spec");
    let spec = spec_at.as_ref().and_then(|at| cx.fields(at, JOB));
    let indexed = spec.and_then(|spec| spec.string(cx, "completionMode")) == Some("Indexed");
    let running = spec.map_or(1, |spec| job_pods(cx, &spec));
    let count = if has_finished(object) { 0 } else { running };
    let template = pod_template(cx, spec);
    let workload = declared(cx, object, Replicas::Count { first: 0, count }, template);
    has_template(cx, object, spec, "spec.template");
    Some(declaration(DeclaredWorkload { indexed, ..workload }))
}

/// Decodes a CronJob, which counts as one running Job with one pod.
pub(crate) fn cron_job(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec_at = object.get("spec");
    let spec = spec_at.as_ref().and_then(|at| cx.fields(at, CRON_JOB));
    let job_template = spec.and_then(|s| s.get("jobTemplate"));
    let fields = job_template.as_ref().and_then(|at| cx.fields(at, &["metadata", "spec"]));
    let job_spec = fields.and_then(|f| f.get("spec"));
    let job = job_spec.as_ref().and_then(|at| cx.fields(at, JOB));
    let template = pod_template(cx, job);
    let job_labels = job_labels(cx, fields);
    let workload = declared(cx, object, Replicas::Count { first: 0, count: 1 }, template);
    has_template(cx, object, job, "spec.jobTemplate.spec.template");
    Some(declaration(DeclaredWorkload { job_labels, ..workload }))
}

/// Returns the labels of the Jobs that a CronJob makes.
fn job_labels(cx: &mut Context<'_>, job_template: Option<Fields<'_>>) -> Labels {
    let metadata = job_template.and_then(|template| template.get("metadata"));
    let fields = metadata.as_ref().and_then(|at| cx.fields(at, meta::FIELDS));
    let labels = fields.and_then(|fields| fields.get("labels"));
    labels.map(|at| cx.labels(&at)).unwrap_or_default()
}

/// Wraps a workload.
pub(crate) fn declaration(workload: DeclaredWorkload) -> Declaration {
    Declaration::Workload(Box::new(workload))
}

/// Decodes `template` of a workload's `spec`.
pub(crate) fn pod_template(cx: &mut Context<'_>, spec: Option<Fields<'_>>) -> PodTemplate {
    let at = spec.and_then(|s| s.get("template"));
    template(cx, at.as_ref())
}

/// Makes a workload of an object's metadata.
pub(crate) fn declared(
    cx: &mut Context<'_>,
    object: &Object<'_>,
    replicas: Replicas,
    template: PodTemplate,
) -> DeclaredWorkload {
    let meta = &object.meta;
    DeclaredWorkload {
        kind: cx.names.name(object.kind),
        key: meta.key.clone(),
        owner: meta.owner.clone(),
        replicas,
        labels: meta.labels.clone(),
        job_labels: Labels::default(),
        selector: match_labels(cx, object),
        template,
        created: meta.created,
        origin: meta.origin.clone(),
        indexed: false,
        template_of: None,
        from_cluster: cx.text.is_of_cluster(),
    }
}

/// Returns the labels that `spec.selector` requires. Anything else in it is left out, without a message: only suggestions
/// are made of it.
fn match_labels(cx: &Context<'_>, object: &Object<'_>) -> Labels {
    let spec = object.get("spec");
    let selector = spec.as_ref().and_then(|spec| spec.get("selector"));
    let labels = selector.as_ref().and_then(|selector| {
        let is_plain = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
        if is_plain { Some(*selector) } else { selector.get("matchLabels") }
    });
    let pairs = labels.iter().flat_map(|at| at.entries()).filter_map(|(key, _, value)| match value.value() {
        Value::Scalar(Scalar::Str(text)) => Some((cx.names.name(key), cx.names.name(text))),
        _ => None,
    });
    pairs.collect()
}

/// Whether a workload has a template. Warns of one that hasn't, which the API server refuses: a part of a manifest, such as a patch. Its pods
/// count as pods without labels.
fn has_template(cx: &mut Context<'_>, object: &Object<'_>, spec: Option<Fields<'_>>, path: &str) -> bool {
    let has = spec.is_some_and(|spec| spec.get("template").is_some());
    // The API server has accepted what a cluster has.
    if !has && !cx.text.is_of_cluster() {
        let message = format!("{path} is missing, so the API server refuses this {}", object.kind);
        cx.warn(spec.map_or(object.fields.at, |spec| spec.at), Code::Ambiguous, message);
    }
    has
}

/// Warns of a selector that doesn't match the labels of the template. The API server refuses such a workload, and policies are
/// mostly written for what the selector says.
fn check_selector(cx: &mut Context<'_>, object: &Object<'_>, workload: &DeclaredWorkload) {
    let labels = &workload.template.labels;
    let missing = workload.selector.iter().find(|(key, value)| labels.get(key) != Some(value));
    let spec = object.get("spec");
    let selector = spec.as_ref().and_then(|spec| spec.get("selector"));
    if let (Some((key, value)), Some(at)) = (missing, selector) {
        let message = format!(
            "the labels of the template don't have {key}={value}, so the API server refuses this {}",
            object.kind
        );
        cx.warn(&at, Code::Ambiguous, message);
    }
}

/// Decodes a number of pods.
pub(crate) fn count(cx: &mut Context<'_>, spec: &Fields<'_>, field: &str) -> Option<u32> {
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

/// Returns how many pods a Job runs at a time: `parallelism`, but not more than its completions; none while it is
/// suspended.
fn job_pods(cx: &mut Context<'_>, spec: &Fields<'_>) -> u32 {
    let parallelism = count(cx, spec, "parallelism").unwrap_or(1);
    let completions = count(cx, spec, "completions").unwrap_or(u32::MAX);
    if spec.bool(cx, "suspend") { 0 } else { parallelism.min(completions) }
}

/// Returns whether the status says that a Job is complete or has failed.
fn has_finished(object: &Object<'_>) -> bool {
    let status = object.get("status");
    let conditions = status.as_ref().and_then(|status| status.get("conditions"));
    let is = |condition: &At<'_>, field: &str, values: &[&str]| {
        let at = condition.get(field);
        matches!(at.as_ref().map(At::value), Some(Value::Scalar(Scalar::Str(text))) if values.contains(&text.as_ref()))
    };
    conditions.iter().flat_map(|at| at.items()).any(|condition| {
        is(&condition, "type", &["Complete", "Failed"]) && is(&condition, "status", &["True"])
    })
}

/// Decodes the number of a StatefulSet's first pod.
pub(crate) fn first_ordinal(cx: &mut Context<'_>, spec: &Fields<'_>) -> u32 {
    let Some(ordinals) = spec.get("ordinals") else { return 0 };
    let fields = cx.fields(&ordinals, &["start"]);
    fields.and_then(|f| count(cx, &f, "start")).unwrap_or(0)
}

/// Returns the Deployment that owns a ReplicaSet, if one does. `hash` is the pod's label [`POD_TEMPLATE_HASH`].
pub(crate) fn deployment_of<'n>(kind: &str, name: &'n str, hash: Option<&str>) -> Option<&'n str> {
    if kind != "ReplicaSet" {
        return None;
    }
    name.strip_suffix(hash?)?.strip_suffix('-').filter(|n| !n.is_empty())
}

/// The labels that a workload's controller adds to pod number `n`, called `name`.
pub(crate) fn added_labels(workload: &DeclaredWorkload, n: u32, name: &str) -> Vec<(&'static str, String)> {
    // A label value has at most 63 bytes. The controllers leave longer ones out.
    let fits = |value: &str| names::label_value(value).is_empty();
    let mut added = Vec::new();
    match &*workload.kind {
        "StatefulSet" => {
            if fits(name) {
                added.push(("statefulset.kubernetes.io/pod-name", name.to_owned()));
            }
            added.push(("apps.kubernetes.io/pod-index", n.to_string()));
        }
        "Job" => {
            if fits(&workload.key.name) {
                added.push(("job-name", workload.key.name.to_string()));
                added.push(("batch.kubernetes.io/job-name", workload.key.name.to_string()));
            }
            if workload.indexed {
                added.push(("batch.kubernetes.io/job-completion-index", n.to_string()));
            }
        }
        _ => {}
    }
    added
}

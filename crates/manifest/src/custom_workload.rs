//! Workloads of other projects that have a pod template: Argo Rollouts, OpenShift, Knative, KubeVirt and OpenKruise.
//!
//! Only what decides about their pods is read: how many there are, their labels and their ports. Other fields are not
//! checked, since they differ between versions of these projects.

use palisade_policy::{ContainerPort, Labels, Protocol, Workload};

use crate::{
    declared::{Declaration, DeclaredWorkload, PodTemplate, Replicas},
    decode::{Context, Fields},
    meta::Object,
    names, pod,
    tree::At,
    workload::{count, declaration, declared, first_ordinal, pod_template},
};

/// The fields that Knative adds to a pod's.
const KNATIVE: &[&str] =
    &["containerConcurrency", "idleTimeoutSeconds", "responseStartTimeoutSeconds", "timeoutSeconds"];

/// The ports of the container that Knative adds to each pod, and through which every request passes.
const QUEUE_PROXY: &[(&str, u16)] = &[
    ("http-queueadm", 8022),
    ("http-autometric", 9090),
    ("http-usermetric", 9091),
    ("queue-port", 8012),
    ("https-port", 8112),
];

/// Decodes a workload with `spec.replicas` and `spec.template`: an OpenKruise CloneSet or StatefulSet.
pub(crate) fn replicated(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec = object.get("spec");
    let spec = spec.as_ref().and_then(|at| cx.any_fields(at));
    let template = pod_template(cx, spec);
    Some(declaration(with_replicas(cx, object, spec, template)))
}

fn with_replicas(
    cx: &mut Context<'_>,
    object: &Object<'_>,
    spec: Option<Fields<'_>>,
    template: PodTemplate,
) -> DeclaredWorkload {
    let first = spec.map_or(0, |spec| first_ordinal(cx, &spec));
    let count = spec.and_then(|spec| count(cx, &spec, "replicas")).unwrap_or(1);
    declared(cx, object, Replicas::Count { first, count }, template)
}

/// Decodes an Argo Rollout. Without a template of its own, it uses that of the workload in `workloadRef`.
pub(crate) fn rollout(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec = object.get("spec");
    let spec = spec.as_ref().and_then(|at| cx.any_fields(at));
    let template = pod_template(cx, spec);
    let reference = spec.filter(|s| s.get("template").is_none()).and_then(|s| s.get("workloadRef"));
    let reference = reference.as_ref().and_then(|at| cx.any_fields(at));
    let template_of = reference.and_then(|reference| {
        let (kind, name) = (reference.string(cx, "kind")?, reference.string(cx, "name")?);
        Some(Workload { kind: cx.names.name(kind), name: cx.names.name(name) })
    });
    let workload = with_replicas(cx, object, spec, template);
    Some(declaration(DeclaredWorkload { template_of, ..workload }))
}

/// Decodes an OpenShift DeploymentConfig.
pub(crate) fn deployment_config(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec = object.get("spec");
    let spec = spec.as_ref().and_then(|at| cx.any_fields(at));
    let name = &*object.meta.key.name;
    let added = [("deploymentconfig", name.to_owned()), ("deployment", format!("{name}-1"))];
    let template = pod_template(cx, spec);
    let template = with_labels(cx, template, added);
    Some(declaration(with_replicas(cx, object, spec, template)))
}

/// Decodes an OpenKruise DaemonSet or BroadcastJob.
pub(crate) fn per_node(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let spec = object.get("spec");
    let spec = spec.as_ref().and_then(|at| cx.any_fields(at));
    let template = pod_template(cx, spec);
    Some(declaration(declared(cx, object, Replicas::PerNode, template)))
}

/// Decodes an OpenKruise AdvancedCronJob, which counts as one running job.
pub(crate) fn advanced_cron_job(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let broadcast = at(object, &["spec", "template", "broadcastJobTemplate", "spec"], cx, pod_template);
    let (template, replicas) = match broadcast {
        Some(template) => (template, Replicas::PerNode),
        None => {
            let template = at(object, &["spec", "template", "jobTemplate", "spec"], cx, pod_template);
            (template.unwrap_or_else(|| pod::template(cx, None)), Replicas::Count { first: 0, count: 1 })
        }
    };
    Some(declaration(declared(cx, object, replicas, template)))
}

/// Decodes the mapping at a path of an object, if it is there.
fn at<R>(
    object: &Object<'_>,
    path: &[&str],
    cx: &mut Context<'_>,
    decode: impl FnOnce(&mut Context<'_>, Option<Fields<'_>>) -> R,
) -> Option<R> {
    fn descend<R>(
        at: &At<'_>,
        path: &[&str],
        cx: &mut Context<'_>,
        decode: impl FnOnce(&mut Context<'_>, Option<Fields<'_>>) -> R,
    ) -> Option<R> {
        let fields = cx.any_fields(at)?;
        let Some((first, rest)) = path.split_first() else { return Some(decode(cx, Some(fields))) };
        descend(&fields.get(first)?, rest, cx, decode)
    }
    descend(object.fields.at, path, cx, decode)
}

/// Decodes a Knative Service, which counts as one pod of its first revision.
pub(crate) fn knative_service(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let name = &*object.meta.key.name;
    let template = at(object, &["spec"], cx, |cx, spec| {
        let at = spec.and_then(|s| s.get("template"));
        pod::template_with(cx, at.as_ref(), KNATIVE)
    });
    let template = template.unwrap_or_else(|| pod::template(cx, None));
    let revision = format!("{name}-00001");
    let mut added = vec![
        ("serving.knative.dev/configuration", name.to_owned()),
        ("serving.knative.dev/configurationGeneration", "1".to_owned()),
        ("serving.knative.dev/revision", revision.clone()),
        ("serving.knative.dev/service", name.to_owned()),
    ];
    if template.labels.get("app").is_none() {
        added.push(("app", revision));
    }
    let port = |(name, port): &(&str, u16)| ContainerPort {
        name: Some(cx.names.name(name)),
        protocol: Protocol::Tcp,
        port: *port,
        host_port: None,
    };
    // Knative renames the port of the user's container.
    let user = template.ports.first().map_or(8080, |p| p.port);
    let mut ports = vec![port(&("user-port", user))];
    ports.extend(QUEUE_PROXY.iter().map(port));
    let template = PodTemplate { ports: cx.names.ports(&ports), ..template };
    let template = with_labels(cx, template, added);
    Some(declaration(declared(cx, object, Replicas::Count { first: 0, count: 1 }, template)))
}

/// Decodes a KubeVirt VirtualMachine, whose pod is there while it runs.
pub(crate) fn virtual_machine(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let stopped = at(object, &["spec"], cx, |cx, spec| spec.is_some_and(|spec| is_stopped(cx, spec)));
    let template = at(object, &["spec", "template"], cx, |cx, fields| machine(cx, fields, object));
    let count = u32::from(!stopped.unwrap_or(false));
    machines(cx, object, count, template)
}

fn is_stopped(cx: &mut Context<'_>, spec: Fields<'_>) -> bool {
    match spec.string(cx, "runStrategy") {
        Some(strategy) => strategy == "Halted",
        None => spec.get("running").is_some_and(|at| cx.bool(&at) == Some(false)),
    }
}

/// Decodes a KubeVirt VirtualMachineInstance.
pub(crate) fn virtual_machine_instance(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let template = machine(cx, Some(object.fields), object);
    machines(cx, object, 1, Some(template))
}

/// Decodes a KubeVirt VirtualMachineInstanceReplicaSet or VirtualMachinePool.
pub(crate) fn virtual_machines(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let path: &[&str] = match object.kind {
        "VirtualMachinePool" => &["spec", "virtualMachineTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    let count = at(object, &["spec"], cx, |cx, spec| count(cx, &spec?, "replicas")).flatten();
    let template = at(object, path, cx, |cx, fields| machine(cx, fields, object));
    machines(cx, object, count.unwrap_or(1), template)
}

fn machines(
    cx: &mut Context<'_>,
    object: &Object<'_>,
    count: u32,
    template: Option<PodTemplate>,
) -> Option<Declaration> {
    let template = template.unwrap_or_else(|| pod::template(cx, None));
    Some(declaration(declared(cx, object, Replicas::Count { first: 0, count }, template)))
}

/// The pod of a virtual machine: it has the labels of the machine, and the ports of its interfaces.
fn machine(cx: &mut Context<'_>, fields: Option<Fields<'_>>, object: &Object<'_>) -> PodTemplate {
    let metadata = fields.and_then(|f| f.get("metadata"));
    let labels = metadata.as_ref().and_then(|at| at.get("labels")).filter(|at| !at.is_null());
    let labels = labels.map(|at| cx.labels(&at)).unwrap_or_default();
    let mut ports = Vec::new();
    let interfaces = fields
        .and_then(|f| f.get("spec"))
        .as_ref()
        .and_then(|at| at.get("domain"))
        .as_ref()
        .and_then(|at| at.get("devices"))
        .as_ref()
        .and_then(|at| at.get("interfaces"))
        .map(|at| {
            cx.list(&at)
                .iter()
                .filter_map(|at| at.get("ports"))
                .flat_map(|at| interface_ports(cx, &at))
                .collect::<Vec<_>>()
        });
    ports.extend(interfaces.unwrap_or_default());
    let name = object.meta.key.name.to_string();
    let added = [("kubevirt.io", "virt-launcher".to_owned()), ("vm.kubevirt.io/name", name)];
    let template = pod::template(cx, None);
    with_labels(cx, PodTemplate { labels, ports: cx.names.ports(&ports), ..template }, added)
}

fn interface_ports(cx: &mut Context<'_>, at: &At<'_>) -> Vec<ContainerPort> {
    let mut ports = Vec::new();
    for at in cx.list(at) {
        let Some(fields) = cx.any_fields(&at) else { continue };
        let Some(number) = fields.get("port").and_then(|at| cx.int32(&at)) else { continue };
        let protocol = match fields.get("protocol") {
            Some(at) => crate::network_policy::protocol(cx, &at),
            None => Some(Protocol::Tcp),
        };
        let name = fields.string(cx, "name").filter(|n| !n.is_empty()).map(|n| cx.names.name(n));
        if let (Ok(port), Some(protocol)) = (u16::try_from(number), protocol) {
            ports.push(ContainerPort { name, protocol, port, host_port: None });
        }
    }
    ports
}

/// Adds the labels that a controller adds. A label value has at most 63 bytes; longer ones are left out.
fn with_labels(
    cx: &Context<'_>,
    template: PodTemplate,
    added: impl IntoIterator<Item = (&'static str, String)>,
) -> PodTemplate {
    let added = added.into_iter().filter(|(_, value)| names::label_value(value).is_empty());
    let added: Vec<_> = added.map(|(key, value)| (cx.names.name(key), cx.names.name(&value))).collect();
    let own = template.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
    PodTemplate { labels: own.chain(added).collect::<Labels>(), ..template }
}

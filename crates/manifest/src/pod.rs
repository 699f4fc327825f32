//! Pods and pod templates: labels, ports, node, and the addresses in the status.

use std::net::IpAddr;

use palisade_policy::{ContainerPort, Family, Labels, Phase, Pod};

use crate::{
    allow_source,
    cidr::parse_ip,
    declared::{Declaration, DeclaredPod, PodTemplate, TemplatePlaces},
    decode::{Context, Fields},
    diagnostic::Code,
    meta::{self, Object},
    names,
    network_policy::protocol,
    other_networks,
    tree::At,
};

/// Fields of `PodSpec` (Kubernetes 1.35).
const POD_SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
    "workloadRef",
];

/// Fields of `Container` (Kubernetes 1.35).
const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

const CONTAINER_PORT: &[&str] = &["containerPort", "hostIP", "hostPort", "name", "protocol"];

/// Decodes a Pod.
pub(crate) fn pod(cx: &mut Context<'_>, object: &Object<'_>) -> Option<Declaration> {
    let meta = &object.meta;
    other_networks::warn(cx, object.get("metadata").as_ref());
    let spec = object.get("spec");
    let template = pod_spec(cx, spec.as_ref(), meta.labels.clone(), &[]);
    let status_at = object.get("status");
    let status = status_at.as_ref().and_then(|at| cx.any_fields(at));
    let phase = status.and_then(|s| s.get("phase")).and_then(|at| phase(cx, &at));
    let addresses = status.map(|s| addresses(cx, &s)).unwrap_or_default();
    let from_cluster = cx.text.is_of_cluster();
    let has_none = from_cluster || phase.is_some_and(|p| p != Phase::Running && p != Phase::Unknown);
    let awaits_address = addresses.is_empty() && has_none;
    let pod = Pod {
        allow_source: allow_source::of_pod(cx, object),
        key: meta.key.clone(),
        labels: template.labels,
        addresses,
        node: template.node,
        host_network: template.host_network,
        phase: phase.unwrap_or_default(),
        ports: template.ports,
        created: meta.created,
        uid: meta.uid,
        workload: meta.owner.clone(),
    };
    let own_dns = template.own_dns;
    Some(Declaration::Pod(DeclaredPod { pod, own_dns, awaits_address, from_cluster }))
}

fn phase(cx: &mut Context<'_>, at: &At<'_>) -> Option<Phase> {
    match phase_named(cx.string(at)?) {
        Ok(phase) => phase,
        Err(message) => {
            cx.error(at, Code::Invalid, message);
            None
        }
    }
}

/// Parses a phase. An empty string is no phase.
pub(crate) fn phase_named(text: &str) -> Result<Option<Phase>, String> {
    Ok(Some(match text {
        "" => return Ok(None),
        "Pending" => Phase::Pending,
        "Running" => Phase::Running,
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        "Unknown" => Phase::Unknown,
        other => {
            return Err(format!(
                "Unsupported value: {other:?}: supported values: \"Pending\", \"Running\", \
                 \"Succeeded\", \"Failed\", \"Unknown\""
            ));
        }
    }))
}

/// Reads `podIPs`, or `podIP` if there is no list (A50). At most one address of each family.
fn addresses(cx: &mut Context<'_>, status: &Fields<'_>) -> Vec<IpAddr> {
    let list = status.get("podIPs");
    // An entry is `{ip: …}`.
    let mut out = Vec::new();
    for entry in list.iter().flat_map(|at| at.items()) {
        if let Some(ip) = entry.get("ip") {
            address(cx, &ip, &mut out);
        }
    }
    if out.is_empty()
        && let Some(ip) = status.get("podIP")
    {
        address(cx, &ip, &mut out);
    }
    out
}

fn address(cx: &mut Context<'_>, at: &At<'_>, out: &mut Vec<IpAddr>) {
    let Some(text) = cx.string(at) else { return };
    if let Err(message) = add_address(text, out) {
        cx.invalid(at, [message]);
    }
}

/// Adds an address of a pod's status. Fails if it is no IP address, or the second of its family. An empty string adds
/// nothing.
pub(crate) fn add_address(text: &str, out: &mut Vec<IpAddr>) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    let ip = parse_ip(text).ok_or("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")?;
    if out.iter().any(|o| Family::of(*o) == Family::of(ip)) {
        return Err("may specify no more than one IP for each IP family");
    }
    out.push(ip);
    Ok(())
}

/// Decodes a `PodTemplateSpec`.
pub(crate) fn template(cx: &mut Context<'_>, at: Option<&At<'_>>) -> PodTemplate {
    template_with(cx, at, &[])
}

/// Decodes a `PodTemplateSpec` whose `spec` has more fields.
pub(crate) fn template_with(cx: &mut Context<'_>, at: Option<&At<'_>>, more: &[&str]) -> PodTemplate {
    let fields = at.and_then(|at| cx.fields(at, &["metadata", "spec"]));
    let metadata = fields.and_then(|f| f.get("metadata"));
    other_networks::warn(cx, metadata.as_ref());
    let labels = metadata.as_ref().and_then(|at| cx.fields(at, meta::FIELDS)).and_then(|f| f.get("labels"));
    let place = |at: Option<&At<'_>>| at.map(|at| cx.origin(at));
    let places = TemplatePlaces {
        template: place(at),
        metadata: place(metadata.as_ref()),
        labels: place(labels.as_ref()),
    };
    let labels = labels.map(|at| cx.labels(&at)).unwrap_or_default();
    let spec = fields.and_then(|f| f.get("spec"));
    PodTemplate { places, ..pod_spec(cx, spec.as_ref(), labels, more) }
}

fn pod_spec(cx: &mut Context<'_>, at: Option<&At<'_>>, labels: Labels, more: &[&str]) -> PodTemplate {
    let Some(spec) = at.and_then(|at| cx.fields(at, &[POD_SPEC, more].concat())) else {
        let ports = cx.names.ports(&[]);
        return PodTemplate {
            labels,
            ports,
            host_network: false,
            node: None,
            own_dns: None,
            node_selector: Labels::default(),
            places: TemplatePlaces::default(),
        };
    };
    let mut ports = Vec::new();
    if let Some(list) = spec.get("containers") {
        for at in cx.list(&list) {
            container(cx, &at, false, &mut ports);
        }
    }
    if let Some(list) = spec.get("initContainers") {
        for at in cx.list(&list) {
            container(cx, &at, true, &mut ports);
        }
    }
    let node = spec.string(cx, "nodeName").filter(|n| !n.is_empty()).map(|n| cx.names.name(n));
    let node_selector = spec.get("nodeSelector").map(|at| cx.labels(&at)).unwrap_or_default();
    let host_network = spec.bool(cx, "hostNetwork");
    let own_dns = own_dns(cx, &spec);
    let (ports, places) = (cx.names.ports(&ports), TemplatePlaces::default());
    PodTemplate { labels, ports, host_network, node, own_dns, node_selector, places }
}

/// Returns the name servers of `dnsConfig` if `dnsPolicy` leaves out the DNS of the cluster: `Default` takes those of the
/// node too, which are not known.
fn own_dns(cx: &mut Context<'_>, spec: &Fields<'_>) -> Option<Vec<IpAddr>> {
    if !["None", "Default"].contains(&spec.string(cx, "dnsPolicy")?) {
        return None;
    }
    let config = spec.get("dnsConfig");
    let list = config.as_ref().and_then(|config| config.get("nameservers"));
    let servers = list.iter().flat_map(|at| at.items());
    Some(servers.filter_map(|at| parse_ip(cx.string(&at)?)).collect())
}

/// Adds a container's ports. Init containers count only if they keep running (G-9).
fn container(cx: &mut Context<'_>, at: &At<'_>, init: bool, out: &mut Vec<ContainerPort>) {
    let Some(fields) = cx.fields(at, CONTAINER) else { return };
    let keeps_running = keeps_running(init, fields.string(cx, "restartPolicy"));
    let Some(list) = fields.get("ports") else { return };
    for at in cx.list(&list) {
        if let Some(port) = container_port(cx, &at)
            && keeps_running
            && !out.contains(&port)
        {
            out.push(port);
        }
    }
}

/// Returns whether a container runs as long as its pod, so that its ports count (G-9).
pub(crate) fn keeps_running(init: bool, restart_policy: Option<&str>) -> bool {
    !init || restart_policy == Some("Always")
}

fn container_port(cx: &mut Context<'_>, at: &At<'_>) -> Option<ContainerPort> {
    let fields = cx.fields(at, CONTAINER_PORT)?;
    let Some(number_at) = fields.get("containerPort") else {
        cx.missing(at, "containerPort", Code::Required, "Required value");
        return None;
    };
    let number = cx.int32(&number_at)?;
    cx.invalid(&number_at, names::port_number(number.into()));
    let protocol = match fields.get("protocol") {
        Some(at) => protocol(cx, &at)?,
        None => palisade_policy::Protocol::Tcp,
    };
    let mut name = None;
    if let Some(name_at) = fields.get("name")
        && let Some(text) = cx.string(&name_at)
        && !text.is_empty()
    {
        cx.invalid(&name_at, names::port_name(text));
        name = Some(cx.names.name(text));
    }
    let host_port = host_port(cx, &fields);
    Some(ContainerPort { name, protocol, port: u16::try_from(number).ok()?, host_port })
}

/// Returns the `hostPort`. One whose `hostIP` is a loopback address is left out: it can be reached from the node alone.
fn host_port(cx: &mut Context<'_>, fields: &Fields<'_>) -> Option<u16> {
    let at = fields.get("hostPort")?;
    let number = cx.int32(&at)?;
    let address = fields.string(cx, "hostIP").and_then(parse_ip);
    if number == 0 || address.is_some_and(|ip| ip.is_loopback()) {
        return None;
    }
    cx.invalid(&at, names::port_number(number.into()));
    u16::try_from(number).ok()
}

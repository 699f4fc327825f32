//! Which objects we know, and what becomes of the others.

use crate::{
    cluster_wide::{self, Crd, cluster_wide_policy},
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    load::Counts,
    meta::{Meta, meta, provisional_name},
    network_policy::network_policy,
    node, overlay, pod,
    routes::{self, Known},
    service::service,
    tree::{At, Value},
    workload::workload,
};

/// How deep lists may hold lists. One level is what kubectl writes.
const LIST_DEPTH: usize = 4;

/// The fields of every object. A kind without a field of these says so itself.
const OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// The kinds that make up a cluster: group, version, kind, and whether they live in a namespace. Of a kind with several
/// versions the first is the one to recommend.
const KNOWN: &[(&str, &str, &str, bool)] = &[
    ("", "v1", "Namespace", false),
    ("", "v1", "Node", false),
    ("", "v1", "Pod", true),
    ("", "v1", "ReplicationController", true),
    ("", "v1", "Service", true),
    ("apps", "v1", "DaemonSet", true),
    ("apps", "v1", "Deployment", true),
    ("apps", "v1", "ReplicaSet", true),
    ("apps", "v1", "StatefulSet", true),
    ("batch", "v1", "CronJob", true),
    ("batch", "v1", "Job", true),
    ("networking.k8s.io", "v1", "NetworkPolicy", true),
    (cluster_wide::GROUP, "v1alpha1", "AdminNetworkPolicy", false),
    (cluster_wide::GROUP, "v1alpha1", "BaselineAdminNetworkPolicy", false),
    (cluster_wide::GROUP, "v1alpha2", "ClusterNetworkPolicy", false),
    (cluster_wide::GROUP, "v1beta1", "ClusterNetworkPolicy", false),
];

/// The group in which DaemonSet, Deployment, NetworkPolicy and ReplicaSet began. Gone since Kubernetes 1.16.
const FIRST_GROUP: &str = "extensions";

/// Groups of policies that would change verdicts, and that are not evaluated.
const OTHER_POLICY_GROUPS: &[&str] =
    &["policy.networking.k8s.io", "cilium.io", "crd.projectcalico.org", "projectcalico.org", "crd.antrea.io"];

/// Takes in the root of a document: an object or a list of objects.
pub(crate) struct Intake<'i> {
    pub(crate) gathered: &'i mut Gathered,
    pub(crate) counts: &'i mut Counts,
    pub(crate) default_namespace: &'i str,
}

impl Intake<'_> {
    /// Takes in what stands at `at`.
    pub(crate) fn root(&mut self, cx: &mut Context<'_>, at: &At<'_>) {
        self.value(cx, at, None, 0);
    }

    /// `implied` is the version and kind that a typed list gives its elements.
    fn value(&mut self, cx: &mut Context<'_>, at: &At<'_>, implied: Option<(&str, &str)>, depth: usize) {
        cx.object = None;
        cx.errors = 0;
        let Value::Mapping(_) = at.value() else {
            let message = format!("expected a Kubernetes object, found {}", article(at.json_type()));
            return cx.error(at, Code::NotAnObject, message);
        };
        let field = |name: &str| at.get(name).filter(|at| !at.is_null());
        let (kind_at, version_at) = (field("kind"), field("apiVersion"));
        let kind = match (&kind_at, implied) {
            (Some(at), _) => cx.string(at),
            (None, Some((_, kind))) => Some(kind),
            (None, None) => None,
        };
        let version = match (&version_at, implied) {
            (Some(at), _) => cx.string(at),
            (None, Some((version, _))) => Some(version),
            (None, None) => None,
        };
        let (Some(kind), Some(version)) = (kind.filter(|k| !k.is_empty()), version.filter(|v| !v.is_empty()))
        else {
            if cx.errors == 0 {
                missing(cx, at, kind.is_none_or(str::is_empty), version.is_none_or(str::is_empty));
            }
            return;
        };
        if let (Some(element), Some(items)) = (kind.strip_suffix("List"), field("items")) {
            return self.list(cx, &items, (version, element), depth);
        }
        self.object(cx, at, version, kind);
    }

    fn list(&mut self, cx: &mut Context<'_>, items: &At<'_>, implied: (&str, &str), depth: usize) {
        if depth >= LIST_DEPTH {
            return cx.error(
                items,
                Code::NotAnObject,
                format!("lists inside lists, more than {LIST_DEPTH} deep"),
            );
        }
        // `List` holds anything; `PodList` holds pods, whose kind the API server leaves out.
        let implied = (!implied.1.is_empty()).then_some(implied);
        for item in cx.list(items) {
            self.value(cx, &item.as_root(), implied, depth + 1);
        }
    }

    fn object(&mut self, cx: &mut Context<'_>, at: &At<'_>, version: &str, kind: &str) {
        let (group, number) = version.split_once('/').unwrap_or(("", version));
        let fits = |k: &&(&str, &str, &str, bool)| {
            k.2 == kind && (k.0 == group || (group == FIRST_GROUP && !k.0.is_empty()))
        };
        let known = KNOWN.iter().filter(fits).find(|k| k.1 == number).or_else(|| KNOWN.iter().find(fits));
        let Some(&(known_group, known_number, kind, namespaced)) = known else {
            return match routes::known(group, number, kind) {
                Known::Read => self.taken_in(cx, at, (number, kind), true),
                Known::OtherVersion(read) => self.route_not_read(cx, at, version, kind, &read),
                Known::No => self.other(cx, at, group, version, kind),
            };
        };
        let kind_name = cx.names.name(kind);
        if (known_group, known_number) != (group, number) {
            cx.object = Some(provisional_name(&kind_name, at));
            let served = if known_group.is_empty() {
                known_number.to_owned()
            } else {
                format!("{known_group}/{known_number}")
            };
            let place = at.get("apiVersion").unwrap_or(*at);
            let message = format!("no matches for kind \"{kind}\" in version \"{version}\"");
            let diagnostic = Diagnostic::new(Severity::Error, Code::UnknownVersion, message);
            return cx.report(&place, diagnostic.with_help(format!("use apiVersion: {served}")));
        }
        self.taken_in(cx, at, (number, kind), namespaced);
    }

    /// Decodes an object of a kind and version that is read.
    fn taken_in(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        (number, kind): (&str, &str),
        namespaced: bool,
    ) {
        let kind_name = cx.names.name(kind);
        cx.object = Some(kind.to_owned());
        let fields = cx.fields(at, OBJECT);
        let Some(fields) = fields else { return };
        let Some(meta) = meta(cx, &fields, kind, namespaced.then_some(self.default_namespace)) else {
            return;
        };
        self.known(cx, &fields, (number, kind), &meta);
        if cx.errors == 0 {
            self.gathered.note(cx, at, &kind_name, &meta.key, &meta.source);
            *self.counts.objects.entry(kind.to_owned()).or_default() += 1;
        } else {
            *self.counts.rejected.entry(kind.to_owned()).or_default() += 1;
        }
    }

    /// Decodes an object of a known kind, and keeps it if nothing was wrong with it.
    fn known(
        &mut self,
        cx: &mut Context<'_>,
        object: &Fields<'_>,
        (version, kind): (&str, &str),
        meta: &Meta,
    ) {
        let all = &mut *self.gathered;
        if let Some(crd) = Crd::of(kind, version, cx.channel, cx.admission) {
            if let Some(policy) = cluster_wide_policy(cx, object, crd, meta) {
                all.policies.insert(policy.key.clone(), policy);
            }
            return;
        }
        match kind {
            "Namespace" => {
                let namespace = node::namespace(meta);
                if cx.errors == 0 {
                    all.namespaces.insert(meta.key.name.clone(), namespace);
                }
            }
            "Node" => {
                let mut node = node::node(cx, object, meta);
                if cx.errors == 0 {
                    overlay::node(&mut node, all, cx.text.is_of_cluster());
                    all.nodes.insert(meta.key.name.clone(), node);
                }
            }
            "Pod" => {
                let mut pod = pod::pod(cx, object, meta);
                if cx.errors == 0 {
                    overlay::pod(&mut pod, all);
                    all.pods.insert(meta.key.clone(), pod);
                }
            }
            "Service" => {
                let mut service = service(cx, object, meta);
                if cx.errors == 0 {
                    overlay::service(&mut service, all, cx.text.is_of_cluster());
                    all.services.insert(meta.key.clone(), service);
                }
            }
            "Gateway" => {
                let gateway = routes::gateway(cx, object);
                if cx.errors == 0 {
                    all.gateways.insert(meta.key.clone(), gateway);
                }
            }
            "ReferenceGrant" => {
                let grant = routes::grant(cx, object);
                if cx.errors == 0 {
                    all.grants.insert(meta.key.clone(), grant);
                }
            }
            "Ingress" | "Route" | "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute" => {
                let route = match kind {
                    "Ingress" => routes::ingress(cx, object, meta),
                    "Route" => routes::openshift_route(cx, object, meta),
                    _ => routes::gateway_route(cx, object, kind, meta),
                };
                if cx.errors == 0 {
                    all.routes.insert((cx.names.name(kind), meta.key.clone()), route);
                }
            }
            "NetworkPolicy" => {
                let policy = network_policy(cx, object, meta);
                if cx.errors == 0 {
                    all.policies.insert(policy.key.clone(), policy);
                }
            }
            _ => {
                let workload = workload(cx, object, kind, meta);
                if let Some(workload) = workload.filter(|_| cx.errors == 0) {
                    all.workloads.insert((workload.kind.clone(), meta.key.clone()), workload);
                }
            }
        }
    }

    /// Something that leads in through a controller, in a version that isn't read: no policy, so that nothing is wrong
    /// with verdicts, but what it leads to isn't shown.
    fn route_not_read(&mut self, cx: &mut Context<'_>, at: &At<'_>, version: &str, kind: &str, read: &str) {
        *self.counts.passed_over.entry(kind.to_owned()).or_default() += 1;
        let kind_name = cx.names.name(kind);
        cx.object = Some(provisional_name(&kind_name, at));
        let place = at.get("apiVersion").unwrap_or(*at);
        let message = format!("{kind} of {version} is not read: what it leads to is not shown");
        let diagnostic = Diagnostic::new(Severity::Warning, Code::NotEvaluated, message);
        cx.report(&place, diagnostic.with_help(format!("use apiVersion: {read}")));
    }

    /// A kind that isn't part of a cluster as policies see it: counted and passed over, unless it is a policy.
    fn other(&mut self, cx: &mut Context<'_>, at: &At<'_>, group: &str, version: &str, kind: &str) {
        *self.counts.passed_over.entry(kind.to_owned()).or_default() += 1;
        if OTHER_POLICY_GROUPS.contains(&group) && kind.ends_with("NetworkPolicy") {
            let kind_name = cx.names.name(kind);
            cx.object = Some(provisional_name(&kind_name, at));
            let place = at.get("kind").unwrap_or(*at);
            let message = format!(
                "policies of {version} are not evaluated: verdicts are given as if it were not there"
            );
            cx.warn(&place, Code::NotEvaluated, message);
        }
    }
}

fn missing(cx: &mut Context<'_>, at: &At<'_>, kind: bool, version: bool) {
    let message = match (version, kind) {
        (true, true) => "not a Kubernetes object: apiVersion and kind are not set",
        (false, true) => "not a Kubernetes object: kind is not set",
        _ => "not a Kubernetes object: apiVersion is not set",
    };
    let diagnostic = Diagnostic::new(Severity::Error, Code::NotAnObject, message);
    let span = at.span();
    cx.report_span(span.start..span.start, diagnostic);
}

fn article(noun: &str) -> String {
    match noun {
        "null" => noun.to_owned(),
        "array" | "object" => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}

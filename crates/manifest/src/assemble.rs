//! Makes one cluster of what the documents declare: resolves owners, expands workloads into pods, adds missing
//! namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_names::API_SERVER;
use palisade_policy::{
    Cluster, Interner, Labels, MODE_KEY, Mode, Name, Namespace, Node, ObjectKey, Phase, Pod, Workload,
};

use crate::{
    addresses::AddressEvidence,
    cluster_wide::warn_about_undefined_order,
    declared::{DeclaredEndpoints, DeclaredWorkload, Replicas},
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    loaded::{Counts, Loaded, WorkloadLabels},
    missing_namespaces::warn_about_missing_namespaces,
    options::LoadOptions,
    overlay,
    refused::Substitute,
    routes,
    shared_addresses::warn_about_shared_addresses,
    workload::{POD_TEMPLATE_HASH, added_labels, deployment_of},
};

/// The longest chain of owners that is followed. Kubernetes has two owners at most (Pod, ReplicaSet, Deployment). Twice
/// as many also covers custom resources, and ends a cycle.
const OWNERS: usize = 4;

/// The kinds that make pods again when those of the last run have finished.
const RUN_AGAIN: [&str; 2] = ["CronJob", "AdvancedCronJob"];

/// Makes the cluster.
pub(crate) fn assemble(
    mut gathered: Gathered,
    counts: Counts,
    options: &LoadOptions,
    names: &Interner,
    found: &mut Vec<Diagnostic>,
) -> Loaded {
    let mut loaded = Loaded { counts, ..Loaded::default() };
    let mut evidence =
        AddressEvidence { pod_cidrs: std::mem::take(&mut gathered.pod_cidrs), ..AddressEvidence::default() };
    let mut workloads = std::mem::take(&mut gathered.workloads);
    use_referenced_templates(&mut workloads, found);
    for (key, declared) in std::mem::take(&mut gathered.pods) {
        let (mut pod, mut own_dns) = (declared.pod, declared.own_dns);
        let root = root_workload(&workloads, &pod, names);
        if declared.from_cluster
            && let Some(workload) =
                self::declared(&workloads, &key.namespace, &root).filter(|w| !w.from_cluster)
        {
            if workload.replicas == (Replicas::Count { first: 0, count: 0 }) {
                continue;
            }
            overlay::roll_out(&mut pod, workload);
            own_dns.clone_from(&workload.template.own_dns);
        }
        if declared.awaits_address {
            evidence.awaiting.insert(key.clone());
        }
        pod.workload = Some(root);
        loaded.own_dns.extend(own_dns.map(|servers| (key, servers)));
        loaded.cluster.pods.insert(pod);
    }
    let real: BTreeSet<(Name, Workload)> = loaded
        .cluster
        .pods
        .values()
        .filter(|pod| !has_finished_a_run(pod))
        .filter_map(|p| Some((p.key.namespace.clone(), p.workload.clone()?)))
        .collect();
    let mut maker = PodMaker {
        cluster: &mut loaded.cluster,
        own_dns: &mut loaded.own_dns,
        nodes: &gathered.nodes,
        left: options.max_made_pods,
        names,
    };
    for workload in workloads.values() {
        let namespace = &workload.key.namespace;
        if workload.owner.as_ref().is_some_and(|o| declared(&workloads, namespace, o).is_some()) {
            continue;
        }
        let root = workload.owner.clone().unwrap_or_else(|| workload.identity());
        let identity = (namespace.clone(), root.clone());
        loaded.workloads.entry(identity.clone()).or_default();
        loaded.workload_labels.insert((namespace.clone(), workload.identity()), declared_labels(workload));
        if !workload.from_cluster
            && !real.contains(&identity)
            && let Err(diagnostic) = maker.pods_of(workload, &root)
        {
            found.push(*diagnostic);
        }
    }
    for pod in loaded.cluster.pods.values() {
        if let Some(workload) = &pod.workload {
            let identity = (pod.key.namespace.clone(), workload.clone());
            loaded.workloads.entry(identity).or_default().push(pod.key.clone());
        }
    }
    loaded.cluster.nodes = std::mem::take(&mut gathered.nodes);
    for (key, declared) in std::mem::take(&mut gathered.services) {
        evidence.service_families.extend(declared.families);
        loaded.cluster.services.insert(key, declared.service);
    }
    add_endpoints(&mut loaded.cluster, std::mem::take(&mut gathered.endpoints).into_values());
    warn_about_undefined_order(&gathered.policies, found);
    loaded.cluster.namespaces = std::mem::take(&mut gathered.namespaces);
    let namespaces = workloads.keys().map(|(_, key)| key.namespace.clone());
    warn_about_missing_namespaces(
        &loaded.cluster,
        &gathered.policies,
        namespaces,
        &gathered.origins,
        options,
        found,
    );
    loaded.cluster.policies =
        std::mem::take(&mut gathered.policies).into_iter().map(|(k, p)| (k, Arc::new(p))).collect();
    add_refused(&mut loaded, std::mem::take(&mut gathered.refused));
    add_undeclared_namespaces(&mut loaded.cluster);
    resolve_modes(&mut loaded.cluster);
    loaded.routes = routes::resolve(&mut gathered, &loaded.cluster, found);
    warn_about_shared_addresses(&loaded.cluster, &gathered.origins, found);
    loaded.ignored_rules = gathered.ignored_rules;
    loaded.origins = gathered.origins;
    loaded.evidence = evidence;
    loaded.label_origins = gathered.label_origins;
    loaded.pod_makers = gathered.pod_makers;
    loaded.callers = gathered.callers;
    loaded.references = gathered.references.join();
    loaded.service_labels = gathered.service_labels;
    loaded
}

/// Whether a pod is left from a run that is over, of a workload that runs again.
fn has_finished_a_run(pod: &Pod) -> bool {
    let runs_again = |workload: &Workload| RUN_AGAIN.contains(&&*workload.kind);
    matches!(pod.phase, Phase::Succeeded | Phase::Failed) && pod.workload.as_ref().is_some_and(runs_again)
}

/// Gives workloads that refer to the template of another its template.
fn use_referenced_templates(
    workloads: &mut BTreeMap<(Name, ObjectKey), DeclaredWorkload>,
    found: &mut Vec<Diagnostic>,
) {
    let mut templates = Vec::new();
    for (key, workload) in &*workloads {
        let Some(of) = &workload.template_of else { continue };
        match declared(workloads, &workload.key.namespace, of) {
            Some(referenced) => templates.push((key.clone(), referenced.template.clone())),
            None => found.push(Diagnostic {
                origin: Some(workload.origin.clone()).filter(|at| at.line().is_some()),
                object: Some(format!("{} {}", workload.kind, workload.key)),
                path: Some("spec.workloadRef".to_owned()),
                ..Diagnostic::new(
                    Severity::Warning,
                    Code::NotEvaluated,
                    format!("there is no {} {}: its pods are without labels and ports", of.kind, of.name),
                )
            }),
        }
    }
    for (key, template) in templates {
        if let Some(workload) = workloads.get_mut(&key) {
            workload.template = template;
        }
    }
}

fn declared_labels(workload: &DeclaredWorkload) -> WorkloadLabels {
    let places = workload.template.places.clone();
    WorkloadLabels {
        selector: workload.selector.clone(),
        object: workload.labels.clone(),
        jobs: workload.job_labels.clone(),
        template: workload.template.labels.clone(),
        template_origin: places.template,
        metadata_origin: places.metadata,
        labels_origin: places.labels,
    }
}

fn declared<'w>(
    workloads: &'w BTreeMap<(Name, ObjectKey), DeclaredWorkload>,
    namespace: &Name,
    workload: &Workload,
) -> Option<&'w DeclaredWorkload> {
    let key = ObjectKey { namespace: namespace.clone(), name: workload.name.clone() };
    workloads.get(&(workload.kind.clone(), key))
}

/// The workload that a pod belongs to: its last known owner, or the pod itself.
fn root_workload(
    workloads: &BTreeMap<(Name, ObjectKey), DeclaredWorkload>,
    pod: &Pod,
    names: &Interner,
) -> Workload {
    let Some(mut owner) = pod.workload.clone() else {
        return Workload { kind: names.name("Pod"), name: pod.key.name.clone() };
    };
    for _ in 0..OWNERS {
        match declared(workloads, &pod.key.namespace, &owner).and_then(|w| w.owner.clone()) {
            Some(above) => owner = above,
            None => break,
        }
    }
    // `kubectl get pods` doesn't return the ReplicaSet, but its name contains the Deployment's.
    if declared(workloads, &pod.key.namespace, &owner).is_none()
        && let Some(name) = deployment_of(&owner.kind, &owner.name, pod.labels.get(POD_TEMPLATE_HASH))
    {
        return Workload { kind: names.name("Deployment"), name: names.name(name) };
    }
    owner
}

/// Makes up the pods of workloads that have no real pod.
struct PodMaker<'m> {
    cluster: &'m mut Cluster,
    /// As in [`Loaded`].
    own_dns: &'m mut BTreeMap<ObjectKey, Vec<IpAddr>>,
    nodes: &'m BTreeMap<Name, Node>,
    left: u32,
    names: &'m Interner,
}

impl PodMaker<'_> {
    fn pods_of(&mut self, workload: &DeclaredWorkload, root: &Workload) -> Result<(), Box<Diagnostic>> {
        let (first, places) = match workload.replicas {
            Replicas::Count { first, count } => (first, Placement::Unassigned(count)),
            Replicas::PerNode => (0, self.nodes_of(workload)),
        };
        let count = places.count();
        if count > self.left {
            return Err(Box::new(Diagnostic {
                origin: Some(workload.origin.clone()),
                object: Some(format!("{} {}", workload.kind, workload.key)),
                path: Some("spec.replicas".to_owned()),
                help: Some("reduce the number, or raise the limit".to_owned()),
                ..Diagnostic::new(
                    Severity::Error,
                    Code::TooLarge,
                    format!("would make {count} pods, but only {} more are allowed; none is made", self.left),
                )
            }));
        }
        self.left -= count;
        for n in 0..count {
            self.pod(workload, root, first.saturating_add(n), places.node(n));
        }
        Ok(())
    }

    /// The nodes of a DaemonSet. Taints are ignored, since DaemonSets tolerate most of them.
    fn nodes_of(&self, workload: &DeclaredWorkload) -> Placement {
        if self.nodes.is_empty() {
            return Placement::Unassigned(1);
        }
        let node_selector = &workload.template.node_selector;
        let fits = |node: &&Node| {
            node_selector.iter().all(|(k, v)| {
                // The kubelet sets this label to the host name, which nearly always is the node's name.
                let value = node.labels.get(k).or((&**k == "kubernetes.io/hostname").then_some(&*node.name));
                value == Some(&**v)
            }) && workload.template.node.as_ref().is_none_or(|n| *n == node.name)
        };
        Placement::Nodes(self.nodes.values().filter(fits).map(|n| n.name.clone()).collect())
    }

    fn pod(&mut self, workload: &DeclaredWorkload, root: &Workload, n: u32, node: Option<Name>) {
        let mut name = format!("{}-{n}", workload.key.name);
        // The name may be taken by a pod of another workload.
        while self.cluster.pods.contains_key(&ObjectKey::new(workload.key.namespace.clone(), name.as_str())) {
            name.push_str("-x");
        }
        let template = &workload.template;
        let added = added_labels(workload, n, &name);
        let labels = if added.is_empty() {
            template.labels.clone()
        } else {
            let declared = template.labels.iter().map(|(k, v)| (k.clone(), v.clone()));
            let added: Vec<_> = added.iter().map(|(k, v)| (self.names.name(k), self.names.name(v))).collect();
            declared.chain(added).collect::<Labels>()
        };
        let key = ObjectKey { namespace: workload.key.namespace.clone(), name: self.names.name(&name) };
        if let Some(servers) = &template.own_dns {
            self.own_dns.insert(key.clone(), servers.clone());
        }
        let pod = Pod {
            key,
            labels,
            addresses: Vec::new(),
            node: node.or_else(|| template.node.clone()),
            host_network: template.host_network,
            phase: Phase::Running,
            ports: template.ports.clone(),
            created: workload.created,
            uid: palisade_policy::Uid::UNKNOWN,
            workload: Some(root.clone()),
            allow_source: palisade_policy::AnnotatedSources::default(),
        };
        self.cluster.pods.insert(pod);
    }
}

/// The nodes on which the pods of a workload run.
enum Placement {
    Unassigned(u32),
    Nodes(Vec<Name>),
}

impl Placement {
    fn count(&self) -> u32 {
        match self {
            Self::Unassigned(count) => *count,
            Self::Nodes(nodes) => nodes.len() as u32,
        }
    }

    fn node(&self, n: u32) -> Option<Name> {
        match self {
            Self::Unassigned(_) => None,
            Self::Nodes(nodes) => nodes.get(n as usize).cloned(),
        }
    }
}

/// Adds the endpoints of services without selector. An EndpointSlice of a service that is not in the input says nothing
/// about its ports, so it is left out; only those of the API server's service are known.
fn add_endpoints(cluster: &mut Cluster, declared: impl Iterator<Item = DeclaredEndpoints>) {
    for DeclaredEndpoints { service, endpoints } in declared {
        if *service.namespace == *API_SERVER.0 && *service.name == *API_SERVER.1 {
            cluster.services.entry(service.clone()).or_insert_with(palisade_names::api_server);
        }
        let found = cluster.services.get_mut(&service);
        let found = found.filter(|s| s.selector.is_none() && s.access.external_name.is_none());
        if let Some(found) = found {
            // The control plane mirrors an Endpoints object to an EndpointSlice, so the same may come twice.
            for one in endpoints {
                if !found.endpoints.contains(&one) {
                    found.endpoints.push(one);
                }
            }
        }
    }
}

/// Adds the namespaces that objects are in and that aren't declared, with their name label (SEMANTICS A13).
fn add_undeclared_namespaces(cluster: &mut Cluster) {
    let pods = cluster.pods.keys().chain(cluster.services.keys()).map(|k| &k.namespace);
    let policies = cluster.policies.keys().map(|k| &k.namespace);
    let used: BTreeSet<Name> = pods.chain(policies).filter(|n| !n.is_empty()).cloned().collect();
    for name in used {
        cluster.namespaces.entry(name.clone()).or_insert_with(|| Namespace::new(name, &Labels::default()));
    }
}

/// Sets the mode of each policy for which the label of its namespace does, so that parts of the cluster are decided alike.
fn resolve_modes(cluster: &mut Cluster) {
    for policy in cluster.policies.values_mut().filter(|policy| policy.mode.is_none()) {
        let namespace = cluster.namespaces.get(&policy.key.namespace);
        if let Some(value) = namespace.and_then(|namespace| namespace.labels.get(MODE_KEY)) {
            Arc::make_mut(policy).mode = Some(Mode::of_value(value));
        }
    }
}

/// Adds what stands for refused policies, beside a valid policy of the same name.
fn add_refused(loaded: &mut Loaded, refused: Vec<Substitute>) {
    for (n, Substitute { mut refused, mut policy }) in refused.into_iter().enumerate() {
        if loaded.cluster.policies.contains_key(&policy.key) {
            policy.key.name = format!("{} (refused document {})", policy.key.name, n + 1).into();
            refused.key = policy.key.clone();
        }
        // An answer must not show as open what such a policy should isolate.
        policy.mode = Some(Mode::Enforce);
        loaded.cluster.policies.insert(policy.key.clone(), Arc::new(policy));
        loaded.refused.push(refused);
    }
}

//! Everything that the documents declare, before it becomes one cluster.

use std::collections::BTreeMap;

use ipnet::IpNet;
use palisade_policy::{Direction, Labels, Name, Namespace, Node, ObjectKey, Origin, Policy, PolicyKey, Rule};

use crate::{
    callers::Caller,
    declared::{
        Declaration, DeclaredEndpoints, DeclaredNode, DeclaredPod, DeclaredRoute, DeclaredService,
        DeclaredWorkload, Gateway, ReferenceGrant,
    },
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    overlay,
    pod_makers::PodMakers,
    references::ReadReferences,
    refused::Substitute,
    tree::At,
};

/// The objects read so far. Of two objects with the same identity, the later one.
#[derive(Default, Debug)]
pub(crate) struct Gathered {
    pub(crate) namespaces: BTreeMap<Name, Namespace>,
    pub(crate) nodes: BTreeMap<Name, Node>,
    /// The ranges of the pods of each node that has any.
    pub(crate) pod_cidrs: BTreeMap<Name, Vec<IpNet>>,
    pub(crate) pods: BTreeMap<ObjectKey, DeclaredPod>,
    pub(crate) services: BTreeMap<ObjectKey, DeclaredService>,
    /// By kind and key.
    pub(crate) endpoints: BTreeMap<(Name, ObjectKey), DeclaredEndpoints>,
    /// By kind and key.
    pub(crate) workloads: BTreeMap<(Name, ObjectKey), DeclaredWorkload>,
    pub(crate) policies: BTreeMap<PolicyKey, Policy>,
    /// The rules for directions to which a policy doesn't apply.
    pub(crate) ignored_rules: BTreeMap<(PolicyKey, Direction), Vec<Rule>>,
    /// By kind and key.
    pub(crate) routes: BTreeMap<(Name, ObjectKey), DeclaredRoute>,
    pub(crate) gateways: BTreeMap<ObjectKey, Gateway>,
    pub(crate) grants: BTreeMap<ObjectKey, ReferenceGrant>,
    /// Where each object begins, for duplicates and for later messages.
    pub(crate) origins: BTreeMap<(Name, ObjectKey), Origin>,
    /// Where the labels of namespaces, nodes, pods and pod templates begin.
    pub(crate) label_origins: BTreeMap<(Name, ObjectKey), Origin>,
    /// Objects whose controllers make pods that no document describes.
    pub(crate) pod_makers: PodMakers,
    /// Objects that say who connects to pods.
    pub(crate) callers: Vec<Caller>,
    /// The labels of Services, which no policy matches.
    pub(crate) service_labels: BTreeMap<ObjectKey, Labels>,
    /// What the settings of workloads say, if it is read.
    pub(crate) references: ReadReferences,
    /// Policies that the API server would refuse.
    pub(crate) refused: Vec<Substitute>,
}

impl Gathered {
    /// Adds an object. An object of a file keeps the properties of the replaced object that only the cluster can provide.
    pub(crate) fn add(&mut self, kind: &Name, key: &ObjectKey, declaration: Declaration, from_cluster: bool) {
        match declaration {
            Declaration::Namespace(namespace) => {
                self.namespaces.insert(key.name.clone(), namespace);
            }
            Declaration::Node(DeclaredNode { mut node, pod_cidrs }) => {
                overlay::node(&mut node, self.nodes.get(&key.name), from_cluster);
                self.nodes.insert(key.name.clone(), node);
                // Only a cluster assigns them, so a manifest of the node rarely has them.
                if !pod_cidrs.is_empty() {
                    self.pod_cidrs.insert(key.name.clone(), pod_cidrs);
                }
            }
            Declaration::Pod(mut pod) => {
                overlay::pod(&mut pod, self.pods.get(key));
                self.pods.insert(key.clone(), pod);
            }
            Declaration::Service(mut service) => {
                overlay::service(&mut service, self.services.get(key), from_cluster);
                self.services.insert(key.clone(), service);
            }
            Declaration::Endpoints(endpoints) => {
                self.endpoints.insert((kind.clone(), key.clone()), endpoints);
            }
            Declaration::Workload(workload) => {
                self.workloads.insert((kind.clone(), key.clone()), *workload);
            }
            Declaration::Policy(policy, ignored) => {
                for direction in Direction::BOTH {
                    self.ignored_rules.remove(&(policy.key.clone(), direction));
                }
                let with_key = |(direction, rules)| ((policy.key.clone(), direction), rules);
                self.ignored_rules.extend(ignored.into_iter().map(with_key));
                self.policies.insert(policy.key.clone(), *policy);
            }
            Declaration::Route(route) => {
                self.routes.insert((kind.clone(), key.clone()), route);
            }
            Declaration::Gateway(gateway) => {
                self.gateways.insert(key.clone(), gateway);
            }
            Declaration::ReferenceGrant(grant) => {
                self.grants.insert(key.clone(), grant);
            }
        }
    }

    /// Records where an object begins, and warns if the same object was read before.
    pub(crate) fn record_origin(
        &mut self,
        cx: &mut Context<'_>,
        at: &At<'_>,
        kind: &Name,
        key: &ObjectKey,
        origin: &Origin,
    ) {
        if let Some(labels) = labels_origin(cx, at, kind) {
            self.label_origins.insert((kind.clone(), key.clone()), labels);
        }
        let Some(before) = self.origins.insert((kind.clone(), key.clone()), origin.clone()) else { return };
        // A file may replace an object of the cluster.
        if before.line().is_none() && origin.line().is_some() {
            return;
        }
        let message = format!("is already defined at {before}; the later definition is used");
        let diagnostic = Diagnostic::new(Severity::Warning, Code::DuplicateObject, message);
        // The excerpt shows only the first line of the object.
        let span = at.span();
        cx.report_span(span.start..span.start, diagnostic);
    }
}

/// Returns where the labels that policies see begin: those of the object, or of its pod template. Objects of a cluster
/// have no lines.
fn labels_origin(cx: &Context<'_>, at: &At<'_>, kind: &str) -> Option<Origin> {
    let path: &[&str] = match kind {
        "Namespace" | "Node" | "Pod" => &["metadata", "labels"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "metadata", "labels"],
        _ => &["spec", "template", "metadata", "labels"],
    };
    fn below(cx: &Context<'_>, at: &At<'_>, path: &[&str]) -> Option<Origin> {
        match path {
            [] => Some(cx.origin(at)),
            [key, rest @ ..] => below(cx, &at.get(key)?, rest),
        }
    }
    if cx.text.is_of_cluster() { None } else { below(cx, at, path) }
}

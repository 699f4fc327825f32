//! What the tests apply.

use palisade_cluster_tests::world::ACCOUNT;

/// A namespace with labels, as `key: value` separated by commas.
pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A pod that is bound to a node already, since there is no scheduler.
pub(crate) fn pod(key: &str, node: &str, labels: &str) -> String {
    pod_at(key, node, labels, "")
}

/// The same at given addresses, separated by commas; none: the lab chooses.
pub(crate) fn pod_at(key: &str, node: &str, labels: &str, addresses: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    let annotations = match addresses {
        "" => String::new(),
        some => format!("lab.palisade.dev/addresses: '{some}'"),
    };
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, annotations: {{{annotations}}}}}
spec:
  nodeName: {node}
  containers:
  - name: main
    image: example.com/none
    ports: [{{name: web, containerPort: 80}}, {{name: dns, containerPort: 53, protocol: UDP}}]
"
    )
}

/// A NetworkPolicy, its spec in YAML's flow style.
pub(crate) fn policy(key: &str, spec: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The namespace, service account and rights of the agents; `rules` are those of the ClusterRole.
pub(crate) fn account(rules: &str) -> String {
    let (namespace, account) = ACCOUNT;
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {account}}}
rules:
{rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {account}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {account}}}
subjects: [{{kind: ServiceAccount, name: {account}, namespace: {namespace}}}]
"
    )
}

/// What an agent reads.
pub(crate) const READING: &str = "\
- {apiGroups: [''], resources: [pods, namespaces, nodes], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, watch]}
- apiGroups: [policy.networking.k8s.io]
  resources: [clusternetworkpolicies, adminnetworkpolicies, baselineadminnetworkpolicies]
  verbs: [get, list, watch]
";

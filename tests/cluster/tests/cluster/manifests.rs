//! Manifests of the tests.

/// A policy with `domainNames`, which are valid but not enforced by agents that don't learn addresses.
pub(crate) const BY_NAME: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: by-name}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {matchLabels: {team: shop}}}
  egress:
  - {name: vendor, action: Accept, to: [{domainNames: [vendor.example.com]}]}
";

/// A namespace with labels, as `key: value` separated by commas.
pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A pod that is bound to a node, since there is no scheduler.
pub(crate) fn pod(key: &str, node: &str, labels: &str) -> String {
    pod_at(key, node, labels, "")
}

/// A pod with addresses, separated by commas. If they are empty the lab assigns them.
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

/// Two namespaces with three pods and one pod, on both nodes.
pub(crate) fn shop() -> String {
    [
        namespace("shop", "team: shop"),
        namespace("other", "team: other"),
        pod("shop/front", "w1", "app: front"),
        pod("shop/back", "w2", "app: back"),
        pod("shop/near", "w1", "app: near"),
        pod("other/guest", "w2", "app: guest"),
    ]
    .concat()
}

/// Allows only pods with this label to connect to shop/back, on port 80.
pub(crate) fn back_from(app: &str) -> String {
    policy(
        "shop/back",
        &format!(
            "{{podSelector: {{matchLabels: {{app: back}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}], \
             ports: [{{port: 80}}]}}]}}"
        ),
    )
}

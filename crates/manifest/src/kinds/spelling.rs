//! Which kind was meant by one that doesn't exist.
//!
//! A policy in `kind: networkpolicy` is refused by the API server. If it were passed over, everything that it should
//! isolate would be shown as open. But a custom resource may have any name in a group of its own, so a kind counts as
//! misspelled only if no CustomResourceDefinition can have it, or hardly would:
//! * Its group is one of those that are read, and its name is nearly that of a kind.
//! * Its group is reserved for Kubernetes or nearly one of those that are read, and its name is nearly that of a kind.
//!
//! `NetworkPolicy` of `crd.projectcalico.org` and `Deployment` of `example.com` are kinds of their own.

use super::{KINDS, ResourceKind, built_in, foreign};

/// Short names of kubectl, and of the projects that define a kind.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("netpol", "NetworkPolicy"),
    ("netpolicy", "NetworkPolicy"),
    ("np", "NetworkPolicy"),
    ("cnp", "ClusterNetworkPolicy"),
    ("anp", "AdminNetworkPolicy"),
    ("banp", "BaselineAdminNetworkPolicy"),
    ("ns", "Namespace"),
    ("po", "Pod"),
    ("no", "Node"),
    ("svc", "Service"),
    ("deploy", "Deployment"),
    ("sts", "StatefulSet"),
    ("ds", "DaemonSet"),
    ("rs", "ReplicaSet"),
    ("rc", "ReplicationController"),
    ("cj", "CronJob"),
    ("ing", "Ingress"),
];

/// How many letters of a group may be wrong.
const GROUP_EDITS: usize = 2;

/// How far a name is from the name of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Same,
    /// The same but for case, plural or punctuation, or kubectl's short name.
    Spelled,
    /// A few wrong letters.
    Edits(usize),
}

/// Returns the kind that is meant by a kind which is none of [`KINDS`]; `None` if it is a kind of its own.
pub(super) fn meant(group: &str, kind: &str) -> Option<&'static ResourceKind> {
    if built_in::is_neutral(group, kind) {
        return None;
    }
    if KINDS.iter().any(|row| row.group == group) {
        let own = nearest(kind, |row| row.group == group, EditsAllowed::Own);
        // A kind of another group, only where a custom resource can't have its name.
        let closed = built_in::is_closed(group);
        let may_be_meant = |row: &ResourceKind| row.is_of_kubernetes() || (closed && row.name == kind);
        let elsewhere = || nearest(kind, may_be_meant, EditsAllowed::Other);
        return own.or_else(|| elsewhere().filter(|_| built_in::is_reserved(group)));
    }
    if foreign::has_group(group) {
        return None;
    }
    let reserved = built_in::is_reserved(group);
    let fits = |row: &ResourceKind| (reserved && row.is_of_kubernetes()) || is_nearly(group, row.group);
    nearest(kind, fits, EditsAllowed::Other)
}

/// Returns whether a kind that resembles no other is nevertheless one that the API server doesn't have, and that may be
/// meant as a policy.
pub(super) fn may_be_a_policy(group: &str, version: &str, kind: &str) -> bool {
    if built_in::is_neutral(group, kind) || foreign::has_group(group) {
        return false;
    }
    // Later versions of Kubernetes add kinds in versions of their own first.
    if group == "networking.k8s.io" {
        return version == "v1";
    }
    let names_a_policy = kind.to_ascii_lowercase().contains("polic");
    names_a_policy
        && built_in::is_reserved(group)
        && (built_in::is_closed(group) || !built_in::has_group(group))
        && !KINDS.iter().any(|row| row.group == group && !built_in::is_closed(group))
}

fn is_nearly(group: &str, known: &str) -> bool {
    let group = group.to_ascii_lowercase();
    known.len() > 2 * GROUP_EDITS + 1
        && known.contains('.')
        && group.len() <= known.len() + GROUP_EDITS
        && strsim::osa_distance(&group, known) <= GROUP_EDITS
}

/// How many wrong letters a name may have.
#[derive(Clone, Copy)]
enum EditsAllowed {
    /// The group is right.
    Own,
    /// The group is another one, so short names such as `Job` and `Pod` must be right.
    Other,
}

impl EditsAllowed {
    fn of(self, name: &str) -> usize {
        match (self, name.len()) {
            (Self::Other, 0..=4) => 0,
            (Self::Own, 0..=4) => 1,
            _ => 2,
        }
    }
}

fn nearest(
    kind: &str,
    fits: impl Fn(&ResourceKind) -> bool,
    allowed: EditsAllowed,
) -> Option<&'static ResourceKind> {
    let near = |row: &'static ResourceKind| Some((nearness(kind, row.name, allowed)?, row));
    KINDS.iter().filter(|row| fits(row)).filter_map(near).min_by_key(|(near, _)| *near).map(|(_, row)| row)
}

fn nearness(kind: &str, name: &str, allowed: EditsAllowed) -> Option<Nearness> {
    const LONGEST: usize = 64;
    if kind == name {
        return Some(Nearness::Same);
    }
    if kind.len() > LONGEST {
        return None;
    }
    let plain: String = kind.chars().filter(char::is_ascii_alphanumeric).collect();
    let (plain, lower) = (plain.to_ascii_lowercase(), name.to_ascii_lowercase());
    let is_short = SHORT_NAMES.iter().any(|(short, of)| *short == plain && *of == name);
    if plain == lower || plain == plural(&lower) || is_short {
        return Some(Nearness::Spelled);
    }
    let edits = [lower.clone(), plural(&lower)].iter().map(|n| strsim::osa_distance(&plain, n)).min()?;
    (edits <= allowed.of(name)).then_some(Nearness::Edits(edits))
}

/// The plural of a kind in lower case, as in the URLs of the API.
fn plural(lower: &str) -> String {
    if let Some(stem) = lower.strip_suffix('y') {
        return format!("{stem}ies");
    }
    let sibilant = lower.ends_with('s') || lower.ends_with("ch") || lower.ends_with('x');
    format!("{lower}{}", if sibilant { "es" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion(api_version: &str, kind: &str) -> Option<String> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        meant(group, kind).map(ResourceKind::to_string)
    }

    #[test]
    fn misspelled_kinds_and_groups_are_recognized() {
        for (version, kind, expected) in [
            ("networking.k8s.io/v1", "networkpolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "Networkpolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "NetworkPolicies", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "NETWORKPOLICY", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "NetworkPolcy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "NewtorkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "Network-Policy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "netpol", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.io/v1", "ingress", "networking.k8s.io/v1 Ingress"),
            ("networking.k8s.io/v1", "Deployment", "apps/v1 Deployment"),
            ("networking/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("network.k8s.io/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.kubernetes.io/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("networking.k8s.oi/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("Networking.k8s.io/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            ("v1", "networkpolicies", "networking.k8s.io/v1 NetworkPolicy"),
            ("policy/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            (
                "policy.networking.k8s.io/v1alpha2",
                "clusternetworkpolicies",
                "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy",
            ),
            (
                "networking.k8s.io/v1",
                "ClusterNetworkPolicy",
                "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy",
            ),
            ("policy.networking.k8s.io/v1", "NetworkPolicy", "networking.k8s.io/v1 NetworkPolicy"),
            (
                "policy.k8s.io/v1alpha1",
                "AdminNetworkPolicy",
                "policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy",
            ),
            ("apps/v1", "deployment", "apps/v1 Deployment"),
            ("apps/v1", "Deployments", "apps/v1 Deployment"),
            ("apps/v1", "Statefulset", "apps/v1 StatefulSet"),
            ("app/v1", "Deployment", "apps/v1 Deployment"),
            ("v1", "Deployment", "apps/v1 Deployment"),
            ("apps/v1", "Job", "batch/v1 Job"),
            ("apps/v1", "Pod", "v1 Pod"),
            ("core/v1", "Pod", "v1 Pod"),
            ("v1", "DeploymentConfig", "apps.openshift.io/v1 DeploymentConfig"),
            ("apps/v1", "Rollout", "argoproj.io/v1alpha1 Rollout"),
            ("argoproj.io/v1alpha1", "rollout", "argoproj.io/v1alpha1 Rollout"),
            ("v1", "namespace", "v1 Namespace"),
            ("v1", "namespaces", "v1 Namespace"),
            ("v1", "Pdo", "v1 Pod"),
            ("v1", "Svc", "v1 Service"),
            ("gateway.networking.k8s.io/v1", "HttpRoute", "gateway.networking.k8s.io/v1 HTTPRoute"),
        ] {
            assert_eq!(suggestion(version, kind).as_deref(), Some(expected), "{version} {kind}");
        }
    }

    #[test]
    fn kinds_of_their_own_are_not_misspelled() {
        for (version, kind) in [
            ("crd.projectcalico.org/v1", "NetworkPolicy"),
            ("projectcalico.org/v3", "NetworkPolicy"),
            ("crd.antrea.io/v1beta1", "ClusterNetworkPolicy"),
            ("cilium.io/v2", "CiliumNetworkPolicy"),
            ("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy"),
            ("networking.gke.io/v1alpha1", "FQDNNetworkPolicy"),
            ("example.com/v1", "Deployment"),
            ("example.com/v1", "NetworkPolicy"),
            ("batch.tutorial.kubebuilder.io/v1", "CronJob"),
            ("batch.volcano.sh/v1alpha1", "Job"),
            ("networking.istio.io/v1", "Gateway"),
            ("networking.acme.io/v1", "NetworkPolicy"),
            ("networkings.k8s.com/v1", "Pod"),
            ("serving.knative.dev/v1", "Route"),
            ("metrics.k8s.io/v1beta1", "PodMetrics"),
            ("metrics.k8s.io/v1beta1", "NodeMetrics"),
            ("storage.k8s.io/v1", "CSINode"),
            ("apiregistration.k8s.io/v1", "APIService"),
            ("policy/v1beta1", "PodSecurityPolicy"),
            ("v1", "ConfigMap"),
            ("v1", "PodTemplate"),
            ("v1", "Endpoints"),
            ("v1", "Config"),
            ("apps/v1", "ControllerRevision"),
            ("networking.k8s.io/v1", "IngressClass"),
            ("gateway.networking.k8s.io/v1", "GatewayClass"),
            ("gateway.networking.k8s.io/v1alpha3", "BackendTLSPolicy"),
            ("argoproj.io/v1alpha1", "Application"),
            ("apps.kruise.io/v1alpha1", "SidecarSet"),
            ("kubevirt.io/v1", "VirtualMachineInstanceMigration"),
            ("skaffold/v4beta3", "Config"),
            ("audit.k8s.io/v1", "Policy"),
        ] {
            assert_eq!(suggestion(version, kind), None, "{version} {kind}");
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            assert!(!may_be_a_policy(group, version, kind), "{group} {kind}");
        }
    }

    #[test]
    fn a_policy_that_resembles_no_kind_is_refused_where_only_kubernetes_has_kinds() {
        for (group, kind) in [
            ("networking.k8s.io", "Policy"),
            ("networking.k8s.io", "Firewall"),
            ("networking", "IsolationPolicy"),
            ("", "FirewallPolicies"),
            ("network.k8s.io", "GlobalNetworkPolicy"),
        ] {
            assert_eq!(meant(group, kind).map(ResourceKind::to_string), None, "{group} {kind}");
            assert!(may_be_a_policy(group, "v1", kind), "{group} {kind}");
        }
    }

    #[test]
    fn plurals_are_those_of_the_api() {
        for (one, many) in [
            ("networkpolicy", "networkpolicies"),
            ("ingress", "ingresses"),
            ("pod", "pods"),
            ("switch", "switches"),
        ] {
            assert_eq!(plural(one), many);
        }
    }
}

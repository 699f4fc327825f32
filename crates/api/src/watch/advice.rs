//! Causes of a failing watch, and what to do about them, for the log and the agent's status.

use crate::{
    error::{ApiError, ApiErrorKind},
    resource::ResourceKind,
};

/// Describes the failure of a watch: the cause, what to do about it, and its effect on enforcement. `service`: the address of the Service
/// `default/kubernetes`, if that is the server.
pub(super) fn describe(
    error: &ApiError,
    kind: ResourceKind,
    was_listed: bool,
    service: Option<&str>,
) -> String {
    let resource = kind.qualified_plural();
    let advice = match service.filter(|_| is_unreachable(error.kind())) {
        Some(service) => untranslated(service),
        None => advice(error.kind(), kind, &resource),
    };
    let effect = match was_listed {
        true => "the last known objects stay in effect",
        false if kind == ResourceKind::Service => {
            "policies don't wait for them; until they have been listed once, no DNS server is trusted (domain-names: on), and records of \
             connections don't name them"
        }
        false => "nothing is programmed until they have been listed once, and the kernel keeps its rules",
    };
    format!("cannot watch {resource}: {error}; {advice}; {effect}")
}

/// Whether no connection was made, as far as the client can see: an address that nothing translates is refused, has no route, or does not
/// respond, depending on the node's default route.
fn is_unreachable(error: &ApiErrorKind) -> bool {
    matches!(error, ApiErrorKind::Unreachable(_) | ApiErrorKind::TimedOut(_))
}

/// The address of a Service exists only as a translation that kube-proxy writes, which may start after the agent.
fn untranslated(service: &str) -> String {
    format!(
        "{service} is the address of the Service default/kubernetes, which reaches an API server only once this node's service proxy has \
         written its translation: check that kube-proxy or its replacement runs on this node, or give the agents the address of an API \
         server (`apiServer.host` and `apiServer.port` of the chart, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in the manifest)"
    )
}

fn advice(error: &ApiErrorKind, kind: ResourceKind, resource: &str) -> String {
    match error {
        ApiErrorKind::Status { code: 401, .. } => {
            "the token or certificate has expired or was revoked; it is re-read at each attempt".to_owned()
        }
        ApiErrorKind::Status { code: 403, .. } => format!(
            "the ClusterRole of the agent's service account must allow list and watch on {resource}; check with \
             `kubectl auth can-i watch {resource} -A --as=system:serviceaccount:palisade-system:palisade-agent`"
        ),
        ApiErrorKind::Status { code: 404, .. } if kind.is_optional() => {
            "its CustomResourceDefinition was deleted, or the server is still starting; discovery checks again"
                .to_owned()
        }
        ApiErrorKind::Status { code: 404, .. } => {
            format!("the server does not serve {resource}; is this the address of a Kubernetes API server?")
        }
        ApiErrorKind::Status { code: 429, .. } => {
            "the server is busy; the pause that it requests is kept".to_owned()
        }
        ApiErrorKind::Status { code: 500.., .. } => {
            "check the API server, its etcd and its load balancer".to_owned()
        }
        ApiErrorKind::Status { .. } => "check the API server's log".to_owned(),
        ApiErrorKind::Unreachable(_) | ApiErrorKind::TimedOut(_) | ApiErrorKind::ConnectionLost(_) => {
            "check the network to the API server: address, routes, firewall, load balancer".to_owned()
        }
        ApiErrorKind::Tls(_) => "certificates and the CA bundle are re-read at each attempt".to_owned(),
        ApiErrorKind::Credentials(_) => "check the service account's token file, or the kubeconfig".to_owned(),
        ApiErrorKind::Malformed(_) | ApiErrorKind::TooLarge(_) | ApiErrorKind::WatchClosed => {
            "something other than an API server responds at this address, or a proxy changes the responses".to_owned()
        }
        ApiErrorKind::Expired => "everything is listed again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_cause_cure_and_effect() {
        let text = |error: ApiError, kind, was_listed| describe(&error, kind, was_listed, None);
        let forbidden = text(ApiError::status(403, "pods is forbidden", None), ResourceKind::Pod, false);
        assert!(
            forbidden.contains("403 Forbidden: pods is forbidden") && forbidden.contains("ClusterRole"),
            "{forbidden}"
        );
        assert!(forbidden.ends_with("the kernel keeps its rules"), "{forbidden}");
        let of_services = text(ApiError::status(403, "no", None), ResourceKind::Service, false);
        assert!(of_services.contains("policies don't wait for them; until"), "{of_services}");
        let expired = ApiErrorKind::Tls("invalid peer certificate: Expired".to_owned());
        let expired = text(expired.into(), ResourceKind::NetworkPolicy, true);
        assert!(expired.contains("Expired; certificates"), "{expired}");
        let unavailable = text(ApiError::status(503, "<html>…", None), ResourceKind::Node, true);
        assert!(unavailable.contains("etcd"), "{unavailable}");
    }

    #[test]
    fn an_address_that_nothing_translates_is_named_as_a_cause() {
        let text =
            |kind: ApiErrorKind| describe(&kind.into(), ResourceKind::Pod, false, Some("10.96.0.1:443"));
        for kind in [
            ApiErrorKind::Unreachable("Network is unreachable (os error 101)".to_owned()),
            ApiErrorKind::TimedOut(std::time::Duration::from_secs(30)),
        ] {
            let text = text(kind);
            for part in ["10.96.0.1:443 is the address of the Service", "kube-proxy", "apiServer.host"] {
                assert!(text.contains(part), "no {part} in {text}");
            }
            assert!(text.ends_with("the kernel keeps its rules"), "{text}");
        }
        // A server that responds is reached, so the translation works.
        let forbidden = text(ApiErrorKind::Status { code: 403, message: String::new(), retry_after: None });
        assert!(!forbidden.contains("kube-proxy"), "{forbidden}");
    }
}

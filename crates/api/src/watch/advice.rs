//! Causes of a failing watch, and what to do about them, for the log and the agent's status.

use crate::{
    error::{ApiError, ApiErrorKind},
    resource::ResourceKind,
};

/// Describes the failure of a watch: the cause, what to do about it, and its effect on enforcement.
pub(super) fn describe(error: &ApiError, kind: ResourceKind, was_listed: bool) -> String {
    let resource = kind.qualified_plural();
    let advice = advice(error.kind(), kind, &resource);
    let effect = match was_listed {
        true => "the last known objects stay in effect",
        false => "nothing is programmed until they have been listed once, and the kernel keeps its rules",
    };
    format!("cannot watch {resource}: {error}; {advice}; {effect}")
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
        let text = |error: ApiError, kind, was_listed| describe(&error, kind, was_listed);
        let forbidden = text(ApiError::status(403, "pods is forbidden", None), ResourceKind::Pod, false);
        assert!(
            forbidden.contains("403 Forbidden: pods is forbidden") && forbidden.contains("ClusterRole"),
            "{forbidden}"
        );
        assert!(forbidden.ends_with("the kernel keeps its rules"), "{forbidden}");
        let expired = ApiErrorKind::Tls("invalid peer certificate: Expired".to_owned());
        let expired = text(expired.into(), ResourceKind::NetworkPolicy, true);
        assert!(expired.contains("Expired; certificates"), "{expired}");
        let unavailable = text(ApiError::status(503, "<html>…", None), ResourceKind::Node, true);
        assert!(unavailable.contains("etcd"), "{unavailable}");
    }
}

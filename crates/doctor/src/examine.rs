//! Runs the checks.

use std::path::Path;

use palisade_api::{Access, AccessError, Rights, rights::RightsError};
use palisade_netns::Namespace;
use palisade_nft::{Enforcer, EnforcerOptions, Kernel, NodeLinks};
use palisade_policy::NodePlan;

use crate::{
    checks::{self, GROUPS, Group, api_server, nftables},
    finding::{Finding, Outcome},
    node::Node,
};

/// What to examine.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// The socket of the node's agent.
    pub socket: &'a Path,
    /// Whether to send packets between temporary network namespaces.
    pub self_test: bool,
    /// How to reach the API server. `None`: its checks are skipped.
    pub api: Option<Access>,
}

/// Examines the node in whose network namespace the calling thread is. The findings are in the order of the report.
///
/// Takes less than a second; the self-test takes some seconds if packets are lost, and the API server's checks up to the
/// time-out in [`Access`].
#[must_use]
pub fn examine(scope: &Scope<'_>) -> Vec<Finding> {
    let node = Node::new(scope.socket);
    let mut findings = Vec::new();
    for group in GROUPS {
        match group {
            Group::Node(checks) => {
                for (id, check) in *checks {
                    let outcome = check(&node).unwrap_or_else(|unknown| unknown);
                    findings.push(outcome.with_id(id));
                }
            }
            Group::Features(checks) => findings.extend(features(&node, checks)),
            Group::SelfTest(checks) if scope.self_test => {
                for (id, check) in *checks {
                    findings.extend(check(&node).into_iter().map(|outcome| outcome.with_id(id)));
                }
            }
            Group::Api(checks) => {
                if let Some(access) = &scope.api {
                    findings.extend(api(access, checks));
                }
            }
            Group::SelfTest(_) => {}
        }
    }
    findings
}

/// Tries kernel features in a temporary network namespace, which is removed at the end.
fn features(node: &Node<'_>, checks: &[checks::Entry<checks::Feature>]) -> Vec<Finding> {
    match Namespace::create(|| in_temporary_namespace(checks)) {
        Ok((_, findings)) => findings,
        Err(error) => {
            let unknown = Outcome::unknown(
                format!("cannot create a temporary network namespace: {error}"),
                node.cure_of_refusal(),
            );
            checks.iter().map(|(id, _)| unknown.clone().with_id(id)).collect()
        }
    }
}

/// Starts an enforcer and runs the checks on it. Without one, only the first check has a finding.
fn in_temporary_namespace(checks: &[checks::Entry<checks::Feature>]) -> Vec<Finding> {
    // The loopback device stands for a bridge that connects pods.
    let surroundings = NodeLinks { pod_ports: [1].into(), ..NodeLinks::default() };
    let started = Kernel::open().and_then(|kernel| {
        Enforcer::start_in(kernel, EnforcerOptions::default(), surroundings, &NodePlan::default())
    });
    match started {
        Ok((mut enforcer, _)) => checks.iter().map(|(id, check)| check(&mut enforcer).with_id(id)).collect(),
        Err(error) => checks.iter().take(1).map(|(id, _)| nftables::refused(&error).with_id(id)).collect(),
    }
}

/// Queries the API server and runs the checks on its replies. Without replies, only the first check has a finding.
fn api(access: &Access, checks: &[checks::Entry<checks::Api>]) -> Vec<Finding> {
    let unanswered = match Rights::query_blocking(access) {
        Ok(rights) => return checks.iter().map(|(id, check)| check(&rights).with_id(id)).collect(),
        Err(RightsError::Access(AccessError::NoCluster { .. })) => api_server::no_cluster(),
        Err(error) => api_server::unreachable(&error),
    };
    checks.iter().take(1).map(|(id, _)| unanswered.clone().with_id(id)).collect()
}

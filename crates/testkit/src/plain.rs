//! Pods without random parts, for clusters that a test writes out.

use std::sync::Arc;

use palisade_policy::{Labels, ObjectKey, Phase, Pod};

/// Returns a running pod labeled `app=<name>`, without node, addresses and ports.
#[must_use]
pub fn running_pod(namespace: &str, name: &str) -> Pod {
    Pod {
        key: ObjectKey::new(namespace, name),
        labels: Labels::from_iter([("app", name)]),
        addresses: Vec::new(),
        node: None,
        host_network: false,
        phase: Phase::Running,
        ports: Arc::new([]),
        created: 0,
        uid: palisade_policy::Uid::UNKNOWN,
        workload: None,
    }
}

//! Pods without random parts, for clusters that a test writes out.

use palisade_policy::{Labels, ObjectKey, Pod};

/// Returns a running pod labeled `app=<name>`, without node, addresses and ports.
#[must_use]
pub fn running_pod(namespace: &str, name: &str) -> Pod {
    Pod::new(ObjectKey::new(namespace, name), Labels::from_iter([("app", name)]), Vec::new())
}

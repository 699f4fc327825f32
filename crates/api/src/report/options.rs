//! How to report.

use std::time::Duration;

use palisade_policy::Name;

use crate::access::Access;

/// How to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    /// The name of this node.
    pub node: Name,
    /// The namespace of the Lease.
    pub namespace: String,
    /// How to make a new client, as in [`crate::WatchOptions::access`].
    pub access: Option<Access>,
    /// A problem of this node is reported after a random part of this time, if it persists: a thousand nodes may have the same.
    pub max_event_delay: Duration,
    /// The Lease is first read after a random part of this time.
    pub max_first_lease_delay: Duration,
}

impl ReportOptions {
    /// Returns the options of an agent on this node.
    #[must_use]
    pub fn for_node(node: impl Into<Name>) -> Self {
        Self {
            node: node.into(),
            namespace: "palisade-system".to_owned(),
            access: None,
            max_event_delay: Duration::from_secs(30),
            max_first_lease_delay: Duration::from_secs(5),
        }
    }
}

//! How to watch.

use std::time::Duration;

use crate::access::Access;

/// How to watch. The defaults are right for a cluster; tests use shorter times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How to make a new client if the server no longer accepts the credentials or its certificate changed: tokens, certificates and CA
    /// bundles are files that are rotated. `None`: the first client is kept.
    pub access: Option<Access>,
    /// The address of the Service `default/kubernetes`, if requests go there: [`Access::service_address`]. Failures to connect then name
    /// its translation as a possible cause.
    pub service_address: Option<String>,
    /// Whether Services are watched too. The snapshot has them, unless the server refuses them, or they are still missing some seconds after
    /// all else is there: they follow as changes then.
    pub services: bool,
    /// How many events are queued for the receiver. If the queue is full, the watches wait.
    pub queue_capacity: usize,
    /// How often discovery checks which cluster-wide policy kinds are served.
    pub discovery_interval: Duration,
    /// How long the server has to report a kind as not served before its objects are removed.
    pub absent_after: Duration,
    /// The pause after the first failure. It doubles with each further one.
    pub initial_backoff: Duration,
    /// The longest pause between two attempts.
    pub max_backoff: Duration,
    /// How long the server may take to start its response, and to continue a list.
    pub response_timeout: Duration,
    /// How long a watch may be idle before its connection is considered dead. Servers send bookmarks about once a minute.
    pub idle_timeout: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            access: None,
            service_address: None,
            services: false,
            queue_capacity: 256,
            discovery_interval: Duration::from_secs(30),
            absent_after: Duration::from_secs(10),
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(150),
        }
    }
}

//! Values that the threads of the agent share.

use std::sync::{Arc, OnceLock};

use palisade_api::Reporter;
use palisade_policy::{Cluster, Name};

use super::{health::Health, inbox::Inbox};
pub use crate::drops::Wording;
use crate::{flows::FlowStore, metrics::Metrics, socket::Explained};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Decides whether a connection is allowed, given source, destination and default namespace as the user wrote them. The error
/// is for the user.
pub type Explain = Arc<dyn Fn(&Cluster, &str, &str, &str) -> Result<Explained, String> + Send + Sync>;

/// State shared by the async thread, the worker thread and the threads that read kernel events.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Name,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) flows: Arc<FlowStore>,
    pub(super) health: Arc<Health>,
    /// Reports to the cluster. Set once the API server is connected.
    pub(super) reporter: Arc<OnceLock<Reporter>>,
}

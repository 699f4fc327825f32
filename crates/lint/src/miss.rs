//! Why a selector matches no pod.

use palisade_policy::{Name, Requirement};

/// Why a selector matches no pod: the clearest reason.
#[derive(Clone, Debug)]
pub(crate) enum Miss {
    /// It matches pods in the host network only.
    HostNetwork,
    /// A label is one or two letters away from one that pods, or namespaces, have.
    Near(Requirement, Requirement),
    /// A label is on a workload's object, or on the Jobs of a CronJob, and not on its pods. What has it: `Deployment shop/cart`.
    Template(String),
    /// Namespaces are selected by a label with a namespace's name, which the namespace does not have. Whether the namespace
    /// is declared.
    NamespaceName(Requirement, Name, bool),
    /// Only these other namespaces have pods that match.
    Elsewhere(Vec<Name>),
    /// No pod has the labels.
    Nothing,
}

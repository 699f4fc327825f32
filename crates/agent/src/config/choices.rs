//! The settings that are one of a few words.

use clap::ValueEnum;
use palisade_policy::Mode;
use serde::{Deserialize, Serialize};

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line for each event
    #[default]
    Text,
    /// One JSON object for each event
    Json,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that affect enforcement
    Error,
    /// Also problems that may affect enforcement, and objects that may not work as intended
    Warn,
    /// Also what the agent does
    #[default]
    Info,
    /// Also each transaction
    Debug,
    /// Also debug messages of libraries
    Trace,
}

/// The mode of policies for which neither their annotation `palisade.dev/mode` nor the label of their namespace sets one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Policies are enforced
    #[default]
    Enforce,
    /// Nothing is denied; what policies would deny is logged, counted and recorded
    Audit,
}

impl From<PolicyMode> for Mode {
    fn from(mode: PolicyMode) -> Self {
        match mode {
            PolicyMode::Enforce => Self::Enforce,
            PolicyMode::Audit => Self::Audit,
        }
    }
}

/// Whether egress policies apply to traffic from a pod to its own node (SEMANTICS G-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressToOwnNode {
    /// Such traffic always passes, as in the literal reading of the API documentation
    Exempt,
    /// Egress policies apply, as for every other destination
    #[default]
    Enforce,
}

/// Whether packets with forged source addresses are dropped (SEMANTICS G-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceCheck {
    /// Forged packets pass; for nodes where replies to pods arrive on another interface
    Off,
    /// Packets are dropped if their source is not reachable through the interface they arrived on, or is another pod or a node
    #[default]
    Enforce,
    /// Also packets with any other address than the pod's own
    Strict,
}

/// What happens to the taint that keeps pods off a node until its agent is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartupTaint {
    /// The agent doesn't look at it
    #[default]
    Keep,
    /// The agent removes it when it is ready
    Remove,
}

/// Whether addresses are learned from DNS for rules with domain names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainNames {
    /// Such rules match nothing
    #[default]
    Off,
    /// DNS answers to pods with such rules wait until the kernel has their addresses
    On,
}

/// Whether pods are isolated before they start, by NRI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nri {
    /// Pods are isolated when the API server reports their addresses, a moment after they start
    #[default]
    Off,
    /// If the runtime has NRI enabled
    Auto,
    /// A runtime without NRI is a warning
    On,
}

/// Whether the agent installs its chained CNI plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CniChain {
    /// The node's CNI configuration is left as it is
    #[default]
    Off,
    /// The plugin is added to the first configuration, and added again when another program rewrites that
    On,
}

/// How a pod starts whose policies are not programmed in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodStart {
    /// Its traffic is dropped in every direction that policies may select; a pod that can't be closed is refused
    #[default]
    Closed,
    /// It starts as it is
    Open,
}

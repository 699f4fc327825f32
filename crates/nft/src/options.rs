//! Settings of an enforcer.

/// What is programmed besides the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcerOptions {
    /// The nflog group that receives denied packets. `None` disables logging.
    pub log_group: Option<u16>,
    /// Whether egress policies also apply to packets that a pod sends to its own node.
    ///
    /// `false` is the literal reading of the documentation, by which traffic with the own node is exempt in both
    /// directions (SEMANTICS G-5).
    pub egress_to_own_node: bool,
    /// Whether to drop packets that come from local pods or claim a local pod's address, if no route leads back to their
    /// source through the interface on which they arrived (SEMANTICS G-19).
    pub source_check: bool,
}

impl Default for EnforcerOptions {
    fn default() -> Self {
        Self { log_group: Some(DEFAULT_LOG_GROUP), egress_to_own_node: true, source_check: true }
    }
}

/// Far from the small numbers that ulogd and other programs use.
const DEFAULT_LOG_GROUP: u16 = 9043;

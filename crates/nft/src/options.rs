//! Settings of an enforcer.

use std::collections::BTreeSet;

use ipnet::IpNet;

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
    /// Which packets of local pods are dropped because of their source (SEMANTICS G-19).
    pub source_check: SourceCheck,
    /// Sources that any pod may use beside its own, such as those of virtual routers and load balancers, as long as no pod of this node has
    /// them: see [`MAX_ALLOWED_SOURCES`].
    pub allowed_sources: BTreeSet<IpNet>,
    /// Whether the source check may look up the route back to a packet's source in the hooks of policies, where the first packet of a connection is
    /// enough for what arrives on interfaces that lead to no pods.
    pub reverse_route: bool,
    /// Whether it may do so in front of connection tracking. Without both, it compares addresses only.
    pub early_reverse_route: bool,
    /// Whether what a pod refuses may be answered. Without, it is dropped.
    pub refusals: bool,
}

/// The most networks of [`EnforcerOptions::allowed_sources`]: some packets of pods are compared with each.
pub const MAX_ALLOWED_SOURCES: usize = 32;

/// Which packets of local pods are dropped because of their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceCheck {
    /// None.
    Off,
    /// Packets with the address of another pod or of a node, and packets without a route back to their source through the
    /// interface on which they arrived.
    Enforce,
    /// Also packets with any address that isn't one of the pod's own.
    Strict,
}

impl SourceCheck {
    /// Returns whether any packet is dropped.
    #[must_use]
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

impl Default for EnforcerOptions {
    fn default() -> Self {
        Self {
            log_group: Some(DEFAULT_LOG_GROUP),
            egress_to_own_node: true,
            source_check: SourceCheck::Enforce,
            allowed_sources: BTreeSet::new(),
            reverse_route: true,
            early_reverse_route: true,
            refusals: true,
        }
    }
}

/// Far from the small numbers that ulogd and other programs use.
const DEFAULT_LOG_GROUP: u16 = 9043;

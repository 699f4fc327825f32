//! The sets that follow from the node's pods and links.

use palisade_policy::Family;

/// A set that follows from the node's pods and links, see [`crate::NodeLinks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeSet {
    /// The addresses of local pods, isolated or not.
    Local(Family),
    /// The addresses of local pods whose policies refuse what they deny.
    Refusing(Family),
    /// The interfaces on which only packets of local pods arrive.
    Interfaces,
    /// The bridges among these interfaces.
    Bridges,
    /// The UDP ports of the node's tunnels.
    TunnelPorts,
    /// The IP protocols of the node's tunnels.
    TunnelProtocols,
    /// The addresses at which tunnels end.
    TunnelEndpoints(Family),
    /// The bridge ports that lead to local pods.
    BridgePorts,
    /// Each of these bridge ports as a pair with itself.
    BridgePortPairs,
    /// The addresses of local pods, each as a pair with itself.
    LocalPairs(Family),
    /// The interfaces of pods, not bridges, whose pods are known.
    BoundInterfaces,
    /// These interfaces with the addresses of their pods.
    InterfaceSources(Family),
    /// The interfaces of pods with the addresses of local pods that routes lead to through them.
    RoutedSources(Family),
    /// Interfaces of pods with the hardware addresses of pods that are known.
    LinkSenders,
    /// Interfaces of pods, not bridges, with the further addresses that their pods may use as a source.
    AllowedSources(Family),
    /// The bridge ports whose senders are checked.
    CheckedPorts,
    /// The bridge ports whose pods are known.
    BoundPorts,
    /// The bridge ports whose pods' hardware addresses are known.
    HardwarePorts,
    /// Bridge ports with the hardware addresses of their pods.
    PortHardware,
    /// Bridge ports with the addresses and the hardware address of their pods.
    PortSenders(Family),
    /// The hardware addresses of pods and bridges.
    Hardware,
    /// Bridge ports with the addresses of their pods.
    PortSources(Family),
    /// The same IPv6 addresses, as targets of neighbor discovery.
    PortTargets,
    /// Bridge ports with the further addresses that their pods may use as a source.
    PortAllowed(Family),
    /// The same IPv6 addresses, as targets of neighbor discovery.
    PortAllowedTargets,
    /// The addresses of pods whose ports are known, and of nodes.
    Taken(Family),
    /// The same IPv6 addresses, as targets of neighbor discovery.
    TakenTargets,
}

impl NodeSet {
    /// Returns whether its elements are ranges of addresses.
    pub(crate) fn has_ranges(self) -> bool {
        matches!(self, Self::AllowedSources(_) | Self::PortAllowed(_) | Self::PortAllowedTargets)
    }

    /// The sets of the table `inet palisade`.
    pub(crate) const ALL: [Self; 18] = [
        Self::Local(Family::V4),
        Self::Local(Family::V6),
        Self::Refusing(Family::V4),
        Self::Refusing(Family::V6),
        Self::Interfaces,
        Self::Bridges,
        Self::TunnelPorts,
        Self::TunnelProtocols,
        Self::TunnelEndpoints(Family::V4),
        Self::TunnelEndpoints(Family::V6),
        Self::BoundInterfaces,
        Self::InterfaceSources(Family::V4),
        Self::InterfaceSources(Family::V6),
        Self::RoutedSources(Family::V4),
        Self::RoutedSources(Family::V6),
        Self::AllowedSources(Family::V4),
        Self::AllowedSources(Family::V6),
        Self::LinkSenders,
    ];

    /// The sets of the table `bridge palisade`.
    pub(crate) const OF_BRIDGE: [Self; 4] = [
        Self::BridgePorts,
        Self::BridgePortPairs,
        Self::LocalPairs(Family::V4),
        Self::LocalPairs(Family::V6),
    ];

    /// The sets of the table `bridge palisade` for the check of senders.
    pub(crate) const OF_SENDERS: [Self; 16] = [
        Self::CheckedPorts,
        Self::BoundPorts,
        Self::HardwarePorts,
        Self::PortHardware,
        Self::PortSenders(Family::V4),
        Self::PortSenders(Family::V6),
        Self::Hardware,
        Self::PortSources(Family::V4),
        Self::PortSources(Family::V6),
        Self::PortTargets,
        Self::PortAllowed(Family::V4),
        Self::PortAllowed(Family::V6),
        Self::PortAllowedTargets,
        Self::Taken(Family::V4),
        Self::Taken(Family::V6),
        Self::TakenTargets,
    ];
}

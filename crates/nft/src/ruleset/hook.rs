//! Where base chains hook into the path of packets.

use crate::uapi::netfilter::{
    NF_BR_FORWARD, NF_BR_LOCAL_OUT, NF_BR_PRE_ROUTING, NF_BR_PRI_FILTER_BRIDGED, NF_INET_FORWARD,
    NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NF_IP_PRI_FILTER,
    NF_IP_PRI_MANGLE, NF_IP_PRI_NAT_SRC, NF_IP_PRI_RAW_BEFORE_DEFRAG,
};

/// The hook of a base chain, at priority `filter` but for [`Hook::Prerouting`]. The last three belong to the table `bridge palisade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Packets that arrive, before fragments are reassembled and before connection tracking. The sources of pods' packets are checked there, also of
    /// fragments, which would become part of another pod's packet. And packets are dropped that go elsewhere than their headers say.
    Prerouting,
    /// Packets that arrive, before destination NAT. Only the table of [`crate::dns_table`] has a chain there.
    Queries,
    /// Packets that leave, after source NAT. Only the table of [`crate::dns_table`] has a chain there.
    Answers,
    /// Packets that the node forwards: from and to its pods.
    Forward,
    /// Packets to the node itself.
    Input,
    /// Packets that the node itself sends. Only replies of revoked connections are looked up there.
    Output,
    /// As [`Hook::Forward`], [`Hook::Input`] and [`Hook::Output`], after the agent's table has decided. Only the table of [`crate::new_pods`] has
    /// chains there.
    Forwarded,
    /// See [`Hook::Forwarded`].
    Received,
    /// See [`Hook::Forwarded`].
    Sent,
    /// Frames that enter by a port of a bridge.
    BridgePrerouting,
    /// Frames from one port of a bridge to another.
    BridgeForward,
    /// Frames that the node itself sends through a bridge: what it has routed there too.
    BridgeOutput,
}

impl Hook {
    /// The hooks at which policies are enforced.
    pub const POLICY: [Self; 2] = [Self::Forward, Self::Input];

    /// Returns the name of the hook's base chain.
    #[must_use]
    pub fn chain(self) -> &'static str {
        match self {
            Self::Prerouting | Self::Queries | Self::BridgePrerouting => "prerouting",
            Self::Answers => "postrouting",
            Self::Forward | Self::Forwarded | Self::BridgeForward => "forward",
            Self::Input | Self::Received => "input",
            Self::Output | Self::Sent | Self::BridgeOutput => "output",
        }
    }

    /// Returns the kernel's number of the hook.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Prerouting | Self::Queries => NF_INET_PRE_ROUTING,
            Self::Answers => NF_INET_POST_ROUTING,
            Self::Forward | Self::Forwarded => NF_INET_FORWARD,
            Self::Input | Self::Received => NF_INET_LOCAL_IN,
            Self::Output | Self::Sent => NF_INET_LOCAL_OUT,
            Self::BridgePrerouting => NF_BR_PRE_ROUTING,
            Self::BridgeForward => NF_BR_FORWARD,
            Self::BridgeOutput => NF_BR_LOCAL_OUT,
        }
    }

    /// Returns the priority, for most hooks the one that `nft` calls `filter`.
    ///
    /// For `inet`, `filter` lies between destination NAT and source NAT, so rules match the real peers (SEMANTICS G-1). For
    /// `bridge` it lies in front of br_netfilter.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Self::Prerouting => NF_IP_PRI_RAW_BEFORE_DEFRAG,
            // As the pod sees them: a query before a Service's address is translated, an answer after that was undone.
            Self::Queries => NF_IP_PRI_MANGLE,
            Self::Answers => NF_IP_PRI_NAT_SRC + 50,
            Self::Forward | Self::Input | Self::Output => NF_IP_PRI_FILTER,
            Self::Forwarded | Self::Received | Self::Sent => NF_IP_PRI_FILTER + 1,
            Self::BridgePrerouting | Self::BridgeForward | Self::BridgeOutput => NF_BR_PRI_FILTER_BRIDGED,
        }
    }
}

//! The seam to the kernel.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Delta, Direction, NodePlan, Protocol};

/// What programming a plan or a delta took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Kernel transactions: one, unless the change was too big for the socket and had to be staged.
    pub transactions: usize,
    /// Set and map elements added and removed.
    pub elements: usize,
    /// The number of this state of the table; it grows with every change and is kept in the kernel.
    pub generation: u64,
}

/// Why the data plane could not do something.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct DataPlaneError {
    /// What was being done.
    pub doing: &'static str,
    /// What went wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A connection that exists: as it was opened, after destination NAT and before source NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub source: IpAddr,
    /// Who really answers.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The destination port, after translation; 0 for protocols without ports.
    pub port: u16,
    /// Whether it carries our revocation mark.
    pub revoked: bool,
}

/// What the agent needs of a kernel. Tests script one; [`crate::NftDataPlane`] is the real one.
pub trait DataPlane {
    /// How the data plane knows a connection.
    type Entry;

    /// What is programmed.
    fn programmed(&self) -> &NodePlan;

    /// Makes the kernel hold `plan`, whatever it holds: reads that, and changes what differs. On failure the kernel keeps what
    /// it held, unless the change took several transactions; [`DataPlane::programmed`] stays as it is.
    ///
    /// # Errors
    /// If the kernel can't be read, and whatever it refuses.
    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError>;

    /// Performs the difference to [`DataPlane::programmed`]. On failure both stay as they are.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError>;

    /// Whether the kernel holds [`DataPlane::programmed`], as read back from it. `O(plan)`: for when something was refused.
    ///
    /// # Errors
    /// If the kernel can't be read.
    fn holds(&mut self) -> Result<bool, DataPlaneError>;

    /// Makes the kernel drop everything that these local addresses receive (ingress) or send (egress), whatever the plan
    /// says, and by means of its own: this is tried when the plan can't be had. Replaces what an earlier call said; with no
    /// address nothing is dropped any more. On failure the kernel keeps what it held.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn cut_off(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError>;

    /// Whether what a pod sends to its own node passes, whatever egress policies say (SEMANTICS G-5).
    fn exempts_own_node(&self) -> bool {
        false
    }

    /// The node's own addresses.
    ///
    /// # Errors
    /// If the kernel doesn't say.
    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError>;

    /// The tracked connections that have one of these addresses at either end. `O(connections of the node)`, and cheapest
    /// for few addresses: see [`palisade_nft::conntrack::list`].
    ///
    /// # Errors
    /// If the kernel doesn't say.
    fn connections(
        &mut self,
        ends: &BTreeSet<IpAddr>,
    ) -> Result<Vec<(Connection, Self::Entry)>, DataPlaneError>;

    /// Cuts a connection: its next packet, in either direction, is dropped. One that has ended meanwhile is no error.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn revoke(&mut self, entry: &Self::Entry) -> Result<(), DataPlaneError>;

    /// Takes the mark off again.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn restore(&mut self, entry: &Self::Entry) -> Result<(), DataPlaneError>;
}

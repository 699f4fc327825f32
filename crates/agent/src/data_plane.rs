//! The seam to the kernel.

use std::{collections::BTreeSet, net::IpAddr};

pub use palisade_nft::{Revoked, conntrack::FiveTuple};
use palisade_policy::{Delta, Direction, NodePlan};

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

/// A connection that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As it was opened, after destination NAT and before source NAT.
    pub tuple: FiveTuple,
    /// Whether it carries our revocation label.
    pub revoked: bool,
    /// Whether tracking began in the middle of it, so that the opener may be either end.
    pub midstream: bool,
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

    /// Cuts connections, each given with the orientation that is denied: no packet of them passes any more, in either
    /// direction, whatever becomes of their entries. One that has ended meanwhile is no error.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn revoke(&mut self, connections: &[(FiveTuple, &Self::Entry)]) -> Result<Revoked, DataPlaneError>;

    /// Lets revoked connections go on: those with these tuples, and those of these entries.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn restore(&mut self, tuples: &[FiveTuple], entries: &[&Self::Entry]) -> Result<(), DataPlaneError>;

    /// Whether a connection was revoked in this orientation, and not restored since.
    fn is_revoked(&self, tuple: &FiveTuple) -> bool;

    /// All connections that were revoked and not restored since, each from opener to answerer, by this run or an earlier one.
    fn revoked(&self) -> Vec<FiveTuple>;

    /// Whether there are any.
    fn has_revoked(&self) -> bool;

    /// The opener of each tracked connection that carries our revocation label. `O(connections of the node)`.
    ///
    /// # Errors
    /// If the kernel doesn't say.
    fn labelled(&mut self) -> Result<BTreeSet<IpAddr>, DataPlaneError>;
}

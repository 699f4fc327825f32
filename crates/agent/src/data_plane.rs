//! The interface between the agent and the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
pub use palisade_nft::{RevocationSummary, conntrack::FiveTuple};
use palisade_policy::{Delta, Direction, Name, NodePlan, ObjectKey};

/// The result of programming a plan or a delta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Kernel transactions: one, unless the change was too large for the socket and had to be staged.
    pub transactions: usize,
    /// Set and map elements added and removed.
    pub elements: usize,
    /// The generation of the table. It grows with every change and is stored in the kernel.
    pub generation: u64,
}

/// Why an operation of the data plane failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct DataPlaneError {
    /// The operation.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A connection in the connection-tracking table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedConnection {
    /// The original direction, after destination NAT and before source NAT.
    pub tuple: FiveTuple,
    /// Whether the entry has our revocation label.
    pub revoked: bool,
    /// Whether tracking began in the middle of the connection, so that either end may have opened it.
    pub midstream: bool,
}

/// The connections that a review has to check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewScope {
    /// Those with one of these addresses at either end.
    pub ends: BTreeSet<IpAddr>,
    /// All whose entries carry our revocation label.
    pub labelled: bool,
}

impl ReviewScope {
    /// Whether it contains no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && !self.labelled
    }

    /// Adds the connections of another scope.
    pub fn extend(&mut self, other: Self) {
        self.ends.extend(other.ends);
        self.labelled |= other.labelled;
    }
}

/// What a listing of connections returns: each with its entry.
type Listing<E> = Result<Vec<(TrackedConnection, E)>, DataPlaneError>;

/// The kernel, as the agent uses it. [`crate::NftDataPlane`] is the real one; tests have a double.
pub trait DataPlane {
    /// The handle of a connection-tracking entry.
    type ConntrackEntry;

    /// Returns the plan that is programmed.
    fn programmed(&self) -> &NodePlan;

    /// Makes the kernel hold `plan`: reads what it holds and changes what differs. On failure the kernel keeps what it
    /// held, unless the change took several transactions; [`DataPlane::programmed`] is unchanged.
    ///
    /// # Errors
    /// If the kernel can't be read, or rejects the change.
    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError>;

    /// Applies a delta to [`DataPlane::programmed`], and what [`DataPlane::name_local`] has told since. The delta is empty if only that
    /// is new. On failure both stay as they are.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError>;

    /// Tells which pods local addresses belong to: of all before [`DataPlane::start`], of those that belong to other pods than before, or
    /// that are new, before [`DataPlane::commit`]. For what is read beside the plan: the interfaces of pods.
    fn name_local(&mut self, names: &BTreeMap<IpAddr, ObjectKey>) {
        _ = names;
    }

    /// Tells in which namespaces the source addresses of pods are not checked. Replaces those of an earlier call.
    fn set_unchecked_namespaces(&mut self, namespaces: BTreeSet<Name>) {
        drop(namespaces);
    }

    /// Tells which networks pods may use as a source beside their own addresses. Replaces those of an earlier call.
    fn set_allowed_sources(&mut self, sources: &BTreeMap<ObjectKey, BTreeSet<IpNet>>) {
        _ = sources;
    }

    /// Whether [`DataPlane::set_other_pods`] has an effect. May change with the node's links.
    fn wants_other_pods(&self) -> bool {
        false
    }

    /// Tells the addresses of pods of other nodes. Replaces those of an earlier call.
    fn set_other_pods(&mut self, addresses: &Arc<BTreeSet<IpAddr>>) {
        _ = addresses;
    }

    /// Reads the kernel and returns whether it holds [`DataPlane::programmed`]. `O(plan)`: used only after a rejection.
    ///
    /// # Errors
    /// If the kernel can't be read.
    fn holds(&mut self) -> Result<bool, DataPlaneError>;

    /// Makes the kernel drop everything that these local addresses receive (ingress) or send (egress), in a table that is
    /// independent of the plan. Used if the plan can't be programmed. Replaces the addresses of an earlier call. On failure
    /// the kernel keeps what it held.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn cut_off(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError>;

    /// As [`DataPlane::cut_off`], in addition to the addresses of earlier calls, also of a previous run.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn cut_off_also(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError>;

    /// Whether traffic from a pod to its own node passes regardless of egress policies (SEMANTICS G-5).
    fn exempts_own_node(&self) -> bool {
        false
    }

    /// Returns the addresses of the node.
    ///
    /// # Errors
    /// If the kernel can't be read.
    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError>;

    /// Begins to list tracked connections, beside everything else that this data plane does. Every connection in the scope that exists now
    /// and has not ended when the listing gets there is in it. `O(connections of the node)`, and cheapest for few addresses: see
    /// [`palisade_nft::conntrack::list`].
    ///
    /// Must not be called before [`DataPlane::listed`] has returned the result of the listing before.
    ///
    /// # Errors
    /// If the listing can't begin.
    fn begin_listing(&mut self, scope: &ReviewScope) -> Result<(), DataPlaneError>;

    /// Returns the result of the listing that was begun last, once. `None` while it is not complete: an error if the kernel can't be read.
    fn listed(&mut self) -> Option<Listing<Self::ConntrackEntry>>;

    /// Revokes connections, each given with the orientation that is denied: none of their packets passes any longer, in either
    /// direction, even if their entries are deleted. A connection that has ended meanwhile is no error.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn revoke(
        &mut self,
        connections: &[(FiveTuple, &Self::ConntrackEntry)],
    ) -> Result<RevocationSummary, DataPlaneError>;

    /// Tells that a listing of all labelled connections has found none, so that packets need not be compared with revoked connections until
    /// one is revoked.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn none_revoked(&mut self) -> Result<(), DataPlaneError> {
        Ok(())
    }

    /// Restores revoked connections: those with these tuples, and those of these entries.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    fn restore(
        &mut self,
        tuples: &[FiveTuple],
        entries: &[&Self::ConntrackEntry],
    ) -> Result<(), DataPlaneError>;

    /// Whether a connection was revoked in this orientation and not restored since.
    fn is_revoked(&self, tuple: &FiveTuple) -> bool;

    /// Returns all connections that were revoked and not restored since, by this run or a previous one, each from client to
    /// server.
    fn revoked(&self) -> Vec<FiveTuple>;

    /// Returns up to `count` of these connections, in order, after the one given. `O(count + log connections)`.
    fn revoked_after(&self, after: Option<&FiveTuple>, count: usize) -> Vec<FiveTuple>;

    /// Whether any connection is revoked.
    fn has_revoked(&self) -> bool;
}

//! What the dispatch maps lead to.

use palisade_policy::Direction;

/// The decision that a local pod's dispatch map jumps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum JumpTarget {
    /// The policy table of this direction.
    Table(Direction),
    /// What the pod may use of itself, where that is less than everything.
    Hairpin,
    /// The policy table of this direction, applied to a packet that would be a reply: the pod isolated for ingress is
    /// its source, the pod isolated for egress its destination.
    Reply(Direction),
    /// The policy table of this direction if every policy were enforced. It drops nothing.
    Audit(Direction),
    /// [`JumpTarget::Hairpin`] if every policy were enforced. It drops nothing.
    AuditHairpin,
}

impl JumpTarget {
    /// All targets.
    pub(crate) const ALL: [Self; 8] = [
        Self::Table(Direction::Egress),
        Self::Table(Direction::Ingress),
        Self::Hairpin,
        Self::Reply(Direction::Egress),
        Self::Reply(Direction::Ingress),
        Self::Audit(Direction::Egress),
        Self::Audit(Direction::Ingress),
        Self::AuditHairpin,
    ];

    /// Returns whether its chains drop packets. Those for policies in audit mode don't.
    pub(crate) fn is_enforced(self) -> bool {
        !matches!(self, Self::Audit(_) | Self::AuditHairpin)
    }

    /// Returns the direction that its denials count as.
    ///
    /// A pod that connects to itself is both ends. Its denials count as egress, which is evaluated first elsewhere too.
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Table(direction) | Self::Reply(direction) | Self::Audit(direction) => direction,
            Self::Hairpin | Self::AuditHairpin => Direction::Egress,
        }
    }
}

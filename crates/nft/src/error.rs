//! Errors of the crate.

use std::{io, net::IpAddr};

use palisade_policy::{Direction, PeerSetId, PolicyTableId};
use thiserror::Error as ThisError;

/// Why the kernel could not be programmed or read.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The kernel lacks nftables, or its `inet` family.
    #[error(
        "this kernel has no nftables: build or load nf_tables with CONFIG_NF_TABLES_INET (Linux 5.10 or later)"
    )]
    NoNftables(#[source] io::Error),
    /// The caller may not change this network namespace.
    #[error(
        "no permission to change the firewall of this network namespace: CAP_NET_ADMIN is required, so run as root or in a user namespace of your own"
    )]
    NoPermission(#[source] io::Error),
    /// The kernel has no tables that belong to a socket and end with it.
    #[error("this kernel has no tables that belong to a process: that needs Linux 5.12 or later")]
    NoTableOwners(#[source] io::Error),
    /// The table belongs to another program's socket, and the kernel refuses changes by all others.
    #[error(
        "table inet {table} belongs to another program (netlink port {port}), and only that program can change it: stop the program"
    )]
    Owned {
        /// The table's name.
        table: &'static str,
        /// The netlink port of the socket, usually the id of its process.
        port: u32,
    },
    /// The kernel can't list connections.
    #[error(
        "this kernel can't list established connections: load nf_conntrack_netlink (CONFIG_NF_CT_NETLINK); until then, established connections that policies deny are not revoked"
    )]
    NoConntrack(#[source] io::Error),
    /// A socket call failed.
    #[error("netlink socket: {doing} failed")]
    Socket {
        /// Which call.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one object, and with it the whole transaction.
    #[error("{object}: {reason}{}", detail(.kernel_message, .more))]
    Refused {
        /// The object that could not be programmed.
        object: String,
        /// The kernel's error number.
        reason: io::Error,
        /// The kernel's message (extended acknowledgement), if any.
        kernel_message: Option<String>,
        /// How many further messages of the transaction were refused.
        more: usize,
    },
    /// The kernel doesn't deliver the packets of an nflog group.
    #[error(
        "cannot read nflog group {group}: another program reads it already (one agent per node), or CAP_NET_ADMIN is missing"
    )]
    LogGroupBusy {
        /// The group.
        group: u16,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// One indivisible step exceeds the socket's buffer.
    #[error("{object} takes {bytes} bytes, and the netlink socket accepts {limit}: raise net.core.wmem_max")]
    TooLarge {
        /// The first object of the step.
        object: String,
        /// The size of the step.
        bytes: usize,
        /// The size of the largest batch.
        limit: usize,
    },
    /// The kernel's reply is malformed, or none arrived.
    #[error("the kernel's reply is unusable: {0}")]
    InvalidReply(String),
    /// Another program changed the table during each attempt to read it.
    #[error(
        "table inet palisade changed during each of {0} attempts to read it: another program keeps rewriting it"
    )]
    KeepsChanging(usize),
    /// The plan contradicts itself. Nothing was sent.
    #[error("the plan contradicts itself")]
    Plan(#[from] PlanError),
    /// A transaction failed after earlier ones of the same change, and the rollback failed too. The next commit starts
    /// with a repair.
    #[error(
        "{cause}; the part of the change that was already made could not be rolled back ({repair}): the next commit starts with a repair"
    )]
    RollbackFailed {
        /// The first failure.
        #[source]
        cause: Box<Self>,
        /// Why the rollback failed.
        repair: Box<Self>,
    },
}

fn detail(kernel_message: &Option<String>, more: &usize) -> String {
    let mut out = kernel_message.as_ref().map_or_else(String::new, |text| format!(" (kernel: {text})"));
    if *more > 0 {
        out.push_str(&format!("; {more} further messages were refused"));
    }
    out
}

impl Error {
    /// Returns the error number of the system call, or of the kernel's refusal.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::NoNftables(e) | Self::NoPermission(e) | Self::NoConntrack(e) | Self::NoTableOwners(e) => {
                e.raw_os_error()
            }
            Self::Socket { source: e, .. }
            | Self::LogGroupBusy { source: e, .. }
            | Self::Refused { reason: e, .. } => e.raw_os_error(),
            Self::RollbackFailed { cause, .. } => cause.os_error(),
            _ => None,
        }
    }
}

/// How a plan or delta contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum PlanError {
    /// A local address refers to a table that the plan lacks.
    #[error("{direction} of {address} refers to table {table}, which the plan lacks")]
    NoTable {
        /// The direction.
        direction: Direction,
        /// The local address.
        address: IpAddr,
        /// The table.
        table: PolicyTableId,
    },
    /// A local address refers to a table of the other direction.
    #[error("{direction} of {address} refers to table {table}, which is for the other direction")]
    WrongDirection {
        /// The direction.
        direction: Direction,
        /// The local address.
        address: IpAddr,
        /// The table.
        table: PolicyTableId,
    },
    /// A table refers to a peer set that the plan lacks.
    #[error("table {table} refers to peer set {peer_set}, which the plan lacks")]
    NoPeerSet {
        /// The table.
        table: PolicyTableId,
        /// The peer set.
        peer_set: PeerSetId,
    },
    /// A table uses a set of ranges as a set of single addresses, or the reverse.
    #[error("table {table} uses peer set {peer_set} as one of the other kind")]
    WrongKind {
        /// The table.
        table: PolicyTableId,
        /// The peer set.
        peer_set: PeerSetId,
    },
    /// A peer set in use changed its kind or its ranges. A set's id stands for both.
    #[error("peer set {0} is in use and can't change its kind or its ranges")]
    PeerSetChanged(PeerSetId),
    /// Two chains or sets with different content have the same name: a hash collision, which must be deliberate.
    #[error(
        "two {kind}s with different content are both named {name}: nothing that needs the second is programmed"
    )]
    NameTaken {
        /// What has the name.
        kind: &'static str,
        /// The name.
        name: palisade_policy::Name,
    },
    /// A peer set in use was removed.
    #[error("peer set {0} is removed but still in use")]
    PeerSetInUse(PeerSetId),
}

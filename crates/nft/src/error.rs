//! What can go wrong.

use std::{io, net::IpAddr};

use palisade_policy::{Direction, PeerSetId, PolicyTableId};
use thiserror::Error as ThisError;

/// Why the kernel could not be programmed or read.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The kernel lacks nftables, or its `inet` family.
    #[error(
        "this kernel has no nftables: build or load nf_tables with CONFIG_NF_TABLES_INET (Linux 5.13 or later)"
    )]
    NoNftables(#[source] io::Error),
    /// The caller may not change this network namespace.
    #[error(
        "no permission to change the firewall of this network namespace: it takes CAP_NET_ADMIN there, so run as root, or inside a user namespace of your own"
    )]
    NoPermission(#[source] io::Error),
    /// The table of our name belongs to somebody's socket, and the kernel refuses all others.
    #[error(
        "table inet palisade belongs to another program (netlink port {port}), which alone may change it: end that program"
    )]
    Owned {
        /// The netlink port of the socket: as a rule the id of its process.
        port: u32,
    },
    /// The kernel can't list connections.
    #[error(
        "this kernel can't tell which connections are open: load nf_conntrack_netlink (CONFIG_NF_CT_NETLINK); until then open connections that policies deny are not cut"
    )]
    NoConntrack(#[source] io::Error),
    /// A socket call failed.
    #[error("netlink socket: {doing} failed")]
    Socket {
        /// Which call.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one object, and with it the whole transaction.
    #[error("{about}: {reason}{}", detail(.kernel_says, .more))]
    Refused {
        /// The object that could not be programmed.
        about: String,
        /// The kernel's error number.
        reason: io::Error,
        /// The kernel's own words (extended acknowledgement), if any.
        kernel_says: Option<String>,
        /// How many further messages of the transaction were refused.
        more: usize,
    },
    /// The kernel does not send us what is logged to an nflog group.
    #[error(
        "cannot read nflog group {group}: another program reads it already (one agent per node), or CAP_NET_ADMIN is missing"
    )]
    GroupTaken {
        /// The group.
        group: u16,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// One indivisible step is larger than the socket takes even alone.
    #[error("{about} takes {bytes} bytes, and the netlink socket takes {limit}: raise net.core.wmem_max")]
    TooLarge {
        /// What the step is about.
        about: String,
        /// Its size.
        bytes: usize,
        /// The largest that could be sent.
        limit: usize,
    },
    /// The kernel's answer does not make sense, or never came.
    #[error("the kernel's answer can't be used: {0}")]
    Answer(String),
    /// Somebody else kept changing what was being read.
    #[error(
        "table inet palisade changed during each of {0} attempts to read it: another program rewrites it all the time"
    )]
    NeverQuiet(usize),
    /// The plan contradicts itself; nothing was sent.
    #[error("the plan contradicts itself")]
    Plan(#[from] PlanError),
    /// A transaction failed after earlier ones of the same change, and going back failed too. The next commit repairs.
    #[error(
        "{cause}; and the earlier part of the change could not be taken back ({repair}): the next commit starts with a repair"
    )]
    Torn {
        /// The first failure.
        #[source]
        cause: Box<Self>,
        /// Why going back failed.
        repair: Box<Self>,
    },
}

fn detail(kernel_says: &Option<String>, more: &usize) -> String {
    let mut out = kernel_says.as_ref().map_or_else(String::new, |text| format!(" (kernel: {text})"));
    if *more > 0 {
        out.push_str(&format!("; {more} further messages were refused"));
    }
    out
}

impl Error {
    /// The error number of the system call or of the kernel's refusal.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::NoNftables(e) | Self::NoPermission(e) | Self::NoConntrack(e) => e.raw_os_error(),
            Self::Socket { source: e, .. }
            | Self::GroupTaken { source: e, .. }
            | Self::Refused { reason: e, .. } => e.raw_os_error(),
            Self::Torn { cause, .. } => cause.os_error(),
            _ => None,
        }
    }
}

/// How a plan or delta contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum PlanError {
    /// A local address leads to a table that the plan lacks.
    #[error("{direction} of {address} leads to table {table}, which the plan lacks")]
    NoTable {
        /// The dispatch.
        direction: Direction,
        /// The local address.
        address: IpAddr,
        /// The table.
        table: PolicyTableId,
    },
    /// A local address leads to a table of the other direction.
    #[error("{direction} of {address} leads to table {table}, which decides the other direction")]
    WrongDirection {
        /// The dispatch.
        direction: Direction,
        /// The local address.
        address: IpAddr,
        /// The table.
        table: PolicyTableId,
    },
    /// A table mentions a group that the plan lacks.
    #[error("table {table} mentions group {group}, which the plan lacks")]
    NoGroup {
        /// The table.
        table: PolicyTableId,
        /// The group.
        group: PeerSetId,
    },
    /// A table asks for exact members of a group of ranges, or the reverse.
    #[error("table {table} mentions group {group} among those of the other kind")]
    WrongKind {
        /// The table.
        table: PolicyTableId,
        /// The group.
        group: PeerSetId,
    },
    /// A group that is in use changed its kind or its ranges, which its name promises not to do.
    #[error("group {0} is in use and can't change its kind or its ranges")]
    GroupChanged(PeerSetId),
    /// Two chains or sets with different contents have one name: a collision of hashes, which somebody has worked for.
    #[error(
        "two {kind}s that say different things are both named {name}: nothing is programmed that needs the second"
    )]
    NameTaken {
        /// What has the name.
        kind: &'static str,
        /// The name.
        name: palisade_policy::Name,
    },
    /// A group that is in use was removed.
    #[error("group {0} is removed and still in use")]
    GroupInUse(PeerSetId),
}

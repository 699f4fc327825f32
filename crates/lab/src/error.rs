//! Why a lab could not be built or changed.

use std::{error::Error, io, net::SocketAddr};

use nix::errno::Errno;
use palisade_policy::Name;

use palisade_netns::rtnetlink::NetlinkError;

use crate::{
    enforce::EnforceError, layout::LayoutError, servers::ServerError, translation::TranslationError,
};

/// Why a lab could not be built or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The cluster can't be laid out.
    #[error("cannot lay the cluster out")]
    Layout(#[from] LayoutError),
    /// A namespace could not be made or entered.
    #[error("cannot make or enter the network namespace of {place}{}", namespace_cure(source))]
    Namespace {
        /// The pod, the node or the outside.
        place: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A sysctl of a namespace could not be set.
    #[error("cannot set the sysctls of {place}")]
    Setting {
        /// The pod, the node or the outside.
        place: String,
        /// The sysctl and the kernel's error.
        #[source]
        source: io::Error,
    },
    /// The packets of bridged pods would bypass the nodes' rules.
    #[error(
        "the kernel does not pass bridged packets to netfilter: load br_netfilter (modprobe br_netfilter), or run the lab \
         without bridges"
    )]
    NoBridgeNetfilter(#[source] io::Error),
    /// Links, addresses or routes could not be changed.
    #[error("cannot build the network of {place}")]
    Network {
        /// The pod, the node or the outside.
        place: String,
        /// The failed request.
        #[source]
        source: NetlinkError,
    },
    /// The service rules of a node could not be programmed.
    #[error("cannot translate services on node {node}")]
    Services {
        /// The node.
        node: Name,
        /// The kernel's error.
        #[source]
        source: TranslationError,
    },
    /// A listening socket could not be opened.
    #[error("cannot open the listening sockets of the lab")]
    Servers(#[from] ServerError),
    /// A DNS server could not be started.
    #[error("cannot start the DNS server at {at} of {place}")]
    Dns {
        /// Where it listens.
        at: SocketAddr,
        /// The pod, the node or the outside.
        place: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A node's enforcer failed.
    #[error("node {node} cannot enforce the policies")]
    Enforce {
        /// The node.
        node: Name,
        /// The enforcer's error.
        #[source]
        source: EnforceError,
    },
    /// The lab has no such namespace.
    #[error("the lab has no {0}")]
    NoSuchPlace(String),
    /// The records of a node can't be read.
    #[error("reading the records of flows")]
    Records(#[source] Box<dyn Error + Send + Sync>),
}

fn namespace_cure(e: &io::Error) -> &'static str {
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => {
            ": too many network namespaces exist, raise the sysctl user.max_net_namespaces"
        }
        Some(Errno::EMFILE) => ": too many open files, raise the limit with `ulimit -n`",
        _ => "",
    }
}

/// Returns an error and all its causes in one line, outermost first.
#[must_use]
pub fn with_causes(e: &dyn Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}

//! A Kubernetes network on one machine: network namespaces as nodes and pods, the real kernel, real probes.
//!
//! The lab builds the network of a cluster (a namespace for each node and each pod, veth pairs, routes or bridges, service
//! translation), starts an [`enforce::Enforce`] on every node, and opens real connections between all endpoints. Each outcome
//! is compared with the verdict of `palisade_policy::reference`. Nothing is mocked: the kernel decides about the packets.
//!
//! ```text
//!  Cluster ─► layout ─► lab ─┬─► network       namespaces, links, addresses, routes
//!            (pure)          ├─► enforce       one enforcer per node: the agent, or none
//!                            ├─► translation   services, one nftables table per node
//!                            └─► servers       one listening socket per address and open port
//!                                    ▲
//!  layout ─► probe::Plan ─► probe::run ─► probe::Report      connections, compared with the reference
//! ```
//!
//! Usage: call [`sandbox::Sandbox::enter`] first in `main`, then [`Lab::build`] with the [`Layout`] of a
//! [`palisade_policy::Cluster`], then [`probe::Plan::of`] and [`probe::run`]. [`Lab::update`] changes a running lab to another
//! cluster.
//!
//! The lab uses netlink directly and starts no program. Namespaces have no name on disk: only file descriptors of this
//! process keep them alive, so even `kill -9` leaves nothing behind.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod agent;
pub mod bench;
pub mod dns;
pub mod enforce;
mod error;
pub mod fuzz;
pub mod lab;
pub mod layout;
mod network;
mod options;
pub mod outside;
pub mod ports;
pub mod probe;
#[cfg(feature = "records")]
pub mod records;
pub mod sandbox;
mod servers;
pub mod services;
pub mod soak;
pub mod translation;
mod wire;

pub use enforce::{Enforce, EnforceError};
pub use error::{LabError, with_causes};
pub use lab::{Lab, UpdateSummary};
pub use layout::{Layout, LayoutError, Place};
pub use options::{Families, LayoutOptions, OpenPort};
pub use palisade_netns::namespace;
pub use sandbox::{Sandbox, SandboxError};

//! A Kubernetes network on one machine: network namespaces as nodes and pods, the real kernel, real probes.
//!
//! The lab builds what a cluster's network is made of (a namespace per node, one per pod, veth pairs, routes or
//! bridges, service translation), starts an [`enforce::Enforce`] on every node, and opens real connections between all
//! endpoints. Each outcome is held against what `palisade_policy::reference` says. Nothing is mocked: the packets
//! are decided by the kernel.
//!
//! The order of use: [`sandbox::Sandbox::enter`] first thing in `main`, [`Lab::build`] with a
//! [`palisade_policy::Cluster`], then [`probe::Plan::of`] and [`probe::run`]; [`Lab::update`] brings a running lab to another
//! cluster.
//!
//! Everything speaks netlink itself, no program is started, and nothing is given a name on disk: namespaces live by
//! file descriptors of this process alone, so that even `kill -9` leaves nothing behind.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod agent;
pub mod bench;
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

//! A real Kubernetes cluster of two nodes on one machine, and the suites that run in it.
//!
//! ```text
//!  command ─► requirements, programs      on the machine: what is missing is said, or built
//!     │
//!     └► stage                            the run: namespaces, one tmpfs
//!          └► Cluster ─┬─► ControlPlane   etcd, API server (tests/cluster), controller manager, scheduler
//!               │      └─► Node × 2       namespaces with containerd, kubelet, kube-proxy
//!               └► suites
//! ```

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod cgroups;
pub mod cluster;
pub mod command;
pub mod images;
pub mod namespaces;
pub mod network;
pub mod node;
pub mod palisade;
pub mod pods;
pub mod probe;
pub mod programs;
pub mod progress;
pub mod report;
pub mod requirements;
pub mod results;
pub mod running;
pub mod stage;
pub mod starter;
pub mod suites;
pub mod traffic;
pub mod upstream;

pub use cluster::Cluster;

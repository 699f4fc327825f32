//! NRI, the Node Resource Interface of containerd and CRI-O, from the side of a plugin.
//!
//! A runtime with NRI calls its plugins at points in the life of a pod, and waits for their answers. Two of them matter here: when the network
//! of a pod is set up and no container of it runs yet (`RunPodSandbox`), and when the pod ends (`StopPodSandbox`, `RemovePodSandbox`).
//!
//! * [`Connection::open`] connects to the runtime's socket and registers the plugin.
//! * [`Connection::next`] returns one [`Event`] after the other. The runtime waits until the event's [`Answer`] is given, or until its
//!   time-out, after which it goes on without this plugin. An answer that is dropped is an error to the runtime: the pod does not start,
//!   and the kubelet tries again.
//! * A [`Sandbox`] is what the runtime says of a pod. It is checked, and bounded in size, but not compared with anything.
//!
//! Transport and messages:
//!
//! ```text
//! Unix socket ── mux (frames with a connection number) ─┬─ 1: ttrpc server, the service Plugin, called by the runtime
//!                                                       └─ 2: ttrpc client, the service Runtime, called to register
//! ```
//!
//! The messages are those of `nri.pkg.api.v1alpha1`, without the fields that nothing here reads.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod connection;
mod error;
mod event;
mod messages;
mod mux;
mod sandbox;
mod service;
mod text;

pub use connection::{Connection, Identity};
pub use error::NriError;
pub use event::{Answer, Event, RuntimeInfo};
pub use sandbox::{InvalidSandbox, Sandbox};

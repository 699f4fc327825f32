//! The chained CNI plugin: holds the start of a pod until the agent has programmed it, where the container runtime has no NRI.
//!
//! ```text
//!   container runtime ── ADD (environment, standard input) ──► plugin ── attached pod ──► agent's socket
//!                     ◄── result of the previous plugin ─────        ◄── outcome ───────
//!                                                                │
//!                                                                └─► records: the pods that run, for an agent that starts
//!   agent ── install ──► the first configuration of the node, by atomic rename
//! ```
//!
//! The plugin ([`run`]) is a process of its own for each call: no async, no threads that outlive it. The agent reads its [`Attachment`]s from
//! the socket, and those of pods that started before it from the records.

mod attachment;
mod chain;
mod configuration;
mod error;
mod exchange;
mod file;
mod install;
mod plugin;
mod records;

pub use attachment::Attachment;
pub(crate) use chain::Entry;
pub use chain::PLUGIN_NAME;
pub use configuration::MAX_INPUT;
pub use error::CniError;
pub use install::InstallError;
pub(crate) use install::{Installed, Installer, uninstall};
pub use plugin::{Environment, Reply, run};
pub(crate) use records::Records;

//! Programs a [`NodePlan`] into nftables, and connection tracking.
//!
//! * [`Enforcer`] commits each [`Delta`] of the plan as one nftables transaction in the table `inet palisade`, which
//!   contains only what changed. The kernel then decides as [`NodePlan::decide`] does.
//! * [`conntrack`] lists the connections of local pods and revokes those that are denied now.
//! * [`cut_off`] closes pods in a separate table if the kernel refuses to close them in the agent's table.
//! * [`new_pods`] drops the packets of connections that are older than the pods that start, until they are deleted.
//! * [`close_node`] denies new connections of all pods of a node until the agent knows them.
//! * [`drops`] receives denied packets over nflog, and counts them.
//! * [`drift`] detects changes of the table by other programs.
//! * [`verify()`] reports where the kernel differs from a plan, and [`text()`] formats a plan in the syntax of `nft`.
//! * [`claim`] ensures that there is only one agent per network namespace.
//! * [`survey`] lists what other programs have in nftables, and [`watchpoint`] checks whether packets pass the hooks.
//! * [`reader`] reads the table back and evaluates packets, without sharing code with the encoder.
//! * [`uapi`] holds the kernel's constants under the kernel's names.
//!
//! The core is pure: `program` turns a delta into typed messages, `layout` a table into chains and sets, `encode` both
//! into bytes. The top of `program.rs` shows how data flows between the modules. Only the trait [`Transport`] uses a
//! socket.
//!
//! [`NodePlan`]: palisade_policy::NodePlan
//! [`NodePlan::decide`]: palisade_policy::NodePlan::decide
//! [`Delta`]: palisade_policy::Delta

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod base;
mod base_sets;
mod bridge;
pub mod claim;
mod closed_node;
pub mod conntrack;
pub mod cut_off;
mod denial;
mod discovery;
pub mod dns_table;
pub mod drift;
pub mod drops;
mod element_counts;
mod encode;
mod enforcer;
mod error;
mod expected;
mod features;
mod from_pods;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grace_period;
mod groups;
mod kernel;
mod layout;
mod log_shares;
pub mod new_pods;
mod next_plan;
mod node_links;
mod octets;
mod options;
pub mod packet_queue;
mod phases;
mod port_owner;
mod program;
pub mod reader;
mod reconcile;
mod refusal;
mod registry;
mod restart;
mod revocation;
mod revoked_tuples;
mod ruleset;
mod send;
mod sender_sets;
mod shares;
mod socket;
mod stand_in;
mod subscription;
pub mod survey;
mod text;
pub mod uapi;
mod verify;
pub mod watchpoint;

pub use closed_node::{CLOSED_NODE_TABLE, ClosedPods, close_node, open_node};
pub use enforcer::{Enforcer, remove};
pub use error::{Error, PlanError};
pub use features::Feature;
pub use kernel::Kernel;
pub use layout::LINEAR_LOOKUPS;
pub use log_shares::{
    LOG_AUDIT_EGRESS, LOG_AUDIT_INGRESS, LOG_BURST, LOG_EGRESS, LOG_INGRESS, LOG_RATE, LOG_TOTAL_BURST,
    LOG_TOTAL_RATE,
};
pub use node_links::NodeLinks;
pub use options::{EnforcerOptions, MAX_ALLOWED_SOURCES, SourceCheck};
pub use port_owner::{Mac, PortOwner};
pub use reconcile::{Commit, ExistingTable};
pub use refusal::{REFUSE_BURST, REFUSE_RATE, REFUSE_TOTAL_BURST, REFUSE_TOTAL_RATE};
pub use revocation::RevocationSummary;
pub use ruleset::{Hook, TABLE};
pub use socket::{NetlinkSocket, Transport};
pub use stand_in::STAND_IN_TABLE;
pub use text::text;
pub use verify::{Difference, Verification, verify};

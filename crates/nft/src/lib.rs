//! A [`NodePlan`] in the kernel.
//!
//! * [`Enforcer`] holds the plan as programmed and commits each [`Delta`] as one nftables transaction in the table
//!   `inet palisade`, carrying only what differs. Its meaning in the kernel is [`NodePlan::decide`].
//! * [`conntrack`] lists the connections of local pods and cuts those that are denied now.
//! * [`cut_off`] closes pods in a table of their own where the kernel refuses to close them in ours.
//! * [`drops`] hears of denied packets and reads how many there were.
//! * [`drift`] hears when somebody else touches our table.
//! * [`verify()`] says where the kernel differs from a plan, and [`text()`] what a plan is in the syntax of `nft`.
//! * A [`claim`] is the right to be the only agent of a network namespace.
//! * [`survey`] names what others have in nftables, and a [`watchpoint`] counts whether packets come by at all.
//! * [`reader`] reads the table back and takes packets through it, without any code of the writing side.
//!
//! The core is pure: `program` turns a delta into typed messages, `layout` a table into chains and sets, `encode` both
//! into bytes. One trait, [`Transport`], is all that touches a socket.
//!
//! [`NodePlan`]: palisade_policy::NodePlan
//! [`NodePlan::decide`]: palisade_policy::NodePlan::decide
//! [`Delta`]: palisade_policy::Delta

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod base;
mod bridge;
pub mod claim;
pub mod conntrack;
pub mod cut_off;
mod discovery;
pub mod drift;
pub mod drops;
mod encode;
mod enforcer;
mod error;
mod features;
mod from_pods;
mod holdings;
mod kernel;
mod layout;
mod next;
mod program;
pub mod reader;
mod registry;
mod restart;
mod revocation;
mod ruleset;
mod send;
mod socket;
mod subscription;
mod surroundings;
pub mod survey;
mod text;
mod verify;
pub mod watchpoint;

pub use enforcer::{Commit, Enforcer, Left, Options, remove};
pub use error::{Error, PlanError};
pub use features::Feature;
pub use kernel::Kernel;
pub use layout::{LINEAR, LOG_BURST, LOG_EGRESS, LOG_INGRESS, LOG_RATE};
pub use revocation::Revoked;
pub use ruleset::{Hook, TABLE};
pub use socket::{NetlinkSocket, Transport};
pub use surroundings::Surroundings;
pub use text::text;
pub use verify::{Difference, Verification, verify};

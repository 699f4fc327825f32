//! Questions over a whole cluster.
//!
//! Where [`palisade_policy::reference`] decides one connection, this crate answers for all of them at once:
//! * [`connections`]: who may reach whom, between workloads and with the outside.
//! * [`describe()`]: one workload, who may reach it and why, and what it is exposed to.
//! * [`diff()`]: what a change of a cluster opens and closes, and which policies did it.
//! * [`explain()`]: one pair of ends, and what decides which port; [`edit`]: what would change that.
//!
//! Every answer is a value; nothing here prints or reads files, and nothing here knows what a policy means: the policy
//! crate is asked. What makes whole clusters affordable is in the module `reach`: pods that no policy can tell apart are
//! counted once.

#![forbid(unsafe_code)]

mod classes;
pub mod connections;
pub mod describe;
pub mod diff;
pub mod edit;
pub mod end;
pub mod entrances;
pub mod explain;
mod families;
mod grouping;
mod matching;
mod numbering;
mod public;
mod query;
mod reach;
pub mod regions;
mod representative;
pub mod shape;
mod space;
mod traffics;
mod witness;

pub use connections::{Connections, Edge};
pub use describe::{Description, describe};
pub use diff::{Diff, diff};
pub use end::ConnectionEnd;
pub use entrances::Entrances;
pub use explain::{Explanation, explain};
pub use families::Families;
pub use query::{ConnectionsOptions, EndFilter, GroupBy};

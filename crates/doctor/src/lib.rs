//! Checks whether network policies can work on a machine, and names a cure for each problem.
//!
//! [`examine`] inspects one node from inside its network namespace and changes nothing there: kernel features are tried in a
//! temporary network namespace, and the self-test's links are removed when it ends. [`report`] renders the findings.
//!
//! ```text
//!            ┌── Node ── /proc, interfaces (rtnetlink), tables (nftables)
//!  examine ──┼── Enforcer in a temporary network namespace
//!  (checks)  ├── self-test: two namespaces, packets between them
//!            └── Rights ── API server
//!     │
//!     └──► Finding (id, status, what was found, cure) ──► report: text, JSON
//! ```
//!
//! To add a check, write a file in `checks` and list its function in `checks::GROUPS`.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod checks;
mod examine;
mod finding;
mod interfaces;
mod node;
pub mod report;
mod self_test;

pub use examine::{Scope, examine};
pub use finding::{Finding, Status};

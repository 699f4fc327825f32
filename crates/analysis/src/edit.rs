//! Edits that would allow or deny what a question asks about, as data: which object, and what to add, replace or remove.
//!
//! Candidates are judged by comparing the connections of the cluster with and without them, so each [`Plan`] says what
//! else it opens and closes. A plan is only returned if the reference then gives the requested verdict for every pair of
//! the question.
//!
//! ```text
//! Question ─► gap: the first pair and direction that denies ─► candidates ─► judged by Effects ─► the best is applied
//!                ▲                                                                                   │
//!                └────────────────────── until every pair is allowed ────────────────────────────────┘
//! ```

mod action;
mod allow;
mod apply;
mod deny;
mod effect;
mod gap;
mod plan;
mod question;
mod select;

pub use action::{Edit, RuleEdit};
pub use apply::{applied, applied_all};
pub use deny::to_deny;
pub use effect::{Effect, PairChange};
pub use plan::{Plan, to_allow};
pub use question::{Pair, Question};
pub use select::{DeclaredLabels, DeclaredWorkloads};
pub(crate) use select::{Selectors, peer_for, stable_labels};

//! Rules that find likely mistakes in network policies, each with a code, a name, documentation, a bad and a good example.
//!
//! ```text
//! Loaded (manifest) ─┐
//!                    ├─► Context: what is written, what selectors match ─► RULES ─► findings ─► suppressions ─► LintReport
//! texts of the files ┘
//! ```
//!
//! A rule is one file in `rules` and one entry in [`RULES`]. What a selector matches is what the policy crate says, and what
//! is wrong with a manifest is what the manifest crate says: a rule names it, and says what happens in the cluster.

#![forbid(unsafe_code)]

mod admits;
mod aliases;
mod context;
mod cover;
mod diagnostics;
mod field;
mod finding;
mod fix;
mod index;
mod level;
mod lint;
mod matching;
mod miss;
mod near;
mod needed;
mod plugin;
mod report;
mod resolvers;
mod rule;
mod rules;
mod service_addresses;
mod suppress;
mod text;
mod wide;
mod written;

pub use field::locate;
pub use finding::{Affected, Fix, TextEdit};
pub use fix::fixed;
pub use level::Level;
pub use lint::{LintOptions, LintReport, lint};
pub use plugin::Plugin;
pub use report::Finding;
pub use rule::{LintRule, selected, suggestions};
pub use rules::{RULES, rule};
pub use suppress::SuppressionProblem;
pub use text::SourceText;
pub use written::ANNOTATION;

//! What a rule found.

use std::ops::Range;

use palisade_policy::{Name, Origin, PolicyKey};

use crate::level::Level;

/// A change of a file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEdit {
    /// The file.
    pub file: Name,
    /// The bytes that are replaced.
    pub range: Range<usize>,
    /// What replaces them.
    pub text: String,
}

/// Edits that belong together and correct a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What they do, as an imperative: `make both items one rule`.
    pub text: String,
    /// The edits, all of one file.
    pub edits: Vec<TextEdit>,
}

/// The workloads that a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// How many pods.
    pub pods: usize,
    /// The first workloads, as `namespace/name`.
    pub sample: Vec<String>,
}

/// What the check of a rule returns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) level: Option<Level>,
    pub(crate) origin: Option<Origin>,
    pub(crate) policy: Option<PolicyKey>,
    pub(crate) object: Option<String>,
    /// The pods of what is no policy. Those of a policy are the ones that it selects.
    pub(crate) affected: Affected,
    pub(crate) message: String,
    pub(crate) fix: Option<Fix>,
}

impl Found {
    /// Makes a finding about a policy.
    pub(crate) fn of(key: &PolicyKey, origin: Option<&Origin>, message: String) -> Self {
        let origin = origin.cloned();
        Self { origin, policy: Some(key.clone()), message, ..Self::default() }
    }

    /// Sets the level, which is otherwise that of the rule.
    pub(crate) fn at_level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// Adds what corrects it.
    pub(crate) fn with_fix(mut self, fix: Option<Fix>) -> Self {
        self.fix = fix;
        self
    }
}

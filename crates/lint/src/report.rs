//! A finding with its rule.

use palisade_policy::Origin;

use crate::{
    finding::{Affected, Fix},
    level::Level,
    rule::LintRule,
};

/// A finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static LintRule,
    /// How much it matters.
    pub level: Level,
    /// The position, if it comes from a file.
    pub origin: Option<Origin>,
    /// The object, such as `NetworkPolicy shop/web`.
    pub object: Option<String>,
    /// The field of the object, as the API server writes it: `spec.ingress[0].from[1]`. `None` for the object itself, and for a finding of a
    /// file until [`crate::locate`] has found it.
    pub field: Option<String>,
    /// What is wrong and what happens in the cluster, in one sentence.
    pub message: String,
    /// The line of the file.
    pub line: Option<String>,
    /// The pods that the policy selects.
    pub affected: Affected,
    /// What corrects it.
    pub fix: Option<Fix>,
    /// Stays the same when lines are inserted above: 16 hexadecimal digits.
    pub fingerprint: String,
}

impl Finding {
    /// Makes an error of a warning, and of whatever a rule about exposure finds.
    pub fn make_strict(&mut self) {
        if self.level == Level::Warning || self.rule.is_exposure() {
            self.level = Level::Error;
        }
    }
}

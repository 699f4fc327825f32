//! What a rule is.

use crate::{aliases::aliases, context::Context, finding::Found, level::Level};

/// A rule with its documentation.
#[derive(Debug)]
pub struct LintRule {
    /// The stable code, such as `PAL017`.
    pub code: &'static str,
    /// The stable name, such as `ports-in-own-rule`.
    pub name: &'static str,
    /// The level of its findings. A finding may have a lower one, if it depends on what files need not contain.
    pub level: Level,
    /// What it finds, in one sentence.
    pub what: &'static str,
    /// Why that is probably a mistake, and what happens in the cluster.
    pub why: &'static str,
    /// What `--fix` does; `None` if it does nothing.
    pub fix: Option<&'static str>,
    /// Manifests in which the rule finds something.
    pub bad: &'static str,
    /// The same, put right.
    pub good: &'static str,
    /// Looks for it.
    pub(crate) check: fn(&Context<'_>) -> Vec<Found>,
}

impl LintRule {
    /// Returns whether the rule is about exposure: what is open, rather than what is a mistake.
    #[must_use]
    pub fn is_exposure(&self) -> bool {
        // PAL049 is left out: isolation in one direction is a choice.
        ("PAL039"..="PAL050").contains(&self.code) && self.code != "PAL049"
    }

    /// Returns whether its findings are about the key at their position, and not about the value that begins there.
    pub(crate) fn is_about_keys(&self) -> bool {
        matches!(
            self.name,
            "dns-label-mismatch"
                | "empty-vs-absent"
                | "label-not-on-template"
                | "namespace-label-guess"
                | "typo-near-label"
                | "unknown-field"
                | "volatile-label"
                | "wrong-direction-key"
        )
    }

    /// Returns whether a word selects the rule: its code or name, or the beginning of either.
    #[must_use]
    pub fn is_selected_by(&self, word: &str) -> bool {
        let starts =
            |text: &str| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        !word.is_empty() && (starts(self.code) || starts(self.name) || aliases(self.code).any(starts))
    }
}

/// Returns the names that are nearly a word that selects nothing, closest first, and the code with the same number. Empty if
/// nothing is near.
#[must_use]
pub fn suggestions(rules: &[&LintRule], word: &str) -> Vec<String> {
    // Every code is two digits away from every other, so only another way to write the number is near.
    let number = word.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let code = number.map(|number| format!("PAL{number:03}"));
    if let Some(rule) = rules.iter().find(|rule| Some(rule.code) == code.as_deref()) {
        return vec![rule.code.to_owned()];
    }
    let names = rules.iter().flat_map(|rule| aliases(rule.code).chain([rule.name]));
    palisade_names::near(&word.to_ascii_lowercase(), names.map(|name| (name, name.to_owned())))
}

/// Returns the rules that are selected and not ignored, or the word that selects nothing. No word in `select` selects all.
///
/// # Errors
/// The first word that is neither a code nor a name nor the beginning of one.
pub fn selected<'w>(
    rules: &[&'static LintRule],
    select: &'w [String],
    ignore: &'w [String],
) -> Result<Vec<&'static LintRule>, &'w str> {
    let known = |word: &&'w String| rules.iter().any(|rule| rule.is_selected_by(word));
    if let Some(word) = select.iter().chain(ignore).find(|word| !known(word)) {
        return Err(word);
    }
    let any = |words: &[String], rule: &LintRule| words.iter().any(|word| rule.is_selected_by(word));
    let chosen = rules.iter().copied();
    Ok(chosen.filter(|r| (select.is_empty() || any(select, r)) && !any(ignore, r)).collect())
}

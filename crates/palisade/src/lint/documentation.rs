//! The documentation of a rule.

use palisade_lint::LintRule;

use crate::output::{Style, styled};

/// Returns what a rule finds, why, and its examples.
pub(super) fn text(rule: &LintRule) -> String {
    let heading = styled(Style::Strong, &format!("{} {} ({})", rule.code, rule.name, rule.level.as_str()));
    let fix = rule.fix.map_or_else(String::new, |fix| format!("--fix: {fix}\n\n"));
    let example = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let (bad, good) = (example(rule.bad), example(rule.good));
    format!("{heading}\n\n{}\n\n{}\n\n{fix}Found in:\n\n{bad}\nNot in:\n\n{good}", rule.what, rule.why)
}

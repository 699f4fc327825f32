//! Findings for people.

use palisade_lint::{Finding, Level};
use palisade_manifest::printable;

use super::Shown;
use crate::{
    inputs::plural,
    output::{Style, styled},
};

/// Returns the findings, and how many there are.
pub(super) fn text(shown: &Shown) -> String {
    let mut out: String = shown.findings.iter().map(finding).collect();
    let count = |level| shown.findings.iter().filter(|f| f.level == level).count();
    let levels = [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Note, "note")];
    let counts = levels.into_iter().map(|(level, noun)| (count(level), noun)).filter(|(n, _)| *n > 0);
    let mut parts: Vec<String> = counts.map(|(n, noun)| format!("{n} {}", plural(n, noun))).collect();
    if parts.is_empty() {
        parts.push(
            if shown.complete { "no findings" } else { "no findings in what could be read" }.to_owned(),
        );
    }
    let fixable = shown.findings.iter().filter(|f| f.fix.is_some()).count();
    let others = [
        (shown.fixed, "corrected".to_owned()),
        (fixable, "can be corrected with --fix".to_owned()),
        (shown.known, shown.known_from.to_owned()),
        (shown.suppressed, "suppressed".to_owned()),
        (shown.below, "less severe, not shown (--severity note)".to_owned()),
    ];
    parts.extend(others.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    out.push_str(&parts.join(", "));
    out.push('\n');
    out
}

/// Returns a finding for people.
pub(crate) fn finding(finding: &Finding) -> String {
    let style = match finding.level {
        Level::Error => Style::Bad,
        Level::Warning => Style::Open,
        Level::Note => Style::Strong,
    };
    let rule = finding.rule;
    let level = styled(style, &format!("{}[{}]:", finding.level.as_str(), rule.code));
    let mut out = format!("{level} {} ({})\n", printable(&finding.message), rule.name);
    if let Some(origin) = &finding.origin {
        let place = format!("{}:{}:{}", origin.file, origin.line, origin.column);
        out.push_str(&format!("  --> {}\n", printable(&place)));
        if let Some(line) = &finding.line {
            let number = origin.line.to_string();
            out.push_str(&format!("  {number} | {}\n", printable(line)));
        }
    }
    if let Some(object) = &finding.object {
        out.push_str(&format!("  object: {}\n", printable(object)));
    }
    let affected = &finding.affected;
    if affected.pods > 0 {
        let sample = printable(&affected.sample.join(", ")).into_owned();
        out.push_str(&format!("  applies to {} {}: {sample}\n", affected.pods, plural(affected.pods, "pod")));
    }
    if let Some(fix) = &finding.fix {
        out.push_str(&format!("  --fix: {}\n", printable(&fix.text)));
    }
    out.push('\n');
    out
}

//! Runs the rules.

use std::collections::HashMap;

use palisade_manifest::{Diagnostic, Loaded};

use crate::{
    context::Context,
    diagnostics,
    finding::{Affected, Found},
    report::Finding,
    rule::LintRule,
    rules::{RULES, names_diagnostic},
    suppress::{SuppressionProblem, Suppressions},
    text::SourceText,
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct LintReport {
    /// The findings that are not suppressed, by position.
    pub findings: Vec<Finding>,
    /// How many were suppressed.
    pub suppressed: usize,
    /// Suppressions of rules that don't exist.
    pub problems: Vec<SuppressionProblem>,
    /// What the loader found and no rule names.
    pub other: Vec<Diagnostic>,
}

/// Checks rules against objects and the texts that they come from. `default_namespace` is that of objects without one.
///
/// `O(rules × (policies × label sets of their namespaces + length of the texts))`.
#[must_use]
pub fn lint(
    loaded: &Loaded,
    sources: &[SourceText],
    rules: &[&'static LintRule],
    default_namespace: &str,
) -> LintReport {
    let cx = Context::new(loaded, sources);
    let suppressions = Suppressions::new(&cx, default_namespace);
    let mut findings: Vec<Finding> = Vec::new();
    for rule in rules {
        findings.extend((rule.check)(&cx).into_iter().map(|found| finding(&cx, rule, found)));
    }
    findings.sort_by(|a, b| {
        let key = |f: &Finding| f.origin.as_ref().map(|o| (o.file.clone(), o.line, o.column));
        (key(a), a.rule.code, &a.message).cmp(&(key(b), b.rule.code, &b.message))
    });
    findings.dedup_by(|a, b| a.rule.code == b.rule.code && a.origin == b.origin && a.message == b.message);
    let all = findings.len();
    findings.retain(|finding| !suppressions.suppress(finding));
    let suppressed = all - findings.len();
    fingerprint(&mut findings);
    let is_other = |d: &&Diagnostic| !(diagnostics::is_about_policy(d) && names_diagnostic(d));
    let other = loaded.diagnostics.iter().filter(is_other).cloned().collect();
    LintReport { findings, suppressed, problems: suppressions.problems, other }
}

impl LintReport {
    /// Returns the rules that found something.
    pub fn rules(&self) -> impl Iterator<Item = &'static LintRule> {
        RULES.iter().copied().filter(|rule| self.findings.iter().any(|f| f.rule.code == rule.code))
    }
}

fn finding(cx: &Context<'_>, rule: &'static LintRule, found: Found) -> Finding {
    let Found { level, origin, policy, object, message, fix } = found;
    let lines = origin.as_ref().and_then(|o| Some((cx.lines.get(&*o.file)?, o.line)));
    Finding {
        rule,
        level: level.unwrap_or(rule.level),
        line: lines.and_then(|(lines, line)| lines.line(line)).map(shortened),
        object: object.or_else(|| policy.as_ref().map(ToString::to_string)),
        affected: policy.as_ref().map_or_else(Affected::default, |key| cx.affected(key)),
        origin: origin.filter(|o| o.line > 0),
        message,
        fix,
        fingerprint: String::new(),
    }
}

/// Minified JSON is one long line.
fn shortened(line: &str) -> String {
    line.chars().take(200).collect::<String>().trim_end().to_owned()
}

/// Gives each finding a fingerprint of its rule, file, object and line of text, and a number if these are the same.
fn fingerprint(findings: &mut [Finding]) {
    let mut seen: HashMap<u64, u32> = HashMap::new();
    for finding in findings {
        let file = finding.origin.as_ref().map_or("", |o| &*o.file);
        let object = finding.object.as_deref().unwrap_or_default();
        let line = finding.line.as_deref().unwrap_or(&finding.message).trim();
        let same = hash(&[finding.rule.code, file, object, line], 0);
        let number = seen.entry(same).or_default();
        finding.fingerprint = format!("{:016x}", hash(&[finding.rule.code, file, object, line], *number));
        *number += 1;
    }
}

/// FNV-1a of 64 bits: the same on every machine and in every version.
fn hash(parts: &[&str], number: u32) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes
        .chain(number.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

//! Runs the rules.

use std::collections::HashMap;

use palisade_manifest::{Diagnostic, Loaded, Severity};

use crate::{
    context::Context,
    finding::Found,
    fix::in_quotes,
    plugin::Plugin,
    report::Finding,
    rule::LintRule,
    rules::{RULES, naming},
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
    /// What the loader found and none of the rules names.
    pub other: Vec<Diagnostic>,
    /// How many findings of the loader say that what was read is not what would be applied. A rule may name them; nothing
    /// else is known of these files.
    pub unrendered: usize,
}

/// What rules are checked against besides the input.
#[derive(Clone, Copy, Debug)]
pub struct LintOptions<'o> {
    /// The namespace of objects without one.
    pub default_namespace: &'o str,
    /// The network plugin of the cluster, if it is one that ignores something.
    pub plugin: Option<Plugin>,
}

/// Checks rules against objects and the texts that they come from.
///
/// `O(rules × (policies × label sets of their namespaces + length of the texts))`.
#[must_use]
pub fn lint(
    loaded: &Loaded,
    sources: &[SourceText],
    rules: &[&'static LintRule],
    options: &LintOptions<'_>,
) -> LintReport {
    let cx = Context::new(loaded, sources, options.plugin);
    let suppressions = Suppressions::new(&cx, options.default_namespace);
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
    let has = |rule: &LintRule| rules.iter().any(|r| r.code == rule.code);
    // An error of a rule that is not checked must not vanish: the object was not read.
    let is_named =
        |d: &Diagnostic| naming(d).is_some_and(|rule| has(rule) || d.severity == Severity::Warning);
    let other = loaded.diagnostics.iter().filter(|d| !is_named(d)).cloned().collect();
    let unrendered = loaded.diagnostics.iter().filter(|d| d.is_unrendered()).count();
    LintReport { findings, suppressed, problems: suppressions.problems, other, unrendered }
}

impl LintReport {
    /// Returns the rules that found something.
    pub fn rules(&self) -> impl Iterator<Item = &'static LintRule> {
        RULES.iter().copied().filter(|rule| self.findings.iter().any(|f| f.rule.code == rule.code))
    }
}

/// What a message about a policy in audit mode ends with: rules describe what happens once it is enforced.
const AUDITED: &str = " (the policy is in audit mode: this is how it would be if it were enforced)";

fn finding(cx: &Context<'_>, rule: &'static LintRule, found: Found) -> Finding {
    let Found { level, origin, policy, object, affected, message, fix } = found;
    let lines = origin.as_ref().and_then(|o| Some((cx.lines.get(&*o.file)?, o)));
    Finding {
        rule,
        level: level.unwrap_or(rule.level),
        line: lines.and_then(|(lines, origin)| lines.around(origin)),
        object: object.or_else(|| policy.as_ref().map(ToString::to_string)),
        // Of an object of a cluster, the name of the file is kubectl's name of the object, and the field.
        field: origin
            .as_ref()
            .filter(|o| o.line == 0)
            .and_then(|o| Some(o.file.split_once(' ')?.1.to_owned())),
        affected: policy.as_ref().map_or(affected, |key| cx.affected(key)),
        origin: origin.filter(|o| o.line > 0),
        message: if policy.as_ref().is_some_and(|key| cx.is_audited(key)) {
            message + AUDITED
        } else {
            message
        },
        fix: fix.map(|fix| in_quotes(cx, fix)),
        fingerprint: String::new(),
    }
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

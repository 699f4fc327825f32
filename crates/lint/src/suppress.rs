//! Comments and annotations that suppress rules.

use std::collections::BTreeMap;

use palisade_policy::{Name, Origin};

use crate::{context::Context, report::Finding, rule::LintRule, rules::rule};

/// What begins the list of rules in a comment.
const COMMENT: &str = "palisade: ignore[";

/// A suppression that suppresses nothing, because there is no such rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuppressionProblem {
    /// Where it is.
    pub origin: Origin,
    /// The word that is no rule.
    pub word: String,
}

/// The suppressions of all files.
pub(crate) struct Suppressions {
    /// By file and line.
    comments: BTreeMap<(Name, u32), Vec<&'static LintRule>>,
    /// By object, as findings name it.
    objects: BTreeMap<String, Vec<&'static LintRule>>,
    pub(crate) problems: Vec<SuppressionProblem>,
}

impl Suppressions {
    pub(crate) fn new(cx: &Context<'_>, default_namespace: &str) -> Self {
        let mut out = Self { comments: BTreeMap::new(), objects: BTreeMap::new(), problems: Vec::new() };
        for (file, lines) in &cx.lines {
            if !lines.text.contains(COMMENT) {
                continue;
            }
            let mut pending = Vec::new();
            for number in 1..=lines.count() {
                let line = lines.line(number).unwrap_or_default();
                let origin = Origin { file: (*file).into(), line: number, column: 1 };
                let own = comment(line).map(|words| out.rules(words, &origin)).unwrap_or_default();
                if line.trim_start().starts_with('#') {
                    pending.extend(own);
                    continue;
                }
                let mut all = std::mem::take(&mut pending);
                all.extend(own);
                if !all.is_empty() {
                    out.comments.insert((origin.file.clone(), number), all);
                }
            }
        }
        for written in &cx.written {
            let Some(words) = &written.ignored else { continue };
            let origin = cx.origin(&written.file, written.start);
            let origin = origin.unwrap_or(Origin { file: written.file.clone(), line: 0, column: 0 });
            let rules = out.rules(words, &origin);
            let (kind, namespace, name) = &written.name;
            let object = match kind.as_str() {
                "NetworkPolicy" => {
                    format!("{kind} {}/{name}", namespace.as_deref().unwrap_or(default_namespace))
                }
                _ => format!("{kind} {name}"),
            };
            out.objects.entry(object).or_default().extend(rules);
        }
        out.problems.sort_by(|a, b| {
            let key = |p: &SuppressionProblem| (p.origin.file.clone(), p.origin.line);
            key(a).cmp(&key(b))
        });
        out
    }

    fn rules(&mut self, words: &str, origin: &Origin) -> Vec<&'static LintRule> {
        let mut out = Vec::new();
        for word in words.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()) {
            match rule(word) {
                Some(rule) => out.push(rule),
                None => {
                    self.problems.push(SuppressionProblem { origin: origin.clone(), word: word.to_owned() });
                }
            }
        }
        out
    }

    /// Returns whether a finding is suppressed: on its line, in comments above the line, or on its object.
    pub(crate) fn suppress(&self, finding: &Finding) -> bool {
        let has = |rules: Option<&Vec<&LintRule>>| {
            rules.is_some_and(|rules| rules.iter().any(|r| r.code == finding.rule.code))
        };
        let on_line = finding.origin.as_ref().map(|o| (o.file.clone(), o.line));
        has(on_line.and_then(|line| self.comments.get(&line)))
            || has(finding.object.as_ref().and_then(|object| self.objects.get(object)))
    }
}

/// Returns the rules that a line's comment lists.
fn comment(line: &str) -> Option<&str> {
    let hash = line.find('#')?;
    let after = &line[hash..];
    let list = &after[after.find(COMMENT)? + COMMENT.len()..];
    list.split_once(']').map(|(list, _)| list)
}

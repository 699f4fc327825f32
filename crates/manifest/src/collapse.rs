//! Collapses findings of the same kind.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Severity};

/// Returns the first finding of each object, severity and code, with the number of the others in its message, so that
/// an object with ten thousand ambiguous addresses takes one line. Keeps the order. `O(findings · log findings)`.
#[must_use]
pub fn collapse(findings: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut at: BTreeMap<(Option<&str>, Severity, Code), usize> = BTreeMap::new();
    let mut out: Vec<(Diagnostic, usize)> = Vec::new();
    for finding in findings {
        let kind = (finding.object.as_deref(), finding.severity, finding.code);
        match at.get(&kind) {
            Some(index) => out[*index].1 += 1,
            None => {
                at.insert(kind, out.len());
                out.push((finding.clone(), 0));
            }
        }
    }
    let with_count = |(mut finding, more): (Diagnostic, usize)| {
        if more > 0 {
            let what = if finding.severity == Severity::Error { "error" } else { "warning" };
            let what = if more == 1 { what.to_owned() } else { format!("{what}s") };
            finding.message += &format!(" (and {more} more {what} of this kind: {})", finding.code);
        }
        finding
    };
    out.into_iter().map(with_count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_the_same_kind_become_one_with_a_count() {
        let finding = |severity, code, path: usize| Diagnostic {
            object: Some("NetworkPolicy a/b".to_owned()),
            path: Some(path.to_string()),
            ..Diagnostic::new(severity, code, "ambiguous")
        };
        let mut all: Vec<_> = (0..10_000).map(|n| finding(Severity::Warning, Code::Ambiguous, n)).collect();
        all.push(finding(Severity::Error, Code::Ambiguous, 1));
        all.push(Diagnostic { object: None, ..finding(Severity::Warning, Code::Ambiguous, 2) });
        let collapse: Vec<String> = collapse(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            collapse,
            [
                "warning: NetworkPolicy a/b: 0: ambiguous (and 9999 more warnings of this kind: ambiguous-value)",
                "error: NetworkPolicy a/b: 1: ambiguous",
                "warning: 2: ambiguous",
            ]
        );
    }
}

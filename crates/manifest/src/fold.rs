//! Many findings of one sort as one.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Severity};

/// The first finding of each severity and code of each object, with the number of the others in its message: an object of
/// ten thousand sloppy addresses is told in one line. The order is kept. `O(findings · log findings)`.
#[must_use]
pub fn folded(findings: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut at: BTreeMap<(Option<&str>, Severity, Code), usize> = BTreeMap::new();
    let mut out: Vec<(Diagnostic, usize)> = Vec::new();
    for finding in findings {
        let sort = (finding.object.as_deref(), finding.severity, finding.code);
        match at.get(&sort) {
            Some(index) => out[*index].1 += 1,
            None => {
                at.insert(sort, out.len());
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
    fn ten_thousand_are_one_with_a_count() {
        let finding = |severity, code, path: usize| Diagnostic {
            object: Some("NetworkPolicy a/b".to_owned()),
            path: Some(path.to_string()),
            ..Diagnostic::new(severity, code, "odd")
        };
        let mut all: Vec<_> = (0..10_000).map(|n| finding(Severity::Warning, Code::Ambiguous, n)).collect();
        all.push(finding(Severity::Error, Code::Ambiguous, 1));
        all.push(Diagnostic { object: None, ..finding(Severity::Warning, Code::Ambiguous, 2) });
        let folded: Vec<String> = folded(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            folded,
            [
                "warning: NetworkPolicy a/b: 0: odd (and 9999 more warnings of this kind: ambiguous-value)",
                "error: NetworkPolicy a/b: 1: odd",
                "warning: 2: odd",
            ]
        );
    }
}

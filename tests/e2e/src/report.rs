//! The table of results, as Markdown: what `docs/conformance.md` consists of.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use crate::results::Outcome;

/// Renders results.
///
/// # Errors
/// Never, into text.
pub fn render(outcomes: &[Outcome]) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(out, "| suite | passed | failed | not run | minutes | report |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | --- |")?;
    for outcome in outcomes {
        let reports: Vec<String> =
            outcome.reports.iter().map(|r| format!("[{r}](conformance/{r})")).collect();
        writeln!(
            out,
            "| `{}`: {} | {} | {} | {} | {} | {} |",
            outcome.suite,
            cell(&outcome.about),
            outcome.passed,
            number(outcome.failed.len(), "**"),
            number(outcome.skipped.len(), ""),
            minutes(outcome.seconds),
            reports.join(" "),
        )?;
    }
    section(&mut out, "Failed", outcomes, |o| o.failed.iter().map(|case| ("", case.as_str())).collect())?;
    section(&mut out, "Not run", outcomes, |o| {
        o.skipped.iter().map(|s| (s.reason.as_str(), s.case.as_str())).collect()
    })?;
    Ok(out)
}

/// The cases of one kind: by suite, and by reason where there is one.
fn section<'o>(
    out: &mut String,
    title: &str,
    outcomes: &'o [Outcome],
    cases: impl Fn(&'o Outcome) -> Vec<(&'o str, &'o str)>,
) -> fmt::Result {
    if outcomes.iter().all(|o| cases(o).is_empty()) {
        return Ok(());
    }
    writeln!(out, "\n## {title}\n")?;
    for outcome in outcomes {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (reason, case) in cases(outcome) {
            reasons.entry(reason).or_default().push(case);
        }
        for (reason, cases) in reasons {
            let reason = if reason.is_empty() { String::new() } else { format!(", {}", first_line(reason)) };
            writeln!(out, "* `{}`{reason}:", outcome.suite)?;
            for case in cases {
                writeln!(out, "  * {}", first_line(case))?;
            }
        }
    }
    Ok(())
}

fn number(count: usize, mark: &str) -> String {
    if count == 0 { "0".into() } else { format!("{mark}{count}{mark}") }
}

fn minutes(seconds: u64) -> String {
    format!("{}.{}", seconds / 60, seconds % 60 / 6)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end_matches(':')
}

fn cell(text: &str) -> String {
    first_line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Skipped;

    #[test]
    fn failures_and_what_was_not_run_are_named() {
        let passed = Outcome {
            suite: "one".into(),
            about: "the first | of two".into(),
            passed: 51,
            seconds: 605,
            reports: vec!["one.yaml".into()],
            ..Outcome::default()
        };
        let failed = Outcome {
            suite: "two".into(),
            about: "the second".into(),
            passed: 2,
            failed: vec!["a case: timed out\nat line 3".into()],
            skipped: vec![Skipped { reason: "no such kernel".into(), case: "another case".into() }],
            seconds: 59,
            ..Outcome::default()
        };
        let text = render(&[passed.clone(), failed]).expect("text");
        assert_eq!(
            text,
            "| suite | passed | failed | not run | minutes | report |\n\
             | --- | ---: | ---: | ---: | ---: | --- |\n\
             | `one`: the first \\| of two | 51 | 0 | 0 | 10.0 | [one.yaml](conformance/one.yaml) |\n\
             | `two`: the second | 2 | **1** | 1 | 0.9 |  |\n\n\
             ## Failed\n\n* `two`:\n  * a case: timed out\n\n\
             ## Not run\n\n* `two`, no such kernel:\n  * another case\n"
        );
        assert!(!render(&[passed]).expect("text").contains("##"));
    }
}

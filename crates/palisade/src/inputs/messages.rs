//! Prints what was found while reading: errors before warnings, what concerns policies before the rest, and findings
//! that differ only in their place together.

use std::collections::HashMap;

use palisade_manifest::{Code, Diagnostic, Loaded, Note, Severity, Style, render_group};

use crate::output::{self, styled};

/// The most groups to print that don't concern policies; of the others, the number is printed.
const MAX_PRINTED: usize = 50;

/// Prints diagnostics and notes, without warnings and notes if `quiet`.
pub(crate) fn report(loaded: &Loaded, quiet: bool) {
    report_new(loaded, &Loaded::default(), quiet);
}

/// As [`report`], without the diagnostics that `before` has too, wherever in the file they are. Of a file with more of the same kind than
/// before, as many as are new are printed.
pub(super) fn report_new(loaded: &Loaded, before: &Loaded, quiet: bool) {
    let mut known: HashMap<Said<'_>, usize> = HashMap::new();
    for diagnostic in &before.diagnostics {
        *known.entry(without_position(diagnostic)).or_default() += 1;
    }
    let mut shown: Vec<&Diagnostic> = Vec::new();
    for diagnostic in &loaded.diagnostics {
        match known.get_mut(&without_position(diagnostic)) {
            Some(count) if *count > 0 => *count -= 1,
            _ if diagnostic.severity == Severity::Error || !quiet => shown.push(diagnostic),
            _ => {}
        }
    }
    let (mut printed, mut left) = (0, 0);
    for group in groups(shown.into_iter()) {
        let matters = concerns_policy(group[0]);
        if !matters && printed >= MAX_PRINTED {
            left += group.len();
            continue;
        }
        printed += usize::from(!matters);
        // The writer strips colors where they don't belong.
        let style = Style { colour: true, width: output::width() };
        let text = render_group(&group, if matters { usize::MAX } else { 4 }, style);
        output::note(&format!("{text}\n\n"));
    }
    if left > 0 {
        output::note(&format!("… and {left} more\n\n"));
    }
    if !quiet {
        notes(&loaded.notes);
    }
}

/// What a diagnostic says, without the line and what is shown of it.
type Said<'d> = (Severity, Code, &'d str, Option<&'d str>, Option<&'d str>, Option<&'d str>);

fn without_position(d: &Diagnostic) -> Said<'_> {
    let file = d.origin.as_ref().map(|origin| &*origin.file);
    (d.severity, d.code, &d.message, d.object.as_deref(), d.path.as_deref(), file)
}

/// Prints notes, without space between them.
pub(crate) fn notes(notes: &[Note]) {
    let heading = styled(output::Style::Strong, "note:");
    let text: String = notes.iter().map(|note| format!("{heading} {}\n", note.text)).collect();
    output::note(&text);
}

/// Returns the diagnostics in groups that differ only in their place. The groups are in the order in which they are
/// printed; in a group, the order is that in which the diagnostics were found.
fn groups<'d>(all: impl Iterator<Item = &'d Diagnostic>) -> Vec<Vec<&'d Diagnostic>> {
    let mut groups: Vec<Vec<&Diagnostic>> = Vec::new();
    let mut known = HashMap::new();
    for diagnostic in all {
        let Diagnostic { severity, code, message, help, .. } = diagnostic;
        let path = diagnostic.path.as_deref().map(without_indices);
        // An excerpt without a place in a file may be all that tells two findings apart.
        let key = (severity, code, message, help, path, concerns_policy(diagnostic));
        let at = *known.entry(key).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(diagnostic),
            None => groups.push(vec![diagnostic]),
        }
    }
    groups.sort_by_key(|group| (group[0].severity, !concerns_policy(group[0])));
    groups
}

/// Whether a finding is about a policy, or about something that may be one because it can't be read.
fn concerns_policy(diagnostic: &Diagnostic) -> bool {
    match &diagnostic.object {
        None => diagnostic.severity == Severity::Error,
        Some(object) => {
            object.split(' ').next().is_some_and(|kind| kind.to_ascii_lowercase().contains("polic"))
        }
    }
}

/// Returns a field without indices: `spec.ingress[].from[]`.
fn without_indices(path: &str) -> String {
    let mut out = String::new();
    let mut index = false;
    for c in path.chars() {
        index = (index || c == '[') && c != ']';
        if !(index && c.is_ascii_digit()) {
            out.push(c);
        }
    }
    out
}

/// Returns the noun in singular or plural, without the number.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::Code;

    use super::*;

    fn diagnostic(severity: Severity, object: &str, path: &str) -> Diagnostic {
        Diagnostic {
            object: Some(object.to_owned()),
            path: Some(path.to_owned()),
            ..Diagnostic::new(severity, Code::UnknownField, "unknown field \"x\"")
        }
    }

    #[test]
    fn policies_come_first_and_findings_that_differ_in_place_are_together() {
        let all = [
            diagnostic(Severity::Warning, "Pod shop/a", "spec.x"),
            diagnostic(Severity::Warning, "NetworkPolicy shop/p", "spec.ingress[0].x"),
            diagnostic(Severity::Error, "Pod shop/b", "spec.x"),
            diagnostic(Severity::Warning, "NetworkPolicy shop/q", "spec.ingress[12].x"),
            diagnostic(Severity::Warning, "NetworkPolicy shop/q", "spec.egress[0].x"),
        ];
        let groups: Vec<Vec<&str>> = groups(all.iter())
            .into_iter()
            .map(|g| g.iter().filter_map(|d| d.object.as_deref()).collect())
            .collect();
        let expected: [&[&str]; 4] = [
            &["Pod shop/b"],
            &["NetworkPolicy shop/p", "NetworkPolicy shop/q"],
            &["NetworkPolicy shop/q"],
            &["Pod shop/a"],
        ];
        assert_eq!(groups, expected);
    }
}

//! Prints what was found while reading.

use palisade_manifest::{Diagnostic, Loaded, Severity, Style, render};

use crate::output;

/// The most diagnostics to print; of the others, the number is printed.
const MAX_PRINTED: usize = 50;

/// Prints diagnostics, errors first, without warnings if `quiet`.
pub(crate) fn report(loaded: &Loaded, quiet: bool) {
    let of = |severity| loaded.diagnostics.iter().filter(move |d| d.severity == severity);
    let warnings = of(Severity::Warning).filter(|_| !quiet);
    let all: Vec<&Diagnostic> = of(Severity::Error).chain(warnings).collect();
    for diagnostic in all.iter().take(MAX_PRINTED) {
        // The writer strips colors where they don't belong.
        let text = render(diagnostic, Style { colour: true, width: output::width() });
        output::note(&format!("{text}\n\n"));
    }
    if all.len() > MAX_PRINTED {
        output::note(&format!("… and {} more\n\n", all.len() - MAX_PRINTED));
    }
}

/// Returns the noun in singular or plural, without the number.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { noun.to_owned() } else { format!("{noun}s") }
}

//! Reads inputs into one cluster.

use palisade_policy::Interner;

use crate::{
    addresses::assign_addresses,
    assemble,
    decode::{Context, HELM},
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    input::{Input, InputReader},
    loaded::{Counts, Loaded},
    object::ObjectReader,
    options::{Admission, LoadOptions},
    text::Text,
    tree::{Documents, Problem, ProblemKind},
};

/// Reads inputs. Errors are in [`Loaded::diagnostics`], and everything without errors is in the result. `O(bytes + pods
/// · log pods)`.
#[must_use]
pub fn load(inputs: &[Input], options: &LoadOptions) -> Loaded {
    let mut loader = Loader {
        options,
        gathered: Gathered::default(),
        counts: Counts::default(),
        names: Interner::default(),
    };
    let mut found = Vec::new();
    for input in inputs {
        InputReader::new(options, &mut found).read(input, |reader, text| loader.text(&text, reader.found));
    }
    loader.finish(found)
}

struct Loader<'o> {
    options: &'o LoadOptions,
    gathered: Gathered,
    counts: Counts,
    names: Interner,
}

impl Loader<'_> {
    fn text(&mut self, text: &Text, found: &mut Vec<Diagnostic>) {
        self.counts.files += 1;
        let before = found.len();
        let mut cx = Context {
            text,
            names: &self.names,
            found,
            strict: self.options.strict && !text.is_of_cluster(),
            strict_cidr: self.options.strict_cidr && !text.is_of_cluster(),
            channel: self.options.channel,
            admission: if text.is_of_cluster() { Admission::Passed } else { self.options.admission },
            object: None,
            errors: 0,
        };
        if u32::try_from(text.as_str().len()).is_err() {
            let message = "is larger than 4 GiB";
            return cx.report_span(0..0, Diagnostic::new(Severity::Error, Code::TooLarge, message));
        }
        for document in Documents::new(text.as_str(), self.options.limits) {
            match document {
                Ok(tree) if tree.is_empty() => {}
                Ok(tree) => {
                    self.counts.documents += 1;
                    let mut objects = ObjectReader {
                        gathered: &mut self.gathered,
                        counts: &mut self.counts,
                        default_namespace: &self.options.default_namespace,
                    };
                    objects.root(&mut cx, &tree.root());
                }
                Err(problems) => {
                    self.counts.documents += 1;
                    cx.object = None;
                    for problem in problems {
                        report(&mut cx, problem);
                    }
                }
            }
        }
        // Fields are decoded in the API's order. Findings are reported in the file's order.
        found[before..].sort_by_key(|d| d.span.as_ref().map(|s| s.start));
    }

    fn finish(self, mut found: Vec<Diagnostic>) -> Loaded {
        let Self { options, gathered, counts, names } = self;
        let mut loaded = assemble::assemble(gathered, counts, options, &names, &mut found);
        if let Some(plan) = &options.addresses {
            found.extend(assign_addresses(&mut loaded.cluster, plan, &loaded.unaddressed));
        }
        loaded.diagnostics = found;
        loaded
    }
}

fn report(cx: &mut Context<'_>, problem: Problem) {
    let code = match problem.kind {
        ProblemKind::Syntax => Code::Syntax,
        ProblemKind::DuplicateKey => Code::DuplicateKey,
        ProblemKind::Alias => Code::Alias,
        ProblemKind::TooLarge => Code::TooLarge,
    };
    let mut diagnostic = Diagnostic::new(Severity::Error, code, problem.message);
    diagnostic.help = help(cx.text.as_str(), &problem.span, code);
    cx.report_span(problem.span, diagnostic);
}

/// Suggests the likely cause of a broken document.
fn help(text: &str, span: &std::ops::Range<u32>, code: Code) -> Option<String> {
    if code != Code::Syntax {
        return None;
    }
    let at = span.start as usize;
    // The parser reports a broken template where it gave up, so the whole document is searched.
    let from = text.get(..at)?.rfind("\n---").unwrap_or(0);
    let to = text.get(at..)?.find("\n---").map_or(text.len(), |n| at + n);
    if text.get(from..to)?.contains("{{") {
        return Some(HELM.to_owned());
    }
    let line = &text[text[..at].rfind('\n').map_or(0, |n| n + 1)..at];
    if line.starts_with('\t') || text[at..].starts_with('\t') {
        return Some("YAML is indented with spaces, not tabs".to_owned());
    }
    None
}

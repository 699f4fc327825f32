//! Reads inputs into one cluster.

use std::{ops::Range, path::Path};

use palisade_policy::Interner;

use crate::{
    addresses::assign_addresses,
    assemble,
    decode::Context,
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    input::{Aside, Input, InputReader, Source},
    kustomization::{self, is_kustomization},
    loaded::{Counts, Loaded},
    meta::provisional_name,
    not_manifest::{self, Kind, could_be_manifest},
    object::{ObjectReader, article},
    options::{Admission, LoadOptions},
    scalar::Scalar,
    text::Text,
    tree::{At, Documents, Problem, ProblemKind, Value},
    unrendered::{self, Marker},
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
    let mut reader = InputReader::new(options);
    for input in inputs {
        reader.read(input, |reader, source| loader.source(&source, reader));
    }
    loader.finish(reader.found, reader.aside)
}

struct Loader<'o> {
    options: &'o LoadOptions,
    gathered: Gathered,
    counts: Counts,
    names: Interner,
}

impl Loader<'_> {
    fn source(&mut self, source: &Source, reader: &mut InputReader<'_>) {
        let before = (reader.found.len(), self.declared());
        self.counts.files += 1;
        if let Some(place) = source.place.as_deref().filter(|place| is_kustomization(place)) {
            return self.kustomization(source, place, reader);
        }
        let text = source.text.as_str();
        if let Some(found_as) = source.found_as.as_ref().filter(|_| text.trim().is_empty()) {
            reader.aside.empty.push(found_as.clone());
        }
        self.text(source, reader);
        // Fields are decoded in the API's order. Findings are reported in the file's order.
        reader.found[before.0..].sort_by_key(|d| d.span.as_ref().map(|s| s.start));
        one_per_cause(&mut reader.found, before.0);
        if self.declared() > before.1
            && let Some(place) = &source.place
        {
            reader.aside.has_objects(place.clone(), source.text.name().clone());
        }
    }

    /// The number of objects so far.
    fn declared(&self) -> usize {
        let Counts { objects, rejected, passed_over, .. } = &self.counts;
        [objects, rejected, passed_over].into_iter().flat_map(|counts| counts.values()).sum()
    }

    /// Reads a kustomization, whose resources are read as other files are.
    fn kustomization(&mut self, source: &Source, place: &Path, reader: &mut InputReader<'_>) {
        let Source { text, found_as, .. } = source;
        let mut cx = context(self.options, &self.names, text, &mut reader.found);
        for document in Documents::new(text.as_str(), self.options.limits) {
            match document {
                Ok(tree) => {
                    let read = kustomization::read(&tree.root(), place, text, found_as.as_deref());
                    reader.aside.kustomizations.push(read);
                }
                Err(problems) => problems.into_iter().for_each(|problem| report(&mut cx, problem, false)),
            }
        }
    }

    fn text(&mut self, source: &Source, reader: &mut InputReader<'_>) {
        let text = &source.text;
        let mut cx = context(self.options, &self.names, text, &mut reader.found);
        if u32::try_from(text.as_str().len()).is_err() {
            let message = "is larger than 4 GiB";
            return cx.report_span(0..0, Diagnostic::new(Severity::Error, Code::TooLarge, message));
        }
        let found = source.found_as.is_some();
        // Documents of other programs, until it is known whether the file has objects too.
        let mut others: Vec<(Range<u32>, &str)> = Vec::new();
        let mut broken: Vec<Vec<Problem>> = Vec::new();
        let mut objects = 0;
        for document in Documents::new(text.as_str(), self.options.limits) {
            let tree = match document {
                Ok(tree) if tree.is_empty() => continue,
                Ok(tree) => tree,
                Err(problems) => {
                    broken.push(problems);
                    continue;
                }
            };
            let root = tree.root();
            let kind = not_manifest::kind(&root);
            if kind == Kind::Other && found {
                others.push((root.span(), root.json_type()));
                continue;
            }
            objects += 1;
            warn(&mut cx, &root, tree.warnings());
            if kind == Kind::Objects {
                collection(&mut cx, &root);
            } else if unrendered::is_encrypted(&root) {
                reader.aside.encrypted.extend(encrypted(&mut cx, &root));
            } else {
                let mut reader = ObjectReader {
                    gathered: &mut self.gathered,
                    counts: &mut self.counts,
                    default_namespace: &self.options.default_namespace,
                    references: self.options.references,
                };
                reader.root(&mut cx, &root);
            }
        }
        self.counts.documents += objects;
        let template = template(text, !broken.is_empty() || others.iter().any(|(_, of)| *of == "string"));
        let could_have_objects =
            template.is_some() || (!broken.is_empty() && could_be_manifest(text.as_str().as_bytes()));
        if found && objects == 0 && !(broken.is_empty() && others.is_empty()) && !could_have_objects {
            self.counts.files -= 1;
            reader.aside.not_manifests.extend(source.found_as.clone());
            return;
        }
        self.counts.documents += broken.len();
        cx.object = None;
        if objects > 0 || broken.is_empty() {
            self.counts.documents += others.len();
            others.into_iter().for_each(|(span, of)| other_document(&mut cx, span, of, template));
        }
        let conflict = !broken.is_empty() && unrendered::has_conflict(text.as_str());
        broken.into_iter().flatten().for_each(|problem| report(&mut cx, problem, conflict));
    }

    fn finish(self, mut found: Vec<Diagnostic>, aside: Aside) -> Loaded {
        let Self { options, gathered, counts, names } = self;
        let (errors, notes) = aside.finish(options.raw);
        found.extend(errors);
        let mut loaded = assemble::assemble(gathered, counts, options, &names, &mut found);
        if let Some(plan) = &options.addresses {
            assign_addresses(&mut [&mut loaded], plan);
        }
        loaded.diagnostics = found;
        loaded.notes.splice(0..0, notes);
        loaded
    }
}

fn context<'c>(
    options: &'c LoadOptions,
    names: &'c Interner,
    text: &'c Text,
    found: &'c mut Vec<Diagnostic>,
) -> Context<'c> {
    Context {
        text,
        names,
        found,
        strict: options.strict && !text.is_of_cluster(),
        strict_cidr: options.strict_cidr && !text.is_of_cluster(),
        channel: options.channel,
        admission: if text.is_of_cluster() { Admission::Passed } else { options.admission },
        learns_names: options.learns_names,
        object: None,
        errors: 0,
    }
}

/// Returns the marker of a program that may make objects of a text without any, unless everything in it is legible.
fn template(text: &Text, illegible: bool) -> Option<Marker> {
    let marker = unrendered::in_broken(text.as_str()).filter(|_| illegible)?;
    matches!(marker, Marker::Helm | Marker::Jinja | Marker::Erb | Marker::Lfs).then_some(marker)
}

/// Reports a document that is no object, in a file that has objects or is a template.
fn other_document(cx: &mut Context<'_>, span: Range<u32>, json_type: &str, template: Option<Marker>) {
    let message = match json_type {
        "object" => "not a Kubernetes object: apiVersion and kind are not set".to_owned(),
        other => format!("expected a Kubernetes object, found {}", article(other)),
    };
    let diagnostic = Diagnostic::new(Severity::Error, Code::NotAnObject, message);
    let help = template.map(|marker| marker.help().to_owned());
    cx.report_span(span.start..span.start, Diagnostic { help, ..diagnostic });
}

/// Reports objects in an array or a mapping.
fn collection(cx: &mut Context<'_>, root: &At<'_>) {
    cx.object = None;
    let (what, list) = match root.value() {
        Value::Sequence(_) => ("an array", "jq '{apiVersion: \"v1\", kind: \"List\", items: .}'"),
        _ => (
            "an object",
            "jq '{apiVersion: \"v1\", kind: \"List\", items: [.. | objects | select(.apiVersion and .kind)]}'",
        ),
    };
    let message = format!("objects in {what} are not read, and not by kubectl: expected an object or a List");
    let help = format!("`{list}` makes a List of them");
    let span = root.span();
    let diagnostic = Diagnostic::new(Severity::Error, Code::NotAnObject, message).with_help(help);
    cx.report_span(span.start..span.start, diagnostic);
}

/// Reports an object that is encrypted with SOPS, or returns its name if it decides nothing.
fn encrypted(cx: &mut Context<'_>, root: &At<'_>) -> Option<String> {
    let text = |field: &str| match root.get(field)?.value() {
        Value::Scalar(Scalar::Str(text)) => Some(text.to_string()),
        _ => None,
    };
    let kind = text("kind").filter(|kind| !kind.starts_with("ENC["));
    let place = root.get("sops").unwrap_or(*root);
    let name = kind.as_ref().map(|kind| provisional_name(kind, root));
    // The names of kinds and their number are legible: no list of them decides nothing.
    let decides_nothing = |kind: &String| kind == "Secret" || kind == "ConfigMap";
    if kind.as_ref().is_some_and(decides_nothing) && text("apiVersion").as_deref() == Some("v1") {
        return name;
    }
    cx.object = name;
    let diagnostic = Diagnostic::new(Severity::Error, Code::Encrypted, "the object is encrypted");
    cx.report_span(place.span().start..place.span().start, diagnostic.with_help(Marker::Sops.help()));
    None
}

/// Keeps the first of the findings of a file that have the same marker of a template as their cause.
fn one_per_cause(found: &mut Vec<Diagnostic>, from: usize) {
    // Few: one for each kind of marker.
    let mut counted: Vec<(&'static str, usize, usize)> = Vec::new();
    for diagnostic in found.split_off(from) {
        let cause = diagnostic.help.as_deref().and_then(unrendered::marker_of);
        let known = cause.and_then(|cause| counted.iter_mut().find(|(help, ..)| *help == cause.help()));
        match (cause, known) {
            (Some(_), Some((_, _, more))) => *more += 1,
            (Some(cause), None) => {
                counted.push((cause.help(), found.len(), 0));
                found.push(diagnostic);
            }
            (None, _) => found.push(diagnostic),
        }
    }
    for (help, first, more) in counted.into_iter().filter(|(.., more)| *more > 0) {
        let errors = if more == 1 { "error" } else { "errors" };
        found[first].help = Some(format!("{help} ({more} more {errors} in this file)"));
    }
}

/// Reports a broken document of a file that has the markers of a merge conflict, or not.
fn report(cx: &mut Context<'_>, problem: Problem, conflict: bool) {
    let code = match problem.kind {
        ProblemKind::Syntax => Code::Syntax,
        ProblemKind::DuplicateKey => Code::DuplicateKey,
        ProblemKind::Alias => Code::Alias,
        ProblemKind::TooLarge => Code::TooLarge,
        ProblemKind::AfterEnd => Code::AfterEnd,
    };
    let mut diagnostic = Diagnostic::new(Severity::Error, code, problem.message);
    diagnostic.help = match conflict {
        true => Some(Marker::MergeConflict.help().to_owned()),
        false => help(cx.text.as_str(), &problem.span, code),
    };
    cx.report_span(problem.span, diagnostic);
}

/// Reports what kubectl accepts silently.
fn warn(cx: &mut Context<'_>, root: &At<'_>, warnings: &[Problem]) {
    let kind = root.get("kind");
    cx.object = kind.and_then(|at| cx.string(&at).map(|kind| provisional_name(kind, root)));
    for Problem { kind, message, span } in warnings {
        let code = match kind {
            ProblemKind::AfterEnd => Code::AfterEnd,
            _ => Code::DuplicateKey,
        };
        cx.report_span(span.clone(), Diagnostic::new(Severity::Warning, code, message.as_str()));
    }
    cx.object = None;
}

/// Suggests the likely cause of a broken document.
fn help(text: &str, span: &Range<u32>, code: Code) -> Option<String> {
    if code != Code::Syntax {
        return None;
    }
    let at = span.start as usize;
    // The parser reports a broken template where it gave up, so the document is searched from its beginning. What
    // follows the line after that place is not the cause.
    let from = text.get(..at)?.rfind("\n---").map_or(0, |n| n + 1);
    let rest = text.get(at..)?;
    let to = rest.match_indices('\n').nth(1).map_or(text.len(), |(n, _)| at + n);
    let before = text.get(from..to)?;
    if let Some(marker) = unrendered::in_broken(before) {
        return Some(marker.help().to_owned());
    }
    let line = &text[text[..at].rfind('\n').map_or(0, |n| n + 1)..at];
    if line.starts_with('\t') || text[at..].starts_with('\t') {
        return Some("YAML is indented with spaces, not tabs".to_owned());
    }
    None
}

//! Decodes values of a tree, and reports those that don't fit.
//!
//! Follows Go's JSON decoder: null equals absent, a null element is the zero value (SEMANTICS A4). Unknown fields are
//! reported. Field names are case-sensitive.

use std::ops::Range;

use palisade_policy::{Interner, Labels, Origin};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    names,
    options::{Admission, Channel},
    scalar::Scalar,
    text::Text,
    tree::{At, Value},
    unrendered::{self, Marker},
};

/// How many diagnostics of one load keep an excerpt of the file.
const EXCERPTS: usize = 1000;

/// What is being read, with which options, and where findings are collected.
pub(crate) struct Context<'c> {
    pub(crate) text: &'c Text,
    pub(crate) names: &'c Interner,
    pub(crate) found: &'c mut Vec<Diagnostic>,
    /// Whether unknown fields are errors.
    pub(crate) strict: bool,
    /// The API server's feature gate `StrictIPCIDRValidation`.
    pub(crate) strict_cidr: bool,
    /// The release channel of the CustomResourceDefinitions of cluster-wide policies.
    pub(crate) channel: Channel,
    /// Whether an API server has admitted the cluster-wide policies.
    pub(crate) admission: Admission,
    /// Whether what enforces the policies learns the addresses of names.
    pub(crate) learns_names: bool,
    /// The object being decoded, as findings name it.
    pub(crate) object: Option<String>,
    /// The number of errors found in the object being decoded.
    pub(crate) errors: usize,
}

impl Context<'_> {
    /// Returns the position of a value. For objects of a cluster, it is the object's name and the field's path.
    pub(crate) fn origin(&self, at: &At<'_>) -> Origin {
        if self.text.is_of_cluster() {
            return Origin::of_object(&self.kubectl_name(), &at.path());
        }
        self.text.origin(at.span().start)
    }

    /// The object being decoded, as kubectl names it: `networkpolicy/shop/web`.
    fn kubectl_name(&self) -> String {
        let object = self.object.as_deref().unwrap_or_default();
        let (kind, name) = object.split_once(' ').unwrap_or((object, ""));
        format!("{}/{name}", kind.to_ascii_lowercase())
    }

    /// Decodes something again, whose findings are known. Within, [`Self::errors`] counts from 0.
    pub(crate) fn quietly<R>(&mut self, decode: impl FnOnce(&mut Self) -> R) -> R {
        let (errors, found) = (std::mem::take(&mut self.errors), self.found.len());
        let result = decode(self);
        self.errors = errors;
        self.found.truncate(found);
        result
    }

    /// Reports a finding about a value.
    pub(crate) fn report(&mut self, at: &At<'_>, diagnostic: Diagnostic) {
        let path = Some(at.path()).filter(|p| !p.is_empty());
        self.report_span(at.span(), Diagnostic { path: diagnostic.path.clone().or(path), ..diagnostic });
    }

    /// Reports a finding about a range of bytes.
    pub(crate) fn report_span(&mut self, span: Range<u32>, mut diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        diagnostic.object = diagnostic.object.or_else(|| self.object.clone());
        if self.text.is_of_cluster() {
            return self.found.push(diagnostic);
        }
        diagnostic.origin = Some(self.text.origin(span.start));
        if self.found.len() < EXCERPTS {
            diagnostic.excerpt = Some(self.text.excerpt(span.clone()));
        }
        diagnostic.span = Some(span);
        self.found.push(diagnostic);
    }

    /// Reports an error.
    pub(crate) fn error(&mut self, at: &At<'_>, code: Code, message: impl Into<String>) {
        let diagnostic = Diagnostic::new(Severity::Error, code, message);
        // A quoted template action is valid YAML, but no valid name or label.
        self.report(
            at,
            match template(at) {
                Some(marker) => diagnostic.with_help(marker.help()),
                None => diagnostic,
            },
        );
    }

    /// Reports an error about a missing field, at the position of its parent.
    pub(crate) fn missing(&mut self, at: &At<'_>, field: &str, code: Code, message: &str) {
        let parent = at.path();
        let path = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
        self.report(at, Diagnostic { path: Some(path), ..Diagnostic::new(Severity::Error, code, message) });
    }

    /// Reports a warning.
    pub(crate) fn warn(&mut self, at: &At<'_>, code: Code, message: impl Into<String>) {
        self.report(at, Diagnostic::new(Severity::Warning, code, message));
    }

    /// Reports an error for each message, as the API server's `Invalid value`.
    pub(crate) fn invalid<M: AsRef<str>>(&mut self, at: &At<'_>, wrong: impl IntoIterator<Item = M>) {
        for message in wrong {
            self.error(at, Code::Invalid, format!("Invalid value: {}: {}", quoted(at), message.as_ref()));
        }
    }

    fn wrong_type(&mut self, at: &At<'_>, expected: &str) {
        let message = format!("cannot unmarshal {} into a field of type {expected}", at.json_type());
        let diagnostic = Diagnostic::new(Severity::Error, Code::WrongType, message);
        let text =
            self.text.as_str().get(at.span().start as usize..at.span().end as usize).unwrap_or_default();
        if let Some(marker) = template(at) {
            return self.report(at, diagnostic.with_help(marker.help()));
        }
        let quotable = expected == "string" && matches!(at.value(), Value::Scalar(_)) && text.len() <= 64;
        self.report(
            at,
            match quotable {
                true => diagnostic.with_help(format!("quote it: \"{text}\"")),
                false => diagnostic,
            },
        );
    }

    /// Returns the mapping at `at` and reports unknown fields. `None` if the value is null or of another type.
    pub(crate) fn fields<'a>(&mut self, at: &'a At<'a>, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.any_fields(at)?;
        for (key, place, _) in at.entries() {
            if !known.contains(&key) {
                self.unknown(&place, key, known);
            }
        }
        Some(fields)
    }

    /// Returns the mapping at `at`, with any fields.
    pub(crate) fn any_fields<'a>(&mut self, at: &'a At<'a>) -> Option<Fields<'a>> {
        match at.value() {
            Value::Mapping(_) => Some(Fields { at }),
            Value::Scalar(Scalar::Null) => None,
            _ => {
                self.wrong_type(at, "object");
                None
            }
        }
    }

    fn unknown(&mut self, at: &At<'_>, key: &str, known: &[&str]) {
        let severity = if self.strict { Severity::Error } else { Severity::Warning };
        let diagnostic = Diagnostic::new(severity, Code::UnknownField, format!("unknown field \"{key}\""));
        let near = known.iter().filter_map(|k| Some((distance(key, k)?, *k))).min();
        self.report(
            at,
            match near {
                Some((_, near)) => diagnostic.with_help(format!("did you mean `{near}`?")),
                None => diagnostic,
            },
        );
    }

    /// Returns the elements of a list; none if it is null.
    pub(crate) fn list<'a>(&mut self, at: &'a At<'a>) -> Vec<At<'a>> {
        match at.value() {
            Value::Sequence(_) => at.items().collect(),
            Value::Scalar(Scalar::Null) => Vec::new(),
            _ => {
                self.wrong_type(at, "array");
                Vec::new()
            }
        }
    }

    /// Returns a string. Null is the empty string.
    pub(crate) fn string<'a>(&mut self, at: &At<'a>) -> Option<&'a str> {
        match at.value() {
            Value::Scalar(Scalar::Str(s)) => Some(s),
            Value::Scalar(Scalar::Null) => Some(""),
            _ => {
                self.wrong_type(at, "string");
                None
            }
        }
    }

    /// Returns a boolean. Null is false.
    pub(crate) fn bool(&mut self, at: &At<'_>) -> Option<bool> {
        match at.value() {
            Value::Scalar(Scalar::Bool(b)) => Some(*b),
            Value::Scalar(Scalar::Null) => Some(false),
            _ => {
                self.wrong_type(at, "boolean");
                None
            }
        }
    }

    /// Returns a 32-bit integer. Null is 0. A number without a fraction, such as `80.0`, is an integer in JSON.
    pub(crate) fn int32(&mut self, at: &At<'_>) -> Option<i32> {
        let value = match at.value() {
            Value::Scalar(Scalar::Int(n)) => i32::try_from(*n).ok(),
            Value::Scalar(Scalar::Float(n)) if n.fract() == 0.0 && n.abs() < 2_147_483_648.0 => {
                Some(*n as i32)
            }
            Value::Scalar(Scalar::Null) => Some(0),
            Value::Scalar(Scalar::Float(_)) => None,
            _ => {
                self.wrong_type(at, "int32");
                return None;
            }
        };
        if value.is_none() {
            let message = format!("cannot unmarshal number {} into a field of type int32", quoted(at));
            self.error(at, Code::WrongType, message);
        }
        value
    }

    /// Returns an `IntOrString`.
    pub(crate) fn int_or_string<'a>(&mut self, at: &At<'a>) -> Option<IntOrString<'a>> {
        match at.value() {
            Value::Scalar(Scalar::Str(s)) => Some(IntOrString::String(s)),
            _ => self.int32(at).map(IntOrString::Int),
        }
    }

    /// Returns a map of labels, after validating its keys and values.
    pub(crate) fn labels(&mut self, at: &At<'_>) -> Labels {
        let Some(fields) = self.any_fields(at) else { return Labels::default() };
        let mut pairs = Vec::new();
        for (key, key_at, value_at) in fields.at.entries() {
            for message in names::label_key(key) {
                self.error(&key_at, Code::Invalid, format!("Invalid value: \"{key}\": {message}"));
            }
            let Some(value) = self.string(&value_at) else { continue };
            self.invalid(&value_at, names::label_value(value));
            pairs.push((key, value));
        }
        self.names.labels(pairs)
    }
}

/// Returns the marker of a template in a value.
fn template(at: &At<'_>) -> Option<Marker> {
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => unrendered::in_value(text),
        _ => None,
    }
}

/// A number or a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntOrString<'a> {
    Int(i32),
    String(&'a str),
}

/// A mapping.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) at: &'a At<'a>,
}

impl<'a> Fields<'a> {
    /// Returns a field that is set and not null.
    pub(crate) fn get(&self, key: &str) -> Option<At<'a>> {
        self.at.get(key).filter(|at| !at.is_null())
    }

    /// Returns a string field.
    pub(crate) fn string(&self, cx: &mut Context<'_>, key: &str) -> Option<&'a str> {
        let at = self.get(key)?;
        cx.string(&at)
    }

    /// Returns a boolean field; false if it is absent.
    pub(crate) fn bool(&self, cx: &mut Context<'_>, key: &str) -> bool {
        self.get(key).and_then(|at| cx.bool(&at)).unwrap_or(false)
    }
}

/// Formats a value as error messages quote it.
pub(crate) fn quoted(at: &At<'_>) -> String {
    const LONGEST: usize = 80;
    match at.value() {
        Value::Scalar(Scalar::Str(s)) if s.chars().count() > LONGEST => {
            format!("\"{}…\"", s.chars().take(LONGEST).collect::<String>())
        }
        Value::Scalar(Scalar::Str(s)) => format!("{s:?}"),
        Value::Scalar(Scalar::Int(n)) => n.to_string(),
        Value::Scalar(Scalar::Float(n)) => n.to_string(),
        Value::Scalar(Scalar::Bool(b)) => b.to_string(),
        Value::Scalar(Scalar::Null) => "null".to_owned(),
        Value::Sequence(n) => format!("[{n} elements]"),
        Value::Mapping(n) => format!("{{{n} fields}}"),
    }
}

/// Returns the edit distance between two names, ignoring case; `None` if it is too large for a typing error.
pub(crate) fn distance(a: &str, b: &str) -> Option<usize> {
    if a.len() > 64 || b.len() > 64 {
        return None;
    }
    let edits = strsim::levenshtein(&a.to_lowercase(), &b.to_lowercase());
    (edits <= b.chars().count().div_ceil(4)).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_typing_errors_have_a_distance() {
        assert_eq!(distance("podselector", "podSelector"), Some(0));
        assert_eq!(distance("podSelctor", "podSelector"), Some(1));
        assert_eq!(distance("form", "from"), None, "two edits in four letters");
        assert_eq!(distance("egres", "egress"), Some(1));
        assert_eq!(distance("labels", "ingress"), None);
    }
}

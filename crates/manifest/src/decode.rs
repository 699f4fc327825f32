//! From places in a tree to values, reporting what doesn't fit.
//!
//! JSON's rules as Go's decoder has them: null equals absent, a null element is the zero value (SEMANTICS A4), an
//! unknown field is reported, and field names count case.

use std::ops::Range;

use palisade_policy::{Interner, Labels, Origin};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    names,
    options::{Admission, Channel},
    scalar::Scalar,
    text::Text,
    tree::{At, Value},
};

/// How many diagnostics of one load keep their excerpt.
const EXCERPTS: usize = 1000;

/// What to do about a template.
pub(crate) const HELM: &str = "this looks like a Helm template: render it first, with `helm template`";

/// Where findings go, and what is being read.
pub(crate) struct Context<'c> {
    pub(crate) text: &'c Text,
    pub(crate) names: &'c Interner,
    pub(crate) found: &'c mut Vec<Diagnostic>,
    /// Unknown fields are errors.
    pub(crate) strict: bool,
    /// The API server's `StrictIPCIDRValidation`.
    pub(crate) strict_cidr: bool,
    /// The release channel of the cluster-wide policies' definitions.
    pub(crate) channel: Channel,
    /// Whether cluster-wide policies have been admitted.
    pub(crate) admission: Admission,
    /// What the object being decoded is called in findings.
    pub(crate) object: Option<String>,
    /// Errors of the object being decoded.
    pub(crate) errors: usize,
}

impl Context<'_> {
    /// Line and column of a place.
    pub(crate) fn origin(&self, at: &At<'_>) -> Origin {
        if self.text.is_of_cluster() {
            return Origin::live(&self.live_name(), &at.path());
        }
        self.text.origin(at.span().start)
    }

    /// What kubectl calls the object being decoded: `networkpolicy/shop/web`.
    fn live_name(&self) -> String {
        let object = self.object.as_deref().unwrap_or_default();
        let (kind, name) = object.split_once(' ').unwrap_or((object, ""));
        format!("{}/{name}", kind.to_ascii_lowercase())
    }

    /// Reports something about a place.
    pub(crate) fn report(&mut self, at: &At<'_>, diagnostic: Diagnostic) {
        let path = Some(at.path()).filter(|p| !p.is_empty());
        self.report_span(at.span(), Diagnostic { path: diagnostic.path.clone().or(path), ..diagnostic });
    }

    /// Reports something about bytes of the file.
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
        // Quoted, what Helm would fill in is text like any other, which no name and no label may be.
        let template = matches!(at.value(), Value::Scalar(Scalar::Str(s)) if s.contains("{{"));
        self.report(at, if template { diagnostic.with_help(HELM) } else { diagnostic });
    }

    /// Reports an error about a field that isn't there: the position is its parent's.
    pub(crate) fn missing(&mut self, at: &At<'_>, field: &str, code: Code, message: &str) {
        let parent = at.path();
        let path = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
        self.report(at, Diagnostic { path: Some(path), ..Diagnostic::new(Severity::Error, code, message) });
    }

    /// Reports a warning.
    pub(crate) fn warn(&mut self, at: &At<'_>, code: Code, message: impl Into<String>) {
        self.report(at, Diagnostic::new(Severity::Warning, code, message));
    }

    /// The API server's `Invalid value` for each message.
    pub(crate) fn invalid<M: AsRef<str>>(&mut self, at: &At<'_>, wrong: impl IntoIterator<Item = M>) {
        for message in wrong {
            self.error(at, Code::Invalid, format!("Invalid value: {}: {}", shown(at), message.as_ref()));
        }
    }

    fn wrong_type(&mut self, at: &At<'_>, wanted: &str) {
        let message = format!("cannot unmarshal {} into a field of type {wanted}", at.json_type());
        let diagnostic = Diagnostic::new(Severity::Error, Code::WrongType, message);
        let written =
            self.text.as_str().get(at.span().start as usize..at.span().end as usize).unwrap_or_default();
        let quotable = wanted == "string" && matches!(at.value(), Value::Scalar(_)) && written.len() <= 64;
        self.report(
            at,
            match quotable {
                true => diagnostic.with_help(format!("quote it: \"{written}\"")),
                false => diagnostic,
            },
        );
    }

    /// The mapping here, its unknown fields reported; `None` if it is null or something else.
    pub(crate) fn fields<'a>(&mut self, at: &'a At<'a>, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.any_fields(at)?;
        for (key, place, _) in at.entries() {
            if !known.contains(&key) {
                self.unknown(&place, key, known);
            }
        }
        Some(fields)
    }

    /// The mapping here, whatever its fields.
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

    /// The elements of a list; none if it is null.
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

    /// A string. Null is the empty string, as an element of a list or the value of a map.
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

    /// A boolean; null is false.
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

    /// A 32-bit integer; null is 0. A float without a fraction is an integer in JSON.
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
            let message = format!("cannot unmarshal number {} into a field of type int32", shown(at));
            self.error(at, Code::WrongType, message);
        }
        value
    }

    /// An `IntOrString`.
    pub(crate) fn int_or_string<'a>(&mut self, at: &At<'a>) -> Option<IntOrString<'a>> {
        match at.value() {
            Value::Scalar(Scalar::Str(s)) => Some(IntOrString::String(s)),
            _ => self.int32(at).map(IntOrString::Int),
        }
    }

    /// A map of labels, its keys and values checked.
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
    /// A field that is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<At<'a>> {
        self.at.get(key).filter(|at| !at.is_null())
    }

    /// A string field.
    pub(crate) fn string(&self, cx: &mut Context<'_>, key: &str) -> Option<&'a str> {
        let at = self.get(key)?;
        cx.string(&at)
    }

    /// A boolean field; absent is false.
    pub(crate) fn bool(&self, cx: &mut Context<'_>, key: &str) -> bool {
        self.get(key).and_then(|at| cx.bool(&at)).unwrap_or(false)
    }
}

/// A value as error messages quote it.
pub(crate) fn shown(at: &At<'_>) -> String {
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

/// The edit distance between two names, ignoring case. `None` if it is too large for a typing error.
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
    fn slips_are_near_and_other_words_are_not() {
        assert_eq!(distance("podselector", "podSelector"), Some(0));
        assert_eq!(distance("podSelctor", "podSelector"), Some(1));
        assert_eq!(distance("form", "from"), None, "two edits in four letters");
        assert_eq!(distance("egres", "egress"), Some(1));
        assert_eq!(distance("labels", "ingress"), None);
    }
}

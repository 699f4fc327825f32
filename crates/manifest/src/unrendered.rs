//! Recognises files that another program must process before they are manifests: templates, encrypted files, and files
//! with the markers of a merge conflict.

use crate::scalar::Scalar;
use crate::tree::{At, Value};

/// What marks a file that must be processed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// `<<<<<<<` at the beginning of a line.
    MergeConflict,
    /// `{{ … }}`
    Helm,
    /// `{% … %}`
    Jinja,
    /// `<% … %>`
    Erb,
    /// `${NAME}` or `$NAME`
    Envsubst,
    /// `$(NAME)`
    Variable,
    /// `ENC[…]`
    Sops,
    /// The pointer that Git LFS keeps in place of a file.
    Lfs,
}

impl Marker {
    const ALL: [Self; 8] = [
        Self::MergeConflict,
        Self::Helm,
        Self::Jinja,
        Self::Erb,
        Self::Envsubst,
        Self::Variable,
        Self::Sops,
        Self::Lfs,
    ];

    /// Returns what to do with such a file.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::MergeConflict => "the file has the markers of a merge conflict: resolve it first",
            Self::Helm => {
                "this looks like a Helm template: render it first, with `helm template`, or pass its chart with --helm"
            }
            Self::Jinja => "this looks like a Jinja template: render it first, and pass the result with -f",
            Self::Erb => "this looks like an ERB template: render it first, and pass the result with -f",
            Self::Envsubst => {
                "this looks like a template with variables: replace them first, as in `envsubst <FILE | palisade … -f -`"
            }
            Self::Variable => {
                "this looks like a variable of Kustomize or of an OpenShift template: render it first, with -k or \
                 `oc process`"
            }
            Self::Sops => {
                "this is encrypted with SOPS: decrypt it first, as in `sops -d FILE | palisade … -f -`"
            }
            Self::Lfs => "this is a pointer of Git LFS, not the file: run `git lfs pull`",
        }
    }
}

/// Returns the marker whose [`Marker::help`] a text is.
pub(crate) fn marker_of(help: &str) -> Option<Marker> {
    Marker::ALL.into_iter().find(|marker| marker.help() == help)
}

/// Returns whether a text is the [`Marker::help`] of a marker, perhaps with something after it.
pub(crate) fn begins_with_marker(help: &str) -> bool {
    Marker::ALL.into_iter().any(|marker| help.starts_with(marker.help()))
}

/// Returns whether a text has the markers of a merge conflict.
pub(crate) fn has_conflict(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "))
}

/// Returns the marker in a value that should be a name, a label or a number.
pub(crate) fn in_value(value: &str) -> Option<Marker> {
    if value.starts_with("ENC[") {
        return Some(Marker::Sops);
    }
    in_text(value).or_else(|| {
        let name = value.strip_prefix('$')?;
        let shell = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (!name.is_empty() && name.contains(shell)).then_some(Marker::Envsubst)
    })
}

/// Returns the marker in a part of a file that can't be parsed.
pub(crate) fn in_broken(text: &str) -> Option<Marker> {
    if text.starts_with("version https://git-lfs.github.com/spec/") {
        return Some(Marker::Lfs);
    }
    if has_conflict(text) { Some(Marker::MergeConflict) } else { in_text(text) }
}

fn in_text(text: &str) -> Option<Marker> {
    let has =
        |open: &str, close: &str| text.find(open).is_some_and(|at| text[at + open.len()..].contains(close));
    if has("{{", "}}") {
        Some(Marker::Helm)
    } else if has("{%", "%}") {
        Some(Marker::Jinja)
    } else if has("<%", "%>") {
        Some(Marker::Erb)
    } else if has("${", "}") {
        Some(Marker::Envsubst)
    } else if has("$(", ")") {
        Some(Marker::Variable)
    } else {
        None
    }
}

/// Whether any value of a document is encrypted with SOPS, which keeps its own data below `sops`.
pub(crate) fn is_encrypted(root: &At<'_>) -> bool {
    root.get("sops").is_some_and(|sops| matches!(sops.value(), Value::Mapping(_)))
        && root.entries().any(|(key, _, value)| key != "sops" && has_encrypted(&value))
}

fn has_encrypted(at: &At<'_>) -> bool {
    match at.value() {
        Value::Scalar(Scalar::Str(text)) => text.starts_with("ENC["),
        Value::Scalar(_) => false,
        Value::Sequence(_) => at.items().any(|item| has_encrypted(&item)),
        Value::Mapping(_) => at.entries().any(|(_, _, value)| has_encrypted(&value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_recognised_in_values() {
        for (value, marker) in [
            ("{{ .Values.x }}", Some(Marker::Helm)),
            ("a-{{x}}", Some(Marker::Helm)),
            ("{% if x %}", Some(Marker::Jinja)),
            ("<%= x %>", Some(Marker::Erb)),
            ("${NS}", Some(Marker::Envsubst)),
            ("$NS", Some(Marker::Envsubst)),
            ("$(NS)", Some(Marker::Variable)),
            ("ENC[AES256_GCM,data:x]", Some(Marker::Sops)),
            ("web", None),
            ("$", None),
            ("a{{b", None),
            ("US$", None),
        ] {
            assert_eq!(in_value(value), marker, "{value}");
        }
    }

    #[test]
    fn a_merge_conflict_comes_before_templates() {
        assert_eq!(in_broken("a: {{ x }}\n<<<<<<< HEAD\n"), Some(Marker::MergeConflict));
        assert_eq!(in_broken("a: '<<<<<<< HEAD'\n"), None);
        assert_eq!(
            in_broken("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            Some(Marker::Lfs)
        );
    }
}

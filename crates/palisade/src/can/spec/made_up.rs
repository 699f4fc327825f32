//! Pods that don't exist, by their labels: `pod:app=nginx,tier=web@shop`.

use super::{SpecError, name_of};

/// The word before the labels of a pod that doesn't exist.
pub(super) const PREFIX: &str = "pod:";

/// The namespace of a pod that doesn't exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MadeUpNamespace {
    /// The one of names that have none.
    Default,
    /// By name. If the cluster doesn't have it, it has only the label with its name.
    Named(String),
    /// One that doesn't exist, by its labels.
    Labels(Vec<(String, String)>),
}

/// Splits what follows [`PREFIX`] into labels, namespace, and the port or protocol with its separator.
pub(super) fn split(text: &str) -> (&str, Option<&str>, &str) {
    // Keys of labels may contain a slash, and so may those of a namespace's labels.
    let tail = |text: &str| text.find(':').unwrap_or_else(|| protocol_at(text));
    match text.split_once('@') {
        None => {
            let at = tail(text);
            (&text[..at], None, &text[at..])
        }
        Some((labels, rest)) => {
            let at = tail(rest);
            (labels, Some(&rest[..at]), &rest[at..])
        }
    }
}

/// Returns where `/ICMP` and the like begin: a slash before capitals only.
fn protocol_at(text: &str) -> usize {
    let is_protocol =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'6');
    match text.rfind('/') {
        Some(at) if is_protocol(&text[at + 1..]) => at,
        _ => text.len(),
    }
}

/// Reads `app=nginx,tier=web`. Empty: no labels.
pub(super) fn labels(text: &str) -> Result<Vec<(String, String)>, SpecError> {
    let one = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(|| SpecError::Label(pair.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        if is_key(key) && is_value(value) {
            Ok((key.to_owned(), value.to_owned()))
        } else {
            Err(SpecError::Label(pair.to_owned()))
        }
    };
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(one).collect()
}

pub(super) fn namespace(text: Option<&str>) -> Result<MadeUpNamespace, SpecError> {
    match text {
        None => Ok(MadeUpNamespace::Default),
        Some(text) if text.contains('=') => Ok(MadeUpNamespace::Labels(labels(text)?)),
        Some(name) => Ok(MadeUpNamespace::Named(name_of(name)?)),
    }
}

/// The API's rules for labels (SEMANTICS A.2): at most 63 characters, with alphanumeric ones at both ends.
fn is_value(text: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 63
        && text.bytes().all(legal)
        && alphanumeric(text.as_bytes().first())
        && alphanumeric(text.as_bytes().last())
}

fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_value(name) && prefix.is_none_or(|prefix| name_of(prefix).is_ok())
}

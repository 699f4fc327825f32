//! Selectors of labels as kubectl writes them: `app=web,tier in (a,b),!quarantine`.

use palisade_policy::{Name, Requirement, Selector, Test};

/// What is wrong with a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectorError {
    #[error("`{0}` is no requirement; use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY")]
    Requirement(String),
    #[error("`{0}` is no label key")]
    Key(String),
    #[error("`{0}` is no label value")]
    Value(String),
}

/// Returns the selector of some labels.
pub(super) fn of_labels<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Selector, SelectorError> {
    let all: Result<Vec<Requirement>, SelectorError> = pairs
        .map(|(key, value)| Ok(Requirement { key: key_of(key)?, test: Test::In([value_of(value)?].into()) }))
        .collect();
    Ok(Selector::new(all?))
}

/// Reads a selector.
pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut requirements = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    let ends = text.char_indices().chain([(text.len(), ',')]);
    for (at, c) in ends {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 || at == text.len() => {
                requirements.push(requirement(text[from..at].trim())?);
                from = at + 1;
            }
            _ => {}
        }
    }
    Ok(Selector::new(requirements))
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let wrong = || SelectorError::Requirement(text.to_owned());
    let one = |key: &str, value: &str, negative: bool| {
        let values = [value_of(value.trim())?].into();
        let test = if negative { Test::NotIn(values) } else { Test::In(values) };
        Ok(Requirement { key: key_of(key.trim())?, test })
    };
    if let Some(inside) = text.strip_suffix(')') {
        let (head, values) = inside.split_once('(').ok_or_else(wrong)?;
        let values: Result<_, _> = values.split(',').map(|value| value_of(value.trim())).collect();
        let values = values?;
        let mut words = head.split_whitespace();
        let (Some(key), Some(operator), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong());
        };
        let test = match operator {
            "in" => Test::In(values),
            "notin" => Test::NotIn(values),
            _ => return Err(wrong()),
        };
        return Ok(Requirement { key: key_of(key)?, test });
    }
    if let Some((key, value)) = text.split_once("!=") {
        return one(key, value, true);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return one(key, value, false);
    }
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(wrong());
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Requirement { key: key_of(key)?, test: Test::DoesNotExist }),
        None => Ok(Requirement { key: key_of(text)?, test: Test::Exists }),
    }
}

/// The longest value, and the longest name part of a key (SEMANTICS A.3).
const LONGEST: usize = 63;

fn legal(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

fn key_of(text: &str) -> Result<Name, SelectorError> {
    let (prefix, name) = text.rsplit_once('/').unwrap_or(("prefix", text));
    let domain = !prefix.is_empty() && prefix.split('.').all(legal);
    if domain && legal(name) { Ok(text.into()) } else { Err(SelectorError::Key(text.to_owned())) }
}

fn value_of(text: &str) -> Result<Name, SelectorError> {
    if text.is_empty() || legal(text) { Ok(text.into()) } else { Err(SelectorError::Value(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_what_kubectl_reads() {
        for text in ["app=web", "app in (a,b),tier notin (x),!quarantine,team", "a!=b", "example.org/team=a"]
        {
            let selector = parse(text).expect(text);
            assert_eq!(parse(&selector.to_string()).as_ref(), Ok(&selector), "{text}");
        }
        assert_eq!(parse("app==web"), parse("app=web"));
        for bad in ["", "a b", "a in b", "a=b c", "=x", "a in (b", "-a=b", "a/b/c=d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

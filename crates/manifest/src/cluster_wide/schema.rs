//! The single checks of a CustomResourceDefinition's schema, in the API server's words.
//!
//! Before the API server checks, it drops unknown fields and nulls of fields (SEMANTICS B3, C6). Here they stay in the
//! tree and are overlooked: [`Fields::get`] has no nulls, and only known fields are asked for and counted. A null that is
//! an element of a list is not dropped, and is rejected.

use std::{collections::BTreeSet, ops::RangeInclusive};

use crate::{
    decode::{Context, Fields, shown},
    diagnostic::{Code, Diagnostic, Severity},
    tree::At,
};

/// `type: object`. Unknown fields are reported, and no reason to reject.
pub(super) fn object<'a>(cx: &mut Context<'_>, at: &'a At<'a>, known: &[&str]) -> Option<Fields<'a>> {
    not_null(cx, at, "object").then(|| cx.fields(at, known)).flatten()
}

/// `type: string`.
pub(super) fn string<'a>(cx: &mut Context<'_>, at: &At<'a>) -> Option<&'a str> {
    not_null(cx, at, "string").then(|| cx.string(at)).flatten()
}

fn not_null(cx: &mut Context<'_>, at: &At<'_>, wanted: &str) -> bool {
    if at.is_null() {
        cx.error(
            at,
            Code::WrongType,
            format!("Invalid value: \"null\": {at} in body must be of type {wanted}: \"null\""),
        );
    }
    !at.is_null()
}

/// `required`.
pub(super) fn required<'a>(cx: &mut Context<'_>, fields: Fields<'a>, name: &str) -> Option<At<'a>> {
    let found = fields.get(name);
    if found.is_none() {
        cx.missing(fields.at, name, Code::Required, "Required value");
    }
    found
}

/// `minProperties: 1`, and with `only_one` `maxProperties: 1`. The fields that count are the known ones.
pub(super) fn properties(cx: &mut Context<'_>, fields: Fields<'_>, known: &[&str], only_one: bool) {
    let at = fields.at;
    let count = known.iter().filter(|name| fields.get(name).is_some()).count();
    let names = || known.join(", ");
    if count == 0 {
        let message = format!("Invalid value: 0: {at} in body should have at least 1 properties");
        let help = if at.entries().next().is_some() {
            format!(
                "name one of {}; fields that the API server doesn't know are dropped before it counts",
                names()
            )
        } else {
            format!("name one of {}", names())
        };
        cx.report(at, Diagnostic::new(Severity::Error, Code::Required, message).with_help(help));
    } else if only_one && count > 1 {
        let message = format!("Too many: {count}: must have at most 1 items");
        let help = format!("name only one of {}", names());
        cx.report(at, Diagnostic::new(Severity::Error, Code::Forbidden, message).with_help(help));
    }
}

/// A choice of exactly one of the `known` kinds. Where it names one of `elsewhere`, which the experimental channel alone
/// has, what is said of it says so.
pub(super) fn choice<'a>(
    cx: &mut Context<'_>,
    at: &'a At<'a>,
    known: &[&str],
    elsewhere: &[&str],
) -> Option<Fields<'a>> {
    let before = cx.found.len();
    let fields = object(cx, at, known)?;
    properties(cx, fields, known, true);
    let named = elsewhere.iter().find(|name| fields.get(name).is_some());
    if let Some(name) = named {
        for diagnostic in &mut cx.found[before..] {
            diagnostic.help = Some(format!(
                "`{name}` is in the experimental channel alone, and the standard one drops it: read with --channel \
                 experimental if the cluster's definitions are of that channel"
            ));
        }
    }
    Some(fields)
}

/// `minItems` and `maxItems`.
pub(super) fn list<'a>(cx: &mut Context<'_>, at: &'a At<'a>, lengths: &RangeInclusive<usize>) -> Vec<At<'a>> {
    let before = cx.errors;
    let items = cx.list(at);
    if cx.errors > before {
        return items;
    }
    if items.len() < *lengths.start() {
        let message = format!(
            "Invalid value: {}: {at} in body should have at least {} items",
            items.len(),
            lengths.start()
        );
        cx.error(at, Code::Required, message);
    } else if items.len() > *lengths.end() {
        let message = format!("Too many: {}: must have at most {} items", items.len(), lengths.end());
        cx.error(at, Code::TooLarge, message);
    }
    items
}

/// `x-kubernetes-list-type: set`.
pub(super) fn set(cx: &mut Context<'_>, items: &[At<'_>]) {
    let mut seen = BTreeSet::new();
    for item in items {
        let shown = shown(item);
        if !seen.insert(shown.clone()) {
            cx.error(item, Code::Invalid, format!("Duplicate value: {shown}"));
        }
    }
}

/// `type: integer`, `format: int32`, `minimum` and `maximum`.
pub(super) fn integer(cx: &mut Context<'_>, at: &At<'_>, allowed: &RangeInclusive<i32>) -> Option<i32> {
    let number = cx.int32(at)?;
    let wrong = if number < *allowed.start() {
        format!("should be greater than or equal to {}", allowed.start())
    } else if number > *allowed.end() {
        format!("should be less than or equal to {}", allowed.end())
    } else {
        return Some(number);
    };
    cx.invalid(at, [format!("{at} in body {wrong}")]);
    None
}

/// `enum`.
pub(super) fn one_of(cx: &mut Context<'_>, at: &At<'_>, allowed: &[&str]) {
    let Some(text) = string(cx, at) else { return };
    if !allowed.contains(&text) {
        let list = allowed.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(at));
        cx.error(at, Code::Invalid, message);
    }
}

/// `maxLength`, in characters.
pub(super) fn max_length(cx: &mut Context<'_>, at: &At<'_>, text: &str, most: usize) {
    if text.chars().count() > most {
        cx.error(at, Code::TooLarge, format!("Too long: may not be more than {most} bytes"));
    }
}

/// A `LabelSelector`: the schema checks its types alone, and that expressions have a key and an operator (SEMANTICS C4).
pub(super) fn selector(cx: &mut Context<'_>, at: &At<'_>) {
    let Some(fields) = object(cx, at, &["matchLabels", "matchExpressions"]) else { return };
    if let Some(labels) = fields.get("matchLabels")
        && let Some(labels) = cx.any_fields(&labels)
    {
        for (_, _, value) in labels.at.entries().filter(|(_, _, value)| !value.is_null()) {
            string(cx, &value);
        }
    }
    let Some(expressions) = fields.get("matchExpressions") else { return };
    for at in cx.list(&expressions) {
        let Some(fields) = object(cx, &at, &["key", "operator", "values"]) else { continue };
        for name in ["key", "operator"] {
            if let Some(at) = required(cx, fields, name) {
                string(cx, &at);
            }
        }
        if let Some(values) = fields.get("values") {
            for value in cx.list(&values) {
                string(cx, &value);
            }
        }
    }
}

//! The individual checks of a CustomResourceDefinition's schema, with the API server's messages.
//!
//! Before it validates, the API server drops unknown fields, and fields that are null (SEMANTICS B3, C6). Here they
//! stay in the tree and are ignored: [`Fields::get`] skips nulls, and only known fields are read and counted. Null
//! elements of lists are not dropped, and are rejected.

use std::{collections::BTreeSet, ops::RangeInclusive};

use crate::{
    decode::{Context, Fields, quoted},
    diagnostic::{Code, Diagnostic, Severity},
    tree::At,
};

/// Checks `type: object`. Unknown fields are reported, but are no reason to reject the object.
pub(super) fn object<'a>(cx: &mut Context<'_>, at: &'a At<'a>, known: &[&str]) -> Option<Fields<'a>> {
    not_null(cx, at, "object").then(|| cx.fields(at, known)).flatten()
}

/// Checks `type: string`.
pub(super) fn string<'a>(cx: &mut Context<'_>, at: &At<'a>) -> Option<&'a str> {
    not_null(cx, at, "string").then(|| cx.string(at)).flatten()
}

fn not_null(cx: &mut Context<'_>, at: &At<'_>, expected: &str) -> bool {
    if at.is_null() {
        cx.error(
            at,
            Code::WrongType,
            format!("Invalid value: \"null\": {at} in body must be of type {expected}: \"null\""),
        );
    }
    !at.is_null()
}

/// Checks `required`.
pub(super) fn required<'a>(cx: &mut Context<'_>, fields: Fields<'a>, name: &str) -> Option<At<'a>> {
    let found = fields.get(name);
    if found.is_none() {
        cx.missing(fields.at, name, Code::Required, "Required value");
    }
    found
}

/// Checks `minProperties: 1`, and with `only_one` `maxProperties: 1`. Only known fields count.
pub(super) fn properties(cx: &mut Context<'_>, fields: Fields<'_>, known: &[&str], only_one: bool) {
    let at = fields.at;
    let count = known.iter().filter(|name| fields.get(name).is_some()).count();
    let names = || known.join(", ");
    if count == 0 {
        let message = format!("Invalid value: 0: {at} in body should have at least 1 properties");
        let help = if at.entries().next().is_some() {
            format!("set one of {}; the API server drops unknown fields before it counts", names())
        } else {
            format!("set one of {}", names())
        };
        cx.report(at, Diagnostic::new(Severity::Error, Code::Required, message).with_help(help));
    } else if only_one && count > 1 {
        let message = format!("Too many: {count}: must have at most 1 items");
        let help = format!("set only one of {}", names());
        cx.report(at, Diagnostic::new(Severity::Error, Code::Forbidden, message).with_help(help));
    }
}

/// Checks that exactly one of the `known` fields is set. If the object has a field of `only_experimental`, the help
/// says that only the experimental channel has it.
pub(super) fn choice<'a>(
    cx: &mut Context<'_>,
    at: &'a At<'a>,
    known: &[&str],
    only_experimental: &[&str],
) -> Option<Fields<'a>> {
    let before = cx.found.len();
    let fields = object(cx, at, known)?;
    properties(cx, fields, known, true);
    let named = only_experimental.iter().find(|name| fields.get(name).is_some());
    if let Some(name) = named {
        for diagnostic in &mut cx.found[before..] {
            diagnostic.help = Some(format!(
                "`{name}` is only in the experimental channel, and the standard channel drops it: use --channel \
                 experimental if the cluster's CustomResourceDefinitions are from that channel"
            ));
        }
    }
    Some(fields)
}

/// Checks `minItems` and `maxItems`.
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

/// Checks `x-kubernetes-list-type: set`.
pub(super) fn set(cx: &mut Context<'_>, items: &[At<'_>]) {
    let mut seen = BTreeSet::new();
    for item in items {
        let quoted = quoted(item);
        if !seen.insert(quoted.clone()) {
            cx.error(item, Code::Invalid, format!("Duplicate value: {quoted}"));
        }
    }
}

/// Checks `type: integer`, `format: int32`, `minimum` and `maximum`.
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

/// Checks `enum`.
pub(super) fn one_of(cx: &mut Context<'_>, at: &At<'_>, allowed: &[&str]) {
    let Some(text) = string(cx, at) else { return };
    if !allowed.contains(&text) {
        let list = allowed.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", quoted(at));
        cx.error(at, Code::Invalid, message);
    }
}

/// Checks `maxLength`, in characters.
pub(super) fn max_length(cx: &mut Context<'_>, at: &At<'_>, text: &str, most: usize) {
    if text.chars().count() > most {
        cx.error(at, Code::TooLarge, format!("Too long: may not be more than {most} bytes"));
    }
}

/// Checks a `LabelSelector`: the schema only checks types, and that expressions have a key and an operator (SEMANTICS
/// C4).
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

//! `LabelSelector`: decoding and validation (SEMANTICS A.3.10).

use std::collections::BTreeSet;

use palisade_policy::{Name, Requirement, Selector, Test};

use crate::{
    decode::{Context, quoted},
    diagnostic::Code,
    names,
    tree::At,
};

/// Decodes a label selector. Null is the empty selector. Callers that distinguish null from `{}` check for null first.
pub(crate) fn label_selector(cx: &mut Context<'_>, at: &At<'_>) -> Selector {
    let Some(fields) = cx.fields(at, &["matchLabels", "matchExpressions"]) else {
        return Selector::everything();
    };
    let mut requirements = Vec::new();
    if let Some(labels) = fields.get("matchLabels") {
        for (key, value) in cx.labels(&labels).iter() {
            requirements
                .push(Requirement { key: key.clone(), test: Test::In(BTreeSet::from([value.clone()])) });
        }
    }
    if let Some(expressions) = fields.get("matchExpressions") {
        for expression in cx.list(&expressions) {
            requirements.extend(requirement(cx, &expression));
        }
    }
    Selector::new(requirements)
}

fn requirement(cx: &mut Context<'_>, at: &At<'_>) -> Option<Requirement> {
    let fields = cx.fields(at, &["key", "operator", "values"]);
    let key = fields.and_then(|f| f.string(cx, "key")).unwrap_or_default();
    let key_at = fields.and_then(|f| f.get("key")).unwrap_or(*at);
    for message in names::label_key(key) {
        cx.error(&key_at, Code::Invalid, format!("Invalid value: \"{key}\": {message}"));
    }
    let values = values(cx, fields.and_then(|f| f.get("values")));
    let operator_at = fields.and_then(|f| f.get("operator")).unwrap_or(*at);
    let operator = fields.and_then(|f| f.string(cx, "operator")).unwrap_or_default();
    let test = match operator {
        "In" | "NotIn" if values.is_empty() => {
            let message = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
            cx.missing(at, "values", Code::Required, message);
            return None;
        }
        "In" => Test::In(values),
        "NotIn" => Test::NotIn(values),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message =
                "values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            cx.error(at, Code::Forbidden, message);
            return None;
        }
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::DoesNotExist,
        _ => {
            let quoted = if operator.is_empty() { "\"\"".to_owned() } else { quoted(&operator_at) };
            cx.error(
                &operator_at,
                Code::Invalid,
                format!("Invalid value: {quoted}: not a valid selector operator"),
            );
            return None;
        }
    };
    Some(Requirement { key: cx.names.name(key), test })
}

fn values(cx: &mut Context<'_>, at: Option<At<'_>>) -> BTreeSet<Name> {
    let Some(at) = at else { return BTreeSet::new() };
    let mut values = BTreeSet::new();
    for value_at in cx.list(&at) {
        if let Some(value) = cx.string(&value_at) {
            cx.invalid(&value_at, names::label_value(value));
            values.insert(cx.names.name(value));
        }
    }
    values
}

//! A page with the fields of all JSON output that has a schema.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use super::{cell, up_to_date};
use crate::support::root;

/// The verbs with a schema, and its file in docs.
const SCHEMAS: [(&str, &str); 12] = [
    ("can", "schemas/can.json"),
    ("connections", "connections-schema.json"),
    ("describe", "schemas/describe.json"),
    ("diff", "schemas/diff.json"),
    ("explain", "schemas/explain.json"),
    ("lint", "schemas/lint.json"),
    ("overview", "schemas/overview.json"),
    ("replay", "schemas/replay.json"),
    ("report", "schemas/report.json"),
    ("review", "schemas/review.json"),
    ("suggest", "schemas/suggest.json"),
    ("test", "schemas/test.json"),
];

/// The type of a field in a few words. Types with a name lead to their table.
fn kind(verb: &str, field: &Value) -> String {
    let words = |values: &Value| {
        let shown = values.as_array().unwrap().iter().map(|value| format!("`{value}`").replace('"', ""));
        shown.collect::<Vec<_>>().join(", ")
    };
    let any = |choices: &Value| {
        choices.as_array().unwrap().iter().map(|choice| kind(verb, choice)).collect::<Vec<_>>().join(" or ")
    };
    if let Some(name) = field["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        format!("[{name}](#{verb}-{name})")
    } else if field["const"].is_string() {
        format!("`{}`", field["const"].as_str().unwrap())
    } else if field["enum"].is_array() {
        words(&field["enum"])
    } else if field["oneOf"].is_array() {
        any(&field["oneOf"])
    } else if field["anyOf"].is_array() {
        any(&field["anyOf"])
    } else if field["type"].is_array() {
        words(&field["type"]).replace(", ", " or ").replace('`', "")
    } else if field["type"] == "array" {
        format!("list of {}", kind(verb, &field["items"]))
    } else {
        field["type"].as_str().unwrap_or("any").to_owned()
    }
}

/// The table of an object's fields.
fn fields(verb: &str, object: &Value) -> String {
    let Some(properties) = object["properties"].as_object() else {
        return format!("{}\n", kind(verb, object));
    };
    let required = object["required"].as_array().cloned().unwrap_or_default();
    let mut table = "| field | type | |\n| --- | --- | --- |\n".to_owned();
    for (name, field) in properties {
        let optional = if required.iter().any(|r| r == name) { "" } else { " (optional)" };
        let meaning = cell(field["description"].as_str().unwrap_or_default());
        let kind = kind(verb, field).replace('|', "\\|");
        writeln!(table, "| `{name}`{optional} | {kind} | {meaning} |").unwrap();
    }
    table
}

#[test]
fn every_field_is_listed() {
    let mut page = "# JSON output\n\n\
         <!-- Written from docs/schemas by crates/palisade/tests/book. -->\n\n\
         The fields of `-o json` (and `-o yaml`, which prints the same object). `schema` names the version, which changes if a field \
         changes its meaning or is removed. New fields may be added within a version, so programs must ignore fields that they don't \
         know. The files are JSON Schemas; tests compare the output with them.\n"
        .to_owned();
    for (verb, file) in SCHEMAS {
        let schema: Value =
            serde_json::from_str(&fs::read_to_string(root().join("docs").join(file)).unwrap()).unwrap();
        let description = schema["description"].as_str().unwrap_or_default();
        write!(
            page,
            "\n## palisade {verb}\n\n{description} [{file}](../{file})\n\n{}",
            fields(verb, &schema)
        )
        .unwrap();
        for (name, object) in schema["$defs"].as_object().into_iter().flatten() {
            let description =
                object["description"].as_str().map_or(String::new(), |text| format!("{text}\n\n"));
            write!(page, "\n### {verb}: {name}\n\n{description}{}", fields(verb, object)).unwrap();
        }
    }
    up_to_date("json.md", &page);
}

//! What `palisade lint -o sarif` writes is what the schema of SARIF 2.1.0 asks for.
//!
//! The tables are those of the parts of the schema (OASIS, sarif-schema-2.1.0) that are used: properties that it doesn't have are
//! forbidden everywhere but in property bags. With PALISADE_SARIF_LOGS, what is checked is also written to that folder, and the CI step
//! `sarif` checks it with the whole schema.

mod support;

use std::{fs, path::PathBuf};

use palisade_lint::RULES;
use serde_json::Value;
use support::{program, run};

/// Checks a value.
type Check = fn(&Value) -> Result<(), String>;

/// A type of the schema.
struct Type {
    required: &'static [&'static str],
    /// The properties that are used, each with a check of its value.
    properties: &'static [(&'static str, Check)],
}

const LOG: Type = Type {
    required: &["version", "runs"],
    properties: &[("$schema", uri), ("version", |v| one_of(v, &["2.1.0"])), ("runs", |v| all(v, &RUN))],
};
const RUN: Type = Type {
    required: &["tool"],
    properties: &[
        ("tool", |v| of(v, &TOOL)),
        ("columnKind", |v| one_of(v, &["utf16CodeUnits", "unicodeCodePoints"])),
        ("results", |v| all(v, &RESULT)),
    ],
};
const TOOL: Type = Type { required: &["driver"], properties: &[("driver", |v| of(v, &COMPONENT))] };
const COMPONENT: Type = Type {
    required: &["name"],
    properties: &[
        ("name", string),
        ("version", string),
        ("rules", |v| unique(v).and_then(|()| all(v, &RULE))),
    ],
};
const RULE: Type = Type {
    required: &["id"],
    properties: &[
        ("id", string),
        ("name", string),
        ("shortDescription", |v| of(v, &MESSAGE)),
        ("fullDescription", |v| of(v, &MESSAGE)),
        ("defaultConfiguration", |v| of(v, &CONFIGURATION)),
    ],
};
const CONFIGURATION: Type = Type { required: &[], properties: &[("level", level)] };
const MESSAGE: Type = Type { required: &["text"], properties: &[("text", string)] };
const RESULT: Type = Type {
    required: &["message"],
    properties: &[
        ("ruleId", string),
        ("ruleIndex", |v| at_least(v, 0)),
        ("level", level),
        ("message", |v| of(v, &MESSAGE)),
        ("locations", |v| all(v, &LOCATION)),
        ("partialFingerprints", strings),
    ],
};
const LOCATION: Type = Type {
    required: &[],
    properties: &[
        ("physicalLocation", |v| of(v, &PHYSICAL_LOCATION)),
        ("logicalLocations", |v| unique(v).and_then(|()| all(v, &LOGICAL_LOCATION))),
    ],
};
const LOGICAL_LOCATION: Type = Type { required: &[], properties: &[("fullyQualifiedName", string)] };
const PHYSICAL_LOCATION: Type = Type {
    required: &["artifactLocation"],
    properties: &[("artifactLocation", |v| of(v, &ARTIFACT)), ("region", |v| of(v, &REGION))],
};
const ARTIFACT: Type = Type { required: &["uri"], properties: &[("uri", uri)] };
const REGION: Type = Type {
    required: &["startLine"],
    properties: &[("startLine", |v| at_least(v, 1)), ("startColumn", |v| at_least(v, 1))],
};

fn of(value: &Value, kind: &Type) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    if let Some(missing) = kind.required.iter().find(|name| !object.contains_key(**name)) {
        return Err(format!("{missing} is missing in {value}"));
    }
    for (name, value) in object {
        let known = kind.properties.iter().find(|(own, _)| own == name);
        let (_, check) = known.ok_or_else(|| format!("there is no property {name}"))?;
        check(value).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn all(value: &Value, kind: &Type) -> Result<(), String> {
    value.as_array().ok_or("no array")?.iter().try_for_each(|item| of(item, kind))
}

fn unique(value: &Value) -> Result<(), String> {
    let items = value.as_array().ok_or("no array")?;
    let equal = items.iter().enumerate().any(|(at, item)| items[at + 1..].contains(item));
    if equal { Err("has an item twice".to_owned()) } else { Ok(()) }
}

fn string(value: &Value) -> Result<(), String> {
    if value.is_string() { Ok(()) } else { Err(format!("{value} is no string")) }
}

fn strings(value: &Value) -> Result<(), String> {
    value.as_object().ok_or("no object")?.values().try_for_each(string)
}

fn one_of(value: &Value, allowed: &[&str]) -> Result<(), String> {
    let fits = value.as_str().is_some_and(|text| allowed.contains(&text));
    if fits { Ok(()) } else { Err(format!("{value} is none of {allowed:?}")) }
}

fn level(value: &Value) -> Result<(), String> {
    one_of(value, &["none", "note", "warning", "error"])
}

fn at_least(value: &Value, least: u64) -> Result<(), String> {
    if value.as_u64().is_some_and(|n| n >= least) { Ok(()) } else { Err(format!("{value} is below {least}")) }
}

/// A reference of RFC 3986: its characters, and percent signs only before two hexadecimal digits.
fn uri(value: &Value) -> Result<(), String> {
    let text = value.as_str().ok_or("no string")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    let encoded = text
        .split('%')
        .skip(1)
        .all(|rest| rest.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())));
    if text.bytes().all(allowed) && encoded { Ok(()) } else { Err(format!("{text} is no URI")) }
}

#[test]
fn findings_of_all_rules_conform_to_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("PALISADE_SARIF_LOGS").map(PathBuf::from);
    for rule in RULES {
        let file = dir.path().join(format!("{} %{}.yaml", rule.name, rule.code));
        fs::write(&file, rule.bad).unwrap();
        let words =
            ["lint", "-f", file.to_str().unwrap(), "-o", "sarif", "--severity", "note", "--plugin", "weave"];
        let (code, out, err) = run(&mut program(words.into_iter()));
        assert!(code == 1 || (code == 2 && rule.name == "not-rendered"), "{}: {err}", rule.name);
        if let Some(kept) = &kept {
            fs::write(kept.join(format!("{}.sarif", rule.code)), &out).unwrap();
        }
        let log: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(of(&log, &LOG), Ok(()), "{}", rule.name);
        let run = &log["runs"][0];
        let results = run["results"].as_array().unwrap();
        let own = results.iter().filter(|result| result["ruleId"] == rule.code).count();
        assert!(own > 0, "{}: {results:?}", rule.name);
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
            assert_eq!(result["partialFingerprints"]["palisade/v1"].as_str().unwrap().len(), 16);
        }
    }
}

#[test]
fn what_the_schema_forbids_is_noticed() {
    let valid =
        serde_json::json!({ "version": "2.1.0", "runs": [{ "tool": { "driver": { "name": "x" } } }] });
    assert_eq!(of(&valid, &LOG), Ok(()));
    let spoilt = |place: &str, value: Value| {
        let mut log = valid.clone();
        *log.pointer_mut(place).unwrap() = value;
        of(&log, &LOG)
    };
    for (place, value) in [
        ("/version", "2.0.0".into()),
        ("/runs/0/tool", serde_json::json!({})),
        ("/runs/0/tool/driver", serde_json::json!({ "name": "x", "title": "y" })),
        (
            "/runs/0",
            serde_json::json!({ "tool": { "driver": { "name": "x" } }, "results": [{ "ruleId": "PAL001" }] }),
        ),
    ] {
        assert!(spoilt(place, value.clone()).is_err(), "{place}: {value}");
    }
    assert!(at_least(&0.into(), 1).is_err() && uri(&"a b".into()).is_err() && uri(&"a%zz".into()).is_err());
    assert!(level(&"info".into()).is_err() && unique(&serde_json::json!([1, 1])).is_err());
}

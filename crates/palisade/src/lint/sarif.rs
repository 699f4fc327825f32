//! Findings as SARIF 2.1.0.

use std::fmt::Write as _;

use anyhow::Result;
use palisade_lint::{Finding, LintRule};
use serde_json::{Value, json};

use super::{Shown, formats::message};
use crate::output::Encoding;

/// Encodes findings, and the rules that were checked.
pub(super) fn document(shown: &Shown, rules: &[&'static LintRule]) -> Result<String> {
    let rule = |rule: &&LintRule| {
        json!({
            "id": rule.code,
            "name": rule.name,
            "shortDescription": { "text": rule.what },
            "fullDescription": { "text": rule.why },
            "defaultConfiguration": { "level": rule.level.as_str() },
        })
    };
    let result = |f: &Finding| {
        let mut result = json!({
            "ruleId": f.rule.code,
            "level": f.level.as_str(),
            "message": { "text": message(f) },
            "partialFingerprints": { "palisade/v1": f.fingerprint },
        });
        if let Some(index) = rules.iter().position(|r| r.code == f.rule.code) {
            result["ruleIndex"] = Value::from(index);
        }
        if let Some(origin) = &f.origin {
            result["locations"] = json!([{ "physicalLocation": {
                "artifactLocation": { "uri": uri(&origin.file) },
                "region": { "startLine": origin.line, "startColumn": origin.column },
            }}]);
            if let (Some(object), Some(field)) = (&f.object, &f.field) {
                let name = format!("{object} {field}");
                result["locations"][0]["logicalLocations"] = json!([{ "fullyQualifiedName": name }]);
            }
        }
        result
    };
    Encoding::Json.encode(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "palisade",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": shown.findings.iter().map(result).collect::<Vec<_>>(),
        }],
    }))
}

/// Returns a path as a URI reference: other characters than those of RFC 3986 are encoded.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

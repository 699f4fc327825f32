//! Keeps `docs/logs.md` and the log lines in the sources equal.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Level and phrase of a log line, with its fields.
type Lines = BTreeMap<(String, String), BTreeSet<String>>;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the sources of a crate, without tests.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            out.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\n").next().unwrap().to_owned();
            out.push((path, code));
        }
    }
    out
}

/// Splits the arguments of a macro call at the commas outside of parentheses and strings, up to the closing parenthesis.
fn arguments(code: &str) -> Vec<String> {
    let (mut out, mut current) = (Vec::new(), String::new());
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for c in code.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                out.push(current.trim().to_owned());
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    out.push(current.trim().to_owned());
    out.retain(|argument| !argument.is_empty());
    out
}

/// Returns the log lines in the sources of the agent and of the crates whose events it logs.
fn logged() -> Lines {
    let mut lines = Lines::new();
    for name in ["agent", "api"] {
        for (path, code) in sources(&root().join("crates").join(name).join("src")) {
            for level in LEVELS {
                for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                    let mut arguments = arguments(call);
                    let phrase = arguments.pop().unwrap();
                    let literal = phrase.strip_prefix('"').and_then(|p| p.strip_suffix('"'));
                    let phrase =
                        literal.unwrap_or_else(|| panic!("{}: {phrase} is not a literal", path.display()));
                    assert!(!phrase.contains('{'), "{}: {phrase:?} has fields in its text", path.display());
                    assert!(!phrase.ends_with('.'), "{}: {phrase:?} ends with a period", path.display());
                    let field = |argument: &String| {
                        let name = argument.split(" = ").next().unwrap();
                        name.trim_start_matches(['%', '?']).to_owned()
                    };
                    let fields = arguments.iter().map(field).collect::<BTreeSet<_>>();
                    let key = (level.to_owned(), phrase.to_owned());
                    if let Some(other) = lines.insert(key, fields.clone()) {
                        assert_eq!(
                            other,
                            fields,
                            "{}: {phrase:?} has other fields elsewhere",
                            path.display()
                        );
                    }
                }
            }
        }
    }
    lines
}

/// Returns the log lines in the documentation.
fn documented() -> Lines {
    let text = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let (mut lines, mut level) = (Lines::new(), None);
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            level = match heading {
                "Errors" => Some("error"),
                "Warnings" => Some("warn"),
                "Information" => Some("info"),
                "Debug" => Some("debug"),
                _ => None,
            };
        }
        // An empty cell is a cell.
        let line = line.replace("| |", "|  |");
        let mut cells = line.strip_prefix("| ").into_iter().flat_map(|row| row.split(" | ")).peekable();
        let level = match (level, cells.peek()) {
            (Some(level), _) => level,
            (None, Some(cell)) if LEVELS.contains(cell) => cells.next().unwrap(),
            _ => continue,
        };
        let code = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        let Some(phrase) = cells.next().and_then(|cell| code(cell).into_iter().next()) else { continue };
        let fields = cells.next().map(code).unwrap_or_default().into_iter().collect();
        assert_eq!(
            lines.insert((level.to_owned(), phrase.clone()), fields),
            None,
            "{phrase:?} is listed twice"
        );
    }
    lines
}

#[test]
fn every_log_line_is_documented_with_its_level_and_fields() {
    let (logged, documented) = (logged(), documented());
    let missing: Vec<_> =
        logged.iter().filter(|(key, fields)| documented.get(*key) != Some(*fields)).collect();
    assert!(missing.is_empty(), "not in docs/logs.md, or with other fields: {missing:#?}");
    let outdated: Vec<_> = documented.keys().filter(|key| !logged.contains_key(*key)).collect();
    assert!(outdated.is_empty(), "in docs/logs.md, but not in the code: {outdated:#?}");
    assert!(logged.len() > 50, "{}", logged.len());
}

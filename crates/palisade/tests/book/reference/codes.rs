//! docs/reference/codes.md describes every code that JSON output may have, and no other. docs/reference/diagnostics.md lists the
//! codes of messages about manifests.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use super::{cell, up_to_date};
use crate::support::root;

/// Where codes are made.
const SOURCES: [&str; 2] = ["crates/analysis/src/causes", "crates/palisade/src"];
/// What stands before a code in the sources.
const BEFORE: [&str; 2] = ["code: \"", "Note::new(\""];
/// What stands before a row of a table of codes, or of one of several outcomes. There, a word without a hyphen is a code only if its
/// text follows.
const ROW: &str = "(\"";
/// Words in such a place that are something else: what an edit of a JSON patch does.
const NO_CODES: [&str; 2] = ["add", "replace"];
/// Words with a hyphen in such a place that are something else: names of settings.
const SETTINGS: &str = "crates/palisade/src/configuration";

/// The words that follow `before` as the first of several values, with what follows them.
fn words_after<'a>(code: &'a str, before: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let rests = code.match_indices(before).map(move |(at, _)| &code[at + before.len()..]);
    let words =
        rests.filter_map(|rest| rest.split_once('"')).filter(|(_, rest)| rest.starts_with([',', ' ']));
    words.filter(|(word, _)| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    })
}

fn codes_of(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let plain = BEFORE.iter().flat_map(|before| words_after(code, before));
    let rows =
        words_after(code, ROW).filter(|(word, rest)| word.contains('-') || rest.starts_with(", format!("));
    plain.chain(rows).map(|(word, _)| word.to_owned()).filter(|word| !NO_CODES.contains(&&**word)).collect()
}

fn codes_below(path: &Path, codes: &mut BTreeSet<String>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.starts_with(root().join(SETTINGS)) {
            continue;
        }
        if path.is_dir() {
            codes_below(&path, codes);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            codes.extend(codes_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_code_is_described() {
    let mut made = BTreeSet::new();
    for source in SOURCES {
        codes_below(&root().join(source), &mut made);
    }
    let page = fs::read_to_string(root().join("docs/reference/codes.md")).unwrap();
    let described = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let described: BTreeSet<String> = described.map(|(code, _)| code.to_owned()).collect();
    let missing: Vec<_> = made.difference(&described).collect();
    let gone: Vec<_> = described.difference(&made).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in docs/reference/codes.md: {missing:?}; not in the code: {gone:?}"
    );
}

/// The codes of messages about manifests, with their descriptions in the source.
fn diagnostics() -> Vec<(String, String)> {
    let source = fs::read_to_string(root().join("crates/manifest/src/diagnostic.rs")).unwrap();
    let list = source.split_once("\ncodes! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let mut found = Vec::new();
    let mut description = String::new();
    for line in list.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            description += if description.is_empty() { "" } else { " " };
            description += text;
        } else if let Some(code) = line.split('"').nth(1) {
            found.push((code.to_owned(), std::mem::take(&mut description)));
        }
    }
    found
}

#[test]
fn every_code_of_a_diagnostic_is_listed() {
    let mut page = "# Messages about manifests\n\n\
         <!-- Written from crates/manifest/src/diagnostic.rs by crates/palisade/tests/book. -->\n\n\
         The code of a message stands in its brackets, `error[required]`. A message has the file, the line, the object and the field, and \
         says how to correct it. Errors have exit code 2; warnings don't change the exit code.\n\n\
         | code | meaning |\n| --- | --- |\n"
        .to_owned();
    let diagnostics = diagnostics();
    assert!(diagnostics.len() > 20, "{diagnostics:?}");
    for (code, description) in diagnostics {
        writeln!(page, "| `{code}` | {} |", cell(&description)).unwrap();
    }
    up_to_date("diagnostics.md", &page);
}

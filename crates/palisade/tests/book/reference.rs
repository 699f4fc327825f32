//! The pages of docs/reference are written from the code.

mod codes;
#[cfg(all(feature = "agent", feature = "lab"))]
mod commands;
mod lint;
mod schemas;

use std::fs;

use crate::{blessed, support::root};

/// Asserts that a page of docs/reference is what the code says. `PALISADE_BLESS=1` writes it.
#[track_caller]
fn up_to_date(page: &str, text: &str) {
    let path = root().join("docs/reference").join(page);
    if blessed() {
        fs::write(&path, text).unwrap();
    } else {
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "docs/reference/{page} is stale. To update it: PALISADE_BLESS=1 cargo test -p palisade --test book"
        );
    }
}

/// Text for the cell of a table: what Markdown and HTML would interpret is escaped, except in code.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = part.replace('|', "\\|");
        if i > 0 {
            cell.push('`');
        }
        if i % 2 == 0 {
            cell += &part.replace('<', "&lt;").replace('*', "\\*").replace('[', "\\[");
        } else {
            cell += &part;
        }
    }
    cell
}

//! The pages of the documentation: their commands print what the pages show, and the generated pages are what the code says.
//! `PALISADE_BLESS=1` updates both.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod blocks;
mod commands;
mod reference;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The Markdown files of a directory, with those of its directories, by their paths from the repository's root.
fn markdown(directory: &str) -> Vec<String> {
    let root = support::root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root.join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(from_root(&root, &path));
            }
        }
    }
    found.sort();
    found
}

fn from_root(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

fn blessed() -> bool {
    std::env::var_os("PALISADE_BLESS").is_some()
}

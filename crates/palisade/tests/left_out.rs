//! What a build without a feature says: the verb and the option are known, and the answer is how to get them. Run with
//! `--no-default-features`, and one feature or none.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{path::Path, process::Command};

/// Runs the program. Returns the exit code, standard output and standard error.
fn palisade(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command
        .args(words)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env_remove("COLUMNS");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The verbs and the feature that each needs.
const VERBS: [(&str, &str, bool); 9] = [
    ("agent", "agent", cfg!(feature = "agent")),
    ("doctor", "agent", cfg!(feature = "agent")),
    ("lab", "lab", cfg!(feature = "lab")),
    ("cni", "agent", cfg!(feature = "agent")),
    ("node", "agent", cfg!(feature = "agent")),
    ("flows", "live", cfg!(feature = "live")),
    ("snapshot", "live", cfg!(feature = "live")),
    ("ui", "ui", cfg!(feature = "ui")),
    ("status", "live", cfg!(feature = "live")),
];

const EVERYTHING: &str = "`cargo install --locked --path crates/palisade` builds everything";

#[test]
fn a_verb_that_is_left_out_is_an_error_that_names_its_feature() {
    for (verb, feature, _) in VERBS.iter().filter(|(_, _, is_here)| !is_here) {
        for words in [&[*verb][..], &[verb, "--help"], &[verb, "run", "examples/shop"], &["man", verb]] {
            let (code, out, err) = palisade(words);
            assert_eq!((code, &*out), (Some(2), ""), "{words:?}: {err}");
            assert!(err.contains(&format!("this build has no `palisade {verb}`")), "{words:?}: {err}");
            assert!(err.contains(&format!("without the feature `{feature}`")), "{words:?}: {err}");
            assert!(err.contains(EVERYTHING), "{words:?}: {err}");
        }
    }
}

#[test]
fn help_completions_and_manual_pages_have_the_verbs_of_the_build() {
    let (_, help, _) = palisade(&["--help"]);
    let (_, offered, _) = palisade(&["__complete", ""]);
    let (_, script, _) = palisade(&["completions", "elvish"]);
    let pages = tempfile::TempDir::new().unwrap();
    assert_eq!(palisade(&["man", "--dir", pages.path().to_str().unwrap()]).0, Some(0));
    for (verb, _, is_here) in VERBS {
        assert_eq!(help.contains(&format!("\n  {verb} ")), is_here, "{verb}: {help}");
        assert_eq!(offered.contains(&format!("{verb}\t")), is_here, "{verb}: {offered}");
        assert_eq!(script.contains(&format!("cand {verb} ")), is_here, "{verb}: {script}");
        assert_eq!(pages.path().join(format!("palisade-{verb}.1")).exists(), is_here, "{verb}");
        let missing = help.lines().find(|line| line.starts_with("Not in this build: "));
        assert_eq!(missing.is_some_and(|line| line.contains(verb)), !is_here, "{verb}: {help}");
    }
}

/// Files are read as ever; a question about a running cluster is answered with how to get the client.
#[cfg(not(feature = "live"))]
#[test]
fn without_a_client_files_are_read_and_clusters_are_not() {
    let can = ["can", "staging/frontend", "shop/backend:8080"];
    let (code, out, err) = palisade(&[&can[..], &["-f", "examples/shop"]].concat());
    assert_eq!(code, Some(1), "{err}");
    assert!(out.starts_with("denied"), "{out}");
    for options in [&[][..], &["--context", "production"], &["-f", "examples/shop", "--live"]] {
        let words = [&can[..], options].concat();
        let (code, out, err) = palisade(&words);
        assert_eq!((code, &*out), (Some(2), ""), "{words:?}: {err}");
        assert!(err.contains("this build has no Kubernetes client"), "{words:?}: {err}");
        assert!(err.contains("without the feature `live`") && err.contains(EVERYTHING), "{words:?}: {err}");
        assert!(err.contains("use -f PATH"), "{words:?}: {err}");
    }
    let probe = ["test", "examples/shop.assertions.yaml", "--probe"];
    for words in [&probe[..], &[&probe[..], &["-f", "examples/shop"]].concat()] {
        let (code, out, err) = palisade(words);
        assert_eq!((code, &*out), (Some(2), ""), "{words:?}: {err}");
        assert!(
            err.contains("this build has no Kubernetes client") && err.contains("leave out --probe"),
            "{err}"
        );
    }
    let (code, _, err) = palisade(&["diff", "--live", "examples/shop"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("this build has no Kubernetes client") && err.contains("give two paths"), "{err}");
    // Completion has no answer, and no error either: a shell waits for it.
    assert_eq!(palisade(&["__complete", "can", ""]), (Some(0), ":4\n".to_owned(), String::new()));
}

/// A repository's settings for a verb of another build are no error.
#[cfg(not(feature = "lab"))]
#[test]
fn settings_for_a_verb_that_is_left_out_are_skipped() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("palisade.toml");
    std::fs::write(&file, "[lab.run]\nkeep-going = true\n").unwrap();
    let words = ["overview", "-f", "examples/shop", "--config", file.to_str().unwrap()];
    let (code, _, err) = palisade(&words);
    assert_eq!(code, Some(0), "{err}");
}

//! The help of every verb, compared with a snapshot, as it is part of the interface. `PALISADE_BLESS=1 cargo test` updates it.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

use std::{fs, path::Path, process::Command};

fn help(verb: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(verb)
        .arg("--help")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the verbs that a help text lists.
fn verbs(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    listed
        .filter_map(|l| l.strip_prefix("  ")?.split(' ').next().filter(|w| !w.is_empty()).map(str::to_owned))
        .collect()
}

fn check(verb: &[&str], differing: &mut Vec<String>) {
    let help = help(verb);
    let name = if verb.is_empty() { "palisade".to_owned() } else { verb.join("-") };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(format!("{name}.txt"));
    // Without a feature, the list of verbs is shorter.
    let is_complete = cfg!(all(feature = "agent", feature = "lab", feature = "live")) || !verb.is_empty();
    if is_complete && std::env::var_os("PALISADE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &help).unwrap();
    } else if is_complete && fs::read_to_string(&path).ok().as_deref() != Some(&help) {
        differing.push(format!("{name}:\n{help}"));
    }
    assert!(help.lines().all(|l| l.chars().count() <= 120), "{name} is too wide:\n{help}");
    let inner = verbs(&help);
    assert!(!inner.is_empty() || help.contains("Examples:"), "{name} has no examples");
    for word in inner.iter().filter(|w| *w != "help") {
        check(&[verb, &[word]].concat(), differing);
    }
}

#[test]
fn help_is_as_recorded() {
    let mut differing = Vec::new();
    check(&[], &mut differing);
    assert!(
        differing.is_empty(),
        "not as in tests/help; if this is intended, run with PALISADE_BLESS=1 and note it in CHANGELOG.md:\n{}",
        differing.join("\n")
    );
}

#[cfg(feature = "agent")]
#[test]
fn with_the_feature_the_verbs_of_a_node_are_there() {
    let verbs = verbs(&help(&[]));
    assert!(["agent", "doctor", "node"].iter().all(|verb| verbs.iter().any(|v| v == verb)), "{verbs:?}");
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_palisade")).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        // Scripts for the first three ask the program for words, so that names of objects are completed too.
        let part = if matches!(shell, "powershell" | "elvish") { "keep-going" } else { "__complete" };
        assert!(script.contains(part), "{shell}");
    }
}

/// Every verb that the help lists has a manual page with its options and examples.
#[test]
fn manual_pages_cover_every_verb() {
    let dir = tempfile::TempDir::new().unwrap();
    let man = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_palisade")).arg("man").args(words).output().unwrap()
    };
    let written = man(&["--dir", dir.path().to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty());
    let page = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap_or_default();
    let top = verbs(&help(&[]));
    let mut all = Vec::new();
    for verb in top.iter().filter(|verb| *verb != "help") {
        let inner = verbs(&help(&[verb])).into_iter().filter(|inner| inner != "help");
        all.extend(inner.map(|inner| format!("{verb} {inner}")));
        all.push(verb.clone());
    }
    assert!(all.len() > 8, "{all:?}");
    for verb in &all {
        let text = page(&format!("palisade-{}", verb.replace(' ', "-")));
        assert!(text.contains(".SH OPTIONS") && text.contains(&format!("palisade {verb}")), "{verb}: {text}");
        let words: Vec<&str> = verb.split(' ').collect();
        assert_eq!(String::from_utf8(man(&words).stdout).unwrap(), text, "{verb}");
    }
    assert!(page("palisade-can").contains("Examples:") && page("palisade").contains("palisade"));
    assert_eq!(man(&["cam"]).status.code(), Some(2));
}

#[test]
fn a_wrong_command_line_is_an_error() {
    for words in [&["can"][..], &["cam"], &[], &["can", "a", "b", "-o", "xml"], &["lab"], &["lab", "run"]] {
        refusal(words);
    }
}

/// Runs a wrong command line, and returns its error.
fn refusal(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_palisade")).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{words:?}");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[cfg(feature = "lab")]
#[test]
fn a_word_in_place_of_a_number_is_said_in_plain_words() {
    let no_number = [
        &["review", "--max-size", "x"][..],
        &["lab", "run", "--nodes", "x"],
        &["lab", "fuzz", "--seed", "-"],
    ];
    for words in no_number {
        let (option, value) = (words[words.len() - 2], words[words.len() - 1]);
        let error = refusal(words);
        let begin = format!("error: invalid value '{value}' for '{option} ");
        assert!(
            error.starts_with(&begin) && error.contains(">': not a whole number\n"),
            "{words:?}: {error}"
        );
    }
    let large = refusal(&["lab", "fuzz", "--seed", "99999999999999999999"]);
    assert!(large.contains("for '--seed <S>': the number is too large\n"), "{large}");
}

/// A run of no cases would look like one in which the kernel and the engine agreed.
#[cfg(feature = "lab")]
#[test]
fn a_fuzz_run_has_cases() {
    let error = refusal(&["lab", "fuzz", "--cases", "0"]);
    assert!(error.contains("0 is not in 1..") && error.contains("--cases"), "{error}");
}

/// Each verb has a task in the help, or is named here.
#[test]
fn the_verbs_by_task_are_complete() {
    let help = help(&[]);
    let tasks = help.lines().skip_while(|l| *l != "Verbs by task:").skip(1).take_while(|l| !l.is_empty());
    let mut named: Vec<&str> = tasks
        .flat_map(|line| line.trim().rsplit("  ").next().unwrap().split(", ").map(str::trim))
        .chain(["cni", "completions", "man", "help"])
        .collect();
    let mut listed = verbs(&help);
    if !listed.iter().any(|verb| verb == "cni") {
        named.retain(|verb| *verb != "cni");
    }
    named.sort_unstable();
    listed.sort_unstable();
    assert_eq!(named, listed);
}

//! The output of all verbs: encodings and colors.

mod support;

use serde_json::Value;
use support::{answer, palisade, run};

/// A question for each verb that reads manifests, and its exit code.
const QUESTIONS: [(i32, &str); 4] = [
    (1, "can staging/frontend shop/backend:8080 -f examples/shop"),
    (1, "explain staging/frontend shop/backend:8080 -f examples/shop"),
    (0, "describe shop/backend -f examples/shop"),
    (1, "diff examples/shop examples/shop-two-rules"),
];

#[test]
fn yaml_has_the_content_of_json() {
    for (code, question) in QUESTIONS {
        let json: Value =
            serde_json::from_str(&answer(code, &format!("{question} -o json"))).expect(question);
        let yaml: Value =
            serde_saphyr::from_str(&answer(code, &format!("{question} -o yaml"))).expect(question);
        assert_eq!(json, yaml, "{question}");
    }
}

#[test]
fn colors_are_used_when_they_are_wanted() {
    let question = QUESTIONS[0].1;
    let colored = |options: &str| {
        let words = format!("{question}{options}");
        let (_, out, _) = run(palisade(&words).env_remove("NO_COLOR"));
        out.contains('\u{1b}')
    };
    assert!(!colored(""), "a pipe gets no colors");
    assert!(colored(" --color=always"));
    assert!(!colored(" --color=never"));
    let (_, out, _) = run(palisade(&format!("{question} --color=always")).env("NO_COLOR", "1"));
    assert!(out.contains('\u{1b}'), "a flag counts more than the environment");
    let (code, _, err) = run(&mut palisade(&format!("{question} --color=sometimes")));
    assert_eq!(code, 2);
    assert!(err.contains("auto, always, never"), "{err}");
}

/// Nothing is said to be done that was not: neither an answer nor the help fits on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn what_can_not_be_written_is_an_error() {
    for words in ["--help", "-h", "--version", "can --help", "help lint", "completions bash", QUESTIONS[2].1]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the device");
        let output = palisade(words).stdout(full).output().expect("the program runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(err.contains("can't write") && err.contains("No space left"), "{words}: {err}");
    }
}

//! Running the program, for tests of its verbs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program in the repository's root, so that file names in answers are those of the examples.
pub(crate) fn palisade(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(words.split(' ')).current_dir(root()).stdin(Stdio::null());
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE");
    // The cluster of whoever runs the tests is not asked.
    command.env("KUBECONFIG", "/nonexistent").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

/// Exit code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("answers are UTF-8");
    // No code means killed by a signal, which a test must see.
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// The answer to a question that has one, with this exit code and without any message.
#[track_caller]
pub(crate) fn answer(code: i32, words: &str) -> String {
    let (got, out, err) = run(&mut palisade(words));
    assert_eq!((got, &*err), (code, ""), "{words}: {out}");
    out
}

/// Exit code 2, nothing on standard output, and `part` in the message.
#[track_caller]
pub(crate) fn refused(words: &str, part: &str) {
    let (code, out, err) = run(&mut palisade(words));
    assert_eq!((code, &*out), (2, ""), "{words}: {err}");
    assert!(err.contains(part) && !err.contains("panicked"), "{words}: no {part:?} in {err}");
}

/// Compares an answer with what is recorded; `PALISADE_BLESS=1` records it.
#[track_caller]
pub(crate) fn recorded(file: &str, answer: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    if std::env::var_os("PALISADE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has a directory")).expect("it can be made");
        std::fs::write(&path, answer).expect("it can be written");
    } else {
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(expected == answer, "not as in tests/{file}:\n{answer}");
    }
}

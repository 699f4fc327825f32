//! Runs the program, for tests of its verbs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

// Each test program uses some of these functions. What a constant uses is never unused.
const _: fn(i32, &str) -> String = answer;
const _: [fn(&str, &str); 2] = [refused, recorded];
const _: fn(&Path, &str) = apply;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program, run in the repository's root, so that answers have the relative paths of the examples.
pub(crate) fn palisade(words: &str) -> Command {
    program(words.split(' '))
}

/// The same with arguments that may contain spaces.
pub(crate) fn program<'a>(words: impl Iterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command.env_remove("RUST_BACKTRACE").env_remove("CLICOLOR_FORCE");
    // The developer's own cluster must not be read.
    command.env("KUBECONFIG", "/nonexistent").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

/// Runs a command; returns the exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("answers are UTF-8");
    // Without a code, the process was killed by a signal.
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Runs a verb that must exit with this code and without messages; returns its answer.
#[track_caller]
pub(crate) fn answer(code: i32, words: &str) -> String {
    let (got, out, err) = run(&mut palisade(words));
    assert_eq!((got, &*err), (code, ""), "{words}: {out}");
    out
}

/// Asserts exit code 2, empty standard output, and `part` in the message.
#[track_caller]
pub(crate) fn refused(words: &str, part: &str) {
    let (code, out, err) = run(&mut palisade(words));
    assert_eq!((code, &*out), (2, ""), "{words}: {err}");
    assert!(err.contains(part) && !err.contains("panicked"), "{words}: no {part:?} in {err}");
}

/// Applies a patch to the files of a directory with `git apply`.
#[track_caller]
pub(crate) fn apply(dir: &Path, patch: &str) {
    let mut command = Command::new("git");
    command.args(["apply", "-p0", "-"]).current_dir(dir).env("GIT_CEILING_DIRECTORIES", dir);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("git runs");
    child.stdin.take().expect("it has an input").write_all(patch.as_bytes()).expect("git reads the patch");
    assert!(child.wait().expect("git ends").success(), "{patch}");
}

/// Compares an answer with its snapshot; `PALISADE_BLESS=1` updates it.
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

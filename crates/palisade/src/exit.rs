//! Exit codes: 0 yes, 1 no, 2 error.

use std::process::ExitCode;

/// The outcome of a verb that ran without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Yes: allowed, identical, done. Exit code 0.
    Yes,
    /// No: denied, different. Exit code 1.
    No,
    /// The answer may be wrong, because something could not be read. Exit code 2.
    Incomplete,
    #[cfg(all(target_os = "linux", feature = "lab"))]
    /// The exit code of a program that was run for the user.
    Program(u8),
}

impl Outcome {
    /// Returns `Yes` if `good`, else `No`.
    pub(crate) fn of(good: bool) -> Self {
        if good { Self::Yes } else { Self::No }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Yes => 0,
            Outcome::No => 1,
            Outcome::Incomplete => ERROR,
            #[cfg(all(target_os = "linux", feature = "lab"))]
            Outcome::Program(code) => code,
        })
    }
}

/// The exit code of an error: invalid input, an invalid command line, a failed system call.
pub(crate) const ERROR: u8 = 2;

//! Exit codes: 0 and 1 are answers, 2 is none.

use std::process::ExitCode;

/// How a verb ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Yes: allowed, agreed, done. 0.
    Yes,
    /// No: denied, or a difference was found. 1.
    No,
    /// An answer that may be wrong, since something could not be read. 2.
    Incomplete,
    #[cfg(all(target_os = "linux", feature = "lab"))]
    /// What a program that was run for the user returned.
    Program(u8),
}

impl Outcome {
    /// Yes if `good`.
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

/// The exit code of an error: bad input, a bad command line, a system that refuses.
pub(crate) const ERROR: u8 = 2;

//! Verdicts as answers give them: allowed, denied, or undecided.

use palisade_policy::Verdict;

use crate::{exit::Outcome, output::Style};

/// The verdict of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Conclusion {
    /// Some of it is denied, and the rest is decided.
    Denied,
    /// It depends on what is not known.
    Undecided,
    /// All of it is allowed.
    Allowed,
}

impl Conclusion {
    /// Returns the conclusion of one verdict; `None`: it depends on what is not known.
    pub(crate) fn of(verdict: Option<Verdict>) -> Self {
        match verdict {
            Some(Verdict::Allow) => Self::Allowed,
            Some(Verdict::Deny) => Self::Denied,
            None => Self::Undecided,
        }
    }

    /// Returns the conclusion for all of these together. If anything is undecided, so is the whole: a check that expects
    /// "denied" must not pass because of another part.
    pub(crate) fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let both = |a: Self, b: Self| match (a, b) {
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Denied, _) | (_, Self::Denied) => Self::Denied,
            _ => Self::Allowed,
        };
        parts.into_iter().reduce(both).unwrap_or(Self::Allowed)
    }

    /// Returns the word, which is in the JSON too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::Allowed => "allowed",
        }
    }

    /// Returns how the word is shown.
    pub(crate) fn style(self) -> Style {
        match self {
            Self::Denied => Style::Bad,
            Self::Undecided => Style::Strong,
            Self::Allowed => Style::Good,
        }
    }

    /// Returns the outcome of a verb with this verdict.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Denied => Outcome::No,
            Self::Undecided => Outcome::Incomplete,
            Self::Allowed => Outcome::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undecided_makes_the_whole_undecided() {
        use Conclusion::{Allowed, Denied, Undecided};
        assert_eq!(Conclusion::of_all([Allowed, Allowed]), Allowed);
        assert_eq!(Conclusion::of_all([Allowed, Denied]), Denied);
        assert_eq!(Conclusion::of_all([Denied, Undecided, Allowed]), Undecided);
        assert_eq!(Conclusion::of(None).outcome(), Outcome::Incomplete);
    }
}

//! How a pod starts, as the worker answers.

/// How a pod starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartOutcome {
    /// The kernel holds what its policies require.
    Programmed,
    /// All its traffic is dropped in the directions that policies may select, until its policies are programmed and no older connection
    /// passes them. With the reason.
    Closed(String),
    /// Its policies are not programmed, for this reason.
    Open(String),
    /// It must not start, for this reason: it could be neither programmed nor closed.
    Refused(String),
}

impl StartOutcome {
    /// The value of the metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Programmed => "programmed",
            Self::Closed(_) => "closed",
            Self::Open(_) => "open",
            Self::Refused(_) => "refused",
        }
    }
}

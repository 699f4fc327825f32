//! From what policies are suggested, in words.

use palisade_analysis::suggest::Seen;

use crate::inputs::plural;

/// From what policies are suggested.
#[derive(Clone, Copy)]
pub(super) enum Basis<'a> {
    /// Recorded connections.
    Records,
    /// Connections that manifests show to be needed, and what shows each, by number from 1.
    Needs(&'a [String]),
}

impl<'a> Basis<'a> {
    /// How connections became known.
    pub(super) fn known(self) -> &'static str {
        match self {
            Self::Records => "recorded",
            Self::Needs(_) => "inferred",
        }
    }

    /// Returns from what a connection is known, to be added to it: `, 3 times (line 7)`, `: env DB_HOST (web.yaml:12)`.
    pub(super) fn source(self, seen: &Seen) -> String {
        let Some(evidence) = self.evidence(seen) else {
            return format!(", {} (line {})", times(seen.count), seen.line);
        };
        match seen.count.saturating_sub(1) {
            0 => format!(": {evidence}"),
            more => format!(": {evidence}, and {more} more"),
        }
    }

    /// Returns what shows a connection first. `None`: records do.
    pub(super) fn evidence(self, seen: &Seen) -> Option<&'a str> {
        match self {
            Self::Records => None,
            Self::Needs(all) => seen.line.checked_sub(1).and_then(|at| all.get(at)).map(String::as_str),
        }
    }
}

pub(super) fn times(count: u64) -> String {
    let number = usize::try_from(count).unwrap_or(usize::MAX);
    if count == 1 { "once".to_owned() } else { format!("{count} {}", plural(number, "time")) }
}

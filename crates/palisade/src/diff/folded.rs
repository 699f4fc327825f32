//! Changed connections as rows, for other verbs.

use palisade_analysis::diff::ConnectionChange;

use super::{
    groups::{Row, rows},
    wording,
};

/// Connections with the same traffic that are opened or closed.
pub(crate) struct FoldedChange<'a> {
    /// The row.
    pub(crate) row: Row<'a>,
    /// `shop/deployment/web → shop/deployment/db  TCP 5432`.
    pub(crate) text: String,
}

/// Folds changes: sources with the same destinations share a row. Opened ones come first.
pub(crate) fn folded(changes: &[ConnectionChange]) -> Vec<FoldedChange<'_>> {
    let text = |row: &Row<'_>| {
        format!("{} → {}  {}", wording::ends(&row.from), wording::ends(&row.to), wording::traffic(row))
    };
    rows(changes).into_iter().map(|row| FoldedChange { text: text(&row), row }).collect()
}

//! A picture of subjects between their neighbors: who connects to them on the left, whom they connect to on the right.
//! Rendered as SVG and as Mermaid. The same answer gives the same bytes.

mod mermaid;
mod svg;

pub(crate) use mermaid::{graph as mermaid, line as mermaid_line};
pub(crate) use svg::page as svg;

/// The most neighbors of a subject on one side that are drawn. More can't be read; the others are counted.
pub(crate) const MOST_ROWS: usize = 200;

/// What is drawn. Texts have any characters; the renderers escape them.
#[derive(Debug)]
pub(crate) struct Diagram {
    /// The heading.
    pub(crate) title: String,
    /// Drawn one below the other.
    pub(crate) subjects: Vec<Subject>,
    /// What to know to read the picture right, such as what could not be read.
    pub(crate) notes: Vec<String>,
}

/// What the picture is about.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Lines below the name.
    pub(crate) details: Vec<String>,
    /// Who connects to it, and whom it connects to.
    pub(crate) sides: [Side; 2],
}

/// One side of a subject.
#[derive(Debug)]
pub(crate) struct Side {
    /// `ingress: isolated`.
    pub(crate) heading: String,
    pub(crate) neighbors: Vec<Neighbor>,
}

/// A box on one side, and the arrow between it and the subject.
#[derive(Debug)]
pub(crate) struct Neighbor {
    /// The frame around neighboring boxes of the same group, such as a namespace.
    pub(crate) group: Option<String>,
    /// The lines in the box.
    pub(crate) lines: Vec<String>,
    /// The text at the arrow.
    pub(crate) label: String,
    pub(crate) look: Look,
}

/// How a neighbor is drawn. Color is never the only sign: lines and texts differ too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Some traffic is allowed.
    Allowed,
    /// All traffic is allowed.
    Everything,
    /// Traffic is denied.
    Denied,
    /// A rule leaves the decision to other policies, or it is not known what is allowed.
    Open,
    /// A rule that matches nothing.
    Idle,
    /// No neighbor: there is no arrow.
    None,
}

impl Look {
    /// The name of its style.
    fn class(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Everything => "everything",
            Self::Denied => "denied",
            Self::Open => "open",
            Self::Idle => "idle",
            Self::None => "none",
        }
    }
}

impl Neighbor {
    /// A box without an arrow, where there is no neighbor.
    pub(crate) fn nothing(text: &str) -> Self {
        Self { group: None, lines: vec![text.to_owned()], label: String::new(), look: Look::None }
    }
}

impl Side {
    /// Returns the neighbors to draw, and how many there are beyond these.
    fn shown(&self, most: usize) -> (&[Neighbor], usize) {
        let shown = self.neighbors.len().min(most);
        (&self.neighbors[..shown], self.neighbors.len() - shown)
    }
}

/// The text for neighbors that are not drawn.
fn more(count: usize) -> String {
    format!("and {count} more, which -o json lists")
}

/// Breaks a text into at most `most` lines of at most `columns` columns; the last one ends with `…` if that is not all.
fn wrapped(text: &str, columns: usize, most: usize) -> Vec<String> {
    // A name has no spaces, so its parts are broken apart only where they are too long for a line.
    let options = textwrap::Options::new(columns).word_splitter(textwrap::WordSplitter::NoHyphenation);
    // What can't be shown is not wrapped: a name may be as long as its file.
    let longest = columns * (most + 1);
    let head: String = text.chars().take(longest).collect();
    let mut lines: Vec<String> = textwrap::wrap(&head, options).into_iter().map(Into::into).collect();
    if lines.len() > most || head.len() < text.len() {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            while textwrap::core::display_width(last) >= columns {
                last.pop();
            }
            last.push('…');
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_and_cut() {
        assert_eq!(wrapped("a b", 10, 2), ["a b"]);
        assert_eq!(wrapped("TCP 80, 443; UDP 53", 8, 3), ["TCP 80,", "443; UDP", "53"]);
        assert_eq!(wrapped(&"x".repeat(25), 10, 2), ["x".repeat(10), format!("{}…", "x".repeat(9))]);
        assert_eq!(wrapped(&"x".repeat(1_000_000), 10, 1), [format!("{}…", "x".repeat(9))]);
        assert_eq!(wrapped("名名名名", 4, 2), ["名名", "名名"]);
        assert!(wrapped("", 10, 2).len() <= 1);
    }
}

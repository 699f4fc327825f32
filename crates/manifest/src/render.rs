//! Diagnostics as text, with the lines that they are about.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{
    diagnostic::{Diagnostic, Severity},
    text::Excerpt,
};

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With terminal colours.
    pub colour: bool,
    /// Columns to fill at most.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 120 }
    }
}

/// Draws one finding as rustc would, without a newline at the end.
#[must_use]
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = printable(&diagnostic.headline());
    let help = diagnostic.help.as_deref().map(printable);
    let file = diagnostic.origin.as_ref().map(|s| printable(&s.file)).unwrap_or_default();
    let shown = diagnostic
        .excerpt
        .as_ref()
        .and_then(|excerpt| Some((excerpt, within(excerpt, diagnostic.span.clone()?)?)));
    let mut group = Group::with_title(level.primary_title(&*title).id(diagnostic.code.as_str()));
    let drawn = shown.as_ref().map(|(excerpt, span)| (excerpt.text.replace('\t', " "), span, excerpt.line));
    match &drawn {
        Some((text, span, line)) => {
            group = group.element(
                Snippet::source(text.as_str())
                    .path(&*file)
                    .line_start(*line as usize)
                    .annotation(AnnotationKind::Primary.span((*span).clone())),
            );
        }
        None => {
            if let Some(origin) = &diagnostic.origin {
                let mut place = annotate_snippets::Origin::path(&*file);
                if origin.line > 0 {
                    place = place.line(origin.line as usize).char_column(origin.column as usize);
                }
                group = group.element(place);
            }
        }
    }
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(&**help));
    }
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(style.width).render(&[group])
}

/// The span counted from where the excerpt begins, cut to it. `None`: not in it.
fn within(excerpt: &Excerpt, span: std::ops::Range<u32>) -> Option<std::ops::Range<usize>> {
    let start = span.start.checked_sub(excerpt.start)? as usize;
    let end = (span.end.saturating_sub(excerpt.start) as usize).min(excerpt.text.len());
    if start > excerpt.text.len() {
        // At the very end of the file, behind the trailing space that the excerpt lacks.
        return Some(excerpt.text.len()..excerpt.text.len());
    }
    Some(start..end.max(start))
}

/// Input is shown, not obeyed: control characters could move the cursor or hide text.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

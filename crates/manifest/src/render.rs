//! Renders diagnostics as text, with the lines that they are about.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{
    diagnostic::{Diagnostic, Severity},
    text::Excerpt,
};

/// How to render diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use terminal colors.
    pub colour: bool,
    /// The maximum width in columns.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 120 }
    }
}

/// Renders a finding in the format of rustc, without a trailing newline.
#[must_use]
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    render_group(&[diagnostic], 0, style)
}

/// Renders findings that differ only in their place as one: the first one, the number of the others, and the places of
/// the first `listed` of them. Empty if there are none.
#[must_use]
pub fn render_group(diagnostics: &[&Diagnostic], listed: usize, style: Style) -> String {
    let Some((diagnostic, others)) = diagnostics.split_first() else { return String::new() };
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut title = printable(&diagnostic.headline());
    if !others.is_empty() {
        title += &format!(" (and {} more like it)", others.len());
    }
    let help = diagnostic.help.as_deref().map(printable);
    let file = diagnostic.origin.as_ref().map(|s| printable(&s.file)).unwrap_or_default();
    let excerpt_and_span = diagnostic
        .excerpt
        .as_ref()
        .and_then(|excerpt| Some((excerpt, within(excerpt, diagnostic.span.clone()?)?)));
    let mut group = Group::with_title(level.primary_title(&*title).id(diagnostic.code.as_str()));
    let snippet = excerpt_and_span
        .as_ref()
        .map(|(excerpt, span)| (excerpt.text.replace('\t', " "), span, excerpt.line));
    match &snippet {
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
    let also = also(others, listed);
    if let Some(also) = &also {
        group = group.element(Level::NOTE.message(&**also));
    }
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(style.width).render(&[group])
}

/// The objects and places of the other findings of a group.
fn also(others: &[&Diagnostic], listed: usize) -> Option<String> {
    let mut lines: Vec<String> = others
        .iter()
        .take(listed)
        .map(|d| match (&d.object, d.location()) {
            (Some(object), Some(place)) => printable(&format!("{object} ({place})")),
            (object, place) => printable(object.as_deref().or(place.as_deref()).unwrap_or_default()),
        })
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return None;
    }
    if others.len() > listed {
        lines.push(format!("… and {} more", others.len() - listed));
    }
    Some(format!("also {}", lines.join("\n     ")))
}

/// The span relative to the excerpt and cut to it. `None` if it lies before the excerpt.
fn within(excerpt: &Excerpt, span: std::ops::Range<u32>) -> Option<std::ops::Range<usize>> {
    let start = span.start.checked_sub(excerpt.start)? as usize;
    let end = (span.end.saturating_sub(excerpt.start) as usize).min(excerpt.text.len());
    if start > excerpt.text.len() {
        // The span is at the end of the file, after the trailing space that the excerpt lacks.
        return Some(excerpt.text.len()..excerpt.text.len());
    }
    Some(start..end.max(start))
}

/// Replaces control characters, which could move the cursor or hide text.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

//! Divides a text into documents as kubectl does, and parses each by itself, so that a broken one doesn't affect the
//! others.
//!
//! kubectl reads lines up to one that begins with `---`, before it parses anything (`YAMLReader` of
//! `k8s.io/apimachinery`). After `---`, only a comment may follow. Of what is between two such lines, go-yaml decodes
//! the first document.

use std::{borrow::Cow, ops::Range};

use granit_parser::{Event, Options, Parser, Span, StrInput, options};

use super::{
    Tree,
    build::{Builder, Limits, Problem, ProblemKind},
    json,
    tabs::{self, Tabs},
};

const SEPARATOR: &str = "---";

/// Iterates over the documents of a text. `Err` holds the errors of a broken document, after which reading continues.
pub struct Documents<'t> {
    text: &'t str,
    limits: Limits,
    parts: Parts<'t>,
    containing: Option<&'static str>,
}

impl<'t> Documents<'t> {
    /// Reads `text`, which must be smaller than 4 GiB: YAML, or a stream of JSON objects.
    #[must_use]
    pub fn new(text: &'t str, limits: Limits) -> Self {
        let parts = match json::stream(text) {
            Some(values) => Parts::Json(values.into_iter()),
            None => Parts::Yaml { text, at: 0 },
        };
        Self { text, limits, parts, containing: None }
    }

    /// Passes over documents without a word, and doesn't parse them. Those in which an escape may stand for some of it are read.
    #[must_use]
    pub fn containing(self, word: &'static str) -> Self {
        Self { containing: Some(word), ..self }
    }

    fn is_passed_over(&self, document: &Range<usize>) -> bool {
        let text = &self.text[document.clone()];
        self.containing.is_some_and(|word| !text.contains(word) && !text.contains('\\'))
    }
}

impl<'t> Iterator for Documents<'t> {
    type Item = Result<Tree<'t>, Vec<Problem>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = self.parts.next()?;
            let read = match part {
                Part::Document(range) if self.is_passed_over(&range) => None,
                Part::Document(range) => read(self.text, range, self.limits),
                Part::Separator(line) => Some(Err(vec![invalid_separator(self.text, line)])),
            };
            if read.is_some() {
                return read;
            }
        }
    }
}

/// A part of a text.
enum Part {
    Document(Range<usize>),
    /// A line that begins with `---` and goes on with something else than a comment.
    Separator(Range<usize>),
}

enum Parts<'t> {
    Json(std::vec::IntoIter<Range<usize>>),
    Yaml { text: &'t str, at: usize },
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let (text, at) = match self {
            Self::Json(values) => return values.next().map(Part::Document),
            Self::Yaml { text, at } => (*text, at),
        };
        let from = *at;
        let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
        if !rest.starts_with(SEPARATOR) {
            *at = rest.find("\n---").map_or(text.len(), |n| from + n + 1);
            return Some(Part::Document(from..*at));
        }
        let line = rest.find('\n').map_or(text.len(), |n| from + n + 1);
        let after = text[from + SEPARATOR.len()..line].trim();
        let separates = after.is_empty() || after.starts_with('#');
        *at = match text[line..].starts_with(SEPARATOR) {
            true => line,
            false => text[line..].find("\n---").map_or(text.len(), |n| line + n + 1),
        };
        // kubectl reads nothing of what belongs to such a line.
        Some(if separates { Part::Document(line..*at) } else { Part::Separator(from..line) })
    }
}

fn invalid_separator(text: &str, line: Range<usize>) -> Problem {
    let shown = text[line.clone()].trim_end();
    let end = line.start + shown.len();
    let after = shown[SEPARATOR.len()..].trim();
    let message = format!("invalid Yaml document separator: {}", after.chars().take(80).collect::<String>());
    Problem { kind: ProblemKind::Syntax, message, span: line.start as u32..end as u32 }
}

/// Parses one document. `None` if there is none.
fn read(text: &str, mut range: Range<usize>, limits: Limits) -> Option<Result<Tree<'_>, Vec<Problem>>> {
    if text[range.clone()].starts_with('\u{feff}') {
        range.start += '\u{feff}'.len_utf8();
    }
    let part = &text[range.clone()];
    if let Some(escaped) = json::escaped(part) {
        let position = |at| range.start + escaped.original(at);
        return read_part(text, &escaped.text, position, limits, |text| Cow::Owned(text.into_owned()));
    }
    read_part(text, part, |at| range.start + at, limits, |text| text)
}

/// [`parse`], with tabs as kubectl reads them.
fn read_part<'t, 'p>(
    text: &'t str,
    part: &'p str,
    position: impl Fn(usize) -> usize + Copy,
    limits: Limits,
    own: impl Fn(Cow<'p, str>) -> Cow<'t, str>,
) -> Option<Result<Tree<'t>, Vec<Problem>>> {
    match tabs::check(part) {
        Tabs::Legal => parse(text, part, position, limits, own),
        Tabs::InFlow(spaced) => parse(text, &spaced, position, limits, |text| Cow::Owned(text.into_owned())),
        Tabs::Illegal(at, message) => {
            let at = position(at) as u32;
            Some(Err(vec![Problem {
                kind: ProblemKind::Syntax,
                message: message.to_owned(),
                span: at..at + 1,
            }]))
        }
    }
}

/// Parses a part of `text`, or what stands for it. `position` is where a byte of it is in `text`. `own` makes the parser's texts outlive it.
fn parse<'t, 'p>(
    text: &'t str,
    part: &'p str,
    position: impl Fn(usize) -> usize + Copy,
    limits: Limits,
    own: impl Fn(Cow<'p, str>) -> Cow<'t, str>,
) -> Option<Result<Tree<'t>, Vec<Problem>>> {
    let mut parser = parser(part, limits);
    let mut builder: Option<Builder<'t>> = None;
    let range =
        |span: &Span| span.byte_range().map_or(0..0, |r| position(r.start) as u32..position(r.end) as u32);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(next) => next,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(0);
                let start = position(at).min(text.len()) as u32;
                let broken = text.get(start as usize..).and_then(|rest| rest.chars().next());
                let end = start + broken.map_or(0, |c| c.len_utf8() as u32);
                let mut problems = builder.take().map(|b| b.problems).unwrap_or_default();
                problems.push(Problem { kind: ProblemKind::Syntax, message: error.info(), span: start..end });
                return Some(Err(problems));
            }
        };
        match (event, &mut builder) {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart(..), _) => builder = Some(Builder::new(text, limits)),
            (Event::DocumentEnd, Some(_)) => {
                let tree = builder.take()?.finish();
                return Some(after_end(&mut parser, part, position, tree));
            }
            (Event::Scalar(value, style, anchor, tag), Some(builder)) => {
                builder.add_scalar(own(value), style, anchor, tag.as_deref(), range(&span));
            }
            (Event::SequenceStart(_, anchor, _), Some(builder)) => {
                builder.open(false, anchor, range(&span).start);
            }
            (Event::MappingStart(_, anchor, _), Some(builder)) => {
                builder.open(true, anchor, range(&span).start);
            }
            (Event::SequenceEnd | Event::MappingEnd, Some(builder)) => builder.close(range(&span)),
            (Event::Alias(anchor), Some(builder)) => builder.alias(anchor, range(&span)),
            _ => {}
        }
        if let Some(builder) = &mut builder
            && builder.limit_exceeded
        {
            return Some(Err(std::mem::take(&mut builder.problems)));
        }
    }
    None
}

/// Looks at what follows the end of a document. After `...`, kubectl ignores it; anything else is an error.
fn after_end<'t, 'p>(
    parser: &mut Parser<'p, StrInput<'p>>,
    part: &str,
    position: impl Fn(usize) -> usize,
    tree: Result<Tree<'t>, Vec<Problem>>,
) -> Result<Tree<'t>, Vec<Problem>> {
    let error = match parser.next_event() {
        None | Some(Ok((Event::StreamEnd, _))) => return tree,
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(error),
    };
    let mut tree = tree?;
    let end = part
        .match_indices("\n...")
        .map(|(n, _)| n + 1)
        .find(|n| part[n + 3..].chars().next().is_none_or(char::is_whitespace));
    match (end, error) {
        (Some(end), _) => {
            let at = position(end) as u32;
            let message = "what follows the end of the document is ignored, as by kubectl: separate documents with `---`";
            let span = at..at + 3;
            tree.warnings.push(Problem { kind: ProblemKind::AfterEnd, message: message.to_owned(), span });
            Ok(tree)
        }
        (None, Some(error)) => {
            let at = position(error.marker().byte_offset().unwrap_or(0)) as u32;
            Err(vec![Problem { kind: ProblemKind::Syntax, message: error.info(), span: at..at }])
        }
        (None, None) => Ok(tree),
    }
}

fn parser(text: &str, limits: Limits) -> Parser<'_, StrInput<'_>> {
    let options: Options = options! {
        emit_comments: false,
        flow_nesting_limit: limits.depth,
        block_nesting_limit: limits.depth,
    };
    Parser::new_from_str_with_options(text, options)
}

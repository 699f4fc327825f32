//! Builds trees from parser events, one document at a time.
//!
//! A broken document ends at the next `---`, and the following ones are still read. Duplicate keys are errors. Merge
//! keys (`<<`) are resolved here. Aliases share nodes, and a limit on the values that they expand to stops alias bombs.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag, options};

use super::{Node, NodeId, NodeKind, Pair, Tree};
use crate::scalar::{Scalar, resolve};

/// Limits for one document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Levels of nesting, separately for block and flow style.
    pub depth: usize,
    /// Values in a document.
    pub nodes: usize,
    /// Values that the aliases of a document may expand to, in addition to the written values.
    pub alias_nodes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // Kubernetes objects are about 30 levels deep, schemas in CustomResourceDefinitions about 80. A 64 MiB file of
        // real objects has about 5 million values. go-yaml starts to reject aliases at 400,000 decoded values.
        Self { depth: 200, nodes: 10_000_000, alias_nodes: 1_000_000 }
    }
}

/// An error in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of error.
    pub kind: ProblemKind,
    /// The message.
    pub message: String,
    /// The bytes of the text that it is about.
    pub span: Range<u32>,
}

/// The kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A YAML syntax error.
    Syntax,
    /// A duplicate key in a mapping.
    DuplicateKey,
    /// An alias that contains itself, or expands to too many values.
    Alias,
    /// More values than [`Limits::nodes`].
    TooLarge,
}

/// Iterates over the documents of a text. `Err` holds the errors of a broken document, after which reading continues.
pub struct Documents<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    limits: Limits,
    /// The offset of the parser's text in `text`.
    base: usize,
    /// The remaining values of a JSON stream, in reverse order.
    later: Vec<Range<usize>>,
    /// The position of the last syntax error. Reading ends if the next error is not behind it.
    failed_at: Option<usize>,
    done: bool,
}

impl<'t> Documents<'t> {
    /// Reads `text`, which must be smaller than 4 GiB: YAML, or a stream of JSON objects.
    #[must_use]
    pub fn new(text: &'t str, limits: Limits) -> Self {
        let mut later = super::json::stream(text).unwrap_or_default();
        later.reverse();
        let first = later.pop().unwrap_or(0..text.len());
        let (parser, base) = (parser(&text[first.clone()], limits), first.start);
        Self { text, parser, limits, base, later, failed_at: None, done: false }
    }

    /// Continues with the next value of a JSON stream, if there is one.
    fn next_value(&mut self) -> bool {
        let Some(value) = self.later.pop() else { return false };
        self.base = value.start;
        self.parser = parser(&self.text[value], self.limits);
        self.failed_at = None;
        self.done = false;
        true
    }

    /// Skips to the next document after a syntax error. Returns `false` if there is none.
    fn recover(&mut self, at: usize) -> bool {
        let progress = self.failed_at.is_none_or(|before| at > before);
        self.failed_at = Some(at);
        progress && self.parser.proceed_next_document().unwrap_or(false)
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

impl<'t> Iterator for Documents<'t> {
    type Item = Result<Tree<'t>, Vec<Problem>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let document = self.document();
            if document.is_some() || !self.next_value() {
                return document;
            }
        }
    }
}

impl<'t> Documents<'t> {
    fn document(&mut self) -> Option<Result<Tree<'t>, Vec<Problem>>> {
        let mut builder: Option<Builder<'t>> = None;
        while !self.done {
            let (event, span) = match self.parser.next_event() {
                None => break,
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(0);
                    let start = (self.base + at).min(self.text.len()) as u32;
                    let broken = self.text.get(start as usize..).and_then(|rest| rest.chars().next());
                    let end = start + broken.map_or(0, |c| c.len_utf8() as u32);
                    let problem =
                        Problem { kind: ProblemKind::Syntax, message: error.info(), span: start..end };
                    self.done = !self.recover(at);
                    let mut problems = builder.take().map(|b| b.problems).unwrap_or_default();
                    problems.push(problem);
                    return Some(Err(problems));
                }
            };
            match event {
                Event::StreamEnd => self.done = true,
                Event::DocumentStart(..) => builder = Some(Builder::new(self.text, self.limits)),
                Event::DocumentEnd => {
                    if let Some(builder) = builder.take() {
                        return Some(builder.finish());
                    }
                }
                event => {
                    let Some(builder) = &mut builder else { continue };
                    builder.event(event, self.base, &span);
                    if builder.limit_exceeded {
                        let problems = std::mem::take(&mut builder.problems);
                        self.done = !self.parser.proceed_next_document().unwrap_or(false);
                        return Some(Err(problems));
                    }
                }
            }
        }
        None
    }
}

/// A sequence or mapping that is not closed yet.
struct Frame<'t> {
    mapping: bool,
    anchor: usize,
    start: u32,
    /// Elements, or alternating keys and values.
    children: Vec<NodeId>,
    /// The keys of a mapping; `None` for an invalid key.
    keys: Vec<Option<Cow<'t, str>>>,
    /// The number of nodes with all aliases expanded.
    weight: u64,
}

struct Builder<'t> {
    text: &'t str,
    limits: Limits,
    tree: Tree<'t>,
    stack: Vec<Frame<'t>>,
    /// Anchored nodes and their weight; `None` while the node is not closed.
    anchors: HashMap<usize, Option<(NodeId, u64)>>,
    problems: Vec<Problem>,
    alias_weight: u64,
    /// Whether a limit was exceeded, so that the rest of the document is skipped.
    limit_exceeded: bool,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str, limits: Limits) -> Self {
        Self {
            text,
            limits,
            tree: Tree { nodes: Vec::new(), items: Vec::new(), pairs: Vec::new(), root: NodeId(0) },
            stack: Vec::new(),
            anchors: HashMap::new(),
            problems: Vec::new(),
            alias_weight: 0,
            limit_exceeded: false,
        }
    }

    fn finish(mut self) -> Result<Tree<'t>, Vec<Problem>> {
        if self.tree.nodes.is_empty() {
            self.add(NodeKind::Scalar(Scalar::Null), 0..0);
        }
        if self.problems.is_empty() { Ok(self.tree) } else { Err(self.problems) }
    }

    fn problem(&mut self, kind: ProblemKind, span: Range<u32>, message: impl Into<String>) {
        self.problems.push(Problem { kind, message: message.into(), span });
    }

    fn event(&mut self, event: Event<'t>, base: usize, span: &Span) {
        let range = span.byte_range().map_or(0..0, |r| (base + r.start) as u32..(base + r.end) as u32);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = match self.scalar(text, style, tag.as_deref()) {
                    Ok(scalar) => scalar,
                    Err(message) => {
                        self.problem(ProblemKind::Syntax, range.clone(), message);
                        Scalar::Null
                    }
                };
                let id = self.add(NodeKind::Scalar(scalar), range);
                self.place(id, anchor, 1);
            }
            Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                let mapping = matches!(event, Event::MappingStart(..));
                if anchor != 0 {
                    self.anchors.insert(anchor, None);
                }
                self.stack.push(Frame {
                    mapping,
                    anchor,
                    start: range.start,
                    children: Vec::new(),
                    keys: Vec::new(),
                    weight: 1,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(range),
            Event::Alias(anchor) => self.alias(anchor, range),
            _ => {}
        }
    }

    fn scalar(
        &self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
    ) -> Result<Scalar<'t>, String> {
        let Some(tag) = tag else {
            return Ok(if style == ScalarStyle::Plain { resolve(text) } else { Scalar::Str(text) });
        };
        let Some(core) = tag.core_suffix() else { return Ok(Scalar::Str(text)) };
        if !matches!(core, "int" | "float" | "bool" | "null") {
            return Ok(Scalar::Str(text));
        }
        let scalar = resolve(text.clone());
        let fits = match &scalar {
            Scalar::Null => core == "null",
            Scalar::Bool(_) => core == "bool",
            Scalar::Int(_) => matches!(core, "int" | "float"),
            Scalar::Float(_) => core == "float",
            Scalar::Str(_) => false,
        };
        if fits { Ok(scalar) } else { Err(format!("cannot decode `{text}` as a !!{core}")) }
    }

    fn add(&mut self, kind: NodeKind<'t>, span: Range<u32>) -> NodeId {
        if self.tree.nodes.len() >= self.limits.nodes {
            let message = format!("the document holds more than {} values", self.limits.nodes);
            self.problem(ProblemKind::TooLarge, span.clone(), message);
            self.limit_exceeded = true;
        }
        let id = NodeId(self.tree.nodes.len() as u32);
        self.tree.nodes.push(Node { kind, start: span.start, end: span.end });
        id
    }

    /// Adds a finished node to the open frame, or makes it the root.
    fn place(&mut self, id: NodeId, anchor: usize, weight: u64) {
        if anchor != 0 {
            self.anchors.insert(anchor, Some((id, weight)));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.tree.root = id;
            return;
        };
        frame.weight = frame.weight.saturating_add(weight);
        frame.children.push(id);
        if frame.mapping && frame.children.len() % 2 == 1 {
            let key = self.key(id);
            if let Some(frame) = self.stack.last_mut() {
                frame.keys.push(key);
            }
        }
    }

    /// Returns the key as `sigs.k8s.io/yaml` converts it to a JSON key.
    fn key(&mut self, id: NodeId) -> Option<Cow<'t, str>> {
        let node = self.tree.node(id);
        let span = node.start..node.end;
        let what = match &node.kind {
            NodeKind::Scalar(Scalar::Str(s)) => return Some(s.clone()),
            NodeKind::Scalar(Scalar::Bool(b)) => {
                return Some(Cow::Borrowed(if *b { "true" } else { "false" }));
            }
            NodeKind::Scalar(Scalar::Int(n)) => return Some(n.to_string().into()),
            NodeKind::Scalar(Scalar::Float(n)) => return Some(n.to_string().into()),
            NodeKind::Scalar(Scalar::Null) => "null",
            NodeKind::Sequence(..) => "a sequence",
            NodeKind::Mapping(..) => "a mapping",
        };
        self.problem(ProblemKind::Syntax, span, format!("a key must be text, not {what}"));
        None
    }

    fn close(&mut self, span: Range<u32>) {
        let Some(frame) = self.stack.pop() else { return };
        // A block collection has no closing character, and its end event is at the next token, so it ends at its last
        // child. An aliased child is elsewhere.
        let closed = self.text.as_bytes().get(span.start as usize).is_some_and(|b| matches!(b, b']' | b'}'));
        let end = if closed && span.end > span.start {
            span.end
        } else {
            let ends = frame.children.iter().map(|&c| self.tree.node(c));
            ends.filter(|n| n.start >= frame.start)
                .map(|n| n.end)
                .max()
                .unwrap_or(span.end)
                .min(span.end.max(frame.start))
        };
        let end = end.max(frame.start);
        let kind = if frame.mapping {
            self.mapping(&frame.children, frame.keys)
        } else {
            let from = self.tree.items.len() as u32;
            self.tree.items.extend(frame.children);
            NodeKind::Sequence(from, self.tree.items.len() as u32)
        };
        let id = self.add(kind, frame.start..end);
        self.place(id, frame.anchor, frame.weight);
    }

    fn mapping(&mut self, children: &[NodeId], keys: Vec<Option<Cow<'t, str>>>) -> NodeKind<'t> {
        let mut pairs: Vec<Pair<'t>> = Vec::with_capacity(keys.len());
        let mut seen: HashSet<Cow<'t, str>> = HashSet::new();
        let mut merges: Vec<NodeId> = Vec::new();
        for (node, key) in children.chunks_exact(2).zip(keys) {
            let Some(key) = key else { continue };
            let (key_node, value) = (node[0], node[1]);
            if key == "<<" && self.is_plain(key_node) {
                merges.push(value);
                continue;
            }
            // A linear search is faster for short mappings.
            let duplicate = if pairs.len() < 8 {
                pairs.iter().any(|p| p.key == key)
            } else {
                if seen.is_empty() {
                    seen.extend(pairs.iter().map(|p| p.key.clone()));
                }
                !seen.insert(key.clone())
            };
            if duplicate {
                let node = self.tree.node(key_node);
                let span = node.start..node.end;
                self.problem(ProblemKind::DuplicateKey, span, format!("key \"{key}\" already set in map"));
                continue;
            }
            pairs.push(Pair { key, key_node, value });
        }
        for value in merges {
            self.merge(value, &mut pairs);
        }
        let from = self.tree.pairs.len() as u32;
        self.tree.pairs.extend(pairs);
        NodeKind::Mapping(from, self.tree.pairs.len() as u32)
    }

    fn is_plain(&self, id: NodeId) -> bool {
        let node = self.tree.node(id);
        self.text.get(node.start as usize..node.end as usize) == Some("<<")
    }

    /// Adds the entries of `<<: value` that `into` doesn't have.
    fn merge(&mut self, value: NodeId, into: &mut Vec<Pair<'t>>) {
        let node = self.tree.node(value);
        let span = node.start..node.end;
        let sources: Vec<NodeId> = match node.kind {
            NodeKind::Sequence(from, to) => self.tree.items[from as usize..to as usize].to_vec(),
            _ => vec![value],
        };
        let mut have: HashSet<Cow<'t, str>> = into.iter().map(|p| p.key.clone()).collect();
        for source in sources {
            let NodeKind::Mapping(from, to) = self.tree.node(source).kind else {
                let message = "map merge requires map or sequence of maps as the value";
                return self.problem(ProblemKind::Syntax, span, message);
            };
            if !self.count_alias_values(u64::from(to - from), &span) {
                return;
            }
            for pair in &self.tree.pairs[from as usize..to as usize] {
                if have.insert(pair.key.clone()) {
                    into.push(pair.clone());
                }
            }
        }
    }

    fn alias(&mut self, anchor: usize, span: Range<u32>) {
        let name = self.text.get(span.start as usize + 1..span.end as usize).unwrap_or_default();
        match self.anchors.get(&anchor).copied() {
            Some(Some((id, weight))) => {
                if self.count_alias_values(weight, &span) {
                    self.place(id, 0, weight);
                }
            }
            Some(None) => {
                self.problem(ProblemKind::Alias, span, format!("anchor '{name}' value contains itself"));
                self.limit_exceeded = true;
            }
            None => {
                self.problem(ProblemKind::Alias, span, format!("unknown anchor '{name}' referenced"));
                self.limit_exceeded = true;
            }
        }
    }

    /// Counts values that aliases expand to. Returns `false` if there are too many.
    fn count_alias_values(&mut self, weight: u64, span: &Range<u32>) -> bool {
        self.alias_weight = self.alias_weight.saturating_add(weight);
        if self.alias_weight <= self.limits.alias_nodes {
            return true;
        }
        self.problem(ProblemKind::Alias, span.clone(), "document contains excessive aliasing");
        self.limit_exceeded = true;
        false
    }
}

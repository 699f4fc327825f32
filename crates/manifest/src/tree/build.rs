//! Parser events to trees, one document at a time.
//!
//! A broken document ends at the next `---`, and the ones after it are still read. Duplicate keys are errors; merge keys
//! (`<<`) are resolved here; aliases share nodes, and a budget on what they expand to stops alias bombs.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag, options};

use super::{Kind, Node, NodeId, Pair, Tree};
use crate::scalar::{Scalar, resolve};

/// What one document may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Levels of nesting, in block and in flow style each.
    pub depth: usize,
    /// Values in one document.
    pub nodes: usize,
    /// Values that the aliases of one document may stand for, beyond the values that are written out.
    pub alias_nodes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // Kubernetes objects nest about 30 deep, schemas in CustomResourceDefinitions about 80. A 64 MiB file of real
        // objects has some 5 million values; go-yaml begins to refuse aliases at 400,000 decoded values.
        Self { depth: 200, nodes: 10_000_000, alias_nodes: 1_000_000 }
    }
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Of what sort.
    pub kind: ProblemKind,
    /// In words.
    pub message: String,
    /// Where.
    pub span: Range<u32>,
}

/// Sorts of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// Not YAML.
    Syntax,
    /// A key twice in one mapping.
    DuplicateKey,
    /// An alias that contains itself or expands to too much.
    Alias,
    /// More values than [`Limits::nodes`].
    TooLarge,
}

/// The documents of a text, as an iterator. `Err` holds the problems of a broken document; reading goes on after it.
pub struct Documents<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    limits: Limits,
    /// Where the parser's text begins in `text`.
    base: usize,
    /// The values of a JSON stream that are still to be read, last first.
    later: Vec<Range<usize>>,
    /// Where the last syntax error was: an error that makes no progress ends the reading.
    failed_at: Option<usize>,
    done: bool,
}

impl<'t> Documents<'t> {
    /// Reads `text`, which holds less than 4 GiB: YAML, or JSON objects one after the other.
    #[must_use]
    pub fn new(text: &'t str, limits: Limits) -> Self {
        let mut later = super::json::stream(text).unwrap_or_default();
        later.reverse();
        let first = later.pop().unwrap_or(0..text.len());
        let (parser, base) = (parser(&text[first.clone()], limits), first.start);
        Self { text, parser, limits, base, later, failed_at: None, done: false }
    }

    /// Goes on to the next value of a JSON stream, if there is one.
    fn next_value(&mut self) -> bool {
        let Some(value) = self.later.pop() else { return false };
        self.base = value.start;
        self.parser = parser(&self.text[value], self.limits);
        self.failed_at = None;
        self.done = false;
        true
    }

    /// Skips to the next document after a syntax error. `false`: there is none.
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
                    if builder.hopeless {
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
    /// Elements, or keys and values in turns.
    children: Vec<NodeId>,
    /// The texts of a mapping's keys; `None` for a key that was refused.
    keys: Vec<Option<Cow<'t, str>>>,
    /// How many nodes it holds when all aliases are written out.
    weight: u64,
}

struct Builder<'t> {
    text: &'t str,
    limits: Limits,
    tree: Tree<'t>,
    stack: Vec<Frame<'t>>,
    /// Anchored nodes and their weight; `None` while the node is still open.
    anchors: HashMap<usize, Option<(NodeId, u64)>>,
    problems: Vec<Problem>,
    alias_weight: u64,
    /// A limit was hit: nothing more of this document is worth reading.
    hopeless: bool,
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
            hopeless: false,
        }
    }

    fn finish(mut self) -> Result<Tree<'t>, Vec<Problem>> {
        if self.tree.nodes.is_empty() {
            self.add(Kind::Scalar(Scalar::Null), 0..0);
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
                let id = self.add(Kind::Scalar(scalar), range);
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

    fn add(&mut self, kind: Kind<'t>, span: Range<u32>) -> NodeId {
        if self.tree.nodes.len() >= self.limits.nodes {
            let message = format!("the document holds more than {} values", self.limits.nodes);
            self.problem(ProblemKind::TooLarge, span.clone(), message);
            self.hopeless = true;
        }
        let id = NodeId(self.tree.nodes.len() as u32);
        self.tree.nodes.push(Node { kind, start: span.start, end: span.end });
        id
    }

    /// Puts a finished node where it belongs: into the open frame, or at the root.
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

    /// The text of a key, as `sigs.k8s.io/yaml` turns it into a JSON key.
    fn key(&mut self, id: NodeId) -> Option<Cow<'t, str>> {
        let node = self.tree.node(id);
        let span = node.start..node.end;
        let refused = match &node.kind {
            Kind::Scalar(Scalar::Str(s)) => return Some(s.clone()),
            Kind::Scalar(Scalar::Bool(b)) => return Some(Cow::Borrowed(if *b { "true" } else { "false" })),
            Kind::Scalar(Scalar::Int(n)) => return Some(n.to_string().into()),
            Kind::Scalar(Scalar::Float(n)) => return Some(n.to_string().into()),
            Kind::Scalar(Scalar::Null) => "null",
            Kind::Sequence(..) => "a sequence",
            Kind::Mapping(..) => "a mapping",
        };
        self.problem(ProblemKind::Syntax, span, format!("a key must be text, not {refused}"));
        None
    }

    fn close(&mut self, span: Range<u32>) {
        let Some(frame) = self.stack.pop() else { return };
        // A block collection has no closing character, and its end event stands at whatever follows: trim to the last
        // child. An aliased child stands elsewhere.
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
            Kind::Sequence(from, self.tree.items.len() as u32)
        };
        let id = self.add(kind, frame.start..end);
        self.place(id, frame.anchor, frame.weight);
    }

    fn mapping(&mut self, children: &[NodeId], keys: Vec<Option<Cow<'t, str>>>) -> Kind<'t> {
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
            // A short mapping is searched faster than hashed.
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
        Kind::Mapping(from, self.tree.pairs.len() as u32)
    }

    fn is_plain(&self, id: NodeId) -> bool {
        let node = self.tree.node(id);
        self.text.get(node.start as usize..node.end as usize) == Some("<<")
    }

    /// Adds what `<<: value` names, except what `into` already has.
    fn merge(&mut self, value: NodeId, into: &mut Vec<Pair<'t>>) {
        let node = self.tree.node(value);
        let span = node.start..node.end;
        let sources: Vec<NodeId> = match node.kind {
            Kind::Sequence(from, to) => self.tree.items[from as usize..to as usize].to_vec(),
            _ => vec![value],
        };
        let mut have: HashSet<Cow<'t, str>> = into.iter().map(|p| p.key.clone()).collect();
        for source in sources {
            let Kind::Mapping(from, to) = self.tree.node(source).kind else {
                let message = "map merge requires map or sequence of maps as the value";
                return self.problem(ProblemKind::Syntax, span, message);
            };
            if !self.spend(u64::from(to - from), &span) {
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
                if self.spend(weight, &span) {
                    self.place(id, 0, weight);
                }
            }
            Some(None) => {
                self.problem(ProblemKind::Alias, span, format!("anchor '{name}' value contains itself"));
                self.hopeless = true;
            }
            None => {
                self.problem(ProblemKind::Alias, span, format!("unknown anchor '{name}' referenced"));
                self.hopeless = true;
            }
        }
    }

    /// Takes from the budget for what aliases stand for.
    fn spend(&mut self, weight: u64, span: &Range<u32>) -> bool {
        self.alias_weight = self.alias_weight.saturating_add(weight);
        if self.alias_weight <= self.limits.alias_nodes {
            return true;
        }
        self.problem(ProblemKind::Alias, span.clone(), "document contains excessive aliasing");
        self.hopeless = true;
        false
    }
}

//! Builds the tree of one document from the parser's events.
//!
//! Of duplicate keys, the last one counts, as for kubectl, with a warning. Merge keys (`<<`) are resolved here. Aliases
//! share nodes, and a limit on the values that they expand to stops alias bombs.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use granit_parser::{ScalarStyle, Tag};

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

/// An error in a document, or a warning ([`Tree::warnings`]).
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
    /// Text after the end of a document, which kubectl ignores.
    AfterEnd,
}

/// Where an entry of a mapping comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Written,
    Merged,
}

/// The entries of a mapping that is being made, each key once.
#[derive(Default)]
struct Pairs<'t> {
    list: Vec<Pair<'t>>,
    origins: Vec<Origin>,
    /// The places of the keys, once there are many.
    places: HashMap<Cow<'t, str>, usize>,
    last: usize,
}

impl<'t> Pairs<'t> {
    /// A linear search is faster for short mappings.
    const FEW: usize = 8;

    /// Adds or replaces an entry. Returns where the replaced one came from. `O(1)`.
    fn set(&mut self, pair: Pair<'t>, origin: Origin) -> Option<Origin> {
        let at = if self.list.len() < Self::FEW {
            self.list.iter().position(|p| p.key == pair.key)
        } else {
            if self.places.is_empty() {
                self.places.extend(self.list.iter().enumerate().map(|(at, p)| (p.key.clone(), at)));
            }
            self.places.get(&pair.key).copied()
        };
        if let Some(at) = at {
            self.last = at;
            self.list[at] = pair;
            return Some(std::mem::replace(&mut self.origins[at], origin));
        }
        self.last = self.list.len();
        if !self.places.is_empty() {
            self.places.insert(pair.key.clone(), self.last);
        }
        self.list.push(pair);
        self.origins.push(origin);
        None
    }

    /// The key that was set last.
    fn last_key(&self) -> &str {
        self.list.get(self.last).map_or("", |pair| &pair.key)
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

pub(super) struct Builder<'t> {
    text: &'t str,
    limits: Limits,
    tree: Tree<'t>,
    stack: Vec<Frame<'t>>,
    /// Anchored nodes and their weight; `None` while the node is not closed.
    anchors: HashMap<usize, Option<(NodeId, u64)>>,
    pub(super) problems: Vec<Problem>,
    alias_weight: u64,
    /// Whether a limit was exceeded, so that the rest of the document is skipped.
    pub(super) limit_exceeded: bool,
}

impl<'t> Builder<'t> {
    pub(super) fn new(text: &'t str, limits: Limits) -> Self {
        let tree = Tree {
            nodes: Vec::new(),
            items: Vec::new(),
            pairs: Vec::new(),
            root: NodeId(0),
            warnings: Vec::new(),
        };
        Self {
            text,
            limits,
            tree,
            stack: Vec::new(),
            anchors: HashMap::new(),
            problems: Vec::new(),
            alias_weight: 0,
            limit_exceeded: false,
        }
    }

    pub(super) fn finish(mut self) -> Result<Tree<'t>, Vec<Problem>> {
        if self.tree.nodes.is_empty() {
            self.add(NodeKind::Scalar(Scalar::Null), 0..0);
        }
        if self.problems.is_empty() { Ok(self.tree) } else { Err(self.problems) }
    }

    fn problem(&mut self, kind: ProblemKind, span: Range<u32>, message: impl Into<String>) {
        self.problems.push(Problem { kind, message: message.into(), span });
    }

    /// Adds a scalar.
    pub(super) fn add_scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Range<u32>,
    ) {
        let scalar = match self.scalar(text, style, tag) {
            Ok(scalar) => scalar,
            Err(message) => {
                self.problem(ProblemKind::Syntax, span.clone(), message);
                Scalar::Null
            }
        };
        let id = self.add(NodeKind::Scalar(scalar), span);
        self.place(id, anchor, 1);
    }

    /// Begins a sequence or a mapping.
    pub(super) fn open(&mut self, mapping: bool, anchor: usize, start: u32) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        let (children, keys) = (Vec::new(), Vec::new());
        self.stack.push(Frame { mapping, anchor, start, children, keys, weight: 1 });
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

    /// Ends a sequence or a mapping.
    pub(super) fn close(&mut self, span: Range<u32>) {
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

    /// Makes a mapping as go-yaml does: in order, and what comes later replaces what is there.
    fn mapping(&mut self, children: &[NodeId], keys: Vec<Option<Cow<'t, str>>>) -> NodeKind<'t> {
        let mut pairs = Pairs::default();
        for (node, key) in children.chunks_exact(2).zip(keys) {
            let Some(key) = key else { continue };
            let (key_node, value) = (node[0], node[1]);
            if key == "<<" && self.is_plain(key_node) {
                self.merge(key_node, value, &mut pairs);
                continue;
            }
            let pair = Pair { key, key_node, value };
            if let Some(before) = pairs.set(pair, Origin::Written)
                && before == Origin::Written
            {
                let key = pairs.last_key().to_owned();
                self.warning(key_node, format!("key \"{key}\" already set in map; the last value is used"));
            }
        }
        let from = self.tree.pairs.len() as u32;
        self.tree.pairs.extend(pairs.list);
        NodeKind::Mapping(from, self.tree.pairs.len() as u32)
    }

    fn warning(&mut self, at: NodeId, message: String) {
        let node = self.tree.node(at);
        let span = node.start..node.end;
        self.tree.warnings.push(Problem { kind: ProblemKind::DuplicateKey, message, span });
    }

    fn is_plain(&self, id: NodeId) -> bool {
        let node = self.tree.node(id);
        self.text.get(node.start as usize..node.end as usize) == Some("<<")
    }

    /// Adds the entries of `<<: value`, of several sources those of the first last. They replace entries that were
    /// written before.
    fn merge(&mut self, key: NodeId, value: NodeId, into: &mut Pairs<'t>) {
        let node = self.tree.node(value);
        let span = node.start..node.end;
        let mut sources: Vec<NodeId> = match node.kind {
            NodeKind::Sequence(from, to) => self.tree.items[from as usize..to as usize].to_vec(),
            _ => vec![value],
        };
        sources.reverse();
        for source in sources {
            let NodeKind::Mapping(from, to) = self.tree.node(source).kind else {
                let message = "map merge requires map or sequence of maps as the value";
                return self.problem(ProblemKind::Syntax, span, message);
            };
            if !self.count_alias_values(u64::from(to - from), &span) {
                return;
            }
            for at in from..to {
                let pair = self.tree.pairs[at as usize].clone();
                if into.set(pair, Origin::Merged) == Some(Origin::Written) {
                    let name = into.last_key().to_owned();
                    self.warning(
                        key,
                        format!("the merge key replaces key \"{name}\", which is written before it"),
                    );
                }
            }
        }
    }

    /// Adds what an alias refers to.
    pub(super) fn alias(&mut self, anchor: usize, span: Range<u32>) {
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

//! A YAML or JSON document as a tree whose nodes carry their byte ranges.
//!
//! A document is parsed once, and types are decoded from the tree, so that every error has a position. Values are
//! resolved as kubectl resolves them: see [`crate::scalar`] for scalars, and [`Documents`] for duplicate keys, merge
//! keys and aliases.

use std::{borrow::Cow, fmt, ops::Range};

use crate::scalar::Scalar;

mod build;
mod documents;
mod json;
mod tabs;

pub use build::{Limits, Problem, ProblemKind};
pub use documents::Documents;

/// The index of a node in a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

/// A value and its position.
#[derive(Debug)]
struct Node<'t> {
    kind: NodeKind<'t>,
    start: u32,
    end: u32,
}

#[derive(Debug)]
enum NodeKind<'t> {
    Scalar(Scalar<'t>),
    /// A range of [`Tree::items`].
    Sequence(u32, u32),
    /// A range of [`Tree::pairs`].
    Mapping(u32, u32),
}

#[derive(Clone, Debug)]
struct Pair<'t> {
    key: Cow<'t, str>,
    key_node: NodeId,
    value: NodeId,
}

/// A document. An alias shares the node that it refers to, so it costs nothing until it is visited.
#[derive(Debug)]
pub struct Tree<'t> {
    nodes: Vec<Node<'t>>,
    items: Vec<NodeId>,
    pairs: Vec<Pair<'t>>,
    root: NodeId,
    warnings: Vec<Problem>,
}

impl<'t> Tree<'t> {
    /// Returns the outermost value.
    #[must_use]
    pub fn root(&self) -> At<'_> {
        At { tree: self, id: self.root, up: None, step: Step::Root }
    }

    /// Returns what kubectl accepts silently and is probably a mistake: duplicate keys, and text after the end.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether the document is empty, as between two `---`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.node(self.root).kind, NodeKind::Scalar(Scalar::Null))
    }

    fn node(&self, id: NodeId) -> &Node<'t> {
        &self.nodes[id.0 as usize]
    }
}

/// The step from a value to one that it contains.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A value and its path from the root.
#[derive(Clone, Copy)]
pub struct At<'a> {
    tree: &'a Tree<'a>,
    id: NodeId,
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A scalar.
    Scalar(&'a Scalar<'a>),
    /// A sequence with its length.
    Sequence(usize),
    /// A mapping with the number of its keys.
    Mapping(usize),
}

impl<'a> At<'a> {
    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        match &self.tree.node(self.id).kind {
            NodeKind::Scalar(s) => Value::Scalar(s),
            NodeKind::Sequence(from, to) => Value::Sequence((to - from) as usize),
            NodeKind::Mapping(from, to) => Value::Mapping((to - from) as usize),
        }
    }

    /// Returns whether the value is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value(), Value::Scalar(Scalar::Null))
    }

    /// Returns the bytes of the value in the file.
    #[must_use]
    pub fn span(&self) -> Range<u32> {
        let node = self.tree.node(self.id);
        node.start..node.end
    }

    /// Iterates over the elements of a sequence.
    pub fn items<'b>(&'b self) -> impl Iterator<Item = At<'b>> {
        let range = match self.tree.node(self.id).kind {
            NodeKind::Sequence(from, to) => from as usize..to as usize,
            _ => 0..0,
        };
        let items = &self.tree.items[range];
        items.iter().enumerate().map(move |(i, &id)| At {
            tree: self.tree,
            id,
            up: Some(self),
            step: Step::Index(i),
        })
    }

    /// Iterates over the entries of a mapping: key, position of the key, and value.
    pub fn entries<'b>(&'b self) -> impl Iterator<Item = (&'b str, At<'b>, At<'b>)> {
        self.pairs().iter().map(move |pair| {
            let at = |id| At { tree: self.tree, id, up: Some(self), step: Step::Key(&pair.key) };
            (&*pair.key, at(pair.key_node), at(pair.value))
        })
    }

    /// Returns the value of a key in a mapping. `O(keys)`.
    #[must_use]
    pub fn get<'b>(&'b self, key: &str) -> Option<At<'b>> {
        let pair = self.pairs().iter().find(|p| p.key == key)?;
        Some(At { tree: self.tree, id: pair.value, up: Some(self), step: Step::Key(&pair.key) })
    }

    /// Returns the same value as a new root, so that paths of an element of a `List` begin at the element.
    #[must_use]
    pub fn as_root(&self) -> At<'a> {
        At { tree: self.tree, id: self.id, up: None, step: Step::Root }
    }

    /// Calls `f` for this value and for each within it, outermost first, with the key of those that have one. A value for which several aliases
    /// stand is visited once. `O(values)`.
    pub fn visit(&self, f: &mut impl FnMut(&At<'_>, Option<&At<'_>>)) {
        self.visit_unless(&mut vec![false; self.tree.len()], None, f);
    }

    // Recursion is bounded: the parser limits the depth of documents.
    fn visit_unless(
        &self,
        seen: &mut [bool],
        key: Option<&At<'_>>,
        f: &mut impl FnMut(&At<'_>, Option<&At<'_>>),
    ) {
        if std::mem::replace(&mut seen[self.id.0 as usize], true) {
            return;
        }
        f(self, key);
        self.items().for_each(|item| item.visit_unless(seen, None, f));
        self.entries().for_each(|(_, key, value)| value.visit_unless(seen, Some(&key), f));
    }

    fn pairs(&self) -> &'a [Pair<'a>] {
        match self.tree.node(self.id).kind {
            NodeKind::Mapping(from, to) => &self.tree.pairs[from as usize..to as usize],
            _ => &[],
        }
    }

    /// Returns the JSON type of the value.
    #[must_use]
    pub fn json_type(&self) -> &'static str {
        match self.value() {
            Value::Scalar(s) => s.json_type(),
            Value::Sequence(_) => "array",
            Value::Mapping(_) => "object",
        }
    }

    /// Returns the path from the root, as the API server formats it: `spec.ingress[0].from[1]`. Empty for the root.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Recursion is bounded: the parser limits the depth of documents.
        if let Some(up) = self.up {
            up.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(key) if key.contains(['.', '/', '[']) => write!(f, "[{key}]"),
            Step::Key(key) if self.up.is_none_or(|up| matches!(up.step, Step::Root)) => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

impl fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} at {:?}: {:?}", self.span(), self.value())
    }
}

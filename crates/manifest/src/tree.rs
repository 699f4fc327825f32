//! A YAML or JSON document as an arena whose every node knows its bytes.
//!
//! A document is parsed once; types are decoded from the tree, so that every error can point at a line. What a value
//! means is what kubectl makes of it: see [`crate::scalar`], and [`Documents`] for duplicate keys, merge keys and aliases.

use std::{borrow::Cow, fmt, ops::Range};

use crate::scalar::Scalar;

mod build;
mod json;

pub use build::{Documents, Limits, Problem, ProblemKind};

/// Names a node of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

/// One value and where it stands.
#[derive(Debug)]
struct Node<'t> {
    kind: Kind<'t>,
    start: u32,
    end: u32,
}

#[derive(Debug)]
enum Kind<'t> {
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

/// One document. Aliases share the node that they name, so an alias costs nothing until it is walked.
#[derive(Debug)]
pub struct Tree<'t> {
    nodes: Vec<Node<'t>>,
    items: Vec<NodeId>,
    pairs: Vec<Pair<'t>>,
    root: NodeId,
}

impl<'t> Tree<'t> {
    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> At<'_> {
        At { tree: self, id: self.root, up: None, step: Step::Root }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the document holds nothing, as between two `---`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.node(self.root).kind, Kind::Scalar(Scalar::Null))
    }

    fn node(&self, id: NodeId) -> &Node<'t> {
        &self.nodes[id.0 as usize]
    }
}

/// How one reaches a value from the one above it.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A place in a tree: a value and the way to it.
#[derive(Clone, Copy)]
pub struct At<'a> {
    tree: &'a Tree<'a>,
    id: NodeId,
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

/// What a place holds.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A scalar.
    Scalar(&'a Scalar<'a>),
    /// A sequence of this length.
    Sequence(usize),
    /// A mapping with this many keys.
    Mapping(usize),
}

impl<'a> At<'a> {
    /// What stands here.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        match &self.tree.node(self.id).kind {
            Kind::Scalar(s) => Value::Scalar(s),
            Kind::Sequence(from, to) => Value::Sequence((to - from) as usize),
            Kind::Mapping(from, to) => Value::Mapping((to - from) as usize),
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value(), Value::Scalar(Scalar::Null))
    }

    /// Its bytes in the file.
    #[must_use]
    pub fn span(&self) -> Range<u32> {
        let node = self.tree.node(self.id);
        node.start..node.end
    }

    /// The elements, if it is a sequence.
    pub fn items<'b>(&'b self) -> impl Iterator<Item = At<'b>> {
        let range = match self.tree.node(self.id).kind {
            Kind::Sequence(from, to) => from as usize..to as usize,
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

    /// Key, place of the key, and value of each entry, if it is a mapping.
    pub fn entries<'b>(&'b self) -> impl Iterator<Item = (&'b str, At<'b>, At<'b>)> {
        self.pairs().iter().map(move |pair| {
            let at = |id| At { tree: self.tree, id, up: Some(self), step: Step::Key(&pair.key) };
            (&*pair.key, at(pair.key_node), at(pair.value))
        })
    }

    /// The value under `key`, if this is a mapping that has it. `O(keys)`.
    #[must_use]
    pub fn get<'b>(&'b self, key: &str) -> Option<At<'b>> {
        let pair = self.pairs().iter().find(|p| p.key == key)?;
        Some(At { tree: self.tree, id: pair.value, up: Some(self), step: Step::Key(&pair.key) })
    }

    /// The same value with paths counted from here: an element of a `List` is an object of its own.
    #[must_use]
    pub fn as_root(&self) -> At<'a> {
        At { tree: self.tree, id: self.id, up: None, step: Step::Root }
    }

    fn pairs(&self) -> &'a [Pair<'a>] {
        match self.tree.node(self.id).kind {
            Kind::Mapping(from, to) => &self.tree.pairs[from as usize..to as usize],
            _ => &[],
        }
    }

    /// What JSON calls what stands here.
    #[must_use]
    pub fn json_type(&self) -> &'static str {
        match self.value() {
            Value::Scalar(s) => s.json_type(),
            Value::Sequence(_) => "array",
            Value::Mapping(_) => "object",
        }
    }

    /// The way to it from the root, as the API server writes it: `spec.ingress[0].from[1]`. Empty for the root.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path is as long as the schema is deep, and the parser bounds the depth of everything else.
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

//! Connections between sets of ends instead of pairs, so that the size grows with what differs.
//!
//! Ends that policies treat alike are one row and one column of a relation, whose keys are what a pair may send. The
//! relation is covered with rectangles ([`crate::cover`]). A pair with equal traffic in all families that its ends share
//! has one key for both families, so that IPv4 and IPv6 addresses outside are alike.

use std::collections::{BTreeMap, HashMap};

use palisade_policy::{Direction, Name, Traffic};

use crate::{
    connections::{Cells, Connections},
    cover::{PartId, Relation},
    end::ConnectionEnd,
    families::Families,
    numbering::Numbering,
    traffics::{Cell, TrafficId},
};

/// All connections of an answer, factored.
#[derive(Debug)]
pub struct FoldedConnections<'a> {
    /// Sets of ends: sorted indexes into [`Connections::ends`], none of them empty, no two equal.
    pub sets: Vec<Vec<usize>>,
    /// The connections between sets, sorted by the first ends of their sets. Those from one set are next to each other.
    pub edges: Vec<FoldedEdge<'a>>,
    families: Vec<Families>,
    lone: Vec<bool>,
}

/// The connections that each end of one set may open to each end of another. An end with fewer than two pods has no
/// connection to itself, and no end has a family that the other end of a pair does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldedEdge<'a> {
    /// The clients: an index into [`FoldedConnections::sets`].
    pub from: usize,
    /// The servers, likewise.
    pub to: usize,
    /// The IP families, as far as both ends of a pair have them.
    pub families: Families,
    /// As in [`crate::Edge`].
    pub traffic: &'a Traffic,
    /// As in [`crate::Edge`].
    pub exact: bool,
    /// As in [`crate::Edge`].
    pub through: &'a [usize],
    /// The label of all pairs; 0 without [`FoldSelection::labels`].
    pub label: u32,
}

/// What to fold.
#[derive(Clone, Copy)]
pub struct FoldSelection<'a> {
    /// Whether traffic is to be included.
    pub traffic: &'a dyn Fn(&Traffic) -> bool,
    /// Only connections from or to an end with this property.
    pub touching: &'a dyn Fn(usize) -> bool,
    /// What else is to be the same for the pairs of an edge.
    pub labels: Option<&'a dyn EdgeLabels>,
}

/// Labels for edges. The pairs of a folded edge have the same label.
pub trait EdgeLabels {
    /// Returns a number for an end as source ([`Direction::Egress`]) or destination. The labels of ends with the same
    /// traffic and the same number are equal.
    fn apart(&self, end: usize, direction: Direction) -> u32;

    /// Returns the label of the traffic between two ends; `None` if it is impossible, so that any label will do.
    fn label(&self, from: usize, to: usize, families: Families, traffic: &Traffic) -> Option<u32>;
}

impl Default for FoldSelection<'_> {
    fn default() -> Self {
        Self { traffic: &|traffic| !traffic.is_none(), touching: &|_| true, labels: None }
    }
}

/// What a pair may send: the number of the visible traffic, the families, whether it is exact, and the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    traffic: u32,
    families: Families,
    exact: bool,
    label: u32,
}

/// The part of rows and columns that are no pods. Pods are in 0 or 1.
const OTHERS: PartId = 2;

const BOTH: Families = Families { v4: true, v6: true };

impl FoldedConnections<'_> {
    /// Returns the pairs of an edge, with the families of each. `O(from × to)`.
    pub fn pairs(&self, edge: &FoldedEdge<'_>) -> impl Iterator<Item = (usize, usize, Families)> {
        let pairs = self.sets[edge.from]
            .iter()
            .flat_map(move |from| self.sets[edge.to].iter().map(move |to| (*from, *to)));
        let families = edge.families;
        pairs.filter_map(move |(from, to)| {
            let shared = families.and(self.families[from]).and(self.families[to]);
            ((from != to || !self.lone[from]) && !shared.is_empty()).then_some((from, to, shared))
        })
    }

    /// Returns the number of pairs of an edge. `O(from + to)`.
    #[must_use]
    pub fn count(&self, edge: &FoldedEdge<'_>) -> usize {
        let counted = |set: usize| {
            let mut found: BTreeMap<Families, usize> = BTreeMap::new();
            for end in &self.sets[set] {
                *found.entry(self.families[*end].and(edge.families)).or_default() += 1;
            }
            found
        };
        let (from, to) = (counted(edge.from), counted(edge.to));
        let pairs = from.iter().flat_map(|(a, n)| to.iter().map(move |(b, m)| (a.and(*b), n * m)));
        let pairs: usize = pairs.filter(|(shared, _)| !shared.is_empty()).map(|(_, pairs)| pairs).sum();
        let itself = |end: &&usize| {
            self.lone[**end]
                && self.sets[edge.to].binary_search(end).is_ok()
                && !self.families[**end].and(edge.families).is_empty()
        };
        pairs - self.sets[edge.from].iter().filter(itself).count()
    }
}

impl Connections {
    /// Factors the edges. [`FoldedConnections::pairs`] of all folded edges are the pairs of [`Self::edges`].
    /// `O(classes²)`, where a class is a set of ends that are treated alike.
    #[must_use]
    pub fn folded(&self, selection: &FoldSelection<'_>) -> FoldedConnections<'_> {
        let count = self.ends().len();
        let mut out = FoldedConnections {
            sets: Vec::new(),
            edges: Vec::new(),
            families: (0..count).map(|end| self.families(end)).collect(),
            lone: (0..count).map(|end| self.pods(end) < 2).collect(),
        };
        let mut sets = Numbering::default();
        let mut edges = self.fold_policies(selection, &out.families, &mut sets);
        edges.extend(self.fold_forwarding(selection, &mut sets));
        out.sets = sets.values().to_vec();
        let place =
            |edge: &FoldedEdge<'_>| (out.sets[edge.from][0], edge.from, out.sets[edge.to][0], edge.to);
        edges.sort_by_key(|edge| (place(edge), edge.families));
        // A pod without siblings has no connection with its own workload.
        edges.retain(|edge| out.count(edge) > 0);
        out.edges = edges;
        out
    }

    /// Returns whether no policy restricts what an end may send or receive.
    #[must_use]
    pub fn is_unrestricted(&self, end: usize, direction: Direction) -> bool {
        self.units_of(end).all(|unit| self.reach.is_unrestricted(unit, direction))
    }

    /// Returns the IP families in which an end has addresses.
    #[must_use]
    pub fn families(&self, end: usize) -> Families {
        if matches!(self.end(end), ConnectionEnd::IngressController(_)) {
            return BOTH;
        }
        let has = |family: usize| self.units_of(end).any(|unit| unit.classes[family].is_some());
        Families { v4: has(0), v6: has(1) }
    }

    /// Returns the number of an end's pods; 0 if it has none.
    #[must_use]
    pub fn pods(&self, end: usize) -> usize {
        if self.end(end).is_pods() { self.ends[end].placement.pods } else { 0 }
    }

    fn fold_policies(
        &self,
        selection: &FoldSelection<'_>,
        families: &[Families],
        sets: &mut Numbering<Vec<usize>>,
    ) -> Vec<FoldedEdge<'_>> {
        let shown: Vec<bool> = self.visible.iter().map(selection.traffic).collect();
        let (rows, columns) = (
            self.alike(selection, Direction::Egress, &self.from),
            self.alike(selection, Direction::Ingress, &self.to),
        );
        let parts = |classes: &[Vec<usize>], direction| -> Vec<PartId> {
            let part = |class: &Vec<usize>| match self.end(class[0]).is_pods() {
                true => PartId::from(self.is_unrestricted(class[0], direction)),
                false => OTHERS,
            };
            classes.iter().map(part).collect()
        };
        let (part_of_row, part_of_column) =
            (parts(&rows, Direction::Egress), parts(&columns, Direction::Ingress));
        let touching: Vec<bool> = columns.iter().map(|class| (selection.touching)(class[0])).collect();
        let mut relation = Relation::new(&part_of_row, &part_of_column);
        let mut row = RowCells {
            selection,
            families,
            shown,
            keys: Numbering::default(),
            last: None,
            cells: self.cells(),
        };
        for (number, class) in rows.iter().enumerate() {
            let touches = (selection.touching)(class[0]);
            let shown = |column: &usize| touches || touching[*column];
            let columns =
                (0..columns.len()).filter(shown).map(|column| (column as u32, &columns[column][..]));
            let is_pods = |column: u32| part_of_column[column as usize] != OTHERS;
            relation.add(number as u32, row.of(class, columns, is_pods));
        }
        let keys = row.keys;
        let mut number = |classes: &[Vec<usize>], chosen: &[u32]| {
            let mut ends: Vec<usize> =
                chosen.iter().flat_map(|class| &classes[*class as usize]).copied().collect();
            ends.sort_unstable();
            sets.number(ends) as usize
        };
        let edge = |rectangle: crate::cover::Rectangle| {
            let key = *keys.get(rectangle.key);
            FoldedEdge {
                from: number(&rows, &rectangle.rows),
                to: number(&columns, &rectangle.columns),
                families: key.families,
                traffic: &self.visible[key.traffic as usize],
                exact: key.exact,
                through: &[],
                label: key.label,
            }
        };
        relation.cover().into_iter().map(edge).collect()
    }

    /// Groups those of `ends` whose connections in one direction are equal, in the order of their first ends. The
    /// ingress controller is left out.
    fn alike(&self, selection: &FoldSelection<'_>, direction: Direction, ends: &[usize]) -> Vec<Vec<usize>> {
        let nodes =
            self.ends.iter().any(|e| matches!(e.end, ConnectionEnd::OwnNode(_) | ConnectionEnd::Nodes(_)));
        let mut classes: Vec<Vec<usize>> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        for &end in ends {
            let placed = &self.ends[end];
            if matches!(placed.end, ConnectionEnd::IngressController(_)) {
                continue;
            }
            // Which pods a node may call depends on where they run.
            let placement: Option<(&[Name], bool)> =
                nodes.then(|| (&placed.placement.nodes[..], placed.placement.unplaced));
            let apart = selection.labels.map(|labels| labels.apart(end, direction));
            let key = (
                self.traffic_key(end),
                std::mem::discriminant(&placed.end),
                placement,
                (selection.touching)(end),
                apart,
            );
            let class = *known.entry(key).or_insert_with(|| {
                classes.push(Vec::new());
                classes.len() - 1
            });
            classes[class].push(end);
        }
        classes
    }

    /// Folds what the ingress controller forwards.
    fn fold_forwarding(
        &self,
        selection: &FoldSelection<'_>,
        sets: &mut Numbering<Vec<usize>>,
    ) -> Vec<FoldedEdge<'_>> {
        let mut found: Vec<(FoldedEdge<'_>, Vec<usize>)> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        let is_controller = |from: &&usize| matches!(self.end(**from), ConnectionEnd::IngressController(_));
        for &from in self.from.iter().filter(is_controller) {
            for &to in self.to.iter().filter(|to| (selection.touching)(**to) || (selection.touching)(from)) {
                for edge in self.between(from, to).filter(|edge| (selection.traffic)(edge.traffic)) {
                    let families = match edge.families.and(self.families(to)) == self.families(to) {
                        true => BOTH,
                        false => edge.families,
                    };
                    let key = (families, edge.traffic, edge.exact, edge.through);
                    let number = *known.entry(key).or_insert_with(|| {
                        let (traffic, exact, through) = (edge.traffic, edge.exact, edge.through);
                        let folded = FoldedEdge { from, to, families, traffic, exact, through, label: 0 };
                        found.push((folded, Vec::new()));
                        found.len() - 1
                    });
                    found[number].1.push(to);
                }
            }
        }
        let mut number = |ends: Vec<usize>| sets.number(ends) as usize;
        found
            .into_iter()
            .map(|(edge, to)| FoldedEdge { from: number(vec![edge.from]), to: number(to), ..edge })
            .collect()
    }
}

/// Computes the rows of the relation.
struct RowCells<'a> {
    selection: &'a FoldSelection<'a>,
    /// By end.
    families: &'a [Families],
    /// By number of visible traffic.
    shown: Vec<bool>,
    keys: Numbering<Key>,
    last: Option<(Key, u32)>,
    cells: Cells<'a>,
}

impl RowCells<'_> {
    /// Returns the keys and columns of a row, given the ends of the row and of each column.
    fn of<'c>(
        &mut self,
        row: &[usize],
        columns: impl Iterator<Item = (u32, &'c [usize])>,
        is_pods: impl Fn(u32) -> bool,
    ) -> Vec<(u32, u32)> {
        self.cells.from(row[0]);
        let (mut found, mut unlabeled) = (Vec::new(), Vec::new());
        for (column, class) in columns {
            let Some((cell, exact)) = self.cells.to(class[0]) else { continue };
            let shared = self.families[row[0]].and(self.families[class[0]]);
            for (traffic, families) in self.traffic(cell, shared).into_iter().flatten() {
                let key = Key { traffic, families, exact, label: 0 };
                match self.label(row, class, &key) {
                    Some(label) => found.push((self.number(Key { label, ..key }), column)),
                    None => unlabeled.push((key, column)),
                }
            }
        }
        for (key, column) in unlabeled {
            let of_pods = found.iter().filter(|(_, column)| is_pods(*column));
            let alike =
                of_pods.map(|(number, _)| *self.keys.get(*number)).filter(|other| other.is_like(&key));
            if let Some(key) = most_frequent(alike) {
                found.push((self.keys.number(key), column));
            }
        }
        found
    }

    /// Numbers a key. Neighbours mostly have the same, so the last one is kept.
    fn number(&mut self, key: Key) -> u32 {
        match self.last {
            Some((last, number)) if last == key => number,
            _ => {
                let number = self.keys.number(key);
                self.last = Some((key, number));
                number
            }
        }
    }

    fn label(&self, row: &[usize], column: &[usize], key: &Key) -> Option<u32> {
        let Some(labels) = self.selection.labels else { return Some(0) };
        let (from, to) = different(row, column);
        labels.label(from, to, key.families, &self.cells.connections().visible[key.traffic as usize])
    }

    /// Returns the numbers of a pair's visible traffic that is shown, with its families: one for all shared families if
    /// it is equal.
    fn traffic(&self, cell: Cell, shared: Families) -> [Option<(TrafficId, Families)>; 2] {
        let same = &self.cells.connections().same_visible;
        let [v4, v6] = cell.map(|id| Some(same[id? as usize]));
        let found = match (v4, v6) {
            (Some(a), Some(b)) if a == b => [Some((a, BOTH)), None],
            (Some(a), None) if !shared.v6 => [Some((a, BOTH)), None],
            (None, Some(b)) if !shared.v4 => [Some((b, BOTH)), None],
            _ => [
                v4.map(|id| (id, Families { v6: false, ..BOTH })),
                v6.map(|id| (id, Families { v4: false, ..BOTH })),
            ],
        };
        found.map(|found| found.filter(|(id, _)| self.shown[*id as usize]))
    }
}

impl Key {
    /// Whether another key differs in its label only.
    fn is_like(&self, other: &Self) -> bool {
        Self { label: 0, ..*self } == Self { label: 0, ..*other }
    }
}

/// Returns the key that occurs the most, or the first of these.
fn most_frequent(keys: impl Iterator<Item = Key>) -> Option<Key> {
    let mut count: BTreeMap<u32, (usize, Key)> = BTreeMap::new();
    for key in keys {
        count.entry(key.label).or_insert((0, key)).0 += 1;
    }
    count.into_values().rev().max_by_key(|(times, _)| *times).map(|(_, key)| key)
}

/// Returns an end of each class. They differ if possible.
fn different(rows: &[usize], columns: &[usize]) -> (usize, usize) {
    let other = |all: &[usize], end: usize| all.iter().copied().find(|e| *e != end);
    let (row, column) = (rows[0], columns[0]);
    match (row == column, other(rows, column), other(columns, row)) {
        (true, Some(row), _) => (row, column),
        (true, None, Some(column)) => (row, column),
        _ => (row, column),
    }
}

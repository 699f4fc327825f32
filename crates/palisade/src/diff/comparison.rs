//! Two clusters and their difference.

use palisade_analysis::{
    ConnectionEnd,
    diff::{Diff, Edit, EndChange, Labeled, ObjectChange, PolicyChange, PolicyEdit, Presence},
};
use palisade_api::Missing;
use palisade_manifest::{Loaded, Note};
use palisade_policy::{Name, ObjectKey, Origin, PolicyKey};

use crate::{
    cluster::JsonMissing, connection_ends::JsonObject, escape, exit::Outcome, inputs, traffic::VisibleTraffic,
};

/// Two clusters and their difference.
pub(crate) struct Comparison {
    /// Before and after.
    pub(crate) sides: [Loaded; 2],
    pub(crate) difference: Diff,
    /// The kinds that could not be read and without which the result may be wrong.
    pub(crate) missing: Vec<Missing>,
    /// Whether git has everything of the range. If not, a note says what is missing.
    pub(crate) complete: bool,
    /// What could not be decided, and why.
    pub(crate) undecided: Vec<Note>,
    /// What the reader of the answer should know.
    pub(crate) notes: Vec<Note>,
}

/// An object that was edited, as it is named and where it is on both sides.
pub(crate) struct EditedObject<'a> {
    pub(crate) kind: &'a str,
    /// Its key on each side; a policy may have been renamed.
    pub(crate) keys: [Option<(&'a str, &'a str)>; 2],
    pub(crate) origins: [Option<&'a Origin>; 2],
    pub(crate) change: EditWord,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditWord {
    Added,
    Removed,
    Edited,
    Renamed,
}

impl EditWord {
    /// Returns the word in answers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Edited => "edited",
            Self::Renamed => "renamed",
        }
    }
}

impl From<PolicyChange> for EditWord {
    fn from(change: PolicyChange) -> Self {
        match change {
            PolicyChange::Added => Self::Added,
            PolicyChange::Removed => Self::Removed,
            PolicyChange::Edited => Self::Edited,
            PolicyChange::Renamed => Self::Renamed,
        }
    }
}

impl From<ObjectChange> for EditWord {
    fn from(change: ObjectChange) -> Self {
        match change {
            ObjectChange::Added => Self::Added,
            ObjectChange::Removed => Self::Removed,
            ObjectChange::Edited => Self::Edited,
        }
    }
}

impl From<Presence> for EditWord {
    fn from(presence: Presence) -> Self {
        match presence {
            Presence::Added => Self::Added,
            Presence::Removed => Self::Removed,
        }
    }
}

impl Comparison {
    /// Returns the side on which an end can be looked up: that after the change, unless it was removed.
    pub(crate) fn side_of(&self, removed: bool) -> &Loaded {
        &self.sides[usize::from(!removed)]
    }

    /// Returns what was left out of either side, for programs.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = JsonMissing<'_>> {
        self.missing.iter().map(Into::into).chain(self.refused())
    }

    /// Returns what was left out of either side because of errors. The same about both sides is one.
    pub(crate) fn refused(&self) -> impl Iterator<Item = JsonMissing<'_>> {
        inputs::incomplete_sides(&self.sides)
    }

    /// Returns what to know, also about what was read. The same note about both sides is one.
    pub(crate) fn all_notes(&self) -> Vec<&Note> {
        let mut out: Vec<&Note> = self.notes.iter().collect();
        for note in self.sides.iter().flat_map(|side| &side.notes) {
            if !out.contains(&note) {
                out.push(note);
            }
        }
        out
    }

    /// Returns whether everything could be read.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete && self.missing.is_empty() && !self.sides.iter().any(Loaded::has_errors)
    }

    /// Returns whether a connection opens: between ends that are on both sides, for pods that don't exist yet, or of ends
    /// that are new.
    pub(crate) fn opens(&self) -> bool {
        let difference = &self.difference;
        let is_new = |end: &EndChange| {
            end.change == Presence::Added && !(end.sends.is_empty() && end.receives.is_empty())
        };
        difference.changes.iter().any(|change| !VisibleTraffic::of(&change.opened).is_none())
            || difference.exposure.iter().any(|change| change.opened && change.exact)
            || difference.ends.iter().any(is_new)
    }

    /// Returns whether a difference was found. What could not be decided may be one only if none was found.
    pub(crate) fn outcome(&self) -> Outcome {
        let same = self.difference.changes.is_empty()
            && self.difference.ends.is_empty()
            && self.difference.exposure.iter().all(|change| !change.exact);
        if same && !self.undecided.is_empty() { Outcome::Incomplete } else { Outcome::of(same) }
    }

    /// Returns the policies that only have another name, by their new keys.
    pub(crate) fn renamed(&self) -> impl Iterator<Item = &PolicyKey> {
        let renamed = |(key, edit): (_, &PolicyEdit)| (edit.change == PolicyChange::Renamed).then_some(key);
        self.difference.policies.iter().filter_map(renamed)
    }

    /// Returns the object of an edit.
    pub(crate) fn object<'a>(&'a self, edit: &'a Edit) -> EditedObject<'a> {
        match edit {
            Edit::Policy(key) => self.policy(key),
            Edit::Label { object, .. } => match object {
                Labeled::Namespace(name) => self.cluster_scoped("Namespace", name, EditWord::Edited),
                Labeled::Node(name) => self.cluster_scoped("Node", name, EditWord::Edited),
                Labeled::Pods(workload) => self.edited(&workload.kind, &workload.key, EditWord::Edited),
            },
            Edit::Namespace(name, presence) => self.cluster_scoped("Namespace", name, (*presence).into()),
            Edit::Ports(workload) | Edit::Addresses(workload) => {
                self.edited(&workload.kind, &workload.key, EditWord::Edited)
            }
            Edit::Service(key, change) => self.edited("Service", key, (*change).into()),
            Edit::Route(kind, key, change) => self.edited(kind, key, (*change).into()),
        }
    }

    /// Returns a policy that changed.
    pub(crate) fn policy<'a>(&'a self, key: &'a PolicyKey) -> EditedObject<'a> {
        let edit = self.difference.policies.get(key);
        let keys = edit.map_or([None, Some(key)], |edit| [edit.before.as_ref(), edit.after.as_ref()]);
        let origins = [0, 1].map(|side: usize| {
            self.sides[side].cluster.policies.get(keys[side]?).and_then(|p| p.origin.as_ref())
        });
        let change = edit.map_or(EditWord::Edited, |edit| edit.change.into());
        let keys = keys.map(|key| key.map(|key| (&*key.namespace, &*key.name)));
        EditedObject { kind: &key.kind, keys, origins, change }
    }

    fn cluster_scoped<'a>(&'a self, kind: &'a str, name: &'a Name, change: EditWord) -> EditedObject<'a> {
        let key = ObjectKey::new("", name.clone());
        let keys = Some(("", &**name));
        EditedObject { kind, keys: present(change, keys), origins: self.origins(kind, &key), change }
    }

    fn edited<'a>(&'a self, kind: &'a str, key: &'a ObjectKey, change: EditWord) -> EditedObject<'a> {
        let keys = present(change, Some((&*key.namespace, &*key.name)));
        EditedObject { kind, keys, origins: self.origins(kind, key), change }
    }

    /// Returns where the labels of an edited object are after the change, or were before.
    pub(crate) fn labels_origin(&self, object: &Labeled) -> Option<&Origin> {
        let key = match object {
            Labeled::Namespace(name) => (Name::from("Namespace"), ObjectKey::new("", name.clone())),
            Labeled::Node(name) => (Name::from("Node"), ObjectKey::new("", name.clone())),
            Labeled::Pods(workload) => (workload.kind.clone(), workload.key.clone()),
        };
        let [before, after] = &self.sides;
        after.label_origins.get(&key).or_else(|| before.label_origins.get(&key))
    }

    fn origins(&self, kind: &str, key: &ObjectKey) -> [Option<&Origin>; 2] {
        let key = (Name::from(kind), key.clone());
        [0, 1].map(|side: usize| self.sides[side].origins.get(&key))
    }

    /// Returns the origin of the object that an end stands for.
    pub(crate) fn origin_of(&self, end: &ConnectionEnd, removed: bool) -> Option<&Origin> {
        crate::connection_ends::origin_of(end, self.side_of(removed))
    }
}

fn present<T: Copy>(change: EditWord, key: Option<T>) -> [Option<T>; 2] {
    match change {
        EditWord::Added => [None, key],
        EditWord::Removed => [key, None],
        EditWord::Edited | EditWord::Renamed => [key, key],
    }
}

impl<'a> EditedObject<'a> {
    /// Returns the object on one side as a JSON value.
    pub(crate) fn json(&self, side: usize) -> Option<JsonObject<'a>> {
        let (namespace, name) = self.keys[side]?;
        let namespace = Some(namespace).filter(|n| !n.is_empty());
        Some(JsonObject::new(self.kind, namespace, name, self.origins[side]))
    }

    /// Returns the object as it is after the change, or before it if it was removed, as a JSON value.
    pub(crate) fn json_object(&self) -> Option<JsonObject<'a>> {
        self.json(1).or_else(|| self.json(0))
    }

    /// Formats kind and name: `NetworkPolicy shop/web`.
    pub(crate) fn name(&self) -> String {
        let name = |(namespace, name): (&str, &str)| {
            if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
        };
        let name = self.keys[1].or(self.keys[0]).map(name).unwrap_or_default();
        escape::plain(&format!("{} {name}", self.kind)).into_owned()
    }

    /// Formats where it is: `a.yaml:3 → b.yaml:7`; one place if it is in the same place on both sides, or exists on one
    /// side only.
    pub(crate) fn place(&self) -> Option<String> {
        let shown = [0, 1].map(|side: usize| self.origins[side].filter(|_| self.keys[side].is_some()));
        let places: Vec<String> = shown.into_iter().flatten().map(ToString::to_string).collect();
        let text = match &places[..] {
            [] => return None,
            [a, b] if a == b => a.clone(),
            all => all.join(" → "),
        };
        Some(escape::plain(&text).into_owned())
    }
}

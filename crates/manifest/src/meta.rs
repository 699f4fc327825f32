//! `ObjectMeta`: name, labels and owner of an object.

use std::ops::Deref;

use palisade_policy::{Labels, ObjectKey, Origin, Uid, Workload};

use crate::{
    decode::{Context, Fields},
    diagnostic::{Code, Diagnostic, Severity},
    names,
    scalar::Scalar,
    tree::{At, Value},
};

/// The annotation of the mirror of a static pod, whose value is the UID that the kubelet gave that pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Fields of `ObjectMeta` (Kubernetes 1.35), and `clusterName` of older servers.
pub(crate) const FIELDS: &[&str] = &[
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The metadata that is kept of an object.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// Namespace and name; the namespace is empty for cluster-scoped kinds.
    pub(crate) key: ObjectKey,
    pub(crate) labels: Labels,
    /// The owner that is the controller, or the first owner.
    pub(crate) owner: Option<Workload>,
    /// Seconds since the epoch; 0 if unknown.
    pub(crate) created: i64,
    pub(crate) uid: Uid,
    /// Where the object begins.
    pub(crate) origin: Origin,
}

/// An object, ready to be decoded.
pub(crate) struct Object<'a> {
    pub(crate) kind: &'static str,
    /// The version without its group: `v1beta1`.
    pub(crate) version: &'a str,
    pub(crate) meta: Meta,
    pub(crate) fields: Fields<'a>,
}

impl<'a> Object<'a> {
    /// Returns a field that is set and not null.
    pub(crate) fn get(&self, name: &str) -> Option<At<'a>> {
        self.fields.get(name)
    }
}

/// Reads `metadata`. Returns `None`, after an error, if the object has no usable name.
pub(crate) fn meta(
    cx: &mut Context<'_>,
    object: &Fields<'_>,
    kind: &str,
    default_namespace: Option<&str>,
) -> Option<Meta> {
    let at = object.get("metadata");
    let fields = at.as_ref().and_then(|at| cx.fields(at, FIELDS));
    let name = fields.and_then(|f| f.string(cx, "name")).unwrap_or_default();
    let generated = fields.and_then(|f| f.string(cx, "generateName")).unwrap_or_default();
    let namespace = match default_namespace {
        Some(default) => {
            let given = fields.and_then(|f| f.string(cx, "namespace")).unwrap_or_default();
            if given.is_empty() { default } else { given }
        }
        None => "",
    };
    // The API server generates the rest of the name. Here, the line number makes the name unique.
    let name = match (name, generated) {
        ("", "") => {
            cx.object = Some(kind.to_owned());
            if cx.errors > 0 {
                // The wrong type of the name was reported before.
                return None;
            }
            let place = at.as_ref().map_or(object.at.span(), At::span);
            let path = Some("metadata.name".to_owned());
            let message = "Required value: name or generateName is required";
            cx.report_span(
                place,
                Diagnostic { path, ..Diagnostic::new(Severity::Error, Code::Required, message) },
            );
            return None;
        }
        ("", prefix) => cx.names.name(&format!("{prefix}{}", cx.origin(object.at).line)),
        (name, _) => cx.names.name(name),
    };
    let key = ObjectKey { namespace: cx.names.name(namespace), name };
    cx.object =
        Some(if namespace.is_empty() { format!("{kind} {}", key.name) } else { format!("{kind} {key}") });
    let origin = cx.origin(object.at);
    if let Some(fields) = fields {
        check_names(cx, &fields, &key);
    }
    let labels = fields.and_then(|f| f.get("labels")).map(|at| cx.labels(&at)).unwrap_or_default();
    let owner = fields.and_then(|f| f.get("ownerReferences")).and_then(|at| owner(cx, &at));
    let created = fields.and_then(|f| f.string(cx, "creationTimestamp")).and_then(epoch_seconds).unwrap_or(0);
    let uid = fields.and_then(|f| f.string(cx, "uid")).map(Uid::parse).unwrap_or_default();
    let annotations = fields.and_then(|f| f.get("annotations"));
    let mirror = annotations.as_ref().and_then(|at| at.get(MIRROR)).and_then(|at| match at.value() {
        Value::Scalar(Scalar::Str(text)) => Some(Uid::parse(text)),
        _ => None,
    });
    // The UID by which a container runtime knows a static pod.
    let uid = mirror.filter(|uid| *uid != Uid::UNKNOWN).unwrap_or(uid);
    Some(Meta { key, labels, owner, created, uid, origin })
}

fn check_names(cx: &mut Context<'_>, fields: &Fields<'_>, key: &ObjectKey) {
    if let Some(at) = fields.get("name") {
        cx.invalid(&at, names::dns_subdomain(&key.name));
    }
    if !key.namespace.is_empty()
        && let Some(at) = fields.get("namespace")
    {
        cx.invalid(&at, names::dns_label(&key.namespace));
    }
}

fn owner(cx: &mut Context<'_>, at: &At<'_>) -> Option<Workload> {
    let mut owners = Vec::new();
    for at in cx.list(at) {
        let Some(fields) = cx.any_fields(&at) else { continue };
        let (Some(kind), Some(name)) = (fields.string(cx, "kind"), fields.string(cx, "name")) else {
            continue;
        };
        let (kind, name) = (cx.names.name(kind), cx.names.name(name));
        owners.push(Owner { kind, name, is_controller: fields.bool(cx, "controller") });
    }
    controller(owners).map(|owner| Workload { kind: owner.kind, name: owner.name })
}

/// An owner of an object.
pub(crate) struct Owner<N> {
    pub(crate) kind: N,
    pub(crate) name: N,
    pub(crate) is_controller: bool,
}

/// Returns the first owner that is the controller, or else the first owner. A Node is no workload: it owns all mirror pods of its
/// kubelet's static pods, which are workloads of their own.
pub(crate) fn controller<N: Deref<Target = str>>(
    owners: impl IntoIterator<Item = Owner<N>>,
) -> Option<Owner<N>> {
    let mut first = None;
    for owner in owners.into_iter().filter(|owner| *owner.kind != *"Node") {
        if owner.is_controller {
            return Some(owner);
        }
        first.get_or_insert(owner);
    }
    first
}

/// Parses a timestamp in RFC 3339, such as `2026-11-23T00:30:04Z`. Returns seconds since the epoch.
pub(crate) fn epoch_seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// The name of an object in messages, before its metadata is read: the kind, and the name if there is one.
pub(crate) fn provisional_name(kind: &str, at: &At<'_>) -> String {
    let name = at.get("metadata").and_then(|m| match m.get("name")?.value() {
        Value::Scalar(Scalar::Str(s)) => Some(s.to_string()),
        _ => None,
    });
    name.map_or_else(|| kind.to_string(), |n| format!("{kind} {n}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_no_workload() {
        let chosen = |owners: &[(&'static str, &'static str, bool)]| {
            let owners =
                owners.iter().map(|&(kind, name, is_controller)| Owner { kind, name, is_controller });
            controller(owners).map(|owner| owner.name)
        };
        assert_eq!(chosen(&[("Node", "a", true)]), None);
        assert_eq!(chosen(&[("Node", "a", true), ("ReplicaSet", "b", false)]), Some("b"));
        assert_eq!(chosen(&[("Backup", "a", false), ("StatefulSet", "b", true)]), Some("b"));
        assert_eq!(chosen(&[("Backup", "a", false)]), Some("a"));
    }

    #[test]
    fn timestamps() {
        assert_eq!(epoch_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(epoch_seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(epoch_seconds("2026-11-23T00:30:04.123456Z"), Some(1_795_393_804));
        assert_eq!(epoch_seconds("2026-11-23T01:30:04+01:00"), Some(1_795_393_804));
        for bad in
            ["", "now", "2026-13-01T00:00:00Z", "2026-11-23", "2026-11-23T00:30:04", "²026-11-23T00:30:04Z"]
        {
            assert_eq!(epoch_seconds(bad), None, "{bad}");
        }
    }
}

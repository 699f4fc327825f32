//! The objects of one kind that have been sent so far: enough to tell what changed, and what a list lacks.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU64,
};

use palisade_manifest::{
    Code, Diagnostic, Severity,
    api_objects::{ApiNode, ApiPod, Decoded, ObjectDecoder},
};
use palisade_policy::{Change, MODE_KEY, Name, ObjectKey, PolicyKey};
use serde_json::value::RawValue;

use super::message::{Identity, UndecodedObject, recover_spec};
use crate::{error::ApiError, event::ObjectRef, resource::ResourceKind};

/// What follows from objects that were applied or deleted.
#[derive(Debug, Default)]
pub(super) struct StoreUpdate {
    pub(super) changes: Vec<Change>,
    pub(super) findings: Vec<(ObjectRef, Vec<Diagnostic>)>,
}

impl StoreUpdate {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.findings.is_empty()
    }
}

/// The objects of one kind, by fingerprint. An object that is received again, with another status or in another list, causes no change
/// unless a field changed that a decision needs.
///
/// A fingerprint is a keyed 64-bit hash of the decoded object, so two versions of an object are mistaken for equal with a probability of
/// 2⁻⁶⁴. The resource version can't replace it: versions repeat when etcd is restored from a backup.
pub(super) struct Store {
    kind: ResourceKind,
    decoder: ObjectDecoder,
    hasher: RandomState,
    /// By namespace and name; the namespace is empty for cluster-scoped kinds.
    objects: HashMap<Name, HashMap<Name, StoredObject>>,
    /// The number of the current list.
    list: u32,
}

#[derive(Clone, Copy, Debug)]
struct StoredObject {
    /// `None`: nothing usable has been received yet, only findings.
    fingerprint: Option<NonZeroU64>,
    /// The list during or after which it was last received.
    list: u32,
    /// Whether a change has set it. A cluster-wide policy that can't be decoded has a fingerprint and sets nothing.
    is_set: bool,
    /// Whether it has findings.
    has_findings: bool,
}

impl Store {
    pub(super) fn new(kind: ResourceKind) -> Self {
        Self {
            kind,
            decoder: ObjectDecoder::default(),
            hasher: RandomState::new(),
            objects: HashMap::new(),
            list: 0,
        }
    }

    /// Starts a list.
    pub(super) fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// Completes a list: objects that it lacks are deleted.
    pub(super) fn end_list(&mut self, update: &mut StoreUpdate) {
        let list = self.list;
        let stale = |(name, object): (&Name, &StoredObject)| (object.list != list).then(|| name.clone());
        let deleted: Vec<(Name, Name)> = self
            .objects
            .iter()
            .flat_map(|(ns, names)| names.iter().filter_map(stale).map(|n| (ns.clone(), n)))
            .collect();
        for (namespace, name) in deleted {
            self.remove(
                &Identity { namespace: namespace.to_string(), name: name.to_string(), ..Identity::default() },
                update,
            );
        }
    }

    /// Deletes all objects.
    pub(super) fn clear(&mut self, update: &mut StoreUpdate) {
        self.begin_list();
        self.end_list(update);
    }

    /// Adds or changes an object. Returns its resource version.
    ///
    /// # Errors
    /// If not even its name can be decoded.
    pub(super) fn apply(
        &mut self,
        version: &str,
        object: &str,
        update: &mut StoreUpdate,
    ) -> Result<String, ApiError> {
        let (identity, decoded) = match self.decode(version, object) {
            Ok(decoded) => decoded,
            Err(error) => {
                let identity =
                    Identity::recover(object).ok_or_else(|| ApiError::malformed(error.to_string()))?;
                let decoded = self.malformed(version, object, &identity, &error);
                (identity, decoded)
            }
        };
        let resource_version = identity.resource_version.clone();
        self.insert(&identity, decoded, update);
        Ok(resource_version)
    }

    /// Deletes an object. Returns the resource version of the deletion.
    ///
    /// # Errors
    /// If not even its name can be decoded.
    pub(super) fn delete(&mut self, object: &str, update: &mut StoreUpdate) -> Result<String, ApiError> {
        let identity = match serde_json::from_str::<UndecodedObject<'_>>(object) {
            Ok(plain) if !plain.metadata.name.is_empty() => Identity::of(&plain.metadata),
            Ok(_) => return Err(ApiError::malformed("an object without a name")),
            Err(error) => Identity::recover(object).ok_or(error)?,
        };
        self.remove(&identity, update);
        Ok(identity.resource_version)
    }

    fn decode(
        &mut self,
        version: &str,
        object: &str,
    ) -> Result<(Identity, DecodedObject), serde_json::Error> {
        let named = |identity: Identity| match identity.name.is_empty() {
            true => Err(serde::de::Error::custom("an object without a name")),
            false => Ok(identity),
        };
        Ok(match self.kind {
            ResourceKind::Pod => {
                let pod: ApiPod<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&pod.metadata))?;
                let Decoded { mut value, findings } = self.decoder.pod(&pod);
                // Share the name with the cluster's copy of the pod.
                let names = self.objects.get(&value.key.namespace);
                if let Some((name, _)) = names.and_then(|n| n.get_key_value(&value.key.name)) {
                    value.key.name = name.clone();
                }
                let p = &value;
                let facts = (
                    &p.labels,
                    &p.addresses,
                    &p.node,
                    p.host_network,
                    p.phase,
                    &p.ports,
                    p.created,
                    p.uid,
                    &p.workload,
                    &p.allow_source,
                );
                let fingerprint = self.fingerprint(facts);
                (identity, DecodedObject::new(fingerprint, Change::SetPod(value), findings))
            }
            ResourceKind::Node => {
                let node: ApiNode<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&node.metadata))?;
                let Decoded { value, findings } = self.decoder.node(&node);
                let fingerprint = self.fingerprint((&value.labels, &value.addresses));
                (identity, DecodedObject::new(fingerprint, Change::SetNode(value), findings))
            }
            ResourceKind::Namespace => {
                let plain: UndecodedObject<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&plain.metadata))?;
                let Decoded { value, findings } = self.decoder.namespace(&plain.metadata);
                let fingerprint = self.fingerprint((&value.labels, value.deny, &value.allow_source_within));
                (identity, DecodedObject::new(fingerprint, Change::SetNamespace(value), findings))
            }
            ResourceKind::Service => {
                let plain: UndecodedObject<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&plain.metadata))?;
                let decoded = self.service(version, &identity, &plain);
                (identity, decoded)
            }
            _ => {
                let plain: UndecodedObject<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&plain.metadata))?;
                let decoded = self.policy(version, &identity, plain.spec.map(|s| s.get()));
                (identity, decoded)
            }
        })
    }

    fn service(&mut self, version: &str, identity: &Identity, object: &UndecodedObject<'_>) -> DecodedObject {
        let (spec, status) = (object.spec.map(RawValue::get), object.status.map(RawValue::get));
        let fingerprint = self.fingerprint((spec, status));
        let is_unchanged = |o: &StoredObject| o.fingerprint == Some(fingerprint) && !o.has_findings;
        if self.get(identity).is_some_and(is_unchanged) {
            return DecodedObject { fingerprint: Some(fingerprint), change: None, findings: None };
        }
        let service = self.decoder.service(object_text(self.kind, version, identity, spec, status));
        DecodedObject {
            fingerprint: Some(fingerprint),
            change: service.map(Change::SetService),
            findings: Some(Vec::new()),
        }
    }

    fn policy(&mut self, version: &str, identity: &Identity, spec: Option<&str>) -> DecodedObject {
        // The status of a cluster-wide policy names its generation, so a new one is an update even if nothing else changed.
        let generation = self.kind.is_cluster_wide_policy().then_some((&identity.uid, identity.generation));
        let fingerprint = self.fingerprint((version, spec, generation, &identity.mode));
        let is_unchanged = |o: &StoredObject| o.fingerprint == Some(fingerprint) && !o.has_findings;
        if self.get(identity).is_some_and(is_unchanged) {
            return DecodedObject { fingerprint: Some(fingerprint), change: None, findings: None };
        }
        let Decoded { value, findings } =
            self.decoder.policy(object_text(self.kind, version, identity, spec, None));
        DecodedObject {
            fingerprint: Some(fingerprint),
            change: value.map(Change::SetPolicy),
            findings: Some(findings),
        }
    }

    /// Handles an object that can't be decoded. Of a policy, the parts that can be decoded are applied. For other objects the last known
    /// state stays in effect: a pod that is decoded in part could be a pod with other labels.
    fn malformed(
        &mut self,
        version: &str,
        object: &str,
        identity: &Identity,
        error: &serde_json::Error,
    ) -> DecodedObject {
        let is_policy = !matches!(
            self.kind,
            ResourceKind::Pod | ResourceKind::Node | ResourceKind::Namespace | ResourceKind::Service
        );
        let mut decoded = match is_policy {
            true => self.policy(version, identity, recover_spec(object)),
            false => DecodedObject { fingerprint: None, change: None, findings: Some(Vec::new()) },
        };
        let is_known = self.get(identity).is_some_and(|o| o.fingerprint.is_some());
        let effect = match (is_policy, is_known) {
            (true, _) => "the parts that can be decoded are applied",
            (false, true) => "its last known state stays in effect",
            (false, false) => "it is ignored until it can be decoded",
        };
        let object = match identity.namespace.is_empty() {
            true => format!("{} {}", self.kind, identity.name),
            false => format!("{} {}/{}", self.kind, identity.namespace, identity.name),
        };
        let message = format!("cannot decode the object: {error}; {effect}");
        decoded.findings.get_or_insert_default().push(Diagnostic {
            object: Some(object),
            help: Some("find out who wrote it: `kubectl get -o yaml --show-managed-fields`".to_owned()),
            ..Diagnostic::new(Severity::Error, Code::WrongType, message)
        });
        decoded
    }

    fn fingerprint(&self, facts: impl Hash) -> NonZeroU64 {
        NonZeroU64::new(self.hasher.hash_one(facts)).unwrap_or(NonZeroU64::MIN)
    }

    fn get(&self, identity: &Identity) -> Option<&StoredObject> {
        self.objects.get(&*identity.namespace)?.get(&*identity.name)
    }

    /// Stores what was decoded, and adds what changed to the update.
    fn insert(&mut self, identity: &Identity, decoded: DecodedObject, update: &mut StoreUpdate) {
        let list = self.list;
        let namespace = self.decoder.name(&identity.namespace);
        let names = self.objects.entry(namespace).or_default();
        let object = match names.get_mut(&*identity.name) {
            Some(object) => object,
            None => {
                // Share the name with the cluster's copy of the pod.
                let name = match &decoded.change {
                    Some(Change::SetPod(pod)) => pod.key.name.clone(),
                    _ => self.decoder.name(&identity.name),
                };
                let new = StoredObject { fingerprint: None, list, is_set: false, has_findings: false };
                names.entry(name).or_insert(new)
            }
        };
        object.list = list;
        let has_changed = decoded.fingerprint.is_some() && object.fingerprint != decoded.fingerprint;
        if has_changed {
            object.fingerprint = decoded.fingerprint;
            object.is_set |= decoded.change.is_some();
            update.changes.extend(decoded.change);
        }
        let Some(findings) = decoded.findings else { return };
        if !findings.is_empty() || object.has_findings || (has_changed && self.kind.is_cluster_wide_policy())
        {
            object.has_findings = !findings.is_empty();
            let object = object_ref(self.kind, &mut self.decoder, identity);
            update.findings.push((object, findings));
        }
    }

    fn remove(&mut self, identity: &Identity, update: &mut StoreUpdate) {
        let Some(names) = self.objects.get_mut(&*identity.namespace) else { return };
        let Some((name, object)) = names.remove_entry(&*identity.name) else { return };
        let namespace = self.decoder.name(&identity.namespace);
        if names.is_empty() {
            self.objects.remove(&*identity.namespace);
        } else if names.capacity() > 64 && names.capacity() > 4 * names.len() {
            names.shrink_to_fit();
        }
        if object.has_findings || self.kind.is_cluster_wide_policy() {
            let deleted = Identity { uid: String::new(), generation: 0, ..identity.clone() };
            let object = object_ref(self.kind, &mut self.decoder, &deleted);
            update.findings.push((object, Vec::new()));
        }
        if !object.is_set {
            return;
        }
        update.changes.push(match self.kind {
            ResourceKind::Pod => Change::RemovePod(ObjectKey { namespace, name }),
            ResourceKind::Node => Change::RemoveNode(name),
            ResourceKind::Namespace => Change::RemoveNamespace(name),
            ResourceKind::Service => Change::RemoveService(ObjectKey { namespace, name }),
            kind => {
                Change::RemovePolicy(PolicyKey { kind: self.decoder.name(kind.as_str()), namespace, name })
            }
        });
    }
}

/// What was decoded of one version of an object.
struct DecodedObject {
    /// `None` if nothing could be decoded.
    fingerprint: Option<NonZeroU64>,
    change: Option<Change>,
    /// `None` if they have not changed.
    findings: Option<Vec<Diagnostic>>,
}

impl DecodedObject {
    fn new(fingerprint: NonZeroU64, change: Change, findings: Vec<Diagnostic>) -> Self {
        Self { fingerprint: Some(fingerprint), change: Some(change), findings: Some(findings) }
    }
}

fn object_ref(kind: ResourceKind, decoder: &mut ObjectDecoder, identity: &Identity) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: (!identity.namespace.is_empty()).then(|| decoder.name(&identity.namespace)),
        name: decoder.name(&identity.name),
        uid: Name::from(&*identity.uid),
        generation: identity.generation,
    }
}

/// Returns a policy or a Service without managed fields, and of its annotations the one that sets the mode of a policy. List items have no
/// `apiVersion` and `kind`, so these are the requested ones.
fn object_text(
    kind: ResourceKind,
    version: &str,
    identity: &Identity,
    spec: Option<&str>,
    status: Option<&str>,
) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mode = identity.mode.as_deref();
    let annotations = mode
        .map(|mode| format!(r#","annotations":{{{}:{}}}"#, quote(MODE_KEY), quote(mode)))
        .unwrap_or_default();
    let status = status.map(|status| format!(r#","status":{status}"#)).unwrap_or_default();
    format!(
        r#"{{"apiVersion":{},"kind":{},"metadata":{{"name":{},"namespace":{}{annotations}}},"spec":{}{status}}}"#,
        quote(version),
        quote(kind.as_str()),
        quote(&identity.name),
        quote(&identity.namespace),
        spec.unwrap_or("null"),
    )
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Deny, Mode};

    use super::*;

    /// A change of the annotation alone is a change, since `generation` stays the same; other annotations are ignored.
    #[test]
    fn the_annotation_of_the_mode_changes_a_policy() {
        let mut store = Store::new(ResourceKind::NetworkPolicy);
        let mut modes = |annotations: &str| {
            let object = format!(
                r#"{{"metadata":{{"name":"db","namespace":"shop","resourceVersion":"7","generation":1{annotations}}},"spec":{{"podSelector":{{}}}}}}"#
            );
            let mut update = StoreUpdate::default();
            store.apply("networking.k8s.io/v1", &object, &mut update).unwrap();
            let modes: Vec<_> = update
                .changes
                .iter()
                .map(|change| match change {
                    Change::SetPolicy(policy) => policy.mode,
                    other => panic!("{other:?}"),
                })
                .collect();
            (modes, update.findings.iter().map(|(_, found)| found.len()).sum::<usize>())
        };
        let mode = |value: &str| format!(r#","annotations":{{"other":"x","palisade.dev/mode":"{value}"}}"#);
        assert_eq!(modes(""), (vec![None], 0));
        assert_eq!(modes(r#","annotations":{"other":"x"}"#), (vec![], 0));
        assert_eq!(modes(&mode("audit")), (vec![Some(Mode::Audit)], 0));
        assert_eq!(modes(&mode("audit")), (vec![], 0));
        assert_eq!(modes(&mode("enforce")), (vec![Some(Mode::Enforce)], 0));
        assert_eq!(modes(&mode("Audit")), (vec![Some(Mode::Enforce)], 1), "with a warning");
        assert_eq!(modes(""), (vec![None], 0));
    }

    #[test]
    fn annotations_of_pods_and_namespaces_change_their_sources() {
        let of = |kind: ResourceKind, key: &str| {
            let mut store = Store::new(kind);
            let mut apply = |annotations: &str| {
                let object = format!(
                    r#"{{"metadata":{{"name":"a","namespace":"b","resourceVersion":"7"{annotations}}}}}"#
                );
                let mut update = StoreUpdate::default();
                store.apply("v1", &object, &mut update).unwrap();
                let sources = |change: &Change| match change {
                    Change::SetNamespace(namespace) => namespace.allow_source_within.networks().len(),
                    Change::SetPod(pod) => pod.allow_source.networks().len(),
                    other => panic!("{other:?}"),
                };
                let findings = update.findings.iter().map(|(_, found)| found.len()).sum::<usize>();
                (update.changes.iter().map(sources).collect::<Vec<_>>(), findings)
            };
            let value = |value: &str| format!(r#","annotations":{{"other":"x","{key}":"{value}"}}"#);
            assert_eq!(apply(""), (vec![0], 0));
            assert_eq!(apply(r#","annotations":{"other":"x"}"#), (vec![], 0));
            assert_eq!(apply(&value("10.0.0.100,fd00::/64")), (vec![2], 0));
            assert_eq!(apply(&value("10.0.0.100, fd00::/64")), (vec![], 0));
            assert_eq!(apply(&value("10.0.0.100,fd00::/64,0.0.0.0/0")), (vec![0], 1), "with a warning");
            assert_eq!(apply(&value("10.0.0.100")), (vec![1], 0));
            assert_eq!(apply(""), (vec![0], 0));
        };
        of(ResourceKind::Pod, "palisade.dev/allow-source");
        of(ResourceKind::Namespace, "palisade.dev/allow-source-within");
    }

    #[test]
    fn the_annotation_of_a_namespace_changes_what_happens_to_what_is_denied() {
        let mut store = Store::new(ResourceKind::Namespace);
        let mut denies = |annotations: &str| {
            let object = format!(r#"{{"metadata":{{"name":"shop","resourceVersion":"7"{annotations}}}}}"#);
            let mut update = StoreUpdate::default();
            store.apply("v1", &object, &mut update).unwrap();
            let deny = |change: &Change| match change {
                Change::SetNamespace(namespace) => namespace.deny,
                other => panic!("{other:?}"),
            };
            let findings = update.findings.iter().map(|(_, found)| found.len()).sum::<usize>();
            (update.changes.iter().map(deny).collect::<Vec<_>>(), findings)
        };
        let deny = |value: &str| format!(r#","annotations":{{"other":"x","palisade.dev/deny":"{value}"}}"#);
        assert_eq!(denies(""), (vec![None], 0));
        assert_eq!(denies(r#","annotations":{"other":"x"}"#), (vec![], 0));
        assert_eq!(denies(&deny("reject")), (vec![Some(Deny::Reject)], 0));
        assert_eq!(denies(&deny("reject")), (vec![], 0));
        assert_eq!(denies(&deny("Reject")), (vec![Some(Deny::Drop)], 1), "with a warning");
        assert_eq!(denies(""), (vec![None], 0));
    }

    /// Found by the fuzz target `api-watch`.
    #[test]
    fn an_object_that_was_never_decoded_causes_no_removal() {
        let version = "policy.networking.k8s.io/v1alpha1";
        let object = r#"{"metadata":{"name":"guard","resourceVersion":"7"}}"#;
        let mut store = Store::new(ResourceKind::AdminNetworkPolicy);
        let mut update = StoreUpdate::default();
        store.apply(version, object, &mut update).unwrap();
        assert!(update.changes.is_empty() && update.findings.len() == 1, "{update:?}");
        let mut update = StoreUpdate::default();
        store.delete(object, &mut update).unwrap();
        assert!(update.changes.is_empty(), "{update:?}");
        assert_eq!(update.findings.len(), 1, "nothing is wrong with it any longer");
    }
}

//! What one watch has told so far: enough to know what is news, and what is missing from a list.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU64,
};

use palisade_manifest::{
    Code, Diagnostic, Severity,
    api_objects::{ApiNode, ApiPod, Decoded, ObjectDecoder},
};
use palisade_policy::{Change, Name, ObjectKey, PolicyKey};

use super::{
    failure::Failure,
    message::{Identity, Plain, rubbish, salvage_spec},
};
use crate::{Kind, ObjectRef};

/// What follows from a piece of news.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changes: Vec<Change>,
    pub(super) findings: Vec<(ObjectRef, Vec<Diagnostic>)>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.findings.is_empty()
    }
}

/// The objects of one kind, by fingerprint. A status that changes every minute, or a list read anew, is no news where
/// nothing changed that a decision needs.
///
/// A fingerprint is a keyed hash of 64 bits of what was made of the object, so that two versions of one object pass for the
/// same with a chance of 2⁻⁶⁴. It is not the server's version: that repeats itself when etcd is restored from a backup.
pub(super) struct Store {
    kind: Kind,
    decoder: ObjectDecoder,
    hasher: RandomState,
    /// By namespace and name; the namespace is empty for cluster-scoped kinds.
    known: HashMap<Name, HashMap<Name, Known>>,
    /// Counts the lists that were begun.
    pass: u32,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None`: nothing usable has come yet, only findings.
    fingerprint: Option<NonZeroU64>,
    /// The last list, or the time since, in which it was seen.
    pass: u32,
    /// Whether something is reported about it.
    reported: bool,
}

impl Store {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            decoder: ObjectDecoder::default(),
            hasher: RandomState::new(),
            known: HashMap::new(),
            pass: 0,
        }
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// A list is complete: what it didn't name is gone.
    pub(super) fn end(&mut self, news: &mut News) {
        let pass = self.pass;
        let stale = |(name, known): (&Name, &Known)| (known.pass != pass).then(|| name.clone());
        let gone: Vec<(Name, Name)> = self
            .known
            .iter()
            .flat_map(|(ns, names)| names.iter().filter_map(stale).map(|n| (ns.clone(), n)))
            .collect();
        for (namespace, name) in gone {
            self.forget(
                &Identity { namespace: namespace.to_string(), name: name.to_string(), ..Identity::default() },
                news,
            );
        }
    }

    /// The kind is served no longer: all of its objects are gone.
    pub(super) fn clear(&mut self, news: &mut News) {
        self.begin();
        self.end(news);
    }

    /// An object appeared or changed. Returns the server's version of it.
    ///
    /// # Errors
    /// When not even its name can be read.
    pub(super) fn set(&mut self, version: &str, object: &str, news: &mut News) -> Result<String, Failure> {
        let (identity, read) = match self.decode(version, object) {
            Ok(decoded) => decoded,
            Err(error) => {
                let identity = Identity::salvage(object).ok_or_else(|| rubbish(error_of(&error)))?;
                let read = self.malformed(version, object, &identity, &error);
                (identity, read)
            }
        };
        let resource_version = identity.resource_version.clone();
        self.note(&identity, read, news);
        Ok(resource_version)
    }

    /// An object is gone. Returns the server's version of that.
    ///
    /// # Errors
    /// When not even its name can be read.
    pub(super) fn remove(&mut self, object: &str, news: &mut News) -> Result<String, Failure> {
        let identity = match serde_json::from_str::<Plain<'_>>(object) {
            Ok(plain) if !plain.metadata.name.is_empty() => Identity::of(&plain.metadata),
            Ok(_) => return Err(Failure::Rubbish("an object without a name".to_owned())),
            Err(error) => Identity::salvage(object).ok_or_else(|| rubbish(error))?,
        };
        self.forget(&identity, news);
        Ok(identity.resource_version)
    }

    fn decode(&mut self, version: &str, object: &str) -> Result<(Identity, Reading), serde_json::Error> {
        let named = |identity: Identity| match identity.name.is_empty() {
            true => Err(serde::de::Error::custom("an object without a name")),
            false => Ok(identity),
        };
        Ok(match self.kind {
            Kind::Pod => {
                let live: ApiPod<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&live.metadata))?;
                let Decoded { mut value, findings } = self.decoder.pod(&live);
                // The name that the cluster has already.
                let names = self.known.get(&value.key.namespace);
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
                    &p.workload,
                );
                let fingerprint = self.fingerprint(facts);
                (identity, Reading::new(fingerprint, Change::SetPod(value), findings))
            }
            Kind::Node => {
                let live: ApiNode<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&live.metadata))?;
                let Decoded { value, findings } = self.decoder.node(&live);
                let fingerprint = self.fingerprint((&value.labels, &value.addresses));
                (identity, Reading::new(fingerprint, Change::SetNode(value), findings))
            }
            Kind::Namespace => {
                let plain: Plain<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&plain.metadata))?;
                let Decoded { value, findings } = self.decoder.namespace(&plain.metadata);
                let fingerprint = self.fingerprint(&value.labels);
                (identity, Reading::new(fingerprint, Change::SetNamespace(value), findings))
            }
            _ => {
                let plain: Plain<'_> = serde_json::from_str(object)?;
                let identity = named(Identity::of(&plain.metadata))?;
                let reading = self.policy(version, &identity, plain.spec.map(|s| s.get()));
                (identity, reading)
            }
        })
    }

    fn policy(&mut self, version: &str, identity: &Identity, spec: Option<&str>) -> Reading {
        // A generation that is new is reported as well where nothing is wrong with it: the status wants it.
        let counted = self.kind.is_optional().then_some((&identity.uid, identity.generation));
        let fingerprint = self.fingerprint((version, spec, counted));
        let unchanged = |k: &Known| k.fingerprint == Some(fingerprint) && !k.reported;
        if self.known(identity).is_some_and(unchanged) {
            return Reading { fingerprint: Some(fingerprint), change: None, findings: None };
        }
        let Decoded { value, findings } =
            self.decoder.policy(policy_text(self.kind, version, identity, spec));
        Reading {
            fingerprint: Some(fingerprint),
            change: value.map(Change::SetPolicy),
            findings: Some(findings),
        }
    }

    /// An object that the slim types can't hold. A policy is taken in as far as it can be read; of anything else, what was
    /// known of it stays in force: half a pod could be a pod with other labels.
    fn malformed(
        &mut self,
        version: &str,
        object: &str,
        identity: &Identity,
        error: &serde_json::Error,
    ) -> Reading {
        let is_policy = !matches!(self.kind, Kind::Pod | Kind::Node | Kind::Namespace);
        let mut reading = match is_policy {
            true => self.policy(version, identity, salvage_spec(object)),
            false => Reading { fingerprint: None, change: None, findings: Some(Vec::new()) },
        };
        let known = self.known(identity).is_some_and(|k| k.fingerprint.is_some());
        let effect = match (is_policy, known) {
            (true, _) => "what can be read of it is in force",
            (false, true) => "what was known of it stays in force",
            (false, false) => "it is left out until it can be read",
        };
        let object = match identity.namespace.is_empty() {
            true => format!("{} {}", self.kind, identity.name),
            false => format!("{} {}/{}", self.kind, identity.namespace, identity.name),
        };
        let message = format!("the object that the API server sent can't be read: {error}; {effect}");
        reading.findings.get_or_insert_default().push(Diagnostic {
            object: Some(object),
            help: Some("look at who wrote it: `kubectl get -o yaml --show-managed-fields`".to_owned()),
            ..Diagnostic::new(Severity::Error, Code::WrongType, message)
        });
        reading
    }

    fn fingerprint(&self, facts: impl Hash) -> NonZeroU64 {
        NonZeroU64::new(self.hasher.hash_one(facts)).unwrap_or(NonZeroU64::MIN)
    }

    fn known(&self, identity: &Identity) -> Option<&Known> {
        self.known.get(&*identity.namespace)?.get(&*identity.name)
    }

    fn note(&mut self, identity: &Identity, reading: Reading, news: &mut News) {
        let pass = self.pass;
        let namespace = self.decoder.name(&identity.namespace);
        let names = self.known.entry(namespace).or_default();
        let known = match names.get_mut(&*identity.name) {
            Some(known) => known,
            None => {
                // Shared with what goes into the cluster.
                let name = match &reading.change {
                    Some(Change::SetPod(pod)) => pod.key.name.clone(),
                    _ => self.decoder.name(&identity.name),
                };
                names.entry(name).or_insert(Known { fingerprint: None, pass, reported: false })
            }
        };
        known.pass = pass;
        let is_news = reading.fingerprint.is_some() && known.fingerprint != reading.fingerprint;
        if is_news {
            known.fingerprint = reading.fingerprint;
            news.changes.extend(reading.change);
        }
        let Some(findings) = reading.findings else { return };
        if !findings.is_empty() || known.reported || (is_news && self.kind.is_optional()) {
            known.reported = !findings.is_empty();
            let object = object_ref(self.kind, &mut self.decoder, identity);
            news.findings.push((object, findings));
        }
    }

    fn forget(&mut self, identity: &Identity, news: &mut News) {
        let Some(names) = self.known.get_mut(&*identity.namespace) else { return };
        let Some((name, known)) = names.remove_entry(&*identity.name) else { return };
        let namespace = self.decoder.name(&identity.namespace);
        if names.is_empty() {
            self.known.remove(&*identity.namespace);
        } else if names.capacity() > 64 && names.capacity() > 4 * names.len() {
            names.shrink_to_fit();
        }
        if known.reported || self.kind.is_optional() {
            let gone = Identity { uid: String::new(), generation: 0, ..identity.clone() };
            let object = object_ref(self.kind, &mut self.decoder, &gone);
            news.findings.push((object, Vec::new()));
        }
        if known.fingerprint.is_none() {
            return;
        }
        news.changes.push(match self.kind {
            Kind::Pod => Change::RemovePod(ObjectKey { namespace, name }),
            Kind::Node => Change::RemoveNode(name),
            Kind::Namespace => Change::RemoveNamespace(name),
            kind => {
                Change::RemovePolicy(PolicyKey { kind: self.decoder.name(kind.as_str()), namespace, name })
            }
        });
    }
}

/// What was made of one version of an object.
struct Reading {
    /// `None` where nothing could be made of it.
    fingerprint: Option<NonZeroU64>,
    change: Option<Change>,
    /// `None` where they are those of last time.
    findings: Option<Vec<Diagnostic>>,
}

impl Reading {
    fn new(fingerprint: NonZeroU64, change: Change, findings: Vec<Diagnostic>) -> Self {
        Self { fingerprint: Some(fingerprint), change: Some(change), findings: Some(findings) }
    }
}

fn object_ref(kind: Kind, decoder: &mut ObjectDecoder, identity: &Identity) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: (!identity.namespace.is_empty()).then(|| decoder.name(&identity.namespace)),
        name: decoder.name(&identity.name),
        uid: Name::from(&*identity.uid),
        generation: identity.generation,
    }
}

/// The text that decides a policy, without annotations and managed fields. List items have no `apiVersion` and `kind`, so
/// these are what was asked for.
fn policy_text(kind: Kind, version: &str, identity: &Identity, spec: Option<&str>) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"apiVersion":{},"kind":{},"metadata":{{"name":{},"namespace":{}}},"spec":{}}}"#,
        quote(version),
        quote(kind.as_str()),
        quote(&identity.name),
        quote(&identity.namespace),
        spec.unwrap_or("null"),
    )
}

/// `serde_json::Error` can't be cloned.
fn error_of(error: &serde_json::Error) -> serde_json::Error {
    serde::de::Error::custom(error)
}

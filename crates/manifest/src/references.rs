//! What the settings of workloads say about the hosts to which their pods connect: environment variables, arguments, and the
//! ConfigMaps that they refer to. No verdict depends on them; they tell which connections are needed.
//!
//! Only the names of hosts are kept, never the values, and Secrets are not read. What is missing or of another type is left
//! out: nothing here has to validate it.

mod containers;

use std::collections::BTreeMap;

use palisade_names::{HostMention, MentionForm, host_mentions, is_host_setting};
use palisade_policy::{Name, ObjectKey, Origin};

use crate::{
    decode::Context,
    scalar::Scalar,
    tree::{At, Value},
};

pub(crate) use containers::of_pod_spec;

/// The most hosts of one value.
const MAX_OF_VALUE: usize = 1000;
/// The most hosts of all workloads together.
pub(crate) const MAX_REFERENCES: usize = 100_000;
/// The longest name of a setting that is kept.
const MAX_SETTING: usize = 120;

/// The hosts that the settings of workloads name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// By kind and key of the object with the pod template, or of the pod.
    pub workloads: BTreeMap<(Name, ObjectKey), WorkloadReferences>,
    /// How many hosts were left out, because there are too many.
    pub left_out: usize,
}

/// The hosts that the settings of one workload name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadReferences {
    /// The hosts, in the order of the manifest.
    pub hosts: Vec<Reference>,
    /// Settings whose values are not read: those of Secrets and of ConfigMaps that are not in the input.
    pub unread: Vec<UnreadSetting>,
    /// Whether the kubelet probes a container.
    pub is_probed: bool,
}

/// A host that a setting names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The setting, such as `env DATABASE_HOST` or `key nginx.conf of ConfigMap shop/web`.
    pub setting: String,
    /// Where its value is.
    pub origin: Origin,
    /// The host.
    pub mention: HostMention,
    /// The port of the variable beside it: `DB_PORT` beside `DB_HOST`.
    pub port_beside: Option<u16>,
    /// Whether its form or the name of the setting tells that it is a host.
    pub is_certain: bool,
}

/// A setting whose value is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadSetting {
    /// The setting.
    pub setting: String,
    /// The object with the value, such as `Secret shop/db`.
    pub object: String,
    /// Where the setting is.
    pub origin: Origin,
}

/// What was read, before ConfigMaps and workloads are joined.
#[derive(Debug, Default)]
pub(crate) struct ReadReferences {
    pub(crate) config_maps: BTreeMap<ObjectKey, BTreeMap<String, Setting>>,
    pub(crate) pods: BTreeMap<(Name, ObjectKey), Vec<Container>>,
}

/// A value, as far as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    origin: Origin,
    hosts: Vec<HostMention>,
    /// The value, if it is the number of a port.
    port: Option<u16>,
}

/// A container, or what belongs to all of them.
#[derive(Debug, Default)]
pub(crate) struct Container {
    own: Vec<(Place, Setting)>,
    from: Vec<From>,
    is_probed: bool,
}

/// Where a value is set.
#[derive(Clone, Debug)]
enum Place {
    Variable(String),
    /// An argument, and the option before it or in it.
    Argument(usize, Option<String>),
}

/// Values of another object.
#[derive(Debug)]
struct From {
    object: Object,
    name: Name,
    /// The variable, the prefix of all variables, or the volume.
    into: Into,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    ConfigMap,
    Secret,
}

#[derive(Debug)]
enum Into {
    Variable { variable: String, key: String },
    Variables { prefix: String },
    Volume,
}

impl Setting {
    /// Reads a value.
    fn of(cx: &Context<'_>, at: &At<'_>) -> Option<Self> {
        match at.value() {
            Value::Scalar(Scalar::Str(text)) => Self::of_text(cx, at, text),
            Value::Scalar(Scalar::Int(number)) => {
                let port = u16::try_from(*number).ok().filter(|port| *port > 0)?;
                Some(Self { origin: cx.origin(at), hosts: Vec::new(), port: Some(port) })
            }
            _ => None,
        }
    }

    /// Reads a text that is the value at `at`, or part of it. `None`: it names no host and is no port.
    fn of_text(cx: &Context<'_>, at: &At<'_>, text: &str) -> Option<Self> {
        let (hosts, port) = (host_mentions(text, MAX_OF_VALUE), text.trim().parse().ok());
        let port = port.filter(|port| *port > 0);
        (port.is_some() || !hosts.is_empty()).then(|| Self { origin: cx.origin(at), hosts, port })
    }
}

impl ReadReferences {
    /// Keeps the values of a ConfigMap.
    pub(crate) fn add_config_map(&mut self, cx: &Context<'_>, at: &At<'_>, key: ObjectKey) {
        let mut settings = BTreeMap::new();
        if let Some(data) = at.get("data") {
            for (name, _, value) in data.entries() {
                // Without a host or a port it is kept too: the key exists.
                let none = || Setting { origin: cx.origin(&value), hosts: Vec::new(), port: None };
                settings.insert(name.to_owned(), Setting::of(cx, &value).unwrap_or_else(none));
            }
        }
        self.config_maps.insert(key, settings);
    }

    /// Joins workloads and ConfigMaps.
    pub(crate) fn join(self) -> References {
        let mut out = References::default();
        let mut left = MAX_REFERENCES;
        for (key, containers) in self.pods {
            let mut all = WorkloadReferences::default();
            for container in containers {
                all.is_probed |= container.is_probed;
                let namespace = &key.1.namespace;
                let settings = settings(container, namespace, &self.config_maps, &mut all.unread);
                add_hosts(&settings, &mut all.hosts, &mut left, &mut out.left_out);
            }
            if all != WorkloadReferences::default() {
                out.workloads.insert(key, all);
            }
        }
        out
    }
}

/// A setting of a container: its name in messages, the name that tells what it is, and its value.
type Named<'s> = (String, String, std::borrow::Cow<'s, Setting>);

fn settings<'s>(
    container: Container,
    namespace: &Name,
    config_maps: &'s BTreeMap<ObjectKey, BTreeMap<String, Setting>>,
    unread: &mut Vec<UnreadSetting>,
) -> Vec<Named<'s>> {
    use std::borrow::Cow;
    let mut out: Vec<Named<'s>> = Vec::new();
    for (place, setting) in container.own {
        let (shown, tells) = match place {
            Place::Variable(name) => (format!("env {}", short(&name)), name),
            Place::Argument(_, Some(option)) => (format!("argument {}", short(&option)), option),
            Place::Argument(at, None) => (format!("argument {at}"), String::new()),
        };
        out.push((shown, tells, Cow::Owned(setting)));
    }
    for From { object, name, into, origin } in container.from {
        let kind = if object == Object::Secret { "Secret" } else { "ConfigMap" };
        let key = ObjectKey { namespace: namespace.clone(), name };
        let shown = format!("{kind} {}", short(&key.to_string()));
        let found = config_maps.get(&key).filter(|_| object == Object::ConfigMap);
        let setting = match &into {
            Into::Variable { variable, .. } => format!("env {}", short(variable)),
            Into::Variables { .. } => "envFrom".to_owned(),
            Into::Volume => "volume".to_owned(),
        };
        let Some(found) = found else {
            // Volumes with Secrets are not looked at: they have keys and certificates, as a rule.
            let may_name_hosts = match &into {
                Into::Variable { variable, .. } => is_host_setting(variable),
                Into::Variables { .. } => true,
                Into::Volume => true,
            };
            if may_name_hosts {
                unread.push(UnreadSetting { setting, object: shown, origin });
            }
            continue;
        };
        match into {
            Into::Variable { variable, key } => {
                if let Some(setting) = found.get(&key) {
                    let name = format!("env {} (key {} of {shown})", short(&variable), short(&key));
                    out.push((name, variable, Cow::Borrowed(setting)));
                }
            }
            Into::Variables { prefix } => {
                for (key, setting) in found {
                    let variable = format!("{prefix}{key}");
                    out.push((
                        format!("env {} of {shown}", short(&variable)),
                        variable,
                        Cow::Borrowed(setting),
                    ));
                }
            }
            Into::Volume => {
                for (key, setting) in found {
                    out.push((format!("key {} of {shown}", short(key)), key.clone(), Cow::Borrowed(setting)));
                }
            }
        }
    }
    out
}

fn add_hosts(settings: &[Named<'_>], hosts: &mut Vec<Reference>, left: &mut usize, left_out: &mut usize) {
    let ports: BTreeMap<&str, u16> =
        settings.iter().filter_map(|(_, name, setting)| Some((&**name, setting.port?))).collect();
    for (shown, name, setting) in settings {
        for mention in &setting.hosts {
            if *left == 0 {
                *left_out += 1;
                continue;
            }
            *left -= 1;
            let beside = name.rsplit_once('_').and_then(|(prefix, _)| ports.get(&*format!("{prefix}_PORT")));
            hosts.push(Reference {
                setting: shown.clone(),
                origin: setting.origin.clone(),
                mention: mention.clone(),
                port_beside: beside.copied(),
                is_certain: mention.form != MentionForm::Value || is_host_setting(name),
            });
        }
    }
}

/// Shortens a name that may have any length.
fn short(name: &str) -> String {
    match name.char_indices().nth(MAX_SETTING) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

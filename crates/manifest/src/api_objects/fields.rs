//! The fields of the API's objects that decisions need. Decoded like Go does: null is the zero value.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

/// A string, borrowed from the text if it has no escapes. Null is the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonString<'a>(Cow<'a, str>);

impl Deref for JsonString<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonString<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for StringVisitor<'a> {
            type Value = JsonString<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(JsonString(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(JsonString(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(JsonString::default())
            }
        }
        // `deserialize_str` would reject null.
        deserializer.deserialize_any(StringVisitor(PhantomData))
    }
}

/// A map of strings, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringMap<'a>(pub Vec<(JsonString<'a>, JsonString<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for StringMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for MapVisitor<'a> {
            type Value = StringMap<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(StringMap(pairs))
            }
        }
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

/// A list. Null is the empty list. Null elements are skipped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct List<T>(Option<Vec<Option<T>>>);

impl<T> List<T> {
    /// Iterates over the elements.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().flatten()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// Deserializes null as the default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `ObjectMeta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiObjectMeta<'a> {
    /// The name.
    #[serde(borrow)]
    pub name: JsonString<'a>,
    /// The namespace; empty for cluster-scoped objects.
    #[serde(borrow)]
    pub namespace: JsonString<'a>,
    /// Distinguishes objects that reuse a name.
    #[serde(borrow)]
    pub uid: JsonString<'a>,
    /// Incremented with each change of the spec.
    #[serde(deserialize_with = "or_default")]
    pub generation: i64,
    /// The version of the object.
    #[serde(borrow)]
    pub resource_version: JsonString<'a>,
    /// The time of creation, in RFC 3339.
    #[serde(borrow)]
    pub creation_timestamp: JsonString<'a>,
    /// The labels.
    #[serde(borrow)]
    pub labels: Option<StringMap<'a>>,
    /// The owners.
    #[serde(borrow)]
    pub owner_references: List<ApiOwnerReference<'a>>,
    /// The annotations that are used.
    #[serde(borrow)]
    pub annotations: Option<ApiAnnotations<'a>>,
}

/// The annotations that are used, of all that objects have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiAnnotations<'a> {
    /// On the mirror of a static pod, the UID that the kubelet gave that pod. Container runtimes know no other.
    #[serde(borrow, rename = "kubernetes.io/config.mirror")]
    pub mirror: JsonString<'a>,
    /// The mode of a policy ([`palisade_policy::MODE_KEY`]).
    #[serde(borrow, rename = "palisade.dev/mode")]
    pub mode: Option<JsonString<'a>>,
    /// What happens to what policies of a namespace's pods deny ([`palisade_policy::DENY_KEY`]).
    #[serde(borrow, rename = "palisade.dev/deny")]
    pub deny: Option<JsonString<'a>>,
    /// Sources that a pod asks for ([`palisade_policy::ALLOW_SOURCE_KEY`]).
    #[serde(borrow, rename = "palisade.dev/allow-source")]
    pub allow_source: Option<JsonString<'a>>,
    /// Within which a namespace's pods may have them ([`palisade_policy::ALLOW_SOURCE_WITHIN_KEY`]).
    #[serde(borrow, rename = "palisade.dev/allow-source-within")]
    pub allow_source_within: Option<JsonString<'a>>,
}

/// `OwnerReference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiOwnerReference<'a> {
    /// The owner's kind.
    #[serde(borrow)]
    pub kind: JsonString<'a>,
    /// The owner's name.
    #[serde(borrow)]
    pub name: JsonString<'a>,
    /// Whether the owner is the controller.
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}

/// `Pod`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiPod<'a> {
    /// The metadata.
    #[serde(borrow)]
    pub metadata: ApiObjectMeta<'a>,
    /// The desired state.
    #[serde(borrow)]
    pub spec: Option<ApiPodSpec<'a>>,
    /// The observed state.
    #[serde(borrow)]
    pub status: Option<ApiPodStatus<'a>>,
}

/// `PodSpec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiPodSpec<'a> {
    /// The node that the pod is bound to; empty if there is none yet.
    #[serde(borrow)]
    pub node_name: JsonString<'a>,
    /// Whether the pod uses its node's network.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// The containers.
    #[serde(borrow)]
    pub containers: List<ApiContainer<'a>>,
    /// The init containers.
    #[serde(borrow)]
    pub init_containers: List<ApiContainer<'a>>,
}

/// `Container`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiContainer<'a> {
    /// `Always` on an init container means that it keeps running.
    #[serde(borrow)]
    pub restart_policy: JsonString<'a>,
    /// The declared ports.
    #[serde(borrow)]
    pub ports: List<ApiContainerPort<'a>>,
}

/// `ContainerPort`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiContainerPort<'a> {
    /// The name; empty if there is none.
    #[serde(borrow)]
    pub name: JsonString<'a>,
    /// The port number.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i64,
    /// TCP, UDP or SCTP; empty means TCP.
    #[serde(borrow)]
    pub protocol: JsonString<'a>,
}

/// `PodStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiPodStatus<'a> {
    /// The phase of the pod's lifecycle.
    #[serde(borrow)]
    pub phase: JsonString<'a>,
    /// The first address.
    #[serde(borrow, rename = "podIP")]
    pub pod_ip: JsonString<'a>,
    /// The addresses.
    #[serde(borrow, rename = "podIPs")]
    pub pod_ips: List<ApiPodIp<'a>>,
}

/// `PodIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiPodIp<'a> {
    /// The address.
    #[serde(borrow)]
    pub ip: JsonString<'a>,
}

/// `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiNode<'a> {
    /// The metadata.
    #[serde(borrow)]
    pub metadata: ApiObjectMeta<'a>,
    /// The desired state.
    #[serde(borrow)]
    pub spec: Option<ApiNodeSpec<'a>>,
    /// The observed state.
    #[serde(borrow)]
    pub status: Option<ApiNodeStatus<'a>>,
}

/// `NodeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiNodeSpec<'a> {
    /// The range of the pods' addresses that older servers set alone.
    #[serde(borrow, rename = "podCIDR")]
    pub pod_cidr: JsonString<'a>,
    /// The ranges of the pods' addresses, one per family.
    #[serde(borrow, rename = "podCIDRs")]
    pub pod_cidrs: List<JsonString<'a>>,
}

/// `NodeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiNodeStatus<'a> {
    /// The addresses.
    #[serde(borrow)]
    pub addresses: List<ApiNodeAddress<'a>>,
}

/// `NodeAddress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiNodeAddress<'a> {
    /// An address, or a host name.
    #[serde(borrow)]
    pub address: JsonString<'a>,
}

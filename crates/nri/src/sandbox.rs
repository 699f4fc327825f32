//! A pod as the runtime describes it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::messages::PodSandbox;
use crate::text::shortened;

/// Bytes of the longest name, UID or sandbox number that is taken. Kubernetes' are 253 at most.
const MAX_NAME: usize = 253;
/// Labels of one pod that are taken. The API server has no limit of its own; an object has 1.5 MiB.
const MAX_LABELS: usize = 10_000;
/// Bytes of the labels of one pod that are taken: as many as the API server accepts of annotations. Hundreds of pods are held.
const MAX_LABELS_BYTES: usize = 256 << 10;
/// Addresses of one pod that are taken.
const MAX_ADDRESSES: usize = 64;

/// A pod's sandbox: what its containers share, its network among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's name of it. One pod has several sandboxes one after the other if a sandbox dies.
    pub id: String,
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// UID of the pod. Empty if the sandbox was made without one, as by tools other than the kubelet. That of a static pod is the one that the
    /// kubelet gave it, which its mirror in the API server has in an annotation.
    pub uid: String,
    /// Labels of the pod when the sandbox was made.
    pub labels: BTreeMap<String, String>,
    /// Its addresses. Empty where the runtime doesn't report them (NRI before 0.8: containerd before 2.1), and for a host-network pod.
    pub addresses: Vec<IpAddr>,
    /// Path of its network namespace. `None` for a host-network pod, and where the runtime doesn't report it.
    pub network_namespace: Option<PathBuf>,
    /// A process in it, 0 if the runtime doesn't report it.
    pub pid: u32,
}

/// A description that no pod can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the sandbox: {problem}")]
pub struct InvalidSandbox {
    /// The field of the message.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl TryFrom<PodSandbox> for Sandbox {
    type Error = InvalidSandbox;

    fn try_from(message: PodSandbox) -> Result<Self, InvalidSandbox> {
        let namespaces = message.linux.map(|linux| linux.namespaces).unwrap_or_default();
        let network = namespaces.into_iter().find(|namespace| namespace.r#type == "network");
        Ok(Self {
            id: name("id", message.id)?,
            name: name("name", message.name)?,
            namespace: name("namespace", message.namespace)?,
            uid: if message.uid.is_empty() { message.uid } else { name("uid", message.uid)? },
            labels: labels(message.labels)?,
            addresses: addresses(&message.ips)?,
            network_namespace: network.map(|n| n.path).filter(|path| !path.is_empty()).map(PathBuf::from),
            pid: message.pid,
        })
    }
}

/// Takes what Kubernetes could have accepted as a name: it is logged, and used as a key.
fn name(field: &'static str, text: String) -> Result<String, InvalidSandbox> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > MAX_NAME {
        format!("has {} bytes; {MAX_NAME} are allowed", text.len())
    } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        format!("{text:?} is not a name")
    } else {
        return Ok(text);
    };
    Err(InvalidSandbox { field, problem })
}

fn labels(map: HashMap<String, String>) -> Result<BTreeMap<String, String>, InvalidSandbox> {
    if map.len() > MAX_LABELS {
        let problem = format!("are {}; {MAX_LABELS} are allowed", map.len());
        return Err(InvalidSandbox { field: "labels", problem });
    }
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_LABELS_BYTES {
        let problem = format!("have {bytes} bytes; {MAX_LABELS_BYTES} are allowed");
        return Err(InvalidSandbox { field: "labels", problem });
    }
    Ok(map.into_iter().collect())
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, InvalidSandbox> {
    let invalid = |problem| InvalidSandbox { field: "ips", problem };
    if texts.len() > MAX_ADDRESSES {
        return Err(invalid(format!("are {}; {MAX_ADDRESSES} are allowed", texts.len())));
    }
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        let address =
            text.parse().map_err(|_| invalid(format!("{:?} is not an address", shortened(text.clone()))))?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{LinuxNamespace, LinuxPodSandbox};

    fn message() -> PodSandbox {
        PodSandbox {
            id: "4f2a".to_owned(),
            name: "web-0".to_owned(),
            uid: "b1c7".to_owned(),
            namespace: "shop".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ips: vec!["10.1.0.5".to_owned(), "fd00::5".to_owned(), "10.1.0.5".to_owned()],
            linux: Some(LinuxPodSandbox {
                namespaces: vec![
                    LinuxNamespace { r#type: "ipc".to_owned(), path: "/proc/9/ns/ipc".to_owned() },
                    LinuxNamespace { r#type: "network".to_owned(), path: "/run/netns/cni-1".to_owned() },
                ],
            }),
            ..PodSandbox::default()
        }
    }

    #[test]
    fn a_pod_has_its_addresses_once_and_its_network_namespace() {
        let sandbox = Sandbox::try_from(message()).expect("valid");
        assert_eq!(
            sandbox.addresses,
            ["10.1.0.5".parse::<IpAddr>().expect("v4"), "fd00::5".parse().expect("v6")]
        );
        assert_eq!(sandbox.network_namespace, Some(PathBuf::from("/run/netns/cni-1")));
        assert_eq!(sandbox.labels["app"], "web");
    }

    #[test]
    fn a_runtime_without_addresses_is_understood() {
        let sandbox =
            Sandbox::try_from(PodSandbox { ips: Vec::new(), linux: None, ..message() }).expect("valid");
        assert!(sandbox.addresses.is_empty() && sandbox.network_namespace.is_none());
    }

    #[test]
    fn what_no_pod_can_be_is_refused_with_the_field() {
        let cases = [
            ("id", PodSandbox { id: String::new(), ..message() }),
            ("name", PodSandbox { name: "a\nb".to_owned(), ..message() }),
            ("namespace", PodSandbox { namespace: "../x".to_owned(), ..message() }),
            ("uid", PodSandbox { uid: "x".repeat(254), ..message() }),
            ("ips", PodSandbox { ips: vec!["10.1.0.5/24".to_owned()], ..message() }),
            ("ips", PodSandbox { ips: vec!["10.1.0.5".to_owned(); 65], ..message() }),
            (
                "labels",
                PodSandbox {
                    labels: (0..10_001).map(|n| (n.to_string(), String::new())).collect(),
                    ..message()
                },
            ),
            (
                "labels",
                PodSandbox { labels: [("app".to_owned(), "x".repeat(256 << 10))].into(), ..message() },
            ),
        ];
        for (field, message) in cases {
            assert_eq!(Sandbox::try_from(message).expect_err(field).field, field);
        }
    }
}

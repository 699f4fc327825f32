//! What the plugin tells the agent about a pod.

use std::{net::IpAddr, path::PathBuf};

use palisade_policy::{ObjectKey, Uid};
use serde::{Deserialize, Serialize};

use crate::runtime_pods::{RuntimePod, is_of_pod};

/// Bytes of the longest name that is taken. Kubernetes' are 253 at most.
const MAX_NAME: usize = 253;
/// Addresses of one pod that are taken.
const MAX_ADDRESSES: usize = 64;

/// A pod whose network is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// The id of the sandbox (`CNI_CONTAINERID`).
    pub id: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID, as the kubelet has it. Empty if the runtime doesn't say.
    #[serde(default)]
    pub uid: String,
    /// The addresses of the pod's interface.
    pub addresses: Vec<IpAddr>,
    /// The name of the network's configuration.
    pub network: String,
    /// The path of the pod's network namespace.
    pub network_namespace: PathBuf,
}

impl Attachment {
    /// Returns why no pod can be like this, if none can.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        check_id(&self.id)?;
        for (field, text) in [("namespace", &self.namespace), ("name", &self.name)] {
            if text.is_empty() {
                return Err(format!("the pod's {field} is empty"));
            }
            check_name(field, text)?;
        }
        check_name("UID", &self.uid)?;
        match self.addresses.len() {
            0..=MAX_ADDRESSES => Ok(()),
            n => Err(format!("the pod has {n} addresses; {MAX_ADDRESSES} are allowed")),
        }
    }

    /// Returns the pod's name as it is logged, whatever it is.
    pub(crate) fn pod_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns the pod, without addresses that can't be its own. A CNI plugin doesn't know labels.
    pub(crate) fn pod(&self) -> RuntimePod {
        let addresses = self.addresses.iter().map(IpAddr::to_canonical).filter(is_of_pod);
        RuntimePod {
            id: self.id.clone(),
            key: ObjectKey::new(self.namespace.as_str(), self.name.as_str()),
            uid: Uid::parse(&self.uid),
            labels: None,
            addresses: addresses.collect(),
            network_namespace: Some(self.network_namespace.clone()),
        }
    }
}

/// Checks the id of a sandbox, which is also the name of a file.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    let is_id = id.len() <= MAX_NAME
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(is_name_byte);
    if is_id { Ok(()) } else { Err(format!("{id:?} is not the id of a container")) }
}

fn check_name(field: &str, text: &str) -> Result<(), String> {
    if text.len() > MAX_NAME {
        return Err(format!("the pod's {field} has {} bytes; {MAX_NAME} are allowed", text.len()));
    }
    if text.bytes().all(is_name_byte) { Ok(()) } else { Err(format!("{text:?} is not the {field} of a pod")) }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn attachment(id: &str) -> Attachment {
        Attachment {
            id: id.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "0e5f0d7c-5b43-4d3c-9f2c-0123456789ab".to_owned(),
            addresses: vec!["10.1.0.5".parse().unwrap(), "fe80::1".parse().unwrap()],
            network: "pods".to_owned(),
            network_namespace: "/run/netns/x".into(),
        }
    }

    #[test]
    fn what_no_pod_can_be_is_refused_with_the_field() {
        type Edit = fn(&mut Attachment);
        let of = |edit: Edit| {
            let mut attachment = attachment("4f2a");
            edit(&mut attachment);
            attachment.check()
        };
        assert_eq!(of(|_| ()), Ok(()));
        let cases: [(Edit, &str); 7] = [
            (|a| a.id = "../x".to_owned(), "id of a container"),
            (|a| a.id = "..".to_owned(), "id of a container"),
            (|a| a.id = String::new(), "id of a container"),
            (|a| a.namespace = String::new(), "namespace is empty"),
            (|a| a.name = "a\nb".to_owned(), "not the name"),
            (|a| a.uid = "x".repeat(254), "UID has 254 bytes"),
            (|a| a.addresses = vec!["10.1.0.5".parse().unwrap(); 65], "65 addresses"),
        ];
        for (edit, part) in cases {
            let error = of(edit).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn addresses_that_are_not_the_pods_own_are_left_out() {
        assert_eq!(attachment("a").pod().addresses, ["10.1.0.5".parse::<IpAddr>().unwrap()]);
    }
}

//! What a runtime gives to the plugin: the configuration on standard input.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::error::CniError;
use crate::config::{DEFAULT_SOCKET, PodStart};

/// The versions of the specification in which plugins are chained.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version of replies where the configuration names none.
pub(super) const NEWEST: &str = "1.1.0";

/// The largest configuration in bytes, with the result of the previous plugin.
pub const MAX_INPUT: usize = 4 << 20;

/// The plugin's configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configuration {
    #[serde(default)]
    pub(super) cni_version: String,
    #[serde(default)]
    pub(super) name: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub(super) socket: PathBuf,
    #[serde(default)]
    pub(super) pod_start: PodStart,
    /// How long the start of a pod waits for the agent.
    #[serde(default = "default_timeout")]
    timeout_milliseconds: u64,
    pub(super) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
}

/// An attachment that exists, in a call of GC.
#[derive(Debug, Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    id: String,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

fn default_timeout() -> u64 {
    1750
}

impl Configuration {
    pub(super) fn read(text: &[u8]) -> Result<Self, CniError> {
        if text.len() > MAX_INPUT {
            return Err(CniError::Decode(format!("it has more than {MAX_INPUT} bytes")));
        }
        serde_json::from_slice(text).map_err(|error| CniError::Decode(error.to_string()))
    }

    /// The version of replies: that of the configuration, as far as it is known.
    pub(super) fn reply_version(text: &[u8]) -> String {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        // One that is longer than any version is not repeated.
        let version = value.get("cniVersion").and_then(Value::as_str).filter(|version| version.len() <= 32);
        version.unwrap_or(NEWEST).to_owned()
    }

    pub(super) fn timeout(&self) -> Duration {
        // More would exceed what a kubelet waits for a sandbox.
        Duration::from_millis(self.timeout_milliseconds.min(60_000))
    }

    pub(super) fn check_version(&self) -> Result<(), CniError> {
        match VERSIONS.contains(&&*self.cni_version) {
            true => Ok(()),
            false => Err(CniError::Version(self.cni_version.clone())),
        }
    }

    /// The result of the previous plugin.
    pub(super) fn result(&self) -> Result<&Value, CniError> {
        let missing =
            "there is no prevResult: palisade-cni sets up no network, it must follow a plugin that does";
        let result = self.prev_result.as_ref().ok_or_else(|| CniError::Configuration(missing.to_owned()))?;
        match result.is_object() {
            true => Ok(result),
            false => Err(CniError::Configuration("prevResult is not an object".to_owned())),
        }
    }

    /// The addresses of the previous plugin's result.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, CniError> {
        let Some(ips) = self.result()?.get("ips").filter(|ips| !ips.is_null()) else { return Ok(Vec::new()) };
        let invalid =
            || CniError::Configuration(format!("ips of prevResult are not a list of addresses: {ips}"));
        let mut addresses = Vec::new();
        for ip in ips.as_array().ok_or_else(invalid)? {
            let text = ip.get("address").and_then(Value::as_str).ok_or_else(invalid)?;
            let address = text.split_once('/').map_or(text, |(address, _)| address);
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The sandboxes that exist, in a call of GC.
    pub(super) fn valid_ids(&self) -> Result<BTreeSet<&str>, CniError> {
        let missing = "there is no cni.dev/valid-attachments, so nothing was removed";
        let valid = self.valid_attachments.as_ref();
        let valid = valid.ok_or_else(|| CniError::Configuration(missing.to_owned()))?;
        Ok(valid.iter().map(|attachment| &*attachment.id).collect())
    }
}

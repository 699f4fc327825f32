//! The messages of `nri.pkg.api.v1alpha1` that a plugin without adjustments exchanges, without the fields that nothing here reads.
//!
//! Protocol Buffers skip what a message doesn't declare, so the subset works with every release that has these fields.

use std::collections::HashMap;

use prost::Message;

/// The service that the runtime offers.
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The service that the plugin offers.
pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// Bits of [`ConfigureResponse::events`]: an event's number is its bit, counted from 1.
pub(crate) const SUBSCRIBED: i32 = bit(1) | bit(2) | bit(3);

const fn bit(event: u8) -> i32 {
    1 << (event - 1)
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub(crate) plugin_name: String,
    /// Two digits: plugins are called in ascending order.
    #[prost(string, tag = "2")]
    pub(crate) plugin_idx: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfigureRequest {
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
    /// Milliseconds.
    #[prost(int64, tag = "5")]
    pub(crate) request_timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfigureResponse {
    #[prost(int32, tag = "2")]
    pub(crate) events: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<PodSandbox>,
    /// Whether more requests follow that belong to this one.
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SynchronizeResponse {
    /// Whether the plugin accepts a list in several requests. Runtimes require it to equal the request's.
    #[prost(bool, tag = "2")]
    pub(crate) more: bool,
}

/// The requests `RunPodSandbox`, `StopPodSandbox` and `RemovePodSandbox`: all have the pod in field 1.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
}

/// The notification that runtimes before containerd 2.3 send in place of the requests of pods.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub(crate) event: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) pod: Option<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) uid: String,
    #[prost(string, tag = "4")]
    pub(crate) namespace: String,
    #[prost(map = "string, string", tag = "5")]
    pub(crate) labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxPodSandbox>,
    #[prost(uint32, tag = "9")]
    pub(crate) pid: u32,
    #[prost(string, repeated, tag = "10")]
    pub(crate) ips: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxPodSandbox {
    #[prost(message, repeated, tag = "5")]
    pub(crate) namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxNamespace {
    #[prost(string, tag = "1")]
    pub(crate) r#type: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

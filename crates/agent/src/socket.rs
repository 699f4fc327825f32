//! The protocol between `palisade node` and a running agent: JSON lines over a local socket.
//!
//! Each [`RequestLine`] is answered by one [`ResponseLine`]. Both contain [`VERSION`]; an agent that doesn't support a
//! request's version responds with an error.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::cni::Attachment;
use crate::flows::{FlowPage, FlowRequest};
use crate::view::{PeerSetView, PodView, PolicyTableView, ProfileView};

/// The version of the protocol. It grows with each change that an older program would misinterpret.
pub const VERSION: u32 = 1;

/// How long a response may take: the agent may be busy with the plan of a large cluster, or with a long transaction.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// One line from the client to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`].
    pub version: u32,
    /// The request.
    #[serde(rename = "ask")]
    pub request: Request,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The agent's status.
    Status,
    /// The local pods.
    Pods,
    /// The profiles.
    Profiles,
    /// The policy tables.
    Tables,
    /// The peer sets.
    Groups,
    /// Recent errors, and findings about objects.
    Errors,
    /// Whether a connection is allowed, according to this node's policies.
    Explain {
        /// The client, as the user wrote it.
        source: String,
        /// The server, as the user wrote it.
        destination: String,
        /// The namespace of names without one.
        namespace: String,
    },
    /// Whether the kernel holds the plan.
    Verify,
    /// The network of a pod is set up, and its containers wait for the response. From the CNI plugin.
    PodAttached(Attachment),
    /// The network of a pod is taken down. The response is [`Response::Done`]. From the CNI plugin.
    PodDetached {
        /// The id of the sandbox.
        id: String,
    },
    /// Whether a pod is held by its sandbox. From the CNI plugin.
    PodIsHeld {
        /// The id of the sandbox.
        id: String,
    },
    /// Records of flows.
    Flows(FlowRequest),
    /// Updates the metrics that are counted at each scrape. The response is [`Response::Done`].
    #[serde(rename = "figures")]
    UpdateMetrics,
}

/// One line from the agent to the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseLine {
    /// [`VERSION`].
    pub version: u32,
    /// The response.
    #[serde(rename = "reply")]
    pub response: Response,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Pods`].
    Pods(Vec<PodView>),
    /// To [`Request::Profiles`].
    Profiles(Vec<ProfileView>),
    /// To [`Request::Tables`].
    Tables(Vec<PolicyTableView>),
    /// To [`Request::Groups`].
    Groups(Vec<PeerSetView>),
    /// To [`Request::Errors`].
    Errors(Errors),
    /// To [`Request::Explain`].
    Explained(Explained),
    /// To [`Request::Verify`].
    Verified(Verified),
    /// To [`Request::PodAttached`].
    PodStarted(PodStarted),
    /// To [`Request::PodIsHeld`].
    PodIsHeld(bool),
    /// To [`Request::Flows`].
    Flows(FlowPage),
    /// To [`Request::UpdateMetrics`] and [`Request::PodDetached`].
    Done,
    /// The request failed.
    Error(String),
}

/// How a pod starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStarted {
    /// Whether it may start.
    pub starts: bool,
    /// Why it may not, or what is particular about the start.
    pub note: Option<String>,
}

/// The status of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The source of pods and policies.
    pub source: String,
    /// The process id.
    pub pid: u32,
    /// How many seconds the agent has been running.
    pub uptime_seconds: u64,
    /// Whether the first snapshot is programmed and the kernel holds the latest plan.
    pub ready: bool,
    /// Why the agent is not ready, if it isn't.
    pub not_ready: Option<String>,
    /// The generation of the table in the kernel.
    pub generation: u64,
    /// The number of known policies, by kind.
    pub policies: Vec<(String, usize)>,
    /// The number of known namespaces.
    pub namespaces: usize,
    /// The number of known nodes.
    pub nodes: usize,
    /// The number of known pods.
    pub pods: usize,
    /// The number of running pods on this node.
    pub local_pods: usize,
    /// The number of local addresses isolated for ingress.
    pub isolated_ingress: usize,
    /// The number of local addresses isolated for egress.
    pub isolated_egress: usize,
    /// The mode of policies for which neither an annotation nor the label of their namespace sets one.
    #[serde(default)]
    pub mode: String,
    /// The number of policies in audit mode.
    #[serde(default)]
    pub audited_policies: usize,
    /// The number of local addresses that policies in audit mode select for ingress.
    #[serde(default)]
    pub audited_ingress: usize,
    /// The number of local addresses that policies in audit mode select for egress.
    #[serde(default)]
    pub audited_egress: usize,
    /// The number of policy tables in the plan.
    pub tables: usize,
    /// The number of peer sets in the plan.
    pub groups: usize,
    /// The number of elements in all sets and maps of the kernel's table.
    pub elements: usize,
    /// Local addresses that are cut off, with the direction.
    pub cut_off: Vec<(String, IpAddr)>,
    /// Local addresses whose policies are not enforced, with the direction: the kernel also refused to cut them off.
    #[serde(default)]
    pub not_enforced: Vec<(String, IpAddr)>,
    /// What holds pods until they are isolated: `nri`, `cni`, both or neither.
    #[serde(default)]
    pub held_by: Vec<String>,
    /// How source addresses of pods are checked: `off`, `enforce`, `strict`, or `unsupported` if the kernel can't.
    #[serde(default)]
    pub source_check: String,
    /// Which flows are recorded: `drops`, `new` or `all`.
    #[serde(default)]
    pub flows: String,
    /// Why connections are not recorded, though they should be.
    #[serde(default)]
    pub flows_problem: Option<String>,
    /// Packets that policies dropped in the last minute, by the kernel's exact counters. `None` if drops are not counted.
    #[serde(default)]
    pub drops_last_minute: Option<u64>,
    /// Connections that passed in the last minute and that policies in audit mode would have denied, by the same counters. `None` if they
    /// are not counted.
    #[serde(default)]
    pub audited_last_minute: Option<u64>,
    /// The number of errors in the last hour, of the latest 100.
    #[serde(default)]
    pub errors_last_hour: usize,
    /// Bridge ports that lead to pods which are not known.
    #[serde(default)]
    pub unbound_ports: Vec<String>,
    /// Bridges that pass packets between pods past all rules.
    #[serde(default)]
    pub bypassing_bridges: Vec<String>,
    /// The state of each watch.
    pub watches: Vec<WatchView>,
    /// The number of objects that can't be used as they are.
    pub unusable_objects: usize,
    /// The review of established connections that is not finished, if there is one.
    #[serde(default)]
    pub unreviewed: Option<ReviewView>,
}

/// Established connections that are not all re-evaluated since a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewView {
    /// How long ago the oldest change was programmed after which they have to be re-evaluated, in milliseconds.
    pub for_milliseconds: u64,
    /// `waiting` for the pause between reviews, `listing` connections, or `judging` them.
    pub state: String,
    /// How many listed connections have still to be judged.
    pub left: Option<usize>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
}

/// The state of one watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchView {
    /// The kind of the watched objects.
    pub kind: String,
    /// `listing`, `watching`, `not-served` or `failing`.
    pub state: String,
    /// Why it fails, if it does.
    pub why: Option<String>,
    /// How many seconds it has been in this state.
    pub for_seconds: u64,
}

/// Recent errors, and findings about objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// The latest errors, oldest first.
    pub events: Vec<ErrorView>,
    /// The current findings about objects.
    pub objects: Vec<ObjectError>,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// Seconds since the epoch.
    pub time: u64,
    /// The part of the agent that failed, as in the label of `palisade_errors_total`.
    pub stage: String,
    /// The error's text.
    pub message: String,
}

/// A finding about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectError {
    /// The object's kind and name.
    pub object: String,
    /// `error` or `warning`.
    pub severity: String,
    /// The path of the field.
    pub path: Option<String>,
    /// The finding's text.
    pub message: String,
}

/// Whether a connection is allowed, with the reasons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Whether it is allowed in both directions.
    pub allowed: bool,
    /// The explanation as text.
    pub text: String,
    /// The explanation in the format of `palisade can -o json`.
    pub json: serde_json::Value,
}

/// The result of comparing the kernel with the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether the kernel holds the latest plan.
    pub equal: bool,
    /// The differences, as text.
    pub differences: Vec<String>,
    /// Whether an older plan was compared, because the kernel rejects the latest one.
    pub behind: bool,
    /// The generation of the table in the kernel.
    pub generation: Option<u32>,
    /// The number of compared chains.
    pub chains: usize,
    /// The number of compared rules.
    pub rules: usize,
    /// The number of compared sets and maps.
    pub sets: usize,
    /// The number of compared elements.
    pub elements: usize,
    /// The number of packets that were evaluated with the rules read back.
    pub flows: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other programs use the protocol too.
    #[test]
    fn the_names_on_the_wire_are_as_documented() {
        let line = |request| serde_json::to_string(&RequestLine { version: VERSION, request }).unwrap();
        assert_eq!(line(Request::Status), r#"{"version":1,"ask":"status"}"#);
        assert_eq!(line(Request::UpdateMetrics), r#"{"version":1,"ask":"figures"}"#);
        let explain = Request::Explain {
            source: "shop/web".to_owned(),
            destination: "shop/db:5432".to_owned(),
            namespace: "default".to_owned(),
        };
        assert_eq!(
            line(explain),
            r#"{"version":1,"ask":{"explain":{"source":"shop/web","destination":"shop/db:5432","namespace":"default"}}}"#
        );
        let response = ResponseLine { version: VERSION, response: Response::Error("no".to_owned()) };
        assert_eq!(serde_json::to_string(&response).unwrap(), r#"{"version":1,"reply":{"error":"no"}}"#);
    }
}

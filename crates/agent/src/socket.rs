//! What `palisade node` and a running agent say to each other: lines of JSON over a local socket.
//!
//! Each line is a [`Request`] and is answered by a line with a [`Response`]. Both carry [`VERSION`]; an agent that doesn't
//! speak a request's version says so.

mod server;

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use server::SocketError;
pub(crate) use server::{Door, serve};

use crate::view::{GroupView, PodView, ProfileView, TableView};

/// The version of the words. It grows when an old program would misunderstand a new one.
pub const VERSION: u32 = 1;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// How the agent fares.
    Status,
    /// The local pods.
    Pods,
    /// The profiles.
    Profiles,
    /// The tables.
    Tables,
    /// The groups.
    Groups,
    /// What went wrong, and what is wrong with objects.
    Errors,
    /// Whether a connection is allowed, as this node sees it.
    Explain {
        /// Who opens it, as written.
        source: String,
        /// Who is called, as written.
        destination: String,
        /// The namespace of names without one.
        namespace: String,
    },
    /// Whether the kernel holds the plan.
    Verify,
    /// The metrics' figures brought up to date. Answered with [`Reply::Done`].
    Figures,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// What.
    pub reply: Reply,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Ask::Status`].
    Status(Box<Status>),
    /// To [`Ask::Pods`].
    Pods(Vec<PodView>),
    /// To [`Ask::Profiles`].
    Profiles(Vec<ProfileView>),
    /// To [`Ask::Tables`].
    Tables(Vec<TableView>),
    /// To [`Ask::Groups`].
    Groups(Vec<GroupView>),
    /// To [`Ask::Errors`].
    Errors(Errors),
    /// To [`Ask::Explain`].
    Explained(Explained),
    /// To [`Ask::Verify`].
    Verified(Verified),
    /// It is done.
    Done,
    /// It can't be answered.
    Error(String),
}

/// How an agent fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node.
    pub node: String,
    /// Its source.
    pub source: String,
    /// Its process.
    pub pid: u32,
    /// For how many seconds it has run.
    pub uptime_seconds: u64,
    /// Whether the first whole snapshot is programmed and the kernel holds the latest plan.
    pub ready: bool,
    /// Why not, if it isn't.
    pub not_ready: Option<String>,
    /// The number of the table's state in the kernel.
    pub generation: u64,
    /// Policies known, by kind.
    pub policies: Vec<(String, usize)>,
    /// Namespaces known.
    pub namespaces: usize,
    /// Nodes known.
    pub nodes: usize,
    /// Pods known.
    pub pods: usize,
    /// Live pods on this node.
    pub local_pods: usize,
    /// Local addresses whose ingress policies decide.
    pub isolated_ingress: usize,
    /// Local addresses whose egress policies decide.
    pub isolated_egress: usize,
    /// Tables of the plan.
    pub tables: usize,
    /// Groups of the plan.
    pub groups: usize,
    /// Elements of the groups.
    pub elements: usize,
    /// Local addresses that are cut off, with the direction.
    pub cut_off: Vec<(String, IpAddr)>,
    /// Local addresses whose policies are not enforced, with the direction: the kernel refused to cut them off as well.
    #[serde(default)]
    pub not_enforced: Vec<(String, IpAddr)>,
    /// How the watches fare: kind, state, and for how many seconds.
    pub watches: Vec<WatchView>,
    /// Objects that can't be used as they are.
    pub unusable_objects: usize,
}

/// How one watch fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchView {
    /// Of what.
    pub kind: String,
    /// `listing`, `watching`, `not-served` or `failing`.
    pub state: String,
    /// Why it fails.
    pub why: Option<String>,
    /// For how many seconds.
    pub for_seconds: u64,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// What happened, oldest first; only the latest are kept.
    pub events: Vec<ErrorView>,
    /// What is wrong with objects now.
    pub objects: Vec<ObjectError>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// Seconds since the epoch.
    pub time: u64,
    /// Where.
    pub stage: String,
    /// What.
    pub message: String,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectError {
    /// Which.
    pub object: String,
    /// `error` or `warning`.
    pub severity: String,
    /// The field.
    pub path: Option<String>,
    /// What.
    pub message: String,
}

/// The answer to whether a connection is allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Whether all of it is allowed.
    pub allowed: bool,
    /// For people.
    pub text: String,
    /// For programs, as `palisade can -o json` has it.
    pub json: serde_json::Value,
}

/// Whether the kernel holds the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether it does.
    pub equal: bool,
    /// What differs, in words; empty if nothing does.
    pub differences: Vec<String>,
    /// Whether the plan compared is an older one, because the kernel refuses the latest.
    pub behind: bool,
    /// The number of the table's state in the kernel.
    pub generation: Option<u32>,
    /// How many chains were compared.
    pub chains: usize,
    /// How many rules.
    pub rules: usize,
    /// How many sets and maps.
    pub sets: usize,
    /// How many elements of them.
    pub elements: usize,
    /// How many packets were taken through the rules as read back.
    pub flows: usize,
}

/// How long an answer may take: a plan of a large cluster, or a long transaction before it.
pub const PATIENCE: Duration = Duration::from_secs(60);

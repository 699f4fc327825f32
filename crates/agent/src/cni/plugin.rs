//! The plugin's commands (CNI specification 1.1).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{
    attachment::{Attachment, check_id},
    configuration::{Configuration, NEWEST, VERSIONS},
    error::CniError,
    exchange::ask,
    records::Records,
};
use crate::{
    config::PodStart,
    socket::{PodStarted, Request, Response},
};

/// How long the end of a pod waits for the agent. Its record is gone by then, so that an agent that starts later doesn't know the pod.
const DETACH_TIMEOUT: Duration = Duration::from_millis(500);
/// What helps against an agent that isn't there.
const AWAY: &str = "The pod does not start, because its policies can't be programmed; the kubelet tries again. Is the agent of this node \
     running? If Palisade was removed, `palisade agent --remove` also removes the plugin from the CNI configuration";

/// The environment variables of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container: Option<String>,
    /// `CNI_NETNS`.
    pub network_namespace: Option<String>,
    /// `CNI_IFNAME`.
    pub interface: Option<String>,
    /// `CNI_ARGS`.
    pub arguments: Option<String>,
}

/// What a call prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// To standard output: a result or an error, empty for commands without a result.
    pub output: String,
    /// To standard error, which runtimes log.
    pub note: Option<String>,
    /// Whether the call succeeded.
    pub succeeded: bool,
}

impl Environment {
    /// Reads the variables of this process.
    #[must_use]
    pub fn read() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            command: get("CNI_COMMAND"),
            container: get("CNI_CONTAINERID"),
            network_namespace: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            arguments: get("CNI_ARGS"),
        }
    }
}

/// Executes a command. `input` is the configuration.
#[must_use]
pub fn run(environment: &Environment, input: &[u8]) -> Reply {
    let version = Configuration::reply_version(input);
    match execute(environment, input, &version) {
        Ok((result, note)) => {
            let output = result.map(|value| format!("{value}\n")).unwrap_or_default();
            Reply { output, note, succeeded: true }
        }
        Err(error) => Reply { output: format!("{}\n", error.reply(&version)), note: None, succeeded: false },
    }
}

/// A command's result, and a note.
type Outcome = Result<(Option<Value>, Option<String>), CniError>;

fn execute(environment: &Environment, input: &[u8], version: &str) -> Outcome {
    let command = required("CNI_COMMAND", &environment.command)?;
    if command == "VERSION" {
        let version = if VERSIONS.contains(&version) { version } else { NEWEST };
        return Ok((Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})), None));
    }
    let call = || {
        let configuration = Configuration::read(input)?;
        configuration.check_version()?;
        Ok(Call { records: Records::beside(&configuration.socket), configuration, environment })
    };
    match &*command {
        "ADD" => call()?.add(),
        "CHECK" => call()?.check(),
        "DEL" => call()?.delete(),
        "GC" => call()?.collect(),
        // The agent is not asked: a node whose network is reported as not ready loses its pods from Services, which an upgrade of the
        // agent must not cause. ADD says when to try again.
        "STATUS" => call().map(|_| (None, None)),
        other => Err(CniError::Environment(format!("CNI_COMMAND {other:?} is not supported"))),
    }
}

/// A call with a configuration.
struct Call<'a> {
    configuration: Configuration,
    environment: &'a Environment,
    records: Records,
}

impl Call<'_> {
    fn add(&self) -> Outcome {
        let result = self.configuration.result()?.clone();
        let Some(attachment) = self.attachment()? else {
            return Ok((Some(result), Some("not a pod of Kubernetes, nothing to isolate".to_owned())));
        };
        if attachment.pod().addresses.is_empty() {
            let note = "the pod has no address yet, it is isolated once the API server reports one";
            return Ok((Some(result), Some(note.to_owned())));
        }
        let path_error = |error| CniError::Io(format!("cannot keep a record of the pod: {error}"));
        self.records.write(&attachment).map_err(path_error)?;
        let id = attachment.id.clone();
        let asked =
            ask(&self.configuration.socket, Request::PodAttached(attachment), self.configuration.timeout());
        let note = match (asked, self.configuration.pod_start) {
            (Ok(Response::PodStarted(PodStarted { starts: true, note })), _) => note,
            (Ok(Response::PodStarted(PodStarted { starts: false, note })), _) => {
                return Err(self.give_up(&id, note.unwrap_or_default()));
            }
            (Ok(other), PodStart::Closed) => {
                return Err(self.give_up(&id, format!("the agent is of another version: {other:?}")));
            }
            (Err(error), PodStart::Closed) => return Err(self.give_up(&id, format!("{error}. {AWAY}"))),
            (Ok(other), PodStart::Open) => Some(format!("the pod starts before it is isolated: {other:?}")),
            (Err(error), PodStart::Open) => Some(format!("the pod starts before it is isolated: {error}")),
        };
        if !self.records.has(&id) {
            // A DEL at the same time, which the agent may have received first.
            self.detach(&id);
            return Err(CniError::Gone(format!("container {id} was deleted while it was added")));
        }
        Ok((Some(result), note))
    }

    /// Forgets the pod, which doesn't start.
    fn give_up(&self, id: &str, why: String) -> CniError {
        _ = self.records.remove(id);
        CniError::TryAgain(why)
    }

    fn check(&self) -> Outcome {
        self.configuration.result()?;
        let Some(attachment) = self.attachment()? else { return Ok((None, None)) };
        if attachment.pod().addresses.is_empty() {
            return Ok((None, None));
        }
        let request = Request::PodIsHeld { id: attachment.id.clone() };
        match (
            ask(&self.configuration.socket, request, self.configuration.timeout()),
            self.configuration.pod_start,
        ) {
            (Ok(Response::PodIsHeld(true)), _) | (Err(_), PodStart::Open) => Ok((None, None)),
            (Ok(_), _) => Err(CniError::Gone(format!("the agent doesn't know container {}", attachment.id))),
            (Err(error), PodStart::Closed) => Err(CniError::TryAgain(error)),
        }
    }

    fn delete(&self) -> Outcome {
        let id = self.id()?;
        self.records
            .remove(&id)
            .map_err(|e| CniError::Io(format!("cannot remove the record of the pod: {e}")))?;
        Ok((None, self.detach(&id)))
    }

    fn collect(&self) -> Outcome {
        let valid = self.configuration.valid_ids()?;
        let (records, mut notes) = self.records.read();
        let stale = records
            .iter()
            .filter(|record| record.network == self.configuration.name && !valid.contains(&*record.id));
        for record in stale {
            match self.records.remove(&record.id) {
                Ok(()) => notes.extend(self.detach(&record.id)),
                Err(error) => notes.push(format!("{}: {error}", record.id)),
            }
        }
        notes.truncate(10);
        Ok((None, Some(notes.join("; ")).filter(|notes| !notes.is_empty())))
    }

    /// Tells the agent that a pod is gone. An agent that isn't there doesn't know it.
    fn detach(&self, id: &str) -> Option<String> {
        let request = Request::PodDetached { id: id.to_owned() };
        ask(&self.configuration.socket, request, DETACH_TIMEOUT).err()
    }

    fn id(&self) -> Result<String, CniError> {
        let id = required("CNI_CONTAINERID", &self.environment.container)?;
        check_id(&id).map_err(|error| CniError::Environment(format!("CNI_CONTAINERID: {error}")))?;
        Ok(id)
    }

    /// The pod of the call. `None` if the sandbox isn't one of Kubernetes.
    fn attachment(&self) -> Result<Option<Attachment>, CniError> {
        let id = self.id()?;
        required("CNI_IFNAME", &self.environment.interface)?;
        let network_namespace = PathBuf::from(required("CNI_NETNS", &self.environment.network_namespace)?);
        let mut arguments = arguments(self.environment.arguments.as_deref().unwrap_or_default())?;
        let (namespace, name) = (arguments.remove("K8S_POD_NAMESPACE"), arguments.remove("K8S_POD_NAME"));
        if namespace.is_none() && name.is_none() {
            return Ok(None);
        }
        let attachment = Attachment {
            id,
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.unwrap_or_default().to_owned(),
            uid: arguments.remove("K8S_POD_UID").unwrap_or_default().to_owned(),
            addresses: self.configuration.addresses()?,
            network: self.configuration.name.clone(),
            network_namespace,
        };
        attachment.check().map_err(|error| CniError::Environment(format!("CNI_ARGS: {error}")))?;
        Ok(Some(attachment))
    }
}

fn required(name: &str, value: &Option<String>) -> Result<String, CniError> {
    value.clone().ok_or_else(|| {
        CniError::Environment(format!(
            "{name} is not set: this is a CNI plugin, which container runtimes call"
        ))
    })
}

/// Splits `CNI_ARGS`: `KEY=VALUE;…`.
fn arguments(text: &str) -> Result<BTreeMap<&str, &str>, CniError> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('='))
        .collect::<Option<_>>()
        .ok_or_else(|| CniError::Environment(format!("CNI_ARGS {text:?} is not a list of KEY=VALUE")))
}

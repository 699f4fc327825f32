//! An ephemeral container, and what a pod's status says of it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{EphemeralCommand, EphemeralError, MOST_EARLIER};
use crate::error::first_line;

/// The beginning of the names of our containers.
const PREFIX: &str = "palisade-probe-";
/// The user of the container. It has no name in any image.
const USER: i64 = 65_532;

/// What can't pass by itself, so that waiting is of no use.
const HOPELESS: [&str; 7] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// Returns a new name. A container's name can't be used again in the same pod.
pub(super) fn name() -> String {
    format!("{PREFIX}{:08x}", fastrand::u32(..))
}

/// Returns the patch that adds the container to the pod with this UID. What it is allowed is less than the Pod Security
/// Standard `restricted` permits.
pub(super) fn patch(uid: &str, name: &str, command: &EphemeralCommand) -> Value {
    json!({
        "metadata": {"uid": uid},
        "spec": {"ephemeralContainers": [{
            "name": name,
            "image": command.image,
            "imagePullPolicy": "IfNotPresent",
            "command": command.words,
            "terminationMessagePolicy": "File",
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }]},
    })
}

/// What is read of a pod.
#[derive(Deserialize)]
pub(super) struct PodState {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    ephemeral_containers: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i64,
    message: Option<String>,
    reason: Option<String>,
}

/// How far a container is.
pub(super) enum Progress {
    Waits,
    Ended(Result<String, EphemeralError>),
}

impl PodState {
    /// Returns the UID of a pod that runs and has room for a container.
    pub(super) fn ready_for_another(&self) -> Result<&str, EphemeralError> {
        if self.metadata.deletion_timestamp.is_some() {
            return Err(EphemeralError::NotRunning("being deleted".to_owned()));
        }
        if self.status.phase != "Running" {
            let phase = if self.status.phase.is_empty() {
                "not started".to_owned()
            } else {
                first_line(&self.status.phase)
            };
            return Err(EphemeralError::NotRunning(phase));
        }
        let earlier = self.spec.ephemeral_containers.iter().flatten();
        let earlier = earlier.filter(|container| container.name.starts_with(PREFIX)).count();
        if earlier >= MOST_EARLIER {
            return Err(EphemeralError::TooManyEarlier(earlier));
        }
        Ok(&self.metadata.uid)
    }

    /// Returns how far the container of this name is, if this is still the pod with the UID.
    pub(super) fn progress(&self, uid: &str, name: &str) -> Progress {
        if self.metadata.uid != uid {
            return Progress::Ended(Err(EphemeralError::NotRunning(
                "another one of the same name".to_owned(),
            )));
        }
        let of_pod = self.status.ephemeral_container_statuses.iter().flatten().find(|of| of.name == name);
        if let Some(ended) = of_pod.and_then(|status| status.state.terminated.as_ref()) {
            return Progress::Ended(ended.result());
        }
        if self.metadata.deletion_timestamp.is_some() || self.status.phase != "Running" {
            return Progress::Ended(Err(EphemeralError::NotRunning("ending".to_owned())));
        }
        let hopeless = of_pod.and_then(|status| status.state.waiting.as_ref()).and_then(|waiting| {
            let reason = waiting.reason.as_deref().filter(|reason| HOPELESS.contains(reason))?;
            let message = waiting.message.as_deref().map(|message| format!(": {}", first_line(message)));
            Some(format!("{reason}{}", message.unwrap_or_default()))
        });
        match hopeless {
            Some(why) => Progress::Ended(Err(EphemeralError::NotStarted(why))),
            None => Progress::Waits,
        }
    }
}

impl Terminated {
    fn result(&self) -> Result<String, EphemeralError> {
        let message = self.message.clone().filter(|message| !message.is_empty());
        match (self.exit_code, message) {
            (0, Some(message)) => Ok(message),
            // The kubelet reports a program that is not in the image as an exit.
            (code, message) => {
                let why = message.or_else(|| self.reason.clone()).map(|why| first_line(&why));
                Err(EphemeralError::Failed { code, why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the callers write it in place")]
    fn pod(earlier: usize, status: Value) -> PodState {
        let containers: Vec<Value> =
            (0..earlier).map(|n| json!({"name": format!("{PREFIX}{n}"), "image": "x"})).collect();
        let pod = json!({
            "metadata": {"uid": "u"}, "spec": {"ephemeralContainers": containers}, "status": status,
        });
        serde_json::from_value(pod).unwrap()
    }

    fn text(progress: Progress) -> String {
        match progress {
            Progress::Waits => "waits".to_owned(),
            Progress::Ended(Ok(message)) => format!("ok {message}"),
            Progress::Ended(Err(error)) => error.to_string(),
        }
    }

    #[test]
    fn only_a_running_pod_with_few_earlier_containers_gets_another() {
        let ready = |earlier, phase: &str| pod(earlier, json!({"phase": phase}));
        assert_eq!(ready(MOST_EARLIER - 1, "Running").ready_for_another().unwrap(), "u");
        let full = ready(MOST_EARLIER, "Running");
        assert!(matches!(full.ready_for_another(), Err(EphemeralError::TooManyEarlier(MOST_EARLIER))));
        assert!(matches!(ready(0, "Pending").ready_for_another(), Err(EphemeralError::NotRunning(_))));
    }

    #[test]
    fn the_end_of_a_container_is_its_message_or_why_there_is_none() {
        let of = |state: Value| {
            let statuses = json!([{"name": "other", "state": {"terminated": {"exitCode": 0, "message": "no"}}}, {"name": "c", "state": state}]);
            let pod = pod(0, json!({"phase": "Running", "ephemeralContainerStatuses": statuses}));
            text(pod.progress("u", "c"))
        };
        assert_eq!(of(json!({"running": {}})), "waits");
        assert_eq!(of(json!({"waiting": {"reason": "PodInitializing"}})), "waits");
        assert_eq!(of(json!({"terminated": {"exitCode": 0, "message": "done"}})), "ok done");
        assert_eq!(of(json!({"terminated": {"exitCode": 2}})), "the command failed with exit code 2");
        let no_program = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: \u{1b}[31m\"x\": no such file\nmore"}});
        assert_eq!(of(no_program), "the command failed with exit code 128: exec: [31m\"x\": no such file");
        let no_image = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        assert_eq!(of(no_image), "the container could not be started: ErrImagePull: not found");
        assert_eq!(
            text(pod(0, json!({"phase": "Running"})).progress("v", "c")),
            "the pod is another one of the same name"
        );
        assert_eq!(text(pod(0, json!({"phase": "Succeeded"})).progress("u", "c")), "the pod is ending");
    }
}

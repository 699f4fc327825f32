//! The agents that `flows` and `status` query: that of this machine over its socket, or those of a cluster through the API server.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use palisade_api::{
    Access, AccessError, ApiError,
    pod_command::{CommandWords, ExecPod, PodCommand, PodCommandError, PodCommands, PodSelector},
};

#[cfg(all(target_os = "linux", feature = "agent"))]
use crate::agent_socket::SocketArguments;
use crate::{
    cluster::{self, HEADING},
    connection_ends, escape,
    inputs::plural,
    output,
};

/// The options that select agents.
#[derive(Clone, Debug, Args)]
pub(crate) struct AgentsArguments {
    /// Only the agents of these nodes
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    node: Vec<String>,
    /// The namespace of the agents [default: palisade-system]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    namespace_of_agents: Option<String>,
    /// The kubeconfig context to use [default: the current one]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    context: Option<String>,
    /// The kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,
    /// Timeout of a single request to the API server
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = cluster::time, help_heading = HEADING)]
    request_timeout: Duration,
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(flatten)]
    socket: SocketArguments,
}

/// Where the agents are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach<'a> {
    /// On this machine, behind this socket.
    #[cfg(all(target_os = "linux", feature = "agent"))]
    Socket(&'a std::path::Path),
    /// In a cluster.
    Cluster(&'a AgentsArguments),
}

impl AgentsArguments {
    /// Where to query agents.
    ///
    /// # Errors
    /// If the options name both this machine's agent and a cluster's.
    pub(crate) fn reach(&self) -> Result<Reach<'_>> {
        #[cfg(all(target_os = "linux", feature = "agent"))]
        {
            let names_cluster = !self.node.is_empty()
                || self.namespace_of_agents.is_some()
                || self.context.is_some()
                || self.kubeconfig.is_some();
            if names_cluster && self.socket.is_named() {
                bail!(
                    "--socket (or PALISADE_SOCKET) is the agent of this machine, and --node, --namespace-of-agents, --context and \
                     --kubeconfig are for those of a cluster: use one of them"
                );
            }
            if !names_cluster && (self.socket.is_named() || self.socket.path().exists()) {
                return Ok(Reach::Socket(self.socket.path()));
            }
        }
        Ok(Reach::Cluster(self))
    }

    /// All agents of a cluster.
    #[cfg(feature = "ui")]
    pub(crate) fn of_cluster(cluster: &cluster::ClusterArguments, namespace: Option<String>) -> Self {
        Self {
            node: Vec::new(),
            namespace_of_agents: namespace,
            context: cluster.context.clone(),
            kubeconfig: cluster.kubeconfig.clone(),
            request_timeout: cluster.request_timeout,
            #[cfg(all(target_os = "linux", feature = "agent"))]
            socket: SocketArguments::default(),
        }
    }

    fn namespace(&self) -> &str {
        self.namespace_of_agents.as_deref().unwrap_or("palisade-system")
    }

    /// Begins to run `palisade` with these arguments in the pods of all agents.
    ///
    /// # Errors
    /// If no cluster is configured.
    pub(crate) fn run(
        &self,
        words: CommandWords,
        follow: bool,
        idle_timeout: Duration,
    ) -> Result<PodCommands> {
        let access = Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            timeout: Some(self.request_timeout),
        };
        let command = PodCommand {
            namespace: self.namespace().to_owned(),
            selector: PodSelector {
                pods: "app.kubernetes.io/name=palisade,app.kubernetes.io/component=agent".to_owned(),
                daemon_sets: "app.kubernetes.io/name=palisade".to_owned(),
            },
            container: "agent".to_owned(),
            nodes: self.node.clone(),
            words,
            follow,
            timeout: self.request_timeout,
            idle_timeout,
        };
        PodCommands::start(&access, command).map_err(|error| match error {
            PodCommandError::Access(AccessError::NoCluster { .. }) => {
                anyhow!("no agent runs on this machine, and there is {error}")
            }
            error => error.into(),
        })
    }

    /// Checks which agents of all nodes were found. Returns what is missing, if anything is.
    ///
    /// # Errors
    /// If there are none.
    #[cfg(feature = "ui")]
    pub(crate) fn missing(
        &self,
        server: &str,
        pods: &[Arc<ExecPod>],
        desired: &Result<usize, ApiError>,
    ) -> Result<Option<String>> {
        if pods.is_empty() {
            bail!(self.none(server));
        }
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| &*pod.node).collect();
        Ok(missing(nodes.len(), desired))
    }

    fn none(&self, server: &str) -> String {
        format!(
            "no agents in namespace {} of {server}: is Palisade installed there? --namespace-of-agents names another namespace",
            self.namespace()
        )
    }

    /// Checks which agents were found, and says what is missing. Returns whether nothing is.
    ///
    /// # Errors
    /// If there are none, or none of a requested node.
    pub(crate) fn check(
        &self,
        server: &str,
        pods: &[Arc<ExecPod>],
        desired: &Result<usize, ApiError>,
    ) -> Result<bool> {
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| &*pod.node).collect();
        let unknown: Vec<&String> = self.node.iter().filter(|node| !nodes.contains(node.as_str())).collect();
        if !unknown.is_empty() {
            let unknown = connection_ends::abbreviated(&unknown, ToString::to_string);
            bail!("no agent on {unknown} in namespace {} of {server}", self.namespace());
        }
        if pods.is_empty() {
            bail!(self.none(server));
        }
        if !self.node.is_empty() {
            return Ok(true);
        }
        let missing = missing(nodes.len(), desired);
        missing.iter().for_each(|text| output::note(&format!("{text}\n")));
        Ok(missing.is_none())
    }
}

/// Says on how many nodes there is no agent, if any should have one.
fn missing(nodes: usize, desired: &Result<usize, ApiError>) -> Option<String> {
    match desired {
        Ok(desired) if *desired > nodes => {
            let missing = desired - nodes;
            let have = if *desired == 1 { "node has" } else { "nodes have" };
            Some(format!("{missing} of {desired} {have} no agent yet"))
        }
        Ok(_) => None,
        Err(error) => Some(format!(
            "can't tell whether every node has an agent, because the DaemonSet can't be read: {}",
            error.with_advice()
        )),
    }
}

/// The words of `palisade` in an agent's container.
pub(crate) fn palisade(words: &[&str]) -> Vec<String> {
    [&["/usr/local/bin/palisade"], words].concat().into_iter().map(str::to_owned).collect()
}

/// Says that an agent could not be queried.
pub(crate) fn note_failure(pod: &ExecPod, why: &str) {
    output::note(&format!(
        "node {} ({}): {}\n",
        escape::plain(&pod.node),
        escape::plain(&pod.name),
        escape::plain(why)
    ));
}

/// Why a command that ended with an exit code gave no answer.
pub(crate) fn failure(code: i32, stderr: &str) -> String {
    // clap's message about an option that an older version does not have.
    let is_old = ["unrecognized subcommand", "unexpected argument", "invalid value"]
        .iter()
        .any(|text| stderr.contains(text));
    let line = stderr.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let old = if is_old { "its agent is of a version that can't answer this: " } else { "" };
    format!("{old}{line} (exit code {code})")
}

/// `3 agents`.
pub(crate) fn count(agents: usize) -> String {
    format!("{agents} {}", plural(agents, "agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_agent_is_told_from_one_that_failed() {
        let old =
            failure(2, "error: invalid value 'pages' for '--output <FORMAT>'\n  [possible values: text]\n");
        assert!(
            old.starts_with("its agent is of a version that can't answer this: invalid value 'pages'"),
            "{old}"
        );
        assert_eq!(failure(2, "\nerror: flows are not recorded\n"), "flows are not recorded (exit code 2)");
        assert_eq!(failure(137, ""), "no message (exit code 137)");
    }
}

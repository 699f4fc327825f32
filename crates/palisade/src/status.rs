//! `palisade status`: the agents of a cluster at a glance.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_api::pod_command::{CommandStatus, ExecError, ExecPod, NextPodEvent, PodEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    agents::{self, AgentsArguments, Reach},
    columns::columns,
    escape,
    exit::Outcome,
    output::{self, Format, Style, styled},
};

pub(crate) const HELP: &str = "\
On a machine with an agent, that agent is queried over its socket, which accepts root and the agent's own user only. Elsewhere, and with --node, --namespace-of-agents, --context or --kubeconfig, all agents of a cluster are queried: `palisade node status` runs in their pods through the API server, as with `kubectl exec`. This requires what the Role palisade-flow-reader grants.

ERRORS are those of the last hour, DROPS the packets that policies dropped in the last minute, and AUDITED the connections of the last minute that policies in audit mode would have denied. PODS WAIT is what delays the start of pods until they are isolated.

Examples:
  palisade status
  palisade status --node worker-1
  palisade status --context staging -o json | jq -r '.agents[] | select(.ready != true) | .node'

Exit codes: 0 ready, 1 an agent is not ready or fails to enforce, 2 error, or one not queried.";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    #[command(flatten)]
    agents: AgentsArguments,
}

/// How long an agent's answer may take.
const IDLE: Duration = Duration::from_secs(75);
/// The most bytes of an agent's answer.
const MAX_ANSWER: usize = 4 << 20;

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    schema: &'static str,
    /// Whether every node that should have an agent has one, and all of them have answered.
    complete: bool,
    agents: Vec<Agent>,
}

/// One agent.
#[derive(Debug, Serialize)]
struct Agent {
    node: String,
    /// The pod. `None` for the agent of this machine.
    pod: Option<String>,
    /// `None` if it could not be queried.
    ready: Option<bool>,
    /// Why it could not be queried.
    error: Option<String>,
    /// What it says, as `palisade node status -o json`.
    status: Option<Value>,
    #[serde(skip)]
    summary: Summary,
}

/// What the table shows of an agent's status. Agents of other versions may have other fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    version: String,
    ready: bool,
    not_ready: Option<String>,
    generation: u64,
    policies: Vec<(String, usize)>,
    errors_last_hour: Option<usize>,
    drops_last_minute: Option<u64>,
    audited_last_minute: Option<u64>,
    unusable_objects: usize,
    held_by: Vec<String>,
    source_check: Option<String>,
    cut_off: Vec<Value>,
    not_enforced: Vec<Value>,
    flows_problem: Option<String>,
}

/// Prints the status of the agents.
///
/// # Errors
/// If no agent can be queried.
pub(crate) fn run(arguments: &StatusArguments) -> Result<Outcome> {
    let answer = match arguments.agents.reach()? {
        #[cfg(all(target_os = "linux", feature = "agent"))]
        Reach::Socket(socket) => of_this_machine(socket)?,
        Reach::Cluster(cluster) => of_cluster(cluster)?,
    };
    let text = match arguments.output.encoding() {
        None => table(&answer),
        Some(encoding) => encoding.encode(&answer)?,
    };
    output::print(&text).context("can't write the status")?;
    Ok(outcome(&answer))
}

fn outcome(answer: &Answer) -> Outcome {
    if !answer.complete {
        return Outcome::Incomplete;
    }
    let is_good = |agent: &Agent| agent.ready == Some(true) && agent.summary.not_enforced.is_empty();
    Outcome::of(answer.agents.iter().all(is_good))
}

#[cfg(all(target_os = "linux", feature = "agent"))]
fn of_this_machine(socket: &std::path::Path) -> Result<Answer> {
    use palisade_agent::socket::{Request, Response};

    let status = match crate::agent_socket::ask(socket, Request::Status)? {
        Response::Status(status) => serde_json::to_value(status)?,
        Response::Error(error) => bail!("{error}"),
        _ => bail!("the agent gave another answer than asked for"),
    };
    let node = status["node"].as_str().unwrap_or_default().to_owned();
    let agent = Agent::with(node, None, status)?;
    Ok(Answer { schema: SCHEMA, complete: true, agents: vec![agent] })
}

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.status/v1";

fn of_cluster(cluster: &AgentsArguments) -> Result<Answer> {
    let words = Arc::new(|_| agents::palisade(&["node", "status", "--output=json"]));
    let mut commands = cluster.run(words, false, IDLE)?;
    let mut complete = true;
    let mut outputs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut agents = Vec::new();
    loop {
        let event = match commands.next(None) {
            NextPodEvent::Event(event) => event,
            NextPodEvent::Elapsed => continue,
            NextPodEvent::End => break,
        };
        match event {
            PodEvent::Found { pods, desired } => {
                complete = cluster.check(commands.server(), &pods, &desired)?;
            }
            PodEvent::NotFound(error) => {
                bail!("can't list the agents of {}: {}", commands.server(), error.with_advice())
            }
            PodEvent::Line(pod, line) => {
                let output = outputs.entry(pod.uid.clone()).or_default();
                if output.len() + line.len() <= MAX_ANSWER {
                    output.extend(line);
                    output.push(b'\n');
                }
            }
            PodEvent::Ended(pod, ended) => {
                let output = outputs.remove(&pod.uid).unwrap_or_default();
                agents.push(Agent::of(&pod, &output, ended));
            }
            PodEvent::Appeared(_) | PodEvent::Gone(_) => {}
        }
    }
    agents.sort_by(|a, b| (&a.node, &a.pod).cmp(&(&b.node, &b.pod)));
    complete &= agents.iter().all(|agent| agent.error.is_none());
    if agents.is_empty() {
        bail!("no agent could be queried");
    }
    Ok(Answer { schema: SCHEMA, complete, agents })
}

impl Agent {
    /// An agent that has answered.
    fn with(node: String, pod: Option<String>, status: Value) -> Result<Self> {
        let summary = Summary::deserialize(&status).context("it is not the status of an agent")?;
        Ok(Self { node, pod, ready: Some(summary.ready), error: None, status: Some(status), summary })
    }

    /// What an agent's pod printed. The exit code is 1 if the agent is not ready.
    fn of(pod: &ExecPod, output: &[u8], ended: Result<CommandStatus, ExecError>) -> Self {
        let (node, name) = (pod.node.clone(), Some(pod.name.clone()));
        let error = match ended {
            Ok(CommandStatus { code: 0 | 1, .. }) => {
                let status = serde_json::from_slice(output).map_err(anyhow::Error::from);
                let status = status
                    .map(|mut answer: Value| answer.get_mut("status").map(Value::take).unwrap_or_default());
                match status.and_then(|status| Self::with(node.clone(), name.clone(), status)) {
                    Ok(agent) => return agent,
                    Err(error) => format!("it printed no status: {error:#}"),
                }
            }
            Ok(CommandStatus { code, stderr }) => agents::failure(code, &stderr),
            Err(error) => error.to_string(),
        };
        Self { node, pod: name, ready: None, error: Some(error), status: None, summary: Summary::default() }
    }
}

fn table(answer: &Answer) -> String {
    let heading = [
        "NODE",
        "READY",
        "GENERATION",
        "POLICIES",
        "ERRORS",
        "DROPS",
        "AUDITED",
        "VERSION",
        "PODS WAIT",
        "SOURCE CHECK",
    ];
    let rows: Vec<Vec<String>> = answer.agents.iter().map(row).collect();
    let mut out = columns(&heading, &rows);
    let notes: Vec<String> = answer.agents.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        out += "\n";
        out.extend(notes);
    }
    out
}

fn row(agent: &Agent) -> Vec<String> {
    let Summary { version, generation, policies, errors_last_hour, drops_last_minute, .. } = &agent.summary;
    let node = escape::plain(&agent.node).into_owned();
    let Some(ready) = agent.ready else {
        let unknown = std::iter::repeat_n("-".to_owned(), 8);
        return [node, "unknown".to_owned()].into_iter().chain(unknown).collect();
    };
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let held_by = match &agent.summary.held_by[..] {
        [] => "no".to_owned(),
        holders => escape::plain(&holders.join(", ")).to_uppercase(),
    };
    vec![
        node,
        if ready { "yes" } else { "no" }.to_owned(),
        generation.to_string(),
        policies.iter().map(|(_, count)| count).sum::<usize>().to_string(),
        number(errors_last_hour.map(|n| n as u64)),
        number(*drops_last_minute),
        number(agent.summary.audited_last_minute),
        escape::plain(version).into_owned(),
        held_by,
        escape::plain(agent.summary.source_check.as_deref().unwrap_or("-")).into_owned(),
    ]
}

/// What the table has no column for.
fn notes(agent: &Agent) -> Vec<String> {
    let Summary { not_ready, cut_off, not_enforced, unusable_objects, flows_problem, .. } = &agent.summary;
    let mut out = Vec::new();
    let mut note = |text: &str| out.push(format!("{}: {text}\n", escape::plain(&agent.node)));
    if let Some(error) = &agent.error {
        note(&format!("{} {}", styled(Style::Bad, "could not be queried:"), escape::plain(error)));
    }
    if let Some(why) = not_ready {
        note(&format!("{} {}", styled(Style::Bad, "not ready:"), escape::plain(why)));
    }
    if let Some(why) = flows_problem {
        note(&format!("{} {}", styled(Style::Bad, "connections are not recorded:"), escape::plain(why)));
    }
    if !not_enforced.is_empty() {
        let heading = styled(Style::Bad, "NOT ENFORCED:");
        note(&format!("{heading} the policies of {} pod addresses", not_enforced.len()));
    }
    if !cut_off.is_empty() {
        let heading = styled(Style::Bad, "cut off:");
        note(&format!("{heading} {} pod addresses, whose policies could not be programmed", cut_off.len()));
    }
    if *unusable_objects > 0 {
        note(&format!(
            "{unusable_objects} objects can't be used as they are: see `palisade node errors` there"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str) -> ExecPod {
        ExecPod {
            uid: node.to_owned(),
            name: format!("palisade-agent-{node}"),
            node: node.to_owned(),
            not_running: None,
        }
    }

    fn agent(node: &str, status: &Value) -> Agent {
        let output = serde_json::json!({"schema": "palisade.node.status/v1", "status": status}).to_string();
        Agent::of(&pod(node), output.as_bytes(), Ok(CommandStatus { code: 0, stderr: String::new() }))
    }

    fn answer(agents: Vec<Agent>) -> Answer {
        Answer { schema: SCHEMA, complete: agents.iter().all(|a| a.error.is_none()), agents }
    }

    fn ready() -> Value {
        serde_json::json!({"version": "0.1.0", "ready": true, "generation": 7, "policies": [["NetworkPolicy", 2], ["X", 1]],
            "errors_last_hour": 4, "drops_last_minute": 60, "audited_last_minute": 7, "held_by": ["nri"], "source_check": "strict"})
    }

    #[test]
    fn agents_are_a_table_and_what_is_wrong_follows_it() {
        let lost = Agent::of(&pod("n3"), b"", Err(ExecError::ConnectionLost));
        let waits = serde_json::json!({"version": "0.1.0\u{1b}[2J", "not_ready": "no snapshot\nyet", "not_enforced": [["ingress", "10.0.0.1"]]});
        let answer = answer(vec![agent("n1", &ready()), agent("n2", &waits), lost]);
        let text = anstream::adapter::strip_str(&table(&answer)).to_string();
        let expected = [
            "NODE  READY    GENERATION  POLICIES  ERRORS  DROPS  AUDITED  VERSION         PODS WAIT  SOURCE CHECK",
            "n1    yes      7           3         4       60     7        0.1.0           NRI        strict",
            "n2    no       0           0         -       -      -        0.1.0\\u{1b}[2J  no         -",
            "n3    unknown  -           -         -       -      -        -               -          -",
            "",
            "n2: not ready: no snapshot\\u{a}yet",
            "n2: NOT ENFORCED: the policies of 1 pod addresses",
            "n3: could not be queried: the connection was lost",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_exit_code_tells_ready_from_not_ready_and_from_unknown() {
        assert_eq!(outcome(&answer(vec![agent("n1", &ready())])), Outcome::Yes);
        let mut status = ready();
        status["not_enforced"] = serde_json::json!([["egress", "10.0.0.1"]]);
        assert_eq!(outcome(&answer(vec![agent("n1", &ready()), agent("n2", &status)])), Outcome::No);
        status = serde_json::json!({"ready": false});
        assert_eq!(outcome(&answer(vec![agent("n1", &status)])), Outcome::No);
        for output in ["", "[]", r#"{"status": {"generation": "x"}}"#] {
            let ended = Ok(CommandStatus { code: 0, stderr: String::new() });
            let odd = Agent::of(&pod("n1"), output.as_bytes(), ended);
            assert!(odd.error.as_ref().is_some_and(|e| e.contains("no status")), "{output}: {odd:?}");
            assert_eq!(outcome(&answer(vec![odd])), Outcome::Incomplete);
        }
    }
}

//! `--probe`: the connections of assertions, tried from pods of the cluster.
//!
//! ```text
//!  results of the engine ─► plan: a pod of each class, its connections ─► one ephemeral container per pod (palisade-api)
//!                                                                                         │ how each connection ended
//!  results ◄─ judge: what packets said, what the assertion says, what the engine says ◄────┘
//! ```
//!
//! The container runs in a pod that exists, and so shares its network: its address, its labels, and the rules that its node
//! has for it. A pod of our own with the same labels would be found by Services, adopted by controllers and counted by
//! budgets, and would still be another pod.

mod judge;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use palisade_api::{
    Access,
    ephemeral::{EphemeralClient, EphemeralCommand},
};
use palisade_policy::ObjectKey;

use self::plan::{ProbePlan, Sender};
use super::{check::TestResult, counted, probe_arguments::ProbeArguments};
use crate::{
    cluster::ClusterArguments,
    connection_ends,
    dial::{self, Dialed},
    escape,
    inputs::LoadedInputs,
    output,
};

/// The namespace of Palisade's agents.
const AGENTS_NAMESPACE: &str = "palisade-system";
/// The labels of their DaemonSet.
const AGENTS_SELECTOR: &str = "app.kubernetes.io/name=palisade";

/// What came of the connections of one pod, or why nothing did.
type Outcomes = BTreeMap<ObjectKey, Result<Vec<Dialed>, String>>;

/// Tries the connections of assertions, and adds to their results what packets said.
///
/// # Errors
/// If a right is missing, there is no image, or the API server can't be reached. Nothing was started then.
pub(super) fn probe(
    arguments: &ProbeArguments,
    cluster: &ClusterArguments,
    world: &LoadedInputs,
    results: &mut [TestResult],
) -> Result<()> {
    let plan = ProbePlan::of(&world.loaded.cluster, results, &arguments.probe_namespace);
    let outcomes = if plan.senders.is_empty() { Outcomes::new() } else { tried(arguments, cluster, &plan)? };
    for (result, asked) in results.iter_mut().zip(&plan.asked) {
        judge::judge(result, asked, &plan, &outcomes, &world.loaded.cluster, cluster.allow_incomplete);
    }
    Ok(())
}

/// Starts the containers and returns how their connections ended.
fn tried(arguments: &ProbeArguments, cluster: &ClusterArguments, plan: &ProbePlan) -> Result<Outcomes> {
    let access = Access {
        kubeconfig: cluster.kubeconfig.clone(),
        context: cluster.context.clone(),
        timeout: Some(cluster.request_timeout),
    };
    let client = EphemeralClient::open(&access)?;
    let namespaces: BTreeSet<String> =
        plan.senders.iter().map(|sender| sender.pod.namespace.to_string()).collect();
    let missing = client.missing_rights(&namespaces).map_err(|error| {
        anyhow!("can't ask {} which rights you have: {}", client.server(), error.with_advice())
    })?;
    if missing.len() == namespaces.len() {
        bail!("--probe requires rights that you don't have, so nothing was started: {}", listed(&missing));
    }
    if !missing.is_empty() {
        output::note(&format!("not from all pods, because you lack rights: {}\n", listed(&missing)));
    }
    let image = match &arguments.probe_image {
        Some(image) => image.clone(),
        None => image_of_agents(&client)?,
    };
    let (started, left_out): (Vec<&Sender>, Vec<&Sender>) =
        plan.senders.iter().partition(|sender| !missing.contains_key(&*sender.pod.namespace));
    let mut outcomes = Outcomes::new();
    for sender in left_out {
        let rights = missing[&*sender.pod.namespace].join(" and ");
        outcomes.insert(sender.pod.clone(), Err(format!("you may not {rights} there")));
    }
    let names: Vec<String> =
        started.iter().map(|sender| escape::plain(&sender.pod.to_string()).into_owned()).collect();
    output::note(&format!(
        "trying {} from {} ({}), by a container of {} in each …\n",
        counted(started.iter().map(|sender| sender.flows.len()).sum(), "connection"),
        counted(names.len(), "pod"),
        connection_ends::abbreviated(&names, Clone::clone),
        escape::plain(&image),
    ));
    let commands: Vec<EphemeralCommand> = started.iter().map(|sender| command(sender, &image)).collect();
    for (sender, ended) in started.iter().zip(client.run(&commands, arguments.probe_timeout)) {
        let read = ended.map_err(anyhow::Error::from).and_then(|m| dial::parse(&m, sender.flows.len()));
        outcomes.insert(sender.pod.clone(), read.map_err(|error| format!("{error:#}")));
    }
    Ok(outcomes)
}

/// Names rights: `get pods and patch pods/ephemeralcontainers in shop`.
fn listed(missing: &BTreeMap<String, Vec<String>>) -> String {
    let lines = missing.iter().map(|(namespace, rights)| format!("{} in {namespace}", rights.join(" and ")));
    lines.collect::<Vec<_>>().join("; ")
}

fn command(sender: &Sender, image: &str) -> EphemeralCommand {
    let head = ["/usr/local/bin/palisade", dial::WORD, dial::VERSION].map(str::to_owned);
    let dials = sender.flows.iter().map(|flow| plan::dial(flow).word());
    EphemeralCommand {
        namespace: sender.pod.namespace.to_string(),
        pod: sender.pod.name.to_string(),
        image: image.to_owned(),
        words: head.into_iter().chain(dials).collect(),
    }
}

/// Returns the image of the agents, which every node of a cluster with Palisade has.
fn image_of_agents(client: &EphemeralClient) -> Result<String> {
    let why = match client.image_of_daemon_set(AGENTS_NAMESPACE, AGENTS_SELECTOR) {
        Ok(Some(image)) if !image.is_empty() => return Ok(image),
        Ok(_) => format!("namespace {AGENTS_NAMESPACE} has no agents of Palisade"),
        Err(error) => error.with_advice(),
    };
    bail!(
        "the image for --probe is not known: {why}; give one that has /usr/local/bin/palisade with --probe-image"
    )
}

//! The reports of the agents: conditions of cluster-wide policies, and Events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{
    World,
    agent::AgentOptions,
    eventually,
    world::{CRDS, NODES},
};
use serde_json::Value;

use crate::manifests::{BY_NAME, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("reports::conditions_follow_a_policy", conditions),
    ("reports::an_event_names_what_cannot_be_used", events),
];

/// The Lease is first read after some seconds, and writes are rate-limited.
const REPORTED_WITHIN: Duration = Duration::from_secs(40);

const GUARD: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {matchLabels: {team: shop}}}
  ingress:
  - {name: guests, action: Deny, from: [{namespaces: {matchLabels: {team: other}}}]}
";

fn get(world: &World, arguments: &str) -> Result<Value> {
    serde_json::from_str(&world.kubectl(&format!("get {arguments} -o json"))?)
        .with_context(|| arguments.to_owned())
}

/// Waits for a condition about the current generation, and returns its status and reason.
fn condition(world: &World, policy: &str, kind: &str) -> Result<(String, String)> {
    eventually(&format!("{kind} of {policy}"), REPORTED_WITHIN, || {
        let object = get(world, &format!("clusternetworkpolicy {policy}"))?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let about =
            |c: &&Value| c["type"] == kind && c["observedGeneration"] == object["metadata"]["generation"];
        let found = conditions.iter().find(about).map(|c| (text(&c["status"]), text(&c["reason"])));
        Ok(found.ok_or_else(|| format!("{}", object["status"])))
    })
}

fn conditions(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&shop())?;
    world.start_agents()?;
    world.apply(GUARD)?;
    for kind in ["palisade.dev/Accepted", "palisade.dev/Programmed"] {
        ensure!(condition(world, "guard", kind)?.0 == "True", "{kind} is not true");
    }
    // The same generation is written once.
    let version = |world: &World| -> Result<Value> {
        Ok(get(world, "clusternetworkpolicy guard")?["metadata"]["resourceVersion"].clone())
    };
    let before = version(world)?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(version(world)? == before, "written again without a change");

    world.apply(&GUARD.replace("priority: 7", "priority: 8"))?;
    let generation = &get(world, "clusternetworkpolicy guard")?["metadata"]["generation"];
    ensure!(generation == 2, "an edit of the spec is a new generation");
    ensure!(condition(world, "guard", "palisade.dev/Programmed")?.0 == "True");
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)
}

fn events(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&shop())?;
    world.start_agents()?;
    world.apply(BY_NAME)?;
    let (status, reason) = condition(world, "by-name", "palisade.dev/Accepted")?;
    ensure!(status == "True" && reason == "PartlyUnusable", "{status}, {reason}");
    let event = eventually("an Event about the policy", REPORTED_WITHIN, || {
        let all = get(world, "events.events.k8s.io -A")?;
        let about = |e: &&Value| e["regarding"]["name"] == "by-name";
        let found = all["items"].as_array().and_then(|all| all.iter().find(about).cloned());
        Ok(found.ok_or_else(|| all["items"].to_string()))
    })?;
    ensure!(event["reportingController"] == "palisade.dev/agent", "{event}");
    ensure!(event["type"] == "Warning", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.contains("domainNames")), "{event}");
    // Only one agent reports it.
    std::thread::sleep(Duration::from_secs(8));
    let all = get(world, "events.events.k8s.io -A")?;
    let count = all["items"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|e| e["regarding"]["name"] == "by-name").count());
    ensure!(count == 1, "{count} Events about one policy");
    // Agents that learn addresses enforce the names.
    let more = vec!["--domain-names=on".to_owned()];
    let options = AgentOptions { kubeconfig: world.agent_kubeconfig()?, more, ..AgentOptions::default() };
    NODES.iter().try_for_each(|node| world.start_agent(node, &options).map(drop))?;
    eventually("the policy is accepted", REPORTED_WITHIN, || {
        let (status, reason) = condition(world, "by-name", "palisade.dev/Accepted")?;
        Ok(if (&*status, &*reason) == ("True", "Accepted") {
            Ok(())
        } else {
            Err(format!("{status}, {reason}"))
        })
    })
}

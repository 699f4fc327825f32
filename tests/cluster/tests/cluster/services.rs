//! Services that agents watch for the sake of DNS servers: which servers are trusted is read from the kernel, which hands over only the
//! messages of these.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{
    World,
    agent::AgentOptions,
    eventually,
    world::{CRDS, NODES, READY_WITHIN},
};
use palisade_lab::Place;

use crate::manifests::{BY_NAME, back_from, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("services::the_dns_service_is_trusted_and_a_tenant_takes_the_trust", dns_servers),
    ("services::without_the_right_policies_are_enforced_and_no_server_is_trusted", without_the_right),
];

/// Trust comes back 10 s after a Service has gone.
const WITHIN: Duration = Duration::from_secs(30);

/// The rights that the chart adds with `agent.domainNames: \"on\"`.
const RIGHTS: &str = "---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reads-services}
rules: [{apiGroups: [''], resources: [services], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reads-services}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads-services}
subjects: [{kind: ServiceAccount, name: palisade-agent, namespace: palisade-system}]
";

/// The API server assigns the address.
const DNS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {selector: {k8s-app: kube-dns}, ports: [{port: 53, protocol: UDP}]}
";

fn of_tenant(address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: other}}\n\
         spec: {{selector: {{app: guest}}, externalIPs: [{address}], ports: [{{port: 53, protocol: UDP}}]}}\n"
    )
}

fn start(world: &mut World, more: &str) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&(shop() + &back_from("front") + BY_NAME))?;
    world.install()?;
    let more: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
    let options = AgentOptions { kubeconfig: world.agent_kubeconfig()?, more, ..AgentOptions::default() };
    NODES.iter().try_for_each(|node| world.start_agent(node, &options).map(drop))?;
    NODES.iter().try_for_each(|node| world.agent(node)?.wait_ready(READY_WITHIN))
}

/// The rules that hand DNS messages to the agent of node w1; empty if there are none.
fn table(world: &World) -> Result<String> {
    let list = || Command::new("nft").args(["list", "table", "inet", "palisade_dns"]).output();
    let output = world.namespace(&Place::Node("w1".into()))?.run(list)??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the server is trusted, or is not.
fn expect(world: &World, address: &str, is_trusted: bool) -> Result<()> {
    eventually(&format!("{address} is trusted: {is_trusted}"), WITHIN, || {
        let table = table(world)?;
        Ok(if table.contains(address) == is_trusted { Ok(()) } else { Err(table) })
    })
}

fn dns_servers(world: &mut World) -> Result<()> {
    world.apply(&(RIGHTS.to_owned() + DNS))?;
    let dns = world.kubectl("get service -n kube-system kube-dns -o jsonpath={.spec.clusterIP}")?;
    ensure!(!dns.is_empty());
    start(world, "--domain-names=on")?;
    expect(world, &dns, true)?;
    // A Service of a tenant has its address, for a while.
    world.apply(&of_tenant(&dns))?;
    expect(world, &dns, false)?;
    let log = world.agent("w1")?.wait_log(&["a Service has the address of a DNS server"], WITHIN)?;
    ensure!(log.contains("other/web"), "{log}");
    world.apply(&of_tenant("192.0.2.99"))?;
    expect(world, &dns, true)?;
    // The Service of DNS is replaced: the new one has another address.
    world.kubectl("delete service -n kube-system kube-dns")?;
    expect(world, &dns, false)?;
    world.apply(DNS)?;
    let new = world.kubectl("get service -n kube-system kube-dns -o jsonpath={.spec.clusterIP}")?;
    ensure!(new != dns, "the API server gave {new} out again");
    expect(world, &new, true)?;
    world.kubectl("delete service -n kube-system kube-dns").map(drop)
}

fn without_the_right(world: &mut World) -> Result<()> {
    world.kubectl("delete clusterrolebinding reads-services --ignore-not-found")?;
    start(world, "--domain-names=on --dns-resolver=192.0.2.53")?;
    let log = world.agent("w1")?.wait_log(&["watch failed, retrying", "Service"], WITHIN)?;
    ensure!(log.contains("services"), "{log}");
    ensure!(table(world)?.is_empty(), "a server is trusted that a Service could have the address of");
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)?;
    world.apply(RIGHTS)?;
    expect(world, "192.0.2.53", true).context("the right was granted")
}

//! Changes of policies, pods and namespaces, with probes after every step.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade_cluster_tests::{
    World, eventually,
    world::{CRDS, key},
};
use palisade_lab::Place;

use crate::manifests::{back_from, namespace, pod, pod_at, policy, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("policies::created_edited_and_deleted", created_edited_deleted),
    ("policies::both_directions_and_every_peer", every_peer),
    ("policies::a_namespace_is_relabelled", namespace_relabelled),
    ("policies::a_pod_is_relabelled", pod_relabelled),
    ("policies::an_address_goes_to_another_pod", address_reused),
    ("policies::cluster_wide_kinds", cluster_wide),
    ("policies::definitions_are_created_and_deleted_under_a_running_agent", definitions_change),
    ("policies::definitions_survive_a_restart_of_the_api_server", definitions_survive_a_restart),
    ("policies::an_established_connection_is_revoked", revoked),
];

fn created_edited_deleted(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.start_agents()?;
    let results = world.must_agree()?;
    results.expect(true, "other/guest", "shop/back", 80)?;

    world.apply(&back_from("front"))?;
    let results = world.must_agree()?;
    results.expect(true, "shop/front", "shop/back", 80)?;
    results.expect(false, "shop/near", "shop/back", 80)?;
    results.expect(false, "other/guest", "shop/back", 80)?;

    world.apply(&back_from("near"))?;
    let results = world.must_agree()?;
    results.expect(false, "shop/front", "shop/back", 80)?;
    results.expect(true, "shop/near", "shop/back", 80)?;

    // An edit of one field.
    let patch = r#"[{"op": "replace", "path": "/spec/ingress/0/ports/0/port", "value": 81}]"#;
    world.control().kubectl(&["patch", "netpol", "-n", "shop", "back", "--type=json", "-p", patch], "")?;
    let results = world.must_agree()?;
    results.expect(false, "shop/near", "shop/back", 80)?;
    results.expect(true, "shop/near", "shop/back", 81)?;
    world.verify()?;

    world.kubectl("delete netpol -n shop back")?;
    world.must_agree()?.expect(true, "other/guest", "shop/back", 80)?;
    world.verify()
}

fn every_peer(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    let in_from = "{podSelector: {matchLabels: {app: near}}, policyTypes: [Ingress, Egress], ingress: [{from: [\
                   {namespaceSelector: {matchLabels: {team: other}}, podSelector: {matchLabels: {app: guest}}}, \
                   {ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}], \
                   ports: [{port: web}, {port: 50, endPort: 60, protocol: UDP}]}], \
                   egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]}";
    let out_to = "{podSelector: {}, policyTypes: [Egress], \
                  egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: back}}}]}]}";
    world.apply(&(policy("shop/near", in_from) + &policy("other/out", out_to)))?;
    world.start_agents()?;
    let results = world.must_agree()?;
    results.expect(false, "shop/front", "shop/near", 80)?;
    ensure!(results.0.counts.dropped > 50, "{:?}", results.0.counts);
    // A service in front of the pod, with a cluster IP of the API server.
    world.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: near, namespace: shop}, \
         spec: {selector: {app: near}, ports: [{port: 8080, targetPort: web}]}}",
    )?;
    world.must_agree()?;
    world.verify()
}

fn namespace_relabelled(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.apply(&policy(
        "shop/team",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}}]}]}",
    ))?;
    world.start_agents()?;
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)?;
    world.kubectl("label namespace other team=shop --overwrite")?;
    world.must_agree()?.expect(true, "other/guest", "shop/back", 80)?;
    world.kubectl("label namespace other team-")?;
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)?;
    // A namespace that is created later, with a pod.
    world.apply(&(namespace("third", "team: shop") + &pod("third/late", "w1", "app: late")))?;
    world.must_agree()?.expect(true, "third/late", "shop/back", 80)
}

fn pod_relabelled(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.start_agents()?;
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    // As a peer…
    world.kubectl("label pod -n shop near app=front --overwrite")?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.kubectl("label pod -n shop near app=near --overwrite")?;
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    // …and as the isolated pod.
    world.kubectl("label pod -n shop back app-")?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn address_reused(world: &mut World) -> Result<()> {
    let address = "203.0.113.77,fd00:77::1"; // in no pod range
    world.apply(&(shop() + &back_from("front") + &pod_at("shop/first", "w1", "app: front", address)))?;
    world.start_agents()?;
    world.must_agree()?.expect(true, "shop/first", "shop/back", 80)?;
    world.kubectl("delete pod -n shop first --wait=true --timeout=20s")?;
    world.apply(&pod_at("other/second", "w1", "app: front", address))?;
    // Same labels and address, another namespace.
    let results = world.must_agree()?;
    ensure!(world.address("other/second")? == "203.0.113.77".parse::<std::net::IpAddr>()?);
    results.expect(false, "other/second", "shop/back", 80)?;
    // Then on another node, as an isolated pod.
    world.kubectl("delete pod -n other second --wait=true --timeout=20s")?;
    world.apply(&pod_at("shop/third", "w2", "app: back", address))?;
    let results = world.must_agree()?;
    results.expect(true, "shop/front", "shop/third", 80)?;
    results.expect(false, "shop/near", "shop/third", 80)?;
    world.verify()
}

/// How long an agent may take to notice a new or a deleted definition. Each asks for itself, at intervals of about half a minute.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(90);

const ADMIN: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: no-guests}
spec:
  priority: 10
  subject: {namespaces: {matchLabels: {team: shop}}}
  ingress:
  - {name: guests, action: Deny, from: [{namespaces: {matchLabels: {team: other}}}]}
";
const BASELINE: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {pods: {namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: near}}}}
  ingress:
  - {name: nobody, action: Deny, from: [{namespaces: {}}]}
";
const CLUSTER: &str = "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: only-front}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: back}}}}
  ingress:
  - {name: front, action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}}]}
  - {name: others, action: Deny, from: [{namespaces: {}}]}
";

fn cluster_wide(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&shop())?;
    world.start_agents()?;
    world.apply(ADMIN)?;
    let results = world.must_agree()?;
    results.expect(false, "other/guest", "shop/back", 80)?;
    results.expect(true, "shop/near", "shop/back", 80)?;
    world.apply(BASELINE)?;
    world.must_agree()?.expect(false, "shop/front", "shop/near", 80)?;
    // A NetworkPolicy takes precedence over the baseline tier, not over the admin tier.
    world.apply(&policy("shop/open", "{podSelector: {}, ingress: [{}]}"))?;
    let results = world.must_agree()?;
    results.expect(true, "shop/front", "shop/near", 80)?;
    results.expect(false, "other/guest", "shop/near", 80)?;
    world.apply(CLUSTER)?;
    let results = world.must_agree()?;
    results.expect(true, "shop/front", "shop/back", 80)?;
    results.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()?;
    world.kubectl("delete clusternetworkpolicy only-front")?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.kubectl("delete adminnetworkpolicy no-guests")?;
    world.must_agree()?.expect(true, "other/guest", "shop/near", 80)?;
    world.verify()
}

fn definitions_change(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.start_agents()?;
    world.must_agree()?.expect(true, "other/guest", "shop/back", 80)?;
    let before = world.agent("w1")?.log().len();
    for turn in 0..2 {
        world.install_crds(&CRDS)?;
        world.apply(ADMIN)?;
        let (guest, back) = ("other/guest", "shop/back");
        eventually("the new kind is enforced", DISCOVERED_WITHIN, || {
            Ok(if reaches(world, guest, back)? { Err(format!("turn {turn}: still open")) } else { Ok(()) })
        })?;
        world.must_agree_within(DISCOVERED_WITHIN)?;
        world.verify()?;
        world
            .kubectl("delete crd adminnetworkpolicies.policy.networking.k8s.io --wait=true --timeout=30s")?;
        eventually("the policies of the removed kind are no longer enforced", DISCOVERED_WITHIN, || {
            Ok(if reaches(world, guest, back)? { Ok(()) } else { Err(format!("turn {turn}: still closed")) })
        })?;
        world.must_agree_within(DISCOVERED_WITHIN)?;
        let agent = world.agent("w1")?;
        eventually("the deletion is confirmed", Duration::from_secs(60), || {
            let log = agent.log().split_off(before);
            let confirmed = log.lines().filter(|l| l.contains("definition was deleted")).count();
            Ok(if confirmed > turn { Ok(()) } else { Err(format!("turn {turn}:\n{log}")) })
        })?;
    }
    let agent = world.agent("w1")?;
    let log = agent.log().split_off(before);
    // A server that has just created the storage of a definition asks clients to wait, which is reported and retried.
    let is_new = |line: &&str| line.contains("storage is (re)initializing");
    let is_failure = |line: &&str| line.contains("ERROR") || line.contains("WARN");
    let failures: Vec<&str> = log.lines().filter(is_failure).filter(|line| !is_new(line)).collect();
    ensure!(failures.is_empty(), "a deleted definition is a failure: {failures:#?}\n{log}");
    let expected = agent.log().lines().filter(is_new).count();
    let errors = agent.metrics()?.sum("palisade_errors_total", "stage=\"source\"");
    ensure!(errors <= expected as f64, "{errors} errors, {expected} of them of new storage");
    world.verify()
}

/// A server that restarts may not serve its definitions at once. Until it does, the policies stay in effect.
fn definitions_survive_a_restart(world: &mut World) -> Result<()> {
    world.install_crds(&CRDS)?;
    world.apply(&(shop() + ADMIN))?;
    world.start_agents()?;
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)?;
    let before = world.agent("w1")?.log().len();
    for _ in 0..2 {
        world.control().stop_api();
        world.control().start_api()?;
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            ensure!(!reaches(world, "other/guest", "shop/back")?, "the admin policy is not enforced");
        }
    }
    let agent = world.agent("w1")?;
    agent.wait_metric("the watch is up again", Duration::from_secs(60), |m| {
        m.get("palisade_watch_up{kind=\"AdminNetworkPolicy\"}") == Some(1.0)
    })?;
    let log = agent.log().split_off(before);
    ensure!(!log.contains("definition was deleted"), "{log}");
    world.must_agree()?.expect(false, "other/guest", "shop/back", 80)?;
    world.verify()
}

/// Whether a TCP connection from pod to pod on port 80 is made within half a second.
pub(crate) fn reaches(world: &World, from: &str, to: &str) -> Result<bool> {
    let to = SocketAddr::new(world.address(to)?, 80);
    let namespace = world.namespace(&Place::Pod(key(from)))?;
    Ok(namespace.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())?)
}

fn revoked(world: &mut World) -> Result<()> {
    world.apply(&shop())?;
    world.start_agents()?;
    world.must_agree()?;
    let at = SocketAddr::new(world.address("shop/back")?, 7000);
    let listener =
        world.namespace(&Place::Pod(key("shop/back")))?.run(|| TcpListener::bind(at))?.context("listen")?;
    let connect = || TcpStream::connect_timeout(&at, Duration::from_secs(2));
    let from = |pod: &str| -> Result<(TcpStream, TcpStream)> {
        let client = world.namespace(&Place::Pod(key(pod)))?.run(connect)??;
        let (server, _) = listener.accept()?;
        server.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok((client, server))
    };
    let (mut front, mut guest) = (from("shop/front")?, from("other/guest")?);
    ensure!(passes(&mut front) && passes(&mut guest), "a connection is denied without policies");
    world.apply(&policy(
        "shop/back",
        "{podSelector: {matchLabels: {app: back}}, ingress: [{from: [{podSelector: {}}]}]}",
    ))?;
    world.must_agree()?;
    ensure!(!passes(&mut guest), "a denied connection still passes");
    ensure!(passes(&mut front), "an allowed connection was revoked");
    let revoked: f64 = ["w1", "w2"]
        .iter()
        .map(|n| Ok(world.agent(n)?.metrics()?.sum("palisade_connections_revoked_total", "")))
        .sum::<Result<f64>>()?;
    ensure!(revoked >= 1.0, "{revoked} connections were revoked according to the metrics");
    Ok(())
}

/// Whether a byte passes from client to server.
fn passes((client, server): &mut (TcpStream, TcpStream)) -> bool {
    client.write_all(b"x").is_ok() && server.read_exact(&mut [0]).is_ok()
}

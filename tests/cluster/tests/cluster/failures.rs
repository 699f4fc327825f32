//! Failures: agents that are killed, started twice or removed; an API server that is down, forbids requests, or is not trusted.
//! Enforcement keeps its last state, the log and the metrics report the failure, and recovery is automatic.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use palisade_cluster_tests::{
    World,
    agent::AgentOptions,
    certificates::Authority,
    control_plane::Identity,
    world::{NODES, READY_WITHIN, key},
};
use palisade_lab::{Place, namespace::Namespace};

use crate::{
    manifests::{back_from, policy, shop},
    policies::reaches,
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("failures::a_killed_and_restarted_agent_opens_no_window", killed),
    ("failures::a_terminated_agent_leaves_the_rules", terminated),
    ("failures::changes_while_no_agent_ran_are_programmed", changed_meanwhile),
    ("failures::the_api_server_stops_and_restarts", api_stops),
    ("failures::the_api_server_hangs", api_hangs),
    ("failures::the_api_server_is_down_at_start", api_down_at_start),
    ("failures::one_kind_is_forbidden", forbidden),
    ("failures::two_agents_on_one_node", two_agents),
    ("failures::an_untrusted_server", untrusted),
    ("failures::an_expired_certificate_and_its_renewal", expired),
    ("failures::a_foreign_table_of_our_name", foreign_table),
    ("failures::removed_without_a_trace", removed),
];

/// How long a watch may take to recover, with backoff on a busy machine.
const RECOVER_WITHIN: Duration = Duration::from_secs(60);

/// Sets up a cluster in which only shop/front may connect to shop/back.
fn guarded(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    world.start_agents()?;
    world.must_agree()?;
    still_guarded(world)
}

/// Checks the kernel, without the API server.
fn still_guarded(world: &World) -> Result<()> {
    ensure!(reaches(world, "shop/front", "shop/back")?, "an allowed connection is denied");
    ensure!(!reaches(world, "shop/near", "shop/back")?, "a denied connection is allowed");
    Ok(())
}

fn options(world: &World) -> Result<AgentOptions> {
    Ok(AgentOptions { kubeconfig: world.agent_kubeconfig()?, ..AgentOptions::default() })
}

/// Opens allowed and denied connections continuously while `action` runs, and checks that none has the other outcome.
fn undisturbed(world: &mut World, action: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let place = |pod: &str| -> Result<Namespace> { world.namespace(&Place::Pod(key(pod))) };
    let (front, near) = (place("shop/front")?, place("shop/near")?);
    let web = SocketAddr::new(world.address("shop/back")?, 80);
    let dns = SocketAddr::new(web.ip(), 53);
    let (done, established, sent) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let allowed = || -> io::Result<()> {
        while !done.load(Ordering::Relaxed) {
            // A lost SYN is retransmitted after a second, so a connection that takes longer lost a packet.
            TcpStream::connect_timeout(&web, Duration::from_millis(900))?;
            established.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    let denied = || -> io::Result<()> {
        while !done.load(Ordering::Relaxed) {
            // A new socket each time makes each packet a new connection.
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            socket.send_to(b"probe", dns)?;
            if socket.recv(&mut [0; 64]).is_ok() {
                return Err(io::Error::other("a denied packet was answered"));
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let passing = scope.spawn(|| front.run(allowed));
        let blocked = scope.spawn(|| near.run(denied));
        let result = action(world);
        done.store(true, Ordering::Relaxed);
        passing
            .join()
            .map_err(|_| anyhow!("panicked"))?
            .context("allowed")?
            .context("an allowed connection")?;
        blocked.join().map_err(|_| anyhow!("panicked"))?.context("denied")?.context("a denied packet")?;
        result
    })?;
    let (established, sent) = (established.into_inner(), sent.into_inner());
    ensure!(established > 20 && sent > 20, "only {established} connections and {sent} packets");
    Ok(())
}

fn killed(world: &mut World) -> Result<()> {
    guarded(world)?;
    let options = options(world)?;
    undisturbed(world, |world| {
        for _ in 0..3 {
            for node in NODES {
                world.agent(node)?.process().kill();
            }
            thread::sleep(Duration::from_millis(200));
            for node in NODES {
                world.start_agent(node, &options)?.wait_ready(READY_WITHIN)?;
            }
        }
        Ok(())
    })?;
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn terminated(world: &mut World) -> Result<()> {
    guarded(world)?;
    undisturbed(world, |world| {
        for node in NODES {
            let process = world.agent(node)?.process();
            process.signal(Signal::SIGTERM)?;
            let status = process.wait(Duration::from_secs(10))?;
            ensure!(status.success(), "{status}");
        }
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    still_guarded(world)
}

fn changed_meanwhile(world: &mut World) -> Result<()> {
    guarded(world)?;
    NODES.iter().for_each(|n| world.kill_agent(n));
    world
        .apply(&(back_from("near") + &policy("shop/front", "{podSelector: {matchLabels: {app: front}}}")))?;
    world.kubectl("delete pod -n other guest --wait=true --timeout=20s")?;
    still_guarded(world)?;
    world.start_agents()?;
    let results = world.must_agree()?;
    results.expect(true, "shop/near", "shop/back", 80)?;
    results.expect(false, "shop/near", "shop/front", 80)?;
    world.verify()
}

fn api_stops(world: &mut World) -> Result<()> {
    guarded(world)?;
    world.control().stop_api();
    for node in NODES {
        let agent = world.agent(node)?;
        agent.wait_metric("its watches are reported as down", RECOVER_WITHIN, |m| {
            m.get("palisade_watch_up{kind=\"NetworkPolicy\"}") == Some(0.0)
        })?;
        ensure!(agent.get("/healthz")?.0 == 200, "an agent without an API server must stay healthy");
    }
    still_guarded(world)?;
    world.control().start_api()?;
    world.apply(&back_from("near"))?;
    for node in NODES {
        world.agent(node)?.wait_metric("its watches are up again", RECOVER_WITHIN, |m| {
            m.get("palisade_watch_up{kind=\"NetworkPolicy\"}") == Some(1.0)
        })?;
    }
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn api_hangs(world: &mut World) -> Result<()> {
    guarded(world)?;
    world.control().freeze_api(true)?;
    thread::sleep(Duration::from_secs(3));
    let guarded = still_guarded(world);
    let healthy = world.agent("w1").and_then(|a| a.get("/healthz"));
    world.control().freeze_api(false)?;
    guarded?;
    ensure!(healthy?.0 == 200, "an agent whose API server hangs must stay healthy");
    world.apply(&back_from("near"))?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)
}

fn api_down_at_start(world: &mut World) -> Result<()> {
    guarded(world)?;
    let options = options(world)?;
    NODES.iter().for_each(|n| world.kill_agent(n));
    world.control().stop_api();
    let mut unready = Vec::new();
    for node in NODES {
        let agent = world.start_agent(node, &options)?;
        palisade_cluster_tests::eventually("it serves /readyz", RECOVER_WITHIN, || {
            Ok(agent.is_ready().ok_or_else(|| agent.log()))
        })?;
    }
    thread::sleep(Duration::from_secs(2));
    for node in NODES {
        unready.push(world.agent(node)?.is_ready());
    }
    let still = still_guarded(world);
    world.control().start_api()?;
    still?;
    ensure!(unready.iter().all(|r| *r == Some(false)), "ready without a snapshot: {unready:?}");
    for node in NODES {
        world.agent(node)?.wait_ready(RECOVER_WITHIN)?;
    }
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

/// Removes the rules for a resource from the agents' ClusterRole.
fn remove_right(world: &mut World, resource: &str) -> Result<()> {
    let text = world.kubectl("get clusterrole palisade-agent -o json")?;
    let mut role: serde_json::Value = serde_json::from_str(&text)?;
    let rules = role["rules"].as_array_mut().context("rules")?;
    rules.retain(|r| !r["resources"].as_array().is_some_and(|r| r.contains(&resource.into())));
    world.control().kubectl(&["replace", "-f", "-"], &role.to_string()).map(|_| ())
}

fn forbidden(world: &mut World) -> Result<()> {
    guarded(world)?;
    let options = options(world)?;
    remove_right(world, "networkpolicies")?;
    // The API server authorizes a watch when it starts, so new agents are started.
    for node in NODES {
        world.start_agent(node, &options)?;
    }
    for node in NODES {
        let agent = world.agent(node)?;
        agent.wait_log(&["networkpolicies", "forbidden"], RECOVER_WITHIN)?;
        agent.wait_metric("one watch is down and the others are up", RECOVER_WITHIN, |m| {
            let up = |kind: &str| m.get(&format!("palisade_watch_up{{kind=\"{kind}\"}}"));
            up("NetworkPolicy") == Some(0.0) && up("Pod") == Some(1.0) && up("Namespace") == Some(1.0)
        })?;
        ensure!(agent.is_ready() == Some(false), "ready without the policies");
    }
    // An agent that may not read policies does not consider them deleted.
    still_guarded(world)?;
    world.install()?;
    for node in NODES {
        world.agent(node)?.wait_ready(RECOVER_WITHIN)?;
    }
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn two_agents(world: &mut World) -> Result<()> {
    guarded(world)?;
    let second = AgentOptions {
        more: vec!["--lock-timeout=1".to_owned()],
        name: "-second".to_owned(),
        ..options(world)?
    };
    let mut second = world.new_agent("w1", &second)?;
    let status = second.process().wait(Duration::from_secs(60))?;
    let (log, first) = (second.log(), world.agent("w1")?.process().id());
    ensure!(status.code() == Some(2) && log.contains("another agent"), "{status}: {log}");
    ensure!(log.contains(&first.to_string()), "the process id {first} is not in the log: {log}");
    world.apply(&back_from("near"))?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn untrusted(world: &mut World) -> Result<()> {
    guarded(world)?;
    let folder = world.folder().to_owned();
    let other = Authority::new(&folder, "other-ca")?;
    let token = world.control().token("palisade-system", "palisade-agent")?;
    let kubeconfig = world.control().kubeconfig("other-ca", &Identity::TokenFile(token), Some(&other))?;
    let agent = world.start_agent("w2", &AgentOptions { kubeconfig, ..AgentOptions::default() })?;
    agent.wait_log(&["certificate"], RECOVER_WITHIN)?;
    ensure!(agent.is_ready() == Some(false), "ready with an untrusted server");
    still_guarded(world)
}

fn expired(world: &mut World) -> Result<()> {
    guarded(world)?;
    let old = world.control().authority().expired_user("palisade", "system:masters")?;
    let kubeconfig = world.control().kubeconfig("expired", &Identity::Certificate(old), None)?;
    let agent = world.start_agent("w2", &AgentOptions { kubeconfig, ..AgentOptions::default() })?;
    agent.wait_log(&["unauthorized"], RECOVER_WITHIN)?;
    ensure!(agent.is_ready() == Some(false), "ready with an expired certificate");
    still_guarded(world)?;

    // An invalid token that is replaced later, as the kubelet does: the agent re-reads it.
    let token = world.folder().join("rotated.token");
    fs::write(&token, "not-a-token")?;
    let kubeconfig = world.control().kubeconfig("rotated", &Identity::TokenFile(token.clone()), None)?;
    let agent = world.start_agent("w2", &AgentOptions { kubeconfig, ..AgentOptions::default() })?;
    agent.wait_log(&["unauthorized"], RECOVER_WITHIN)?;
    let good = world.control().token("palisade-system", "palisade-agent")?;
    fs::rename(good, &token)?;
    // Clients re-read the file after a minute.
    world.agent("w2")?.wait_ready(Duration::from_secs(150))?;
    world.must_agree()?;
    world.verify()
}

/// A table of our name, left by another version or created by hand, is taken over.
fn foreign_table(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    let rules = "table inet palisade {
        set old4 { type ipv4_addr; elements = { 10.244.0.1 } }
        chain forward { type filter hook forward priority filter; policy accept; ip saddr @old4 drop; }
        chain left { counter; }
    }";
    for node in NODES {
        let namespace = world.namespace(&Place::Node(node.into()))?;
        let output = namespace.run(|| std::process::Command::new("nft").arg(rules).output())?;
        let output = output.context("the tests need nft (Debian: apt-get install nftables)")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    world.start_agents()?;
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn removed(world: &mut World) -> Result<()> {
    guarded(world)?;
    for node in NODES {
        let agent = world.agent(node)?;
        agent.process().kill();
        let socket = agent.socket().to_owned();
        let argument = format!("--socket={}", socket.display());
        let place = Place::Node(node.into());
        let output = world.palisade(&place, &["agent", "--remove", &argument])?;
        ensure!(output.status.success(), "{}", palisade_cluster_tests::world::describe(&output));
        let existed = world
            .namespace(&place)?
            .run(|| -> Result<bool> { Ok(palisade_nft::remove(&mut palisade_nft::Kernel::open()?)?) })??;
        ensure!(!existed, "the table still exists on {node}");
        let run = socket.parent().context("a folder")?;
        let left: Vec<_> = fs::read_dir(run)?.map(|f| f.map(|f| f.file_name())).collect::<io::Result<_>>()?;
        ensure!(left.is_empty(), "{left:?} are left over");
        // Removing again is no error.
        let output = world.palisade(&place, &["agent", "--remove", &argument])?;
        ensure!(output.status.success(), "{}", palisade_cluster_tests::world::describe(&output));
    }
    ensure!(reaches(world, "shop/near", "shop/back")?, "denied without rules");
    Ok(())
}

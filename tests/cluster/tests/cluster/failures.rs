//! What goes wrong on the way: agents killed, doubled and removed, an API server that is away, forbids, or can't be trusted.
//! Enforcement keeps its last state, the log and the metrics say what is wrong, and recovery needs no hand.

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
    agent::Options,
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
    ("failures::an_agent_that_is_killed_and_comes_back_opens_no_window", killed),
    ("failures::an_agent_that_is_told_to_end_leaves_the_rules", told_to_end),
    ("failures::what_changed_while_no_agent_ran_is_made_up_for", made_up_for),
    ("failures::the_api_server_stops_and_comes_back", api_stops),
    ("failures::the_api_server_hangs", api_hangs),
    ("failures::the_api_server_is_away_at_start", api_away_at_start),
    ("failures::one_kind_is_forbidden", forbidden),
    ("failures::two_agents_on_one_node", two_agents),
    ("failures::a_server_that_nobody_vouches_for", untrusted),
    ("failures::an_expired_certificate_and_its_renewal", expired),
    ("failures::a_table_of_somebody_else", strange_table),
    ("failures::removed_without_a_trace", removed),
];

/// How long a watch may take to come back: a back-off, and a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// A cluster in which shop/back is open for shop/front alone.
fn guarded(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    world.start_agents()?;
    world.must_agree()?;
    still_guarded(world)
}

/// In the kernel, whatever the API server may say meanwhile.
fn still_guarded(world: &World) -> Result<()> {
    ensure!(reaches(world, "shop/front", "shop/back")?, "what was allowed is closed");
    ensure!(!reaches(world, "shop/near", "shop/back")?, "what was denied is open");
    Ok(())
}

fn options(world: &World) -> Result<Options> {
    Ok(Options { kubeconfig: world.agent_kubeconfig()?, ..Options::default() })
}

/// New connections all the time, of which some must be made and others must not.
fn undisturbed(world: &mut World, what: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let place = |pod: &str| -> Result<Namespace> { world.namespace(&Place::Pod(key(pod))) };
    let (front, near) = (place("shop/front")?, place("shop/near")?);
    let web = SocketAddr::new(world.address("shop/back")?, 80);
    let dns = SocketAddr::new(web.ip(), 53);
    let (over, made, sent) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let allowed = || -> io::Result<()> {
        while !over.load(Ordering::Relaxed) {
            // A lost first packet would be sent again after a second: one that takes so long was dropped.
            TcpStream::connect_timeout(&web, Duration::from_millis(900))?;
            made.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    let denied = || -> io::Result<()> {
        while !over.load(Ordering::Relaxed) {
            // A new socket each time, so that each packet is a new connection.
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            socket.send_to(b"who", dns)?;
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
        let result = what(world);
        over.store(true, Ordering::Relaxed);
        passing.join().map_err(|_| anyhow!("panicked"))?.context("allowed")?.context("an allowed one")?;
        blocked.join().map_err(|_| anyhow!("panicked"))?.context("denied")?.context("a denied one")?;
        result
    })?;
    let (made, sent) = (made.into_inner(), sent.into_inner());
    ensure!(made > 20 && sent > 20, "only {made} connections and {sent} packets");
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

fn told_to_end(world: &mut World) -> Result<()> {
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

fn made_up_for(world: &mut World) -> Result<()> {
    guarded(world)?;
    NODES.iter().for_each(|n| world.kill_agent(n));
    world
        .apply(&(back_from("near") + &policy("shop/front", "{podSelector: {matchLabels: {app: front}}}")))?;
    world.kubectl("delete pod -n other guest --wait=true --timeout=20s")?;
    still_guarded(world)?;
    world.start_agents()?;
    let seen = world.must_agree()?;
    seen.expect(true, "shop/near", "shop/back", 80)?;
    seen.expect(false, "shop/near", "shop/front", 80)?;
    world.verify()
}

fn api_stops(world: &mut World) -> Result<()> {
    guarded(world)?;
    world.control().stop_api();
    for node in NODES {
        let agent = world.agent(node)?;
        agent.wait_metric("its watches are said to be down", BACK_WITHIN, |m| {
            m.get("palisade_watch_up{kind=\"NetworkPolicy\"}") == Some(0.0)
        })?;
        ensure!(agent.get("/healthz")?.0 == 200, "an agent without API server must not be restarted");
    }
    still_guarded(world)?;
    world.control().start_api()?;
    world.apply(&back_from("near"))?;
    for node in NODES {
        world.agent(node)?.wait_metric("its watches are up again", BACK_WITHIN, |m| {
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
    ensure!(healthy?.0 == 200, "an agent whose API server hangs must not be restarted");
    world.apply(&back_from("near"))?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)
}

fn api_away_at_start(world: &mut World) -> Result<()> {
    guarded(world)?;
    let options = options(world)?;
    NODES.iter().for_each(|n| world.kill_agent(n));
    world.control().stop_api();
    let mut unready = Vec::new();
    for node in NODES {
        let agent = world.start_agent(node, &options)?;
        palisade_cluster_tests::eventually("it serves its health", BACK_WITHIN, || {
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
    ensure!(
        unready.iter().all(|r| *r == Some(false)),
        "ready without ever having seen the cluster: {unready:?}"
    );
    for node in NODES {
        world.agent(node)?.wait_ready(BACK_WITHIN)?;
    }
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

/// The agents' ClusterRole without what has this resource, and back again.
fn set_role(world: &mut World, without: &str) -> Result<()> {
    let text = world.kubectl("get clusterrole palisade-agent -o json")?;
    let mut role: serde_json::Value = serde_json::from_str(&text)?;
    let rules = role["rules"].as_array_mut().context("rules")?;
    rules.retain(|r| !r["resources"].as_array().is_some_and(|r| r.contains(&without.into())));
    world.control().kubectl(&["replace", "-f", "-"], &role.to_string()).map(|_| ())
}

fn forbidden(world: &mut World) -> Result<()> {
    guarded(world)?;
    let options = options(world)?;
    set_role(world, "networkpolicies")?;
    // Authorisation is asked at the start of a watch, so that a new agent is the first to notice.
    for node in NODES {
        world.start_agent(node, &options)?;
    }
    for node in NODES {
        let agent = world.agent(node)?;
        agent.wait_log(&["networkpolicies", "forbidden"], BACK_WITHIN)?;
        agent.wait_metric("one watch is down, and the others up", BACK_WITHIN, |m| {
            let up = |kind: &str| m.get(&format!("palisade_watch_up{{kind=\"{kind}\"}}"));
            up("NetworkPolicy") == Some(0.0) && up("Pod") == Some(1.0) && up("Namespace") == Some(1.0)
        })?;
        ensure!(agent.is_ready() == Some(false), "ready without the policies");
    }
    // An agent that may not read policies does not take them for deleted.
    still_guarded(world)?;
    world.install()?;
    for node in NODES {
        world.agent(node)?.wait_ready(BACK_WITHIN)?;
    }
    world.must_agree()?.expect(false, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn two_agents(world: &mut World) -> Result<()> {
    guarded(world)?;
    let second =
        Options { more: vec!["--lock-timeout=1".to_owned()], name: "-second".to_owned(), ..options(world)? };
    let mut second = world.new_agent("w1", &second)?;
    let status = second.process().wait(Duration::from_secs(20))?;
    let (log, first) = (second.log(), world.agent("w1")?.process().id());
    ensure!(status.code() == Some(2) && log.contains("another agent"), "{status}: {log}");
    ensure!(log.contains(&first.to_string()), "which one ({first}) is not said: {log}");
    world.apply(&back_from("near"))?;
    world.must_agree()?.expect(true, "shop/near", "shop/back", 80)?;
    world.verify()
}

fn untrusted(world: &mut World) -> Result<()> {
    guarded(world)?;
    let folder = world.folder().to_owned();
    let stranger = Authority::new(&folder, "stranger")?;
    let token = world.control().token("palisade-system", "palisade-agent")?;
    let kubeconfig = world.control().kubeconfig("stranger", &Identity::TokenFile(token), Some(&stranger))?;
    let agent = world.start_agent("w2", &Options { kubeconfig, ..Options::default() })?;
    agent.wait_log(&["certificate"], BACK_WITHIN)?;
    ensure!(agent.is_ready() == Some(false), "ready with a server that nobody vouches for");
    still_guarded(world)
}

fn expired(world: &mut World) -> Result<()> {
    guarded(world)?;
    let old = world.control().authority().expired_user("palisade", "system:masters")?;
    let kubeconfig = world.control().kubeconfig("expired", &Identity::Certificate(old), None)?;
    let agent = world.start_agent("w2", &Options { kubeconfig, ..Options::default() })?;
    agent.wait_log(&["unauthorized"], BACK_WITHIN)?;
    ensure!(agent.is_ready() == Some(false), "ready without being let in");
    still_guarded(world)?;

    // A token that the server doesn't know, until the kubelet writes another: the agent reads it anew.
    let token = world.folder().join("rotated.token");
    fs::write(&token, "not-a-token")?;
    let kubeconfig = world.control().kubeconfig("rotated", &Identity::TokenFile(token.clone()), None)?;
    let agent = world.start_agent("w2", &Options { kubeconfig, ..Options::default() })?;
    agent.wait_log(&["unauthorized"], BACK_WITHIN)?;
    let good = world.control().token("palisade-system", "palisade-agent")?;
    fs::rename(good, &token)?;
    // Clients read such a file again after a minute.
    world.agent("w2")?.wait_ready(Duration::from_secs(150))?;
    world.must_agree()?;
    world.verify()
}

/// What another version, or a person, left under our name is taken over.
fn strange_table(world: &mut World) -> Result<()> {
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
        ensure!(output.status.success(), "{}", palisade_cluster_tests::world::in_words(&output));
        let was_there = world
            .namespace(&place)?
            .run(|| -> Result<bool> { Ok(palisade_nft::remove(&mut palisade_nft::Kernel::open()?)?) })??;
        ensure!(!was_there, "the table is still there on {node}");
        let run = socket.parent().context("a folder")?;
        let left: Vec<_> = fs::read_dir(run)?.map(|f| f.map(|f| f.file_name())).collect::<io::Result<_>>()?;
        ensure!(left.is_empty(), "{left:?} are left");
        // Once more: nothing to take away is no error.
        let output = world.palisade(&place, &["agent", "--remove", &argument])?;
        ensure!(output.status.success(), "{}", palisade_cluster_tests::world::in_words(&output));
    }
    ensure!(reaches(world, "shop/near", "shop/back")?, "closed without rules");
    Ok(())
}

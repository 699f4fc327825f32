//! Other programs change the agent's table while denied datagrams are sent a thousand times a second. One second after the
//! edit no denied datagram passes anymore, and allowed ones pass again.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use palisade_lab::Sandbox;
use palisade_nft::Kernel;
use palisade_policy::Family;
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    commands,
    flood::{Flood, Ports},
    harness::{Test, ensure},
    testbed::{NEAR, PodNetwork, Testbed, default_policies, policy},
};

pub(crate) const TESTS: &[Test] = &[
    ("table_edits::every_edit_is_repaired_within_a_second_routed", |s| edits(s, PodNetwork::Routed)),
    ("table_edits::every_edit_is_repaired_within_a_second_bridged", |s| edits(s, PodNetwork::Bridged)),
    ("table_edits::a_table_that_is_deleted_repeatedly_is_restored_each_time", deleted_repeatedly),
    ("table_edits::commits_to_other_tables_do_not_delay_repairs", busy),
];

/// The time within which an edit must be repaired.
const BOUND: Duration = Duration::from_secs(1);
/// The bound with 20,000 elements, which a debug build reads and writes slowly.
const BOUND_OF_MANY: Duration = Duration::from_secs(2);
/// The time without arrivals after which denied datagrams count as stopped.
const QUIET: Duration = Duration::from_millis(150);
/// The interval of one sender. All senders together send a thousand datagrams a second.
const PAUSE: Duration = Duration::from_millis(4);

/// How long senders of allowed datagrams are waited for on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// As many datagrams of an allowed sender must have been sent before the lack of arrivals says anything.
const SOME: usize = 5;

/// The moment of an edit.
#[derive(Clone, Copy)]
struct Edit {
    at: Instant,
    /// [`Agent::time_without_processor`] at that moment.
    waited: Duration,
}

impl Edit {
    fn now(agent: &Agent) -> Self {
        Self { at: Instant::now(), waited: agent.time_without_processor() }
    }
}

/// Denied and allowed datagrams in both families.
struct Floods {
    denied: Vec<Flood>,
    allowed: Vec<Flood>,
}

impl Floods {
    fn start(testbed: &Testbed) -> Result<Self, Failed> {
        let (mut denied, mut allowed) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            for ports in [Ports::Same, Ports::Fresh] {
                denied.push(Flood::start(testbed, ("bad", "srv"), family, ports, PAUSE)?);
            }
            denied.push(Flood::start(testbed, ("iso", "open"), family, Ports::Fresh, PAUSE * 4)?);
            allowed.push(Flood::start(testbed, ("client", "srv"), family, Ports::Fresh, PAUSE * 4)?);
        }
        Ok(Self { denied, allowed })
    }

    /// Waits until no denied datagram has arrived for a while. Fails if one that was sent more than `bound` after `edit`
    /// arrives, or if allowed ones don't. The agent is given as much more time as it has waited for a processor: the bound is one of its own work
    /// and of the kernel's.
    fn expect_repair(
        &self,
        agent: &Agent,
        Edit { at: edit, waited }: Edit,
        bound: Duration,
        what: &str,
    ) -> Result<(), Failed> {
        let allowed_time = || bound + agent.time_without_processor().saturating_sub(waited);
        let passes = || {
            let end = Instant::now();
            self.allowed.iter().all(|f| f.arrived(end - QUIET, end).0 > 0)
        };
        // Senders that had no processor say nothing of the rules.
        let are_sending = |since: Instant| {
            let all = self.allowed.iter().chain(&self.denied);
            all.map(|f| f.arrived(since, Instant::now() - QUIET).1).all(|sent| sent >= SOME)
        };
        let last = loop {
            let last = self.denied.iter().filter_map(|f| f.last_arrived(edit)).max();
            let is_quiet = edit.elapsed() > QUIET * 2 && last.is_none_or(|at| at.elapsed() > QUIET);
            let is_over = edit.elapsed() > allowed_time() + QUIET * 2 && are_sending(edit + allowed_time());
            if (is_quiet && passes()) || is_over || edit.elapsed() > PATIENCE {
                break last;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let bound = allowed_time();
        let passed: usize = self.denied.iter().map(|f| f.arrived(edit, Instant::now()).0).sum();
        let lasted = last.map_or(Duration::ZERO, |at| at - edit);
        println!(
            "{what}: {passed} denied datagrams passed, the last {} ms after the edit, within {} ms",
            lasted.as_millis(),
            bound.as_millis()
        );
        ensure(lasted <= bound, || {
            let names: Vec<String> = self
                .denied
                .iter()
                .filter(|f| f.last_arrived(edit + bound).is_some())
                .map(|f| f.name.clone())
                .collect();
            format!(
                "{what}: denied datagrams still pass after {} ms: {}",
                lasted.as_millis(),
                names.join("; ")
            )
        })?;
        let arrives = |f: &Flood| f.arrived(edit + bound, Instant::now()).0 > 0;
        ensure(passes() || self.allowed.iter().all(arrives), || {
            format!("{what}: allowed datagrams do not pass after {} ms", edit.elapsed().as_millis())
        })
    }
}

/// Returns the `nft` statements of an edit, which may depend on the current table.
type TableEdit = fn(&Testbed) -> Result<String, Failed>;

/// The edits that a program with `CAP_NET_ADMIN` can make. `srv` is the isolated pod.
const EDITS: &[(&str, TableEdit)] = &[
    ("the table is set dormant", |_| Ok("add table inet palisade { flags dormant; }".into())),
    ("a chain is flushed", |_| Ok("flush chain inet palisade forward".into())),
    ("the table is deleted", |_| Ok("delete table inet palisade".into())),
    ("a map is flushed", |_| Ok("flush map inet palisade ingress4; flush map inet palisade ingress6".into())),
    ("an element is deleted", |testbed| {
        let [v4, v6] = addresses(testbed, "srv")?;
        Ok(format!(
            "delete element inet palisade ingress4 {{ {v4} }}; delete element inet palisade ingress6 {{ {v6} }}"
        ))
    }),
    ("an element is added to a peer set", |testbed| {
        let [v4, v6] = addresses(testbed, "bad")?;
        let [client4, client6] = addresses(testbed, "client")?;
        let sets = [(set_with(testbed, client4)?, v4), (set_with(testbed, client6)?, v6)];
        Ok(sets.map(|(set, bad)| format!("add element inet palisade {set} {{ {bad} }}")).join("; "))
    }),
    ("an accept rule is inserted first", |_| Ok("insert rule inet palisade forward accept".into())),
    ("the pod's chains are flushed", |testbed| {
        let chains = chains_of(testbed, addresses(testbed, "srv")?)?;
        Ok(chains
            .iter()
            .map(|chain| format!("flush chain inet palisade {chain}"))
            .collect::<Vec<_>>()
            .join("; "))
    }),
    ("an accept rule is inserted in the pod's chains", |testbed| {
        let chains = chains_of(testbed, addresses(testbed, "srv")?)?;
        let insert = |chain: &String| format!("insert rule inet palisade {chain} accept");
        Ok(chains.iter().map(insert).collect::<Vec<_>>().join("; "))
    }),
    ("another base chain accepts", |_| {
        Ok("add chain inet palisade foreign { type filter hook forward priority -300; policy accept; }; \
            add rule inet palisade foreign accept"
            .into())
    }),
    ("the policy of a chain is set to drop", |_| Ok("chain inet palisade forward { policy drop; }".into())),
    ("the ruleset is flushed", |_| Ok("flush ruleset".into())),
    ("all tables of the agent are deleted", |testbed| {
        let tables = commands::nft(testbed, NEAR, "list tables")?;
        // The table `palisade-agent` is owned by the agent's socket, and the kernel refuses other programs to delete it.
        let ours =
            tables.lines().filter(|line| line.contains("palisade") && !line.contains("palisade-agent"));
        Ok(ours.map(|line| format!("delete {line}")).collect::<Vec<_>>().join("; "))
    }),
];

fn addresses(testbed: &Testbed, pod: &str) -> Result<[IpAddr; 2], Failed> {
    Ok([testbed.address(pod, Family::V4)?, testbed.address(pod, Family::V6)?])
}

/// Returns name and content of the blocks in a listing that start with `word`.
fn blocks<'a>(listing: &'a str, word: &str) -> Vec<(&'a str, String)> {
    let (mut found, mut open): (Vec<(&str, String)>, bool) = (Vec::new(), false);
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [first, name, "{"] = words[..] {
            open = first == word;
            if open {
                found.push((name, String::new()));
            }
        } else if open && let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

/// Returns the peer set that holds an address.
fn set_with(testbed: &Testbed, address: IpAddr) -> Result<String, Failed> {
    let listing = commands::nft(testbed, NEAR, "list table inet palisade")?;
    let holds =
        |text: &str| text.split([' ', ',', '\n', '\t', '{', '}']).any(|word| word == address.to_string());
    let sets = blocks(&listing, "set");
    let set = sets.iter().find(|(_, text)| holds(text) && !text.contains(" . "));
    set.map(|(name, _)| (*name).to_owned())
        .ok_or_else(|| format!("no set holds {address}:\n{listing}").into())
}

/// Returns the chains that the ingress maps have for these addresses.
fn chains_of(testbed: &Testbed, addresses: [IpAddr; 2]) -> Result<Vec<String>, Failed> {
    let mut chains = Vec::new();
    for (map, address) in ["ingress4", "ingress6"].into_iter().zip(addresses) {
        let listing = commands::nft(testbed, NEAR, &format!("list map inet palisade {map}"))?;
        let words: Vec<&str> = listing.split([' ', ',', '\n', '\t']).filter(|w| !w.is_empty()).collect();
        let at = words.iter().position(|w| *w == address.to_string()).ok_or_else(|| listing.clone())?;
        // `ADDRESS : goto CHAIN`, possibly with a counter or a comment in between.
        let verdict = words[at..].iter().position(|w| matches!(*w, "goto" | "jump")).ok_or("no verdict")?;
        chains.push(words.get(at + verdict + 1).ok_or("no chain")?.to_string());
    }
    chains.dedup();
    Ok(chains)
}

fn edits(sandbox: &Sandbox, kind: PodNetwork) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, kind)?;
    testbed.write_policies(&default_policies())?;
    testbed.start(NEAR)?;
    let floods = Floods::start(&testbed)?;
    let agent = testbed.agent(NEAR)?;
    floods.expect_repair(agent, Edit::now(agent), QUIET, "before any edit")?;
    let mut failures = Vec::new();
    for (what, statements) in EDITS {
        let script = statements(&testbed)?;
        let edit = Edit::now(testbed.agent(NEAR)?);
        commands::nft(&testbed, NEAR, &script)?;
        let outcome = floods.expect_repair(testbed.agent(NEAR)?, edit, BOUND, what).and_then(|()| {
            // Edits that allow no traffic are repaired too.
            testbed.agent(NEAR)?.await_equal()?;
            let left = commands::nft(&testbed, NEAR, "list table inet palisade")?;
            ensure(!left.contains("foreign ") && !left.contains("dormant"), || {
                format!("{what}: the agent reports no difference, but the kernel holds:\n{left}")
            })
        });
        if let Err(e) = outcome {
            failures.push(e.message().unwrap_or("failed").to_owned());
            // The next edit starts with a repaired table.
            testbed.remove(NEAR)?;
            testbed.start(NEAR)?;
            let agent = testbed.agent(NEAR)?;
            floods.expect_repair(agent, Edit::now(agent), BOUND, "after the agent was installed again")?;
        }
    }
    ensure(failures.is_empty(), || {
        format!("{} of {} edits:\n{}", failures.len(), EDITS.len(), failures.join("\n"))
    })
}

/// The table is deleted ten times a second, and exists most of the time.
fn deleted_repeatedly(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    testbed.write_policies(&default_policies())?;
    testbed.start(NEAR)?;
    let floods = Floods::start(&testbed)?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        // Added first, since the table may be missing at the moment.
        commands::nft(&testbed, NEAR, "add table inet palisade; delete table inet palisade")?;
        thread::sleep(Duration::from_millis(100));
    }
    let last_edit = Edit::now(testbed.agent(NEAR)?);
    let end = last_edit.at;
    let fresh = floods.denied.iter().filter(|f| f.name.contains("Fresh"));
    let (passed, all) = fresh.map(|f| f.arrived(begin, end)).fold((0, 0), |(a, n), (p, m)| (a + p, n + m));
    println!("{passed} of {all} denied datagrams passed while the table was deleted each 100 ms");
    ensure(passed * 2 < all, || format!("{passed} of {all} denied datagrams passed"))?;
    floods.expect_repair(testbed.agent(NEAR)?, last_edit, BOUND, "after the last of many deletions")?;
    testbed.agent(NEAR)?.await_equal()
}

/// More than fifty commits a second to another table, as kube-proxy and iptables make them.
struct ForeignCommits {
    stop: Arc<AtomicBool>,
    /// The generation of the ruleset at the start.
    first: u32,
    thread: Option<JoinHandle<()>>,
    child: Child,
}

impl ForeignCommits {
    fn start(testbed: &Testbed, table: &str) -> Result<Self, Failed> {
        let script = format!("add table inet {table}; add set inet {table} s {{ type ipv4_addr; }}");
        commands::nft(testbed, NEAR, &script)?;
        let table = table.to_owned();
        let mut command = Command::new("nft");
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = testbed.within(NEAR, || command.spawn())??;
        let mut stdin = child.stdin.take().ok_or("no input")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut add = true;
            while !stopped.load(Ordering::Relaxed) {
                let verb = if add { "add" } else { "delete" };
                if writeln!(stdin, "{verb} element inet {table} s {{ 192.0.2.1 }}")
                    .and_then(|()| stdin.flush())
                    .is_err()
                {
                    return;
                }
                add = !add;
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self { stop, first: generation(testbed)?, thread: Some(thread), child })
    }

    /// Returns the number of commits so far, including those of the agent.
    fn count(&self, testbed: &Testbed) -> Result<u32, Failed> {
        Ok(generation(testbed)?.wrapping_sub(self.first))
    }
}

/// Returns the generation of the ruleset of the node.
fn generation(testbed: &Testbed) -> Result<u32, Failed> {
    let read = || Kernel::open().and_then(|mut kernel| kernel.kernel_generation());
    Ok(testbed.within(NEAR, read)??)
}

impl Drop for ForeignCommits {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The number of elements in the agent's table.
const MANY: u32 = 20_000;

/// Returns a policy that accepts [`MANY`] addresses, no two of which can be merged.
fn many() -> Value {
    let mut peers = Vec::new();
    for i in 0..MANY {
        let mut cidr = String::new();
        // 100.64.0.0/10, every other address.
        _ = write!(cidr, "100.{}.{}.{}/32", 64 + i / 32_768, i / 128 % 256, i % 128 * 2);
        peers.push(json!({"ipBlock": {"cidr": cidr}}));
    }
    policy("many", "srv", json!({"policyTypes": ["Ingress"], "ingress": [{"from": peers}]}))
}

fn busy(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut testbed = Testbed::build(sandbox, PodNetwork::Routed)?;
    testbed.write_policies(&default_policies())?;
    testbed.write_policies(&[many()])?;
    let commits = [ForeignCommits::start(&testbed, "busy")?, ForeignCommits::start(&testbed, "busier")?];
    let begun = Instant::now();
    let begin = Instant::now();
    testbed.start(NEAR)?;
    println!("started under commits in {} ms", begin.elapsed().as_millis());
    let floods = Floods::start(&testbed)?;
    let agent = testbed.agent(NEAR)?;
    floods.expect_repair(agent, Edit::now(agent), QUIET, "before any edit")?;
    let mut failures = Vec::new();
    for (what, script) in [
        ("a chain is flushed", "flush chain inet palisade forward"),
        ("the table is deleted", "delete table inet palisade"),
        ("a map is flushed", "flush map inet palisade ingress4"),
    ] {
        let edit = Edit::now(testbed.agent(NEAR)?);
        commands::nft(&testbed, NEAR, script)?;
        let outcome = floods.expect_repair(
            testbed.agent(NEAR)?,
            edit,
            BOUND_OF_MANY,
            &format!("{what}, among {MANY} elements"),
        );
        failures.extend(outcome.err().map(|e| e.message().unwrap_or("failed").to_owned()));
    }
    let begin = Instant::now();
    testbed.agent(NEAR)?.await_equal()?;
    println!("verified under commits in {} ms", begin.elapsed().as_millis());
    let (made, took) = (commits[0].count(&testbed)?, begun.elapsed());
    println!("{made} commits in {} ms", took.as_millis());
    ensure(failures.is_empty(), || failures.join("\n"))
}

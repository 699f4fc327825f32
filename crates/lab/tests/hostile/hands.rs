//! Others change our table, each in a way of its own, while denied datagrams arrive a thousand times a second. A second
//! after the edit none passes any more, and what is allowed passes again.

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
    ensure,
    flood::{Flood, Ports},
    hand,
    world::{Kind, NEAR, World, denying, policy},
};

pub(crate) const TESTS: &[crate::Test] = &[
    ("hands::every_edit_is_mended_within_a_second_routed", |s| edits(s, Kind::Routed)),
    ("hands::every_edit_is_mended_within_a_second_bridged", |s| edits(s, Kind::Bridged)),
    ("hands::a_table_that_is_deleted_again_and_again_is_made_again_at_once", again_and_again),
    ("hands::commits_to_another_table_keep_nothing_open", busy),
];

/// An edit must be mended in so long.
const BOUND: Duration = Duration::from_secs(1);
/// A debug build reads and writes 20,000 elements in more than a moment.
const BOUND_OF_MANY: Duration = Duration::from_secs(2);
/// How long nothing may arrive before it counts as ended.
const QUIET: Duration = Duration::from_millis(150);
/// A thousand a second, from all senders together.
const PAUSE: Duration = Duration::from_millis(4);

/// Denied and allowed datagrams in both families.
struct Floods {
    denied: Vec<Flood>,
    allowed: Vec<Flood>,
}

impl Floods {
    fn begin(world: &World) -> Result<Self, Failed> {
        let (mut denied, mut allowed) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            for ports in [Ports::Same, Ports::Fresh] {
                denied.push(Flood::begin(world, ("bad", "srv"), family, ports, PAUSE)?);
            }
            denied.push(Flood::begin(world, ("iso", "open"), family, Ports::Fresh, PAUSE * 4)?);
            allowed.push(Flood::begin(world, ("client", "srv"), family, Ports::Fresh, PAUSE * 4)?);
        }
        Ok(Self { denied, allowed })
    }

    /// Waits until nothing denied has arrived for a while; fails if something that was sent more than `bound` after
    /// `edit` arrives, or if what is allowed doesn't.
    fn end_within(&self, edit: Instant, bound: Duration, what: &str) -> Result<(), Failed> {
        let longest = bound + QUIET * 2;
        let last = |now: &dyn Fn() -> bool| loop {
            let last = self.denied.iter().filter_map(|f| f.last_arrived(edit)).max();
            let is_quiet = edit.elapsed() > QUIET * 2 && last.is_none_or(|at| at.elapsed() > QUIET);
            if (is_quiet && now()) || edit.elapsed() > longest {
                return last;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let passes = || {
            let end = Instant::now();
            self.allowed.iter().all(|f| f.arrived(end - QUIET, end).0 > 0)
        };
        let last = last(&passes);
        let passed: usize = self.denied.iter().map(|f| f.arrived(edit, Instant::now()).0).sum();
        let lasted = last.map_or(Duration::ZERO, |at| at - edit);
        println!(
            "{what}: {passed} denied datagrams passed, the last {} ms after the edit",
            lasted.as_millis()
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
        ensure(passes(), || {
            format!("{what}: allowed datagrams do not pass after {} ms", edit.elapsed().as_millis())
        })
    }
}

/// What a hand does: `nft` statements, made from the table as it is.
type Hand = fn(&World) -> Result<String, Failed>;

/// What a program with the right to can do to our table. `srv` is the pod that denies.
const HANDS: &[(&str, Hand)] = &[
    ("the table is set dormant", |_| Ok("add table inet palisade { flags dormant; }".into())),
    ("a chain is flushed", |_| Ok("flush chain inet palisade forward".into())),
    ("the table is deleted", |_| Ok("delete table inet palisade".into())),
    ("a map is flushed", |_| Ok("flush map inet palisade ingress4; flush map inet palisade ingress6".into())),
    ("an element is deleted", |world| {
        let [v4, v6] = addresses(world, "srv")?;
        Ok(format!(
            "delete element inet palisade ingress4 {{ {v4} }}; delete element inet palisade ingress6 {{ {v6} }}"
        ))
    }),
    ("an element is added to a group", |world| {
        let [v4, v6] = addresses(world, "bad")?;
        let [client4, client6] = addresses(world, "client")?;
        let groups = [(set_with(world, client4)?, v4), (set_with(world, client6)?, v6)];
        Ok(groups.map(|(set, bad)| format!("add element inet palisade {set} {{ {bad} }}")).join("; "))
    }),
    ("a rule in front accepts", |_| Ok("insert rule inet palisade forward accept".into())),
    ("the pod's chains are flushed", |world| {
        let chains = chains_of(world, addresses(world, "srv")?)?;
        Ok(chains
            .iter()
            .map(|chain| format!("flush chain inet palisade {chain}"))
            .collect::<Vec<_>>()
            .join("; "))
    }),
    ("a rule in the pod's chain accepts", |world| {
        let chains = chains_of(world, addresses(world, "srv")?)?;
        let insert = |chain: &String| format!("insert rule inet palisade {chain} accept");
        Ok(chains.iter().map(insert).collect::<Vec<_>>().join("; "))
    }),
    ("a chain of a stranger accepts", |_| {
        Ok("add chain inet palisade stranger { type filter hook forward priority -300; policy accept; }; \
            add rule inet palisade stranger accept"
            .into())
    }),
    ("the policy of a chain is to drop", |_| Ok("chain inet palisade forward { policy drop; }".into())),
    ("every table is gone", |_| Ok("flush ruleset".into())),
    ("every table of ours is deleted", |world| {
        let tables = hand::nft(world, NEAR, "list tables")?;
        // The one that says who is at work belongs to that process: the kernel lets nobody else touch it.
        let ours =
            tables.lines().filter(|line| line.contains("palisade") && !line.contains("palisade-agent"));
        Ok(ours.map(|line| format!("delete {line}")).collect::<Vec<_>>().join("; "))
    }),
];

fn addresses(world: &World, pod: &str) -> Result<[IpAddr; 2], Failed> {
    Ok([world.address(pod, Family::V4)?, world.address(pod, Family::V6)?])
}

/// The blocks of a listing: what follows the word, up to its end.
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

/// The set of peers that holds an address.
fn set_with(world: &World, address: IpAddr) -> Result<String, Failed> {
    let listing = hand::nft(world, NEAR, "list table inet palisade")?;
    let holds =
        |text: &str| text.split([' ', ',', '\n', '\t', '{', '}']).any(|word| word == address.to_string());
    let sets = blocks(&listing, "set");
    let set = sets.iter().find(|(_, text)| holds(text) && !text.contains(" . "));
    set.map(|(name, _)| (*name).to_owned())
        .ok_or_else(|| format!("no set holds {address}:\n{listing}").into())
}

/// The chains to which the map of ingress leads these addresses.
fn chains_of(world: &World, addresses: [IpAddr; 2]) -> Result<Vec<String>, Failed> {
    let mut chains = Vec::new();
    for (map, address) in ["ingress4", "ingress6"].into_iter().zip(addresses) {
        let listing = hand::nft(world, NEAR, &format!("list map inet palisade {map}"))?;
        let words: Vec<&str> = listing.split([' ', ',', '\n', '\t']).filter(|w| !w.is_empty()).collect();
        let at = words.iter().position(|w| *w == address.to_string()).ok_or_else(|| listing.clone())?;
        // `ADDRESS : goto CHAIN`, with a counter or a comment in between, perhaps.
        let verdict = words[at..].iter().position(|w| matches!(*w, "goto" | "jump")).ok_or("no verdict")?;
        chains.push(words.get(at + verdict + 1).ok_or("no chain")?.to_string());
    }
    chains.dedup();
    Ok(chains)
}

fn edits(sandbox: &Sandbox, kind: Kind) -> Result<(), Failed> {
    let mut world = World::build(sandbox, kind)?;
    world.edit(&denying())?;
    world.start(NEAR)?;
    let floods = Floods::begin(&world)?;
    floods.end_within(Instant::now(), QUIET, "before any edit")?;
    let mut failures = Vec::new();
    for (what, hand) in HANDS {
        let script = hand(&world)?;
        let edit = Instant::now();
        hand::nft(&world, NEAR, &script)?;
        let outcome = floods.end_within(edit, BOUND, what).and_then(|()| {
            // What does not open anything is put right all the same.
            world.agent(NEAR)?.equal()?;
            let left = hand::nft(&world, NEAR, "list table inet palisade")?;
            ensure(!left.contains("stranger ") && !left.contains("dormant"), || {
                format!("{what}: the agent says that all is well, and the kernel holds:\n{left}")
            })
        });
        if let Err(e) = outcome {
            failures.push(e.message().unwrap_or("failed").to_owned());
            // The next hand finds everything in order.
            world.remove(NEAR)?;
            world.start(NEAR)?;
            thread::sleep(QUIET);
        }
    }
    ensure(failures.is_empty(), || {
        format!("{} of {} edits:\n{}", failures.len(), HANDS.len(), failures.join("\n"))
    })
}

/// Deleted ten times a second, the table is there most of the time.
fn again_and_again(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut world = World::build(sandbox, Kind::Routed)?;
    world.edit(&denying())?;
    world.start(NEAR)?;
    let floods = Floods::begin(&world)?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        // There may be none at the moment.
        hand::nft(&world, NEAR, "add table inet palisade; delete table inet palisade")?;
        thread::sleep(Duration::from_millis(100));
    }
    let end = Instant::now();
    let fresh = floods.denied.iter().filter(|f| f.name.contains("Fresh"));
    let (passed, all) = fresh.map(|f| f.arrived(begin, end)).fold((0, 0), |(a, n), (p, m)| (a + p, n + m));
    println!("{passed} of {all} denied datagrams passed while the table was deleted each 100 ms");
    ensure(passed * 2 < all, || format!("{passed} of {all} denied datagrams passed"))?;
    floods.end_within(end, BOUND, "after the last of many deletions")?;
    world.agent(NEAR)?.equal()
}

/// Commits to a table of somebody else, more than fifty a second, as kube-proxy and iptables make them.
struct Commits {
    over: Arc<AtomicBool>,
    /// The number of the kernel's tables when they began.
    first: u32,
    thread: Option<JoinHandle<()>>,
    child: Child,
}

impl Commits {
    fn begin(world: &World, table: &str) -> Result<Self, Failed> {
        let script = format!("add table inet {table}; add set inet {table} s {{ type ipv4_addr; }}");
        hand::nft(world, NEAR, &script)?;
        let table = table.to_owned();
        let mut command = Command::new("nft");
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = world.within(NEAR, || command.spawn())??;
        let mut stdin = child.stdin.take().ok_or("no input")?;
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = thread::spawn(move || {
            let mut add = true;
            while !until.load(Ordering::Relaxed) {
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
        Ok(Self { over, first: generation(world)?, thread: Some(thread), child })
    }

    /// How many commits there have been, those of the agent included.
    fn made(&self, world: &World) -> Result<u32, Failed> {
        Ok(generation(world)?.wrapping_sub(self.first))
    }
}

/// The number of the state of all tables of the first node.
fn generation(world: &World) -> Result<u32, Failed> {
    let read = || Kernel::open().and_then(|mut kernel| kernel.kernel_generation());
    Ok(world.within(NEAR, read)??)
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// How many elements of ours there are.
const MANY: u32 = 20_000;

/// A policy that lets in so many addresses, of which no two can be joined.
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
    let mut world = World::build(sandbox, Kind::Routed)?;
    world.edit(&denying())?;
    world.edit(&[many()])?;
    let commits = [Commits::begin(&world, "busy")?, Commits::begin(&world, "busier")?];
    let begun = Instant::now();
    let begin = Instant::now();
    world.start(NEAR)?;
    println!("started under commits in {} ms", begin.elapsed().as_millis());
    let floods = Floods::begin(&world)?;
    floods.end_within(Instant::now(), QUIET, "before any edit")?;
    let mut failures = Vec::new();
    for (what, script) in [
        ("a chain is flushed", "flush chain inet palisade forward"),
        ("the table is deleted", "delete table inet palisade"),
        ("a map is flushed", "flush map inet palisade ingress4"),
    ] {
        let edit = Instant::now();
        hand::nft(&world, NEAR, script)?;
        let outcome = floods.end_within(edit, BOUND_OF_MANY, &format!("{what}, among {MANY} elements"));
        failures.extend(outcome.err().map(|e| e.message().unwrap_or("failed").to_owned()));
    }
    let begin = Instant::now();
    world.agent(NEAR)?.equal()?;
    println!("verified under commits in {} ms", begin.elapsed().as_millis());
    let (made, took) = (commits[0].made(&world)?, begun.elapsed());
    println!("{made} commits in {} ms", took.as_millis());
    ensure(failures.is_empty(), || failures.join("\n"))
}

//! What other programs can do to the table. `verify` names each edit, and one transaction repairs it. Afterwards packets
//! that the plan denies are dropped again.
//!
//! | object | edit | repair |
//! | --- | --- | --- |
//! | table | deleted; made dormant; created again with another comment, an owner, or as persistent | created; woken; replaced |
//! | chain | added, with or without a hook; deleted; renamed | deleted; created |
//! | chain | policy; another hook, priority, type or device; comment; counters | replaced with the table |
//! | set | added; deleted | deleted; created |
//! | set | size, timeout, gc interval, policy, flags, type of keys or data, comment, statements | replaced with the table |
//! | element | added; removed; another verdict; catch-all | removed; added; replaced with the table |
//! | element | a comment, a timeout or a counter | replaced with the table |
//! | rule | inserted, removed, replaced, reordered, commented; with an anonymous set or chain | all rules of the chain are rewritten |
//! | counter, quota, limit, helper, timeout, expectation, synproxy, flow table | added | deleted |
//! | table of the same name in another family | anything | not the agent's table, left alone |
//! | table that belongs to a socket | created in place of the agent's | the kernel refuses changes: reported, and retried |
//!
//! Handles have no effect, so a rule that was replaced by the same rule is no difference. Hardware offload (a chain's flag)
//! is not available on hooks of the `inet` family.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel, NetlinkSocket, Transport,
    survey::{OwnTable, Survey},
};
use palisade_policy::{
    Direction, IpRange, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use crate::{
    agreement::shape,
    revocation::{address_on_loopback, loopback_up},
    sandbox::trial_with_nft,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_with_nft("every_edit_by_another_program_is_named_and_repaired", all_edits),
        trial_with_nft("a_table_with_an_owner_is_named_and_replaced_later", owned),
        trial_with_nft("tables_of_the_same_name_in_other_families_are_left_alone", other_families),
    ]
}

/// An edit, and the kind and text of a difference that must be reported.
struct Edit {
    /// Commands of the `nft` program, or raw attributes for what it doesn't support.
    by: By,
    kind: &'static str,
    words: String,
}

enum By {
    Nft(String),
    /// Message type, flags and attributes.
    Netlink(u16, u16, Vec<u8>),
}

/// Denied pods on the loopback device, and the peers that they must not reach.
const PODS: [(&str, &str); 2] = [("127.0.0.1", "127.0.0.2"), ("fd00::1", "fd00::2")];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pods that may send nothing, and one per family that some peers and the pod itself may reach on many ports.
fn plan() -> NodePlan {
    let mut plan = NodePlan::default();
    let many =
        (0..20).fold(PortSet::none(), |ports, n| ports.union(&PortSet::range(1000 + 10 * n, 1004 + 10 * n)));
    let row = Traffic::of(Protocol::Tcp, many);
    let table = |direction, exact, ranges| PolicyTable { direction, exact, ranges, rest: Traffic::none() };
    let (silent, guarded) = (PolicyTableId([0x77; 16]), PolicyTableId([0x78; 16]));
    let (members, blocks) = (PeerSetId([1; 16]), PeerSetId([2; 16]));
    let egress = table(Direction::Egress, BTreeMap::new(), BTreeMap::new());
    let ingress = table(Direction::Ingress, [(members, row.clone())].into(), [(blocks, row.clone())].into());
    plan.tables.extend([(silent, egress), (guarded, ingress)]);
    plan.egress.extend(PODS.map(|(pod, _)| (address(pod), silent)));
    let peers = ["10.0.0.1", "10.0.0.2", "fd00:1::1", "fd00:1::2"].map(address);
    plan.peer_sets.insert(members, PeerSet::Addresses(peers.into()));
    let block = |first, last| IpRange { first: address(first), last: address(last) };
    let ranges = vec![block("172.16.0.0", "172.31.255.255"), block("fd00:2::", "fd00:2::ffff")];
    plan.peer_sets.insert(blocks, PeerSet::Ranges(ranges));
    for pod in ["10.244.0.3", "fd00:244::3"].map(address) {
        plan.ingress.insert(pod, guarded);
        plan.hairpin.insert(pod, row.clone());
    }
    plan
}

/// Runs the `nft` program. The error is its output.
fn try_nft(command: &str) -> Result<(), String> {
    let output = Command::new("nft").arg(command).output();
    let output = output.expect("the nft program (package nftables) acts as another program");
    let errors = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(errors()) }
}

fn nft(command: &str) {
    try_nft(command).unwrap_or_else(|errors| panic!("{command}: {errors}"));
}

fn listing(of: &str) -> String {
    let arguments = ["-a", "list"].into_iter().chain(of.split(' '));
    let output = Command::new("nft").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a name in the listing with this prefix.
fn named(prefix: &str) -> String {
    let listing = listing("ruleset");
    let mut words = listing.split_whitespace().filter(|word| word.starts_with(prefix));
    words.next().unwrap_or_else(|| panic!("no {prefix}")).trim_end_matches(',').to_owned()
}

/// Returns the handles of a chain's rules.
fn handles(chain: &str) -> Vec<String> {
    let listing = listing(&format!("chain inet palisade {chain}"));
    let rules = listing.lines().filter(|line| !line.contains("chain ") && !line.contains("table "));
    rules.filter_map(|line| Some(line.split_once("# handle ")?.1.to_owned())).collect()
}

/// Returns the denied pods that reach their peers.
fn leaks() -> Vec<&'static str> {
    let leak = |(pod, peer): &(&'static str, &'static str)| {
        let server = UdpSocket::bind((address(peer), 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let client = UdpSocket::bind((address(pod), 0)).unwrap();
        // Sending fails if the node's output is dropped.
        _ = client.send_to(b"x", server.local_addr().unwrap());
        server.recv(&mut [0; 8]).is_ok().then_some(*pod)
    };
    PODS.iter().filter_map(leak).collect()
}

pub(crate) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u16 + 4).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

pub(crate) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: [u8; 2],
    body: &[u8],
) -> Vec<u8> {
    let mut out = ((20 + body.len()) as u32).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0, 0, 0, 0, family, 0, resource[0], resource[1]]);
    out.extend(body);
    out
}

/// Sends messages of the family `inet` as one transaction.
fn netlink(socket: &mut NetlinkSocket, messages: &[(u16, u16, Vec<u8>)]) {
    let mut batch = message(0x10, 1, 1, 0, [0, 10], &[]);
    for (index, (kind, flags, body)) in messages.iter().enumerate() {
        // NLM_F_REQUEST | NLM_F_ACK
        batch.extend(message(0x0a00 | kind, flags | 5, 2 + index as u32, 1, [0, 0], body));
    }
    batch.extend(message(0x11, 1, 99, 0, [0, 10], &[]));
    socket.send(&batch).unwrap();
    for _ in messages {
        assert_eq!(
            socket.receive(true).unwrap()[16..20],
            [0; 4],
            "the kernel refused a message of the other program"
        );
    }
}

fn edits() -> Vec<Edit> {
    let (group, row) = (named("group_"), named("row_egress_"));
    let is_v6 = group.ends_with('6');
    let (stranger, of) = if is_v6 { ("2001:db8::77", "ip6") } else { ("192.0.2.77", "ip") };
    let first = |chain: &str| handles(chain)[0].clone();
    let third = |chain: &str| handles(chain)[2].clone();
    let table = "inet palisade";
    // Deletes a set that rules use, so that another can replace it.
    let without_self4 =
        format!("flush chain {table} forward4; flush chain {table} input4; delete set {table} self4;");
    let recreated = |what: &str| {
        format!("{without_self4} add set {table} self4 {{ type ipv4_addr . ipv4_addr; {what} }}")
    };
    let input_recreated = |what: &str| {
        format!("flush chain {table} input; delete chain {table} input; add chain {table} input {{ {what} }}")
    };
    let mut out = Vec::new();
    let mut edit = |command: String, kind: &'static str, text: &str| {
        out.push(Edit { by: By::Nft(command), kind, words: text.to_owned() });
    };
    // The table.
    edit("flush ruleset".into(), "no-table", "there is no table");
    edit(format!("delete table {table}"), "no-table", "there is no table");
    edit(format!("add table {table} {{ flags dormant; }}"), "dormant", "none of its rules are enforced");
    edit(
        format!("delete table {table}; add table {table} {{ comment \"mine\"; }}"),
        "other-table",
        "its comment is \"mine\"",
    );
    // Chains.
    edit(format!("add chain {table} extra"), "extra-chain", "chain extra is unexpected");
    for hook in ["input priority -10", "prerouting priority -300"] {
        let early = format!("add chain {table} early {{ type filter hook {hook}; policy accept; accept; }}");
        edit(early, "extra-chain", "chain early is unexpected");
    }
    edit(
        format!("add chain {table} early {{ type filter hook prerouting priority -300; notrack; }}"),
        "extra-chain",
        "chain early",
    );
    edit(
        format!("flush chain {table} input; delete chain {table} input"),
        "missing-chain",
        "chain input is missing",
    );
    edit(format!("rename chain {table} {row} other"), "missing-chain", "row_egress");
    edit(format!("add chain {table} input {{ policy drop; }}"), "hook", "policy drop");
    edit(input_recreated("type filter hook input priority 10;"), "hook", "priority 10");
    edit(input_recreated("type filter hook output priority 0;"), "hook", "on hook 3");
    edit(
        input_recreated("type nat hook input priority 0;"),
        "attribute",
        "chain input has unexpected type nat",
    );
    edit(
        input_recreated("type filter hook ingress device lo priority 0;"),
        "attribute",
        "chain input has unexpected device lo",
    );
    edit(
        format!(
            "flush chain {table} labels; delete chain {table} labels; add chain {table} labels {{ comment \"x\"; }}; add rule {table} labels ct label set 127"
        ),
        "attribute",
        "chain labels has comment x instead of makes room for labels",
    );
    edit(input_recreated(""), "hook", "on no hook");
    // Sets.
    edit(format!("add set {table} more {{ type mark; }}"), "extra-set", "set more is unexpected");
    edit(
        format!(
            "add set {table} more {{ type ipv4_addr; flags dynamic; }}; add rule {table} forward add @more {{ ip saddr }}"
        ),
        "extra-set",
        "set more",
    );
    edit(without_self4.clone(), "missing-set", "set self4 is missing");
    edit(
        format!("add set {table} self4 {{ type ipv4_addr . ipv4_addr; size 4096; }}"),
        "attribute",
        "set self4 has unexpected size 4096",
    );
    edit(recreated("size 4096;"), "attribute", "has unexpected size 4096");
    edit(recreated("flags timeout; timeout 1h; gc-interval 7s;"), "attribute", "flags");
    edit(
        recreated("flags timeout; timeout 1h; gc-interval 7s;"),
        "attribute",
        "has unexpected timeout 3600000 ms",
    );
    edit(
        recreated("flags timeout; timeout 1h; gc-interval 7s;"),
        "attribute",
        "has unexpected gc interval 7000 ms",
    );
    edit(recreated("policy memory;"), "attribute", "has unexpected policy memory");
    edit(recreated("comment \"theirs\";"), "attribute", "set self4 has unexpected comment theirs");
    edit(recreated("counter;"), "attribute", "statements counter");
    edit(recreated("flags constant;"), "attribute", "flags");
    edit(
        format!("{without_self4} add set {table} self4 {{ type mark; }}"),
        "other-set",
        "set self4 has keys or data of another type",
    );
    edit(
        format!("{without_self4} add map {table} self4 {{ type ipv4_addr . ipv4_addr : mark; }}"),
        "other-set",
        "set self4",
    );
    // Elements.
    for map in ["egress4", "ingress4"] {
        edit(format!("flush map {table} {map}"), "elements", "lacks");
    }
    edit(format!("delete element {table} egress4 {{ 127.0.0.1 }}"), "elements", "lacks 127.0.0.1");
    edit(
        format!("add element {table} egress4 {{ 192.0.2.9 : accept }}"),
        "elements",
        "has unexpected 192.0.2.9 : accept",
    );
    for verdict in ["accept", "return", "jump labels"] {
        edit(
            format!(
                "delete element {table} egress4 {{ 127.0.0.1 }}; add element {table} egress4 {{ 127.0.0.1 : {verdict} }}"
            ),
            "elements",
            &format!("127.0.0.1 : {verdict}"),
        );
    }
    edit(
        format!("add element {table} {group} {{ {stranger} }}"),
        "elements",
        &format!("has unexpected {stranger}"),
    );
    edit(
        format!("add element {table} {group} {{ {stranger} comment \"x\" }}"),
        "elements",
        &format!("has unexpected {stranger}"),
    );
    edit(
        format!("add element {table} self4 {{ 127.0.0.1 . 127.0.0.2 }}"),
        "elements",
        "has unexpected 127.0.0.1",
    );
    edit(format!("add element {table} self4 {{ * }}"), "elements", "has unexpected catch-all element");
    edit(format!("add element {table} egress4 {{ * : accept }}"), "elements", "catch-all element : accept");
    let chain = named("egress_77777777777777777777777777777777_4");
    edit(
        format!(
            "delete element {table} egress4 {{ 127.0.0.1 }}; add element {table} egress4 {{ 127.0.0.1 comment \"x\" : jump {chain} }}"
        ),
        "elements",
        "has unexpected 127.0.0.1 : jump egress_77777777777777777777777777777777_4",
    );
    edit(format!("flush set {table} {group}"), "elements", "lacks");
    edit(format!("add element {table} generation {{ 77 }}"), "elements", "transaction number");
    edit(format!("flush set {table} generation"), "elements", "transaction number");
    // Rules.
    edit(format!("insert rule {table} input accept"), "decision", "allowed by the kernel's rules");
    edit(format!("insert rule {table} input udp dport {{ 53, 1000-65535 }} accept"), "rule", "is unexpected");
    edit(format!("insert rule {table} input jump {{ accept; }}"), "rule", "is unexpected");
    edit(
        format!(
            "add chain {table} extra; add rule {table} extra accept; insert rule {table} input jump extra"
        ),
        "extra-chain",
        "chain extra",
    );
    edit(
        format!("add chain {table} extra; add rule {table} extra {of} saddr @{group} accept"),
        "extra-chain",
        "chain extra",
    );
    edit(format!("flush chain {table} {row}"), "rule", "is missing");
    for chain in ["forward", "input", "forward4", "input6"] {
        edit(format!("flush chain {table} {chain}"), "rule", "is missing");
        edit(format!("delete rule {table} {chain} handle {}", first(chain)), "rule", "is missing");
        edit(format!("replace rule {table} {chain} handle {} accept", first(chain)), "rule", "is [accept]");
        edit(
            format!(
                "delete rule {table} {chain} handle {}; insert rule {table} {chain} ct state established,related accept",
                third(chain)
            ),
            "rule",
            "",
        );
    }
    edit(
        format!(
            "replace rule {table} input handle {} ct label 127 counter drop comment \"x\"",
            first("input")
        ),
        "attribute",
        "of chain input has unexpected comment x",
    );
    // Objects.
    for (object, body) in [
        ("counter", ""),
        ("quota", "over 10 mbytes"),
        ("limit", "rate 5/second"),
        ("ct helper", "type \"ftp\" protocol tcp;"),
        ("ct timeout", "protocol tcp; policy = { established: 120 };"),
        ("ct expectation", "protocol tcp; dport 9876; timeout 2m; size 12; l3proto ip;"),
        ("synproxy", "mss 1460 wscale 7"),
    ] {
        edit(format!("add {object} {table} theirs {{ {body} }}"), "extra-object", "theirs is unexpected");
    }
    edit(
        format!("add counter {table} theirs; insert rule {table} input counter name theirs accept"),
        "extra-object",
        "counter theirs",
    );
    // Some kernels are built without flow tables.
    let fast = format!("add flowtable {table} fast {{ hook ingress priority 0; devices = {{ lo }}; }}");
    if try_nft(&fast).is_ok() {
        nft(&format!("delete flowtable {table} fast"));
        let used = format!("{fast}; insert rule {table} forward ip protocol tcp flow add @fast");
        for command in [fast, used] {
            edit(command, "extra-object", "flow table fast is unexpected");
        }
    }
    // NFT_MSG_NEWCHAIN with NFTA_CHAIN_COUNTERS (8): packets and bytes, which the `nft` program can't set.
    let counters = [attribute(1, &[0; 8]), attribute(2, &7u64.to_be_bytes())].concat();
    let body = [text(1, "palisade"), text(3, "input"), attribute(0x8008, &counters)].concat();
    let by = By::Netlink(3, 0, body);
    out.push(Edit { by, kind: "attribute", words: "chain input has unexpected counters on".to_owned() });
    out
}

fn all_edits() {
    loopback_up();
    for address in [PODS[1].0, PODS[1].1] {
        address_on_loopback(address.parse().unwrap());
    }
    // A new address takes a moment to become usable.
    assert!(
        (0..100).any(|_| leaks().len() == 2),
        "without rules both pods must reach their peers, not {:?}",
        leaks()
    );
    let plan = plan();
    let start = || Enforcer::start(Kernel::open().unwrap(), &plan).unwrap().0;
    let mut enforcer = start();
    let whole = shape(&mut enforcer);
    assert_eq!(leaks(), [""; 0]);
    let mut faults = Vec::new();
    let count = edits().len();
    for index in 0..count {
        // Handles and names change with each edit.
        let edit = edits().swap_remove(index);
        let what = match edit.by {
            By::Nft(command) => {
                if let Err(errors) = try_nft(&command) {
                    faults.push(format!("{command}: the nft program failed: {errors}"));
                    continue;
                }
                command
            }
            By::Netlink(kind, flags, body) => {
                netlink(&mut NetlinkSocket::open().unwrap(), &[(kind, flags, body)]);
                edit.words.clone()
            }
        };
        let before = faults.len();
        let differences = enforcer.verify().unwrap().differences;
        let named =
            |d: &palisade_nft::Difference| d.kind() == edit.kind && d.to_string().contains(&edit.words);
        if !differences.iter().any(named) {
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            faults.push(format!("{what}: no {} with {:?} in {lines:#?}", edit.kind, edit.words));
        }
        match enforcer.repair() {
            // A missing chain is created one transaction before the elements that jump to it.
            Ok(commit) if (1..=2).contains(&commit.transactions) => {}
            other => faults.push(format!("{what}: {other:?}")),
        }
        let differences = enforcer.verify().unwrap().differences;
        if !differences.is_empty() {
            faults.push(format!("{what}: repaired, but {differences:?}"));
        }
        if shape(&mut enforcer) != whole {
            faults.push(format!("{what}: repaired, but not equal"));
        }
        if !leaks().is_empty() {
            faults.push(format!("{what}: {:?} pass", leaks()));
        }
        if faults.len() > before {
            enforcer.remove().unwrap();
            enforcer = start();
        }
    }
    assert_eq!(faults.len(), 0, "{} of {count}: {faults:#?}", faults.len());
    enforcer.remove().unwrap();
}

/// `NFT_TABLE_F_OWNER` and `NFT_TABLE_F_PERSIST`.
const OWNER: u32 = 2;
const PERSIST: u32 = 4;

fn owned() {
    loopback_up();
    let plan = plan();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let whole = shape(&mut enforcer);
    for flags in [OWNER, OWNER | PERSIST] {
        nft("delete table inet palisade");
        let mut owner = NetlinkSocket::open().unwrap();
        let comment = attribute(6, b"\0\x12palisade format 1\0");
        let body = [text(1, "palisade"), attribute(2, &flags.to_be_bytes()), comment].concat();
        // NFT_MSG_NEWTABLE, NLM_F_CREATE
        netlink(&mut owner, &[(0, 0x400, body)]);
        let lines = |enforcer: &mut Enforcer| -> Vec<String> {
            enforcer.verify().unwrap().differences.iter().map(ToString::to_string).collect()
        };
        let found = lines(&mut enforcer);
        let expected = format!("belongs to another program (netlink port {})", owner.port());
        assert!(found.iter().any(|line| line.contains(&expected)), "no {expected:?} in {found:#?}");
        let own_table = Survey::read(enforcer.kernel()).unwrap().own_table;
        assert_eq!(own_table, Some(OwnTable::Owned(owner.port())));
        let refused = enforcer.repair().unwrap_err().to_string();
        assert!(refused.contains(&expected), "{refused}");
        let refused = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap_err().to_string();
        assert!(refused.contains(&expected), "{refused}");
        drop(owner);
        // A process that another test is starting holds a copy of the socket until it executes its program.
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(Survey::read(enforcer.kernel()).unwrap().own_table, Some(OwnTable::Owned(_))) {
            assert!(Instant::now() < deadline, "the table still has an owner");
        }
        if flags & PERSIST != 0 {
            let found = lines(&mut enforcer);
            assert!(found.iter().any(|line| line.contains("has unexpected flags persist")), "{found:#?}");
        }
        enforcer.repair().unwrap();
        assert_eq!(shape(&mut enforcer), whole);
        assert_eq!(enforcer.verify().unwrap().differences, []);
    }
    enforcer.remove().unwrap();
}

fn other_families() {
    let plan = plan();
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let whole = shape(&mut enforcer);
    let theirs = ["ip", "ip6", "bridge", "arp"];
    for family in theirs {
        nft(&format!(
            "add table {family} palisade {{ flags dormant; chain input {{ accept; }}; set self4 {{ type mark; }}; counter theirs {{ }}; }}"
        ));
    }
    assert_eq!(enforcer.verify().unwrap().differences, []);
    enforcer.repair().unwrap();
    assert_eq!(shape(&mut enforcer), whole);
    enforcer.remove().unwrap();
    let left = listing("ruleset");
    for family in theirs {
        assert!(left.contains(&format!("table {family} palisade {{")), "{left}");
    }
}

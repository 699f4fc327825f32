//! The tests of the doctor.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use palisade_lab::{
    Lab, Layout, LayoutOptions, Place, Sandbox,
    agent::palisade,
    enforce::{Enforce, MakeEnforcer, NoEnforcement},
    namespace::set_sysctls,
};
use palisade_policy::{Change, Cluster, Labels, Namespace, Pod};
use palisade_testkit::running_pod;
use serde_json::Value;

type Test = (&'static str, fn(&Sandbox) -> Result<(), Failed>);

/// The tests that need the program `nft` too.
const WITH_NFT: &[Test] = &[
    ("other_policy_agents_and_shortcuts_are_found", others),
    ("a_table_of_another_version_is_named", own_table),
    ("the_self_test_leaves_nothing_behind", nothing_stays),
    ("no_table_stays_on_a_bridged_node", bridged_tables),
];

/// The tests of a target.
pub(crate) fn tests(with_nft: bool) -> &'static [Test] {
    if with_nft { WITH_NFT } else { TESTS }
}

const TESTS: &[Test] = &[
    ("a_healthy_node_passes", healthy),
    ("a_bridged_node_passes", bridged),
    ("a_bridged_node_with_checked_sources_passes", checked_sources),
    ("bridges_that_bypass_netfilter_are_found", past_netfilter),
    ("a_node_without_forwarding_is_found", no_forwarding),
    ("programs_on_pods_interfaces_are_found", programs),
    ("services_that_ipvs_translates_are_found", ipvs),
    ("an_agent_that_exited_differs_from_one_that_never_ran", agents),
    ("the_api_server_is_checked_unless_offline", api),
    ("missing_capabilities_are_reported", without_rights),
];

fn no_enforcer() -> MakeEnforcer {
    Arc::new(|_| Box::new(NoEnforcement) as Box<dyn Enforce>)
}

/// Two pods on each of two nodes.
fn lab(sandbox: &Sandbox, bridged: bool, make: MakeEnforcer) -> Result<Lab, Failed> {
    let mut cluster = Cluster::default();
    cluster.apply(Change::SetNamespace(Namespace::new("x", &Labels::default())));
    for (name, node) in [("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n2")] {
        cluster.apply(Change::SetPod(Pod { node: Some(node.into()), ..running_pod("x", name) }));
    }
    let layout = Layout::of(&cluster, &LayoutOptions { bridged, ..LayoutOptions::default() })?;
    Ok(Lab::build(sandbox, layout, make)?)
}

/// Runs a program in a node's network.
fn on_node(lab: &Lab, command: &mut Command) -> Output {
    lab.run_in(&Place::Node("n1".into()), || command.stdin(Stdio::null()).output()).unwrap().unwrap()
}

fn palisade_doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command
        .arg("doctor")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("PALISADE_SOCKET")
        .env("HOME", "/nonexistent");
    command
}

/// Runs the doctor on node `n1`; returns its report and exit code.
fn doctor(lab: &Lab, arguments: &[&str]) -> (Answer, i32) {
    let output = on_node(lab, palisade_doctor(arguments).args(["-o", "json"]));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "", "{arguments:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["schema"], "palisade.doctor/v1");
    (Answer(answer), output.status.code().unwrap())
}

struct Answer(Value);

impl Answer {
    /// Returns the first finding with this id.
    #[track_caller]
    fn of(&self, id: &str) -> (String, String) {
        let checks = self.0["checks"].as_array().unwrap();
        let check = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id} in {checks:#?}"));
        // Every finding that is not ok has a cure.
        assert_eq!(check["status"] != "ok", check["cure"].is_string(), "{check}");
        (check["status"].as_str().unwrap().to_owned(), check["found"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn is(&self, id: &str, status: &str, part: &str) {
        let (got, found) = self.of(id);
        assert!(got == status && found.contains(part), "{id}: {got}: {found}");
    }

    /// The ids of all findings that are not `ok`.
    fn bad(&self) -> Vec<&str> {
        let checks = self.0["checks"].as_array().unwrap();
        checks.iter().filter(|c| c["status"] != "ok").map(|c| c["id"].as_str().unwrap()).collect()
    }
}

fn nft(lab: &Lab, command: &str) {
    let output = on_node(lab, Command::new("nft").arg(command));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Answers each request as an agent that holds pods by these means. Ends with the process.
fn answering(listener: UnixListener, held_by: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            if BufReader::new(&stream).read_line(&mut line).is_ok_and(|read| read > 0) {
                let answer = format!(r#"{{"version":1,"reply":{{"status":{{"held_by":{held_by}}}}}}}"#);
                // Whoever asked may be gone.
                _ = (&stream).write_all(format!("{answer}\n").as_bytes());
            }
        }
    });
}

fn healthy(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, palisade())?;
    let dir = tempfile::TempDir::new()?;
    let path = dir.path().join("agent.sock");
    answering(UnixListener::bind(&path)?, r#"["nri","cni"]"#);
    let (answer, code) = doctor(&lab, &["--offline", "--socket", path.to_str().unwrap()]);
    assert_eq!((answer.bad(), code), (vec![], 0));
    assert_eq!(answer.0["healthy"], true);
    answer.is("wiring-routed", "ok", "(IPv4 TCP, IPv4 UDP, IPv6 TCP, IPv6 UDP)");
    answer.is("table", "ok", "of this version");
    answer.is("bridge-netfilter", "ok", "routed");
    answer.is("agent", "ok", "an agent listens");
    answer.is("pod-starts", "ok", "by NRI and by the CNI plugin");
    // The text output has the same findings.
    let arguments = ["--offline", "--no-probe", "--socket", path.to_str().unwrap()];
    let output = on_node(&lab, &mut palisade_doctor(&arguments));
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("ok       nftables-rules     every kind of rule is accepted"), "{text}");
    assert!(text.ends_with("\n\n0 fail, 0 warn, 0 unknown, 22 ok\n"), "{text}");
    assert!(!text.contains("wiring"), "{text}");
    Ok(())
}

fn bridged(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, true, no_enforcer())?;
    let before = links(&lab);
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec![], 0));
    answer.is("bridge-netfilter", "ok", "bridged packets of cni0 pass netfilter");
    answer.is(
        "wiring-bridge",
        "ok",
        "on bridge cni0 pass the forward hook (IPv4 TCP, IPv4 UDP, IPv6 TCP, IPv6 UDP)",
    );
    answer.is("wiring-routed", "ok", "IPv6 UDP");
    assert_eq!(links(&lab), before, "no link stays, and the bridge has its address still");
    Ok(())
}

/// The packets of the doctor are no pod's. The agent drops those to whose source no route leads back.
fn checked_sources(sandbox: &Sandbox) -> Result<(), Failed> {
    let mut lab = lab(sandbox, true, palisade())?;
    let cluster = lab.layout().cluster.clone();
    lab.update(&cluster)?;
    let routes = || {
        let node = Place::Node("n1".into());
        let [v4, v6] = ["route", "ipv6_route"].map(|name| format!("/proc/thread-self/net/{name}"));
        lab.run_in(&node, || [v4, v6].map(|path| fs::read_to_string(path).unwrap())).unwrap()
    };
    let before = routes();
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!(code, 0);
    let families = "on bridge cni0 pass the forward hook (IPv4 TCP, IPv4 UDP, IPv6 TCP, IPv6 UDP)";
    answer.is("wiring-bridge", "ok", families);
    assert_eq!(routes()[0], before[0], "no route stays");
    assert!(!routes()[1].contains("fd70616c69736164"), "{:?}", routes());
    Ok(())
}

fn bridged_tables(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, true, no_enforcer())?;
    let before = listed(&lab);
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec![], 0));
    assert_eq!(listed(&lab), before);
    Ok(())
}

fn past_netfilter(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, true, no_enforcer())?;
    let set = |name: &str, value: &str| {
        let setting = [(name, value)];
        lab.run_in(&Place::Node("n1".into()), || set_sysctls(&setting)).unwrap()
    };
    set("bridge/bridge-nf-call-iptables", "0")?;
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec!["bridge-netfilter", "wiring-bridge"], 1));
    assert_eq!(answer.0["healthy"], false);
    answer.is(
        "bridge-netfilter",
        "fail",
        "net.bridge.bridge-nf-call-iptables is 0: packets between pods on cni0",
    );
    answer.is("wiring-bridge", "fail", "arrive without passing the forward hook (IPv4 TCP, IPv4 UDP)");
    set("bridge/bridge-nf-call-iptables", "1")?;
    set("bridge/bridge-nf-call-ip6tables", "0")?;
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec!["bridge-netfilter", "wiring-bridge"], 1));
    answer.is("bridge-netfilter", "fail", "IPv6 packets between pods on cni0");
    answer.is("wiring-bridge", "fail", "(IPv6 TCP, IPv6 UDP)");
    Ok(())
}

fn no_forwarding(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    let off = [("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")];
    lab.run_in(&Place::Node("n1".into()), || set_sysctls(&off))??;
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec!["ip-forward", "wiring-routed"], 1));
    answer.is("ip-forward", "fail", "forwards neither IPv4 nor IPv6");
    answer.is("wiring-routed", "unknown", "no packets were sent");
    Ok(())
}

fn programs(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    let (answer, _) = doctor(&lab, &["--offline", "--no-probe"]);
    answer.is("ebpf", "ok", "no XDP or tc program");
    lab.run_in(&Place::Node("n1".into()), || tc_program(pod_interface()))?;
    let (answer, code) = doctor(&lab, &["--offline", "--no-probe"]);
    assert_eq!((answer.bad(), code), (vec!["ebpf"], 0), "a warning");
    answer.is("ebpf", "warn", "eBPF programs are attached to pods' interfaces (");
    Ok(())
}

/// The index of a pod's interface: of `pod7` it is 107 in every lab.
fn pod_interface() -> i32 {
    let lines = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = lines.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    100 + names.filter_map(|name| name.strip_prefix("pod")?.parse::<i32>().ok()).next().unwrap()
}

/// Puts a classic BPF program on an interface that lets everything pass, as `tc qdisc add … clsact` and `tc filter add …
/// ingress bpf bytecode '1,6 0 0 4294967295'` do.
fn tc_program(interface: i32) {
    const NEWQDISC: u16 = 36;
    const NEWTFILTER: u16 = 44;
    const CLSACT: u32 = 0xffff_fff1;
    const INGRESS: u32 = 0xffff_fff2;
    // Preference 1 and ETH_P_ALL in network order.
    let (preference, all) = (1u32 << 16, u32::from(3u16.to_be()));
    let message = |kind: u16, handle: u32, parent: u32, info: u32, attributes: &[Vec<u8>]| {
        let numbers = [handle, parent, info].map(u32::to_ne_bytes).concat();
        // `tcmsg`
        request(kind, &[&[0; 4][..], &interface.to_ne_bytes(), &numbers].concat(), attributes)
    };
    // TCA_KIND, TCA_OPTIONS { TCA_BPF_OPS_LEN, TCA_BPF_OPS { ret -1 } }
    let program = [&6u16.to_ne_bytes()[..], &[0, 0], &u32::MAX.to_ne_bytes()].concat();
    let options = [attribute(4, &1u16.to_ne_bytes()), attribute(5, &program)].concat();
    perform(&[
        message(NEWQDISC, 0xffff_0000, CLSACT, 0, &[attribute(1, b"clsact\0")]),
        message(NEWTFILTER, 0, INGRESS, preference | all, &[attribute(1, b"bpf\0"), attribute(2, &options)]),
    ]);
}

/// Makes a link of kind bridge, as `ip link add NAME type bridge` does.
fn bridge_named(name: &str) {
    const NEWLINK: u16 = 16;
    // IFLA_IFNAME, IFLA_LINKINFO { IFLA_INFO_KIND }
    let attributes = [attribute(3, name.as_bytes()), attribute(18, &attribute(1, b"bridge"))];
    // `ifinfomsg`
    perform(&[request(NEWLINK, &[0; 16], &attributes)]);
}

/// A netlink attribute.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = [(payload.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// A message of rtnetlink that makes something new.
fn request(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    // NLM_F_REQUEST, ACK, EXCL and CREATE
    let body =
        [&kind.to_ne_bytes()[..], &0x605u16.to_ne_bytes(), &[0; 8], header, &attributes.concat()].concat();
    [&(body.len() as u32 + 4).to_ne_bytes()[..], &body].concat()
}

fn perform(requests: &[Vec<u8>]) {
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    for request in requests {
        socket.send_to(request, &SocketAddr::new(0, 0), 0).unwrap();
        let (answer, _) = socket.recv_from_full().unwrap();
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(error, 0, "message {}", request[4]);
    }
}

fn others(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    nft(&lab, "add table ip filter { chain KUBE-NWPLCY-ABC { }; chain cali-FORWARD { }; }");
    nft(&lab, "add table ip6 filter { chain WEAVE-NPC-DEFAULT { }; }");
    nft(&lab, "add table inet kube-network-policies");
    nft(
        &lab,
        "add table ip raw { chain p { type filter hook prerouting priority raw; udp dport 53 notrack; }; }",
    );
    let (answer, code) = doctor(&lab, &["--offline", "--no-probe"]);
    assert_eq!((answer.bad(), code), (vec!["other-enforcers", "notrack"], 0), "warnings");
    for part in [
        "Calico (chain cali-FORWARD of table ip filter)",
        "kube-router (chain KUBE-NWPLCY-ABC of table ip filter)",
        "Weave Net (chain WEAVE-NPC-DEFAULT of table ip6 filter)",
        "kube-network-policies (table inet kube-network-policies)",
    ] {
        answer.is("other-enforcers", "warn", part);
    }
    answer.is("notrack", "warn", "chain p of table ip raw");
    Ok(())
}

fn ipvs(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    let (answer, code) = doctor(&lab, &["--offline", "--no-probe"]);
    assert_eq!((answer.bad(), code), (vec![], 0));
    answer.is("ipvs", "ok", "no service is translated by IPVS");
    // What kube-proxy makes in ipvs mode goes by that name. It is of kind dummy, which not every kernel has.
    lab.run_in(&Place::Node("n1".into()), || bridge_named("kube-ipvs0"))?;
    let (answer, code) = doctor(&lab, &["--offline", "--no-probe"]);
    assert_eq!((answer.bad(), code), (vec!["ipvs"], 0), "a warning");
    answer.is("ipvs", "warn", "IPVS is in use (interface kube-ipvs0)");
    Ok(())
}

fn own_table(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    for (comment, part) in [
        ("comment \"palisade format 0\";", "is of another version (palisade format 0)"),
        ("", "was created by another program"),
    ] {
        nft(&lab, &format!("add table inet palisade {{ {comment} }}"));
        let (answer, code) = doctor(&lab, &["--offline", "--no-probe"]);
        assert_eq!((answer.bad(), code), (vec!["table"], 0));
        answer.is("table", "warn", part);
        nft(&lab, "delete table inet palisade");
    }
    Ok(())
}

fn agents(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, palisade())?;
    let dir = tempfile::TempDir::new()?;
    let path = dir.path().join("run/agent.sock");
    let arguments = ["--offline", "--no-probe", "--socket", path.to_str().unwrap()];
    let (answer, _) = doctor(&lab, &arguments);
    answer.is("agent", "ok", "no agent runs");
    answer.is("pod-starts", "ok", "no agent runs that holds pods");
    answer.is("run-directory", "ok", "can be created");
    answer.is("table", "warn", "no agent updates it");
    assert!(!path.parent().unwrap().exists(), "looking makes nothing");
    fs::create_dir(path.parent().unwrap())?;
    drop(UnixListener::bind(&path)?);
    let (answer, _) = doctor(&lab, &arguments);
    answer.is("agent", "warn", "has exited");
    answer.is("run-directory", "ok", "is writable");
    assert_eq!(fs::read_dir(path.parent().unwrap())?.count(), 1, "the socket alone");
    fs::remove_file(&path)?;
    answering(UnixListener::bind(&path)?, "[]");
    let (answer, code) = doctor(&lab, &arguments);
    answer.is("pod-starts", "warn", "neither NRI nor the CNI plugin");
    assert_eq!(code, 0);
    let (answer, code) = doctor(&lab, &["--offline", "--no-probe", "--socket", "/proc/palisade/agent.sock"]);
    answer.is("run-directory", "fail", "/proc is not writable");
    assert_eq!(code, 1);
    Ok(())
}

/// Links of the node.
fn links(lab: &Lab) -> String {
    let links = lab.run_in(&Place::Node("n1".into()), || {
        let lines = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names =
            lines.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.join(" ")
    });
    links.unwrap()
}

/// Links and tables of the node. Needs the program `nft`.
fn listed(lab: &Lab) -> (String, String) {
    let tables = on_node(lab, Command::new("nft").args(["list", "tables"])).stdout;
    (links(lab), String::from_utf8(tables).unwrap())
}

/// Killed in the middle, by Ctrl-C and without any chance to clean up.
fn nothing_stays(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    // Packets that get lost are waited for.
    nft(
        &lab,
        "add table ip lossy { chain p { type filter hook prerouting priority raw; ip saddr 198.18.0.0/15 drop; }; }",
    );
    let before = listed(&lab);
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGKILL] {
        let mut child = lab.run_in(&Place::Node("n1".into()), || {
            palisade_doctor(&["--offline"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        })??;
        let began = Instant::now();
        while listed(&lab) == before {
            assert!(began.elapsed() < PATIENCE && child.try_wait()?.is_none(), "the self-test never began");
        }
        let during = listed(&lab);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal)?;
        child.wait()?;
        let began = Instant::now();
        while listed(&lab) != before {
            // Namespaces end in the kernel's own time.
            assert!(began.elapsed() < PATIENCE, "{during:?} became {:?}", listed(&lab));
            thread::sleep(Duration::from_millis(20));
        }
    }
    let (answer, code) = doctor(&lab, &["--offline"]);
    assert_eq!((answer.bad(), code), (vec!["wiring-routed"], 0));
    answer.is("wiring-routed", "warn", "were lost before the forward hook (IPv4 TCP, IPv4 UDP)");
    assert_eq!(listed(&lab), before);
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(60);

fn api(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, false, no_enforcer())?;
    let (answer, code) = doctor(&lab, &["--no-probe"]);
    assert_eq!((answer.bad(), code), (vec!["api-server"], 0));
    answer.is("api-server", "unknown", "no cluster is configured");
    let dir = tempfile::TempDir::new()?;
    let kubeconfig = dir.path().join("config");
    let mut file = fs::File::create(&kubeconfig)?;
    file.write_all(
        b"apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        contexts: [{name: c, context: {cluster: c, user: u}}]\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n",
    )?;
    let kubeconfig = kubeconfig.to_str().unwrap();
    let (answer, code) = doctor(&lab, &["--no-probe", "--kubeconfig", kubeconfig]);
    assert_eq!((answer.bad(), code), (vec!["api-server"], 1));
    answer.is("api-server", "fail", "connection refused");
    let both = on_node(&lab, &mut palisade_doctor(&["--offline", "--kubeconfig", kubeconfig]));
    assert_eq!(both.status.code(), Some(2));
    let missing = on_node(&lab, &mut palisade_doctor(&["--no-probe", "--kubeconfig", "/nowhere"]));
    assert_eq!(missing.status.code(), Some(1), "the rest is said all the same");
    assert!(String::from_utf8_lossy(&missing.stdout).contains("/nowhere"));
    Ok(())
}

/// As a user without any rights, in the node's network.
fn without_rights(sandbox: &Sandbox) -> Result<(), Failed> {
    let lab = lab(sandbox, true, no_enforcer())?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]);
    let program = Path::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg(program).args(["doctor", "--offline", "-o", "json"]);
    let output = on_node(&lab, &mut command);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let answer = Answer(answer);
    assert_eq!(output.status.code(), Some(1));
    answer.is("privileges", "fail", "CAP_NET_ADMIN is missing");
    answer.is("nftables", "unknown", "cannot create a temporary network namespace");
    answer.is("other-enforcers", "unknown", "cannot list the node's nftables rules");
    answer.is("wiring-routed", "unknown", "cannot send packets");
    answer.is("bridge-netfilter", "ok", "cni0");
    Ok(())
}

//! What is on the way of pods' packets: bridges, eBPF programs, other policy agents, shortcuts.

use std::{collections::BTreeMap, fs, path::Path};

use netlink_packet_route::link::InfoKind;
use palisade_nft::{
    Kernel,
    survey::{Ours, Survey},
};

use super::{
    Bridge, Check, Status, in_words,
    interfaces::{Interface, interfaces, with_bpf_filters},
    kernel::read,
};

/// Adds its findings, and gives the bridges that connect pods.
pub(super) fn checks(out: &mut Vec<Check>, forwards_v6: bool, socket: &Path) -> Vec<Bridge> {
    let found = match interfaces() {
        Ok(found) => found,
        Err(e) => {
            out.extend(["bridge-netfilter", "ebpf", "direct-interfaces", "ipvs"].map(|id| {
                Check::of(
                    id,
                    Status::Unknown,
                    format!("the kernel does not list its interfaces: {e}"),
                    super::kernel::cure_of_refusal(),
                )
            }));
            Vec::new()
        }
    };
    let bridges = pod_bridges(&found);
    if !found.is_empty() {
        out.push(bridge_netfilter(&bridges, forwards_v6));
        out.push(ebpf(&found));
        out.push(direct(&found));
        out.push(ipvs(&found, &fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default()));
    }
    match Kernel::open().and_then(|mut kernel| Survey::read(&mut kernel)) {
        Ok(survey) => {
            out.push(enforcers(&survey, &found));
            out.push(flow_tables(&survey));
            out.push(untracked(&survey));
            out.push(own_table(&survey, socket));
        }
        Err(e) => out.extend(["other-enforcers", "flow-tables", "notrack", "table"].map(|id| {
            Check::of(
                id,
                Status::Unknown,
                format!("the rules of this node can't be listed: {}", in_words(&e)),
                super::kernel::cure_of_refusal(),
            )
        })),
    }
    bridges.into_iter().map(|b| Bridge { name: b.name.clone(), index: b.index }).collect()
}

/// Bridges with a port that leads into another network namespace.
fn pod_bridges(all: &[Interface]) -> Vec<&Interface> {
    let has_pods = |bridge: &&Interface| {
        all.iter().any(|port| port.controller == Some(bridge.index) && port.is_pod_facing())
    };
    all.iter().filter(|i| i.kind == Some(InfoKind::Bridge)).filter(has_pods).collect()
}

fn names(of: &[&Interface]) -> String {
    let names: Vec<&str> = of.iter().map(|i| &*i.name).collect();
    names.join(", ")
}

fn bridge_netfilter(bridges: &[&Interface], forwards_v6: bool) -> Check {
    const ID: &str = "bridge-netfilter";
    if bridges.is_empty() {
        return Check::ok(ID, "no bridge connects pods here: their packets are routed");
    }
    let on = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .map(|name| read(&format!("net/bridge/{name}")).map(|value| value != "0"));
    let past = |family: usize| -> Vec<&Interface> {
        let all = bridges.iter().copied();
        all.filter(|b| on[family] != Some(true) && !b.asks_netfilter[family]).collect()
    };
    let (v4, v6) = (past(0), past(1));
    let loaded = on.iter().any(Option::is_some);
    if !v4.is_empty() && !loaded {
        return Check::of(
            ID,
            Status::Fail,
            format!(
                "br_netfilter is not loaded: what pods on {} send each other passes no policy",
                names(&v4)
            ),
            "modprobe br_netfilter, and name it in /etc/modules-load.d; then set net.bridge.bridge-nf-call-iptables=1 and -ip6tables=1",
        );
    }
    if !v4.is_empty() {
        return Check::of(
            ID,
            Status::Fail,
            format!(
                "net.bridge.bridge-nf-call-iptables is 0: what pods on {} send each other passes no policy",
                names(&v4)
            ),
            "set net.bridge.bridge-nf-call-iptables=1 and net.bridge.bridge-nf-call-ip6tables=1, in /etc/sysctl.d for good",
        );
    }
    if !v6.is_empty() {
        return Check::of(
            ID,
            if forwards_v6 { Status::Fail } else { Status::Warn },
            format!(
                "net.bridge.bridge-nf-call-ip6tables is 0: the IPv6 that pods on {} send each other passes no policy",
                names(&v6)
            ),
            "set net.bridge.bridge-nf-call-ip6tables=1, in /etc/sysctl.d for good",
        );
    }
    Check::ok(ID, format!("bridged packets of {} meet netfilter", names(bridges)))
}

fn ebpf(all: &[Interface]) -> Check {
    const ID: &str = "ebpf";
    let cilium = all.iter().find(|i| i.name.starts_with("cilium_"));
    let pins = ["/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_call_policy"];
    let pinned = pins.iter().find(|path| fs::exists(path).unwrap_or(false));
    if let Some(sign) = cilium.map(|i| i.name.clone()).or_else(|| pinned.map(|p| (*p).to_owned())) {
        return Check::of(
            ID,
            Status::Fail,
            format!("Cilium's eBPF data plane is here ({sign}): it takes pods' packets past netfilter"),
            "use Cilium's own policies on this node, or another CNI plugin with Palisade",
        );
    }
    let netkit: Vec<&Interface> = all.iter().filter(|i| i.kind == Some(InfoKind::Netkit)).collect();
    if !netkit.is_empty() {
        return Check::of(
            ID,
            Status::Fail,
            format!(
                "pods are connected by netkit devices ({}), whose programs redirect past netfilter",
                names(&netkit)
            ),
            "connect pods by veth pairs",
        );
    }
    let filtered = match with_bpf_filters() {
        Ok(indices) => indices,
        Err(e) => {
            return Check::of(
                ID,
                Status::Unknown,
                format!("the kernel does not list its tc filters: {e}"),
                super::kernel::cure_of_refusal(),
            );
        }
    };
    let programmed: Vec<&Interface> =
        all.iter().filter(|i| i.is_pod_facing() && (i.has_xdp || filtered.contains(&i.index))).collect();
    if programmed.is_empty() {
        return Check::ok(
            ID,
            "no XDP or tc program sits on a pod's interface (TCX programs can't be listed)",
        );
    }
    Check::of(
        ID,
        Status::Warn,
        format!(
            "eBPF programs sit on pods' interfaces ({}): they may redirect past netfilter",
            names(&programmed)
        ),
        "see what they do with `bpftool net`, and trust the wiring checks below only for pods without them",
    )
}

/// Pods that have the node's network card to themselves, or a part of it.
fn direct(all: &[Interface]) -> Check {
    const ID: &str = "direct-interfaces";
    let virtual_functions = |i: &&Interface| {
        let path = format!("/sys/class/net/{}/device/sriov_numvfs", i.name);
        fs::read_to_string(path).is_ok_and(|n| n.trim() != "0")
    };
    let split: Vec<&Interface> = all.iter().filter(virtual_functions).collect();
    let kinds = [InfoKind::MacVlan, InfoKind::MacVtap, InfoKind::IpVlan, InfoKind::IpVtap];
    let stacked: Vec<&Interface> =
        all.iter().filter(|i| i.kind.as_ref().is_some_and(|kind| kinds.contains(kind))).collect();
    const CURE: &str = "policies can't act on what pods send over such interfaces; filter it in the network, or don't give them to pods";
    match (&stacked[..], &split[..]) {
        ([], []) => Check::ok(ID, "no macvlan, ipvlan or SR-IOV interface is seen on the node"),
        (_, []) => Check::of(
            ID,
            Status::Warn,
            format!(
                "macvlan or ipvlan interfaces are in use ({}): they bypass the node's forwarding",
                names(&stacked)
            ),
            CURE,
        ),
        _ => Check::of(
            ID,
            Status::Warn,
            format!("SR-IOV virtual functions are in use ({}): they bypass the node's kernel", names(&split)),
            CURE,
        ),
    }
}

/// kube-proxy's dummy interface in `ipvs` mode, which holds the services' addresses.
const KUBE_IPVS: &str = "kube-ipvs0";

/// Whether services are translated by IPVS, where packets take the way of the node's own. `services`: the kernel's list.
fn ipvs(all: &[Interface], services: &str) -> Check {
    const ID: &str = "ipvs";
    let of_service = |line: &&str| ["TCP", "UDP", "SCTP", "FWM"].iter().any(|p| line.starts_with(p));
    let sign = match services.lines().filter(of_service).count() {
        0 if all.iter().any(|i| i.name == KUBE_IPVS) => format!("interface {KUBE_IPVS}"),
        0 => return Check::ok(ID, "no service is translated by IPVS"),
        1 => "1 virtual service".to_owned(),
        many => format!("{many} virtual services"),
    };
    Check::of(
        ID,
        Status::Warn,
        format!(
            "IPVS is in use ({sign}), as by kube-proxy in ipvs mode: packets to services don't pass the forward hook, so that \
             policies don't hold for them"
        ),
        "run kube-proxy in nftables or iptables mode; `kube-proxy --cleanup` removes what ipvs mode has left",
    )
}

/// A policy agent, by the beginnings of the names that it leaves.
struct Enforcer {
    who: &'static str,
    chains: &'static [&'static str],
    tables: &'static [&'static str],
    interfaces: &'static [&'static str],
}

/// Who else enforces policies.
const ENFORCERS: [Enforcer; 6] = [
    Enforcer { who: "Calico", chains: &["cali-", "felix-"], tables: &["calico"], interfaces: &[] },
    Enforcer { who: "kube-router", chains: &["KUBE-NWPLCY", "KUBE-POD-FW"], tables: &[], interfaces: &[] },
    Enforcer { who: "Weave Net", chains: &["WEAVE-NPC"], tables: &["weave-npc"], interfaces: &[] },
    Enforcer { who: "Antrea", chains: &["ANTREA-"], tables: &["antrea"], interfaces: &["antrea-gw"] },
    Enforcer {
        who: "kube-network-policies",
        chains: &[],
        tables: &["kube-network-policies", "kindnet-network-policies"],
        interfaces: &[],
    },
    Enforcer { who: "Cilium", chains: &["CILIUM_"], tables: &[], interfaces: &["cilium_"] },
];

fn enforcers(survey: &Survey, all: &[Interface]) -> Check {
    const ID: &str = "other-enforcers";
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for Enforcer { who, chains, tables, interfaces } in ENFORCERS {
        let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
        for (table, names) in &survey.tables {
            if begins(&table.name, tables) {
                found.entry(who).or_insert_with(|| format!("table {table}"));
            }
            if let Some(chain) = names.iter().find(|name| begins(name, chains)) {
                found.entry(who).or_insert_with(|| format!("chain {chain} of table {table}"));
            }
        }
        if let Some(i) = all.iter().find(|i| begins(&i.name, interfaces)) {
            found.entry(who).or_insert_with(|| format!("interface {}", i.name));
        }
    }
    if !found.is_empty() {
        let list: Vec<String> = found.iter().map(|(who, sign)| format!("{who} ({sign})")).collect();
        return Check::of(
            ID,
            Status::Warn,
            format!("somebody else enforces policies here too: {}", list.join(", ")),
            "switch the other off: only what both allow passes, and neither can explain the other's drops",
        );
    }
    // What iptables-legacy holds can't be listed through nftables.
    let legacy: Vec<String> = ["ip_tables_names", "ip6_tables_names"]
        .iter()
        .filter_map(|file| fs::read_to_string(format!("/proc/net/{file}")).ok())
        .flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect();
    if legacy.is_empty() {
        Check::ok(ID, "no other policy agent's rules or interfaces are here")
    } else {
        Check::of(
            ID,
            Status::Unknown,
            format!(
                "no other policy agent is seen, but legacy iptables tables are in use ({})",
                legacy.join(", ")
            ),
            "look through `iptables-legacy-save` for chains such as cali-, KUBE-NWPLCY, WEAVE-NPC",
        )
    }
}

fn flow_tables(survey: &Survey) -> Check {
    const ID: &str = "flow-tables";
    match &survey.flow_tables[..] {
        [] => Check::ok(ID, "no flow table takes connections past the rules"),
        [(table, name), ..] => Check::of(
            ID,
            Status::Warn,
            format!(
                "flow table {name} of table {table} takes established connections past the rules: what a change denies goes on"
            ),
            "leave pods' interfaces out of the flow table; kindnet and Calico's nftables mode can be told to do without (docs/install.md)",
        ),
    }
}

fn untracked(survey: &Survey) -> Check {
    const ID: &str = "notrack";
    match &survey.untracking[..] {
        [] => Check::ok(ID, "no rule takes packets out of connection tracking"),
        [(table, chain), ..] => Check::of(
            ID,
            Status::Warn,
            format!(
                "chain {chain} of table {table} takes packets out of connection tracking (as node-local DNS caches do)"
            ),
            "nothing, if it is for a cache on the node; where pods are behind it, policies have to allow both directions",
        ),
    }
}

fn own_table(survey: &Survey, socket: &Path) -> Check {
    const ID: &str = "table";
    match &survey.ours {
        None => Check::ok(ID, "there is no table inet palisade yet"),
        Some(Ours::Current) if socket.exists() => Check::ok(ID, "table inet palisade is of this version"),
        Some(Ours::Current) => Check::of(
            ID,
            Status::Warn,
            "table inet palisade is in force, and no agent follows changes",
            "start the agent, or take the rules away with `palisade agent --remove`",
        ),
        Some(Ours::Dormant) => Check::of(
            ID,
            Status::Fail,
            "table inet palisade is dormant (`flags dormant`): no policy is enforced",
            "start the agent, which wakes it, and find out who put it to sleep",
        ),
        Some(Ours::Owned(port)) => Check::of(
            ID,
            Status::Fail,
            format!(
                "table inet palisade belongs to another program (netlink port {port}): no policy is enforced"
            ),
            "end that program (the port is its process id, as a rule); the agent makes its own table then",
        ),
        Some(Ours::Other(comment)) => Check::of(
            ID,
            Status::Warn,
            match comment {
                Some(comment) => format!("table inet palisade is of another version ({comment})"),
                None => "table inet palisade was made by somebody else".to_owned(),
            },
            "an agent of this version replaces it when it starts; `palisade agent --remove` takes it away",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_services_are_counted_and_their_backends_are_not() {
        let header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                      RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        assert_eq!(ipvs(&[], "").status, Status::Ok);
        assert_eq!(ipvs(&[], header).status, Status::Ok, "the module alone does nothing");
        let services = format!(
            "{header}TCP  0A600001:01BB rr\n  -> C0A80101:192B      Masq    1      0          0\n\
             UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr\n"
        );
        let check = ipvs(&[], &services);
        assert!(check.status == Status::Warn && check.found.contains("(2 virtual services)"), "{check:?}");
        let left = Interface { name: KUBE_IPVS.to_owned(), ..Interface::default() };
        let check = ipvs(&[left], header);
        assert!(check.status == Status::Warn && check.found.contains("(interface kube-ipvs0)"), "{check:?}");
    }
}

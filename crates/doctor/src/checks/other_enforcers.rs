//! `other-enforcers`: whether another program enforces policies on this node.

use std::{collections::BTreeMap, fs};

use palisade_nft::survey::Survey;

use crate::{finding::Outcome, interfaces::Interface, node::Node};

/// A policy agent, recognized by prefixes of the names that it creates.
struct PolicyAgent {
    name: &'static str,
    chains: &'static [&'static str],
    tables: &'static [&'static str],
    interfaces: &'static [&'static str],
}

const POLICY_AGENTS: [PolicyAgent; 6] = [
    PolicyAgent { name: "Calico", chains: &["cali-", "felix-"], tables: &["calico"], interfaces: &[] },
    PolicyAgent {
        name: "kube-router",
        chains: &["KUBE-NWPLCY", "KUBE-POD-FW"],
        tables: &[],
        interfaces: &[],
    },
    PolicyAgent { name: "Weave Net", chains: &["WEAVE-NPC"], tables: &["weave-npc"], interfaces: &[] },
    PolicyAgent { name: "Antrea", chains: &["ANTREA-"], tables: &["antrea"], interfaces: &["antrea-gw"] },
    PolicyAgent {
        name: "kube-network-policies",
        chains: &[],
        tables: &["kube-network-policies", "kindnet-network-policies"],
        interfaces: &[],
    },
    PolicyAgent { name: "Cilium", chains: &["CILIUM_"], tables: &[], interfaces: &["cilium_"] },
];

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let found = policy_agents(node.survey()?, node.interfaces().unwrap_or_default());
    if !found.is_empty() {
        let list: Vec<String> = found.iter().map(|(name, sign)| format!("{name} ({sign})")).collect();
        return Ok(Outcome::warn(
            format!("another program enforces policies on this node: {}", list.join(", ")),
            "disable it: with two, traffic passes only if both allow it, and neither can explain the other's drops",
        ));
    }
    let legacy = legacy_tables();
    if legacy.is_empty() {
        return Ok(Outcome::ok("no rules or interfaces of another policy agent were found"));
    }
    Ok(Outcome::unknown(
        format!(
            "no other policy agent was found, but legacy iptables tables are in use ({}), which can't be listed",
            legacy.join(", ")
        ),
        "search the output of `iptables-legacy-save` for chains such as cali-, KUBE-NWPLCY, WEAVE-NPC",
    ))
}

/// Returns the policy agents found, each with the first sign of it.
fn policy_agents(survey: &Survey, interfaces: &[Interface]) -> BTreeMap<&'static str, String> {
    let has_prefix = |name: &str, of: &[&str]| of.iter().any(|prefix| name.starts_with(prefix));
    let mut found = BTreeMap::new();
    for agent in POLICY_AGENTS {
        for (table, names) in &survey.tables {
            if has_prefix(&table.name, agent.tables) {
                found.entry(agent.name).or_insert_with(|| format!("table {table}"));
            }
            if let Some(chain) = names.iter().find(|name| has_prefix(name, agent.chains)) {
                found.entry(agent.name).or_insert_with(|| format!("chain {chain} of table {table}"));
            }
        }
        if let Some(i) = interfaces.iter().find(|i| has_prefix(&i.name, agent.interfaces)) {
            found.entry(agent.name).or_insert_with(|| format!("interface {}", i.name));
        }
    }
    found
}

/// Returns the tables of legacy iptables, whose rules nftables does not list.
fn legacy_tables() -> Vec<String> {
    ["ip_tables_names", "ip6_tables_names"]
        .iter()
        .filter_map(|file| fs::read_to_string(format!("/proc/net/{file}")).ok())
        .flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect()
}

//! The table of checks. `docs/doctor.md` describes them in the same order.

use palisade_api::Rights;
use palisade_nft::Enforcer;

use crate::{finding::Outcome, node::Node};

mod agent;
mod api_policies;
mod api_rights;
pub(crate) mod api_server;
mod bridge_frames;
mod bridge_netfilter;
mod clock;
mod conntrack_labels;
mod conntrack_table;
mod direct_interfaces;
mod ebpf;
mod flow_tables;
mod ip_forward;
mod ipvs;
mod kernel_version;
mod nflog;
pub(crate) mod nftables;
mod nftables_events;
mod nftables_rules;
mod notrack;
mod other_enforcers;
mod own_table;
mod pod_starts;
mod privileges;
mod run_directory;
mod source_check;
mod wiring;

/// A check of the node. `Err` has the outcome where the facts that it needs could not be read.
pub(crate) type OnNode = fn(&Node<'_>) -> Result<Outcome, Outcome>;
/// A check of a kernel feature, in a temporary network namespace.
pub(crate) type Feature = fn(&mut Enforcer) -> Outcome;
/// A check that sends packets. It may have several outcomes.
pub(crate) type SelfTest = fn(&Node<'_>) -> Vec<Outcome>;
/// A check of the API server's replies.
pub(crate) type Api = fn(&Rights) -> Outcome;

/// A check with its id, which never changes.
pub(crate) type Entry<C> = (&'static str, C);

/// Checks that need the same preparation.
pub(crate) enum Group {
    Node(&'static [Entry<OnNode>]),
    Features(&'static [Entry<Feature>]),
    SelfTest(&'static [Entry<SelfTest>]),
    Api(&'static [Entry<Api>]),
}

/// All checks, in the order of the report.
pub(crate) const GROUPS: &[Group] = &[
    Group::Node(&[("kernel-version", kernel_version::check), ("privileges", privileges::check)]),
    Group::Features(&[
        ("nftables", nftables::check),
        ("nftables-rules", nftables_rules::check),
        ("nflog", nflog::check),
        ("nftables-events", nftables_events::check),
        ("conntrack-labels", conntrack_labels::check),
        ("source-check", source_check::check),
        ("bridge-frames", bridge_frames::check),
    ]),
    Group::Node(&[
        ("ip-forward", ip_forward::check),
        ("conntrack-table", conntrack_table::check),
        ("bridge-netfilter", bridge_netfilter::check),
        ("ebpf", ebpf::check),
        ("direct-interfaces", direct_interfaces::check),
        ("ipvs", ipvs::check),
        ("other-enforcers", other_enforcers::check),
        ("flow-tables", flow_tables::check),
        ("notrack", notrack::check),
        ("table", own_table::check),
        ("run-directory", run_directory::check),
        ("agent", agent::check),
        ("pod-starts", pod_starts::check),
    ]),
    Group::SelfTest(&[("wiring-routed", wiring::routed), ("wiring-bridge", wiring::bridges)]),
    Group::Api(&[
        ("api-server", api_server::check),
        ("clock", clock::check),
        ("api-policies", api_policies::check),
        ("api-rights", api_rights::enforcing),
        ("api-services", api_rights::services),
        ("api-reporting", api_rights::reporting),
    ]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_describe_every_check_in_order() {
        let ids = |group: &Group| -> Vec<&str> {
            match group {
                Group::Node(checks) => checks.iter().map(|(id, _)| *id).collect(),
                Group::Features(checks) => checks.iter().map(|(id, _)| *id).collect(),
                Group::SelfTest(checks) => checks.iter().map(|(id, _)| *id).collect(),
                Group::Api(checks) => checks.iter().map(|(id, _)| *id).collect(),
            }
        };
        let ids: Vec<&str> = GROUPS.iter().flat_map(ids).collect();
        let docs = include_str!("../../../docs/doctor.md");
        let described: Vec<&str> = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(id, _)| id)
            .collect();
        assert_eq!(ids, described);
    }
}

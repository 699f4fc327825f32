//! The rules: one file and one entry in [`RULES`] for each.

/// The pods of most examples, as a literal for `concat!`: `web` and `db` in namespace `shop`.
macro_rules! shop {
    () => {
        "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 8080, name: http}]
---
"
    };
}

/// The DNS server of some examples, for `concat!`.
macro_rules! dns {
    () => {
        "\
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 53, name: dns, protocol: UDP}, {containerPort: 53, name: dns-tcp}]
---
"
    };
}

mod address_as_domain_name;
mod all_namespaces_peer;
mod ambient_port;
mod and_or_peer;
mod asymmetric_allow;
mod bad_cidr;
mod bad_port;
mod bad_selector;
mod client_address_lost;
mod clusterip_in_ipblock;
mod conflicting_priority;
mod controller_not_allowed;
mod cross_namespace_podselector;
mod deny_by_exception_voided;
mod deprecated_api;
mod dns_blocked;
mod dns_label_mismatch;
mod dns_link_local;
mod domain_name_without_dns;
mod duplicate_name;
mod egress_anywhere;
mod empty_vs_absent;
mod endport_invalid;
mod except_outside_cidr;
mod explicit_allow_all;
mod hostnetwork_peer;
mod hostnetwork_subject;
mod ipblock_covers_pods;
mod ipblock_with_selector;
mod ipv4_only_block;
mod kind_or_group_misspelt;
mod label_not_on_template;
mod loadbalancer_address_in_ipblock;
mod metadata_endpoint_reachable;
mod missing_namespace;
mod missing_policy_types;
mod named_port_divergent;
mod named_port_unresolved;
mod named_port_with_ipblock;
mod namespace_label_guess;
mod namespace_without_default_deny;
mod not_rendered;
mod one_direction_only;
mod open_to_internet;
mod peer_empty;
mod peer_selects_nothing;
mod podselector_missing;
mod port_not_listened;
mod ports_in_own_rule;
mod probe_source_blocked;
mod protocol_omitted;
mod redundant_rule;
mod reply_rule;
mod rules_ignored;
mod scrape_blocked;
mod selects_nothing;
mod sensitive_port_open;
mod service_port_used;
mod shared_domain_name;
mod subject_in_other_namespace;
mod tenant_spoofable_selector;
mod typo_near_label;
mod unknown_field;
mod unsupported_by_plugin;
mod volatile_label;
mod webhook_blocked;
mod wide_port_range;
mod workload_unprotected;
mod wrong_direction_key;

use palisade_manifest::Diagnostic;

use crate::{aliases::aliases, diagnostics::is_about_policy, rule::LintRule};

/// All rules, in the order of their codes.
pub const RULES: &[&LintRule] = &[
    &missing_policy_types::RULE,
    &rules_ignored::RULE,
    &missing_namespace::RULE,
    &duplicate_name::RULE,
    &protocol_omitted::RULE,
    &peer_empty::RULE,
    &ipblock_with_selector::RULE,
    &bad_cidr::RULE,
    &except_outside_cidr::RULE,
    &endport_invalid::RULE,
    &bad_port::RULE,
    &bad_selector::RULE,
    &podselector_missing::RULE,
    &deprecated_api::RULE,
    &unknown_field::RULE,
    &and_or_peer::RULE,
    &ports_in_own_rule::RULE,
    &cross_namespace_podselector::RULE,
    &empty_vs_absent::RULE,
    &explicit_allow_all::RULE,
    &namespace_label_guess::RULE,
    &selects_nothing::RULE,
    &peer_selects_nothing::RULE,
    &named_port_unresolved::RULE,
    &named_port_divergent::RULE,
    &named_port_with_ipblock::RULE,
    &service_port_used::RULE,
    &clusterip_in_ipblock::RULE,
    &ipblock_covers_pods::RULE,
    &port_not_listened::RULE,
    &dns_blocked::RULE,
    &dns_label_mismatch::RULE,
    &asymmetric_allow::RULE,
    &hostnetwork_subject::RULE,
    &volatile_label::RULE,
    &reply_rule::RULE,
    &typo_near_label::RULE,
    &probe_source_blocked::RULE,
    &workload_unprotected::RULE,
    &namespace_without_default_deny::RULE,
    &open_to_internet::RULE,
    &egress_anywhere::RULE,
    &metadata_endpoint_reachable::RULE,
    &ipv4_only_block::RULE,
    &all_namespaces_peer::RULE,
    &sensitive_port_open::RULE,
    &wide_port_range::RULE,
    &tenant_spoofable_selector::RULE,
    &one_direction_only::RULE,
    &controller_not_allowed::RULE,
    &redundant_rule::RULE,
    &conflicting_priority::RULE,
    &unsupported_by_plugin::RULE,
    &label_not_on_template::RULE,
    &wrong_direction_key::RULE,
    &kind_or_group_misspelt::RULE,
    &not_rendered::RULE,
    &subject_in_other_namespace::RULE,
    &deny_by_exception_voided::RULE,
    &hostnetwork_peer::RULE,
    &client_address_lost::RULE,
    &loadbalancer_address_in_ipblock::RULE,
    &webhook_blocked::RULE,
    &scrape_blocked::RULE,
    &dns_link_local::RULE,
    &ambient_port::RULE,
    &domain_name_without_dns::RULE,
    &address_as_domain_name::RULE,
    &shared_domain_name::RULE,
];

/// Returns the rule with this code or name.
#[must_use]
pub fn rule(word: &str) -> Option<&'static LintRule> {
    let has_name = |rule: &LintRule| rule.name == word || aliases(rule.code).any(|name| name == word);
    RULES.iter().copied().find(|rule| has_name(rule) || rule.code.eq_ignore_ascii_case(word))
}

/// Recognizes what the loader found.
type Fits = fn(&Diagnostic) -> bool;

/// The rules that name what the loader found about policies.
const ABOUT_POLICIES: [(&LintRule, Fits); 12] = [
    (&duplicate_name::RULE, duplicate_name::fits),
    (&peer_empty::RULE, peer_empty::fits),
    (&ipblock_with_selector::RULE, ipblock_with_selector::fits),
    (&bad_cidr::RULE, bad_cidr::fits),
    (&except_outside_cidr::RULE, except_outside_cidr::fits),
    (&endport_invalid::RULE, endport_invalid::fits),
    (&bad_port::RULE, bad_port::fits),
    (&bad_selector::RULE, bad_selector::fits),
    (&named_port_with_ipblock::RULE, named_port_with_ipblock::fits),
    (&unknown_field::RULE, unknown_field::fits),
    (&wrong_direction_key::RULE, wrong_direction_key::fits),
    (&conflicting_priority::RULE, conflicting_priority::fits),
];

/// The rules that name what the loader found about anything.
const ABOUT_ALL: [(&LintRule, Fits); 3] = [
    (&deprecated_api::RULE, deprecated_api::fits),
    (&kind_or_group_misspelt::RULE, kind_or_group_misspelt::fits),
    (&not_rendered::RULE, not_rendered::fits),
];

/// Returns the rule that names what the loader found.
pub(crate) fn naming(d: &Diagnostic) -> Option<&'static LintRule> {
    let of = |all: &[(&'static LintRule, Fits)]| all.iter().find(|(_, fits)| fits(d)).map(|(rule, _)| *rule);
    of(&ABOUT_ALL).or_else(|| is_about_policy(d).then(|| of(&ABOUT_POLICIES))?)
}

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

mod all_namespaces_peer;
mod and_or_peer;
mod bad_cidr;
mod bad_port;
mod bad_selector;
mod client_address_lost;
mod clusterip_in_ipblock;
mod cross_namespace_podselector;
mod deny_by_exception_voided;
mod duplicate_name;
mod egress_anywhere;
mod empty_vs_absent;
mod endport_invalid;
mod except_outside_cidr;
mod explicit_allow_all;
mod hostnetwork_peer;
mod hostnetwork_subject;
mod ipblock_with_selector;
mod ipv4_only_block;
mod label_not_on_template;
mod loadbalancer_address_in_ipblock;
mod metadata_endpoint_reachable;
mod missing_namespace;
mod missing_policy_types;
mod named_port_divergent;
mod named_port_unresolved;
mod named_port_with_ipblock;
mod namespace_label_guess;
mod one_direction_only;
mod peer_empty;
mod peer_selects_nothing;
mod podselector_missing;
mod port_not_listened;
mod ports_in_own_rule;
mod probe_source_blocked;
mod protocol_omitted;
mod reply_rule;
mod rules_ignored;
mod selects_nothing;
mod sensitive_port_open;
mod service_port_used;
mod subject_in_other_namespace;
mod tenant_spoofable_selector;
mod typo_near_label;
mod unknown_field;
mod volatile_label;
mod wide_port_range;
mod wrong_direction_key;

use palisade_manifest::Diagnostic;

use crate::rule::LintRule;

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
    &port_not_listened::RULE,
    &hostnetwork_subject::RULE,
    &volatile_label::RULE,
    &reply_rule::RULE,
    &typo_near_label::RULE,
    &probe_source_blocked::RULE,
    &egress_anywhere::RULE,
    &metadata_endpoint_reachable::RULE,
    &ipv4_only_block::RULE,
    &all_namespaces_peer::RULE,
    &sensitive_port_open::RULE,
    &wide_port_range::RULE,
    &tenant_spoofable_selector::RULE,
    &one_direction_only::RULE,
    &label_not_on_template::RULE,
    &wrong_direction_key::RULE,
    &subject_in_other_namespace::RULE,
    &deny_by_exception_voided::RULE,
    &hostnetwork_peer::RULE,
    &client_address_lost::RULE,
    &loadbalancer_address_in_ipblock::RULE,
];

/// Returns the rule with this code or name.
#[must_use]
pub fn rule(word: &str) -> Option<&'static LintRule> {
    RULES.iter().copied().find(|rule| rule.name == word || rule.code.eq_ignore_ascii_case(word))
}

/// Returns whether a rule names what the loader found about a policy.
pub(crate) fn names_diagnostic(d: &Diagnostic) -> bool {
    let all: [fn(&Diagnostic) -> bool; 10] = [
        duplicate_name::fits,
        peer_empty::fits,
        ipblock_with_selector::fits,
        bad_cidr::fits,
        except_outside_cidr::fits,
        endport_invalid::fits,
        bad_port::fits,
        bad_selector::fits,
        unknown_field::fits,
        wrong_direction_key::fits,
    ];
    all.iter().any(|fits| fits(d))
}

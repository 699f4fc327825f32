//! The cases of the Kubernetes end-to-end suite for NetworkPolicy (SEMANTICS E.1), by their numbers there: namespaces
//! x, y, z with pods a, b, c, each listening on ports 80 and 81 of TCP, UDP and SCTP. After every change every pair of
//! pods is decided by the reference, by the plans and by the second opinion, in both families.

mod notation;
mod suite;
#[path = "../support/mod.rs"]
mod support;

use ipnet::IpNet;
use notation::*;
use palisade_policy::{Direction, Family, NodePlan, PeerEntry, Policy, PortMatch, Protocol, Selector};
use suite::{Suite, address};

use Direction::{Egress, Ingress};
use Protocol::{Sctp, Tcp, Udp};

const A: &[(&str, &str)] = &[("pod", "a")];
const EVERY: &[(&str, &str)] = &[];

#[test]
fn e01_default_deny_ingress() {
    Suite::with([deny("deny", EVERY, &[Ingress])]).expect(Tcp, 80, &[("", "x/", false)]);
}

#[test]
fn e02_default_deny_all() {
    Suite::with([deny("deny", EVERY, &[Ingress, Egress])]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("x/", "", false)],
    );
}

#[test]
fn e03_from_pods_of_the_own_namespace_by_label() {
    let policy = policy("allow-b", A).ingress([rule([own(one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e04_deny_all_and_allow_all_for_one_target() {
    let allow = policy("allow", A).ingress([rule([], [])]);
    Suite::with([deny("deny", EVERY, &[Ingress]), allow]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("", "x/a", true)],
    );
}

#[test]
fn e05_from_pods_in_all_namespaces() {
    let policy = policy("allow", A).ingress([rule([all_of(Selector::everything())], [])]);
    Suite::with([deny("deny", EVERY, &[Ingress]), policy]).expect(
        Tcp,
        80,
        &[("", "x/", false), ("", "x/a", true)],
    );
}

#[test]
fn e06_only_from_another_namespace() {
    let policy = policy("allow-y", A).ingress([rule([all_of(one("ns", "y"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e07_pod_selector_by_expressions() {
    let policy = policy("allow-b", A).ingress([rule([own(any_of("pod", &["b"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e08_namespace_selector_by_expressions() {
    let policy = policy("allow-y", A).ingress([rule([all_of(any_of("ns", &["y"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e09_pod_selector_or_namespace_selector() {
    let policy = policy("or", A).ingress([rule([all_of(none_of("ns", &["x"])), own(one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/c", "x/a", false)]);
}

#[test]
fn e10_pod_selector_and_namespace_selector() {
    let policy = policy("and", A).ingress([rule([both(none_of("ns", &["x"]), one("pod", "b"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("y/b", "x/a", true), ("z/b", "x/a", true)]);
}

#[test]
fn e11_several_expressions_in_both_selectors() {
    let policy =
        policy("and", A).ingress([rule([both(none_of("ns", &["x"]), any_of("pod", &["b", "c"]))], [])]);
    Suite::with([policy]).expect(
        Tcp,
        80,
        &[("x/", "x/a", false), ("y/a", "x/a", false), ("z/a", "x/a", false)],
    );
}

#[test]
fn e12_any_of_several_pod_selectors() {
    let policy = policy("or", A).ingress([rule([own(one("pod", "b")), own(one("pod", "c"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true), ("x/c", "x/a", true)]);
}

#[test]
fn e13_one_pod_of_another_namespace() {
    let policy = policy("allow-ya", A).ingress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("", "x/a", false), ("y/a", "x/a", true)]);
}

fn from_y_on(name: &str, port: PortMatch) -> Policy {
    policy(name, A).ingress([rule([all_of(one("ns", "y"))], [port])])
}

#[test]
fn e14_restricted_to_a_port() {
    let suite = Suite::with([from_y_on("allow-81", number(Tcp, 81))]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e15_stacked_policies_with_overlapping_subjects() {
    let mut suite = Suite::with([from_y_on("allow-81", number(Tcp, 81))]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.set(from_y_on("allow-80", number(Tcp, 80)));
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
}

#[test]
fn e16_allow_all() {
    let suite = Suite::with([policy("allow-all", EVERY).ingress([rule([], [])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
}

#[test]
fn e17_ingress_on_one_named_port() {
    let suite = Suite::with([policy("named", A).ingress([rule([], [named("serve-81-tcp")])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[]);
    suite.expect(Udp, 81, &[("", "x/a", false)]);
}

#[test]
fn e18_ingress_from_a_namespace_on_one_named_port() {
    let suite = Suite::with([from_y_on("named", named("serve-80-tcp"))]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
}

#[test]
fn e19_egress_on_one_named_port() {
    let suite = Suite::with([policy("named", A).egress([rule([], [named("serve-80-tcp")])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[("x/a", "", false)]);
}

#[test]
fn e20_an_updated_policy() {
    let mut suite = Suite::with([policy("p", EVERY).ingress([rule([], [])])]);
    suite.expect(Tcp, 81, &[]);
    suite.set(deny("p", EVERY, &[Ingress]));
    suite.expect(Tcp, 81, &[("", "x/", false)]);
}

#[test]
fn e21_an_updated_namespace() {
    let policy = policy("updated", A).ingress([rule([all_of(one("ns2", "updated"))], [])]);
    let mut suite = Suite::with([policy]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_namespace("y", &[("ns", "y"), ("ns2", "updated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.label_namespace("y", &[("ns", "y")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e22_an_updated_peer_pod() {
    let mut suite = Suite::with([policy("updated", A).ingress([rule([own(one("pod2", "updated"))], [])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_pod("x", "b", &[("pod", "b"), ("pod2", "updated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.label_pod("x", "b", &[("pod", "b")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e23_every_pod_of_the_own_namespace_only() {
    let policy = policy("own", A).ingress([rule([own(Selector::everything())], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("y/", "x/a", false), ("z/", "x/a", false)]);
}

#[test]
fn e24_a_pod_becomes_subject_by_its_label() {
    let mut suite = Suite::with([deny("deny", &[("target", "isolated")], &[Ingress])]);
    suite.expect(Tcp, 80, &[]);
    suite.label_pod("x", "a", &[("pod", "a"), ("target", "isolated")]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.label_pod("x", "a", &[("pod", "a")]);
    suite.expect(Tcp, 80, &[]);
}

#[test]
fn e25_egress_denied_by_pod_selector() {
    Suite::with([deny("deny", A, &[Egress])]).expect(Tcp, 80, &[("x/a", "", false)]);
}

#[test]
fn e26_egress_denied_for_a_namespace() {
    Suite::with([deny("deny", EVERY, &[Egress])]).expect(Tcp, 80, &[("x/", "", false)]);
}

#[test]
fn e27_ingress_and_egress_in_one_policy() {
    let policy =
        policy("both", A).ingress([rule([own(one("pod", "b"))], [])]).egress([rule([], [number(Tcp, 80)])]);
    let suite = Suite::with([policy]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.expect(Tcp, 81, &[("", "x/a", false), ("x/a", "", false), ("x/b", "x/a", true)]);
}

#[test]
fn e28_egress_denied_though_the_server_allows_it() {
    let client = policy("client", A).egress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    let server = policy_in("y", "server", &[]).ingress([rule([all_of(one("ns", "x"))], [])]);
    Suite::with([client, server]).expect(
        Tcp,
        80,
        &[("", "y/", false), ("x/", "y/", true), ("x/a", "", false), ("x/a", "y/a", true)],
    );
}

#[test]
fn e29_egress_to_a_server_in_another_namespace() {
    let policy = policy("to-ya", A).egress([rule([both(one("ns", "y"), one("pod", "a"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/a", true)]);
}

#[test]
fn e30_any_port_of_one_protocol() {
    let suite = Suite::with([policy("tcp", A).ingress([rule([], [any_port(Tcp)])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
    suite.expect(Udp, 80, &[("", "x/a", false)]);
}

#[test]
fn e31_of_several_ingress_policies_allow_all_wins() {
    let mut suite = Suite::with([policy("b", A).ingress([rule([own(one("pod", "b"))], [])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
    suite.set(policy("all", A).ingress([rule([], [])]));
    suite.expect(Tcp, 80, &[]);
}

#[test]
fn e32_of_several_egress_policies_allow_all_wins() {
    let mut suite = Suite::with([policy("80", A).egress([rule([], [number(Tcp, 80)])])]);
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[("x/a", "", false)]);
    suite.set(policy("all", A).egress([rule([], [])]));
    suite.expect(Tcp, 80, &[]);
    suite.expect(Tcp, 81, &[]);
}

#[test]
fn e33_deleted_policies_are_not_enforced() {
    let mut suite = Suite::with([deny("deny", EVERY, &[Ingress, Egress])]);
    suite.expect(Tcp, 80, &[("", "x/", false), ("x/", "", false)]);
    suite.remove("x", "deny");
    suite.expect(Tcp, 80, &[]);
    let without_policies = |plan: &NodePlan| NodePlan {
        local: plan.local.clone(),
        nodes: plan.nodes.clone(),
        refusing: plan.refusing.clone(),
        ..NodePlan::default()
    };
    let plans = suite.compilers.iter().map(|c| c.plan());
    assert!(plans.clone().all(|plan| *plan == without_policies(plan)), "nothing is left in the plans");
}

/// The single address of pod y/b, for each family.
fn of_yb() -> [IpNet; 2] {
    Family::BOTH.map(|family| IpNet::from(address(1, 1, family)))
}

/// The range around all pods of namespace y, for each family.
fn round_y() -> [IpNet; 2] {
    ["10.244.2.0/24", "fd00:10::2:0/112"].map(|cidr| cidr.parse().expect("a CIDR"))
}

#[test]
fn e34_egress_to_a_cidr_that_is_a_pod() {
    let policy = policy("cidr", A).egress([rule(of_yb().map(|net| block(net, &[])), [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/b", true)]);
}

fn egress_round_yb(name: &str) -> Policy {
    let blocks = [0, 1].map(|family| block(round_y()[family], &[of_yb()[family]]));
    policy(name, A).egress([rule(blocks, [])])
}

#[test]
fn e35_egress_to_a_cidr_with_a_pod_excepted() {
    let suite = Suite::with([egress_round_yb("except")]);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true), ("x/a", "y/b", false)]);
}

#[test]
fn e36_an_excepted_address_allowed_again() {
    let mut suite = Suite::with([egress_round_yb("except")]);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true), ("x/a", "y/b", false)]);
    let mut overlapping = egress_round_yb("except");
    overlapping.egress.as_mut().unwrap()[0]
        .peers
        .as_mut()
        .unwrap()
        .extend(of_yb().map(|net| PeerEntry { peer: block(net, &[]), origin: None }));
    suite.set(overlapping);
    suite.expect(Tcp, 80, &[("x/a", "", false), ("x/a", "y/", true)]);
}

#[test]
fn e37_ingress_and_egress_are_controlled_independently() {
    let mut suite = Suite::with([deny("in", A, &[Ingress]), deny("out", A, &[Egress])]);
    suite.expect(Tcp, 80, &[("", "x/a", false), ("x/a", "", false)]);
    suite.set(policy("in", A).ingress([rule([], [])]));
    suite.expect(Tcp, 80, &[("x/a", "", false)]);
    suite.remove("x", "in");
    suite.expect(Tcp, 80, &[("x/a", "", false)]);
    suite.set(deny("in", A, &[Ingress]));
    suite.remove("x", "out");
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
}

#[test]
fn e38_sctp_on_a_port_does_not_let_tcp_through() {
    let suite = Suite::with([policy("sctp", A).ingress([rule([], [number(Sctp, 80)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
    suite.expect(Sctp, 80, &[]);
}

#[test]
fn e39_a_policy_about_sctp_isolates_for_tcp() {
    let suite = Suite::with([policy("sctp", A).ingress([rule([own(one("pod", "b"))], [any_port(Sctp)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Sctp, 80, &[("", "x/a", false), ("x/b", "x/a", true)]);
}

#[test]
fn e40_udp_does_not_let_tcp_through() {
    let suite = Suite::with([policy("udp", A).ingress([rule([], [number(Udp, 80)])])]);
    suite.expect(Tcp, 80, &[("", "x/a", false)]);
    suite.expect(Udp, 80, &[]);
}

const BY_NAME: &str = palisade_policy::NAMESPACE_NAME_LABEL;

#[test]
fn e41_namespaces_by_the_automatic_name_label() {
    let policy = policy("allow-y", EVERY).ingress([rule([all_of(one(BY_NAME, "y"))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "x/", false), ("z/", "x/", false)]);
}

#[test]
fn e42_all_namespaces_but_one_by_the_automatic_name_label() {
    let policy = policy("not-y", EVERY).egress([rule([all_of(none_of(BY_NAME, &["y"]))], [])]);
    Suite::with([policy]).expect(Tcp, 80, &[("x/", "y/", false)]);
}

fn deny_ingress_for(protocol: Protocol) {
    Suite::with([deny("deny", EVERY, &[Ingress])]).expect(protocol, 80, &[("", "x/", false)]);
}

fn restricted_to_a_port_of(protocol: Protocol) {
    let suite = Suite::with([from_y_on("allow-81", number(protocol, 81))]);
    suite.expect(protocol, 81, &[("", "x/a", false), ("y/", "x/a", true)]);
    suite.expect(protocol, 80, &[("", "x/a", false)]);
    suite.expect(Tcp, 81, &[("", "x/a", false)]);
}

fn one_pod_of_another_namespace_on(protocol: Protocol) {
    let policy = policy("allow-ya", A)
        .ingress([rule([both(one("ns", "y"), one("pod", "a"))], [number(protocol, 80)])]);
    let suite = Suite::with([policy]);
    suite.expect(protocol, 80, &[("", "x/a", false), ("y/a", "x/a", true)]);
    suite.expect(protocol, 81, &[("", "x/a", false)]);
}

#[test]
fn e43_udp_deny_ingress() {
    deny_ingress_for(Udp);
}

#[test]
fn e44_udp_restricted_to_a_port() {
    restricted_to_a_port_of(Udp);
}

#[test]
fn e45_udp_one_pod_of_another_namespace() {
    one_pod_of_another_namespace_on(Udp);
}

#[test]
fn e46_sctp_deny_ingress() {
    deny_ingress_for(Sctp);
}

#[test]
fn e47_sctp_restricted_to_a_port() {
    restricted_to_a_port_of(Sctp);
}

#[test]
fn e48_sctp_one_pod_of_another_namespace() {
    one_pod_of_another_namespace_on(Sctp);
}

//! Operators list rulesets with the `nft` program, and other agents parse what it prints.

use std::{collections::BTreeSet, process::Command};

use libtest_mimic::Trial;
use palisade_nft::{Enforcer, EnforcerOptions, Kernel, LINEAR_LOOKUPS, NodeLinks};
use palisade_policy::Traffic;
use palisade_testkit::seeds;

use crate::{
    random::{Random, World},
    sandbox::trial_with_nft,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial_with_nft("the_nft_program_lists_every_shape", nft_lists_every_shape)]
}

/// What every packet passes reads the first octet of its header, which the program doesn't name.
const BY_FIRST_OCTET: [&str; 4] = [
    "@nh,0,8 0x45 iif \"lo\" accept",
    "@nh,0,8 0x45 iif . ip saddr @routed_sources4 accept",
    "@nh,0,32 & 0xf0000000 == 0x40000000 ct state established accept",
    "@nh,0,32 & 0xf0000000 == 0x40000000 goto forward4",
];

fn nft_lists_every_shape() {
    for seed in seeds(0..12) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, [4, LINEAR_LOOKUPS + 1, 40][seed as usize % 3]);
        while world.plan().tables.len() < 3 || world.plan().hairpin.values().all(Traffic::is_all) {
            world.step(random);
        }
        let links = NodeLinks { uplinks: BTreeSet::from([1]), ..NodeLinks::default() };
        let options = EnforcerOptions::default();
        let (mut enforcer, _) =
            Enforcer::start_in(Kernel::open().unwrap(), options, links, &world.plan()).unwrap();
        let text = list();
        for expected in [
            "table inet palisade {",
            "comment \"palisade format 2\"",
            "type filter hook forward priority filter; policy accept;",
            "type filter hook input priority filter; policy accept;",
            "ct label 127 goto revoked",
            "exthdr rt exists goto forward6",
            "ct state established accept",
            "icmpv6 type 133-137 ip6 hoplimit 255 accept",
            "type filter hook prerouting priority -450; policy accept;",
            "iif != @pod_interfaces accept",
            "\tfib saddr . iif oif missing jump forged_early",
            "meta pkttype multicast @ll,0,40 0x180c20000 jump misdirected",
            "ip hdrlength != 5 jump source_routes",
            "ip option lsrr exists goto misdirected",
            "ip option ssrr exists goto misdirected",
            "iif @pod_interfaces jump from_pods",
            "iif . ip6 saddr @routed_sources6 accept",
            "ip saddr 0.0.0.0 jump unspecified",
            "\tfib saddr . iif oif missing jump forged",
            "ip saddr . ip daddr @self4 goto to_itself4",
            "goto audit",
            "goto input6",
            "ip saddr . ip daddr vmap @hairpin4",
            "ip6 saddr . ip6 daddr vmap @hairpin6",
            "ip saddr vmap @egress4",
            "ip6 daddr vmap @ingress6",
            "limit rate 1000/second burst 2500 packets log prefix \"palisade ",
            "update @log_senders4 { ip saddr limit rate 100/second burst 250 packets } goto log_egress_total",
            "update @log_receivers6 { ip6 daddr limit rate 100/second burst 250 packets } goto log_audit_ingress_total",
            "jump log_egress",
            "counter packets 0 bytes 0 drop",
            "ip6 saddr . ip6 daddr . meta l4proto . udp sport . udp dport @revoked6 goto revoked",
            "ip6 daddr vmap @reply_egress6",
            "goto row_",
            " : jump row_egress_",
        ]
        .into_iter()
        .chain(BY_FIRST_OCTET)
        {
            assert!(text.contains(expected), "seed {seed}: no {expected:?} in\n{text}");
        }
        let input = "@nh,0,32 & 0xf0000000 == 0x40000000 goto input4";
        let named = BY_FIRST_OCTET.into_iter().chain([input, "ct state invalid,new"]);
        let text = named.fold(text, |text, known| text.replace(known, ""));
        // Payload that the program can't name would be printed as bare offsets.
        for unexpected in ["@nh,", "@th,", "@ih,", "invalid", "unknown"] {
            assert!(!text.contains(unexpected), "seed {seed}: {unexpected:?} in\n{text}");
        }
        enforcer.remove().unwrap();
        assert_eq!(list(), "", "seed {seed}");
    }
}

pub(crate) fn list() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    let output = output.expect("the nft program (package nftables) is needed as a second reader");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

//! The survey of other programs' tables, and the watchpoint.

use std::process::Command;

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel,
    survey::{OwnTable, Survey, TableName},
    watchpoint::{Watched, Watchpoint},
};
use palisade_policy::{NodePlan, Protocol};

use crate::sandbox::trial_with_nft;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_with_nft("a_survey_lists_tables_of_other_programs", survey),
        trial_with_nft("a_watchpoint_is_deleted_with_its_owner", watchpoint),
    ]
}

pub(crate) fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}

fn survey() {
    let mut kernel = Kernel::open().unwrap();
    assert_eq!(Survey::read(&mut kernel).unwrap(), Survey::default());
    nft(
        "add table ip filter { chain KUBE-NWPLCY-ABC { }; chain FORWARD { type filter hook forward priority 0; }; }",
    );
    nft("add table bridge cilium");
    nft("add table inet palisade");
    nft(
        "add table ip6 raw { chain pre { type filter hook prerouting priority raw; udp dport 53 notrack; tcp dport 53 notrack; }; }",
    );
    let found = Survey::read(&mut kernel).unwrap();
    let name = |family, name: &str| TableName { family, name: name.to_owned() };
    assert_eq!(found.tables[&name("ip", "filter")], ["KUBE-NWPLCY-ABC", "FORWARD"]);
    assert!(found.tables.contains_key(&name("bridge", "cilium")));
    assert_eq!(found.notrack_chains, [(name("ip6", "raw"), "pre".to_owned())]);
    assert_eq!(found.own_table, Some(OwnTable::Other(None)));
    assert_eq!(found.flow_tables, []);
    Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    assert_eq!(Survey::read(&mut kernel).unwrap().own_table, Some(OwnTable::Current));
    nft("add table inet palisade { flags dormant; }");
    assert_eq!(Survey::read(&mut kernel).unwrap().own_table, Some(OwnTable::Dormant));
}

fn watchpoint() {
    let watched = ["10.0.0.1", "fd00::1"].map(|source| Watched {
        source: source.parse().unwrap(),
        protocol: Protocol::Udp,
        port: 9,
    });
    let mut point = Watchpoint::open("palisade_probe", &watched).unwrap();
    assert_eq!(point.counts().unwrap(), watched.map(|w| (w, 0)));
    let listing = crate::listing::list();
    for expected in
        ["ip saddr 10.0.0.1 udp dport 9 counter packets 0", "ip6 saddr fd00::1 udp dport 9", "owner"]
    {
        assert!(listing.contains(expected), "no {expected:?} in {listing}");
    }
    let taken = Watchpoint::open("palisade_probe", &watched).unwrap_err();
    assert!(taken.to_string().contains("table inet palisade_probe"), "{taken}");
    drop(point);
    assert_eq!(crate::listing::list(), "");
}

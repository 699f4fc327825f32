//! The right port of the wrong protocol: without `protocol`, a port is TCP (SEMANTICS A5).

use palisade_policy::PortMatch;

use super::{Finding, case::Case};

pub(crate) fn find(case: &Case<'_>) -> Vec<Finding> {
    let Some((asked, number)) = case.asked_port() else { return Vec::new() };
    let mut out = Vec::new();
    for (miss, port) in case.ports() {
        let PortMatch::Numbers { protocol, first, last } = port else { continue };
        // Every port of a protocol is no statement about this one.
        if *protocol == asked || !(*first..=*last).contains(&number) || last - first > 1000 {
            continue;
        }
        let new = PortMatch::Numbers { protocol: asked, first: number, last: number };
        out.push(Finding {
            code: "port-protocol",
            text: format!("the rule allows {number} for {protocol}, and the connection is {asked}"),
            origin: miss.origin.cloned(),
            mend: Some(case.add_port(&miss, new)),
        });
    }
    out
}

//! `ipvs`: whether services are translated by IPVS, whose packets don't pass the forward hook.

use std::fs;

use crate::{finding::Outcome, interfaces::Interface, node::Node};

/// kube-proxy's dummy interface in `ipvs` mode, which has the services' addresses.
const KUBE_IPVS: &str = "kube-ipvs0";

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    let services = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
    Ok(ipvs(node.interfaces()?, &services))
}

/// `services`: the kernel's list of virtual services and their back ends.
fn ipvs(all: &[Interface], services: &str) -> Outcome {
    let is_service = |line: &&str| ["TCP", "UDP", "SCTP", "FWM"].iter().any(|p| line.starts_with(p));
    let sign = match services.lines().filter(is_service).count() {
        0 if all.iter().any(|i| i.name == KUBE_IPVS) => format!("interface {KUBE_IPVS}"),
        0 => return Outcome::ok("no service is translated by IPVS"),
        1 => "1 virtual service".to_owned(),
        many => format!("{many} virtual services"),
    };
    Outcome::warn(
        format!(
            "IPVS is in use ({sign}), as by kube-proxy in ipvs mode: packets to services bypass the forward hook, so policies \
             don't apply to them"
        ),
        "run kube-proxy in nftables or iptables mode; `kube-proxy --cleanup` removes what ipvs mode has left behind",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

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
        let outcome = ipvs(&[], &services);
        assert!(
            outcome.status == Status::Warn && outcome.found.contains("(2 virtual services)"),
            "{outcome:?}"
        );
        let left = Interface { name: KUBE_IPVS.to_owned(), ..Interface::default() };
        let outcome = ipvs(&[left], header);
        assert!(
            outcome.status == Status::Warn && outcome.found.contains("(interface kube-ipvs0)"),
            "{outcome:?}"
        );
    }
}

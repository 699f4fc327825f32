//! The options of bridges that lead to local pods, as far as the rules rely on them.
//!
//! * **Learning.** A bridge learns the port of a hardware address from frames to the groups that it reserves for itself (01:80:c2:00:00:*, such as LLDP's)
//!   too, and these pass none of its hooks. With the hardware address of another pod as the source, such a frame would lead that pod's packets to its
//!   sender. So while senders are checked, the agent sets the option `no_linklocal_learn`, which nothing else depends on.
//! * **Passing packets to netfilter.** What a bridge doesn't pass there reaches other pods of the bridge without any rule. That is a setting of the node,
//!   which the agent reports.

use std::{fs, path::Path};

use netlink_packet_route::link::{BridgeBooleanOptionFlags, InfoBridge};

/// The settings for all bridges of the network namespace. They are missing without the module `br_netfilter`.
const SETTINGS: &str = "/proc/sys/net/bridge";

/// Options of one bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    /// Whether it learns from frames to reserved groups.
    pub(super) learns_from_groups: bool,
    /// Whether it passes IPv4 and IPv6 packets to netfilter by an option of its own.
    calls_netfilter: [bool; 2],
}

impl BridgeOptions {
    pub(super) fn of(options: &[InfoBridge]) -> Self {
        let mut out = Self::default();
        for option in options {
            match option {
                InfoBridge::MultiBoolOpt(options) => {
                    let no_learning = BridgeBooleanOptionFlags::NoLinkLocalLearn;
                    // The mask has the options that this kernel has.
                    out.learns_from_groups =
                        options.mask.contains(no_learning) && !options.value.contains(no_learning);
                }
                InfoBridge::NfCallIpTables(on) => out.calls_netfilter[0] = *on,
                InfoBridge::NfCallIp6Tables(on) => out.calls_netfilter[1] = *on,
                _ => {}
            }
        }
        out
    }
}

/// Returns the names of the bridges that pass packets of these families, IPv4 first, past netfilter.
pub(super) fn bypassing<'a>(
    bridges: impl Iterator<Item = (&'a str, BridgeOptions)>,
    families: [bool; 2],
) -> Vec<String> {
    let for_all = settings(Path::new(SETTINGS));
    let bypasses = |options: &BridgeOptions| {
        (0..2).any(|family| families[family] && !for_all[family] && !options.calls_netfilter[family])
    };
    bridges.filter(|(_, options)| bypasses(options)).map(|(name, _)| name.to_owned()).collect()
}

/// Whether all bridges pass IPv4 and IPv6 packets to netfilter.
fn settings(folder: &Path) -> [bool; 2] {
    ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .map(|name| fs::read_to_string(folder.join(name)).is_ok_and(|value| value.trim() != "0"))
}

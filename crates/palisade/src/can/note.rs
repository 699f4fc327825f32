//! A note below an answer, and the notes about how its ends were found.

use std::net::IpAddr;

use ipnet::IpNet;
use palisade_names::PortSpec;
use palisade_policy::{Name, ObjectKey, TargetPort};
use serde::Serialize;

use super::host::{Host, Known};
use crate::connection_ends::abbreviated;

/// Something that a reader of an answer should know about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// A word for programs.
    pub(crate) code: &'static str,
    /// The note.
    pub(crate) text: String,
}

/// Notes about how an end was found.
impl Note {
    pub(super) fn found_elsewhere(name: &str, namespace: &str, found: &str) -> Self {
        let text = format!("`{name}` is not in namespace {namespace}; {found} is the only one of this name");
        Self { code: "found-elsewhere", text }
    }

    pub(super) fn host_network(name: &str) -> Self {
        let text = format!(
            "{name} uses the host network: policies never select its pods, and no selector matches them; to policies they \
             are their nodes"
        );
        Self { code: "host-network", text }
    }

    pub(super) fn any_node(name: &str) -> Self {
        let text = format!(
            "the input does not say on which node {name} runs: the answer is about every node; set `spec.nodeName`, or ask \
             about `node/NAME`"
        );
        Self { code: "any-node", text }
    }

    pub(super) fn without_host_network(name: &str) -> Self {
        let text =
            format!("{name} has host-network pods, which are left out: to policies they are their nodes");
        Self { code: "host-network", text }
    }

    pub(super) fn external_name(name: &str, host: &str) -> Self {
        Self {
            code: "external-name",
            text: format!("{name} is an ExternalName service: another name for {host}"),
        }
    }

    pub(super) fn range_without_cluster(net: IpNet, inside: usize) -> Self {
        let (addresses, are) = if inside == 1 { ("address", "is") } else { ("addresses", "are") };
        let text = format!(
            "{inside} {addresses} in {net} {are} of pods and nodes, which are left out: ask about them by name, or by * for \
             all pods"
        );
        Self { code: "range-without-cluster", text }
    }

    /// An address of a range of pods that no pod has.
    pub(super) fn unused_pod_address(address: IpAddr) -> Self {
        let text = format!(
            "{address} is in a range of pods, but no pod of the input has it: it is treated as an address outside the cluster, and a pod that \
             gets it may be treated otherwise"
        );
        Self { code: "unused-pod-address", text }
    }

    pub(super) fn api_server() -> Self {
        let text = "the API server is taken to be on the nodes of the control plane, on port 6443; its EndpointSlice \
                    would say"
            .to_owned();
        Self { code: "api-server", text }
    }

    /// A port of a node that is the `hostPort` of a pod, and of so many others.
    pub(super) fn host_port(node: &Name, port: u16, pod: &str, own: u16, others: usize) -> Self {
        let others = if others == 0 { String::new() } else { format!(" (and of {others} more)") };
        let text = format!(
            "port {port} of node {node} is the hostPort of {pod}{others}: policies are evaluated for the pod and its port {own}"
        );
        Self { code: "host-port", text }
    }

    /// The port of a headless service that has another target.
    pub(super) fn headless(
        service: &ObjectKey,
        port: Option<&PortSpec>,
        target: &TargetPort,
    ) -> Option<Self> {
        let port = port?;
        let target = match target {
            TargetPort::Number(number) => PortSpec::Number(*number),
            TargetPort::Name(name) => PortSpec::Name(name.clone()),
        };
        let text = format!(
            "service {service} is headless: nothing translates its port {port} to {target}; a connection to port {port} arrives \
             at port {port} of its pods"
        );
        (target != *port).then_some(Self { code: "headless", text })
    }

    pub(super) fn local_endpoints(service: &str) -> Self {
        let text = format!(
            "internalTrafficPolicy: Local: {service} leads only to pods on the client's node; clients on other nodes get no \
             answer, and pods without a node in the input may be on any"
        );
        Self { code: "local-endpoints", text }
    }

    pub(super) fn domain_names(text: String) -> Self {
        Self { code: "domain-names", text }
    }

    /// What is known about the addresses of a host.
    pub(crate) fn host(host: &Host) -> Self {
        let name = &host.name;
        let text = match &host.known {
            Known::Nothing => format!(
                "policies see addresses, not names: {name} may have any public address; --resolve asks for those that it \
                 has, and a host with a private address is asked about by address"
            ),
            Known::Answered(addresses) => format!(
                "the resolver of this machine answered {} for {name}; the cluster's DNS may answer others",
                abbreviated(addresses, ToString::to_string)
            ),
            Known::Learned(addresses) => {
                format!("the agent has learned {} for {name}", abbreviated(addresses, ToString::to_string))
            }
        };
        Self { code: "host-name", text }
    }

    /// Addresses of a host that agents don't learn.
    pub(super) fn not_learned(host: &str, addresses: &[IpAddr]) -> Self {
        let (these, are) = if addresses.len() == 1 { ("an address", "is") } else { ("addresses", "are") };
        let text = format!(
            "{} {are} not {these} of the public internet: agents learn such addresses for {host} only with --dns-allow",
            abbreviated(addresses, ToString::to_string)
        );
        Self { code: "not-learned", text }
    }
}

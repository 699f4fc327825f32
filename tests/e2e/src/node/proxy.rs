//! kube-proxy, in either mode.

use std::{fmt, fs, process::Command};

use anyhow::Result;
use palisade_cluster_tests::{ControlPlane, control_plane::Identity};
use serde_json::json;

use super::Node;
use crate::{network, programs};

/// How kube-proxy translates the addresses of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// By the rules of iptables.
    Iptables,
    /// By a table of nftables.
    Nftables,
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

impl Node {
    /// Starts kube-proxy. One that runs already is replaced, and its rules are removed first.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_proxy(&mut self, control: &ControlPlane, mode: ProxyMode) -> Result<()> {
        let program = programs::node_program("kube-proxy");
        let user = control.authority().user("system:kube-proxy", "system:node-proxiers")?;
        let kubeconfig = control.kubeconfig("kube-proxy", &Identity::Certificate(user), None)?;
        if self.proxy.take().is_some() {
            let mut clean = Command::new(&program);
            clean.args(["--config=/run/kube-proxy.json", "--cleanup"]).env("PATH", programs::path());
            self.run(clean)?;
        }
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode.to_string(),
            "clusterCIDR": network::PODS,
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": kubeconfig},
            // Limits of the whole machine are left as they are.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        fs::write(self.path("/run/kube-proxy.json"), serde_json::to_vec_pretty(&config)?)?;
        let mut command = Command::new(program);
        command.args(["--config=/run/kube-proxy.json", "--v=1"]).env("PATH", programs::path());
        self.proxy = Some(self.start("kube-proxy", command)?);
        Ok(())
    }
}

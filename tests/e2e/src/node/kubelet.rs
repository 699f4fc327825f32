//! The kubelet.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use palisade_cluster_tests::{ControlPlane, control_plane::Identity};
use serde_json::json;

use super::Node;
use crate::{cluster, programs};

impl Node {
    /// Starts the kubelet. It registers the node when the API server and containerd answer.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_kubelet(&mut self, control: &ControlPlane) -> Result<()> {
        let user = format!("system:node:{}", self.name);
        let pair = control.authority().user(&user, "system:nodes")?;
        let kubeconfig =
            control.kubeconfig(&format!("kubelet-{}", self.name), &Identity::Certificate(pair), None)?;
        let config = self.path("/run/kubelet.json");
        fs::write(
            &config,
            serde_json::to_vec_pretty(&self.kubelet_config(&control.authority().certificate()))?,
        )?;
        // What pods with the DNS policy "Default" get: no server.
        fs::write(self.path("/run/resolv.conf"), "")?;
        let mut command = Command::new(programs::node_program("kubelet"));
        let addresses = self.addresses().map(|a| a.to_string()).join(",");
        command.args(["--config=/run/kubelet.json", "--root-dir=/var/lib/kubelet", "--v=1"]);
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg(format!("--hostname-override={}", self.name));
        command.arg(format!("--node-ip={addresses}"));
        command.env("PATH", programs::path());
        self.kubelet = Some(self.start("kubelet", command)?);
        Ok(())
    }

    fn kubelet_config(&self, authority: &Path) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": authority},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "failCgroupV1": false,
            "failSwapOn": false,
            "clusterDNS": [cluster::DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": "/run/resolv.conf",
            "volumePluginDir": "/var/lib/kubelet/plugins-volume",
            // Lowering a score takes CAP_SYS_RESOURCE, which root in a container may not have.
            "oomScoreAdj": 0,
            // The node's disk is a tmpfs of the run, and the machine's memory is not its own.
            "localStorageCapacityIsolation": false,
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            // A request fails rather than hangs, but the machine may be busy.
            "runtimeRequestTimeout": "4m",
        })
    }
}

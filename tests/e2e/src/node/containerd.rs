//! containerd, and the network that its containers get from the bridge plugin.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use palisade_cluster_tests::eventually;
use serde_json::json;

use super::{Node, STARTED_WITHIN};
use crate::{images::PAUSE, network, programs, requirements};

const SOCKET: &str = "/run/containerd/containerd.sock";
const NAMESPACE: &str = "k8s.io";

impl Node {
    /// Starts containerd, waits until it answers, and imports the images of an archive.
    ///
    /// # Errors
    /// If it doesn't start, with the end of its log.
    pub fn start_runtime(&mut self, images: &Path) -> Result<()> {
        self.start_containerd()?;
        self.import(images)
    }

    fn start_containerd(&mut self) -> Result<()> {
        let folder = self.path("/run/cni/net.d");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("10-bridge.conflist"), serde_json::to_vec_pretty(&self.bridge_plugin())?)?;
        let config = self.path("/run/containerd.toml");
        fs::write(&config, self.containerd_config())?;
        let mut command = Command::new(programs::node_program("containerd"));
        command.args(["--config", "/run/containerd.toml"]);
        // containerd starts its shim, which starts runc; the plugins start iptables.
        command.env("PATH", programs::path());
        let process = self.start("containerd", command)?;
        self.containerd = Some(process);
        eventually(&format!("containerd of {}", self.name), STARTED_WITHIN, || {
            self.check()?;
            Ok(self.ctr(&["version"]).map_err(|e| format!("{e:#}")))
        })?;
        Ok(())
    }

    /// Imports an image from a file that all namespaces of the run see.
    fn import(&self, image: &Path) -> Result<()> {
        let file = image.to_str().context("a path that is not UTF-8")?;
        self.ctr(&["images", "import", "--local", file]).map(|_| ())
    }

    /// Runs `ctr` on the images and containers of Kubernetes.
    ///
    /// # Errors
    /// If it fails, with its standard error.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::node_program("ctr"));
        command.args(["--address", SOCKET, "--namespace", NAMESPACE]).args(arguments);
        self.run(command)
    }

    fn containerd_config(&self) -> String {
        let runc = requirements::RUNC;
        let snapshotter = requirements::snapshotter();
        let plugins = requirements::CNI_PLUGINS;
        format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
# Lowering a score takes CAP_SYS_RESOURCE, which root in a container may not have.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{plugins}", "/run/cni/bin"]
conf_dir = "/run/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"#
        )
    }

    fn bridge_plugin(&self) -> serde_json::Value {
        let ranges =
            network::pods(self.number).map(|(net, length)| json!([{"subnet": format!("{net}/{length}")}]));
        json!({
            "cniVersion": "1.0.0",
            "name": "bridge",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isDefaultGateway": true,
                    "hairpinMode": true,
                    // Other nodes route to pods, and policies see their addresses.
                    "ipMasq": false,
                    "ipam": {"type": "host-local", "dataDir": "/run/cni/addresses", "ranges": ranges},
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }
}

//! A cluster for tests: a real kube-apiserver with etcd, and a lab whose network namespaces are the nodes and pods.
//!
//! * [`Programs`] finds or builds the programs and files: the control plane, `palisade`, and the CustomResourceDefinitions.
//! * [`ControlPlane`] runs etcd and the API server in the lab's outside, with RBAC, and sends requests through `kubectl` or a client.
//! * [`kubelet`] registers the lab's nodes and creates a network namespace for every pod that is bound to one of them.
//! * [`crowd`] creates thousands of pods and policies that exist only as objects.
//! * [`Agent`] is the real `palisade agent`, a process in a node's network namespace.
//! * [`World`] combines them, and compares what the kernel does with what the engine decides for the objects in the API server.
//!
//! Nothing outlives the process ([`confined()`]), and nothing is visible outside of it except a folder for temporary files.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod agent;
pub mod certificates;
pub mod confined;
pub mod control_plane;
pub mod crowd;
pub mod kubelet;
pub mod process;
pub mod programs;
pub mod truth;
pub mod world;

pub use agent::{Agent, Metrics};
pub use confined::{confined, confined_with};
pub use control_plane::ControlPlane;
pub use process::Process;
pub use programs::Programs;
pub use world::World;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Polls `attempt` until it succeeds. After `within` it fails with the last reason.
///
/// # Errors
/// If the time is over, or as soon as `attempt` itself fails.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt()? {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() > within => {
                bail!("{what}: timed out after {} s: {why}", within.as_secs_f32())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

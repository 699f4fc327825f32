//! A cluster for tests: a real kube-apiserver with its etcd, and a lab that plays the nodes and pods.
//!
//! * [`Programs`] finds or builds what is run: the control plane, `palisade`, and the CustomResourceDefinitions.
//! * [`ControlPlane`] runs etcd and the API server in the lab's outside, with RBAC, and speaks to them by `kubectl` or a client.
//! * [`kubelet`] registers the lab's nodes and makes a network namespace for every pod that is bound to one of them.
//! * [`crowd`] makes thousands of pods and policies, as objects alone.
//! * [`Agent`] is the real `palisade agent`, a process in a node's network namespace.
//! * [`World`] is all of it, and holds what the kernel does against what the engine says about the objects in the API server.
//!
//! Nothing outlives the process ([`confined()`]), and nothing has a name outside of it but a folder for temporary files.

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
pub use confined::confined;
pub use control_plane::ControlPlane;
pub use process::Process;
pub use programs::Programs;
pub use world::World;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until there is an answer, or the time is over; then fails with the last reason why there was none.
///
/// # Errors
/// When the time is over, or at once when `ask` fails.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(why) if began.elapsed() > within => {
                bail!("{what}: not within {} s: {why}", within.as_secs_f32())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

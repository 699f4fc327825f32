//! The container images of a run, packed without a registry and without a container: programs, and what they need of the
//! machine's own files, in one archive that containerd imports.
//!
//! ```text
//!  programs ──────────────┐
//!                         ├─► Layer ─► Image ─► Layout ─► archive
//!  shell (root.rs) ───────┘                    (layout.rs)
//! ```

mod layout;
mod root;

use std::path::Path;

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};

use layout::{Image, Layer, Layout};

/// The image of the container that holds a pod's namespaces, as `kubelet` and the suites call it.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// [`PAUSE`], and as `deploy/manifests/remove.yaml` calls what waits.
const PAUSES: [&str; 2] = [PAUSE, "registry.k8s.io/pause:3.10"];
/// The name server's.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:e2e";
/// Palisade's, by the name in `deploy/manifests/palisade.yaml`, as containerd completes it.
pub const PALISADE: &str = concat!("docker.io/library/palisade:", env!("CARGO_PKG_VERSION"));

/// The test server, by the names that the suites ask for: Kubernetes 1.37 (the current one, and the one before) and the
/// Network Policy API.
const AGNHOST: [&str; 3] = [
    "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/agnhost:2.45",
];
/// A shell and its programs: Kubernetes' suite starts its own loops in it.
const SHELL: [&str; 1] = ["registry.k8s.io/e2e-test-images/busybox:1.37.0-2"];
/// What starts in pods whose first packets are judged: this program.
pub const STARTER: &str = "docker.io/library/palisade-e2e:starter";
/// A server that answers connections with packets of a wrong state, for one case about connection tracking.
const WRONG_STATE: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.5";

/// The programs that the images are made of.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The folder that `tests/e2e/build.sh nodes` prints.
    pub nodes: &'a Path,
    /// Palisade. Where it is linked dynamically, its libraries come along.
    pub palisade: &'a Path,
}

/// Checks that the machine has the programs that are copied into images.
///
/// # Errors
/// If one is missing, with the Debian packages that have what is missing.
pub fn check() -> Result<()> {
    root::check()
}

/// Packs all images into one archive.
///
/// # Errors
/// If a program is missing, with the Debian package that has it, or if the archive can't be written.
pub fn pack(programs: Programs<'_>, archive: &Path) -> Result<()> {
    let shell = root::shell()?;
    let agnhost = if kernel_has_sctp() { "agnhost" } else { "agnhost-raw-sctp" };
    let agnhost = Layer::of_program(&programs.nodes.join(agnhost), "/agnhost")?;
    let mut layout = Layout::create(archive)?;
    let test_server = Image::new(["/agnhost"]).arguments(["pause"]).layer(&shell).layer(&agnhost);
    layout.add(&test_server, &AGNHOST)?;
    // It has no shell: nothing runs there but the pause.
    layout.add(&Image::new(["/agnhost", "pause"]).user("65535:65535").layer(&agnhost), &PAUSES)?;
    layout.add(&Image::new([]).arguments(["sh"]).layer(&shell), &SHELL)?;
    let wrong_state =
        Layer::of_program(&programs.nodes.join("regression-issue-74839"), "/regression-issue-74839")?;
    layout.add(&Image::new(["/regression-issue-74839"]).layer(&wrong_state), &[WRONG_STATE])?;
    let coredns = Layer::of_program(&programs.nodes.join("coredns"), "/coredns")?;
    layout.add(&Image::new(["/coredns"]).layer(&coredns), &[COREDNS])?;
    let starter = root::program(&std::env::current_exe()?, "/palisade-e2e")?;
    layout.add(&Image::new(["/palisade-e2e"]).layer(&starter), &[STARTER])?;
    // As the Dockerfile has it.
    let palisade = root::program(programs.palisade, "/usr/local/bin/palisade")?;
    layout.add(&Image::new(["/usr/local/bin/palisade"]).user("65532:65532").layer(&palisade), &[PALISADE])?;
    layout.finish()
}

/// If not, the test server makes its packets of SCTP itself.
fn kernel_has_sctp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok()
}

//! A node: namespaces for itself, with a first process that holds them, and its programs in them.

mod containerd;
mod kubelet;
mod proxy;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{errno::Errno, mount::MsFlags, sched::unshare, sys::wait::wait, unistd::sethostname};
use palisade_cluster_tests::{Process, process::last_lines};
use palisade_netns::namespace::Namespace;

pub use proxy::ProxyMode;

use crate::{
    cgroups,
    namespaces::{Namespaces, all, on_thread},
    network, stage,
};

/// What runs on a node, or beside the control plane, or in a container, besides what the machine has.
pub const NODE_PROGRAMS: [&str; 10] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "coredns",
    "agnhost",
    "regression-issue-74839",
];

/// The hidden verb of this program that is a node's first process.
pub const VERB: &str = "node";
const READY: &str = "ready";

/// What a node has for itself of the machine's folders: (folder, name below the node's own).
const OWN: [(&str, &str); 4] = [("/var/lib", "lib"), ("/var/log", "log"), ("/tmp", "tmp"), ("/run", "run")];

/// Settings of the whole machine that a kubelet writes, with what it wants to find (`setupKernelTunables` of the kubelet's
/// container manager). A file of the node covers each.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    number: u8,
    cgroup: String,
    namespaces: Namespaces,
    network: Namespace,
    // Dropped in this order: what uses the node before its first process.
    proxy: Option<Process>,
    kubelet: Option<Process>,
    containerd: Option<Process>,
    init: Init,
}

/// The first process. When it ends, the kernel ends all others of the node.
#[derive(Debug)]
struct Init(Child);

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    /// Creates a node and connects it to the switch, which is in this process's namespace. None of its programs runs yet.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn create(number: u8, cgroups: &str) -> Result<Self> {
        let name = network::NODES[usize::from(number) - 1];
        let cgroup = format!("/{cgroups}/{name}");
        cgroups::create(&cgroup)?;
        for (_, own) in OWN {
            fs::create_dir_all(folder(name).join(own))?;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args([VERB, name]).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = on_thread(|| {
            unshare(all())?;
            command.spawn()
        });
        let mut init = Init(child.context("cannot create the namespaces of a node")?);
        let mut line = String::new();
        let output = init.0.stdout.take().context("no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == READY, "node {name} does not start");
        let namespaces = Namespaces::of(init.0.id())?;
        let network = namespaces.network()?;
        network::connect(number, &network)?;
        let node = Self {
            name,
            number,
            cgroup,
            namespaces,
            network,
            proxy: None,
            kubelet: None,
            containerd: None,
            init,
        };
        Ok(node)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its addresses, by family.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        network::node(self.number)
    }

    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// Its folder, as this process sees it; for the node, its parts are where `OWN` says.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(self.name)
    }

    /// A path of the node, as this process can open it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.0.id()))
    }

    /// Runs a program in the node's namespaces, and returns its output.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn output(&self, command: Command) -> Result<Output> {
        let command = without_folders(command);
        let program = command.get_program().to_owned();
        self.namespaces
            .run(command, Command::output)
            .with_context(|| format!("cannot start {} on {}", program.display(), self.name))
    }

    /// Runs a program in the node's namespaces, and returns its standard output.
    ///
    /// # Errors
    /// If it fails, with its standard error.
    pub fn run(&self, command: Command) -> Result<String> {
        let text = format!("{command:?}");
        let output = self.output(command)?;
        if !output.status.success() {
            bail!("{text} on {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program in the node's namespaces, with a log file in the node's folder.
    fn start(&self, name: &str, command: Command) -> Result<Process> {
        Process::start_by(name, without_folders(command), &self.folder(), |command| {
            self.namespaces.spawn(command)
        })
    }

    /// The end of the logs of its programs, to explain a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let programs = [&self.containerd, &self.kubelet, &self.proxy].into_iter().flatten();
        let log = |p: &Process| format!("{} of {}:\n{}", p.name(), self.name, last_lines(&p.log(), 15));
        programs.map(log).collect::<Vec<_>>().join("\n")
    }

    /// Fails if a program of the node has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        for program in [&mut self.containerd, &mut self.kubelet, &mut self.proxy].into_iter().flatten() {
            if let Some(status) = program.exit_status()? {
                bail!(
                    "{} of {} ended: {status}\n{}",
                    program.name(),
                    self.name,
                    last_lines(&program.log(), 20)
                );
            }
        }
        Ok(())
    }
}

/// Takes from the environment what names folders of the machine, which a node doesn't see: runc writes to the one for temporary files.
fn without_folders(mut command: Command) -> Command {
    for name in ["TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command
}

/// The folder of a node.
fn folder(name: &str) -> PathBuf {
    stage::folder("nodes").join(name)
}

/// How long a program of a node may take to start, on a busy machine with two cores.
const STARTED_WITHIN: Duration = Duration::from_secs(300);

/// The first process of a node. It doesn't return while the node exists.
///
/// # Errors
/// If the kernel refuses something.
pub fn init(name: &str) -> Result<()> {
    sethostname(name)?;
    stage::propagate(MsFlags::MS_PRIVATE)?;
    stage::mount_new("proc", "/proc")?;
    let own = folder(name);
    let here = own.join("run").join(Path::new(stage::FOLDER).strip_prefix("/run")?);
    fs::create_dir_all(&here)?;
    stage::bind(Path::new(stage::FOLDER), &here)?;
    for (index, (sysctl, value)) in SYSCTLS.into_iter().enumerate() {
        let path = Path::new("/proc/sys").join(sysctl);
        if path.exists() {
            let file = own.join(format!("sysctl-{index}"));
            fs::write(&file, format!("{value}\n"))?;
            stage::bind(&file, &path)?;
        }
    }
    for (path, name) in OWN {
        stage::bind(&own.join(name), Path::new(path))?;
    }
    // As on any node: otherwise volumes could not be passed on to containers.
    stage::propagate(MsFlags::MS_SHARED)?;
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    loop {
        // Orphans of the node become children of its first process.
        match wait() {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => std::thread::sleep(Duration::from_millis(200)),
            Err(e) => return Err(e.into()),
        }
    }
}

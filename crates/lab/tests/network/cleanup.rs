//! Nothing is left behind when a lab ends, and an unprivileged user can run one.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitCode, Stdio},
};

use libtest_mimic::{Failed, Trial};
use palisade_lab::{Lab, Layout, LayoutOptions, Sandbox, agent::palisade, with_causes};

use crate::{
    clusters::four,
    harness::{ensure, must_agree},
};

/// The environment variable that makes a copy of this program build a lab instead of running tests.
pub(crate) const ROLE: &str = "PALISADE_LAB_TEST_ROLE";

/// The links of the machine's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostLinks {
    links: Vec<String>,
}

impl HostLinks {
    /// Reads the links. Must be called before the sandbox is entered.
    pub(crate) fn read() -> Self {
        Self { links: links("/proc/self/net/dev") }
    }
}

fn links(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut names: Vec<String> =
        text.lines().skip(2).map(|l| l.split(':').next().unwrap().trim().to_owned()).collect();
    names.sort();
    names
}

pub(crate) fn trials(host: HostLinks) -> Vec<Trial> {
    vec![
        Trial::test("cleanup::no_link_of_a_lab_is_in_the_hosts_namespace", move || host_sees_nothing(&host)),
        Trial::test("cleanup::kill_9_leaves_nothing", kill_leaves_nothing),
        Trial::test("cleanup::an_unprivileged_user_can_run_a_lab", unprivileged_user),
    ]
}

/// Runs in the copy of this program: builds a lab, prints a line, and waits or probes.
pub(crate) fn child(role: &OsStr) -> ExitCode {
    let sandbox = Sandbox::enter().unwrap_or_else(|e| panic!("{}", with_causes(&e)));
    let lab = Lab::build(&sandbox, Layout::of(&four(), &LayoutOptions::default()).unwrap(), palisade())
        .unwrap_or_else(|e| panic!("{}", with_causes(&e)));
    if role == "probe" {
        must_agree(&lab).unwrap_or_else(|e| panic!("{e:?}"));
        println!("agreed{}", if sandbox.is_rootless() { ", rootless" } else { "" });
        return ExitCode::SUCCESS;
    }
    let namespaces = lab.pods().count() + lab.nodes().count();
    println!("{namespaces}");
    loop {
        std::thread::park();
    }
}

fn copy(role: &str) -> Command {
    // Not /proc/self/exe, because another user must be able to resolve the path.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).stdout(Stdio::piped());
    command
}

fn first_line(child: &mut Child) -> Result<String, Failed> {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The parent of this process entered no sandbox, so its network namespace is the machine's.
fn host_sees_nothing(before: &HostLinks) -> Result<(), Failed> {
    let mut lab = copy("wait").spawn()?;
    let ready = first_line(&mut lab);
    let now = links(&format!("/proc/{}/net/dev", std::os::unix::process::parent_id()));
    lab.kill()?;
    lab.wait()?;
    ensure(ready? == "6", || "the lab does not have four pods and two nodes".into())?;
    ensure(now == before.links, || format!("{now:?} instead of {:?}", before.links))
}

/// Returns the network namespaces that any process is in or has open.
fn held_namespaces() -> std::collections::BTreeSet<String> {
    let mut out = std::collections::BTreeSet::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for below in ["ns/net", "fd"] {
            let path = process.path().join(below);
            let entries: Vec<_> = match fs::read_dir(&path) {
                Ok(files) => files.flatten().map(|f| f.path()).collect(),
                Err(_) => vec![path],
            };
            let targets = entries.iter().filter_map(|e| fs::read_link(e).ok());
            out.extend(targets.map(|t| t.to_string_lossy().into_owned()).filter(|t| t.starts_with("net:")));
        }
    }
    out
}

fn kill_leaves_nothing() -> Result<(), Failed> {
    let mut lab = copy("wait").spawn()?;
    let ready = first_line(&mut lab)?;
    ensure(ready == "6", || ready.clone())?;
    let pid = lab.id();
    let during: std::collections::BTreeSet<String> = namespaces_of(pid);
    lab.kill()?; // SIGKILL
    lab.wait()?;
    ensure(during.len() >= 7, || format!("{} namespaces are too few", during.len()))?;
    let after = held_namespaces();
    let left: Vec<&String> = during.intersection(&after).collect();
    ensure(left.is_empty(), || format!("left behind: {left:?}"))
}

/// Returns the network namespaces that a process has open.
fn namespaces_of(pid: u32) -> std::collections::BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = files.filter_map(|f| fs::read_link(f.path()).ok());
    targets.map(|t| t.to_string_lossy().into_owned()).filter(|t| t.starts_with("net:")).collect()
}

fn unprivileged_user() -> Result<(), Failed> {
    let mut command = copy("probe");
    let is_root = fs::read_to_string("/proc/self/uid_map")?.split_whitespace().eq(["0", "0", "4294967295"]);
    // Otherwise all tests run in the user namespace of an unprivileged user, and the copy is root of it.
    let expected = if is_root { "agreed, rootless" } else { "agreed" };
    if is_root {
        // The uid of user `nobody`, which every distribution has.
        command.uid(65_534).gid(65_534);
    }
    let output = command.stderr(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure(output.status.success() && text.trim() == expected, || {
        format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))
    })
}

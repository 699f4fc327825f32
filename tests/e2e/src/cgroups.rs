//! The control groups of a run: one folder in each hierarchy of the machine, removed when the run has ended.
//!
//! Control groups are the one thing of a run that the kernel doesn't remove with its processes. So a process outside of the run
//! waits for its end, and then removes them ([`sweep`]). If that one is killed as well, the next run does it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "palisade-e2e-";
/// What a kubelet requires.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
/// How long processes may take to end after they were killed.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// Checks that there are hierarchies as a kubelet needs them.
///
/// # Errors
/// With what is missing.
pub fn check() -> Result<()> {
    let unified = Path::new(ROOT).join("cgroup.controllers");
    ensure!(
        !unified.exists(),
        "the machine has control groups of version 2 alone, in which this cluster has not been built yet: boot with \
         systemd.unified_cgroup_hierarchy=0, or run it in a virtual machine that does"
    );
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|c| !Path::new(ROOT).join(c).join("tasks").exists()).collect();
    ensure!(
        missing.is_empty(),
        "kubelets need control groups, and {ROOT} has no hierarchy for {}: mount them (Debian package cgroupfs-mount)",
        missing.join(", ")
    );
    Ok(())
}

/// The name of the groups of the run whose outer process is this one: its id and when it started, so that no later run has it.
///
/// # Errors
/// If `/proc` can't be read.
pub fn name() -> Result<String> {
    let id = std::process::id();
    let started = started(id).context("cannot read /proc/self/stat")?;
    Ok(format!("{PREFIX}{id}-{started}"))
}

/// When a process started, in clock ticks since boot.
fn started(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything; proc_pid_stat(5): the 22nd field.
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}

/// Every hierarchy of the machine.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(ROOT)?.collect::<io::Result<Vec<_>>>()?;
    let folders = entries.into_iter().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    Ok(folders.map(|e| e.path()).filter(|p| p.join("cgroup.procs").exists()).collect())
}

/// Creates the group `path` of a run in every hierarchy.
///
/// # Errors
/// If the kernel refuses one.
pub fn create(path: &str) -> Result<()> {
    // The nodes of a run are started side by side, and their groups are in one: it is complete before the other node sees it.
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _guard = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for hierarchy in hierarchies()? {
        let mut folder = hierarchy.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let above = folder.clone();
            folder.push(part);
            if folder.exists() {
                continue;
            }
            fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            // A group without processors and memory nodes can't have processes, and begins with none.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if above.join(file).exists() {
                    let content = fs::read(above.join(file))?;
                    fs::write(folder.join(file), content)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the groups of one run. Its processes have ended, or are about to.
pub fn sweep(name: &str) {
    let start = Instant::now();
    while start.elapsed() < ENDED_WITHIN {
        let folders: Vec<PathBuf> = hierarchies()
            .unwrap_or_default()
            .into_iter()
            .map(|h| h.join(name))
            .filter(|f| f.exists())
            .collect();
        if folders.is_empty() {
            return;
        }
        folders.iter().for_each(|f| remove(f));
        thread::sleep(Duration::from_millis(50));
    }
}

/// Removes the groups of runs that have ended, and whose own sweeper was killed.
pub fn sweep_ended() {
    for hierarchy in hierarchies().unwrap_or_default() {
        let Ok(entries) = fs::read_dir(hierarchy) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((id, since)) = name.strip_prefix(PREFIX).and_then(|n| n.split_once('-')) else {
                continue;
            };
            let Ok(id) = id.parse() else { continue };
            if started(id).as_deref() != Some(since) {
                remove(&entry.path());
            }
        }
    }
}

/// Removes a group with those below it. One that still has processes stays.
fn remove(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).for_each(|e| remove(&e.path()));
    }
    let _ = fs::remove_dir(folder);
}

//! The agent's place on the node: its directory, and whether one is at work.

use std::{fs, io, os::unix::net::UnixStream, path::Path};

use super::{Check, Status};

pub(super) fn checks(socket: &Path, out: &mut Vec<Check>) {
    if let Some(directory) = socket.parent() {
        out.push(run_directory(directory));
    }
    out.push(agent(socket));
}

fn run_directory(directory: &Path) -> Check {
    const ID: &str = "run-directory";
    let shown = directory.display();
    // The nearest directory that exists is where the agent would make its own.
    let existing = directory.ancestors().find(|d| d.is_dir());
    let Some(existing) = existing else {
        return Check::of(
            ID,
            Status::Fail,
            format!("{shown} can't be made"),
            "mount a writable directory there",
        );
    };
    let probe = existing.join(format!(".palisade-doctor-{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    match written {
        Ok(_) => {
            // It was ours; should it not go away, the directory is on its way out itself.
            _ = fs::remove_file(&probe);
            let state = if existing == directory { "is writable" } else { "can be made" };
            Check::ok(ID, format!("{shown} {state}"))
        }
        Err(e) => Check::of(
            ID,
            Status::Fail,
            format!("{} is not writable: {e}", existing.display()),
            format!("make {shown} writable for the agent, or mount the node's own there (hostPath)"),
        ),
    }
}

fn agent(socket: &Path) -> Check {
    const ID: &str = "agent";
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => Check::ok(ID, format!("an agent listens on {shown}")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Check::ok(ID, "no agent runs on this node"),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Check::of(
            ID,
            Status::Warn,
            format!(
                "an agent that listened on {shown} has ended: nobody follows changes, the last rules stay in force"
            ),
            "start it again, or take the rules away with `palisade agent --remove`",
        ),
        Err(e) => Check::of(ID, Status::Unknown, format!("{shown}: {e}"), super::kernel::cure_of_refusal()),
    }
}

//! `run-directory`: whether the agent can create its socket.

use std::{fs, path::Path};

use crate::{finding::Outcome, node::Node};

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(writable(node.socket.parent().unwrap_or(node.socket)))
}

fn writable(directory: &Path) -> Outcome {
    let shown = directory.display();
    // The agent creates missing directories below the nearest one that exists.
    let Some(existing) = directory.ancestors().find(|d| d.is_dir()) else {
        return Outcome::fail(format!("{shown} can't be created"), "mount a writable directory there");
    };
    let probe = existing.join(format!(".palisade-doctor-{}", std::process::id()));
    match fs::OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => {
            // The file is this process's own. If it can't be removed, the directory itself is being removed.
            _ = fs::remove_file(&probe);
            let state = if existing == directory { "is writable" } else { "can be created" };
            Outcome::ok(format!("{shown} {state}"))
        }
        Err(e) => Outcome::fail(
            format!("{} is not writable: {e}", existing.display()),
            format!("make {shown} writable for the agent, or mount the node's own there (hostPath)"),
        ),
    }
}

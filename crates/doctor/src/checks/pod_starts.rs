//! `pod-starts`: whether pods wait until they are isolated: by NRI, by the CNI plugin, or not at all.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::{finding::Outcome, node::Node};

/// Where container runtimes offer NRI, and the node's CNI configuration, unless they are configured otherwise.
const NRI: &str = "/var/run/nri/nri.sock";
const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// The plugin's type.
const PLUGIN: &str = "palisade-cni";
/// The longest configuration and the longest status in bytes.
const LONGEST: u64 = 1 << 20;
/// How long an agent may take: it may be in a long transaction.
const PATIENCE: Duration = Duration::from_secs(10);
const CURE: &str =
    "with NRI in the container runtime set `nri: auto`, else set `cni-chain: on`; see docs/start-of-pods.md";

pub(super) fn check(node: &Node<'_>) -> Result<Outcome, Outcome> {
    Ok(match UnixStream::connect(node.socket) {
        Ok(agent) => {
            let of_agent = |error| {
                let found =
                    format!("the agent on {} does not say what holds pods: {error}", node.socket.display());
                Outcome::unknown(found, "look at its log; an agent before 0.1 doesn't hold pods")
            };
            in_force(&holders(&agent).map_err(of_agent)?)
        }
        Err(_) => without_agent(Path::new(NRI), Path::new(CONFIGURATIONS)),
    })
}

/// What an agent says of what holds pods.
fn holders(agent: &UnixStream) -> Result<Vec<String>, String> {
    let text = |error: std::io::Error| error.to_string();
    agent.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    (&*agent).write_all(b"{\"version\":1,\"ask\":\"status\"}\n").map_err(text)?;
    let mut line = String::new();
    BufReader::new(agent.take(LONGEST)).read_line(&mut line).map_err(text)?;
    let answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    let held_by = answer.pointer("/reply/status/held_by").and_then(Value::as_array);
    let names = held_by.ok_or("it is of another version")?.iter();
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn in_force(holders: &[String]) -> Outcome {
    let name = |holder: &String| match &**holder {
        "nri" => "NRI".to_owned(),
        "cni" => "the CNI plugin".to_owned(),
        other => other.to_owned(),
    };
    let names: Vec<String> = holders.iter().map(name).collect();
    if names.is_empty() {
        return Outcome::warn(
            "neither NRI nor the CNI plugin is in force: a pod's first packets may pass before it is isolated",
            CURE,
        );
    }
    Outcome::ok(format!("pods are isolated before they start, by {}", names.join(" and by ")))
}

fn without_agent(nri: &Path, configurations: &Path) -> Outcome {
    let files = fs::read_dir(configurations).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_configuration =
        |path: &Path| path.extension().is_some_and(|e| ["conf", "conflist", "json"].iter().any(|c| e == *c));
    let has_plugin = |path: &Path| {
        let mut text = String::new();
        let file = fs::File::open(path).map(|file| file.take(LONGEST));
        file.and_then(|mut file| file.read_to_string(&mut text)).is_ok() && text.contains(PLUGIN)
    };
    if let Some(path) = files.into_iter().find(|path| is_configuration(path) && has_plugin(path)) {
        return Outcome::warn(
            format!("{} has the plugin {PLUGIN}, but no agent runs: pods don't start", path.display()),
            "start the agent, or remove the plugin with `palisade agent --remove`",
        );
    }
    Outcome::ok(match nri.exists() {
        true => format!("no agent runs that holds pods; the container runtime has NRI ({})", nri.display()),
        false => format!("no agent runs that holds pods, and there is no NRI at {}", nri.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn what_is_in_force_is_named() {
        let of = |names: &[&str]| in_force(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(of(&["nri", "cni"]).found.ends_with("by NRI and by the CNI plugin"));
        let none = of(&[]);
        assert_eq!(none.status, Status::Warn);
        assert!(none.found.contains("neither"));
    }

    #[test]
    fn a_plugin_without_an_agent_is_a_warning() {
        let dir = std::env::temp_dir().join(format!("palisade-pod-starts-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let of = || without_agent(&dir.join("nri.sock"), &dir);
        fs::write(dir.join("10-x.conflist"), [0xff]).expect("a file");
        assert!(of().found.contains("there is no NRI"));
        fs::write(dir.join("nri.sock"), "").expect("a file");
        assert!(of().found.contains("has NRI"));
        fs::write(dir.join("05-x.conflist"), r#"{"plugins":[{"type":"palisade-cni"}]}"#).expect("a file");
        let found = of();
        fs::remove_dir_all(&dir).expect("removed");
        assert!(found.status == Status::Warn && found.found.contains("05-x.conflist"), "{found:?}");
    }
}

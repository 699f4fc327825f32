//! The agent, as a process in the node's namespace.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    sync::Arc,
};

use clap::{Args as _, FromArgMatches as _};
use palisade_agent::{config::Config, daemon};

use crate::AGENT;

pub(crate) struct Agent(pub(crate) Child);

impl Agent {
    /// Starts it with these arguments besides.
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let mut words = vec![
            "--node-name=n1".to_owned(),
            format!("--source=dir:{}", at("manifests")),
            format!("--socket={}", at("run/agent.sock")),
            format!("--state-dir={}", at("state")),
            "--listen=off".to_owned(),
            "--health-listen=off".to_owned(),
            "--domain-names=on".to_owned(),
            "--dns-resolver=203.0.113.2,2001:db8::2,10.96.0.10,169.254.20.10,169.254.20.10:5353".to_owned(),
        ];
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let this = std::env::current_exe().unwrap();
        Self(Command::new(this).env(AGENT, words.join("\n")).spawn().unwrap())
    }

    /// Kills it, so that it can't do anything at the end.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Runs the agent in this process.
pub(crate) fn run(words: &str) {
    let command = Config::augment_args(clap::Command::new("agent"));
    let config =
        Config::from_arg_matches(&command.get_matches_from(["agent"].into_iter().chain(words.lines())))
            .unwrap();
    fs::create_dir_all(config.socket.parent().unwrap()).unwrap();
    palisade_agent::log::start(config.log_format, config.log_level);
    let explain: daemon::Explain = Arc::new(|_, _, _, _| Err("not in this test".to_owned()));
    daemon::run(&config, explain, Arc::new(|_, _| Vec::new())).unwrap();
}

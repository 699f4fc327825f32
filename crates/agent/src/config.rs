//! The agent's settings: one table, read from flags, environment and file.
//!
//! [`Config`] is that table. Each field is a flag (`--log-level`), an environment variable (`PALISADE_LOG_LEVEL`) and a
//! key of the file (`log-level`); a flag wins over the environment, that over the file, and that over the default.

mod source;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ArgAction, ArgMatches, Args, FromArgMatches as _, ValueEnum, parser::ValueSource};
use palisade_api::Access;
use palisade_policy::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use source::{SourceChoice, SourceError};

/// Read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/palisade/agent.yaml";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The name of this node in the cluster [default: $NODE_NAME, else the host's name]
    #[arg(long, env = "PALISADE_NODE_NAME", value_name = "NAME", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Where pods and policies come from: api (the API server), or dir:PATH (manifests in a directory or file)
    #[arg(
        long,
        env = "PALISADE_SOURCE",
        value_name = "api|dir:PATH",
        default_value = "api",
        hide_env_values = true
    )]
    pub source: SourceChoice,
    /// A kubeconfig file [default: as kubectl, else the pod's service account]
    #[arg(long, env = "PALISADE_KUBECONFIG", value_name = "FILE", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig other than its current one
    #[arg(long, env = "PALISADE_CONTEXT", value_name = "NAME", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where metrics are served (and health, but the kubelet should ask --health-listen), or off
    #[arg(
        long,
        env = "PALISADE_LISTEN",
        value_name = "ADDRESS|off",
        default_value = "0.0.0.0:9643",
        hide_env_values = true
    )]
    pub listen: Listen,
    /// Where health alone is served, for the kubelet: an address that pods can't reach, or off
    #[arg(
        long,
        env = "PALISADE_HEALTH_LISTEN",
        value_name = "ADDRESS|off",
        default_value = "127.0.0.1:9644",
        hide_env_values = true
    )]
    pub health_listen: Listen,
    /// The socket that `palisade node` asks; the agent's lock lies beside it
    #[arg(
        long,
        env = "PALISADE_SOCKET",
        value_name = "FILE",
        default_value = DEFAULT_SOCKET,
        hide_env_values = true
    )]
    pub socket: PathBuf,
    /// How many seconds to wait for another agent on this node to end
    #[arg(
        long,
        env = "PALISADE_LOCK_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        hide_env_values = true
    )]
    pub lock_timeout: u64,
    /// The form of the log, which goes to standard error
    #[arg(
        long,
        env = "PALISADE_LOG_FORMAT",
        value_enum,
        value_name = "FORM",
        default_value_t,
        hide_env_values = true
    )]
    pub log_format: LogFormat,
    /// How much is logged
    #[arg(
        long,
        env = "PALISADE_LOG_LEVEL",
        value_enum,
        value_name = "LEVEL",
        default_value_t,
        hide_env_values = true
    )]
    pub log_level: LogLevel,
    /// Whether egress policies hold for what a pod sends to its own node
    #[arg(
        long,
        env = "PALISADE_EGRESS_TO_OWN_NODE",
        value_enum,
        value_name = "HOW",
        default_value_t,
        hide_env_values = true
    )]
    pub egress_to_own_node: EgressToOwnNode,
    /// Whether packets from pods with a source address that is not theirs are dropped
    #[arg(
        long,
        env = "PALISADE_SOURCE_CHECK",
        value_enum,
        value_name = "HOW",
        default_value_t,
        hide_env_values = true
    )]
    pub source_check: SourceCheck,
    /// Count and log denied packets
    #[arg(
        long,
        env = "PALISADE_LOG_DROPS",
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_env_values = true
    )]
    pub log_drops: bool,
    /// Write Kubernetes Events and status conditions about policies that can't be used
    #[arg(
        long,
        env = "PALISADE_REPORT_STATUS",
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_env_values = true
    )]
    pub report_status: bool,
}

/// Where the agent's socket is unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/palisade/agent.sock";

/// Where HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What keeps policies from being enforced.
    Error,
    /// And what will, or may not be what was meant.
    Warn,
    /// And what the agent does.
    #[default]
    Info,
    /// And each transaction.
    Debug,
    /// And what its libraries say.
    Trace,
}

/// Whether egress policies hold for what a pod sends to its own node (SEMANTICS G-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressToOwnNode {
    /// They don't, as the documentation says literally.
    Exempt,
    /// They do, as for every other destination.
    #[default]
    Enforce,
}

/// Whether forged source addresses are dropped (SEMANTICS G-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceCheck {
    /// They aren't: for nodes where pods' packets come back by another interface
    Off,
    /// They are, if no route leads back to the source by the interface they came in on
    #[default]
    Enforce,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file says something that can't be meant.
    #[error("{}: {what}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What, with line and column.
        what: String,
    },
    /// The command line.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The host has no name that a node could have.
    #[error("this host has no usable name: say --node-name, or set NODE_NAME")]
    NoName,
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("{text:?} is neither off nor an address with a port, such as 0.0.0.0:9643 or [::1]:9643")
        })
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => write!(f, "{address}"),
        }
    }
}

impl Default for Config {
    /// What holds if nobody says anything.
    fn default() -> Self {
        let silent = Self::augment_args(clap::Command::new("agent")).mut_args(|a| a.env(None::<&str>));
        let matches = silent.get_matches_from(["agent"]);
        Self::from_arg_matches(&matches).unwrap_or_else(|e| unreachable!("the defaults are legal: {e}"))
    }
}

impl Config {
    /// The settings from flags and environment as clap has matched them, and from `file`, or from [`DEFAULT_FILE`] if there
    /// is one.
    ///
    /// # Errors
    /// When a file that was named can't be read, and when a file has unknown keys or illegal values: with line and column.
    pub fn read(matches: &ArgMatches, file: Option<&Path>) -> Result<Self, ConfigError> {
        let said = Self::from_arg_matches(matches)?;
        let (path, text) = match file {
            Some(path) => (path, fs::read_to_string(path)),
            None => (Path::new(DEFAULT_FILE), fs::read_to_string(DEFAULT_FILE)),
        };
        match text {
            Ok(text) => said.over(matches, path, &text),
            Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => Ok(said),
            Err(source) => Err(ConfigError::Read { file: path.to_owned(), source }),
        }
    }

    /// These settings where somebody said them, else those of a file.
    fn over(self, matches: &ArgMatches, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let refused = |what: String| ConfigError::File { file: path.to_owned(), what };
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Ok(self);
        }
        let in_file: Self = serde_saphyr::from_str(text).map_err(|e| refused(e.to_string()))?;
        let keys: Map<String, Value> = serde_saphyr::from_str(text).map_err(|e| refused(e.to_string()))?;
        let as_map = |config: &Self| serde_json::to_value(config).map_err(|e| refused(e.to_string()));
        let (mut merged, in_file) = (as_map(&self)?, as_map(&in_file)?);
        for key in keys.keys() {
            let said = matches.value_source(&key.replace('-', "_"));
            if said.is_none_or(|source| source == ValueSource::DefaultValue) {
                merged[key] = in_file[key].clone();
            }
        }
        serde_json::from_value(merged).map_err(|e| refused(e.to_string()))
    }

    /// The settings as a file would have them.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|e| e.to_string())
    }

    /// The node for which the agent works.
    ///
    /// # Errors
    /// When nobody said it and the host's name is no text.
    pub fn node(&self) -> Result<Name, ConfigError> {
        let set = self.node_name.clone().or_else(|| std::env::var("NODE_NAME").ok());
        let named = set.filter(|name| !name.is_empty());
        let host = || nix::unistd::gethostname().ok()?.into_string().ok();
        // kubelet registers its host under the lower-case name.
        let name = named.or_else(|| host().map(|name| name.to_lowercase())).filter(|name| !name.is_empty());
        name.map(Name::from).ok_or(ConfigError::NoName)
    }

    /// The way to the API server.
    #[must_use]
    pub fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone(), timeout: None }
    }

    /// A file beside the socket.
    #[must_use]
    pub fn beside_socket(&self, name: &str) -> PathBuf {
        self.socket.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(words: &[&str], environment: &[(&'static str, &'static str)]) -> ArgMatches {
        // The process has one environment, and tests run side by side: so the variables become defaults here, which clap
        // treats alike but for their source.
        let mut command = Config::augment_args(clap::Command::new("agent")).mut_args(|a| a.env(None::<&str>));
        for (id, value) in environment {
            command = command.mut_arg(id, |a| a.default_value(*value));
        }
        command.get_matches_from([&["agent"], words].concat())
    }

    fn read(words: &[&str], text: &str) -> Result<Config, ConfigError> {
        let matches = matches(words, &[]);
        Config::from_arg_matches(&matches).unwrap().over(&matches, Path::new("agent.yaml"), text)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_default() {
        let file = "log-level: debug\nlock-timeout: 5\nsource: dir:/etc/policies\nlisten: off\n";
        let config = read(&["--log-level", "warn", "--log-drops=false"], file).unwrap();
        assert_eq!(config.log_level, LogLevel::Warn, "a flag");
        assert!(!config.log_drops, "a flag");
        assert_eq!(config.lock_timeout, 5, "the file");
        assert_eq!(config.source, SourceChoice::Directory("/etc/policies".into()), "the file");
        assert_eq!(config.listen, Listen::Off, "the file");
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET), "the default");
        // A flag that repeats the default was said all the same.
        assert_eq!(read(&["--lock-timeout", "30"], file).unwrap().lock_timeout, 30);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "# nothing\n", "\n  \n"] {
            assert_eq!(read(&[], text).unwrap(), Config::default());
        }
    }

    #[test]
    fn what_a_file_must_not_say_is_told_with_its_line() {
        let of = |text: &str| read(&[], text).unwrap_err().to_string();
        let unknown = of("log-level: info\nlog-lvel: debug\n");
        assert!(unknown.contains("log-lvel") && unknown.contains("line 2"), "{unknown}");
        let wrong = of("log-level: loud\n");
        assert!(wrong.contains("loud") && wrong.contains("line 1"), "{wrong}");
        let address = of("source: api\nlisten: everywhere\n");
        assert!(address.contains("everywhere"), "{address}");
        let source = of("source: file:/x\n");
        assert!(source.contains("file:/x"), "{source}");
        assert!(of("- a\n- b\n").starts_with("agent.yaml: "));
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = read(&["--context", "a: b", "--listen", "[::1]:1"], "log-format: json\n").unwrap();
        assert_eq!(read(&[], &config.to_yaml().unwrap()).unwrap(), config);
    }
}

//! The agent's settings, read from flags, environment variables and a file.
//!
//! Each field of [`Config`] is a flag (`--log-level`), an environment variable (`PALISADE_LOG_LEVEL`) and a key of the
//! file (`log-level`). Flags take precedence over the environment, the environment over the file, and the file over the default.

mod allowed_sources;
mod choices;
mod deny_by;
mod dns;
mod flows;
mod list;
mod listen;
mod problem;
mod source;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{ArgAction, ArgMatches, Args, FromArgMatches as _, parser::ValueSource};
use ipnet::IpNet;
use palisade_api::Access;
use palisade_policy::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use allowed_sources::{AllowedSources, AllowedSourcesError};
pub use choices::{
    CniChain, DomainNames, EgressToOwnNode, LogFormat, LogLevel, Nri, PodStart, PolicyMode, SourceCheck,
    StartupTaint,
};
pub use deny_by::DenyBy;
pub use dns::{DnsFail, DnsServer, NoDnsServer};
pub use flows::Flows;
pub use list::{Item, List, ListError};
pub use listen::Listen;
pub use source::{SourceChoice, SourceError};

/// The settings file that is read if it exists and no other is given.
pub const DEFAULT_FILE: &str = "/etc/palisade/agent.yaml";

/// The path of the agent's socket, unless another is set.
pub const DEFAULT_SOCKET: &str = "/run/palisade/agent.sock";

/// The path of the container runtime's NRI socket, unless another is set.
pub const DEFAULT_NRI_SOCKET: &str = "/var/run/nri/nri.sock";

/// The directory of CNI configuration, unless another is set.
pub const DEFAULT_CNI_CONF_DIR: &str = "/etc/cni/net.d";

/// The directory of CNI plugins, unless another is set.
pub const DEFAULT_CNI_BIN_DIR: &str = "/opt/cni/bin";

/// Defines [`Config`]. A value has its field, type, environment variable, placeholder in the help, and further arguments for clap. A
/// switch has its field and environment variable; it is on by default.
macro_rules! settings {
    (
        values { $(
            $(#[$value_attribute:meta])*
            $value:ident: $type:ty, $value_env:literal, $placeholder:literal [$($argument:tt)*];
        )* }
        switches { $(
            $(#[$switch_attribute:meta])*
            $switch:ident, $switch_env:literal;
        )* }
    ) => {
        /// All settings of the agent.
        #[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Config {
            $(
                $(#[$value_attribute])*
                #[arg(long, env = $value_env, value_name = $placeholder, hide_env_values = true, $($argument)*)]
                pub $value: $type,
            )*
            $(
                $(#[$switch_attribute])*
                #[arg(
                    long,
                    env = $switch_env,
                    value_name = "BOOL",
                    action = ArgAction::Set,
                    default_value_t = true,
                    default_missing_value = "true",
                    num_args = 0..=1,
                    require_equals = true,
                    hide_env_values = true
                )]
                pub $switch: bool,
            )*
        }
    };
}

settings! {
    values {
        /// Name of this node in the cluster [default: $NODE_NAME, else the host name]
        #[serde(skip_serializing_if = "Option::is_none")]
        node_name: Option<String>, "PALISADE_NODE_NAME", "NAME" [];
        /// Source of pods and policies: api (the API server), or dir:PATH (manifests in a directory or file)
        source: SourceChoice, "PALISADE_SOURCE", "api|dir:PATH" [default_value = "api"];
        /// Kubeconfig file [default: as kubectl, else the pod's service account]
        #[serde(skip_serializing_if = "Option::is_none")]
        kubeconfig: Option<PathBuf>, "PALISADE_KUBECONFIG", "FILE" [];
        /// Context in the kubeconfig [default: the current context]
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<String>, "PALISADE_CONTEXT", "NAME" [];
        /// Address that serves metrics and health, or off. Kubelet probes should use --health-listen
        listen: Listen, "PALISADE_LISTEN", "ADDRESS|off" [default_value = "0.0.0.0:9643"];
        /// Address that serves health only, for the kubelet, or off. Pods must not be able to reach it
        health_listen: Listen, "PALISADE_HEALTH_LISTEN", "ADDRESS|off" [default_value = "127.0.0.1:9644"];
        /// Socket for `palisade node`. The agent's lock file is in the same directory
        socket: PathBuf, "PALISADE_SOCKET", "FILE" [default_value = DEFAULT_SOCKET];
        /// Directory for state that is kept when the node restarts. Its pods are then closed until their policies are programmed [default: none]
        #[serde(skip_serializing_if = "Option::is_none")]
        state_dir: Option<PathBuf>, "PALISADE_STATE_DIR", "DIR" [];
        /// How long to wait for another agent on this node to stop, in seconds
        lock_timeout: u64, "PALISADE_LOCK_TIMEOUT", "SECONDS" [default_value_t = 30];
        /// Format of the log, which is written to standard error
        log_format: LogFormat, "PALISADE_LOG_FORMAT", "FORMAT" [value_enum, default_value_t];
        /// Least severe level that is logged
        log_level: LogLevel, "PALISADE_LOG_LEVEL", "LEVEL" [value_enum, default_value_t];
        /// Whether policies are enforced, or what they would deny is only recorded. The annotation palisade.dev/mode of a policy and the label of its namespace take precedence
        mode: PolicyMode, "PALISADE_MODE", "MODE" [value_enum, default_value_t];
        /// What happens to packets that policies deny. The annotation palisade.dev/deny of the pod's namespace takes precedence
        deny: DenyBy, "PALISADE_DENY", "MODE" [value_enum, default_value_t];
        /// Whether egress policies apply to traffic from a pod to its own node
        egress_to_own_node: EgressToOwnNode, "PALISADE_EGRESS_TO_OWN_NODE", "MODE" [value_enum, default_value_t];
        /// Whether packets from pods with a forged source address are dropped
        source_check: SourceCheck, "PALISADE_SOURCE_CHECK", "MODE" [value_enum, default_value_t];
        /// Networks whose addresses every pod may have as a source beside its own, separated by commas: virtual addresses that move between pods [default: none]
        #[arg(hide_default_value = true)]
        allow_source: AllowedSources, "PALISADE_ALLOW_SOURCE", "CIDR,…" [default_value = ""];
        /// Whether this node's taint palisade.dev/agent-not-ready is removed once the agent is ready
        startup_taint: StartupTaint, "PALISADE_STARTUP_TAINT", "MODE" [value_enum, default_value_t];
        /// Whether the container runtime announces pods, by NRI, so that they are isolated before they start
        nri: Nri, "PALISADE_NRI", "MODE" [value_enum, default_value_t];
        /// The container runtime's NRI socket
        nri_socket: PathBuf, "PALISADE_NRI_SOCKET", "FILE" [default_value = DEFAULT_NRI_SOCKET];
        /// Whether the agent adds a plugin to the node's CNI configuration that holds pods until they are isolated, for nodes without NRI
        #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "on")]
        cni_chain: CniChain, "PALISADE_CNI_CHAIN", "MODE" [value_enum, default_value_t];
        /// Directory of the node's CNI configuration
        cni_conf_dir: PathBuf, "PALISADE_CNI_CONF_DIR", "DIR" [default_value = DEFAULT_CNI_CONF_DIR];
        /// Directory of the node's CNI plugins
        cni_bin_dir: PathBuf, "PALISADE_CNI_BIN_DIR", "DIR" [default_value = DEFAULT_CNI_BIN_DIR];
        /// Which flows are recorded
        flows: Flows, "PALISADE_FLOWS", "WHICH" [value_enum, default_value_t];
        /// Bytes of the latest flows that are kept for `palisade flows`; 0 keeps none
        flow_buffer: u64, "PALISADE_FLOW_BUFFER", "BYTES" [default_value_t = 4_194_304];
        /// File to which records of flows are written as JSON lines [default: none]
        #[serde(skip_serializing_if = "Option::is_none")]
        flow_file: Option<PathBuf>, "PALISADE_FLOW_FILE", "FILE" [];
        /// Size at which the flow file is rotated, in bytes
        flow_file_size: u64, "PALISADE_FLOW_FILE_SIZE", "BYTES" [default_value_t = 10_485_760];
        /// How many older flow files are kept, as FILE.1 and so on
        flow_file_count: u8, "PALISADE_FLOW_FILE_COUNT", "N" [default_value_t = 4];
        /// URL of an OpenTelemetry endpoint (OTLP by HTTP) to which records of flows and metrics are sent, such as http://collector:4318 [default: none]
        #[serde(skip_serializing_if = "Option::is_none")]
        otlp_endpoint: Option<String>, "PALISADE_OTLP_ENDPOINT", "URL" [];
        /// Whether the agent learns addresses from answers of DNS servers for rules with domain names, which match nothing otherwise. The answers pass through packet queue 4053
        domain_names: DomainNames, "PALISADE_DOMAIN_NAMES", "MODE" [value_enum, default_value_t];
        /// DNS servers that are trusted, separated by commas, as pods have them in /etc/resolv.conf; the port is 53 unless it is added [default: the cluster's DNS Service and the nameservers of the node]
        #[arg(hide_default_value = true)]
        dns_resolver: List<DnsServer>, "PALISADE_DNS_RESOLVER", "ADDRESS[:PORT],…" [default_value = ""];
        /// What happens to DNS between pods with rules by name and trusted servers while no agent reads it, or more messages arrive than the queue holds
        dns_fail: DnsFail, "PALISADE_DNS_FAIL", "MODE" [value_enum, default_value_t];
        /// Networks whose addresses are learned although they are private or of the cluster, separated by commas [default: none]
        #[arg(hide_default_value = true)]
        dns_allow: List<IpNet>, "PALISADE_DNS_ALLOW", "CIDR,…" [default_value = ""];
        /// How a pod starts whose policies are not programmed in time
        pod_start: PodStart, "PALISADE_POD_START", "MODE" [value_enum, default_value_t];
        /// How long the start of a pod waits for its policies, in milliseconds. The agent lowers it if the container runtime waits for less
        pod_start_timeout: u64, "PALISADE_POD_START_TIMEOUT", "MILLISECONDS" [default_value_t = 1750];
    }
    switches {
        /// Count and log denied packets
        log_drops, "PALISADE_LOG_DROPS";
        /// Write Kubernetes Events and status conditions about policies that can't be used
        report_status, "PALISADE_REPORT_STATUS";
    }
}

/// Why the settings can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file has an unknown key or an invalid value.
    #[error("{}{what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The error, after line and column: `:2:1: unknown key …`.
        what: String,
    },
    /// The command line is invalid.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The host name can't be used as node name.
    #[error("this host has no usable name: set --node-name or NODE_NAME")]
    NoName,
}

impl Default for Config {
    /// The settings without flags, environment and file.
    fn default() -> Self {
        let command = Self::augment_args(clap::Command::new("agent")).mut_args(|a| a.env(None::<&str>));
        let matches = command.get_matches_from(["agent"]);
        Self::from_arg_matches(&matches).unwrap_or_else(|e| unreachable!("the defaults are valid: {e}"))
    }
}

impl Config {
    /// Reads the settings from flags and environment as matched by clap, and from `file`, or from [`DEFAULT_FILE`] if it
    /// exists.
    ///
    /// # Errors
    /// If `file` can't be read, or a file has unknown keys or invalid values. The error has line and column.
    pub fn read(matches: &ArgMatches, file: Option<&Path>) -> Result<Self, ConfigError> {
        let settings = Self::from_arg_matches(matches)?;
        let (path, text) = match file {
            Some(path) => (path, fs::read_to_string(path)),
            None => (Path::new(DEFAULT_FILE), fs::read_to_string(DEFAULT_FILE)),
        };
        match text {
            Ok(text) => settings.merge_file(matches, path, &text),
            Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => Ok(settings),
            Err(source) => Err(ConfigError::Read { file: path.to_owned(), source }),
        }
    }

    /// Takes each setting that is neither a flag nor in the environment from a file.
    fn merge_file(self, matches: &ArgMatches, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = |what: String| ConfigError::File { file: path.to_owned(), what };
        let invalid = |error: serde_saphyr::Error| file(problem::described(&error));
        let unusable = |error: serde_json::Error| file(format!(": {error}"));
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Ok(self);
        }
        let in_file: Self = serde_saphyr::from_str(text).map_err(invalid)?;
        let keys: Map<String, Value> = serde_saphyr::from_str(text).map_err(invalid)?;
        let as_map = |config: &Self| serde_json::to_value(config).map_err(unusable);
        let (mut merged, in_file) = (as_map(&self)?, as_map(&in_file)?);
        for key in keys.keys() {
            let source = matches.value_source(&key.replace('-', "_"));
            if source.is_none_or(|source| source == ValueSource::DefaultValue) {
                merged[key] = in_file[key].clone();
            }
        }
        serde_json::from_value(merged).map_err(unusable)
    }

    /// Formats the settings as a settings file.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|e| e.to_string())
    }

    /// Returns the name of this node.
    ///
    /// # Errors
    /// If it isn't set and the host name can't be used.
    pub fn node(&self) -> Result<Name, ConfigError> {
        let set = self.node_name.clone().or_else(|| std::env::var("NODE_NAME").ok());
        let named = set.filter(|name| !name.is_empty());
        let host = || nix::unistd::gethostname().ok()?.into_string().ok();
        // The kubelet registers the node with the host name in lower case.
        let name = named.or_else(|| host().map(|name| name.to_lowercase())).filter(|name| !name.is_empty());
        name.map(Name::from).ok_or(ConfigError::NoName)
    }

    /// How to connect to the API server.
    #[must_use]
    pub fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone(), timeout: None }
    }

    /// Returns the path of a file in the socket's directory.
    #[must_use]
    pub fn beside_socket(&self, name: &str) -> PathBuf {
        self.socket.with_file_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(words: &[&str], environment: &[(&'static str, &'static str)]) -> ArgMatches {
        // Tests run concurrently in one process with one environment. So variables become defaults here, which clap treats the
        // same except for their source.
        let mut command = Config::augment_args(clap::Command::new("agent")).mut_args(|a| a.env(None::<&str>));
        for (id, value) in environment {
            command = command.mut_arg(id, |a| a.default_value(*value));
        }
        command.get_matches_from([&["agent"], words].concat())
    }

    fn read(words: &[&str], text: &str) -> Result<Config, ConfigError> {
        let matches = matches(words, &[]);
        Config::from_arg_matches(&matches).unwrap().merge_file(&matches, Path::new("agent.yaml"), text)
    }

    #[test]
    fn flags_take_precedence_over_the_file_and_the_file_over_defaults() {
        let file = "log-level: debug\nlock-timeout: 5\nsource: dir:/etc/policies\nlisten: off\n";
        let config = read(&["--log-level", "warn", "--log-drops=false"], file).unwrap();
        assert_eq!(config.log_level, LogLevel::Warn, "a flag");
        assert!(!config.log_drops, "a flag");
        assert_eq!(config.lock_timeout, 5, "the file");
        assert_eq!(config.source, SourceChoice::Directory("/etc/policies".into()), "the file");
        assert_eq!(config.listen, Listen::Off, "the file");
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET), "the default");
        // A flag with the default value takes precedence too.
        assert_eq!(read(&["--lock-timeout", "30"], file).unwrap().lock_timeout, 30);
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        for text in ["", "# nothing\n", "\n  \n"] {
            assert_eq!(read(&[], text).unwrap(), Config::default());
        }
    }

    #[test]
    fn errors_in_a_file_have_their_line() {
        let of = |text: &str| read(&[], text).unwrap_err().to_string();
        let unknown = of("log-level: info\nlog-lvel: debug\n");
        assert_eq!(unknown, "agent.yaml:2:1: unknown key `log-lvel`; did you mean `log-level`?");
        let other = of("replicas: 3\n");
        assert_eq!(
            other,
            "agent.yaml:1:1: unknown key `replicas`; `palisade agent --print-config` prints all settings"
        );
        let wrong = of("log-level: loud\n");
        assert_eq!(wrong, "agent.yaml:1:12: `loud` is not one of error, warn, info, debug, trace");
        let tab = of("a:\n\tb: 3\n");
        assert!(tab.starts_with("agent.yaml:") && tab.lines().count() == 1, "{tab}");
        let kind = of("lock-timeout: soon\n");
        assert!(kind.starts_with("agent.yaml:1:15: ") && kind.lines().count() == 1, "{kind}");
        let address = of("source: api\nlisten: everywhere\n");
        assert!(address.contains("everywhere"), "{address}");
        let source = of("source: file:/x\n");
        assert!(source.contains("file:/x"), "{source}");
        assert!(of("- a\n- b\n").starts_with("agent.yaml:1:1: "));
    }

    #[test]
    fn printed_settings_can_be_read_back() {
        let config = read(&["--context", "a: b", "--listen", "[::1]:1"], "log-format: json\n").unwrap();
        assert_eq!(read(&[], &config.to_yaml().unwrap()).unwrap(), config);
    }
}

//! The command line: verbs and their help. The arguments of a verb are in its own module.

use clap::{Args, Parser, Subcommand};

use crate::{
    assertions::{self, Test},
    can::Can,
    connections::{self, Connections},
    describe::{self, Describe},
    diff::{self, Diff},
    explain::{self, Explain},
    left_out,
    lint::{self, Lint},
    man::{self, Man},
    output::Color,
    overview::{self, OverviewArguments},
    replay::{self, Replay},
    report::{self, ReportArguments},
    review::{self, Review},
    suggest::{self, Suggest},
};

/// Enforces Kubernetes network policies with nftables, and explains their verdicts.
#[derive(Debug, Parser)]
#[command(
    name = "palisade",
    version,
    propagate_version = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = left_out::help()
)]
pub(crate) struct Arguments {
    /// When to use color
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, global = true)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the node agent, which enforces policies in this node's kernel
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::agent::HELP)]
    Agent(crate::agent::Agent),
    #[cfg(not(all(target_os = "linux", feature = "agent")))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Agent(left_out::Words),
    /// Delay the start of a pod until it is isolated: the CNI plugin that the agent installs with --cni-chain
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::cni::HELP)]
    Cni,
    #[cfg(not(all(target_os = "linux", feature = "agent")))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Cni(left_out::Words),
    /// Check whether SRC may connect to DST, and which policy decides
    #[command(after_long_help = CAN_HELP, after_help = "See `palisade can --help` for the syntax of SRC and DST and for examples.")]
    Can(Can),
    /// List allowed connections within the cluster and with external addresses
    #[command(visible_alias = "list", after_help = connections::HELP)]
    Connections(Connections),
    /// Describe a workload, a policy or a namespace
    #[command(after_help = describe::HELP)]
    Describe(Describe),
    /// Compare manifests: connections opened and closed, and the policies that cause it
    #[command(after_help = diff::HELP)]
    Diff(Diff),
    /// Check that policies can work on this machine: kernel, CNI, other policy agents, API access
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::doctor::HELP)]
    Doctor(crate::doctor::Doctor),
    #[cfg(not(all(target_os = "linux", feature = "agent")))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Doctor(left_out::Words),
    /// Explain a verdict, policy by policy, and how to change the result
    #[command(after_help = explain::HELP)]
    Explain(Explain),
    /// Show what policies dropped and why, on this node or on all nodes of a cluster
    #[cfg(feature = "live")]
    #[command(after_help = crate::flows::HELP)]
    Flows(crate::flows::Flows),
    #[cfg(not(feature = "live"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Flows(left_out::Words),
    /// Run a cluster of network namespaces on this machine, with the real kernel and real packets
    #[cfg(all(target_os = "linux", feature = "lab"))]
    #[command(after_help = LAB_HELP, subcommand_required = true, arg_required_else_help = true)]
    Lab(crate::lab::Lab),
    #[cfg(not(all(target_os = "linux", feature = "lab")))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Lab(left_out::Words),
    /// Find likely mistakes in policies, and correct them
    #[command(after_help = lint::HELP)]
    Lint(Lint),
    /// Show the cluster at a glance: isolation, DNS and the internet for each namespace
    #[command(after_help = overview::HELP)]
    Overview(OverviewArguments),
    /// Evaluate recorded connections with other policies: what would be dropped or allowed
    #[command(after_help = replay::HELP)]
    Replay(Replay),
    /// Write an HTML page about a cluster's policies, with what decides each connection
    #[command(after_help = report::HELP)]
    Report(ReportArguments),
    /// Review a range of git revisions: connections opened and closed, new likely mistakes, assertions that change
    #[command(after_help = review::HELP)]
    Review(Review),
    /// Write the objects of a cluster that policies depend on to a directory, to be read with -f
    #[cfg(feature = "live")]
    #[command(after_help = crate::snapshot::HELP)]
    Snapshot(crate::snapshot::Snapshot),
    #[cfg(not(feature = "live"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Snapshot(left_out::Words),
    /// Write NetworkPolicies from recorded connections, or from manifests
    #[command(after_help = suggest::HELP)]
    Suggest(Suggest),
    /// Show the agents of a cluster: whether they are ready, their policies, errors and drops
    #[cfg(feature = "live")]
    #[command(after_help = crate::status::HELP)]
    Status(crate::status::StatusArguments),
    #[cfg(not(feature = "live"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Status(left_out::Words),
    /// Check assertions about connections, for pods that exist and pods that may be created
    #[command(after_help = assertions::HELP)]
    Test(Test),
    /// Browse policies and connections in a web browser on this machine
    #[cfg(feature = "ui")]
    #[command(after_help = crate::ui::HELP)]
    Ui(Box<crate::ui::UiArguments>),
    #[cfg(not(feature = "ui"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Ui(left_out::Words),
    /// Print a shell completion script
    #[command(after_help = "\
Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions zsh > ~/.zfunc/_palisade
  palisade completions fish > ~/.config/fish/completions/palisade.fish")]
    Completions(Completions),
    /// Print the manual page of a verb, or write all pages to a directory
    #[command(after_help = man::HELP)]
    Man(Man),
    /// Query this node's agent: status, policies, errors, and whether the kernel matches its plan
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::node::HELP)]
    Node(crate::node::Node),
    #[cfg(not(all(target_os = "linux", feature = "agent")))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Node(left_out::Words),
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

// Each paragraph is one line: clap wraps it to the terminal's width. Tables are wrapped by hand.
const CAN_HELP: &str = "\
SRC and DST are one of:
  [NAMESPACE/][KIND/]NAME  a pod, or the pods of a deployment, statefulset, daemonset,
                           replicaset, job, cronjob or replicationcontroller (or kubectl's
                           short name of one). Without KIND, any of these
  [NAMESPACE/]svc/NAME     the pods and container ports behind a service
  web.shop, web.shop.svc.cluster.local, http://web.shop/
                           a name of the cluster's DNS, or a URL
  ns/NAME, NAMESPACE/*, *  every pod of a namespace, or of all
  pod:LABELS@NAMESPACE     a pod that doesn't exist: pod:app=web,tier=front@shop
  node/NAME                a node's own network, with its host-network pods
  10.0.0.7, [fd00::7]      an address; a pod's address means the pod, in that IP family, and
                           an address of a service (also on nodes: a node port) its pods
  10.0.0.0/8               a range, split where policies treat it differently
  internet                 all public addresses, split where policies treat them differently
  api.github.com           a host outside: any public address; undecided if these differ,
                           and \"allowed once resolved\" if a rule has it among its domainNames

PORT is a number or a port name; PROTO is TCP (the default), UDP or SCTP. DST/ICMP means echo requests. Without a port, every container port that the destination declares is checked.

A workload means all of its pods. Without an address, the IP families that both ends have are checked. The exit code is 0 only if everything is allowed; if verdicts differ, each is shown.

Examples:
  palisade can frontend backend:8080 -n shop -f examples/shop
  palisade can staging/frontend shop/backend -f examples/shop
  palisade can shop/deploy/backend 192.168.1.20:80/TCP -f examples/shop
  palisade can shop/backend internet:443 -f examples/shop -o json
  palisade can pod:app=frontend@shop http://backend.shop/ -f examples/shop
  palisade can billing/invoices api.payments.example:443 -f examples/egress-by-name
  kubectl get pods,netpol,ns -A -o yaml | palisade can -q shop/web shop/db:5432 -f -

Exit codes: 0 allowed (also once resolved), 1 denied, 2 error or undecided.";

#[cfg(all(target_os = "linux", feature = "lab"))]
const LAB_HELP: &str = "\
The lab needs neither root (if user namespaces are allowed) nor a container runtime nor other programs. Everything is removed when it ends, for any reason.

Examples:
  palisade lab run examples/shop            build it, probe every pair, compare with the engine
  palisade lab run examples/shop --dry-run  print the engine's matrix only
  palisade lab up examples/shop             keep it running and enforce edits when they are saved";

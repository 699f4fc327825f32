//! The command line as a whole: verbs and their help. What a verb takes stands in its own module.

use clap::{Args, Parser, Subcommand};

use crate::{
    can::Can,
    connections::{self, Connections},
    describe::{self, Describe},
    diff::{self, Diff},
    explain::{self, Explain},
    man::{self, Man},
    snapshot::{self, Snapshot},
};

/// Kubernetes network policies: enforced, explained, proved.
#[derive(Debug, Parser)]
#[command(
    name = "palisade",
    version,
    propagate_version = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 yes (allowed, in agreement, done), 1 no (denied, in disagreement), 2 error.
Colour is used on terminals only, and never if NO_COLOR is set."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The node agent: keeps this node's kernel at what the policies say
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::agent::HELP)]
    Agent(crate::agent::Agent),
    /// May SRC open a connection to DST, and which policy says so?
    #[command(after_long_help = CAN_HELP, after_help = "`palisade can --help` explains the spellings and has examples.")]
    Can(Can),
    /// Every connection that is allowed in the cluster, and with the outside
    #[command(visible_alias = "list", after_help = connections::HELP)]
    Connections(Connections),
    /// One workload: who may reach it, what it may reach, which policies say so, and what it is exposed to
    #[command(after_help = describe::HELP)]
    Describe(Describe),
    /// What a change of manifests opens and closes, and which policies do it
    #[command(after_help = diff::HELP)]
    Diff(Diff),
    /// Does this machine let policies work: kernel, CNI wiring, other policy agents, API access; and what to do if not
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::doctor::HELP)]
    Doctor(crate::doctor::Doctor),
    /// Why is it so: the walk through all policies in both directions, and what to edit to have it otherwise
    #[command(after_help = explain::HELP)]
    Explain(Explain),
    /// A cluster on this machine: real network namespaces, the real kernel, real packets
    #[cfg(all(target_os = "linux", feature = "lab"))]
    #[command(after_help = LAB_HELP, subcommand_required = true, arg_required_else_help = true)]
    Lab(crate::lab::Lab),
    /// What decides in a live cluster, written to a directory that -f reads back
    #[command(after_help = snapshot::HELP)]
    Snapshot(Snapshot),
    /// Print the completions for a shell
    #[command(after_help = "\
Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions zsh > ~/.zfunc/_palisade
  palisade completions fish > ~/.config/fish/completions/palisade.fish")]
    Completions(Completions),
    /// Print the manual page of a verb, or write all of them into a directory
    #[command(after_help = man::HELP)]
    Man(Man),
    /// Ask the agent of this node: what it enforces, and whether the kernel holds it
    #[cfg(all(target_os = "linux", feature = "agent"))]
    #[command(after_help = crate::node::HELP)]
    Node(crate::node::Node),
}

/// What `completions` takes.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

// Paragraphs stand on one line each: clap wraps them to the terminal. Columns are kept short by hand.
const CAN_HELP: &str = "\
SRC and DST are one of:
  [NAMESPACE/][KIND/]NAME  a pod, or the pods of a deployment, statefulset, daemonset,
                           replicaset, job, cronjob or replicationcontroller; kubectl's
                           short names do too. Without KIND, any of these
  [NAMESPACE/]svc/NAME     the pods and container ports behind a service
  node/NAME                a node's own network, with the pods that share it
  10.0.0.7, [fd00::7]      an address; that of a pod means the pod. It fixes the family
  internet                 all public addresses; asked once for every part of them that
                           policies tell apart

PORT is a number or a port name, PROTO is TCP (the default), UDP or SCTP. DST/ICMP asks about echo requests. Without a port, every port that the destination declares is asked about.

A workload means all of its pods, and without an address both IP families are asked about. The exit code is 0 only if everything is allowed; where the answers differ, each is shown.

Examples:
  palisade can frontend backend:8080 -n shop -f examples/shop
  palisade can staging/frontend shop/backend -f examples/shop
  palisade can shop/deploy/backend 192.168.1.20:80/TCP -f examples/shop
  palisade can shop/backend internet:443 -f examples/shop -o json
  kubectl get pods,netpol,ns -A -o yaml | palisade can -q shop/web shop/db:5432 -f -

Exit codes: 0 allowed, 1 denied, 2 error.";

#[cfg(all(target_os = "linux", feature = "lab"))]
const LAB_HELP: &str = "\
The lab needs no root (where user namespaces are allowed), no container runtime and no other program. It leaves nothing behind, however it ends.

Examples:
  palisade lab run examples/shop            build it, probe every pair, compare with the engine
  palisade lab run examples/shop --dry-run  the engine's matrix alone, without a kernel
  palisade lab up examples/shop             keep it running and enforce every edit as it is saved";

//! `--nodes`, `--bridge` and `--family`.

use clap::{Args, ValueEnum};
use palisade_lab::{Families, LayoutOptions};
use palisade_manifest::LoadOptions;

/// The options for the layout of a cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct LayoutArguments {
    /// Minimum number of nodes; pods without a node are distributed over them [default: as declared, else 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=250))]
    nodes: Option<u16>,
    /// Connect the pods of a node by a bridge, as common CNI plugins do, instead of routing each
    #[arg(long)]
    bridge: bool,
    /// IP families of the cluster
    #[arg(long, value_enum, value_name = "FAMILY", default_value_t)]
    family: FamilyChoice,
}

/// `--family`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FamilyChoice {
    /// IPv4 only
    #[value(name = "4")]
    V4,
    /// IPv6 only
    #[value(name = "6")]
    V6,
    /// Both
    #[default]
    Dual,
}

impl FamilyChoice {
    pub(crate) fn families(self) -> Families {
        match self {
            Self::V4 => Families::V4,
            Self::V6 => Families::V6,
            Self::Dual => Families::Dual,
        }
    }
}

impl LayoutArguments {
    pub(crate) fn options(&self) -> LayoutOptions {
        LayoutOptions {
            nodes: self.nodes.map(usize::from),
            bridged: self.bridge,
            families: self.family.families(),
            ..LayoutOptions::default()
        }
    }
}

/// Returns the options for reading manifests. The lab assigns addresses itself, by nodes and subnets. `learns_names`: whether its
/// nodes learn the addresses of names.
pub(crate) fn load_options(learns_names: bool) -> LoadOptions {
    LoadOptions { addresses: None, learns_names, ..Default::default() }
}

//! The options for reading manifests.

use clap::{Args, ValueEnum};
use palisade_manifest::{Channel, LoadOptions};

use crate::configuration::ConfigArguments;

/// The options for reading manifests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReadingArguments {
    /// Answer even if some documents are invalid. Invalid policies isolate the pods that they select; the exit code is 2
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Read the files of kustomizations and Helm charts as they are, without patches and values
    #[arg(long)]
    pub(crate) raw: bool,
    /// Report unknown fields as errors instead of warnings
    #[arg(long)]
    pub(crate) strict: bool,
    /// Release channel of the cluster-wide policy CRDs, which determines the fields that manifests may use
    #[arg(
        long,
        value_enum,
        value_name = "CHANNEL",
        default_value_t,
        env = "PALISADE_CHANNEL",
        hide_env_values = true
    )]
    pub(crate) channel: ReleaseChannel,
    #[command(flatten)]
    config: ConfigArguments,
}

/// `--channel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReleaseChannel {
    /// Without experimental fields, which the API server prunes
    Standard,
    /// All fields
    #[default]
    Experimental,
}

impl ReadingArguments {
    /// Returns `options` with these settings.
    pub(crate) fn options(&self, options: LoadOptions) -> LoadOptions {
        let channel = match self.channel {
            ReleaseChannel::Standard => Channel::Standard,
            ReleaseChannel::Experimental => Channel::Experimental,
        };
        LoadOptions { strict: self.strict, raw: self.raw, channel, ..options }
    }
}

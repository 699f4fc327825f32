//! Reads the manifests or the cluster that a verb works on, and reports problems in them.

mod loading;
mod messages;
mod pipe;
mod program;
mod reading;
mod refused;
mod rendering;
pub(crate) mod stamp;
pub(crate) mod texts;

use anyhow::{Result, bail};
use clap::Args;
use palisade_api::{ClusterSnapshot, Missing, ResourceKind};
use palisade_manifest::{Input, LoadOptions, Loaded};

use crate::{
    addresses::{self, AddressArguments},
    cluster::{self, JsonMissing, Need},
    exit::Outcome,
    verdict::Conclusion,
};
#[cfg(all(target_os = "linux", feature = "lab"))]
pub(crate) use loading::load;
pub(crate) use loading::{inputs, load_inputs, load_later, overlay};
pub(crate) use messages::{plural, report};
pub(crate) use program::quoted;
pub(crate) use reading::ReadingArguments;
pub(crate) use refused::{incomplete, incomplete_sides};
pub(crate) use rendering::{RenderArguments, RenderSidesArguments};

/// The options that select a verb's objects: from manifests, a cluster, or a cluster with manifests applied to it.
#[derive(Debug, Args)]
pub(crate) struct InputArguments {
    /// Read manifests from a file, a directory (recursively), or - for standard input; may be repeated. Without -f, the cluster
    /// of the kubeconfig's current context is read
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) render: RenderArguments,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    #[command(flatten)]
    pub(crate) addresses: AddressArguments,
    /// Apply the manifests to the objects read from the cluster; implied by --context and --kubeconfig
    #[arg(long, help_heading = cluster::HEADING)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) cluster: cluster::ClusterArguments,
}

/// The objects that a verb works on.
#[derive(Clone)]
pub(crate) struct LoadedInputs {
    /// The objects.
    pub(crate) loaded: Loaded,
    /// The namespace of names that have none.
    pub(crate) namespace: String,
    /// The cluster's objects, if one was read.
    pub(crate) live: Option<ClusterSnapshot>,
    /// The kinds that could not be read and without which the answer may be wrong.
    missing: Vec<Missing>,
    allow_incomplete: bool,
}

impl LoadedInputs {
    /// Returns what could not be read, as JSON values: kinds of a cluster, and documents with errors.
    pub(crate) fn incomplete(&self) -> Vec<JsonMissing<'_>> {
        self.missing.iter().map(Into::into).chain(incomplete(&self.loaded)).collect()
    }

    /// Returns the kinds that could not be read and without which an answer may be wrong.
    #[cfg(feature = "ui")]
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Returns the verdict of an answer. What is allowed by what could be read is undecided if something could not,
    /// unless the user accepts that.
    pub(crate) fn conclusion(&self, conclusion: Conclusion) -> Conclusion {
        let allowed = conclusion == Conclusion::Allowed;
        if allowed && self.is_incomplete() { Conclusion::Undecided } else { conclusion }
    }

    /// Returns whether the answer may be wrong because of what could not be read, and the user doesn't accept that.
    pub(crate) fn is_incomplete(&self) -> bool {
        let complete = self.missing.is_empty() && !self.loaded.has_errors();
        !complete && !self.allow_incomplete
    }

    /// Returns the outcome of a verb: `Incomplete` if the answer may be wrong, unless the user accepts that.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.is_incomplete() { Outcome::Incomplete } else { outcome }
    }

    /// Returns where names were looked up, for messages.
    pub(crate) fn place(&self) -> &'static str {
        if self.live.is_some() { "cluster" } else { "manifests" }
    }
}

impl InputArguments {
    /// Reads the objects and reports problems in them, without warnings if `quiet`. Names and objects without a namespace are
    /// in `namespace`, else in that of the context.
    ///
    /// # Errors
    /// As [`load_inputs`], and when a cluster is needed and none is configured.
    pub(crate) fn load(&self, namespace: Option<&str>, quiet: bool, need: Need) -> Result<LoadedInputs> {
        let read = self.snapshot(namespace)?;
        self.load_with(read, namespace, quiet, need)
    }

    /// Reads the cluster, if the options need it.
    fn snapshot(&self, namespace: Option<&str>) -> Result<Option<ClusterSnapshot>> {
        let overlay = self.live || self.cluster.is_named();
        let nothing = self.files.is_empty() && self.render.is_empty();
        if nothing && self.live {
            bail!("--live applies manifests to the cluster: give them with -f, -k or --helm");
        }
        if nothing || overlay {
            let read = self.cluster.read(
                namespace,
                "or use -f PATH to read manifests (a file, a directory, or - for standard input)",
            )?;
            Ok(Some(read))
        } else {
            Ok(None)
        }
    }

    fn load_with(
        &self,
        read: Option<ClusterSnapshot>,
        namespace: Option<&str>,
        quiet: bool,
        need: Need,
    ) -> Result<LoadedInputs> {
        self.load_gathered(self.gathered(read, namespace, quiet, need)?, quiet)
    }

    /// As [`Self::load`], and reads the hosts that settings name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_with_references(&self, namespace: Option<&str>, need: Need) -> Result<LoadedInputs> {
        let mut gathered = self.gathered(self.snapshot(namespace)?, namespace, false, need)?;
        gathered.options.references = true;
        self.load_gathered(gathered, false)
    }

    /// As [`Self::load`], and returns the texts of what was read.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) fn load_with_texts(
        &self,
        namespace: Option<&str>,
        need: Need,
    ) -> Result<(LoadedInputs, Vec<palisade_lint::SourceText>)> {
        let mut gathered = self.gathered(self.snapshot(namespace)?, namespace, false, need)?;
        let limit = self.reading.options(gathered.options.clone()).max_file_bytes;
        texts::take_standard_input(&mut gathered.files, limit)?;
        let files = gathered.files.clone();
        let world = self.load_gathered(gathered, false)?;
        let texts = texts::texts(&files, &world.loaded, limit);
        Ok((world, texts))
    }

    fn load_gathered(&self, gathered: Gathered, quiet: bool) -> Result<LoadedInputs> {
        let Gathered { files, options, namespace, live, missing } = gathered;
        let names = [self.files.clone(), self.render.names()].concat().join(", ");
        let loaded = load_inputs(&files, &names, &self.reading, &options, quiet)?;
        if !quiet {
            addresses::report(&loaded);
        }
        let allow_incomplete = self.cluster.allow_incomplete;
        Ok(LoadedInputs { loaded, namespace, live, missing, allow_incomplete })
    }

    /// Collects what is read, and how.
    fn gathered(
        &self,
        read: Option<ClusterSnapshot>,
        namespace: Option<&str>,
        quiet: bool,
        need: Need,
    ) -> Result<Gathered> {
        let given = namespace;
        let namespace = match (namespace, &read) {
            (Some(namespace), _) => namespace.to_owned(),
            (None, Some(live)) => live.namespace.clone(),
            (None, None) => "default".to_owned(),
        };
        let missing = read.as_ref().map_or(&[][..], |live| &live.missing);
        let options = LoadOptions {
            default_namespace: namespace.clone(),
            all_namespaces: missing.iter().all(|m| m.kind != ResourceKind::Namespace),
            addresses: Some(self.addresses.plan()?),
            ..LoadOptions::default()
        };
        cluster::warn(missing, need);
        let missing = cluster::needed(missing, need);
        let release = given.or(read.as_ref().map(|live| &*live.namespace));
        let mut files = inputs(&self.files)?;
        files.extend(self.render.inputs(release, quiet)?);
        let files = match &read {
            None => files,
            Some(live) => overlay(live, files),
        };
        Ok(Gathered { files, options, namespace, live: read, missing })
    }

    /// Collects what is read for a verb that reports problems itself.
    ///
    /// # Errors
    /// As [`Self::load`], but for problems in documents.
    pub(crate) fn gather(&self, namespace: Option<&str>, need: Need) -> Result<Gathered> {
        let mut gathered = self.gathered(self.snapshot(namespace)?, namespace, true, need)?;
        gathered.options = self.reading.options(gathered.options);
        Ok(gathered)
    }
}

/// What is read, and how.
pub(crate) struct Gathered {
    pub(crate) files: Vec<Input>,
    pub(crate) options: LoadOptions,
    pub(crate) namespace: String,
    pub(crate) live: Option<ClusterSnapshot>,
    pub(crate) missing: Vec<Missing>,
}

//! `-k` and `--helm`: manifests that the user's own `kubectl`, `kustomize` or `helm` renders.
//!
//! These programs are started only because the command line asks for it: they may read any file and ask the network.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_manifest::{Input, LoadOptions, Note};

use super::{
    messages::notes,
    program::{Limits, Program},
};
use crate::cluster;

/// The heading of the options in the help.
const HEADING: &str = "Rendering options";

/// The options that render manifests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RenderArguments {
    /// Read what `kubectl kustomize DIR` (or `kustomize build DIR`) prints; may be repeated
    #[arg(short, long, value_name = "DIR", help_heading = HEADING)]
    pub(crate) kustomize: Vec<String>,
    /// Read what `helm template CHART` prints; may be repeated
    #[arg(long, value_name = "CHART", help_heading = HEADING)]
    pub(crate) helm: Vec<String>,
    #[command(flatten)]
    values: ValuesArguments,
}

/// The options of `diff` that render both sides.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RenderSidesArguments {
    /// PATHs are kustomizations: compare what `kubectl kustomize` (or `kustomize build`) prints
    #[arg(short, long, conflicts_with = "helm", help_heading = HEADING)]
    kustomize: bool,
    /// PATHs are Helm charts: compare what `helm template` prints
    #[arg(long, help_heading = HEADING)]
    helm: bool,
    #[command(flatten)]
    values: ValuesArguments,
}

/// The values of a chart.
#[derive(Clone, Debug, Default, Args)]
struct ValuesArguments {
    /// Values of the chart, as for `helm template`; may be repeated
    #[arg(long, value_name = "FILE", requires = "helm", help_heading = HEADING)]
    values: Vec<String>,
    /// A value of the chart, as for `helm template`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "helm", help_heading = HEADING)]
    set: Vec<String>,
    /// The name of the chart's release [default: helm's]
    #[arg(long, value_name = "NAME", requires = "helm", help_heading = HEADING)]
    release_name: Option<String>,
    /// Time limit for rendering
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = cluster::time, help_heading = HEADING)]
    render_timeout: Duration,
}

impl RenderArguments {
    /// Whether nothing is to be rendered.
    pub(crate) fn is_empty(&self) -> bool {
        self.kustomize.is_empty() && self.helm.is_empty()
    }

    /// Renders, and says where positions point, unless `quiet`. Charts are rendered for `namespace`.
    ///
    /// # Errors
    /// When a program is missing, fails, or takes too long.
    pub(crate) fn inputs(&self, namespace: Option<&str>, quiet: bool) -> Result<Vec<Input>> {
        let kustomized = self.kustomize.iter().map(|dir| self.values.kustomize(dir, dir, quiet));
        let charts = self.helm.iter().map(|chart| self.values.helm(chart, chart, namespace, quiet));
        kustomized.chain(charts).collect()
    }

    /// Returns what is rendered, one by one.
    pub(crate) fn each(&self) -> impl Iterator<Item = Rendered<'_>> {
        let rendered = |is_chart| move |path| Rendered { path, is_chart, values: &self.values };
        let kustomized = self.kustomize.iter().map(String::as_str).map(rendered(false));
        kustomized.chain(self.helm.iter().map(String::as_str).map(rendered(true)))
    }

    /// Returns what is rendered, as messages name it.
    pub(crate) fn names(&self) -> Vec<String> {
        let kustomized = self.kustomize.iter().map(|dir| format!("kustomize:{dir}"));
        kustomized.chain(self.helm.iter().map(|chart| format!("helm:{chart}"))).collect()
    }
}

/// A directory or chart that is rendered, which may be somewhere else in each revision.
pub(crate) struct Rendered<'a> {
    path: &'a str,
    is_chart: bool,
    values: &'a ValuesArguments,
}

impl Rendered<'_> {
    /// Its path, as it is written.
    pub(crate) fn path(&self) -> &str {
        self.path
    }

    /// Renders what is at another path. Messages call it by its own path.
    ///
    /// # Errors
    /// As [`RenderArguments::inputs`].
    pub(crate) fn input(&self, at: &str, namespace: Option<&str>) -> Result<Input> {
        match self.is_chart {
            true => self.values.helm(at, self.path, namespace, false),
            false => self.values.kustomize(at, self.path, false),
        }
    }
}

impl RenderSidesArguments {
    /// Whether the sides are rendered.
    pub(crate) fn is_set(&self) -> bool {
        self.kustomize || self.helm
    }

    /// Renders one side, which is at `path` and which messages call `shown`. `None`: it is read as it is.
    ///
    /// # Errors
    /// As [`RenderArguments::inputs`].
    pub(crate) fn input(&self, path: &str, shown: &str, namespace: Option<&str>) -> Result<Option<Input>> {
        if self.kustomize {
            self.values.kustomize(path, shown, false).map(Some)
        } else if self.helm {
            self.values.helm(path, shown, namespace, false).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl ValuesArguments {
    fn kustomize(&self, dir: &str, shown: &str, quiet: bool) -> Result<Input> {
        is_no_option("-k", dir)?;
        let Some(found) = Program::find(&["kubectl", "kustomize"]) else {
            bail!(
                "-k needs `kubectl` or `kustomize`, and neither is in PATH; install one, or render elsewhere and pass the result \
                 with -f"
            )
        };
        let verb = if found.0 == "kubectl" { "kustomize" } else { "build" };
        let program = Program::new(found, vec![verb.to_owned(), dir.to_owned()]);
        self.render(&program, format!("kustomize:{shown}"), quiet)
    }

    fn helm(&self, chart: &str, shown: &str, namespace: Option<&str>, quiet: bool) -> Result<Input> {
        is_no_option("--helm", chart)?;
        let Some(found) = Program::find(&["helm"]) else {
            bail!(
                "--helm needs `helm`, which is not in PATH; install it, or render elsewhere and pass the result with -f"
            )
        };
        let mut arguments = vec!["template".to_owned()];
        if let Some(name) = &self.release_name {
            is_no_option("--release-name", name)?;
            arguments.push(name.clone());
        }
        arguments.push(chart.to_owned());
        arguments.extend(namespace.map(|namespace| format!("--namespace={namespace}")));
        arguments.extend(self.values.iter().map(|file| format!("--values={file}")));
        arguments.extend(self.set.iter().map(|value| format!("--set={value}")));
        self.render(&Program::new(found, arguments), format!("helm:{shown}"), quiet)
    }

    fn render(&self, program: &Program, name: String, quiet: bool) -> Result<Input> {
        let bytes = LoadOptions::default().max_file_bytes;
        let output = program.output(Limits { time: self.render_timeout, bytes })?;
        let text = String::from_utf8(output)
            .ok()
            .with_context(|| format!("the output of `{program}` is not UTF-8"))?;
        if text.trim().is_empty() {
            bail!("`{program}` printed nothing");
        }
        if !quiet {
            notes(&[Note::new("rendered", format!("{name} is the output of `{program}`"))]);
        }
        Ok(Input::Text { name, text })
    }
}

/// Fails for a word that a program would take for an option.
fn is_no_option(option: &str, word: &str) -> Result<()> {
    if word.starts_with('-') {
        bail!("{option} {word}: it must not begin with a dash; a directory can be written as ./{word}");
    }
    if word.is_empty() {
        bail!("{option} is empty");
    }
    if word.contains('\0') {
        bail!("{option} {}: it has a null byte", Path::new(word).display());
    }
    Ok(())
}

//! `palisade lint`: likely mistakes in policies.
//!
//! ```text
//!  inputs ─► load ─► rules (palisade-lint) ─► baseline ─► severity ─► text, JSON, SARIF, …
//!    ▲                    │ fixes
//!    └──── files ◄────────┘
//! ```

mod baseline;
mod documentation;
mod fixing;
mod formats;
mod introduced;
mod sarif;
mod text;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use palisade_lint::{
    Finding, Level, LintOptions, LintReport, LintRule, Plugin, RULES, SourceText, lint, selected, suggestions,
};
use palisade_manifest::{Loaded, Note, Severity, load};

use crate::{
    cluster::Need,
    exit::Outcome,
    inputs::{self, Gathered, InputArguments, texts},
    output::{self, Style, styled},
};
pub(crate) use formats::{JsonFinding, json_finding, message};
pub(crate) use introduced::{Introduced, introduced};
pub(crate) use text::finding as finding_text;

pub(crate) const HELP: &str = "\
Rules have a code and a name: PAL017 and ports-in-own-rule. --select and --ignore take either, or a prefix of either. `palisade lint --explain RULE` says what a rule finds and what happens in the cluster.

A comment on the line, or above it, suppresses a rule there: # palisade: ignore[PAL017] reason. The annotation palisade.dev/lint-ignore with codes or names suppresses rules for an object.

Notes depend on things that files need not contain, such as pods that operators create; --severity note shows them. With --strict, warnings, unknown fields and exposure (workloads that no policy isolates, rules that are wide open) are errors.

Examples:
  palisade lint -f examples/shop-two-rules
  palisade lint -f deploy --diff                    show what --fix would change
  palisade lint -f deploy --fix
  palisade lint -f deploy --severity note --ignore PAL005
  palisade lint -f deploy -o sarif > palisade.sarif
  palisade lint -f deploy --write-baseline lint.json
  palisade lint -f deploy --baseline lint.json      only what is new
  palisade lint -f deploy --git main...HEAD         only what a branch introduced
  palisade lint --explain ports-in-own-rule

Exit codes: 0 clean, 1 findings, 2 error, or something could not be read.";

/// Arguments of `lint`.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Print the documentation of a rule
    #[arg(long, value_name = "RULE")]
    explain: Option<String>,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: LintFormat,
    /// Only these rules: codes, names, or prefixes of them
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    select: Vec<String>,
    /// All rules except these
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    ignore: Vec<String>,
    /// The network plugin of the cluster, whose gaps rule unsupported-by-plugin finds
    #[arg(long, value_enum, value_name = "NAME")]
    plugin: Option<PluginArgument>,
    /// The lowest severity that is shown
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    severity: LevelArgument,
    /// Correct the files, where the correction is clear
    #[arg(long, conflicts_with = "diff")]
    fix: bool,
    /// Show what --fix would change
    #[arg(long)]
    diff: bool,
    /// Show only what a range of git revisions introduced in the file or directory of -f: REV..REV, REV...REV, or REV for the
    /// files as they are now
    #[arg(
        long,
        value_name = "RANGE",
        conflicts_with_all = ["fix", "diff", "baseline", "write_baseline", "live", "context", "kubeconfig"]
    )]
    git: Option<String>,
    /// Show only findings that are not in this file
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the findings to a file for --baseline
    #[arg(long, value_name = "FILE", conflicts_with_all = ["baseline", "fix", "diff"])]
    write_baseline: Option<PathBuf>,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LintFormat {
    /// For people
    #[default]
    Text,
    /// Everything
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub Actions
    Github,
    /// A GitLab code quality report
    Gitlab,
    /// JUnit XML
    Junit,
}

/// `--severity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArgument {
    /// Everything
    Note,
    /// Warnings and errors
    #[default]
    Warning,
    /// Errors only
    Error,
}

impl LevelArgument {
    pub(crate) const fn level(self) -> Level {
        match self {
            Self::Note => Level::Note,
            Self::Warning => Level::Warning,
            Self::Error => Level::Error,
        }
    }
}

/// `--plugin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PluginArgument {
    /// Flannel, without a policy controller beside it
    Flannel,
    /// Weave Net
    Weave,
    /// Cilium
    Cilium,
    /// The VPC CNI of Amazon EKS
    AwsVpcCni,
}

impl PluginArgument {
    const fn plugin(self) -> Plugin {
        match self {
            Self::Flannel => Plugin::Flannel,
            Self::Weave => Plugin::Weave,
            Self::Cilium => Plugin::Cilium,
            Self::AwsVpcCni => Plugin::AwsVpcCni,
        }
    }
}

/// What is printed.
pub(crate) struct Shown {
    pub(crate) findings: Vec<Finding>,
    /// How many are below the severity.
    pub(crate) below: usize,
    pub(crate) suppressed: usize,
    /// How many the baseline has, or the range found.
    pub(crate) known: usize,
    /// What is said of them.
    pub(crate) known_from: &'static str,
    pub(crate) fixed: usize,
    /// Whether everything could be read.
    pub(crate) complete: bool,
}

/// Finds likely mistakes, and prints or corrects them.
pub(crate) fn run(arguments: &Lint) -> Result<Outcome> {
    if let Some(word) = &arguments.explain {
        let rule = palisade_lint::rule(word).with_context(|| unknown(word))?;
        output::print_wrapped(&documentation::text(rule)).context("can't write the documentation")?;
        return Ok(Outcome::Yes);
    }
    let rules = rules(&arguments.select, &arguments.ignore)?;
    let mut older = None;
    // Only ranges of revisions have any.
    let mut unread = Vec::new();
    let mut known = arguments.baseline.as_deref().map(baseline::read).transpose()?;
    let mut gathered = arguments.sources.gather(arguments.namespace.as_deref(), Need::Everything)?;
    texts::take_standard_input(&mut gathered.files, gathered.options.max_file_bytes)?;
    if let Some(range) = &arguments.git {
        let ([before, after], notes) = introduced::sides(&arguments.sources, range)?;
        unread = notes;
        gathered.files = before;
        // Without anything before, everything is new.
        let old = if gathered.files.is_empty() {
            None
        } else {
            Some(examine(&gathered, &rules, arguments.plugin)?.report)
        };
        older = Some(old.map(|old| old.findings).unwrap_or_default());
        gathered.files = after;
    }
    let Examined { mut loaded, mut texts, mut report } = examine(&gathered, &rules, arguments.plugin)?;
    if let Some(older) = older {
        known = Some(introduced::known(&older, &report.findings));
    }
    let mut fixed = 0;
    if arguments.diff {
        let changes = fixing::changes(&report, &gathered, arguments.severity.level());
        output::print(&fixing::diff(&changes)).context("can't write the difference")?;
        let found = report.findings.iter().any(|f| f.level >= arguments.severity.level());
        return Ok(outcome(arguments, &gathered, &report, found));
    }
    if arguments.fix {
        // A correction may make another one possible.
        for _ in 0..MAX_PASSES {
            let changes = fixing::changes(&report, &gathered, arguments.severity.level());
            if changes.is_empty() {
                break;
            }
            fixed += fixing::write(&changes)?;
            Examined { loaded, texts, report } = examine(&gathered, &rules, arguments.plugin)?;
        }
    }
    warn(&[&*loaded.notes, &*unread].concat(), &report);
    if arguments.sources.reading.strict {
        report.findings.iter_mut().for_each(Finding::make_strict);
    }
    if let Some(file) = &arguments.write_baseline {
        baseline::write(file, &report.findings)?;
        let count = report.findings.len();
        output::print(&format!(
            "{count} {} written to {}\n",
            inputs::plural(count, "finding"),
            file.display()
        ))?;
        return Ok(outcome(arguments, &gathered, &report, false));
    }
    let mut shown = shown(arguments, &report, known.as_ref(), fixed);
    palisade_lint::locate(&mut shown.findings, &texts);
    shown.complete = unread.is_empty() && outcome(arguments, &gathered, &report, false) == Outcome::Yes;
    let text = match arguments.output {
        LintFormat::Text => text::text(&shown),
        LintFormat::Json => formats::json(&shown)?,
        LintFormat::Sarif => sarif::document(&shown, &rules)?,
        LintFormat::Github => formats::github(&shown),
        LintFormat::Gitlab => formats::gitlab(&shown)?,
        LintFormat::Junit => formats::junit(&shown),
    };
    output::print(&text).context("can't write the findings")?;
    if !unread.is_empty() {
        return Ok(Outcome::Incomplete);
    }
    Ok(outcome(arguments, &gathered, &report, !shown.findings.is_empty()))
}

/// Returns the rules that `--select` and `--ignore` leave.
///
/// # Errors
/// When there is no rule of such a name.
pub(crate) fn rules(select: &[String], ignore: &[String]) -> Result<Vec<&'static LintRule>> {
    selected(RULES, select, ignore).map_err(|word| anyhow!(unknown(word)))
}

/// How often files are corrected and read again.
const MAX_PASSES: usize = 8;

/// What was read, and what was found in it.
struct Examined {
    loaded: Loaded,
    texts: Vec<SourceText>,
    report: LintReport,
}

fn examine(
    gathered: &Gathered,
    rules: &[&'static LintRule],
    plugin: Option<PluginArgument>,
) -> Result<Examined> {
    let loaded = load(&gathered.files, &gathered.options);
    if loaded.counts.objects.is_empty() && !loaded.has_errors() {
        match loaded.counts.documents {
            0 => bail!("no manifests found (files named *.yaml, *.yml or *.json)"),
            _ => bail!(
                "the manifests have nothing that policies depend on: no pods, workloads, policies, services or nodes"
            ),
        }
    }
    let texts = texts::texts(&gathered.files, &loaded, gathered.options.max_file_bytes);
    let plugin = plugin.map(PluginArgument::plugin);
    let options = LintOptions { default_namespace: &gathered.namespace, plugin };
    let report = lint(&loaded, &texts, rules, &options);
    Ok(Examined { loaded, texts, report })
}

/// Returns what is printed.
fn shown(
    arguments: &Lint,
    report: &LintReport,
    known: Option<&std::collections::BTreeSet<String>>,
    fixed: usize,
) -> Shown {
    let mut findings = report.findings.clone();
    let all = findings.len();
    findings.retain(|f| known.is_none_or(|known| !known.contains(&f.fingerprint)));
    let known = all - findings.len();
    let new = findings.len();
    findings.retain(|f| f.level >= arguments.severity.level());
    let below = new - findings.len();
    let known_from = if arguments.git.is_some() { "older than the range" } else { "in the baseline" };
    Shown { findings, below, suppressed: report.suppressed, known, known_from, fixed, complete: true }
}

/// Says what no rule names: what could not be read, and suppressions of rules that don't exist.
pub(crate) fn warn(notes: &[Note], report: &LintReport) {
    inputs::report(
        &Loaded { diagnostics: report.other.clone(), notes: notes.to_vec(), ..Loaded::default() },
        false,
    );
    let heading = styled(Style::Open, "warning:");
    for problem in &report.problems {
        let at = &problem.origin;
        let word = palisade_manifest::printable(&problem.word);
        output::note(&format!("{heading} {}:{}: there is no rule `{word}` to ignore\n", at.file, at.line));
    }
}

fn outcome(arguments: &Lint, gathered: &Gathered, report: &LintReport, found: bool) -> Outcome {
    let errors = report.other.iter().any(|d| d.severity == Severity::Error) || report.unrendered > 0;
    let unread = errors && !arguments.sources.reading.keep_going;
    let missing = !gathered.missing.is_empty() && !arguments.sources.cluster.allow_incomplete;
    if unread || missing { Outcome::Incomplete } else { Outcome::of(!found) }
}

fn unknown(word: &str) -> String {
    let near: Vec<String> = suggestions(RULES, word).into_iter().map(|name| format!("`{name}`")).collect();
    let word = palisade_manifest::printable(word);
    match &*near {
        [] => {
            let (first, last) = (RULES.first().map_or("", |r| r.code), RULES.last().map_or("", |r| r.code));
            format!("there is no rule `{word}`; rules have codes, from {first} to {last}, and names")
        }
        near => format!("there is no rule `{word}`; did you mean {}?", near.join(" or ")),
    }
}

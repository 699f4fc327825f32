//! `palisade review`: what a range of revisions changes, on one page.
//!
//! ```text
//!               ┌─► both sides ─► compared (diff) ──────────► what opens and closes ─┐
//!  git range ───┤        └──────► introduced (lint) ────────► new findings ──────────┼─► page: Markdown, text, JSON
//!               └─► assertion files of both sides (test) ───► other results ─────────┘
//! ```

mod json;
mod markdown;
mod page;
mod range;
mod summary;
mod text;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use palisade_manifest::{Note, Severity};

use crate::{
    addresses::AddressArguments,
    assertions::{self, AssertionChange, AssertionSide, Status},
    diff::{self, Comparison},
    entrances::ControllerArguments,
    exit::Outcome,
    inputs::{ReadingArguments, RenderArguments},
    lint::{self, Introduced, LevelArgument},
    output::{self, Encoding},
};
use range::Range;

pub(crate) const HELP: &str = "\
Writes one page about a change of policies, for reviewers: the connections that it opens and closes, as `palisade diff` finds them; the likely mistakes that it introduces, as `palisade lint --git` finds them; and the assertions of `palisade test` with another result than before. An assertion that is removed or edited is also checked as it was before.

Manifests are read in both revisions with the `git` program: REV..REV compares two revisions, REV...REV compares their merge base with the second, and REV compares a revision with the files as they are now. Files below PATH with the schema palisade.test/v1 are assertions; --tests names others.

Examples:
  palisade review --git main...HEAD
  palisade review --git origin/main...HEAD -f deploy -t policy-tests.yaml
  palisade review --git main...HEAD -f deploy -o markdown > comment.md
  palisade review --git HEAD                     what is not committed yet
  palisade review --git main...HEAD -k overlays/production --fail-on opened

Exit codes: 0 nothing to fail on, 1 something that --fail-on names, 2 error or undecided.";

/// Arguments of `review`.
#[derive(Debug, Args)]
pub(crate) struct Review {
    /// What to compare: REV..REV, REV...REV, or REV for the files as they are now
    #[arg(long, value_name = "RANGE")]
    git: String,
    /// Manifests: a file or a directory (recursively); may be repeated [default: the current directory]
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Assertions: a file or a directory (recursively); may be repeated. Those below the paths of -f are found automatically
    #[arg(short, long, value_name = "PATH")]
    tests: Vec<String>,
    #[command(flatten)]
    render: RenderArguments,
    #[command(flatten)]
    reading: ReadingArguments,
    #[command(flatten)]
    addresses: AddressArguments,
    #[command(flatten)]
    controller: ControllerArguments,
    /// Namespace of names and manifests without one
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: ReviewFormat,
    /// The most characters of a page; what is left out is counted [default: for markdown 65536, which is GitHub's limit for a
    /// comment; else none]
    #[arg(long, value_name = "CHARACTERS", value_parser = clap::value_parser!(u32).range(2_000..))]
    max_size: Option<u32>,
    /// What makes the exit code 1
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    fail_on: FailOn,
    /// Only these lint rules: codes, names, or prefixes of them
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    select: Vec<String>,
    /// All lint rules except these
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    ignore: Vec<String>,
    /// The lowest severity of lint findings that is shown
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    severity: LevelArgument,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReviewFormat {
    /// For people
    #[default]
    Text,
    /// Everything
    Json,
    /// The same data as YAML
    Yaml,
    /// For a comment on a pull request
    #[value(alias = "md")]
    Markdown,
}

/// `--fail-on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// New findings, and assertions that fail now
    #[default]
    Findings,
    /// Also connections that open, for pods that exist, are new or may be created
    Opened,
    /// Also connections that close, and workloads that are new or gone
    Changes,
}

/// What a range changes.
pub(crate) struct Reviewed<'a> {
    /// The names of both sides in messages.
    pub(crate) names: &'a [String; 2],
    pub(crate) comparison: Comparison,
    pub(crate) introduced: Introduced,
    pub(crate) assertions: Vec<AssertionChange>,
    /// What else to know.
    pub(crate) notes: Vec<Note>,
    /// Whether something that changes could not be read.
    unread: bool,
}

/// The most characters of a comment on GitHub. It refuses longer ones: "body is too long (maximum is 65536 characters)".
const GITHUB_COMMENT: usize = 65_536;

/// Prints the review.
pub(crate) fn run(arguments: &Review) -> Result<Outcome> {
    let for_programs = matches!(arguments.output, ReviewFormat::Json | ReviewFormat::Yaml);
    if arguments.max_size.is_some() && for_programs {
        bail!("--max-size is for pages: JSON and YAML have everything");
    }
    let rules = lint::rules(&arguments.select, &arguments.ignore)?;
    let range = range::read(arguments)?;
    let mut reviewed = review(arguments, &range, &rules)?;
    // Errors were reported when both sides were read.
    reviewed.introduced.report.other.retain(|diagnostic| diagnostic.severity != Severity::Error);
    lint::warn(&[], &reviewed.introduced.report);
    let limit = arguments.max_size.and_then(|size| usize::try_from(size).ok());
    let text = match arguments.output {
        ReviewFormat::Text => text::page(&reviewed, limit),
        ReviewFormat::Json => Encoding::Json.encode(&json::document(&reviewed))?,
        ReviewFormat::Yaml => Encoding::Yaml.encode(&json::document(&reviewed))?,
        ReviewFormat::Markdown => markdown::page(&reviewed, limit.unwrap_or(GITHUB_COMMENT)),
    };
    match arguments.output {
        ReviewFormat::Text => output::print_wrapped(&text),
        _ => output::print(&text),
    }
    .context("can't write the review")?;
    Ok(reviewed.outcome(arguments.fail_on))
}

fn review<'r>(
    arguments: &Review,
    range: &'r Range,
    rules: &[&'static palisade_lint::LintRule],
) -> Result<Reviewed<'r>> {
    let Range { inputs, files, notes, .. } = range;
    let mut sides = diff::read(inputs, &arguments.reading, &arguments.addresses)?;
    for (side, below) in sides.sides.iter_mut().zip(range.below) {
        // Files of assertions are read as such.
        let all = below.to_string();
        side.notes.retain(|note| note.code != "not-manifests" || note.text.split(' ').next() != Some(&all));
    }
    let namespace = &inputs.namespace;
    let [before, after] = &sides.sides;
    let found = [(&inputs.before[..], before), (&inputs.after[..], after)];
    let strict = arguments.reading.strict;
    let introduced = lint::introduced(found, rules, arguments.severity.level(), namespace, strict);
    let side = |side: usize| AssertionSide {
        cluster: &sides.sides[side].cluster,
        files: &files[side],
        name: &inputs.names[side],
    };
    let (assertions, more) = assertions::changes([side(0), side(1)], namespace)?;
    let routes = diff::routes(&arguments.controller, &sides)?;
    let comparison = diff::compared(sides, &routes);
    let notes = notes.iter().cloned().chain(more).collect();
    let unread = range.unread;
    Ok(Reviewed { names: &inputs.names, comparison, introduced, assertions, notes, unread })
}

impl Reviewed<'_> {
    /// Whether everything could be read and checked. If not, the page may lack something.
    pub(crate) fn is_complete(&self) -> bool {
        let is_error = |change: &AssertionChange| change.status() == Some(Status::Error);
        !self.unread && self.comparison.is_complete() && !self.assertions.iter().any(is_error)
    }

    /// Whether everything could be decided.
    fn is_decided(&self) -> bool {
        let comparison = &self.comparison;
        comparison.undecided.is_empty()
            && comparison.difference.undecided.is_empty()
            && !self.assertions.iter().any(AssertionChange::is_open)
    }

    fn outcome(&self, fail_on: FailOn) -> Outcome {
        let found =
            !self.introduced.findings.is_empty() || self.assertions.iter().any(AssertionChange::fails_now);
        let changed = match fail_on {
            FailOn::Findings => false,
            FailOn::Opened => self.comparison.opens(),
            FailOn::Changes => self.comparison.outcome() == Outcome::No,
        };
        if !self.is_complete() {
            Outcome::Incomplete
        } else if found || changed {
            Outcome::No
        } else if !self.is_decided() {
            Outcome::Incomplete
        } else {
            Outcome::Yes
        }
    }
}

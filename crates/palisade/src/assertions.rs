//! `palisade test`: assertions about connections.
//!
//! ```text
//!  assertion files ─► written ─┐
//!                              ├─► resolve ─► check (palisade-analysis) ─► text, JSON, JUnit, TAP
//!  manifests, cluster ─► load ─┘
//! ```

mod changes;
mod check;
mod example;
mod file;
mod formats;
mod hosts;
#[cfg(all(target_os = "linux", feature = "lab"))]
mod lab;
#[cfg(feature = "live")]
mod probe;
mod probe_arguments;
mod resolve;
mod selector;
mod text;
mod watch;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    cluster::{JsonMissing, Need},
    exit::Outcome,
    inputs::{self, InputArguments, LoadedInputs},
    output,
};
pub(crate) use changes::{AssertionChange, AssertionFile, AssertionSide, Edit, changes, is_assertion_file};
pub(crate) use check::Status;
pub(crate) use formats::{JsonResult, json_result};
pub(crate) use text::explanation;

pub(crate) const HELP: &str = "\
An assertion file says what must and must not be possible:

  schema: palisade.test/v1
  assertions:
  - name: nothing but the frontend reaches the backend
    reason: the backend trusts its callers
    from: shop/frontend
    to: {namespace: shop, pods: {app: backend}}
    ports: [8080]
    expect: only

expect is allow (all connections from FROM to TO), deny (none) or only (none from any other pod, node or address). Ends are written as for `palisade can`, or as pods by labels, or as a CIDR. Pods by labels, namespaces and * stand for all pods, whether they exist or not: a counterexample may be a pod that does not exist yet. A workload or a Service stands for its pods. Without ports, an assertion is about all traffic. A connection from a pod's own node is always allowed, so it is not checked.

Examples:
  palisade test examples/shop.assertions.yaml -f examples/shop
  palisade test tests.yaml                      against the cluster of the current context
  palisade test tests.yaml -f deploy --live     with deploy applied to that cluster
  palisade test tests.yaml -f deploy --lab      with packets too, in namespaces of this machine
  palisade test tests.yaml --live --probe       with connections between the cluster's own pods
  palisade test tests.yaml -f deploy --watch    again whenever a file changes
  palisade test tests.yaml -f deploy -o junit > report.xml
  palisade test --init -f deploy > tests.yaml   a first file, from what is so today
  palisade test --schema > palisade-test.schema.json

Exit codes: 0 all assertions hold, 1 an assertion fails, 2 error or undecided.";

/// The JSON schema of assertion files.
const FILE_SCHEMA: &str = include_str!("../../../docs/schemas/test-file.json");

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Files with assertions
    #[arg(value_name = "ASSERTIONS", required_unless_present_any = ["init", "schema"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    sources: InputArguments,
    /// Namespace of names and manifests without one [default: the context's, else "default"]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: TestFormat,
    /// Also try the connections of each assertion with packets, in a lab of the manifests
    #[arg(long, conflicts_with_all = ["live", "watch", "init", "schema"])]
    lab: bool,
    #[command(flatten)]
    probe: probe_arguments::ProbeArguments,
    /// Check again whenever a file changes, until interrupted
    #[arg(long, conflicts_with_all = ["init", "schema"])]
    watch: bool,
    /// Print assertions that hold today, as the start of a file
    #[arg(long, conflicts_with_all = ["paths", "schema"])]
    init: bool,
    /// Print the JSON schema of assertion files
    #[arg(long, conflicts_with = "paths")]
    schema: bool,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TestFormat {
    /// For people
    #[default]
    Text,
    /// Everything
    Json,
    /// JUnit XML
    Junit,
    /// The Test Anything Protocol, version 14
    Tap,
}

/// Checks assertions and prints the results.
pub(crate) fn run(mut arguments: Test) -> Result<Outcome> {
    if arguments.schema {
        output::print(FILE_SCHEMA).context("can't write the schema")?;
        return Ok(Outcome::Yes);
    }
    // Here, the cluster alone is what --live says.
    let sources = &mut arguments.sources;
    sources.live &= !sources.files.is_empty() || !sources.render.is_empty();
    if arguments.init {
        let world = load(&arguments)?;
        output::print(&example::file(&world.loaded.cluster)?).context("can't write the assertions")?;
        return Ok(world.outcome(Outcome::Yes));
    }
    if arguments.watch {
        return watch::run(&arguments);
    }
    once(&arguments)
}

fn load(arguments: &Test) -> Result<LoadedInputs> {
    arguments.sources.load(arguments.namespace.as_deref(), false, Need::Verdicts)
}

/// Checks once.
fn once(arguments: &Test) -> Result<Outcome> {
    let mut written = Vec::new();
    for path in &arguments.paths {
        written.extend(file::read(path)?);
    }
    if let Some((a, b)) = same_name(&written) {
        bail!("{b}: the name is that of an assertion at {a}");
    }
    #[cfg(not(all(target_os = "linux", feature = "lab")))]
    if arguments.lab {
        return crate::left_out::verb("lab");
    }
    #[cfg(all(target_os = "linux", feature = "lab"))]
    if arguments.lab {
        let (results, errors) = lab::results(&arguments.sources, written, arguments.namespace.as_deref())?;
        print(arguments, &results, &[])?;
        let outcome = check::outcome(&results);
        // What holds for a part of the manifests need not hold for them.
        return Ok(if errors && outcome == Outcome::Yes { Outcome::Incomplete } else { outcome });
    }
    #[cfg(not(feature = "live"))]
    if arguments.probe.probe {
        return Err(crate::left_out::no_client("leave out --probe"));
    }
    if arguments.probe.probe && !(arguments.sources.files.is_empty() && arguments.sources.render.is_empty()) {
        bail!("--probe tries connections of the cluster as it is: leave out -f, -k and --helm");
    }
    let world = load(arguments)?;
    #[cfg_attr(not(feature = "live"), expect(unused_mut, reason = "probes add to results"))]
    let mut results = check::all(&world.loaded.cluster, written, &world.namespace);
    #[cfg(feature = "live")]
    if arguments.probe.probe {
        probe::probe(&arguments.probe, &arguments.sources.cluster, &world, &mut results)?;
    }
    print(arguments, &results, &world.incomplete())?;
    Ok(world.outcome(check::outcome(&results)))
}

fn print(arguments: &Test, results: &[check::TestResult], incomplete: &[JsonMissing<'_>]) -> Result<()> {
    let text = match arguments.output {
        TestFormat::Text => text::text(results),
        TestFormat::Json => formats::json(results, incomplete)?,
        TestFormat::Junit => formats::junit(results),
        TestFormat::Tap => formats::tap(results),
    };
    output::print_wrapped(&text).context("can't write the results")
}

/// Returns the places of two assertions with the same name.
fn same_name(written: &[file::Written]) -> Option<(&file::Place, &file::Place)> {
    written.iter().enumerate().find_map(|(at, one)| {
        let earlier = written[..at].iter().find(|other| other.name == one.name)?;
        Some((&earlier.place, &one.place))
    })
}

/// Returns how many there are, with the word.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {}", inputs::plural(count, noun))
}

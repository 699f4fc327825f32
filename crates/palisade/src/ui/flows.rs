//! What agents saw: of a file, or of the agents of the cluster that is shown.
//!
//! ```text
//! file ──► file ───┐
//!                  ├─► FlowLog: the latest records ─► api
//! agents ► agents ─┘   (a thread, while a page asks)
//! ```

#[cfg(feature = "live")]
mod agents;
mod drops;
mod file;
mod log;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use palisade_flow::{Filter, Record, Verdict};
use serde::Serialize;

use super::{query::Query, world::Source};
use crate::{
    inputs::stamp::{PERIOD, Stamp},
    output::Encoding,
};
use drops::JsonDrops;
use log::{FlowLog, Node};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.flows/v1";
/// How long a request waits for a record. Less than the time after which a connection is closed.
const WAIT: Duration = Duration::from_secs(20);
/// Agents are followed for this long after the last question. A page asks at least every 25 s.
#[cfg(feature = "live")]
const CLOSED_AFTER: Duration = Duration::from_secs(60);

/// From where records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    Agents,
    File,
    /// There are none: neither a file nor a cluster was given.
    Nowhere,
}

/// What agents saw.
pub(super) struct Flows {
    log: Arc<FlowLog>,
    origin: Origin,
    began: Instant,
    /// When a page last asked, in milliseconds since the start, plus one; 0: never.
    asked: AtomicU64,
}

#[derive(Serialize)]
struct JsonFlows<'a> {
    schema: &'static str,
    from: Origin,
    /// To be given as `after` to go on.
    number: u64,
    records: Vec<&'a Record>,
    /// How many older records match and are not in the answer.
    more: usize,
    /// How many records made room for later ones.
    left_out: u64,
    /// What is wrong with all nodes, or with the file.
    problem: Option<String>,
    nodes: Vec<JsonNode<'a>>,
}

#[derive(Serialize)]
struct JsonNode<'a> {
    name: &'a str,
    #[serde(flatten)]
    node: &'a Node,
}

impl Flows {
    /// Starts to read records.
    ///
    /// # Errors
    /// When the file can't be read, or no thread can be started.
    pub(super) fn start(source: &Source) -> Result<Arc<Self>> {
        let arguments = &source.arguments;
        let origin = match &arguments.flows {
            Some(_) => Origin::File,
            None if source.is_cluster() && cfg!(feature = "live") => Origin::Agents,
            None => Origin::Nowhere,
        };
        let log = Arc::new(FlowLog::new());
        let flows = Arc::new(Self { log, origin, began: Instant::now(), asked: AtomicU64::new(0) });
        let following = Arc::clone(&flows);
        match &arguments.flows {
            Some(path) => {
                let read = Stamp::of([path.as_path()].into_iter());
                file::read(path, &flows.log)?;
                let path = path.clone();
                spawn(move || follow_file(&path, &following, read))?;
            }
            #[cfg(feature = "live")]
            None if origin == Origin::Agents => {
                let agents = arguments.agents();
                spawn(move || agents::follow(&agents, &following))?;
            }
            None => drop(following),
        }
        Ok(flows)
    }

    /// Whether a page asks for records.
    #[cfg(feature = "live")]
    fn is_asked(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        let closed = Duration::from_millis(asked) + CLOSED_AFTER;
        asked > 0 && self.began.elapsed() < closed
    }

    /// Answers with the records that match: at once, or as soon as there is something new since `after`.
    ///
    /// # Errors
    /// When a parameter can't be read.
    pub(super) async fn answer(&self, query: &Query<'_>) -> Result<String, String> {
        query.only(&["after", "from", "to", "pod", "namespace", "verdict", "policy", "port"])?;
        let filter = filter(query)?;
        let after = self.new_since(query).await?;
        let answer = self.log.answer(&filter, after);
        let nodes = answer.nodes.iter().map(|(name, node)| JsonNode { name, node }).collect();
        let json = JsonFlows {
            schema: SCHEMA,
            from: self.origin,
            number: answer.number,
            records: answer.records.iter().map(|record| &**record).collect(),
            more: answer.more,
            left_out: answer.left_out,
            problem: answer.problem,
            nodes,
        };
        Encoding::Json.encode(&json).map_err(|error| format!("{error:#}"))
    }
}

impl Flows {
    /// Answers with what the policies of each namespace dropped in the last hour: at once, or as soon as there is something new
    /// since `after`.
    ///
    /// # Errors
    /// When a parameter can't be read.
    pub(super) async fn drops(&self, query: &Query<'_>) -> Result<String, String> {
        query.only(&["after"])?;
        self.new_since(query).await?;
        let now = Timestamp::try_from(SystemTime::now()).map_err(|error| format!("the clock: {error}"))?;
        let json = JsonDrops::new(&self.log, self.origin, now);
        Encoding::Json.encode(&json).map_err(|error| format!("{error:#}"))
    }

    /// Notes that a page asks, and waits until there is something new since the answer that it names, which is returned.
    async fn new_since(&self, query: &Query<'_>) -> Result<u64, String> {
        let after = query.optional("after")?;
        let after = after.map(|text| text.parse().map_err(|_| format!("after: `{text}` is no number")));
        let after = after.transpose()?.unwrap_or(0);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.asked.store(now, Ordering::Relaxed);
        if after > 0 {
            self.log.changed(after, WAIT).await;
        }
        Ok(after)
    }
}

/// Reads the file again when it changes.
fn follow_file(path: &Path, flows: &Flows, mut read: Stamp) {
    let mut last = read.clone();
    loop {
        thread::sleep(PERIOD);
        let now = Stamp::of([path].into_iter());
        let is_settled = now == last;
        last = now.clone();
        if !is_settled || now == read {
            continue;
        }
        read = now;
        let new = FlowLog::new();
        // What was read last stays if the file is broken.
        match file::read(path, &new) {
            Ok(()) => flows.log.replace(new),
            Err(error) => flows.log.fail(Some(format!("{error:#}"))),
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name("flows".to_owned()).spawn(work).context("can't start a thread")?;
    Ok(())
}

/// Reads the filter, whose conditions are written as those of `palisade flows`.
fn filter(query: &Query<'_>) -> Result<Filter, String> {
    fn one<T: std::str::FromStr<Err = palisade_flow::FilterError>>(
        query: &Query<'_>,
        name: &str,
    ) -> Result<Vec<T>, String> {
        let text = query.optional(name)?.map(str::trim).filter(|text| !text.is_empty());
        let value = text.map(|text| text.parse().map_err(|error| format!("{name}: {error}"))).transpose()?;
        Ok(value.into_iter().collect())
    }
    let verdict = match query.optional("verdict")?.filter(|text| !text.is_empty()) {
        None => None,
        Some("forwarded") => Some(Verdict::Forwarded),
        Some("dropped") => Some(Verdict::Dropped),
        Some("audited") => Some(Verdict::Audited),
        Some(other) => {
            return Err(format!("verdict: `{other}` is none of `forwarded`, `dropped` and `audited`"));
        }
    };
    let namespace = query.optional("namespace")?.map(str::trim).filter(|text| !text.is_empty());
    let namespace = namespace.map(|name| match format!("{name}/").parse() {
        Ok(peer @ palisade_flow::Peer::Namespace(_)) => Ok(peer),
        _ => Err(format!("namespace: `{name}` is not the name of a namespace")),
    });
    Ok(Filter {
        from: one(query, "from")?,
        to: one(query, "to")?,
        either: one(query, "pod")?,
        namespaces: namespace.transpose()?.into_iter().collect(),
        verdicts: verdict.into_iter().collect(),
        policies: one(query, "policy")?,
        ports: one(query, "port")?,
        since: None,
    })
}

//! What a report says, as JSON. Texts and sets that occur often are written once and referred to by their index, so that
//! the size grows with what differs.

use palisade_analysis::{
    Connections, ConnectionsOptions, ControllerRoutes, GroupBy, Questions, Reasoner,
    overview::{Extent, NamespaceOverview, Protection, WorkloadOverview},
};
use palisade_lint::{Finding, Level, LintOptions, RULES, SourceText};
use palisade_policy::{Cluster, Direction};
use serde::Serialize;

use super::{
    ends::{self, JsonEnd},
    links::{JsonDecider, JsonLink, JsonReasons, JsonTraffic, Links},
    policies::{self, JsonPolicy},
    sources::{JsonSource, Sources},
};
use crate::{addresses, cluster::JsonMissing, inputs::LoadedInputs};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.report/v1";

/// What is reported on.
pub(crate) struct Question<'a> {
    pub(crate) world: &'a LoadedInputs,
    pub(crate) texts: &'a [SourceText],
    pub(crate) routes: ControllerRoutes,
    /// Whether nodes are ends.
    pub(crate) nodes: bool,
    /// What an end stands for.
    pub(crate) group_by: GroupBy,
}

/// A report.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    pub(super) schema: &'static str,
    pub(super) counts: Counts,
    pub(super) namespaces: Vec<JsonNamespace>,
    /// The workloads first, by namespace, then nodes, external addresses and the ingress controller.
    pub(super) ends: Vec<JsonEnd>,
    /// Sets of ends: the first and last index of each run.
    pub(super) sets: Vec<Vec<[usize; 2]>>,
    /// The connections between sets that are allowed. All pairs of a link have the same reasons.
    pub(super) allowed: Vec<JsonLink>,
    /// Those that are denied in a direction, with what denies them in it.
    pub(super) denied_egress: Vec<JsonLink>,
    pub(super) denied_ingress: Vec<JsonLink>,
    pub(super) traffics: Vec<JsonTraffic>,
    pub(super) reasons: Vec<JsonReasons>,
    pub(super) deciders: Vec<JsonDecider>,
    /// The lines of the manifests that decide.
    pub(super) sources: Vec<JsonSource>,
    pub(super) policies: Vec<JsonPolicy>,
    pub(super) findings: Vec<JsonFinding>,
    /// What the pods on the host network are.
    pub(super) bystanders: Vec<String>,
    pub(super) notes: Vec<palisade_manifest::Note>,
    /// What depends on addresses that are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) undecided: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
pub(super) struct Counts {
    pub(super) namespaces: usize,
    pub(super) workloads: usize,
    pub(super) pods: usize,
    pub(super) policies: usize,
    /// Pairs of ends, whatever the ports.
    pub(super) connections: usize,
}

/// A namespace at a glance: of its workloads, how many are what.
#[derive(Serialize)]
pub(super) struct JsonNamespace {
    pub(super) name: String,
    pub(super) workloads: usize,
    pub(super) ingress_isolated: usize,
    pub(super) ingress_open: usize,
    pub(super) egress_isolated: usize,
    pub(super) egress_open: usize,
    /// Those that may ask DNS servers, and those for which it is known.
    pub(super) dns: usize,
    pub(super) dns_known: usize,
    pub(super) internet_in: usize,
    pub(super) internet_out: usize,
}

/// What a rule of `palisade lint` found.
#[derive(Serialize)]
pub(super) struct JsonFinding {
    pub(super) code: &'static str,
    pub(super) rule: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) object: Option<String>,
    pub(super) fix: Option<String>,
    pub(super) affected_pods: usize,
}

impl<'a> Document<'a> {
    /// Answers all that the report shows. Costs two computations of all connections.
    pub(super) fn new(question: &Question<'a>) -> Self {
        let world = question.world;
        let (loaded, cluster) = (&world.loaded, &world.loaded.cluster);
        let options = |only_denied| ConnectionsOptions {
            group_by: question.group_by,
            only_denied,
            nodes: question.nodes,
            controller_routes: question.routes.clone(),
            ..ConnectionsOptions::default()
        };
        let (allowed, denied) =
            (Connections::new(cluster, &options(false)), Connections::new(cluster, &options(true)));
        let overview = palisade_analysis::overview(cluster);
        let mut sources = Sources::new(question.texts, world.live.as_ref());
        let mut links = Links::default();
        let reasoner = Reasoner::new(cluster, &allowed, false);
        let allowed_links = links.add(&allowed, loaded, &reasoner, &mut sources);
        let mut denied_in = |direction| {
            let reasoner = Reasoner::of_side(cluster, &denied, direction).sharing(&reasoner);
            let mut found = links.add(&denied, loaded, &reasoner, &mut sources);
            // What the other direction alone denies is in its list.
            found.retain(|link| links.has_reasons(link));
            found
        };
        let (denied_egress, denied_ingress) = (denied_in(Direction::Egress), denied_in(Direction::Ingress));
        let policies = policies::policies(loaded, &links, &allowed_links, &mut sources);
        let workloads: Vec<&WorkloadOverview> =
            overview.namespaces.iter().flat_map(|n| &n.workloads).collect();
        let ends = ends::ends(&allowed, loaded, &workloads);
        let undecided = undecided(cluster, &allowed);
        let bystanders = allowed.unaffected_pods().iter().map(|b| b.pod.to_string());
        let mut notes = addresses::notes(loaded);
        notes.extend(loaded.notes.iter().cloned());
        Self {
            schema: SCHEMA,
            counts: Counts {
                namespaces: overview.namespaces.len(),
                workloads: workloads.len(),
                pods: workloads.iter().map(|w| w.pods.pods.len()).sum(),
                policies: cluster.policies.len(),
                connections: allowed_links.iter().map(|link| link.pairs).sum(),
            },
            namespaces: overview.namespaces.iter().map(namespace).collect(),
            ends,
            allowed: allowed_links,
            denied_egress,
            denied_ingress,
            sets: links.sets,
            traffics: links.traffics,
            reasons: links.reasons,
            deciders: links.deciders,
            sources: sources.found,
            policies,
            findings: findings(question),
            bystanders: bystanders.collect(),
            notes,
            undecided,
            incomplete: world.incomplete(),
        }
    }

    /// Returns whether some of it depends on addresses that are not known.
    pub(super) fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }
}

fn namespace(namespace: &NamespaceOverview) -> JsonNamespace {
    let count = |is: &dyn Fn(&WorkloadOverview) -> bool| namespace.workloads.iter().filter(|w| is(w)).count();
    let some = |extent: Extent| matches!(extent, Extent::Some | Extent::Everything);
    JsonNamespace {
        name: namespace.name.to_string(),
        workloads: namespace.workloads.len(),
        ingress_isolated: count(&|w| w.ingress == Protection::Isolated),
        ingress_open: count(&|w| w.ingress == Protection::None),
        egress_isolated: count(&|w| w.egress == Protection::Isolated),
        egress_open: count(&|w| w.egress == Protection::None),
        dns: count(&|w| w.dns.is_some_and(some)),
        dns_known: count(&|w| w.dns.is_some()),
        internet_in: count(&|w| some(w.internet_in)),
        internet_out: count(&|w| some(w.internet_out)),
    }
}

/// Returns what `palisade lint` finds, the most severe first.
fn findings(question: &Question<'_>) -> Vec<JsonFinding> {
    let world = question.world;
    let options = LintOptions { default_namespace: &world.namespace, plugin: None };
    let report = palisade_lint::lint(&world.loaded, question.texts, RULES, &options);
    let mut findings: Vec<Finding> = report.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let finding = |f: Finding| JsonFinding {
        code: f.rule.code,
        rule: f.rule.name,
        level: f.level,
        message: f.message,
        file: f.origin.as_ref().map(|at| at.file.to_string()),
        line: f.origin.as_ref().map(|at| at.line),
        object: f.object,
        fix: f.fix.map(|fix| fix.text),
        affected_pods: f.affected.pods,
    };
    findings.into_iter().map(finding).collect()
}

/// Says what depends on addresses that are not known.
fn undecided(cluster: &Cluster, answer: &Connections) -> Vec<String> {
    let pairs = answer.undecided();
    let mut asking = Questions::new(cluster, answer);
    let questions: Vec<_> = pairs.iter().flat_map(|edge| asking.of(edge)).collect();
    addresses::undecided_text(pairs.len(), &questions).into_iter().collect()
}

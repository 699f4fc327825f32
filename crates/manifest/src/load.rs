//! Inputs to a cluster: the front door of this crate.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_policy::{Cluster, Family, Name, ObjectKey, Origin, Workload, routes::Route};

use crate::{
    addresses::{AddressPlan, Unaddressed, assign_addresses},
    assemble,
    cluster_wide::{Admission, Channel},
    decode::{Context, HELM},
    diagnostic::{Code, Diagnostic, Severity},
    gather::Gathered,
    input::{Input, Reader},
    intern::Interner,
    object::Intake,
    text::Text,
    tree::{Documents, Limits, Problem, ProblemKind},
};

/// How to read.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The namespace of objects that name none. `kubectl -n`.
    pub default_namespace: String,
    /// Unknown fields are errors, as with `kubectl --validate=strict`; else they are warnings.
    pub strict: bool,
    /// The API server's feature gate `StrictIPCIDRValidation` (SEMANTICS A.3.8).
    pub strict_cidr: bool,
    /// The release channel of the cluster-wide policies' CustomResourceDefinitions.
    pub channel: Channel,
    /// Whether the cluster-wide policies have been admitted by an API server.
    pub admission: Admission,
    /// Files of more bytes are refused unread.
    pub max_file_bytes: u64,
    /// An input of more files and directories is refused.
    pub max_files: usize,
    /// Whether pipes and devices are refused also where they were named.
    pub regular_files: bool,
    /// How many pods all workloads together may make.
    pub max_made_pods: u32,
    /// What one document may cost.
    pub limits: Limits,
    /// Whether all namespaces are declared, if any is, so that one that isn't does not exist.
    pub all_namespaces: bool,
    /// The addresses to give to pods and services that declare none; `None` leaves them without.
    pub addresses: Option<AddressPlan>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            default_namespace: "default".to_owned(),
            strict: false,
            strict_cidr: false,
            channel: Channel::default(),
            admission: Admission::default(),
            max_file_bytes: 64 << 20,
            // Ten thousand policies and as much again of everything else, each in a file of its own.
            max_files: 200_000,
            regular_files: false,
            // The largest clusters have 150,000 pods; the Kubernetes scalability limit is that number.
            max_made_pods: 300_000,
            limits: Limits::default(),
            all_namespaces: true,
            addresses: Some(AddressPlan::default()),
        }
    }
}

/// What was read, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Files, standard input and texts.
    pub files: usize,
    /// Documents that are not empty, broken ones included.
    pub documents: usize,
    /// Objects taken in, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Objects of known kinds that were refused, by kind.
    pub rejected: BTreeMap<String, usize>,
    /// Objects that don't matter to policies or are not evaluated, by kind.
    pub passed_over: BTreeMap<String, usize>,
}

/// What manifests say.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The cluster. What was refused is not in it.
    pub cluster: Cluster,
    /// Everything that is wrong, in the order in which it was found.
    pub diagnostics: Vec<Diagnostic>,
    /// What was read.
    pub counts: Counts,
    /// The pods of each workload, in each namespace, sorted; workloads without pods have an empty list.
    pub workloads: BTreeMap<(Name, Workload), Vec<ObjectKey>>,
    /// Where each object begins, by kind and key; cluster-scoped ones have an empty namespace.
    pub sources: BTreeMap<(Name, ObjectKey), Origin>,
    /// What leads into the cluster through a controller, by kind and key. A backend that leads nowhere is left out.
    pub routes: Vec<Route>,
    /// What was left, or is meant to be left, without address.
    pub unaddressed: Unaddressed,
}

impl Loaded {
    /// Whether something was not taken in.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// How many errors and warnings there are.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.diagnostics.len() - errors)
    }
}

/// Reads inputs. Never fails as a whole: what can't be taken in is in [`Loaded::diagnostics`], and the rest is there.
/// `O(bytes + pods · log pods)`.
#[must_use]
pub fn load(inputs: &[Input], options: &LoadOptions) -> Loaded {
    let mut loading = Loading {
        options,
        gathered: Gathered::default(),
        counts: Counts::default(),
        names: Interner::default(),
    };
    let mut found = Vec::new();
    for input in inputs {
        Reader::new(options, &mut found).read(input, |reader, text| loading.text(&text, reader.found));
    }
    loading.finish(found)
}

struct Loading<'o> {
    options: &'o LoadOptions,
    gathered: Gathered,
    counts: Counts,
    names: Interner,
}

impl Loading<'_> {
    fn text(&mut self, text: &Text, found: &mut Vec<Diagnostic>) {
        self.counts.files += 1;
        let before = found.len();
        let mut cx = Context {
            text,
            names: &mut self.names,
            found,
            strict: self.options.strict && !text.is_of_cluster(),
            strict_cidr: self.options.strict_cidr && !text.is_of_cluster(),
            channel: self.options.channel,
            admission: if text.is_of_cluster() { Admission::Passed } else { self.options.admission },
            object: None,
            errors: 0,
        };
        if u32::try_from(text.as_str().len()).is_err() {
            let message = "is larger than 4 GiB";
            return cx.report_span(0..0, Diagnostic::new(Severity::Error, Code::TooLarge, message));
        }
        for document in Documents::new(text.as_str(), self.options.limits) {
            match document {
                Ok(tree) if tree.is_empty() => {}
                Ok(tree) => {
                    self.counts.documents += 1;
                    let mut intake = Intake {
                        gathered: &mut self.gathered,
                        counts: &mut self.counts,
                        default_namespace: &self.options.default_namespace,
                    };
                    intake.root(&mut cx, &tree.root());
                }
                Err(problems) => {
                    self.counts.documents += 1;
                    cx.object = None;
                    for problem in problems {
                        report(&mut cx, problem);
                    }
                }
            }
        }
        // Fields are decoded in the order of the API; a reader goes through the file from top to bottom.
        found[before..].sort_by_key(|d| d.span.as_ref().map(|s| s.start));
    }

    fn finish(self, mut found: Vec<Diagnostic>) -> Loaded {
        let Self { options, gathered, counts, mut names } = self;
        let mut loaded = assemble::assemble(gathered, counts, options, &mut names, &mut found);
        if let Some(plan) = &options.addresses {
            found.extend(assign_addresses(&mut loaded.cluster, plan, &loaded.unaddressed));
        }
        loaded.diagnostics = found;
        loaded
    }
}

fn report(cx: &mut Context<'_>, problem: Problem) {
    let code = match problem.kind {
        ProblemKind::Syntax => Code::Syntax,
        ProblemKind::DuplicateKey => Code::DuplicateKey,
        ProblemKind::Alias => Code::Alias,
        ProblemKind::TooLarge => Code::TooLarge,
    };
    let mut diagnostic = Diagnostic::new(Severity::Error, code, problem.message);
    diagnostic.help = help(cx.text.as_str(), &problem.span, code);
    cx.report_span(problem.span, diagnostic);
}

/// What usually is behind a broken document.
fn help(text: &str, span: &std::ops::Range<u32>, code: Code) -> Option<String> {
    if code != Code::Syntax {
        return None;
    }
    let at = span.start as usize;
    // A broken template is reported where the parser gave up: look at the document round it.
    let from = text.get(..at)?.rfind("\n---").unwrap_or(0);
    let to = text.get(at..)?.find("\n---").map_or(text.len(), |n| at + n);
    if text.get(from..to)?.contains("{{") {
        return Some(HELM.to_owned());
    }
    let line = &text[text[..at].rfind('\n').map_or(0, |n| n + 1)..at];
    if line.starts_with('\t') || text[at..].starts_with('\t') {
        return Some("YAML is indented with spaces, not tabs".to_owned());
    }
    None
}

/// Live pods that report one address (SEMANTICS G-10).
pub(crate) fn shared_addresses(
    cluster: &Cluster,
    sources: &BTreeMap<(Name, ObjectKey), Origin>,
    found: &mut Vec<Diagnostic>,
) {
    let mut owners: BTreeMap<IpAddr, Vec<&palisade_policy::Pod>> = BTreeMap::new();
    for pod in cluster.pods.values().filter(|p| p.is_live()) {
        for address in &pod.addresses {
            owners.entry(*address).or_default().push(pod);
        }
    }
    for (address, mut pods) in owners.into_iter().filter(|(_, pods)| pods.len() > 1) {
        pods.sort_by(|a, b| palisade_policy::Pod::precedence(a, b));
        let (winner, losers) = (pods[0], &pods[1..]);
        for loser in losers {
            let message =
                format!("{address} is also the address of {}, which counts as its owner", winner.key);
            found.push(Diagnostic {
                source: sources.get(&(Name::from("Pod"), loser.key.clone())).cloned(),
                object: Some(format!("Pod {}", loser.key)),
                path: Some("status.podIP".to_owned()),
                ..Diagnostic::new(Severity::Warning, Code::DuplicateAddress, message)
            });
        }
    }
}

impl LoadOptions {
    /// The default, with addresses made up in these families.
    #[must_use]
    pub fn with_families(families: &[Family]) -> Self {
        let addresses = Some(AddressPlan { families: families.to_vec(), ..AddressPlan::default() });
        Self { addresses, ..Self::default() }
    }
}

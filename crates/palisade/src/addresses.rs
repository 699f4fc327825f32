//! The options about addresses, and what is said when an answer depends on addresses that are not known.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use palisade_analysis::AddressQuestion;
use palisade_manifest::{AddressPlan, FamilySource, FamilyWitness, Loaded, MADE_UP_NODE, Note, cidr::Cidr};
use palisade_policy::{Direction, Family, Peer, PolicyKey};
use serde::Serialize;

use crate::{connection_ends, output};

/// The options about the cluster's addresses.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AddressArguments {
    /// IP families of the cluster; may be repeated [default: those of its nodes, pods and services, else both]
    #[arg(long, value_enum, value_name = "FAMILY", value_delimiter = ',', help_heading = HEADING)]
    pub(crate) family: Vec<FamilyArgument>,
    /// Range from which pods get their addresses, for pods whose address is unknown; may be repeated [default:
    /// the nodes' podCIDRs]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr, help_heading = HEADING)]
    pub(crate) pod_cidr: Vec<IpNet>,
}

/// The heading of these options in help texts.
const HEADING: &str = "Addresses";

/// `--family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FamilyArgument {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
    /// IPv4 and IPv6
    Both,
}

fn cidr(text: &str) -> Result<IpNet, String> {
    let cidr = Cidr::parse(text).map(|cidr| cidr.canonical());
    cidr.ok_or_else(|| "not a CIDR, such as 10.244.0.0/16 or fd00:10:244::/48".to_owned())
}

impl AddressArguments {
    /// Returns what the options say.
    ///
    /// # Errors
    /// When a range is of a family that `--family` excludes.
    pub(crate) fn plan(&self) -> Result<AddressPlan> {
        let has = |family| {
            let own = if family == Family::V4 { FamilyArgument::V4 } else { FamilyArgument::V6 };
            self.family.iter().any(|f| *f == own || *f == FamilyArgument::Both)
        };
        let families: Vec<Family> = Family::BOTH.into_iter().filter(|family| has(*family)).collect();
        let families = (!families.is_empty()).then_some(families);
        if let Some(families) = &families
            && let Some(other) = self.pod_cidr.iter().find(|net| !families.contains(&Family::of_net(net)))
        {
            bail!("--pod-cidr {other} is a range of {}, which --family excludes", Family::of_net(other));
        }
        Ok(AddressPlan { families, pod_cidrs: self.pod_cidr.clone() })
    }
}

/// Returns what was assumed about addresses.
pub(crate) fn notes(loaded: &Loaded) -> Vec<Note> {
    let mut out = Vec::new();
    if loaded.made_up_node {
        let text = format!(
            "no Node objects; host-network pods are placed on a made-up node ({MADE_UP_NODE}), without labels"
        );
        out.push(Note::new("made-up-node", text));
    }
    out.extend(family_note(loaded));
    out
}

/// Returns a note if only one family is asked for because services show no other, and policies tell addresses apart. In a
/// cluster of both families, most services have one. Addresses of nodes and pods tell all of their families.
fn family_note(loaded: &Loaded) -> Option<Note> {
    let FamilySource::Shown(witnesses) = &loaded.families_from else { return None };
    if !witnesses.iter().all(|witness| *witness == FamilyWitness::Services) {
        return None;
    }
    let [family] = loaded.cluster.addressing.families[..] else { return None };
    let has_blocks = loaded.cluster.policies.values().any(|policy| {
        let rules = Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction)).flatten();
        rules.flat_map(|r| r.peers.iter().flatten()).any(|entry| matches!(entry.peer, Peer::Block(_)))
    });
    if !has_blocks {
        return None;
    }
    let text =
        format!("only {family} is considered, since services have no other; --family both considers both");
    Some(Note::new("one-family", text))
}

/// Prints notes to standard error.
pub(crate) fn report(loaded: &Loaded) {
    for note in notes(loaded) {
        output::note(&format!("note: {}\n", note.text));
    }
}

/// The cure for an answer that depends on addresses.
pub(crate) const CURE: &str = "give --pod-cidr or status.podIPs";

/// Why an answer is undecided, and its cure, where the end may be a node whose address is not known.
pub(crate) fn depends(is_node: bool) -> String {
    match is_node {
        true => "depends on addresses of nodes; give Node objects with status.addresses".to_owned(),
        false => format!("depends on pod addresses; {CURE}"),
    }
}

/// Formats why an answer is undecided, in one line for each rule that asks for an address, without the verdict.
pub(crate) fn reasons(questions: &[AddressQuestion]) -> Vec<String> {
    questions.iter().map(reason).collect()
}

fn reason(question: &AddressQuestion) -> String {
    let AddressQuestion { direction, rule, block, origin } = question;
    let end = if *direction == Direction::Egress { "destination" } else { "source" };
    let at = origin.as_ref().or(rule.origin.as_ref()).map(|at| format!(" ({at})")).unwrap_or_default();
    let except = match &block.except[..] {
        [] => String::new(),
        some => format!(" except {}", connection_ends::abbreviated(some, ToString::to_string)),
    };
    format!(
        "{}, {direction}[{}]{at} asks whether the {end}'s address is in {}{except}",
        rule.policy, rule.index, block.cidr
    )
}

/// Prints a summary of undecided pairs to standard error.
pub(crate) fn report_undecided<'q>(pairs: usize, questions: impl IntoIterator<Item = &'q AddressQuestion>) {
    if let Some(text) = undecided_text(pairs, questions) {
        output::note(&format!("undecided: {text}\n"));
    }
}

/// Returns one sentence about undecided pairs, with the policies that ask for addresses; `None` if there are none.
pub(crate) fn undecided_text<'q>(
    pairs: usize,
    questions: impl IntoIterator<Item = &'q AddressQuestion>,
) -> Option<String> {
    if pairs == 0 {
        return None;
    }
    let mut policies: Vec<&PolicyKey> = questions.into_iter().map(|q| &q.rule.policy).collect();
    policies.sort_unstable();
    policies.dedup();
    let by = connection_ends::abbreviated(&policies, |key| key.to_string());
    let of = if by.is_empty() { String::new() } else { format!(" (because of {by})") };
    let (pairs, are) =
        if pairs == 1 { ("1 pair".to_owned(), "is") } else { (format!("{pairs} pairs"), "are") };
    Some(format!(
        "the connections of {pairs} of ends {are} not fully known, since this depends on pod addresses{of}; {CURE}"
    ))
}

/// A rule that asks for an address, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonQuestion<'a> {
    policy: connection_ends::JsonObject<'a>,
    direction: String,
    rule: usize,
    cidr: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
}

impl<'a> JsonQuestion<'a> {
    pub(crate) fn new(question: &'a AddressQuestion, loaded: &'a Loaded) -> Self {
        let AddressQuestion { direction, rule, block, origin } = question;
        let at = origin.as_ref().or(rule.origin.as_ref());
        let of_policy = loaded.cluster.policies.get(&rule.policy).and_then(|p| p.origin.as_ref());
        Self {
            policy: connection_ends::JsonObject::of_policy(&rule.policy, of_policy),
            direction: direction.to_string(),
            rule: rule.index,
            cidr: block.cidr.to_string(),
            except: block.except.iter().map(ToString::to_string).collect(),
            file: at.map(|at| &*at.file),
            line: at.and_then(palisade_policy::Origin::line),
            column: at.map(|at| at.column).filter(|column| *column > 0),
        }
    }
}

/// What could not be decided and why, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonUndecided<'a> {
    /// A word for programs.
    code: &'static str,
    text: String,
    /// The rules that ask for addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<JsonQuestion<'a>>,
}

impl JsonUndecided<'_> {
    /// Returns what no single rule asks for.
    pub(crate) fn new(code: &'static str, text: String) -> Self {
        Self { code, text, rules: Vec::new() }
    }
}

/// Returns what could not be decided: nothing, or one entry for all rules that ask for addresses.
pub(crate) fn json_undecided<'a>(
    questions: &'a [AddressQuestion],
    undecided: bool,
    loaded: &'a Loaded,
) -> Vec<JsonUndecided<'a>> {
    if !undecided {
        return Vec::new();
    }
    let rules = questions.iter().map(|question| JsonQuestion::new(question, loaded)).collect();
    let text = format!("depends on pod addresses; {CURE}");
    vec![JsonUndecided { code: "pod-addresses", text, rules }]
}

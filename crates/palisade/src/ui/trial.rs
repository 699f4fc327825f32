//! What an edited policy would open and close. Nothing is written or applied.

use std::sync::Arc;

use anyhow::Result;
use palisade_lint::{Finding, LintOptions, LintReport, RULES, SourceText, lint};
use palisade_manifest::{Code, Diagnostic, Input, LoadOptions, Loaded, Severity, load};
use palisade_policy::{Name, Policy, PolicyKey};
use serde::{Deserialize, Serialize};

use super::{
    policy_text::{document, find},
    state::{JsonMessage, MOST_MESSAGES, message},
    world::{Source, World},
};
use crate::{
    diff::{self, JsonConsequences, Sides},
    lint::{JsonFinding, json_finding},
    output::Encoding,
    unified,
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.ui.try/v1";
/// The name of the edited text in messages.
const EDITOR: &str = "the editor";
/// The most findings.
const MOST_FINDINGS: usize = 100;
/// The longest patch, in bytes.
const MOST_PATCH: usize = 1 << 20;

/// What is tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempted {
    /// The page that tries it.
    pub(super) page: String,
    /// Policies as YAML or JSON. Those that exist are replaced.
    text: String,
    /// The policy in whose place they are, as answers name it.
    #[serde(default)]
    replaces: Option<String>,
}

/// The consequences of an attempt.
#[derive(Serialize)]
struct JsonTrial<'a> {
    schema: &'static str,
    /// The number of the objects with which the result was compared.
    world: u64,
    /// Why the text has no consequences.
    errors: Vec<JsonMessage<'a>>,
    warnings: Vec<JsonMessage<'a>>,
    /// What `palisade lint` finds in the text.
    findings: Vec<JsonFinding<'a>>,
    consequences: Option<JsonConsequences>,
    patch: Option<JsonPatch>,
}

/// The edit as a unified diff.
#[derive(Serialize)]
struct JsonPatch {
    file: String,
    text: String,
}

/// Another attempt replaced this one.
#[derive(Debug, thiserror::Error)]
#[error("a newer attempt replaced this one")]
pub(super) struct Superseded;

/// Evaluates an attempt. `is_wanted` is asked between the steps, and while connections are compared.
///
/// # Errors
/// [`Superseded`], and when the policy to be replaced does not exist.
pub(super) fn evaluate(
    attempt: &Attempted,
    world: &World,
    number: u64,
    source: &Source,
    is_wanted: &dyn Fn() -> bool,
) -> Result<String> {
    let proceed = || if is_wanted() { Ok(()) } else { Err(Superseded) };
    proceed()?;
    let replaced = attempt.replaces.as_deref().map(|name| find(world, name)).transpose()?;
    let edited = read(attempt, world, source);
    let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
    let mut errors: Vec<Diagnostic> = edited.diagnostics.iter().filter(is_error).cloned().collect();
    errors.extend(refused(attempt, &edited));
    let mut trial = JsonTrial {
        schema: SCHEMA,
        world: number,
        errors: Vec::new(),
        warnings: Vec::new(),
        findings: Vec::new(),
        consequences: None,
        patch: None,
    };
    if !errors.is_empty() {
        trial.errors = errors.iter().take(MOST_MESSAGES).map(message).collect();
        return Encoding::Json.encode(&trial);
    }
    let after = applied(&world.inputs.loaded, &edited, replaced.map(|policy| &policy.key));
    proceed()?;
    let (findings, mut warnings) = findings(&after, attempt, world);
    warnings.extend(homeless(&edited, &after));
    trial.findings = findings.iter().take(MOST_FINDINGS).map(json_finding).collect();
    trial.warnings = warnings.iter().take(MOST_MESSAGES).map(message).collect();
    proceed()?;
    let sides = Sides {
        sides: [world.inputs.loaded.clone(), after],
        namespace: world.inputs.namespace.clone(),
        missing: world.inputs.missing().to_vec(),
        notes: Vec::new(),
        unread: Vec::new(),
    };
    let routes = diff::routes(&source.arguments.controller, &sides)?;
    let comparison = diff::compared_while(sides, &routes, is_wanted).ok_or(Superseded)?;
    proceed()?;
    trial.consequences = Some(diff::consequences(&comparison));
    let document = replaced.and_then(|policy| document(world, policy));
    trial.patch = document.and_then(|document| {
        let (file, after) = (document.source.file().to_string(), document.replaced(&attempt.text));
        let text = unified::diff(&file, Some(document.source.text()), &after);
        (!text.is_empty() && text.len() <= MOST_PATCH).then_some(JsonPatch { file, text })
    });
    Encoding::Json.encode(&trial)
}

/// Reads the text alone.
fn read(attempt: &Attempted, world: &World, source: &Source) -> Loaded {
    let options = LoadOptions {
        default_namespace: world.inputs.namespace.clone(),
        // The namespaces are in what was read.
        all_namespaces: false,
        addresses: None,
        ..LoadOptions::default()
    };
    let options = source.arguments.sources.reading.options(options);
    load(&[Input::Text { name: EDITOR.to_owned(), text: attempt.text.clone() }], &options)
}

/// Returns why the text can't be tried, besides errors in it.
fn refused(attempt: &Attempted, edited: &Loaded) -> Option<Diagnostic> {
    let counts = &edited.counts;
    let is_policy = |kind: &str| edited.cluster.policies.keys().any(|key| &*key.kind == kind);
    let others: Vec<&str> =
        counts.objects.keys().map(|kind| &**kind).filter(|kind| !is_policy(kind)).collect();
    let text = if !others.is_empty() {
        format!("only policies can be tried, and this has: {}", others.join(", "))
    } else if edited.cluster.policies.is_empty() && (attempt.replaces.is_none() || counts.documents > 0) {
        "there is no policy in the text".to_owned()
    } else {
        return None;
    };
    (!edited.has_errors()).then(|| Diagnostic::new(Severity::Error, Code::NotAnObject, text))
}

/// Returns what was read with the edited policies in it.
fn applied(before: &Loaded, edited: &Loaded, replaced: Option<&PolicyKey>) -> Loaded {
    let mut after = before.clone();
    let gone: Vec<&PolicyKey> = edited.cluster.policies.keys().chain(replaced).collect();
    for key in &gone {
        after.cluster.policies.remove(*key);
    }
    after.ignored_rules.retain(|(key, _), _| !gone.contains(&key));
    after.refused.retain(|refused| !gone.contains(&&refused.key));
    let policies = edited.cluster.policies.iter();
    after.cluster.policies.extend(policies.map(|(key, policy)| (key.clone(), Arc::clone(policy))));
    after.origins.extend(edited.origins.iter().map(|(key, origin)| (key.clone(), origin.clone())));
    after.diagnostics.extend(edited.diagnostics.iter().cloned());
    after.ignored_rules.extend(edited.ignored_rules.iter().map(|(key, rules)| (key.clone(), rules.clone())));
    after
}

/// Returns warnings about edited policies in namespaces that don't exist.
fn homeless(edited: &Loaded, after: &Loaded) -> Vec<Diagnostic> {
    let cluster = &after.cluster;
    let exists = |name: &Name| {
        cluster.namespaces.contains_key(name) || cluster.pods.keys().any(|key| key.namespace == *name)
    };
    let warning = |(key, policy): (&PolicyKey, &Arc<Policy>)| {
        let text = format!("there is no namespace `{}`, and no pod in it", key.namespace);
        let object = Some(key.to_string());
        Diagnostic {
            origin: policy.origin.clone(),
            object,
            ..Diagnostic::new(Severity::Warning, Code::NoNamespace, text)
        }
    };
    let policies = edited.cluster.policies.iter();
    policies.filter(|(key, _)| !key.namespace.is_empty() && !exists(&key.namespace)).map(warning).collect()
}

/// Returns what the rules find in the text, and what the loader found there and no rule names.
fn findings(after: &Loaded, attempt: &Attempted, world: &World) -> (Vec<Finding>, Vec<Diagnostic>) {
    let mut texts = world.texts.clone();
    texts.push(SourceText::new(EDITOR, attempt.text.as_str()));
    let options = LintOptions { default_namespace: &world.inputs.namespace, plugin: None };
    let LintReport { mut findings, mut other, .. } = lint(after, &texts, RULES, &options);
    findings.retain(|found| found.origin.as_ref().is_some_and(|at| &*at.file == EDITOR));
    other.retain(|found| found.origin.as_ref().is_some_and(|at| &*at.file == EDITOR));
    (findings, other)
}

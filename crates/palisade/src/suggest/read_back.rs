//! Reads the text of a suggestion as the API server would, and compares it with the policies that were verified. Names and
//! labels come from records and manifests and may have any character.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use palisade_analysis::suggest::Suggestion;
use palisade_manifest::{Input, LoadOptions, Severity, load};
use palisade_policy::{Policy, PolicyKey, Rule};

use crate::escape;

/// Checks that a text means the policies of a suggestion, and nothing else.
///
/// # Errors
/// When it doesn't, because a label or a name is not one that an object may have.
pub(super) fn check(text: &str, suggestion: &Suggestion) -> Result<()> {
    let input = Input::Text { name: "suggestion".to_owned(), text: text.to_owned() };
    let options = LoadOptions { strict: true, ..LoadOptions::default() };
    let loaded = load(&[input], &options);
    if let Some(error) = loaded.diagnostics.iter().find(|found| found.severity == Severity::Error) {
        bail!("the API server would refuse a suggested policy: {}", escape::plain(&error.headline()));
    }
    let read: BTreeMap<&PolicyKey, Policy> =
        loaded.cluster.policies.iter().map(|(key, policy)| (key, without_origins(policy))).collect();
    let meant: BTreeMap<&PolicyKey, Policy> =
        suggestion.policies.iter().map(|one| (&one.policy.key, without_origins(&one.policy))).collect();
    if let Some(key) = meant.keys().chain(read.keys()).find(|key| read.get(*key) != meant.get(*key)) {
        bail!("{} reads as another policy than the one that was checked", escape::plain(&key.to_string()));
    }
    Ok(())
}

fn without_origins(policy: &Policy) -> Policy {
    let rules = |rules: &Option<Vec<Rule>>| {
        let mut rules = rules.clone();
        for rule in rules.iter_mut().flatten() {
            rule.origin = None;
            rule.peers.iter_mut().flatten().for_each(|peer| peer.origin = None);
            rule.ports.iter_mut().flatten().for_each(|port| port.origin = None);
        }
        rules
    };
    Policy { origin: None, ingress: rules(&policy.ingress), egress: rules(&policy.egress), ..policy.clone() }
}

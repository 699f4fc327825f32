//! Suggestions for names that don't exist.

/// The maximum number of suggestions.
pub(crate) const MAX_NEAR: usize = 3;

/// Returns the candidates with names similar to `name`, closest first.
pub(crate) fn near<'a>(name: &str, candidates: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    // Up to a third of the characters may differ, as in compilers. A name of which `name` is a prefix is similar too.
    let limit = name.chars().count().div_ceil(3);
    let mut close: Vec<(usize, String)> = candidates
        .filter_map(|(candidate, spelling)| {
            let distance = strsim::levenshtein(name, candidate);
            let begins = candidate.len() > name.len() && candidate.starts_with(name);
            (distance <= limit || begins)
                .then_some((if begins { distance.min(limit) } else { distance }, spelling))
        })
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().map(|(_, spelling)| spelling).take(MAX_NEAR).collect()
}

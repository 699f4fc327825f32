//! What somebody who wrote a name that doesn't exist may have meant.

/// As many suggestions as a person reads.
pub(crate) const MAX_NEAR: usize = 3;

/// The candidates whose names come close to `name`, closest first.
pub(crate) fn near<'a>(name: &str, candidates: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    // A third of the letters may be wrong, as compilers allow; a name that begins with the wish is close as well.
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

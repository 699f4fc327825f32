//! What somebody who wrote a name that doesn't exist may have meant.

/// As many suggestions as a person reads.
pub(super) const MAX_NEAR: usize = 3;

/// The candidates whose names come close to `name`, closest first.
pub(super) fn near<'a>(name: &str, candidates: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    // A third of the letters may be wrong, as compilers allow; a name that begins with the wish is close as well.
    let limit = name.chars().count().div_ceil(3);
    let mut close: Vec<(usize, String)> = candidates
        .filter_map(|(candidate, spelling)| {
            let distance = edit_distance(name, candidate);
            let begins = candidate.len() > name.len() && candidate.starts_with(name);
            (distance <= limit || begins)
                .then_some((if begins { distance.min(limit) } else { distance }, spelling))
        })
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().map(|(_, spelling)| spelling).take(MAX_NEAR).collect()
}

/// Levenshtein's distance in characters. `O(n·m)`; names are at most 253 characters long.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

//! Suggestions for names that don't exist.

/// The maximum number of suggestions.
pub(crate) const MAX_NEAR: usize = 3;

/// Returns the spellings of the candidates with names similar to `name`, closest first, at most three. Two letters that
/// are swapped count as one mistake.
#[must_use]
pub fn near<'a>(name: &str, candidates: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    // Up to a third of the characters may differ, as in compilers. A name of which `name` is a prefix is similar too, and
    // so is one that `name` begins with, if more than half of it is the same: `backend-1` for `backend`.
    let limit = name.chars().count().div_ceil(3);
    let mut close: Vec<(usize, String)> = candidates
        .filter_map(|(candidate, spelling)| {
            let distance = strsim::osa_distance(name, candidate);
            let begins = candidate.len() > name.len() && candidate.starts_with(name);
            let continues = name.starts_with(candidate) && candidate.len() * 2 > name.len();
            let related = begins || continues;
            (distance <= limit || related)
                .then_some((if related { distance.min(limit) } else { distance }, spelling))
        })
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().map(|(_, spelling)| spelling).take(MAX_NEAR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_missing_and_wrong_letters_are_found() {
        let names = ["frontend", "backend", "db", "web"];
        let near = |name| near(name, names.iter().map(|n| (*n, (*n).to_owned())));
        for typo in ["forntend", "fronted", "frontent", "front", "frontend-1"] {
            assert_eq!(near(typo), ["frontend"], "{typo}");
        }
        assert_eq!(near("bd"), ["db"]);
        assert!(near("gateway").is_empty());
    }
}
